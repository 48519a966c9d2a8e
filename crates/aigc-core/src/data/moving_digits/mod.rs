//! Clips of digits that move and bounce at the walls, made on the fly from any set of images.
//!
//! After the test set of Srivastava, Mansimov and Salakhutdinov (2015,
//! <https://arxiv.org/abs/1502.04681>), with exact reflection at the walls, so that the speed
//! between two bounces is constant, and with places between pixels.
//!
//! # The generator
//! Clip `index` of pass `epoch` draws from the stream `moving digits` of the seed with the number
//! `epoch·len + index`, for every digit in this order:
//! 1. the number of the image, uniform;
//! 2. its place at the start: `x`, then `y`, each uniform in `[0, travel)`, where `travel` is the
//!    side of the canvas less that of the image;
//! 3. the direction: points uniform in `[−1, 1)²` (`x`, then `y`) until one lies in the unit disc
//!    and is not its centre; it is divided by its length;
//! 4. the speed in pixels per frame, uniform in `speed`.
//!
//! In frame `t` the upper left corner of the image is at `fold(start + t·velocity)` on each axis;
//! `fold` reflects at 0 and at `travel`. The image is drawn there by linear interpolation, and
//! rounded to bytes. Where digits overlap, the brighter one is seen. Only sums, products, quotients
//! and roots occur, so a seed gives the same bytes everywhere.

mod config;
mod draw;
mod motion;

pub use config::MovingDigitsConfig;
pub use motion::DigitMotion;

use super::{Dataset, Image, ImageShape, Resampling, resample, video::Clip};
use crate::{Error, Result, rng::Rng};
use draw::draw;

/// A data set of clips of moving images. The class of a clip with one digit is that of the digit;
/// one with several has none.
///
/// ```
/// use aigc_core::data::{
///     Dataset, digits,
///     moving_digits::{MovingDigits, MovingDigitsConfig},
/// };
///
/// # fn main() -> aigc_core::Result<()> {
/// let config = MovingDigitsConfig { digit_size: Some(20), ..Default::default() };
/// let clips = MovingDigits::new(digits::load(), config)?;
/// let clip = clips.get(3)?;
/// assert_eq!(clip.num_frames, 16);
/// assert!(clip.label.unwrap() < 10);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct MovingDigits<D> {
    images: D,
    config: MovingDigitsConfig,
    /// Shape of the first image as it is drawn.
    shape: ImageShape,
}

impl<D: Dataset<Item = Image>> MovingDigits<D> {
    /// Clips of these images, which have one shape.
    ///
    /// # Errors
    /// [`Error::Config`] if a setting is out of range, [`Error::InvalidArgument`] if there are no
    /// images, or the first one has no pixels or does not fit into a frame; errors of the images.
    pub fn new(images: D, config: MovingDigitsConfig) -> Result<Self> {
        config.validate()?;
        if images.is_empty() {
            return Err(Error::argument("images", "empty", "at least one image"));
        }
        let first = images.get(0)?.shape;
        let [height, width] = match config.digit_size {
            Some(size) => [size; 2],
            None => [first.height, first.width],
        };
        if height.max(width) >= config.canvas || first.numel() == 0 {
            let expected = format!(
                "at least one pixel, and smaller than the canvas of {} pixels",
                config.canvas
            );
            return Err(Error::argument("images[0]", first, expected));
        }
        Ok(Self {
            images,
            config,
            shape: ImageShape::new(first.channels, height, width),
        })
    }

    /// The settings.
    pub fn config(&self) -> &MovingDigitsConfig {
        &self.config
    }

    /// The motion of every digit of a clip.
    ///
    /// # Panics
    /// If `index` is not below the number of clips.
    pub fn motions(&self, index: usize, epoch: usize) -> Vec<DigitMotion> {
        let len = self.config.len;
        assert!(index < len, "clip {index} of {len}");
        let number = (epoch as u64)
            .wrapping_mul(len as u64)
            .wrapping_add(index as u64);
        let mut rng = Rng::stream(self.config.seed, "moving digits", number);
        let sides = [self.shape.width, self.shape.height];
        let travel = sides.map(|side| (self.config.canvas - side) as f64);
        let motion = |_| {
            let image = rng.random_index(self.images.len());
            DigitMotion::random(image, travel, self.config.speed, &mut rng)
        };
        (0..self.config.num_digits).map(motion).collect()
    }

    /// An image as it is drawn.
    fn digit(&self, index: usize) -> Result<Image> {
        let mut image = self.images.get(index)?;
        let ImageShape {
            channels,
            height,
            width,
        } = image.shape;
        let name = || format!("images[{index}]");
        if image.pixels.is_empty() || image.pixels.len() != image.shape.numel() {
            let found = format!("{} pixels", image.pixels.len());
            return Err(Error::argument(
                name(),
                found,
                format!("those of {}, at least one", image.shape),
            ));
        }
        if let Some(size) = self
            .config
            .digit_size
            .filter(|size| [*size; 2] != [height, width])
        {
            let planes = image.pixels.chunks_exact(height * width);
            let resize =
                |plane| resample(plane, 1, [height, width], [size; 2], Resampling::Bilinear);
            image.pixels = planes.map(resize).collect::<Result<Vec<_>>>()?.concat();
            image.shape = ImageShape::new(channels, size, size);
        }
        if image.shape != self.shape {
            let expected = format!("{}, like the first image", self.shape);
            return Err(Error::argument(name(), image.shape, expected));
        }
        Ok(image)
    }
}

impl<D: Dataset<Item = Image>> Dataset for MovingDigits<D> {
    type Item = Clip;

    fn len(&self) -> usize {
        self.config.len
    }

    fn get(&self, index: usize) -> Result<Clip> {
        self.get_in_epoch(index, 0)
    }

    fn get_in_epoch(&self, index: usize, epoch: usize) -> Result<Clip> {
        let (canvas, frames) = (self.config.canvas, self.config.num_frames);
        let shape = ImageShape::new(self.shape.channels, canvas, canvas);
        let mut clip = Clip {
            num_frames: frames,
            frame_shape: shape,
            pixels: vec![0; frames * shape.numel()],
            label: None,
        };
        for motion in self.motions(index, epoch) {
            let digit = self.digit(motion.image)?;
            if self.config.num_digits == 1 {
                clip.label = digit.label;
            }
            let size = [self.shape.height, self.shape.width];
            let planes = digit.pixels.chunks_exact(size[0] * size[1]);
            for (channel, plane) in planes.enumerate() {
                for frame in 0..frames {
                    let start = (channel * frames + frame) * canvas * canvas;
                    let target = &mut clip.pixels[start..start + canvas * canvas];
                    draw(plane, size, motion.position(frame), target, canvas);
                }
            }
        }
        Ok(clip)
    }
}

#[cfg(test)]
mod tests;
