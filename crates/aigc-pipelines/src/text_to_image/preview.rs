//! Small pictures of unfinished images.

use super::{image::to_images, latent_colors::LatentColors, pipeline::TextToImagePipeline};
use crate::sampling::is_finite;
use aigc_core::{CancelToken, Result};
use aigc_vae::AutoencoderTiny;
use burn::tensor::Tensor;
use image::DynamicImage;

/// Largest side of the latents that a preview is decoded from.
const SIDE: usize = 16;

/// How previews of unfinished images are made.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum PreviewDecoder {
    /// The autoencoder of the pipeline decodes means of neighbouring latents: images of at most 16
    /// latents a side, for a small part of the time of a whole image. With
    /// [`Residency::WhileNeeded`](super::Residency::WhileNeeded) it is opened anew for each of
    /// them.
    #[default]
    Small,
    /// A pixel for each latent, without a decoder, for next to nothing: by the linear map that fits
    /// the autoencoder of the pipeline best. It is found with the first preview, which takes as
    /// long as decoding a small image.
    Linear,
    /// Another, faster autoencoder decodes all latents.
    Tiny(Box<AutoencoderTiny>),
}

impl TextToImagePipeline {
    /// Pictures of the clean latents that the network predicts; none if they are not finite, or the
    /// autoencoder cannot be opened or overflows in 32 bits too.
    pub(crate) fn preview(
        &self,
        decoder: &PreviewDecoder,
        latents: Tensor<4>,
    ) -> Vec<DynamicImage> {
        // They say nothing about the autoencoder, which would be opened in 32 bits for them.
        if !is_finite(&latents) {
            return vec![];
        }
        let images = match decoder {
            PreviewDecoder::Tiny(vae) => Some(vae.images(latents)),
            PreviewDecoder::Linear => self.latent_colors().map(|colors| colors.images(latents)),
            PreviewDecoder::Small => self.decoded_small(averaged(latents)).ok(),
        };
        let images = images.map(to_images).unwrap_or_default();
        images.into_iter().map(DynamicImage::ImageRgb8).collect()
    }

    fn latent_colors(&self) -> Option<&LatentColors> {
        let fit = || {
            let decode = |latents| self.decoded_small(latents);
            LatentColors::fit(self.latents.channels, &self.device, decode).ok()
        };
        self.latent_colors.get_or_init(fit).as_ref()
    }

    /// Images of a few small latents.
    fn decoded_small(&self, latents: Tensor<4>) -> Result<Tensor<4>> {
        let images = self.decoded("a preview", latents, false, &CancelToken::new());
        self.used(&self.parts.vae);
        images
    }
}

/// Means of squares of latents, so that no side is longer than [`SIDE`]. Rows and columns that do
/// not fill a square are left out.
fn averaged(latents: Tensor<4>) -> Tensor<4> {
    let [images, channels, height, width] = latents.dims();
    let factor = height
        .max(width)
        .div_ceil(SIDE)
        .min(height.min(width))
        .max(1);
    let (rows, columns) = (height / factor, width / factor);
    latents
        .narrow(2, 0, rows * factor)
        .narrow(3, 0, columns * factor)
        .reshape([images * channels * rows, factor, columns, factor])
        .mean_dim(1)
        .mean_dim(3)
        .reshape([images, channels, rows, columns])
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::values;
    use burn::tensor::Device;

    #[test]
    fn latents_are_averaged_to_small_sides() {
        let device = Device::flex();
        let numbers: Vec<f32> = (0..2 * 32 * 20).map(|i| i as f32).collect();
        let latents = Tensor::<1>::from_floats(&numbers[..], &device).reshape([1, 2, 32, 20]);
        let small = averaged(latents.clone());
        assert_eq!(small.dims(), [1, 2, 16, 10]);
        // The mean of 0, 1, 20 and 21.
        assert_eq!(values(small)[0], 10.5);
        let few = latents.narrow(2, 0, 16).narrow(3, 0, 16);
        assert_eq!(values(averaged(few.clone())), values(few));
    }
}
