//! Options of a training on clips.

use aigc_core::{Error, Result, text_to_image::ImageSize};
use aigc_examples::{ImagesConfig, RunOptions};
use clap::Args;
use std::path::PathBuf;

/// Options of a training on clips, and of the evaluation after it.
#[derive(Clone, Debug, Args)]
pub struct TrainingOptions {
    /// Images that move, what is trained on, and where it is written.
    #[command(flatten)]
    pub data: ImagesConfig,
    /// Run of `digits --model diffusion` or of `reproduce_video image`, or a pipeline's directory:
    /// this image model is frozen, and motion modules between its layers are trained. Frames are
    /// as large as its images.
    #[arg(long, value_name = "DIR")]
    pub image_model: Option<PathBuf>,
    /// Frames of a clip; by default 8 of the embedded digits, 16 of other images.
    #[arg(long, value_name = "N")]
    pub frames: Option<usize>,
    /// Side of a frame in pixels; by default 16 for the embedded digits, 32 for other images.
    #[arg(long, value_name = "PIXELS", value_parser = parse_size)]
    pub size: Option<ImageSize>,
    /// Side that the moving images are resized to, in pixels.
    #[arg(long, value_name = "PIXELS")]
    pub digit_size: Option<usize>,
    /// Clips in a batch; 8 by default.
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,
    /// Number of sampling steps; 20 by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub sampling_steps: Option<u32>,
    /// Scale of classifier-free guidance; by default 2 for a trained network.
    #[arg(long, value_name = "SCALE", allow_negative_numbers = true)]
    pub guidance: Option<f64>,
    /// Weights of a LeNet-5 that reads digits (`mnist-models/lenet5_csinva.safetensors`); without
    /// them, the nearest training image is what is read in a frame.
    #[arg(long, value_name = "FILE")]
    pub classifier: Option<PathBuf>,
    /// Number of clips that the model is evaluated with; 40 by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=100_000))]
    pub eval_clips: Option<u32>,
    /// Options of the run.
    #[command(flatten)]
    pub run: RunOptions,
}

impl TrainingOptions {
    /// Number of sampling steps of a trained network.
    pub fn sampling_steps(&self) -> usize {
        self.sampling_steps.unwrap_or(20) as usize
    }

    /// Scale of classifier-free guidance of a trained network.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless it is 0 or more.
    pub fn guidance(&self) -> Result<f64> {
        let scale = self.guidance.unwrap_or(2.0);
        if scale.is_finite() && scale >= 0.0 {
            return Ok(scale);
        }
        Err(Error::argument("--guidance", scale, "0 or more"))
    }

    /// The side of square frames, if it is given.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for two sides.
    pub fn side(&self) -> Result<Option<usize>> {
        match self.size {
            Some(size) if size.width != size.height => Err(Error::argument(
                "--size",
                size,
                "one side: frames are square",
            )),
            size => Ok(size.map(|size| size.width as usize)),
        }
    }
}

/// Parses a size: `32` or `512x320`, width first.
///
/// # Errors
/// [`Error::InvalidArgument`] for another text.
pub fn parse_size(text: &str) -> Result<ImageSize> {
    match text.trim().parse::<u32>() {
        Ok(side) if side > 0 => Ok(ImageSize::new(side, side)),
        _ => text.parse(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_or_two_sides() {
        assert_eq!(parse_size("32").unwrap(), ImageSize::new(32, 32));
        assert_eq!(parse_size("512x320").unwrap(), ImageSize::new(512, 320));
        for text in ["0", "-3", "x", "3x", ""] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
