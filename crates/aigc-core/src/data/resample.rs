//! Resampling of images, bit for bit as Pillow 13 does it: two passes of fixed-point sums over
//! bytes, with kernels that widen as the image shrinks (antialiasing).
//!
//! Models that were trained on images resized by Pillow see exactly those bytes.

use crate::{Error, Result};
use std::f64::consts::PI;

/// Interpolation kernel, by Pillow's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resampling {
    /// The nearest pixel.
    Nearest,
    /// The mean of the pixels that a target pixel covers.
    Box,
    /// Linear interpolation.
    Bilinear,
    /// A cosine window of width 2 (Hamming).
    Hamming,
    /// Cubic convolution with the parameter −1/2 (Keys 1981).
    Bicubic,
    /// A sine cardinal of width 6, with a window (Lanczos).
    Lanczos,
}

impl Resampling {
    /// The kernel with Pillow's number, as in the field `resample` of image processors; `None` for
    /// another number.
    pub fn from_number(number: u64) -> Option<Self> {
        [
            Self::Nearest,
            Self::Lanczos,
            Self::Bilinear,
            Self::Bicubic,
            Self::Box,
            Self::Hamming,
        ]
        .get(usize::try_from(number).ok()?)
        .copied()
    }

    /// Pillow's number of the kernel.
    pub fn number(self) -> u64 {
        match self {
            Self::Nearest => 0,
            Self::Lanczos => 1,
            Self::Bilinear => 2,
            Self::Bicubic => 3,
            Self::Box => 4,
            Self::Hamming => 5,
        }
    }

    /// Distance from which on the kernel is zero.
    fn support(self) -> f64 {
        match self {
            Self::Nearest | Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let distance = x.abs();
        match self {
            Self::Nearest | Self::Box => f64::from(x > -0.5 && x <= 0.5),
            Self::Bilinear => (1.0 - distance).max(0.0),
            Self::Hamming if distance == 0.0 => 1.0,
            Self::Hamming if distance >= 1.0 => 0.0,
            Self::Hamming => {
                let angle = distance * PI;
                // Pillow has these constants as 32-bit floats.
                angle.sin() / angle * (f64::from(0.54f32) + f64::from(0.46f32) * angle.cos())
            }
            Self::Bicubic => {
                const A: f64 = -0.5;
                if distance < 1.0 {
                    ((A + 2.0) * distance - (A + 3.0)) * distance * distance + 1.0
                } else if distance < 2.0 {
                    (((distance - 5.0) * distance + 8.0) * distance - 4.0) * A
                } else {
                    0.0
                }
            }
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let angle = x * PI;
    angle.sin() / angle
}

/// Limit on the size of an image.
const MAX_BYTES: usize = 1 << 31;
/// Fractional bits of the weights.
const BITS: u32 = 32 - 8 - 2;
/// One half, for rounding.
const HALF: i32 = 1 << (BITS - 1);

/// The source pixels of a target pixel along one axis, and their weights.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

fn taps(from: usize, to: usize, filter: Resampling) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let (support, narrow) = (filter.support() * stretch, 1.0 / stretch);
    (0..to)
        .map(|target| {
            let center = (target as f64 + 0.5) * scale;
            // Casts truncate and saturate, so negative bounds become 0.
            let first = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let weights: Vec<f64> = (first..end)
                .map(|source| filter.weight((source as f64 - center + 0.5) * narrow))
                .collect();
            let total: f64 = weights.iter().sum();
            let fixed = |weight: f64| {
                let weight = if total == 0.0 { weight } else { weight / total };
                let scaled = weight * f64::from(1 << BITS);
                // Rounded to the nearest integer, halves away from zero.
                (scaled + if weight < 0.0 { -0.5 } else { 0.5 }) as i32
            };
            Taps {
                first,
                weights: weights.into_iter().map(fixed).collect(),
            }
        })
        .collect()
}

/// A byte from a sum of bytes with weights, rounded.
fn byte(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// Resizes an image of bytes, as Pillow's `Image.resize` does for `L` and `RGB`. Every channel is
/// treated alike: Pillow multiplies colours by the alpha channel of `RGBA` first, this function
/// does not.
///
/// # Shapes
/// - pixels: `[height, width, channels]`, channels fastest, for `from` = `[height, width]`
/// - output: `[height, width, channels]` for `to`
///
/// # Errors
/// [`Error::InvalidArgument`] if a size is 0, there are not as many pixels as `from` says, or the
/// result would be larger than 2 GiB.
pub fn resample(
    pixels: &[u8],
    channels: usize,
    from: [usize; 2],
    to: [usize; 2],
    filter: Resampling,
) -> Result<Vec<u8>> {
    let sizes = [channels, from[0], from[1], to[0], to[1]];
    let n = from[0]
        .checked_mul(from[1])
        .and_then(|n| n.checked_mul(channels));
    if sizes.contains(&0) || n != Some(pixels.len()) {
        let expected = format!(
            "the pixels of {} × {} × {channels}, none of them 0, for an image of {} × {}",
            from[0], from[1], to[0], to[1]
        );
        return Err(Error::argument(
            "pixels",
            format!("{} bytes", pixels.len()),
            expected,
        ));
    }
    // Between the passes, the image has one side of each.
    let largest = from[0]
        .max(to[0])
        .checked_mul(from[1].max(to[1]))
        .and_then(|n| n.checked_mul(channels));
    if largest.is_none_or(|n| n > MAX_BYTES) {
        return Err(Error::argument(
            "to",
            format!("{} × {}", to[0], to[1]),
            format!("a size with at most {MAX_BYTES} bytes"),
        ));
    }
    if from == to {
        return Ok(pixels.to_vec());
    }
    if filter == Resampling::Nearest {
        return Ok(nearest(pixels, channels, from, to));
    }
    let ([height, width], [new_height, new_width]) = (from, to);
    let in_rows =
        |pixels: &[u8]| horizontal(pixels, channels, taps(width, new_width, filter), width);
    let in_columns = |pixels: &[u8], width: usize| {
        vertical(pixels, width * channels, taps(height, new_height, filter))
    };
    let rows = height.saturating_sub(new_height);
    let columns = width.saturating_sub(new_width);
    Ok(match (width == new_width, height == new_height) {
        (true, _) => in_columns(pixels, width),
        (_, true) => in_rows(pixels),
        // As in Pillow 13: the vertical pass comes first if it removes more than twice as many rows
        // as the horizontal pass removes columns. Earlier versions always begin with the horizontal
        // pass.
        _ if rows > 2 * columns => in_rows(&in_columns(pixels, width)),
        _ => in_columns(&in_rows(pixels), new_width),
    })
}

fn horizontal(pixels: &[u8], channels: usize, taps: Vec<Taps>, width: usize) -> Vec<u8> {
    let rows = pixels.len() / (width * channels);
    let mut out = Vec::with_capacity(rows * taps.len() * channels);
    for row in pixels.chunks_exact(width * channels) {
        for Taps { first, weights } in &taps {
            for channel in 0..channels {
                let source = row[first * channels + channel..].iter();
                let terms = source.step_by(channels).zip(weights);
                let add = |sum: i32, (x, weight): (&u8, &i32)| sum + i32::from(*x) * weight;
                out.push(byte(terms.fold(HALF, add)));
            }
        }
    }
    out
}

fn vertical(pixels: &[u8], stride: usize, taps: Vec<Taps>) -> Vec<u8> {
    let mut out = Vec::with_capacity(taps.len() * stride);
    let mut sums = vec![0i32; stride];
    for Taps { first, weights } in taps {
        sums.fill(HALF);
        for (row, weight) in pixels[first * stride..].chunks_exact(stride).zip(weights) {
            for (sum, x) in sums.iter_mut().zip(row) {
                *sum += i32::from(*x) * weight;
            }
        }
        out.extend(sums.iter().map(|sum| byte(*sum)));
    }
    out
}

fn nearest(pixels: &[u8], channels: usize, from: [usize; 2], to: [usize; 2]) -> Vec<u8> {
    // As in Pillow, the position advances by additions.
    let sources = |from: usize, to: usize| -> Vec<usize> {
        let scale = from as f64 / to as f64;
        let mut at = scale * 0.5;
        (0..to)
            .map(|_| {
                let source = (at as usize).min(from - 1);
                at += scale;
                source
            })
            .collect()
    };
    let columns = sources(from[1], to[1]);
    let mut out = Vec::with_capacity(to[0] * to[1] * channels);
    for row in sources(from[0], to[0]) {
        for column in &columns {
            let start = (row * from[1] + column) * channels;
            out.extend_from_slice(&pixels[start..start + channels]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Resampling::*, *};

    /// Kernel, channels, size before and after, and the sum of all bytes times their places.
    type Case = (Resampling, usize, [usize; 2], [usize; 2], u32);

    /// Printed by `tests/reference/resample.py`.
    #[rustfmt::skip]
    const PILLOW: [Case; 84] = [
        (Nearest, 1, [28, 28], [28, 40], 80_296_616),
        (Nearest, 1, [20, 17], [32, 27], 46_182_087),
        (Nearest, 1, [50, 77], [28, 43], 91_701_244),
        (Nearest, 1, [101, 40], [70, 28], 242_640_062),
        (Nearest, 1, [9, 200], [31, 5], 1_655_402),
        (Nearest, 1, [64, 64], [8, 8], 248_644),
        (Nearest, 1, [3, 2], [1, 1], 152),
        (Nearest, 3, [28, 28], [28, 40], 714_729_880),
        (Nearest, 3, [20, 17], [32, 27], 426_979_010),
        (Nearest, 3, [50, 77], [28, 43], 837_132_359),
        (Nearest, 3, [101, 40], [70, 28], 2_221_679_946),
        (Nearest, 3, [9, 200], [31, 5], 14_751_678),
        (Nearest, 3, [64, 64], [8, 8], 2_405_150),
        (Nearest, 3, [3, 2], [1, 1], 616),
        (Box, 1, [28, 28], [28, 40], 80_296_616),
        (Box, 1, [20, 17], [32, 27], 46_182_087),
        (Box, 1, [50, 77], [28, 43], 92_695_825),
        (Box, 1, [101, 40], [70, 28], 244_941_917),
        (Box, 1, [9, 200], [31, 5], 1_579_157),
        (Box, 1, [64, 64], [8, 8], 262_199),
        (Box, 1, [3, 2], [1, 1], 95),
        (Box, 3, [28, 28], [28, 40], 714_729_880),
        (Box, 3, [20, 17], [32, 27], 426_979_010),
        (Box, 3, [50, 77], [28, 43], 846_880_553),
        (Box, 3, [101, 40], [70, 28], 2_239_912_236),
        (Box, 3, [9, 200], [31, 5], 13_976_353),
        (Box, 3, [64, 64], [8, 8], 2_384_561),
        (Box, 3, [3, 2], [1, 1], 698),
        (Bilinear, 1, [28, 28], [28, 40], 78_693_815),
        (Bilinear, 1, [20, 17], [32, 27], 45_977_189),
        (Bilinear, 1, [50, 77], [28, 43], 92_418_290),
        (Bilinear, 1, [101, 40], [70, 28], 246_490_532),
        (Bilinear, 1, [9, 200], [31, 5], 1_577_337),
        (Bilinear, 1, [64, 64], [8, 8], 262_387),
        (Bilinear, 1, [3, 2], [1, 1], 95),
        (Bilinear, 3, [28, 28], [28, 40], 721_067_718),
        (Bilinear, 3, [20, 17], [32, 27], 425_164_150),
        (Bilinear, 3, [50, 77], [28, 43], 841_098_698),
        (Bilinear, 3, [101, 40], [70, 28], 2_231_518_732),
        (Bilinear, 3, [9, 200], [31, 5], 13_944_535),
        (Bilinear, 3, [64, 64], [8, 8], 2_386_323),
        (Bilinear, 3, [3, 2], [1, 1], 692),
        (Hamming, 1, [28, 28], [28, 40], 79_167_162),
        (Hamming, 1, [20, 17], [32, 27], 46_051_313),
        (Hamming, 1, [50, 77], [28, 43], 92_401_143),
        (Hamming, 1, [101, 40], [70, 28], 245_315_152),
        (Hamming, 1, [9, 200], [31, 5], 1_574_163),
        (Hamming, 1, [64, 64], [8, 8], 263_232),
        (Hamming, 1, [3, 2], [1, 1], 95),
        (Hamming, 3, [28, 28], [28, 40], 719_198_661),
        (Hamming, 3, [20, 17], [32, 27], 425_841_634),
        (Hamming, 3, [50, 77], [28, 43], 840_874_370),
        (Hamming, 3, [101, 40], [70, 28], 2_232_043_833),
        (Hamming, 3, [9, 200], [31, 5], 13_934_861),
        (Hamming, 3, [64, 64], [8, 8], 2_385_579),
        (Hamming, 3, [3, 2], [1, 1], 694),
        (Bicubic, 1, [28, 28], [28, 40], 78_825_827),
        (Bicubic, 1, [20, 17], [32, 27], 45_997_444),
        (Bicubic, 1, [50, 77], [28, 43], 92_393_500),
        (Bicubic, 1, [101, 40], [70, 28], 246_238_194),
        (Bicubic, 1, [9, 200], [31, 5], 1_577_699),
        (Bicubic, 1, [64, 64], [8, 8], 261_887),
        (Bicubic, 1, [3, 2], [1, 1], 95),
        (Bicubic, 3, [28, 28], [28, 40], 720_317_033),
        (Bicubic, 3, [20, 17], [32, 27], 425_371_050),
        (Bicubic, 3, [50, 77], [28, 43], 841_222_826),
        (Bicubic, 3, [101, 40], [70, 28], 2_231_289_733),
        (Bicubic, 3, [9, 200], [31, 5], 13_948_594),
        (Bicubic, 3, [64, 64], [8, 8], 2_383_914),
        (Bicubic, 3, [3, 2], [1, 1], 697),
        (Lanczos, 1, [28, 28], [28, 40], 78_839_883),
        (Lanczos, 1, [20, 17], [32, 27], 46_044_118),
        (Lanczos, 1, [50, 77], [28, 43], 92_388_876),
        (Lanczos, 1, [101, 40], [70, 28], 246_160_362),
        (Lanczos, 1, [9, 200], [31, 5], 1_576_495),
        (Lanczos, 1, [64, 64], [8, 8], 261_752),
        (Lanczos, 1, [3, 2], [1, 1], 95),
        (Lanczos, 3, [28, 28], [28, 40], 720_266_050),
        (Lanczos, 3, [20, 17], [32, 27], 425_454_607),
        (Lanczos, 3, [50, 77], [28, 43], 841_196_999),
        (Lanczos, 3, [101, 40], [70, 28], 2_231_597_608),
        (Lanczos, 3, [9, 200], [31, 5], 13_943_032),
        (Lanczos, 3, [64, 64], [8, 8], 2_384_111),
        (Lanczos, 3, [3, 2], [1, 1], 695),
    ];

    #[test]
    fn images_equal_those_of_pillow() {
        for (filter, channels, from, to, expected) in PILLOW {
            let places = (0..from[0]).flat_map(|y| (0..from[1]).map(move |x| (y, x)));
            let pixels: Vec<u8> = places
                .flat_map(|(y, x)| {
                    (0..channels)
                        .map(move |c| (37 * y + 101 * x + 59 * c + x * y % 7 * 13 + x * x) as u8)
                })
                .collect();
            let found = resample(&pixels, channels, from, to, filter).unwrap();
            assert_eq!(found.len(), to[0] * to[1] * channels);
            let sum = found.iter().zip(1u32..).fold(0u32, |sum, (byte, place)| {
                sum.wrapping_add(u32::from(*byte).wrapping_mul(place))
            });
            assert_eq!(sum, expected, "{filter:?} {channels} {from:?} {to:?}");
        }
    }

    #[test]
    fn same_size_is_a_copy_and_wrong_sizes_are_errors() {
        let pixels = [1, 2, 3, 4, 5, 6];
        let same = resample(&pixels, 3, [1, 2], [1, 2], Lanczos).unwrap();
        assert_eq!(same, pixels);
        for (from, to) in [([1, 3], [1, 1]), ([1, 2], [0, 1]), ([0, 0], [1, 1])] {
            let message = resample(&pixels, 3, from, to, Box).unwrap_err().to_string();
            assert!(message.contains("`pixels` is 6 bytes"), "{message}");
        }
        for to in [[usize::MAX, 2], [1 << 20, 1 << 20]] {
            let message = resample(&pixels, 3, [1, 2], to, Box).unwrap_err();
            assert!(message.to_string().contains("`to` is"), "{message}");
        }
        for number in 0..6 {
            assert_eq!(Resampling::from_number(number).unwrap().number(), number);
        }
        assert_eq!(Resampling::from_number(6), None);
    }
}
