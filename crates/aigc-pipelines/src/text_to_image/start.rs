//! The latents that denoising starts from: noise, or an image with noise.

use super::{
    image::{mask_of_latents, mask_to_tensor, to_tensor},
    job::Job,
    noise::NoiseStream,
    pipeline::TextToImagePipeline,
};
use aigc_core::{CancelToken, Error, Result};
use aigc_diffusion::{Denoiser, ModelCall, NoiseLevel};
use burn::tensor::Tensor;

/// What denoising starts from.
pub(crate) struct Start {
    /// `[images, channels, height, width]`.
    pub(crate) latents: Tensor<4>,
    /// Mask and latents of the masked image, `[1 or images, 1 + channels, height, width]`.
    pub(crate) inpainting: Option<Tensor<4>>,
    pub(crate) unmasked: Option<UnmaskedPart>,
}

/// The part of an image that is kept: after every step it is put back, as noisy as the rest.
pub(crate) struct UnmaskedPart {
    /// 1 where the image is painted.
    mask: Tensor<4>,
    latents: Tensor<4>,
    noise: Tensor<4>,
}

impl UnmaskedPart {
    /// The latents after a step, with the kept part. `next` is the call that they are for.
    pub(crate) fn put_back(&self, latents: Tensor<4>, next: Option<&ModelCall>) -> Tensor<4> {
        let kept = match next {
            Some(ModelCall {
                level: NoiseLevel { alpha, sigma },
                ..
            }) => self.latents.clone() * *alpha + self.noise.clone() * *sigma,
            None => self.latents.clone(),
        };
        kept * (-self.mask.clone() + 1.0) + latents * self.mask.clone()
    }
}

impl TextToImagePipeline {
    /// The start of `images` images. Noise is drawn in the order of diffusers.
    ///
    /// # Errors
    /// Of the files of the autoencoder; [`Error::InvalidArgument`] for unfinished latents that are
    /// not given.
    pub(crate) fn start(
        &self,
        job: &Job,
        images: usize,
        noise: &mut dyn NoiseStream,
        cancel: &CancelToken,
    ) -> Result<Start> {
        let [channels, height, width] = job.latent_shape;
        let shape = [images, channels, height, width];
        let device = &self.device;
        let unfinished = job.options.denoising_start;
        let Some(image) = &job.image else {
            if let Some(part) = unfinished {
                let expected = "not set without `image`; unfinished latents are continued by \
                                `denoise_from`";
                return Err(Error::argument("denoising_start", part, expected));
            }
            let latents = noise.normal(shape, device) * job.plan.init_noise_sigma;
            return Ok(Start {
                latents,
                inpainting: None,
                unmasked: None,
            });
        };
        let image = to_tensor(image, device);
        let mask = job.mask.as_ref().map(|mask| mask_to_tensor(mask, device));
        let for_masks = self.network.extra_input_channels() > 0;
        let from_noise = mask.is_some() && job.strength() == 1.0 && unfinished.is_none();
        // The image itself: to start from, or to put back.
        let latents = match from_noise && for_masks {
            true => None,
            false => {
                Some(self.encode_image(job, &image, &job.encoded.image, images, noise, cancel)?)
            }
        };
        if let (Some(latents), Some(_), None) = (&latents, unfinished, &mask) {
            return Ok(Start {
                latents: latents.clone().expand(shape),
                inpainting: None,
                unmasked: None,
            });
        }
        let drawn = noise.normal(shape, device);
        let start = match &latents {
            Some(latents) if unfinished.is_some() => latents.clone().expand(shape),
            Some(latents) if !from_noise => {
                let latents = latents.clone().expand(shape);
                job.plan.add_noise(0, latents, drawn.clone())
            }
            _ => drawn.clone() * job.plan.init_noise_sigma,
        };
        let Some(mask) = mask else {
            return Ok(Start {
                latents: start,
                inpainting: None,
                unmasked: None,
            });
        };
        let small = mask_of_latents(mask.clone(), self.latents.scale);
        if !for_masks {
            // diffusers encodes the masked image here, too, and does not use it.
            noise.posterior(shape, device);
            let unmasked = UnmaskedPart {
                mask: small,
                latents: latents.expect("encoded above"),
                noise: drawn,
            };
            return Ok(Start {
                latents: start,
                inpainting: None,
                unmasked: Some(unmasked),
            });
        }
        // Grey where it is painted: 0 in the range of the network.
        let masked = (image - 0.5) * (-mask + 1.0) + 0.5;
        let masked = self.encode_image(job, &masked, &job.encoded.masked, images, noise, cancel)?;
        let [rows, ..] = masked.dims();
        let small = small.expand([rows, 1, height, width]);
        Ok(Start {
            latents: start,
            inpainting: Some(Tensor::cat(vec![small, masked], 1)),
            unmasked: None,
        })
    }
}
