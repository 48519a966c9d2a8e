//! Diffusion models: noise is added step by step, a network learns to take it away, and samples are made from pure noise.
#![forbid(unsafe_code)]

mod clip;
mod denoiser;
mod grid;
mod json;
pub mod models;
mod objective;
mod plan;
mod prediction;
mod schedule;
pub mod scheduler;

pub use clip::Clip;
pub use denoiser::{Condition, Denoiser};
pub use grid::{FinalSigma, SigmaFlags, SigmaSpacing, Spacing};
pub use models::{DitConfig, DitModel, UNet2dConditionConfig, UNet2dConditionModel, UNet2dConfig, UNet2dModel};
pub use objective::{DiffusionObjective, DiffusionObjectiveConfig, Weighting};
pub use plan::{Call, Plan, Sampling, Source, Stepped, Sum, Variance};
pub use prediction::{Level, Prediction, Reading};
pub use schedule::{BetaSchedule, NoiseConfig};
pub use scheduler::*;
