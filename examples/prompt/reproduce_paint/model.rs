//! The model of `paint`: its parts, and the directory of diffusers that holds them.

use aigc_core::{
    burn::tensor::Device,
    checkpoint::write_atomic,
    data::scenes::{self, Layout},
    weights::WeightDtype,
};
use aigc_diffusion::{
    AnyScheduler, BetaSchedule, DpmMultistepScheduler, NoiseScheduleConfig, PredictionType,
    SigmaScheduleFlags, UNet2dConditionConfig, UNet2dConditionModel,
    models::{CrossDownBlockType, CrossUpBlockType, PerBlock},
};
use aigc_encoders::{
    clip::{ClipTextConfig, HiddenAct},
    tokenizer::ClipTokenizer,
};
use aigc_pipelines::{
    text_to_image::{PipelineOpenOptions, TextToImagePipeline},
    training::PromptDenoiser,
};
use aigc_vae::AutoencoderKl;
use anyhow::Context;
use std::path::Path;

/// Training images in an epoch.
pub(crate) const EPOCH: usize = 1 << 20;
/// Places of the shapes that the model learns.
pub(crate) const LAYOUT: Layout = Layout::Rows;
/// Scale of guidance for which the figures are given.
pub(crate) const GUIDANCE: f64 = 3.0;
/// Denoising steps for which the figures are given.
pub(crate) const STEPS: usize = 20;
/// Tokens of a prompt.
const TOKENS: usize = 20;

pub(crate) type Painter = PromptDenoiser<UNet2dConditionModel>;

pub(crate) fn tokenizer() -> aigc_core::Result<ClipTokenizer> {
    ClipTokenizer::from_words(scenes::WORDS.iter().copied())?.with_max_length(TOKENS)
}

pub(crate) fn text_config(tokenizer: &ClipTokenizer) -> ClipTextConfig {
    ClipTextConfig {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: 128,
        intermediate_size: 256,
        projection_dim: 128,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        max_position_embeddings: TOKENS,
        hidden_act: HiddenAct::QuickGelu,
        bos_token_id: Some(tokenizer.bos_token_id()),
        eos_token_id: tokenizer.eos_token_id(),
        pad_token_id: Some(tokenizer.pad_token_id()),
        ..ClipTextConfig::default()
    }
}

pub(crate) fn network_config() -> UNet2dConditionConfig {
    UNet2dConditionConfig {
        sample_size: Some(16.into()),
        down_block_types: vec![
            CrossDownBlockType::DownBlock2D,
            CrossDownBlockType::CrossAttnDownBlock2D,
            CrossDownBlockType::CrossAttnDownBlock2D,
        ],
        up_block_types: vec![
            CrossUpBlockType::CrossAttnUpBlock2D,
            CrossUpBlockType::CrossAttnUpBlock2D,
            CrossUpBlockType::UpBlock2D,
        ],
        block_out_channels: vec![48, 72, 88],
        layers_per_block: 1,
        cross_attention_dim: 128,
        attention_head_dim: PerBlock::One(4),
        norm_num_groups: 8,
        ..UNet2dConditionConfig::default()
    }
}

/// The betas end higher than Stable Diffusion's: the latents of flat backgrounds are large even
/// under much noise, and sampling starts from noise alone.
pub(crate) fn noise() -> NoiseScheduleConfig {
    NoiseScheduleConfig {
        beta_start: 0.00085,
        beta_end: 0.02,
        beta_schedule: BetaSchedule::ScaledLinear,
        ..NoiseScheduleConfig::default()
    }
}

pub(crate) fn scheduler() -> DpmMultistepScheduler {
    DpmMultistepScheduler {
        noise: noise(),
        prediction_type: PredictionType::V,
        sigmas: SigmaScheduleFlags {
            use_karras_sigmas: true,
            ..SigmaScheduleFlags::default()
        },
        ..DpmMultistepScheduler::default()
    }
}

/// Writes the parts as a directory of a `StableDiffusionPipeline`, with weights in half precision.
pub(crate) fn save(
    painter: &Painter,
    tokenizer: &ClipTokenizer,
    vae: &AutoencoderKl,
    dir: &Path,
    device: &Device,
) -> anyhow::Result<()> {
    let parts = dir.with_extension("parts");
    painter
        .text_encoder
        .save_pretrained(parts.join("text_encoder"))?;
    tokenizer.save_pretrained(parts.join("tokenizer"))?;
    painter.network.save_pretrained(parts.join("unet"))?;
    vae.save_pretrained(parts.join("vae"))?;
    std::fs::create_dir_all(parts.join("scheduler"))?;
    let scheduler: AnyScheduler = scheduler().into();
    write_atomic(
        &parts.join("scheduler/scheduler_config.json"),
        scheduler.to_json().as_bytes(),
    )?;
    let index = serde_json::json!({
        "_class_name": "StableDiffusionPipeline",
        "_default_guidance_scale": GUIDANCE,
        "_default_num_inference_steps": STEPS,
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "safety_checker": [null, null],
        "feature_extractor": [null, null],
    });
    write_atomic(
        &parts.join("model_index.json"),
        serde_json::to_string_pretty(&index)?.as_bytes(),
    )?;
    let half = PipelineOpenOptions::default().with_dtype(WeightDtype::F16);
    TextToImagePipeline::from_pretrained_with(&parts, &half, device)?
        .into_inner()
        .save_pretrained(dir)?;
    std::fs::remove_dir_all(&parts).with_context(|| parts.display().to_string())
}
