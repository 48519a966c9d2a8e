//! Diffusion models: noise is added step by step, a network learns to take it away, and samples are
//! made from pure noise.
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
pub use denoiser::{Condition, Denoiser};
pub use grid::{FinalSigmas, SigmaScheduleFlags, SigmaSpacing, Spacing};
pub use guidance::{ClassifierGuidance, Guidance, Guide, NoisyClassifier, View};
pub use likelihood::Likelihood;
pub use models::{
    AnyDenoiser, DitConfig, DitModel, SampleSize, UNet2dConditionConfig, UNet2dConditionModel,
    UNet2dConfig, UNet2dModel,
};
pub use objective::{DiffusionObjective, DiffusionObjectiveConfig, Weighting};
pub use pipeline::Pipeline;
pub use plan::{Call, Plan, Sampling, Source, StepOutput, Sum, Variance};
pub use posterior::{Degradation, Posterior};
pub use prediction::{Level, Prediction, Reading};
pub use process::{Coupling, Process, TimestepSampling};
pub use sampler::{Progress, Sampler, Samples};
pub use schedule::{BetaSchedule, NoiseScheduleConfig};
pub use scheduler::*;

#[cfg(test)]
mod testing;
