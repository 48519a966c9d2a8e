//! `AutoencoderKLTemporalDecoder`: the autoencoder of Stable Video Diffusion (Blattmann et al.
//! 2023, <https://arxiv.org/abs/2311.15127>).

mod config;
mod decoder;
#[cfg(all(test, feature = "flex"))]
mod tests;

pub use config::AutoencoderKlTemporalDecoderConfig;

use super::{
    check_video, gaussian, into_batch, out_of_batch, to_frames, to_network, video_methods,
};
use crate::{DiagonalGaussian, models::diffusers::blocks::Encoder};
use aigc_core::{
    Result,
    nn::{Conv2d, Conv2dConfig, diffusers::diffusers_key},
    weights::{Loaded, OpenOptions, WeightDtype, WeightReader, open_model},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use decoder::TemporalDecoder;
use std::path::Path;

impl AutoencoderKlTemporalDecoderConfig {
    /// Creates the model on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<AutoencoderKlTemporalDecoder> {
        self.validate()?;
        let (activation, moments) = (self.activation()?, 2 * self.latent_channels);
        Ok(AutoencoderKlTemporalDecoder {
            encoder: Encoder::new(self.architecture(), activation, moments, device),
            decoder: TemporalDecoder::new(self, device),
            quant_conv: Conv2dConfig::new([moments, moments], 1).init(device),
            config: self.clone(),
        })
    }
}

/// An autoencoder of videos: the encoder sees each frame alone, the decoder a few neighbours of
/// each, which removes flicker.
///
/// A long video is decoded in parts of several frames, each as a video of its own.
#[derive(Module, Debug)]
pub struct AutoencoderKlTemporalDecoder {
    encoder: Encoder,
    decoder: TemporalDecoder,
    quant_conv: Conv2d,
    #[module(skip)]
    config: AutoencoderKlTemporalDecoderConfig,
}

impl AutoencoderKlTemporalDecoder {
    video_methods!(AutoencoderKlTemporalDecoderConfig);

    /// Configuration of the model.
    pub fn config(&self) -> &AutoencoderKlTemporalDecoderConfig {
        &self.config
    }

    /// The posterior of the latents of each frame.
    ///
    /// # Shapes
    /// - frames: `[batch, in_channels, frames, height, width]`, in `[0, 1]`
    /// - output: over `[batch, latent_channels, frames, height / factor, width / factor]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for other channels, no frames,
    /// or frames that are too small.
    pub fn encode(&self, frames: Tensor<5>) -> Result<DiagonalGaussian<5>> {
        let config = &self.config;
        check_video("frames", &frames, config.in_channels, config.factor())?;
        let count = frames.dims()[2];
        let moments = self.encoder.forward(into_batch(to_network(frames)));
        let moments = self.quant_conv.forward(moments);
        Ok(gaussian(out_of_batch(moments, count)))
    }

    /// The frames of latents of the encoder, which are decoded together.
    ///
    /// # Shapes
    /// - z: `[batch, latent_channels, frames, height, width]`
    /// - output: `[batch, out_channels, frames, factor·height, factor·width]`, in `[0, 1]` and
    ///   around it
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for other channels, or no
    /// frames.
    pub fn decode(&self, z: Tensor<5>) -> Result<Tensor<5>> {
        check_video("z", &z, self.config.latent_channels, 1)?;
        Ok(to_frames(self.decoder.forward(z)))
    }

    /// Latents of the encoder as latent diffusion models have them, `z·scaling_factor`.
    ///
    /// # Shapes
    /// - z and output: `[batch, latent_channels, frames, height, width]`
    pub fn scale_latents(&self, z: Tensor<5>) -> Tensor<5> {
        z * self.config.scaling_factor
    }

    /// The inverse of [`scale_latents`](Self::scale_latents).
    ///
    /// # Shapes
    /// - z and output: `[batch, latent_channels, frames, height, width]`
    pub fn unscale_latents(&self, z: Tensor<5>) -> Tensor<5> {
        z / self.config.scaling_factor
    }
}
