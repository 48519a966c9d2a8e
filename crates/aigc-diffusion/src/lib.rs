//! Diffusion models (Ho et al. 2020, <https://arxiv.org/abs/2006.11239>; Karras et al. 2022,
//! <https://arxiv.org/abs/2206.00364>) and flow matching (Lipman et al. 2023,
//! <https://arxiv.org/abs/2210.02747>).
//!
//! A forward process adds noise to samples, and a network learns to predict it:
//!
//! ```text
//! x_t = α·x₀ + σ·ε        network: (x_t, t, condition) → ε, x₀, v or ε − x₀
//! ```
//!
//! Training initialises a network ([`UNet2dConfig::init`], [`DitConfig::init`]), then repeats:
//!
//! 1. draw a batch `x₀` ([`DataLoader`](aigc_core::data::DataLoader)), noise `ε` and a noise level
//!    ([`ForwardProcess`]);
//! 2. compute the network's prediction for `x_t` ([`Denoiser::predict`]);
//! 3. compute the weighted squared error ([`PredictionType`], [`LossWeighting`]);
//! 4. update the weights ([`Trainer`](aigc_core::train::Trainer)).
//!
//! [`DiffusionObjective`] computes steps 1 to 3 for a batch. Sampling takes three steps:
//!
//! 1. open a network and its scheduler ([`Pipeline::from_pretrained`], with the feature `download`
//!    also `Pipeline::from_hub`), or take a trained network;
//! 2. choose a [`Scheduler`], whose [`plan`](Scheduler::plan) lists all network calls;
//! 3. generate samples from noise ([`DiffusionSampler::sample`]).
//!
//! | items | content |
//! |---|---|
//! | [`models`] | networks with the names and the files of diffusers ([`AnyDenoiser`]) |
//! | [`scheduler`] | solvers: DDPM, DDIM, DPM-Solver++, UniPC, EDM, flows, … ([`AnyScheduler`]) |
//! | [`Denoiser`], [`Conditioning`] | the interface of networks |
//! | [`ForwardProcess`], [`NoiseScheduleConfig`] | noise in training |
//! | [`DiffusionObjective`], [`DiffusionObjectiveConfig`] | the loss |
//! | [`DiffusionSampler`] | sampling, editing, inpainting, interpolation and inversion |
//! | [`Guide`], [`ClassifierFreeGuidance`], [`ClassifierGuidance`] | guidance |
//! | [`MomentMatchingGuidance`], [`Degradation`] | inverse problems: restoration of images |
//! | [`BitsPerDim`] | likelihoods |
//! | [`Pipeline`] | directories with a network and a scheduler; further components are listed |
//! | [`SamplingPlan`], [`PlanRunner`] | a scheduler's steps as data, and their execution |
#![forbid(unsafe_code)]

mod clip;
mod coupling;
mod denoiser;
mod grid;
mod guidance;
mod json;
mod likelihood;
pub mod models;
mod objective;
mod pipeline;
mod plan;
mod posterior;
mod prediction;
mod process;
mod sampler;
mod schedule;
pub mod scheduler;

pub use clip::Clip;
pub use denoiser::{Conditioning, ControlResiduals, Denoiser};
pub use grid::{FinalSigmas, SigmaScheduleFlags, SigmaSpacing, TimestepSpacing};
pub use guidance::{
    ClassifierFreeGuidance, ClassifierGuidance, Guide, GuideContext, NoisyClassifier,
};
pub use likelihood::BitsPerDim;
pub use models::{
    AnyDenoiser, ClassEmbedType, ControlNetConfig, ControlNetModel, DitConfig, DitModel,
    FluxTransformerConfig, FluxTransformerModel, LtxVideoInputs, LtxVideoTransformer3dConfig,
    LtxVideoTransformer3dModel, MotionAdapter, MotionAdapterConfig, PixArtTransformerConfig,
    PixArtTransformerModel, SampleSize, Sd3TransformerConfig, Sd3TransformerModel,
    StableAudioDitConfig, StableAudioDitModel, StableAudioProjectionConfig,
    StableAudioProjectionModel, UNet1dConfig, UNet1dModel, UNet2dConditionConfig,
    UNet2dConditionModel, UNet2dConfig, UNet2dModel, UNet3dConditionConfig, UNet3dConditionModel,
    UNetMotionConfig, UNetMotionModel, UNetSpatioTemporalConditionConfig,
    UNetSpatioTemporalConditionModel, WanTransformer3dConfig, WanTransformer3dModel, WithMotion,
    guidance_scale_embedding,
};
pub use objective::{DiffusionObjective, DiffusionObjectiveConfig, LossWeighting};
pub use pipeline::{Component, Pipeline};
pub use plan::{
    LearnedVariance, LinearCombination, ModelCall, PlanRunner, SamplingPlan, StepOutput, Term,
};
pub use posterior::{Degradation, MomentMatchingGuidance};
pub use prediction::{NoiseLevel, PredictionCoefficients, PredictionType};
pub use process::{Coupling, ForwardProcess, TimestepSampling};
pub use sampler::{DiffusionSampler, StepProgress};
pub use schedule::{BetaSchedule, NoiseScheduleConfig};
pub use scheduler::*;

#[cfg(test)]
mod testing;
