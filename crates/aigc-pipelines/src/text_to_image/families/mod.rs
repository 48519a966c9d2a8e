//! Families of pipelines: how their prompts are encoded, what their networks are conditioned on,
//! and their defaults. One file for each family whose prompts are encoded in a way of its own;
//! `defaults` has the values of unset fields, `resolution_bins` the sizes of PixArt's images.
//!
//! | [`PipelineFamily`] | classes of diffusers | text encoders | network |
//! |---|---|---|---|
//! | `StableDiffusion` | `StableDiffusion…Pipeline` | CLIP | U-net |
//! | `StableDiffusionXl` | `StableDiffusionXL…Pipeline` | CLIP twice | U-net, told sizes |
//! | `LatentConsistency` | `LatentConsistencyModel…Pipeline` | CLIP | U-net, told the guidance |
//! | `StableDiffusion3` | `StableDiffusion3…Pipeline` | CLIP twice, T5 | transformer |
//! | `Flux` | `Flux…Pipeline` | CLIP, T5 | transformer, told the guidance |
//! | `PixArt` | `PixArt…Pipeline` | T5 | transformer, told sizes |

mod clip;
mod defaults;
mod flux;
mod pixart;
mod resolution_bins;
mod stable_diffusion;
mod stable_diffusion_3;
mod stable_diffusion_xl;
mod t5;

pub(crate) use defaults::Task;
pub(crate) use resolution_bins::{resized_and_cut, resolution_bin};

use super::{
    embeddings::{PromptEmbeddings, Prompts},
    parts::Parts,
    prompt::PromptSyntax,
};
use aigc_core::{Error, Result};
use burn::tensor::Device;

/// How a pipeline works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PipelineFamily {
    /// Stable Diffusion 1 and 2 (Rombach et al. 2022, <https://arxiv.org/abs/2112.10752>).
    StableDiffusion,
    /// Stable Diffusion XL (Podell et al. 2023, <https://arxiv.org/abs/2307.01952>).
    StableDiffusionXl,
    /// Latent consistency models (Luo et al. 2023, <https://arxiv.org/abs/2310.04378>).
    LatentConsistency,
    /// Stable Diffusion 3 (Esser et al. 2024, <https://arxiv.org/abs/2403.03206>).
    StableDiffusion3,
    /// FLUX.1 (Black Forest Labs 2024).
    Flux,
    /// PixArt-α and PixArt-Σ (Chen et al. 2023, <https://arxiv.org/abs/2310.00426>).
    PixArt,
}

/// The classes of diffusers' pipelines that are opened, and their families. What a pipeline does
/// (from noise, from an image, with a mask, with ControlNets) follows from the request and from
/// the parts, not from the class.
const CLASSES: &[(&str, PipelineFamily)] = {
    use PipelineFamily::*;
    &[
        ("StableDiffusionPipeline", StableDiffusion),
        ("StableDiffusionImg2ImgPipeline", StableDiffusion),
        ("StableDiffusionInpaintPipeline", StableDiffusion),
        ("StableDiffusionControlNetPipeline", StableDiffusion),
        ("StableDiffusionControlNetImg2ImgPipeline", StableDiffusion),
        ("StableDiffusionControlNetInpaintPipeline", StableDiffusion),
        ("StableDiffusionXLPipeline", StableDiffusionXl),
        ("StableDiffusionXLImg2ImgPipeline", StableDiffusionXl),
        ("StableDiffusionXLInpaintPipeline", StableDiffusionXl),
        ("StableDiffusionXLControlNetPipeline", StableDiffusionXl),
        (
            "StableDiffusionXLControlNetImg2ImgPipeline",
            StableDiffusionXl,
        ),
        (
            "StableDiffusionXLControlNetInpaintPipeline",
            StableDiffusionXl,
        ),
        ("LatentConsistencyModelPipeline", LatentConsistency),
        ("LatentConsistencyModelImg2ImgPipeline", LatentConsistency),
        ("StableDiffusion3Pipeline", StableDiffusion3),
        ("StableDiffusion3Img2ImgPipeline", StableDiffusion3),
        ("StableDiffusion3InpaintPipeline", StableDiffusion3),
        ("FluxPipeline", Flux),
        ("FluxImg2ImgPipeline", Flux),
        ("FluxInpaintPipeline", Flux),
        ("PixArtAlphaPipeline", PixArt),
        ("PixArtSigmaPipeline", PixArt),
    ]
};

impl PipelineFamily {
    /// Names of the classes in diffusers that are opened.
    pub fn classes() -> impl Iterator<Item = &'static str> {
        CLASSES.iter().map(|(class, _)| *class)
    }

    /// The family of a class.
    ///
    /// # Errors
    /// [`Error::Config`] with the known classes.
    pub fn of_class(class: &str) -> Result<Self> {
        let found = CLASSES.iter().find(|(known, _)| *known == class);
        found.map(|(_, family)| *family).ok_or_else(|| {
            let known: Vec<&str> = Self::classes().collect();
            Error::config("_class_name", class, format!("one of {}", known.join(", ")))
        })
    }

    /// Directories of the text encoders and tokenizers.
    pub(crate) const ENCODERS: [&str; 3] = ["text_encoder", "text_encoder_2", "text_encoder_3"];
    pub(crate) const TOKENIZERS: [&str; 3] = ["tokenizer", "tokenizer_2", "tokenizer_3"];

    /// Whether the prompts of the network are those of CLIP's encoders alone, which have weights.
    pub(crate) fn reads_weights(self) -> bool {
        matches!(
            self,
            Self::StableDiffusion | Self::StableDiffusionXl | Self::LatentConsistency
        )
    }

    /// Number of text encoders.
    pub(crate) fn num_encoders(self) -> usize {
        match self {
            Self::StableDiffusion | Self::LatentConsistency | Self::PixArt => 1,
            Self::StableDiffusionXl | Self::Flux => 2,
            Self::StableDiffusion3 => 3,
        }
    }

    /// What networks are given besides the states of the prompt and the guidance scale, in the
    /// words of [`needs_from_pipeline`](aigc_diffusion::Denoiser::needs_from_pipeline).
    pub(crate) fn gives(self) -> Option<&'static str> {
        match self {
            Self::StableDiffusion | Self::LatentConsistency => None,
            Self::StableDiffusionXl => Some("pooled_projections and time_ids"),
            Self::StableDiffusion3 | Self::Flux => Some("pooled_projections"),
            Self::PixArt => Some("time_ids"),
        }
    }

    /// Whether layers of a text encoder can be left out.
    pub(crate) fn has_clip_skip(self) -> bool {
        !matches!(self, Self::Flux | Self::PixArt)
    }

    /// Whether prompts are cut to a length of T5's that can be chosen.
    pub(crate) fn has_sequence_length(self) -> bool {
        matches!(self, Self::StableDiffusion3 | Self::Flux | Self::PixArt)
    }
}

/// What decides how prompts are encoded.
#[derive(Clone, Debug)]
pub(crate) struct EncodeSettings {
    /// Whether the negative prompts are needed.
    pub(crate) guided: bool,
    pub(crate) syntax: PromptSyntax,
    pub(crate) clip_skip: Option<usize>,
    pub(crate) max_sequence_length: usize,
    /// Embeddings of negative prompts that were not given are zeros.
    pub(crate) force_zeros_for_empty_prompt: bool,
    /// Width of the encoder hidden states of the network.
    pub(crate) width: Option<usize>,
}

impl PipelineFamily {
    /// Encodes prompts with the encoders of `parts`.
    ///
    /// # Errors
    /// Of missing encoders, and of prompts that cannot be encoded.
    pub(crate) fn encode(
        self,
        parts: &Parts,
        prompts: &Prompts,
        settings: &EncodeSettings,
        device: &Device,
    ) -> Result<PromptEmbeddings> {
        let call = EncodeCall {
            parts,
            prompts,
            settings,
            device,
        };
        match self {
            Self::StableDiffusion | Self::LatentConsistency => stable_diffusion::encode(&call),
            Self::StableDiffusionXl => stable_diffusion_xl::encode(&call),
            Self::StableDiffusion3 => stable_diffusion_3::encode(&call),
            Self::Flux => flux::encode(&call),
            Self::PixArt => pixart::encode(&call),
        }
    }
}

/// Adds what was cut from texts to the warnings, unless it is there already.
fn warnings_of_cut(warnings: &mut Vec<String>, field: &str, cut: &[Option<String>]) {
    for cut in cut.iter().flatten() {
        let warning = format!("the end of `{field}` was cut, it is too long: {cut:?}");
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
}

/// The arguments of a family's `encode`.
struct EncodeCall<'a> {
    parts: &'a Parts,
    prompts: &'a Prompts,
    settings: &'a EncodeSettings,
    device: &'a Device,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_families() {
        for (class, family) in [
            (
                "StableDiffusionInpaintPipeline",
                PipelineFamily::StableDiffusion,
            ),
            (
                "StableDiffusionXLPipeline",
                PipelineFamily::StableDiffusionXl,
            ),
            ("FluxPipeline", PipelineFamily::Flux),
        ] {
            assert_eq!(PipelineFamily::of_class(class).unwrap(), family);
        }
        let message = PipelineFamily::of_class("KandinskyPipeline")
            .unwrap_err()
            .to_string();
        assert!(message.contains("KandinskyPipeline") && message.contains("FluxPipeline"));
    }
}
