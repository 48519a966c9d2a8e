//! The trainer, against closed forms and against itself.

mod config;
mod events;
mod finite;
mod phases;
mod runs;
mod updates;

use aigc_core::{
    Error, Result,
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig},
    nn::{Initializer, Linear, LinearConfig},
    testing::{TempRun, flex, temp_run},
    train::{
        Ema, EmaConfig, Event, LossOutput, LrSchedule, MetricsLogger, Objective, OptimizerConfig,
        ParamGroupConfig, Phase, StartFrom, StepContext, StopReason, TrainOutput, Trainer,
        TrainerConfig, read_metrics,
    },
};
use aigc_tests::{Net, NoisyRegression, Rows, bits, columns, loader_of, row_loader};
use burn::{module::Module, optim::AdaGradConfig, tensor::Tensor};
use std::{cell::RefCell, rc::Rc};

/// One weight `w`, loss `½(w − target)²` summed over the batch's targets: everything is known by
/// hand.
#[derive(Module, Debug)]
struct Scalar {
    w: Linear,
}

impl Scalar {
    fn new(start: f64) -> Self {
        Self {
            w: LinearConfig::new(1, 1)
                .with_bias(false)
                .with_initializer(Initializer::Constant(start))
                .init(&flex()),
        }
    }

    fn value(&self) -> f64 {
        f64::from(self.w.weight.val().into_scalar::<f32>())
    }
}

#[derive(Default)]
struct Pull {
    fail_at: Option<usize>,
    infinite_gradient_at: Option<usize>,
}

impl Objective for Pull {
    type Model = Scalar;
    type Batch = Rows;

    fn losses(
        &mut self,
        model: &Scalar,
        batch: &Rows,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        let (_, targets) = columns(batch, &context.device);
        let w = model.w.weight.val();
        let error = w.clone() - targets;
        let mut loss = (error.clone() * error).mean() * 0.5;
        let mut part = loss.clone();
        if self.fail_at == Some(context.step) {
            part = part / 0.0;
        }
        if self.infinite_gradient_at == Some(context.step) {
            // √|0| is 0 and its slope infinite.
            loss = loss + (w.clone() - w.detach()).abs().sum().sqrt();
        }
        Ok(LossOutput::new(loss).with_metric("part", part))
    }
}

fn constant_rows(targets: &[f32], batch_size: usize) -> DataLoader<Rows> {
    let rows = targets.iter().map(|t| [0.0, 0.0, 0.0, 0.0, *t]).collect();
    let config = DataLoaderConfig {
        batch_size,
        shuffle_seed: None,
        num_workers: 0,
        ..DataLoaderConfig::default()
    };
    loader_of(aigc_core::data::InMemory(rows), config)
}

fn sgd(steps: usize, rate: f64) -> TrainerConfig {
    TrainerConfig {
        optimizer: OptimizerConfig::sgd(),
        learning_rate: rate,
        ..TrainerConfig::new(steps)
    }
}
