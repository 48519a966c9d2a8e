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
    check::ensure_argument,
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
/// A long video is decoded in [chunks of several frames](Self::decode_chunks), each as a video of
/// its own: the memory does not grow with the number of frames, and at a seam the decoder sees the
/// neighbours on one side alone.
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

    /// [`encode`](Self::encode) with `chunk` frames of each video at a time: the same posterior, in
    /// less memory.
    ///
    /// # Errors
    /// As [`encode`](Self::encode);
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) if `chunk` is 0.
    pub fn encode_in_chunks(&self, frames: Tensor<5>, chunk: usize) -> Result<DiagonalGaussian<5>> {
        let config = &self.config;
        check_video("frames", &frames, config.in_channels, config.factor())?;
        let (mut means, mut logvars) = (vec![], vec![]);
        for part in chunks(frames, chunk)? {
            let posterior = self.encode(part)?;
            means.push(posterior.mean);
            logvars.push(posterior.logvar);
        }
        Ok(DiagonalGaussian {
            mean: Tensor::cat(means, 2),
            logvar: Tensor::cat(logvars, 2),
        })
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

    /// Decodes `chunk` frames of each video at a time, each chunk as a video of its own; `frames`
    /// receives them in order. The memory needed does not depend on the number of frames.
    ///
    /// The frames of one video are those of diffusers with `decode_chunk_size`. With several
    /// videos, diffusers has chunks that span two of them, unless `chunk` divides their length;
    /// here, no chunk does.
    ///
    /// ```no_run
    /// # fn main() -> aigc_core::Result<()> {
    /// use aigc_core::device::device;
    /// use aigc_vae::AutoencoderKlTemporalDecoder;
    /// use burn::tensor::Tensor;
    ///
    /// let device = device("flex")?;
    /// let vae = AutoencoderKlTemporalDecoder::from_pretrained("svd/vae", &device)?;
    /// let z = Tensor::zeros([1, 4, 25, 72, 128], &device);
    /// vae.decode_chunks(z, 8, |frames| {
    ///     println!("{:?}", frames.dims()); // eight frames at a time, and the last one
    ///     Ok(())
    /// })?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`decode`](Self::decode), and those of `frames`;
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) if `chunk` is 0.
    pub fn decode_chunks(
        &self,
        z: Tensor<5>,
        chunk: usize,
        mut frames: impl FnMut(Tensor<5>) -> Result<()>,
    ) -> Result<()> {
        check_video("z", &z, self.config.latent_channels, 1)?;
        for part in chunks(z, chunk)? {
            frames(self.decode(part)?)?;
        }
        Ok(())
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

/// `chunk` frames of each video at a time, in order; the last ones are what is left.
fn chunks(x: Tensor<5>, chunk: usize) -> Result<impl Iterator<Item = Tensor<5>>> {
    ensure_argument(chunk > 0, "chunk", chunk, "at least 1 frame")?;
    let count = x.dims()[2];
    let starts = (0..count).step_by(chunk);
    Ok(starts.map(move |start| x.clone().narrow(2, start, chunk.min(count - start))))
}
