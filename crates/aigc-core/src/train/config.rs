//! What a run is asked to do.

use super::{LrSchedule, OptimizerConfig, ParamGroupConfig};
use crate::{Result, check::ensure};
use serde::{Deserialize, Serialize};

/// Average the weights over the steps (Polyak and Juditsky 1992).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmaConfig {
    /// Share of the old average that a step keeps, in the long run.
    pub decay: f64,
    /// Whether the decay starts low: after `n` updates it is at most `(1 + n) / (10 + n)`, so that
    /// the first weights are soon forgotten.
    pub warmup: bool,
}

impl EmaConfig {
    /// An average with warm-up.
    pub const fn new(decay: f64) -> Self {
        Self {
            decay,
            warmup: true,
        }
    }
}

/// What a [`Trainer`](super::Trainer) is asked to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainerConfig {
    /// Updates to make.
    pub max_steps: usize,
    /// Minutes after which to stop even so; counted anew at every start.
    pub max_minutes: Option<f64>,
    /// Seed of initial weights, noise and dropout.
    pub seed: u64,
    /// The optimizer of every turn that [`Trainer::with_optimizer`](super::Trainer::with_optimizer)
    /// does not set.
    pub optimizer: OptimizerConfig,
    /// Learning rate at factor 1 of the schedule.
    pub learning_rate: f64,
    /// Factor by step.
    pub lr_schedule: LrSchedule,
    /// Parameters treated in their own way.
    pub param_groups: Vec<ParamGroupConfig>,
    /// BatchIter whose gradients are averaged for one update.
    pub gradient_accumulation_steps: usize,
    /// Largest allowed norm of all gradients together.
    pub max_grad_norm: Option<f64>,
    /// Average of the weights, used wherever the model is judged or shown.
    pub ema: Option<EmaConfig>,
    /// Steps between evaluations; 0 for none but the last.
    pub eval_steps: usize,
    /// Steps between previews; 0 for none but the last.
    pub preview_steps: usize,
    /// Steps between checkpoints; 0 for none but the last.
    pub save_steps: usize,
    /// How many of the newest checkpoints stay.
    pub save_total_limit: usize,
    /// Whether the checkpoint of the best evaluation stays too, and becomes the final model.
    pub load_best_model_at_end: bool,
    /// Whether a larger value of the first metric is better.
    pub greater_is_better: bool,
    /// Evaluations without improvement after which to stop.
    pub early_stopping_patience: Option<usize>,
}

impl Default for TrainerConfig {
    fn default() -> Self {
        Self {
            max_steps: 1000,
            max_minutes: None,
            seed: 0,
            optimizer: OptimizerConfig::default(),
            learning_rate: 1e-3,
            lr_schedule: LrSchedule::CONSTANT,
            param_groups: Vec::new(),
            gradient_accumulation_steps: 1,
            max_grad_norm: None,
            ema: None,
            eval_steps: 0,
            preview_steps: 0,
            save_steps: 500,
            save_total_limit: 2,
            load_best_model_at_end: false,
            greater_is_better: false,
            early_stopping_patience: None,
        }
    }
}

impl TrainerConfig {
    /// `steps` updates, everything else as it usually is.
    pub fn new(steps: usize) -> Self {
        Self {
            max_steps: steps,
            ..Self::default()
        }
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        let rate = self.learning_rate;
        ensure(self.max_steps > 0, "steps", self.max_steps, "at least 1")?;
        ensure(
            rate > 0.0 && rate <= 1.0,
            "learning_rate",
            rate,
            "above 0, at most 1",
        )?;
        ensure(
            self.gradient_accumulation_steps > 0,
            "accumulate",
            self.gradient_accumulation_steps,
            "at least 1",
        )?;
        ensure(
            self.save_total_limit > 0,
            "save_total_limit",
            self.save_total_limit,
            "at least 1",
        )?;
        if let Some(minutes) = self.max_minutes {
            ensure(minutes > 0.0, "minutes", minutes, "above 0")?; // infinite is fine
        }
        if let Some(norm) = self.max_grad_norm {
            ensure(
                norm > 0.0 && norm.is_finite(),
                "max_grad_norm",
                norm,
                "above 0 and finite",
            )?;
        }
        if let Some(ema) = self.ema {
            ensure(
                (0.0..1.0).contains(&ema.decay),
                "ema.decay",
                ema.decay,
                "from 0 to below 1",
            )?;
        }
        if let Some(patience) = self.early_stopping_patience {
            ensure(patience > 0, "patience", patience, "at least 1")?;
            ensure(
                self.eval_steps > 0,
                "eval_steps",
                0,
                "at least 1, since `patience` counts evaluations",
            )?;
        }
        self.optimizer.validate()?;
        self.param_groups
            .iter()
            .try_for_each(ParamGroupConfig::validate)?;
        self.lr_schedule.validate()
    }

    /// Fails if this configuration would make another run out of the one `saved` began. Lengths and
    /// cadences may change.
    pub(crate) fn continues(&self, saved: &TrainerConfig) -> Result<()> {
        let json = |config: &TrainerConfig| serde_json::to_value(config).unwrap_or_default();
        let (ours, theirs) = (json(self), json(saved));
        // Lengths and cadences are left out, and so is what only decides which checkpoints stay.
        for field in [
            "seed",
            "optimizer",
            "learning_rate",
            "schedule",
            "groups",
            "accumulate",
            "max_grad_norm",
            "ema",
            "maximize",
        ] {
            let expected = format!("{}, with which the run began", theirs[field]);
            ensure(ours[field] == theirs[field], field, &ours[field], &expected)?;
        }
        Ok(())
    }
}
