//! Uncompressed video: YUV4MPEG2, which players and encoders read from files and pipes.
//!
//! The header is a line, every frame is the line `FRAME` and its planes: luma, then the two colour
//! differences. Colours are those of ITU-R BT.601.

use crate::{Error, Result};
use image::RgbImage;
use std::io::Write;

/// How many colour differences a [`Y4m`](super::VideoFormat::Y4m) file has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chroma {
    /// One of each kind for every square of 2×2 pixels, centred in it (`C420jpeg`): what most
    /// encoders take.
    #[default]
    Yuv420,
    /// One of each kind for every pixel (`C444`).
    Yuv444,
}

/// Form of a [`Y4m`](super::VideoFormat::Y4m) file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Y4mConfig {
    /// How many colour differences there are.
    pub chroma: Chroma,
    /// Whether black to white is 0 to 255 (`XCOLORRANGE=FULL`), instead of 16 to 235, which is what
    /// readers assume that ignore this field.
    pub full_range: bool,
}

/// Writes frames one at a time.
#[derive(Debug)]
pub(super) struct Y4mWriter<W> {
    out: W,
    config: Y4mConfig,
}

impl<W: Write> Y4mWriter<W> {
    /// Writes the header.
    pub(super) fn new(
        mut out: W,
        config: Y4mConfig,
        (width, height): (u32, u32),
        (numerator, denominator): (u32, u32),
    ) -> std::io::Result<Self> {
        let chroma = match config.chroma {
            Chroma::Yuv420 => "420jpeg",
            Chroma::Yuv444 => "444",
        };
        let range = if config.full_range { "FULL" } else { "LIMITED" };
        writeln!(
            out,
            "YUV4MPEG2 W{width} H{height} F{numerator}:{denominator} Ip A1:1 C{chroma} \
             XCOLORRANGE={range}"
        )?;
        Ok(Self { out, config })
    }

    pub(super) fn push(&mut self, frame: &RgbImage) -> std::io::Result<()> {
        self.out.write_all(b"FRAME\n")?;
        self.out.write_all(&planes(frame, self.config))
    }

    pub(super) fn finish(mut self) -> std::io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Luma and the two colour differences, plane by plane.
pub(super) fn planes(frame: &RgbImage, config: Y4mConfig) -> Vec<u8> {
    let (width, height) = frame.dimensions();
    let pixels = (width as usize) * (height as usize);
    let mut bytes = Vec::with_capacity(3 * pixels);
    bytes.extend(
        frame
            .pixels()
            .map(|pixel| luma(pixel.0.map(f64::from), config.full_range)),
    );
    let side = match config.chroma {
        Chroma::Yuv420 => 2,
        Chroma::Yuv444 => 1,
    };
    let (mut blue, mut red) = (vec![], vec![]);
    for top in (0..height).step_by(side) {
        for left in (0..width).step_by(side) {
            let (mut sum, mut count) = ([0.0; 3], 0.0);
            // A square at the edge of an odd size has fewer pixels.
            for y in top..height.min(top + side as u32) {
                for x in left..width.min(left + side as u32) {
                    let pixel = frame.get_pixel(x, y).0;
                    for (sum, value) in sum.iter_mut().zip(pixel) {
                        *sum += f64::from(value);
                    }
                    count += 1.0;
                }
            }
            let [b, r] = differences(sum.map(|sum| sum / count), config.full_range);
            blue.push(b);
            red.push(r);
        }
    }
    bytes.extend(blue);
    bytes.extend(red);
    bytes
}

/// Weights of red, green and blue in the luma of BT.601.
const WEIGHTS: [f64; 3] = [0.299, 0.587, 0.114];

fn brightness(pixel: [f64; 3]) -> f64 {
    pixel
        .iter()
        .zip(WEIGHTS)
        .map(|(value, weight)| value * weight)
        .sum()
}

fn luma(pixel: [f64; 3], full_range: bool) -> u8 {
    let y = brightness(pixel);
    if full_range {
        y.round() as u8
    } else {
        (16.0 + y * 219.0 / 255.0).round() as u8
    }
}

/// The differences of blue and of red from the luma.
fn differences(pixel: [f64; 3], full_range: bool) -> [u8; 2] {
    let y = brightness(pixel);
    let scale = if full_range { 1.0 } else { 224.0 / 255.0 };
    // Blue less luma reaches ±255·(1 − 0.114), which becomes ±127.5.
    let [_, _, blue] = pixel;
    let parts = [(blue - y) / 1.772, (pixel[0] - y) / 1.402];
    parts.map(|part| (128.0 + scale * part).round().clamp(0.0, 255.0) as u8)
}

/// The frames per second as a fraction, with the denominators that video has.
///
/// # Errors
/// [`Error::InvalidArgument`] if they are not above 0 and at most 1,000.
pub(super) fn frame_rate(fps: f64) -> Result<(u32, u32)> {
    let is_rate = fps <= 1000.0 && (fps * 1000.0).round() >= 1.0;
    if !is_rate {
        let expected = "frames per second: 0.001 to 1000";
        return Err(Error::argument("fps", fps, expected));
    }
    // Television's 23.976, 29.97 and 59.94 are multiples of 1000/1001.
    for (scale, denominator) in [(1.0, 1), (1000.0, 1001)] {
        let numerator = (fps * f64::from(denominator) / scale).round() * scale;
        if numerator > 0.0 && (numerator / f64::from(denominator) / fps - 1.0).abs() < 2e-6 {
            return Ok((numerator as u32, denominator));
        }
    }
    Ok(((fps * 1000.0).round() as u32, 1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    fn written(frame: &RgbImage, config: Y4mConfig) -> Vec<u8> {
        let mut writer = Y4mWriter::new(vec![], config, frame.dimensions(), (25, 1)).unwrap();
        writer.push(frame).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn colours_are_those_of_bt_601() {
        let bars = [
            [255, 255, 255],
            [0, 0, 0],
            [255, 0, 0],
            [0, 255, 0],
            [0, 0, 255],
        ];
        let frame = RgbImage::from_fn(5, 1, |x, _| Rgb(bars[x as usize]));
        let config = Y4mConfig {
            chroma: Chroma::Yuv444,
            full_range: false,
        };
        let file = written(&frame, config);
        let header = b"YUV4MPEG2 W5 H1 F25:1 Ip A1:1 C444 XCOLORRANGE=LIMITED\nFRAME\n";
        assert!(file.starts_with(header));
        // The bars of the recommendation.
        let planes = [
            [235, 16, 81, 145, 41],
            [128, 128, 90, 54, 240],
            [128, 128, 240, 34, 110],
        ];
        assert_eq!(file[header.len()..], planes.concat());
        let full = Y4mConfig {
            full_range: true,
            ..config
        };
        let file = written(&frame, full);
        assert_eq!(file[file.len() - 15..][..5], [255, 0, 76, 150, 29]);
        assert_eq!(file[file.len() - 10..][..5], [128, 128, 85, 44, 255]);
    }

    /// Squares at the edge of odd sizes have one or two pixels.
    #[test]
    fn chroma_of_squares_is_their_mean() {
        let frame = RgbImage::from_fn(3, 3, |x, y| {
            let red = if x == 2 || (x, y) == (0, 0) { 255 } else { 0 };
            Rgb([red, 0, 0])
        });
        let file = written(&frame, Y4mConfig::default());
        let start = file.windows(6).position(|part| part == b"FRAME\n").unwrap() + 6;
        let planes = &file[start..];
        assert_eq!(planes.len(), 9 + 4 + 4);
        // A quarter of red's 112, all of it, none.
        assert_eq!(planes[13..], [156, 240, 128, 240]);
    }

    #[test]
    fn rates_are_fractions() {
        for (fps, expected) in [
            (25.0, (25, 1)),
            (29.97, (30_000, 1001)),
            (23.976, (24_000, 1001)),
            (12.5, (12_500, 1000)),
            (0.001, (1, 1000)),
        ] {
            assert_eq!(frame_rate(fps).unwrap(), expected);
        }
        for fps in [0.0, -1.0, f64::NAN, f64::INFINITY, 1001.0, 1e-9] {
            assert!(frame_rate(fps).unwrap_err().to_string().contains("`fps`"));
        }
    }
}
