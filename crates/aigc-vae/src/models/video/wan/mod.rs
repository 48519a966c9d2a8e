//! `AutoencoderKLWan`: Wan's autoencoder (Wan Team 2025, <https://arxiv.org/abs/2503.20314>,
//! section 4.1). No frame sees later ones, so that a video is processed in chunks of a few frames,
//! between which each layer over time keeps the last two frames of its input.
//!
//! | file | content |
//! |---|---|
//! | `config` | the configuration |
//! | `cache` | what layers keep between chunks |
//! | `layers` | residual blocks and attention |
//! | `resample` | changes of size and of the number of frames |
//! | `halves` | encoder and decoder |

mod cache;
mod config;
mod halves;
mod layers;
mod resample;
#[cfg(all(test, feature = "flex"))]
mod tests;

pub use config::AutoencoderKlWanConfig;

use super::{check_video, gaussian, to_frames, to_network, video_methods};
use crate::DiagonalGaussian;
use aigc_core::{
    Result,
    check::ensure_argument,
    nn::{Conv3d, diffusers::diffusers_key},
    ops,
    weights::{Loaded, OpenOptions, WeightDtype, WeightReader, open_model},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
};
use cache::Cache;
use halves::{Decoder, Encoder};
use layers::pointwise;
use std::path::Path;

/// Frames that are encoded at a time, after the first one.
const CHUNK: usize = 4;

impl AutoencoderKlWanConfig {
    /// Creates the model on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<AutoencoderKlWan> {
        self.validate()?;
        let latent = self.z_dim;
        Ok(AutoencoderKlWan {
            encoder: Encoder::new(self, device),
            quant_conv: pointwise([2 * latent, 2 * latent], device),
            post_quant_conv: pointwise([latent, latent], device),
            decoder: Decoder::new(self, device),
            config: self.clone(),
        })
    }
}

/// A causal autoencoder of videos and images: an image is a video of one frame.
///
/// The first frame has a latent of its own; each latent after it stands for
/// [`temporal_factor`](AutoencoderKlWanConfig::temporal_factor) frames.
///
/// ```no_run
/// # use aigc_core::device::device;
/// # use aigc_vae::AutoencoderKlWan;
/// # use burn::tensor::Tensor;
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let vae = AutoencoderKlWan::from_pretrained("wan/vae", &device)?;
/// let video = Tensor::<5>::full([1, 3, 17, 128, 128], 0.5, &device);
/// let latents = vae.encode(video)?.mode(); // [1, 16, 5, 16, 16]
/// vae.decode_chunks(latents, |frames| {
///     println!("{:?}", frames.dims()); // one frame, then four at a time
///     Ok(())
/// })?;
/// # Ok(()) }
/// ```
#[derive(Module, Debug)]
pub struct AutoencoderKlWan {
    encoder: Encoder,
    quant_conv: Conv3d,
    post_quant_conv: Conv3d,
    decoder: Decoder,
    #[module(skip)]
    config: AutoencoderKlWanConfig,
}

impl AutoencoderKlWan {
    video_methods!(AutoencoderKlWanConfig);

    /// Configuration of the model.
    pub fn config(&self) -> &AutoencoderKlWanConfig {
        &self.config
    }

    /// The posterior of the latents of videos.
    ///
    /// As in diffusers, frames are encoded in groups of four after the first one; those after the
    /// last whole group are left out.
    ///
    /// # Shapes
    /// - video: `[batch, channels, frames, height, width]`, in `[0, 1]`; sides that are multiples
    ///   of [`spatial_factor`](AutoencoderKlWanConfig::spatial_factor)
    /// - output: over `[batch, z_dim, 1 + groups·4 / temporal factor, height / factor, …]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for other channels or sides,
    /// or no frames.
    pub fn encode(&self, video: Tensor<5>) -> Result<DiagonalGaussian<5>> {
        let (config, factor) = (&self.config, self.config.spatial_factor());
        check_video("video", &video, config.frame_channels(), factor)?;
        let [.., frames, height, width] = video.dims();
        let fits = height.is_multiple_of(factor) && width.is_multiple_of(factor);
        let expected = format!("sides that are multiples of {factor}");
        let value = format!("{:?}", video.dims());
        ensure_argument(fits, "video", value, &expected)?;
        let (mut cache, mut parts) = (Cache::default(), vec![]);
        let (mut start, mut count) = (0, 1);
        while start + count <= frames {
            let chunk = to_network(video.clone().narrow(2, start, count));
            let chunk = patched(chunk, config.patch());
            let moments = self.encoder.forward(chunk, &mut cache);
            parts.push(self.quant_conv.forward(moments));
            (start, count) = (start + count, CHUNK);
        }
        Ok(gaussian(Tensor::cat(parts, 2)))
    }

    /// The frames of latents of the encoder.
    ///
    /// # Shapes
    /// - z: `[batch, z_dim, latents, height, width]`
    /// - output: `[batch, channels, 1 + (latents − 1)·temporal factor, factor·height, …]`, in
    ///   `[0, 1]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for other channels, or no
    /// latents.
    pub fn decode(&self, z: Tensor<5>) -> Result<Tensor<5>> {
        let mut parts = vec![];
        self.decode_chunks(z, |frames| {
            parts.push(frames);
            Ok(())
        })?;
        Ok(Tensor::cat(parts, 2))
    }

    /// [`decode`](Self::decode) chunk by chunk: `frames` receives the first frame, then those of
    /// each latent. The memory needed does not depend on the number of frames.
    ///
    /// # Errors
    /// As [`decode`](Self::decode), and those of `frames`.
    pub fn decode_chunks(
        &self,
        z: Tensor<5>,
        mut frames: impl FnMut(Tensor<5>) -> Result<()>,
    ) -> Result<()> {
        check_video("z", &z, self.config.z_dim, 1)?;
        let mut cache = Cache::default();
        for at in 0..z.dims()[2] {
            let latent = self.post_quant_conv.forward(z.clone().narrow(2, at, 1));
            let output = self.decoder.forward(latent, &mut cache);
            let output = unpatched(output, self.config.patch());
            frames(to_frames(output.clamp(-1.0, 1.0)))?;
        }
        Ok(())
    }

    /// Latents of the encoder as latent diffusion models have them,
    /// `(z − latents_mean) / latents_std`.
    ///
    /// # Shapes
    /// - z and output: `[batch, z_dim, latents, height, width]`
    pub fn scale_latents(&self, z: Tensor<5>) -> Tensor<5> {
        let [mean, std] = self.statistics(&z);
        (z - mean) / std
    }

    /// The inverse of [`scale_latents`](Self::scale_latents).
    ///
    /// # Shapes
    /// - z and output: `[batch, z_dim, latents, height, width]`
    pub fn unscale_latents(&self, z: Tensor<5>) -> Tensor<5> {
        let [mean, std] = self.statistics(&z);
        z * std + mean
    }

    /// Means and standard deviations, `[1, z_dim, 1, 1, 1]`, in the type of the latents.
    fn statistics(&self, latents: &Tensor<5>) -> [Tensor<5>; 2] {
        [&self.config.latents_mean, &self.config.latents_std].map(|values| {
            let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
            let shape = [1, values.len(), 1, 1, 1];
            let values = Tensor::from_data(TensorData::new(values, shape), &latents.device());
            ops::cast(values, latents.dtype())
        })
    }
}

/// The pixels of squares as channels: columns of a square before its rows.
///
/// # Shapes
/// - x: `[batch, channels, frames, height, width]`
/// - output: `[batch, channels·patch², frames, height / patch, width / patch]`
fn patched(x: Tensor<5>, patch: usize) -> Tensor<5> {
    if patch == 1 {
        return x;
    }
    let [batch, channels, frames, height, width] = x.dims();
    let (rows, columns) = (height / patch, width / patch);
    x.reshape([batch, channels, frames, rows, patch, columns, patch])
        .permute([0, 1, 6, 4, 2, 3, 5])
        .reshape([batch, channels * patch * patch, frames, rows, columns])
}

/// The inverse of [`patched`].
fn unpatched(x: Tensor<5>, patch: usize) -> Tensor<5> {
    if patch == 1 {
        return x;
    }
    let [batch, channels, frames, rows, columns] = x.dims();
    let channels = channels / (patch * patch);
    x.reshape([batch, channels, patch, patch, frames, rows, columns])
        .permute([0, 1, 4, 5, 3, 6, 2])
        .reshape([batch, channels, frames, rows * patch, columns * patch])
}
