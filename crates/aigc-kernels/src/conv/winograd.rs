//! 3×3 convolutions with stride 1 and half of the multiplications: Winograd's F(4, 3) along the
//! columns of the image (Lavin and Gray 2015, <https://arxiv.org/abs/1509.09308>), direct sums
//! along its rows.
//!
//! Four output rows depend on six input rows. These, and the three vertically adjacent weights, are
//! transformed to six points; the products are summed over channels and the kernel's columns (six
//! 1×3 convolutions), and transformed to the four rows. Compared with the two-dimensional algorithm
//! it saves half instead of three quarters of the multiplications, but the transforms are sums of
//! whole rows, no pixel is shuffled within a vector, and rounding errors stay smaller.

use super::points::{Scheme, Three, map_rows, unmap};
use crate::{
    memory::{filled, volume},
    simd::arch,
    threads::{Scratch, Shared, for_each},
    tile::{Listed, Operands, Strided, column_tiles, row_tiles, tallest, tile, widest},
};
use pulp::{Simd, WithSimd};

/// Output rows that are computed together.
const OUT: usize = Three::OUT;
/// Input rows of [`OUT`] output rows, and points of the transform.
const IN: usize = Three::POINTS;

/// Bytes of transformed input that one part processes: half of a second-level cache.
const MAPPED_BYTES: usize = 512 * 1024;

/// A 3×3 convolution with stride 1.
pub(super) struct Winograd<'a> {
    pub x: &'a [f32],
    pub batch: usize,
    pub channels: usize,
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Height and width of the output.
    pub output: [usize; 2],
    /// Rows and columns of zeros before the input.
    pub pad: [usize; 2],
    pub weight: &'a [f32],
    /// Strides of `weight` along rows and channels.
    pub weight_strides: [usize; 2],
    /// Whether the kernel is rotated by 180°.
    pub rotated: bool,
    /// Output channels.
    pub rows: usize,
    pub bias: Option<&'a [f32]>,
}

impl Winograd<'_> {
    /// Bands of [`OUT`] rows per image.
    fn bands(&self) -> usize {
        self.output[0].div_ceil(OUT)
    }

    /// Width of a transformed row: the output's, plus the reach of the kernel.
    fn width(&self) -> usize {
        self.output[1] + 2
    }

    /// Estimated cycles per image of a large batch.
    pub(super) fn cycles(&self, lanes: usize) -> usize {
        /// Transformed weights that are still fast to read again.
        const CACHED_BYTES: usize = 2 << 20;
        let weights = self.channels * self.rows * IN * 3;
        let products = self.width() * weights / (2 * lanes);
        let maps = self.width().div_ceil(lanes) * (14 * self.channels + 40 * self.rows);
        let mut cycles = products + maps;
        // What follows is fitted on AVX2 (Zen 3); with wider vectors it was not measured.
        if lanes <= 8 {
            // Every panel of pixels reads all weights.
            if 4 * weights > CACHED_BYTES {
                cycles += products / 4;
            }
            // A line that is narrower than a vector is copied element by element.
            let width = self.output[1];
            let line = 25 + if width < lanes { 3 * width } else { 0 };
            cycles += OUT * self.rows * line;
        }
        self.bands() * cycles
    }

    pub(super) fn run(self) -> Vec<f32> {
        arch().dispatch(self)
    }

    /// The transformed weights, `[tile of rows, 6, channel, kernel column, height]`.
    fn map_weights(&self, tallest: usize) -> Vec<f32> {
        let tiles: Vec<(usize, usize)> = row_tiles(self.rows, tallest).collect();
        let padded = tiles.last().map_or(0, |(first, height)| first + height);
        let depth = 3 * self.channels;
        let [row_stride, channel_stride] = self.weight_strides;
        let len = volume(&[IN, padded, depth]);
        let write = |mapped: &mut [f32]| {
            let mapped = Shared::new(mapped);
            for_each(tiles.len(), 4 * len, |index| {
                let (first, height) = tiles[index];
                // SAFETY: tiles are disjoint.
                let mapped = unsafe { mapped.range(first * IN * depth, height * IN * depth) };
                for channel in 0..self.channels {
                    for row in 0..height {
                        let mut kernel = [0.0; 9];
                        if first + row < self.rows {
                            let at = (first + row) * row_stride + channel * channel_stride;
                            kernel.copy_from_slice(&self.weight[at..at + 9]);
                        }
                        if self.rotated {
                            kernel.reverse();
                        }
                        for column in 0..3 {
                            let points = Three::weights([
                                kernel[column],
                                kernel[3 + column],
                                kernel[6 + column],
                            ]);
                            for (point, value) in points.into_iter().take(IN).enumerate() {
                                mapped[(point * depth + channel * 3 + column) * height + row] =
                                    value;
                            }
                        }
                    }
                }
            });
        };
        // SAFETY: the tiles cover all rows, and each writes every point, channel, column and row.
        unsafe { filled(len, write) }
    }
}

impl WithSimd for Winograd<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        let weights = self.map_weights(tallest::<S>());
        let image = volume(&[self.rows, self.output[0], self.output[1]]);
        let mapped = 4 * IN * self.channels * self.bands() * self.width();
        let most = (self.batch / (2 * rayon::current_num_threads())).max(1);
        // Several images if one alone is only a few vectors.
        let wanted = (48 * S::F32_LANES).div_ceil(self.bands() * self.width());
        let group = wanted.min(MAPPED_BYTES / mapped.max(1)).clamp(1, most);
        let work = 18 * self.batch * self.bands() * OUT * self.width() * self.channels * self.rows;
        let write = |y: &mut [f32]| {
            let y = Shared::new(y);
            for_each(self.batch.div_ceil(group), work, |part| {
                let first = part * group;
                let images = group.min(self.batch - first);
                // SAFETY: parts have disjoint images.
                let y = unsafe { y.range(first * image, images * image) };
                simd.vectorize(Split {
                    winograd: &self,
                    simd,
                    weights: &weights,
                    y,
                    first,
                    images,
                });
            });
        };
        // SAFETY: the parts cover all images, and `Split` copies the sums of all their pixels.
        unsafe { filled(volume(&[self.batch, image]), write) }
    }
}

/// The part of a [`Winograd`] for some images.
struct Split<'a, S> {
    winograd: &'a Winograd<'a>,
    simd: S,
    weights: &'a [f32],
    y: &'a mut [f32],
    first: usize,
    images: usize,
}

impl<S: Simd> pulp::NullaryFnOnce for Split<'_, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            winograd,
            simd,
            weights,
            y,
            first,
            images,
        } = self;
        let Winograd {
            channels,
            rows,
            input: [height, columns],
            output,
            ..
        } = *winograd;
        let (lanes, tallest) = (S::F32_LANES, tallest::<S>());
        let (bands, width) = (winograd.bands(), winograd.width());
        // The transformed rows of all images are contiguous; the padding between the pixels of two
        // rows is computed and ignored.
        let plane = volume(&[images, bands, width]);
        let places = plane - (width - output[1]);
        let panel = widest::<S>() * lanes;
        // One point of all channels, plus room for a vector that is read or written beyond the last
        // row.
        let point_len = volume(&[channels, plane]) + panel;
        let mut scratch = Scratch::new([
            volume(&[IN, point_len]),
            volume(&[bands * OUT + IN - OUT, width]) + lanes,
            IN * tallest * panel,
        ]);
        let [mapped, padded, sums] = scratch.split();
        for channel in 0..channels {
            for image in 0..images {
                let from = ((first + image) * channels + channel) * height * columns;
                let map = &winograd.x[from..from + height * columns];
                for (row, line) in padded.chunks_exact_mut(width).enumerate() {
                    let row = row.wrapping_sub(winograd.pad[0]);
                    if row < height {
                        // Columns of the input beyond the reach of the output are not read.
                        let (before, line) = line.split_at_mut(winograd.pad[1]);
                        before.fill(0.0);
                        let (inside, after) = line.split_at_mut(columns.min(line.len()));
                        inside.copy_from_slice(&map[row * columns..][..inside.len()]);
                        after.fill(0.0);
                    } else {
                        line.fill(0.0);
                    }
                }
                for band in 0..bands {
                    let to = channel * plane + (image * bands + band) * width;
                    map_rows::<S, Three>(
                        simd,
                        &padded[band * OUT * width..],
                        &mut mapped[to..],
                        width,
                        point_len,
                    );
                }
            }
        }
        let offsets: Vec<usize> = (0..channels)
            .flat_map(|c| [0, 1, 2].map(|column| c * plane + column))
            .collect();
        let vectors = places.div_ceil(lanes);
        for (first, vectors) in column_tiles(vectors, widest::<S>()) {
            let at = first * lanes;
            for (row, height) in row_tiles(rows, tallest) {
                for point in 0..IN {
                    let depth = offsets.len();
                    let weights = &weights[(row * IN + point * height) * depth..][..height * depth];
                    let input = &mapped[point * point_len + at..]
                        [..(channels - 1) * plane + 2 + vectors * lanes];
                    let sums = &mut sums[point * height * panel..][..height * panel];
                    let operands = Operands {
                        k: depth,
                        a: Strided {
                            start: weights.as_ptr(),
                            row: 1,
                            k: height,
                        },
                        b: Listed {
                            start: input.as_ptr(),
                            offsets: &offsets,
                        },
                        c: sums.as_mut_ptr(),
                        c_row: panel,
                        add: false,
                    };
                    // SAFETY: A is `depth` columns of `height`; the last row of B starts two after
                    // the last channel's start; C is `height` rows of `panel`: the slices above.
                    unsafe { tile(simd, height, vectors, operands) };
                }
                for row_of in 0..height.min(rows - row) {
                    let row = row + row_of;
                    let sums = &mut sums[row_of * panel..];
                    let bias = winograd.bias.map_or(0.0, |bias| bias[row]);
                    unmap::<S, Three>(simd, sums, vectors, height * panel, bias);
                    for run in (at / width..)
                        .map(|line| line * width)
                        .take_while(|start| *start < at + vectors * lanes)
                    {
                        let (begin, end) = (
                            run.max(at),
                            (run + output[1]).min(at + vectors * lanes).min(places),
                        );
                        if begin >= end {
                            continue;
                        }
                        let (image, band) = (run / width / bands, run / width % bands);
                        for a in 0..OUT.min(output[0] - band * OUT) {
                            let to = ((image * rows + row) * output[0] + band * OUT + a)
                                * output[1]
                                + begin
                                - run;
                            let from = &sums[a * height * panel + begin - at..][..end - begin];
                            copy::<S>(from, &mut y[to..to + end - begin]);
                        }
                    }
                }
            }
        }
    }
}

/// Copies a few elements without a call of `memcpy`.
#[inline(always)]
fn copy<S: Simd>(from: &[f32], to: &mut [f32]) {
    let (from_body, from_rest) = S::as_simd_f32s(from);
    let (to_body, to_rest) = S::as_mut_simd_f32s(to);
    to_body
        .iter_mut()
        .zip(from_body)
        .for_each(|(to, from)| *to = *from);
    if to_rest.is_empty() {
        return;
    }
    if to_body.is_empty() {
        to_rest
            .iter_mut()
            .zip(from_rest)
            .for_each(|(to, from)| *to = *from);
    } else {
        // The tail is covered by a vector that overlaps the previous one.
        let at = from.len() - S::F32_LANES;
        S::as_mut_simd_f32s(&mut to[at..]).0[0] = S::as_simd_f32s(&from[at..]).0[0];
    }
}
