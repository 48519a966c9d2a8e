//! Animated PNG (PNG specification, third edition, section 11.3.6): lossless, in all browsers.
//!
//! Every frame is compressed as a still picture, whose data then become those of the frame. The
//! number of frames is written at the end.

use flate2::Crc;
use image::{
    ExtendedColorType, ImageEncoder, RgbImage,
    codecs::png::{CompressionType, FilterType, PngEncoder},
};
use std::io::{Error, Result, Seek, SeekFrom, Write};

const SIGNATURE: usize = 8;
/// Length, kind and checksum of a chunk.
const AROUND: usize = 12;
/// Where `acTL` begins: behind the signature and the header of 13 bytes.
const CONTROL: u64 = (SIGNATURE + AROUND + 13) as u64;

/// Writes frames one at a time.
#[derive(Debug)]
pub(super) struct ApngWriter<W> {
    out: W,
    grey: bool,
    /// Seconds that a frame is shown, as a fraction.
    delay: (u16, u16),
    frames: u32,
    /// Number of the next chunk that is numbered.
    sequence: u32,
}

impl<W: Write + Seek> ApngWriter<W> {
    /// An animation of grey frames, whose red channel is taken, or of coloured ones.
    pub(super) fn new(out: W, grey: bool, (numerator, denominator): (u32, u32)) -> Self {
        let delay = match (u16::try_from(denominator), u16::try_from(numerator)) {
            (Ok(seconds), Ok(frames)) => (seconds, frames),
            _ => {
                let millis = 1000.0 * f64::from(denominator) / f64::from(numerator);
                (millis.round().clamp(1.0, 65_535.0) as u16, 1000)
            }
        };
        Self {
            out,
            grey,
            delay,
            frames: 0,
            sequence: 0,
        }
    }

    pub(super) fn push(&mut self, frame: &RgbImage) -> Result<()> {
        let png = still(frame, self.grey).map_err(Error::other)?;
        let is_first = self.frames == 0;
        if is_first {
            self.out.write_all(&png[..CONTROL as usize])?;
            write_chunk(&mut self.out, b"acTL", &control(0))?;
        }
        let mut data = self.next_number().to_vec();
        let (width, height) = frame.dimensions();
        for size in [width, height, 0, 0] {
            data.extend(size.to_be_bytes());
        }
        data.extend(self.delay.0.to_be_bytes());
        data.extend(self.delay.1.to_be_bytes());
        // The next frame is drawn over this one, and replaces it.
        data.extend([0, 0]);
        write_chunk(&mut self.out, b"fcTL", &data)?;
        for (kind, data) in chunks(&png) {
            match (kind == b"IDAT", is_first) {
                (true, true) => write_chunk(&mut self.out, b"IDAT", data)?,
                (true, false) => {
                    let mut numbered = self.next_number().to_vec();
                    numbered.extend(data);
                    write_chunk(&mut self.out, b"fdAT", &numbered)?;
                }
                (false, _) => {}
            }
        }
        self.frames += 1;
        Ok(())
    }

    fn next_number(&mut self) -> [u8; 4] {
        self.sequence += 1;
        (self.sequence - 1).to_be_bytes()
    }

    /// Writes the end and the number of frames.
    pub(super) fn finish(mut self) -> Result<W> {
        write_chunk(&mut self.out, b"IEND", &[])?;
        self.out.seek(SeekFrom::Start(CONTROL))?;
        write_chunk(&mut self.out, b"acTL", &control(self.frames))?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Number of frames, and no limit on the number of plays.
fn control(frames: u32) -> [u8; 8] {
    let [a, b, c, d] = frames.to_be_bytes();
    [a, b, c, d, 0, 0, 0, 0]
}

/// A frame as a PNG file.
fn still(frame: &RgbImage, grey: bool) -> image::ImageResult<Vec<u8>> {
    let mut png = vec![];
    let encoder =
        PngEncoder::new_with_quality(&mut png, CompressionType::Default, FilterType::Adaptive);
    let (width, height) = frame.dimensions();
    if grey {
        let pixels: Vec<u8> = frame.pixels().map(|pixel| pixel.0[0]).collect();
        encoder.write_image(&pixels, width, height, ExtendedColorType::L8)?;
    } else {
        encoder.write_image(frame.as_raw(), width, height, ExtendedColorType::Rgb8)?;
    }
    Ok(png)
}

/// Kinds and data of the chunks of a well-formed PNG file.
fn chunks(png: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = &png[SIGNATURE..];
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        let (kind, behind) = behind.split_at_checked(4)?;
        let (data, behind) = behind.split_at_checked(length)?;
        rest = behind.get(4..)?;
        Some((kind, data))
    })
}

fn write_chunk(out: &mut impl Write, kind: &[u8; 4], data: &[u8]) -> Result<()> {
    let mut crc = Crc::new();
    crc.update(kind);
    crc.update(data);
    let length = u32::try_from(data.len()).map_err(Error::other)?;
    out.write_all(&length.to_be_bytes())?;
    out.write_all(kind)?;
    out.write_all(data)?;
    out.write_all(&crc.sum().to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{AnimationDecoder, ImageDecoder, Rgb, codecs::png::PngDecoder};
    use std::{io::Cursor, time::Duration};

    fn written(frames: &[RgbImage], grey: bool, rate: (u32, u32)) -> Vec<u8> {
        let mut writer = ApngWriter::new(Cursor::new(vec![]), grey, rate);
        for frame in frames {
            writer.push(frame).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn frames_return_without_loss() {
        let frames: Vec<RgbImage> = (0..4u32)
            .map(|t| RgbImage::from_fn(7, 5, |x, y| Rgb([x + t, 40 * y, 9 * t].map(|v| v as u8))))
            .collect();
        let file = written(&frames, false, (25, 1));
        let decoder = PngDecoder::new(Cursor::new(&file)).unwrap();
        assert!(decoder.is_apng().unwrap());
        let found = decoder
            .apng()
            .unwrap()
            .into_frames()
            .collect_frames()
            .unwrap();
        assert_eq!(found.len(), 4);
        for (found, expected) in found.iter().zip(&frames) {
            let rgba = image::DynamicImage::from(expected.clone()).into_rgba8();
            assert_eq!(found.buffer(), &rgba);
            assert_eq!(Duration::from(found.delay()), Duration::from_millis(40));
        }
        // Programs that know no animation see the first frame.
        let still = image::load_from_memory(&file).unwrap().into_rgb8();
        assert_eq!(still, frames[0]);
    }

    #[test]
    fn grey_frames_have_one_channel() {
        let frames = [10, 200].map(|value| RgbImage::from_pixel(3, 2, Rgb([value; 3])));
        let file = written(&frames, true, (30_000, 1001));
        let decoder = PngDecoder::new(Cursor::new(&file)).unwrap();
        assert_eq!(decoder.color_type(), image::ColorType::L8);
        let found = decoder
            .apng()
            .unwrap()
            .into_frames()
            .collect_frames()
            .unwrap();
        assert_eq!(found[1].buffer().get_pixel(2, 1).0, [200, 200, 200, 255]);
        let long = ApngWriter::new(Cursor::new(vec![]), true, (100_000, 1000));
        assert_eq!(long.delay, (10, 1000));
    }
}
