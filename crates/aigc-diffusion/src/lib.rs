//! Diffusion models: noise is added step by step, a network learns to remove it, and samples are
//! generated from pure noise.
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
pub use denoiser::{Conditioning, Denoiser};
pub use grid::{FinalSigmas, SigmaScheduleFlags, SigmaSpacing, TimestepSpacing};
pub use guidance::{
    ClassifierFreeGuidance, ClassifierGuidance, Guide, GuideContext, NoisyClassifier,
};
pub use likelihood::BitsPerDim;
pub use models::{
    AnyDenoiser, DitConfig, DitModel, SampleSize, UNet2dConditionConfig, UNet2dConditionModel,
    UNet2dConfig, UNet2dModel,
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
