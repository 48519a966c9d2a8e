//! Short trainings of sound effects and of moving pictures, on data that is computed or embedded:
//! each takes seconds, and what was learned is measured.

mod clips;
mod effects;
mod motion_modules;
mod moving_digits;

use aigc_core::{
    data::{DataLoader, SampleBatch},
    testing::temp_run,
    train::{EmaConfig, LrSchedule, OptimizerConfig, Trainer, TrainerConfig},
};
use aigc_diffusion::{
    Denoiser, DiffusionObjective, DiffusionObjectiveConfig, DpmMultistepScheduler, PredictionType,
    SigmaScheduleFlags, Thresholding,
};

/// The loss of all networks. The clean sample is predicted at high noise, too, where predictions of
/// ε have large errors after few steps.
fn objective() -> DiffusionObjectiveConfig {
    DiffusionObjectiveConfig {
        prediction: PredictionType::V,
        conditioning_dropout: 0.1,
        ..DiffusionObjectiveConfig::default()
    }
}

/// The scheduler of all samples, as the programs have it.
fn scheduler() -> DpmMultistepScheduler {
    DpmMultistepScheduler {
        prediction_type: PredictionType::V,
        threshold: Thresholding {
            thresholding: true,
            ..Thresholding::default()
        },
        sigmas: SigmaScheduleFlags {
            use_karras_sigmas: true,
            ..SigmaScheduleFlags::default()
        },
        ..DpmMultistepScheduler::default()
    }
}

/// Settings of a short training.
fn trainer(steps: usize, learning_rate: f64) -> TrainerConfig {
    TrainerConfig {
        learning_rate,
        lr_schedule: LrSchedule::cosine(10),
        optimizer: OptimizerConfig::adam(0.9, 0.99),
        max_grad_norm: Some(1.0),
        ema: Some(EmaConfig::new(0.95)),
        ..TrainerConfig::new(steps)
    }
}

/// Trains a denoising network.
fn train<N, B, const D: usize>(network: N, loader: &DataLoader<B>, config: TrainerConfig) -> N
where
    N: Denoiser<D> + 'static,
    B: SampleBatch<D>,
{
    let learning = DiffusionObjective::<N, B, D>::new(objective(), &network).unwrap();
    let run = temp_run().unwrap();
    let trained = Trainer::new(config).fit(learning, network, loader, &run);
    trained.unwrap().model
}
