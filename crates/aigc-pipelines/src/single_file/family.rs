//! The models that single files hold.

use super::text::{PLACES, TextEncoderAt};
use std::fmt::Display;

/// The model that a single-file checkpoint holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// Stable Diffusion 1.1 to 1.5.
    StableDiffusion1,
    /// Stable Diffusion 1.5 with a mask and a masked image as further channels.
    StableDiffusion1Inpainting,
    /// Stable Diffusion 2.0 and 2.1, which predict the noise or `v`.
    StableDiffusion2,
    /// Stable Diffusion 2 with a mask and a masked image as further channels.
    StableDiffusion2Inpainting,
    /// Stable Diffusion XL, also Turbo and Lightning.
    StableDiffusionXl,
    /// Stable Diffusion XL with a mask and a masked image as further channels.
    StableDiffusionXlInpainting,
    /// The refiner of Stable Diffusion XL.
    StableDiffusionXlRefiner,
    /// A latent consistency model of Stable Diffusion 1's shape, with embedded guidance.
    LatentConsistency,
    /// Stable Diffusion 3 and 3.5.
    StableDiffusion3,
    /// FLUX.1 dev, with embedded guidance.
    FluxDev,
    /// FLUX.1 schnell.
    FluxSchnell,
}

impl Family {
    /// All families.
    pub const ALL: [Self; 11] = [
        Self::StableDiffusion1,
        Self::StableDiffusion1Inpainting,
        Self::StableDiffusion2,
        Self::StableDiffusion2Inpainting,
        Self::StableDiffusionXl,
        Self::StableDiffusionXlInpainting,
        Self::StableDiffusionXlRefiner,
        Self::LatentConsistency,
        Self::StableDiffusion3,
        Self::FluxDev,
        Self::FluxSchnell,
    ];

    /// The usual name.
    pub fn name(self) -> &'static str {
        match self {
            Self::StableDiffusion1 => "Stable Diffusion 1",
            Self::StableDiffusion1Inpainting => "Stable Diffusion 1 inpainting",
            Self::StableDiffusion2 => "Stable Diffusion 2",
            Self::StableDiffusion2Inpainting => "Stable Diffusion 2 inpainting",
            Self::StableDiffusionXl => "Stable Diffusion XL",
            Self::StableDiffusionXlInpainting => "Stable Diffusion XL inpainting",
            Self::StableDiffusionXlRefiner => "Stable Diffusion XL refiner",
            Self::LatentConsistency => "latent consistency model",
            Self::StableDiffusion3 => "Stable Diffusion 3",
            Self::FluxDev => "FLUX.1 dev",
            Self::FluxSchnell => "FLUX.1 schnell",
        }
    }

    /// diffusers' class of the pipeline.
    pub fn pipeline_class(self) -> &'static str {
        match self {
            Self::StableDiffusion1 | Self::StableDiffusion2 => "StableDiffusionPipeline",
            Self::StableDiffusion1Inpainting | Self::StableDiffusion2Inpainting => {
                "StableDiffusionInpaintPipeline"
            }
            Self::StableDiffusionXl => "StableDiffusionXLPipeline",
            Self::StableDiffusionXlInpainting => "StableDiffusionXLInpaintPipeline",
            Self::StableDiffusionXlRefiner => "StableDiffusionXLImg2ImgPipeline",
            Self::LatentConsistency => "LatentConsistencyModelPipeline",
            Self::StableDiffusion3 => "StableDiffusion3Pipeline",
            Self::FluxDev | Self::FluxSchnell => "FluxPipeline",
        }
    }

    /// Name of the denoising network: `unet` or `transformer`.
    pub fn network(self) -> &'static str {
        match self {
            Self::StableDiffusion3 | Self::FluxDev | Self::FluxSchnell => "transformer",
            _ => "unet",
        }
    }

    /// Names of all parts with weights that the pipeline has in diffusers' layout.
    pub fn parts(self) -> Vec<&'static str> {
        let mut parts = vec![self.network(), "vae"];
        parts.extend(self.text_encoders().iter().map(|(name, _)| *name));
        parts
    }

    /// Whether a pipeline cannot do without a part: all but T5's encoder of Stable Diffusion 3.
    pub fn needs(self, part: &str) -> bool {
        let is_optional = self == Self::StableDiffusion3 && part == "text_encoder_3";
        !is_optional && self.parts().contains(&part)
    }

    /// Whether a text encoder of CLIP's has a projection of its pooled output.
    pub(crate) fn is_projected(self, part: &str) -> bool {
        match self {
            Self::StableDiffusion3 => part != "text_encoder_3",
            _ => self.is_xl() && part == "text_encoder_2",
        }
    }

    /// The text encoders, and where files have them.
    pub(crate) fn text_encoders(self) -> Vec<(&'static str, TextEncoderAt)> {
        let [sd1, sd2, xl, refiner, xl_2, clip_l, clip_g, t5] = PLACES;
        match self {
            Self::StableDiffusion1 | Self::StableDiffusion1Inpainting | Self::LatentConsistency => {
                vec![("text_encoder", sd1)]
            }
            Self::StableDiffusion2 | Self::StableDiffusion2Inpainting => {
                vec![("text_encoder", sd2)]
            }
            Self::StableDiffusionXl | Self::StableDiffusionXlInpainting => {
                vec![("text_encoder", xl), ("text_encoder_2", xl_2)]
            }
            Self::StableDiffusionXlRefiner => vec![("text_encoder_2", refiner)],
            Self::StableDiffusion3 => vec![
                ("text_encoder", clip_l),
                ("text_encoder_2", clip_g),
                ("text_encoder_3", t5),
            ],
            Self::FluxDev | Self::FluxSchnell => {
                vec![("text_encoder", clip_l), ("text_encoder_2", t5)]
            }
        }
    }

    /// Whether the network predicts a velocity from noise to image.
    pub(crate) fn is_flow(self) -> bool {
        self.network() == "transformer"
    }

    pub(crate) fn is_xl(self) -> bool {
        matches!(
            self,
            Self::StableDiffusionXl
                | Self::StableDiffusionXlInpainting
                | Self::StableDiffusionXlRefiner
        )
    }

    pub(crate) fn is_2(self) -> bool {
        matches!(
            self,
            Self::StableDiffusion2 | Self::StableDiffusion2Inpainting
        )
    }
}

impl Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
