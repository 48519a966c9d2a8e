//! Animations of grids.

use super::{
    ImageGrid,
    provenance::{Provenance, save_with_provenance},
};
use crate::{Error, Result, check::ensure_argument};
use burn::tensor::Tensor;
use image::{Delay, DynamicImage, Frame, RgbImage, codecs::gif::GifEncoder, codecs::gif::Repeat};
use std::{path::Path, time::Duration};

/// An animation, frame by frame: previews during training, denoising steps, a latent interpolation.
#[derive(Clone, Debug)]
pub struct Animation {
    grid: ImageGrid,
    frames: Vec<RgbImage>,
}

impl Animation {
    /// An animation without frames.
    pub fn new(grid: ImageGrid) -> Self {
        Self {
            grid,
            frames: Vec::new(),
        }
    }

    fn of(frames: impl IntoIterator<Item = Tensor<4>>, grid: ImageGrid) -> Result<Self> {
        let mut animation = Self::new(grid);
        for frame in frames {
            animation.push(&frame)?;
        }
        Ok(animation)
    }

    /// Adds a frame.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`, channels 1 (grey) or 3 (RGB); the same for
    ///   every frame
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `images` cannot be drawn, or differ in size from the earlier
    /// frames.
    pub fn push(&mut self, images: &Tensor<4>) -> Result<()> {
        let frame = self.grid.draw(images)?;
        let first = self
            .frames
            .first()
            .map_or(frame.dimensions(), |first| first.dimensions());
        let expected = format!("{first:?}, the size of the first frame");
        ensure_argument(
            frame.dimensions() == first,
            "frame",
            format!("{:?}", frame.dimensions()),
            &expected,
        )?;
        self.frames.push(frame);
        Ok(())
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there are no frames.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Writes the frames as an endless GIF, each shown for `delay`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no frames, or if they are wider or higher than
    /// 65,535 pixels; [`Error::Io`] if the file cannot be written.
    pub fn save(&self, delay: Duration, path: &Path) -> Result<()> {
        crate::fs::write_atomic(path, &self.encode(delay)?)
    }

    /// Writes the frames as an endless GIF, each shown for `delay`, with a record of how they were
    /// made.
    ///
    /// # Errors
    /// As for [`save`](Self::save) and [`save_with_provenance`].
    pub fn save_with_provenance(
        &self,
        delay: Duration,
        provenance: &Provenance,
        path: &Path,
    ) -> Result<()> {
        save_with_provenance(&self.encode(delay)?, provenance, path)
    }

    fn encode(&self, delay: Duration) -> Result<Vec<u8>> {
        ensure_argument(!self.is_empty(), "frames", 0, "at least 1")?;
        let (width, height) = self.frames[0].dimensions();
        ensure_argument(
            width.max(height) <= u32::from(u16::MAX),
            "frames",
            format!("{width}×{height}"),
            "at most 65535 pixels wide and high, as in GIF files: a smaller scale or grid",
        )?;
        let mut bytes = Vec::new();
        {
            let mut encoder = GifEncoder::new(&mut bytes);
            encoder.set_repeat(Repeat::Infinite).map_err(Error::other)?;
            for frame in &self.frames {
                let rgba = DynamicImage::from(frame.clone()).into_rgba8();
                let frame = Frame::from_parts(rgba, 0, 0, Delay::from_saturating_duration(delay));
                encoder.encode_frame(frame).map_err(Error::other)?;
            }
        }
        Ok(bytes)
    }
}

/// Writes `frames` as an endless GIF, each shown for `delay`.
///
/// # Shapes
/// - frames: `[batch, channels, height, width]` each, channels 1 (grey) or 3 (RGB)
///
/// # Errors
/// As for [`Animation::push`] and [`Animation::save`].
pub fn save_gif(
    frames: impl IntoIterator<Item = Tensor<4>>,
    grid: ImageGrid,
    delay: Duration,
    path: &Path,
) -> Result<()> {
    Animation::of(frames, grid)?.save(delay, path)
}

/// Writes `frames` as an endless GIF, each shown for `delay`, with a record of how they were made.
///
/// # Shapes
/// - frames: `[batch, channels, height, width]` each, channels 1 (grey) or 3 (RGB)
///
/// # Errors
/// As for [`Animation::push`] and [`Animation::save_with_provenance`].
pub fn save_gif_with_provenance(
    frames: impl IntoIterator<Item = Tensor<4>>,
    grid: ImageGrid,
    delay: Duration,
    provenance: &Provenance,
    path: &Path,
) -> Result<()> {
    Animation::of(frames, grid)?.save_with_provenance(delay, provenance, path)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use image::{AnimationDecoder, codecs::gif::GifDecoder};

    #[test]
    fn gif_keeps_frames_in_order() {
        let device = Device::flex();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("walk.gif");
        let grid = ImageGrid {
            padding: 0,
            scale: 1,
            ..ImageGrid::new(1, 4)
        };
        let frames = (0..3).map(|i| Tensor::full([1, 1, 4, 4], i as f32 / 2.0, &device));
        save_gif(frames, grid, Duration::from_millis(80), &path).unwrap();
        let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
        let frames = GifDecoder::new(file)
            .unwrap()
            .into_frames()
            .collect_frames()
            .unwrap();
        let shades: Vec<u8> = frames
            .iter()
            .map(|f| f.buffer().get_pixel(1, 1).0[0])
            .collect();
        assert_eq!(frames.len(), 3);
        assert!(
            shades[0] < 8 && (120..136).contains(&shades[1]) && shades[2] > 247,
            "{shades:?}"
        );
        assert_eq!(frames[0].delay().numer_denom_ms(), (80, 1));
    }

    #[test]
    fn gif_is_saved_with_provenance() {
        let device = Device::flex();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("walk.gif");
        let provenance = Provenance::new("x").with_seed(1);
        let frames = (0..2).map(|i| Tensor::full([1, 1, 4, 4], i as f32, &device));
        let (grid, delay) = (ImageGrid::new(1, 4), Duration::from_millis(80));
        save_gif_with_provenance(frames, grid, delay, &provenance, &path).unwrap();
        let found = super::super::provenance::verify_file(&path).unwrap();
        assert_eq!(found.valid(), Some(&provenance));
        let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
        let frames = GifDecoder::new(file).unwrap().into_frames();
        assert_eq!(frames.collect_frames().unwrap().len(), 2);
    }

    #[test]
    fn animation_refuses_other_sizes() {
        let device = Device::flex();
        let mut animation = Animation::new(ImageGrid::new(1, 4));
        assert!(
            animation
                .save(Duration::ZERO, Path::new("never.gif"))
                .is_err()
        );
        let wide = Tensor::<4>::zeros([1, 1, 1, 65_536], &device);
        let mut too_wide = Animation::new(ImageGrid::new(1, 65_536));
        too_wide.push(&wide).unwrap();
        let error = too_wide.save(Duration::ZERO, Path::new("never.gif"));
        assert!(error.unwrap_err().to_string().contains("65535 pixels"));
        animation
            .push(&Tensor::zeros([1, 1, 4, 4], &device))
            .unwrap();
        assert!(
            animation
                .push(&Tensor::zeros([2, 1, 4, 4], &device))
                .is_err()
        );
    }
}
