//! Images to latents and back, by the autoencoder of a pipeline.

use super::{
    denoise::is_finite, job::Job, noise::NoiseStream, options::Tiling, parts::AnyAutoencoder,
    pipeline::TextToImagePipeline,
};
use aigc_core::{CancelToken, Error, Result};
use burn::tensor::{FloatDType, Tensor};
use std::sync::OnceLock;

/// Pixels of an image that is encoded and decoded whole by [`Tiling::Auto`].
const WHOLE: usize = 1024 * 1024;

/// Means and logarithms of the variances of an image's latents, without scaling; the variances are
/// `None` of autoencoders without.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    mean: Tensor<4>,
    logvar: Option<Tensor<4>>,
}

/// The latents of a job's images, which are the same for all of its batches.
#[derive(Clone, Debug, Default)]
pub(crate) struct EncodedImages {
    /// Of the image.
    pub(crate) image: OnceLock<Moments>,
    /// Of the image without the part that is painted.
    pub(crate) masked: OnceLock<Moments>,
}

/// Decoded images, and whether they had to be decoded again.
pub(crate) struct Decoded {
    /// In `[0, 1]` and around it.
    pub(crate) images: Tensor<4>,
    pub(crate) warning: Option<String>,
}

impl Job {
    /// Whether images of this size are encoded and decoded in tiles.
    fn is_tiled(&self) -> bool {
        let pixels = self.size.width as usize * self.size.height as usize;
        match self.options.tiling {
            Tiling::Auto => pixels > WHOLE,
            Tiling::Always => true,
            Tiling::Never => false,
        }
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
        let vae = self.parts.vae.get()?;
        let moments = match known.get() {
            Some(moments) => moments.clone(),
            None => {
                let moments = vae.moments(image.clone(), job.is_tiled(), cancel)?;
                known.get_or_init(|| moments).clone()
            }
        };
        let [channels, height, width] = job.latent_shape;
        let z = match moments.logvar {
            Some(logvar) => {
                let drawn = noise.posterior([images, channels, height, width], &self.device);
                let shape = drawn.dims();
                let deviation = (logvar * 0.5).exp();
                moments.mean.expand(shape) + deviation.expand(shape) * drawn
            }
            None => moments.mean,
        };
        Ok(vae.scale_latents(z))
    }

    /// Images of latents, in `[0, 1]` and around it.
    ///
    /// # Shapes
    /// - latents: `[batch, channels, height, width]`, as the network has them
    ///
    /// # Errors
    /// Of the files; [`Error::NotFiniteSamples`]; [`Error::Cancelled`].
    pub fn decode(&self, job: &Job, latents: Tensor<4>) -> Result<Tensor<4>> {
        Ok(self.decode_with(job, latents, &CancelToken::new())?.images)
    }

    pub(crate) fn decode_with(
        &self,
        job: &Job,
        latents: Tensor<4>,
        cancel: &CancelToken,
    ) -> Result<Decoded> {
        let vae = self.parts.vae.get()?;
        let z = vae.unscale_latents(latents);
        let images = vae.decode(z.clone(), job.is_tiled(), cancel)?;
        if is_finite(&images) {
            return Ok(Decoded {
                images,
                warning: None,
            });
        }
        let half = [FloatDType::F16, FloatDType::BF16];
        if half.contains(&z.dtype().into()) {
            let images = vae.decode(z.cast(FloatDType::F32), job.is_tiled(), cancel)?;
            if is_finite(&images) {
                let warning = "the autoencoder overflowed in 16 bits and decoded again in 32";
                return Ok(Decoded {
                    images,
                    warning: Some(warning.into()),
                });
            }
        }
        Err(Error::NotFiniteSamples {
            what: "the decoded images".into(),
            step: None,
            hint: "the autoencoder's weights do not fit in 16 bits: open the pipeline with 32 \
                   bits, or give it another autoencoder"
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
                let (mean, logvar) = (posterior.mean, Some(posterior.logvar));
                Ok(Moments { mean, logvar })
            }
            Self::Tiny(vae) => {
                let mean = match tiled {
                    true => vae.latents_tiled(image, &vae.tiles(), cancel)?,
                    false => vae.latents(image),
                };
                Ok(Moments { mean, logvar: None })
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

    fn scale_latents(&self, z: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Kl(vae) => vae.scale_latents(z),
            // Its latents are those of the network.
            Self::Tiny(_) => z,
        }
    }

    pub(crate) fn unscale_latents(&self, latents: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Kl(vae) => vae.unscale_latents(latents),
            Self::Tiny(_) => latents,
        }
    }
}
