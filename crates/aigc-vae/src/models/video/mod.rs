//! Autoencoders of videos in diffusers' layout.
//!
//! - [`AutoencoderKlTemporalDecoder`]: each frame is encoded alone, and all frames are decoded
//!   together (Blattmann et al. 2023, <https://arxiv.org/abs/2304.08818>, section 3.1.1).
//! - [`AutoencoderKlWan`]: frames are encoded and decoded together, none by those after it, so that
//!   a few at a time suffice (Wan Team 2025, <https://arxiv.org/abs/2503.20314>, section 4.1).
//!
//! Frames are in `[0, 1]`, as everywhere in this library; the networks work in `[−1, 1]`.

mod temporal_decoder;
mod wan;

pub use temporal_decoder::{AutoencoderKlTemporalDecoder, AutoencoderKlTemporalDecoderConfig};
pub use wan::{AutoencoderKlWan, AutoencoderKlWanConfig};

use crate::DiagonalGaussian;
use aigc_core::{
    Error, Result, check::ensure_argument, checkpoint::write_atomic, weights::save_weights,
};
use burn::{module::Module, tensor::Tensor};
use std::path::Path;

/// Names of files in a model's directory.
const CONFIG: &str = "config.json";
const STEM: &str = "diffusion_pytorch_model";
/// Limits of the posterior's `log σ²`.
const LOGVAR_RANGE: [f64; 2] = [-30.0, 20.0];

/// Defines the methods that open and save a model with the configuration `$config`.
macro_rules! video_methods {
    ($config:ident) => {
        aigc_core::open_methods!("diffusion_pytorch_model");
        #[cfg(feature = "download")]
        aigc_core::hub_methods!(pub config: $config, files: $crate::models::HUB_FILES);

        fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
            let create = |text: &str| Self::create(text, device);
            open_model(dir, &[super::STEM], options, create, diffusers_key)
        }

        /// A model from the text of its `config.json` and its weights.
        ///
        /// # Errors
        /// [`Error::Config`](aigc_core::Error::Config) names the field,
        /// [`Error::Weights`](aigc_core::Error::Weights) the tensors that do not fit.
        pub fn from_weights(
            config: &str,
            files: &WeightReader,
            dtype: WeightDtype,
            device: &Device,
        ) -> Result<Loaded<Self>> {
            files.load(Self::create(config, device)?, dtype, diffusers_key)
        }

        /// A model of the text of a configuration, with initial weights.
        fn create(text: &str, device: &Device) -> Result<Loaded<Self>> {
            let config = $config::from_json(text)?;
            let model = config.init(device)?;
            Ok(config.map(|_| model))
        }

        /// Writes a model's directory, as diffusers does: `config.json` and
        /// `diffusion_pytorch_model.safetensors`.
        ///
        /// # Errors
        /// [`Error::Io`](aigc_core::Error::Io) or [`Error::Weights`](aigc_core::Error::Weights) if
        /// a file cannot be written.
        pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
            super::save(self, &self.config.to_json(), dir.as_ref())
        }
    };
}

use video_methods;

/// Writes a model's directory, which is created if it is missing.
fn save<M: Module>(model: &M, config: &str, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    save_weights(&model.valid(), &dir.join(format!("{STEM}.safetensors")))?;
    write_atomic(&dir.join(CONFIG), config.as_bytes())
}

/// Fails unless `x` has frames of these channels, with sides of at least `least` pixels.
fn check_video(argument: &str, x: &Tensor<5>, channels: usize, least: usize) -> Result<()> {
    let [batch, found, frames, height, width] = x.dims();
    let filled = batch > 0 && frames > 0 && height >= least && width >= least;
    let expected = format!(
        "[batch, {channels}, frames, height, width], with one frame or more and sides of {least} \
         or more"
    );
    let value = format!("{:?}", x.dims());
    ensure_argument(found == channels && filled, argument, value, &expected)
}

/// Frames in `[0, 1]` as the networks receive them, in `[−1, 1]`.
fn to_network(frames: Tensor<5>) -> Tensor<5> {
    frames * 2.0 - 1.0
}

/// Outputs of the networks as frames in `[0, 1]`. Values outside stay outside.
fn to_frames(output: Tensor<5>) -> Tensor<5> {
    (output + 1.0) * 0.5
}

/// The posterior of means before log-variances.
///
/// # Shapes
/// - moments: `[batch, 2·channels, frames, height, width]`
fn gaussian(moments: Tensor<5>) -> DiagonalGaussian<5> {
    let channels = moments.dims()[1] / 2;
    let [low, high] = LOGVAR_RANGE;
    DiagonalGaussian {
        mean: moments.clone().narrow(1, 0, channels),
        logvar: moments.narrow(1, channels, channels).clamp(low, high),
    }
}

/// The frames of all videos, one video after the other.
///
/// # Shapes
/// - x: `[batch, channels, frames, height, width]`
/// - output: `[batch·frames, channels, height, width]`
fn into_batch(x: Tensor<5>) -> Tensor<4> {
    let [batch, channels, frames, height, width] = x.dims();
    x.swap_dims(1, 2)
        .reshape([batch * frames, channels, height, width])
}

/// The inverse of [`into_batch`], for videos of `frames` frames.
fn out_of_batch(x: Tensor<4>, frames: usize) -> Tensor<5> {
    let [rows, channels, height, width] = x.dims();
    x.reshape([rows / frames, frames, channels, height, width])
        .swap_dims(1, 2)
}
