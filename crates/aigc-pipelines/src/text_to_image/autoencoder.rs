//! Images to latents and back, by the autoencoder of a pipeline.

use super::{
    families::resized_and_cut, job::Job, noise::NoiseStream, options::Tiling,
    part_models::AnyAutoencoder, pipeline::TextToImagePipeline,
};
use crate::sampling::is_finite;
use aigc_core::{CancelToken, Error, Result};
use burn::tensor::{DType, FloatDType, Tensor};
use std::sync::OnceLock;

/// Pixels of an image that is encoded and decoded whole by [`Tiling::Auto`].
const WHOLE: usize = 1024 * 1024;

/// Means and standard deviations of an image's latents, scaled as the network has them: drawing
/// from them needs no autoencoder. The deviations are `None` of autoencoders without.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    mean: Tensor<4>,
    deviation: Option<Tensor<4>>,
}

/// The latents of a job's images, which are the same for all of its batches.
#[derive(Clone, Debug, Default)]
pub(crate) struct EncodedImages {
    /// Of the image.
    pub(crate) image: OnceLock<Moments>,
    /// Of the image without the part that is painted.
    pub(crate) masked: OnceLock<Moments>,
}

/// Warning for a request during which the autoencoder overflowed with weights in 16 bits.
pub(crate) const OVERFLOW: &str =
    "the autoencoder overflowed in 16 bits, its weights were opened again in 32";

impl Job {
    /// Whether images of this size are encoded and decoded in tiles.
    pub(crate) fn is_tiled(&self) -> bool {
        let pixels = self.size.width as usize * self.size.height as usize;
        match self.options.tiling {
            Tiling::Auto => pixels > WHOLE,
            Tiling::Always => true,
            Tiling::Never => false,
        }
    }

    /// Whether an image is still to be encoded before the first step.
    pub(crate) fn needs_autoencoder(&self) -> bool {
        let EncodedImages { image, masked } = &self.encoded;
        self.image.is_some() && image.get().is_none() && masked.get().is_none()
    }
}

impl TextToImagePipeline {
    /// Latents of an image `[1, 3, height, width]` in `[0, 1]`, drawn from their distribution and
    /// scaled as the network has them: one for each image of the batch, or one for all.
    ///
    /// # Errors
    /// Of the files; [`Error::Cancelled`].
    pub(crate) fn encode_image(
        &self,
        job: &Job,
        image: &Tensor<4>,
        known: &OnceLock<Moments>,
        images: usize,
        noise: &mut dyn NoiseStream,
        cancel: &CancelToken,
    ) -> Result<Tensor<4>> {
        let moments = match known.get() {
            Some(moments) => moments.clone(),
            None => {
                let moments =
                    |vae: &AnyAutoencoder| vae.moments(image.clone(), job.is_tiled(), cancel);
                let moments = self.finite("the encoded image", moments, |m| &m.mean)?;
                known.get_or_init(|| moments).clone()
            }
        };
        let [channels, height, width] = job.latent_shape;
        Ok(match moments.deviation {
            Some(deviation) => {
                let drawn = noise.posterior([images, channels, height, width], &self.device);
                let shape = drawn.dims();
                moments.mean.expand(shape) + deviation.expand(shape) * drawn
            }
            None => moments.mean,
        })
    }

    /// Images of latents, in `[0, 1]` and around it. Latents are decoded in 32 bits. If weights in
    /// 16 bits overflow, they are opened again in 32.
    ///
    /// # Shapes
    /// - latents: `[batch, channels, height, width]`, as the network has them
    /// - output: `[batch, 3, height, width]`, as large as the request says
    ///
    /// # Errors
    /// Of the files; [`Error::NotFiniteSamples`]; [`Error::Cancelled`].
    pub fn decode(&self, job: &Job, latents: Tensor<4>) -> Result<Tensor<4>> {
        self.decode_with(job, latents, &CancelToken::new())
    }

    pub(crate) fn decode_with(
        &self,
        job: &Job,
        latents: Tensor<4>,
        cancel: &CancelToken,
    ) -> Result<Tensor<4>> {
        let images = self.decoded("the decoded images", latents, job.is_tiled(), cancel)?;
        Ok(resized_and_cut(images, job.output_size))
    }

    /// Images of latents of any size, in `[0, 1]` and around it; `what` they are, for errors.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub(crate) fn decoded(
        &self,
        what: &str,
        latents: Tensor<4>,
        tiled: bool,
        cancel: &CancelToken,
    ) -> Result<Tensor<4>> {
        let latents = match latents.dtype() {
            DType::F16 | DType::BF16 => latents.cast(FloatDType::F32),
            _ => latents,
        };
        let decode = |vae: &AnyAutoencoder| {
            let z = vae.unscale_latents(latents.clone());
            vae.decode(z, tiled, cancel)
        };
        self.finite(what, decode, |images| images)
    }

    /// What the autoencoder computes; computed again with weights in 32 bits if it is not finite
    /// with those that have 16.
    fn finite<T>(
        &self,
        what: &str,
        compute: impl Fn(&AnyAutoencoder) -> Result<T>,
        numbers: impl Fn(&T) -> &Tensor<4>,
    ) -> Result<T> {
        let vae = self.parts.vae.get()?;
        let first = compute(&vae)?;
        drop(vae);
        if is_finite(numbers(&first)) {
            return Ok(first);
        }
        if let Some(vae) = self.parts.vae.widened()? {
            let second = compute(&vae)?;
            if is_finite(numbers(&second)) {
                return Ok(second);
            }
        }
        Err(Error::NotFiniteSamples {
            what: what.into(),
            step: None,
            hint: "the autoencoder's weights do not fit in 16 bits: open weights in 32 bits, or \
                   give the pipeline another autoencoder"
                .into(),
        })
    }
}

impl AnyAutoencoder {
    fn moments(&self, image: Tensor<4>, tiled: bool, cancel: &CancelToken) -> Result<Moments> {
        match self {
            Self::Kl(vae) => {
                let posterior = match tiled {
                    true => vae.encode_tiled(image, &vae.tiles(), cancel)?,
                    false => aigc_vae::Vae::<4, 4>::encode(vae.as_ref(), image),
                };
                let deviation = (posterior.logvar * 0.5).exp();
                // Deviations are multiplied, not shifted.
                let shifted = vae.scale_latents(deviation.zeros_like());
                Ok(Moments {
                    mean: vae.scale_latents(posterior.mean),
                    deviation: Some(vae.scale_latents(deviation) - shifted),
                })
            }
            Self::Tiny(vae) => {
                let mean = match tiled {
                    true => vae.latents_tiled(image, &vae.tiles(), cancel)?,
                    false => vae.latents(image),
                };
                let config = vae.config();
                Ok(Moments {
                    mean: (mean - config.shift_factor) * config.scaling_factor,
                    deviation: None,
                })
            }
        }
    }

    /// Images of latents without scaling, in `[0, 1]` and around it.
    pub(crate) fn decode(
        &self,
        z: Tensor<4>,
        tiled: bool,
        cancel: &CancelToken,
    ) -> Result<Tensor<4>> {
        match (self, tiled) {
            (Self::Kl(vae), true) => vae.decode_tiled(z, &vae.tiles(), cancel),
            (Self::Kl(vae), false) => Ok(aigc_vae::Vae::<4, 4>::decode(vae.as_ref(), z).mean()),
            (Self::Tiny(vae), true) => vae.images_tiled(z, &vae.tiles(), cancel),
            (Self::Tiny(vae), false) => Ok(vae.images(z)),
        }
    }

    pub(crate) fn unscale_latents(&self, latents: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Kl(vae) => vae.unscale_latents(latents),
            Self::Tiny(vae) => {
                let config = vae.config();
                latents / config.scaling_factor + config.shift_factor
            }
        }
    }
}
