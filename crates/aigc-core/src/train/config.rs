//! The configuration of a training run.

use super::{LrSchedule, OptimizerConfig, ParamGroupConfig};
use crate::{
    Result,
    check::{ensure, positive},
};
use serde::{Deserialize, Serialize};

/// Configuration of an average of the weights over the steps (Polyak and Juditsky 1992).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmaConfig {
    /// Weight of the old average in an update, after warm-up.
    pub decay: f64,
    /// Whether the decay starts low: after `n` updates it is at most `(1 + n) / (10 + n)`, so that
    /// the initial weights are soon forgotten.
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

/// Configuration of a [`Trainer`](super::Trainer). The fields have the names of those of
/// transformers' `TrainingArguments`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainerConfig {
    /// Number of training steps.
    #[serde(alias = "steps")]
    pub max_steps: usize,
    /// Time limit in minutes over all starts of the run; training ends even if steps are left. The
    /// learning-rate schedule is scaled to the limit that is reached first.
    #[serde(alias = "minutes")]
    pub max_minutes: Option<f64>,
    /// Seed of initial weights, noise and dropout.
    pub seed: u64,
    /// Optimizer of every phase for which
    /// [`Trainer::with_optimizer`](super::Trainer::with_optimizer) sets none.
    pub optimizer: OptimizerConfig,
    /// Learning rate where the factor of the schedule is 1.
    pub learning_rate: f64,
    /// Schedule of the factor that the learning rate is multiplied by.
    #[serde(alias = "schedule")]
    pub lr_schedule: LrSchedule,
    /// Groups of parameters with a separate learning rate or optimizer.
    #[serde(alias = "groups")]
    pub param_groups: Vec<ParamGroupConfig>,
    /// Number of batches whose gradients are averaged for one update.
    #[serde(alias = "accumulate")]
    pub gradient_accumulation_steps: usize,
    /// Limit on the norm of all gradients together; larger gradients are scaled down.
    #[serde(alias = "clip_norm")]
    pub max_grad_norm: Option<f64>,
    /// Exponential moving average of the weights, used for evaluation, previews and the final
    /// model.
    pub ema: Option<EmaConfig>,
    /// Steps between evaluations; with 0, only the final evaluation.
    #[serde(alias = "evaluate_every")]
    pub eval_steps: usize,
    /// Steps between previews; with 0, only the final preview.
    #[serde(alias = "preview_every")]
    pub preview_steps: usize,
    /// Steps between checkpoints; with 0, only the final checkpoint.
    #[serde(alias = "checkpoint_every")]
    pub save_steps: usize,
    /// Number of newest checkpoints to keep.
    #[serde(alias = "keep_last")]
    pub save_total_limit: usize,
    /// Whether the checkpoint of the best evaluation is also kept, and becomes the final model.
    #[serde(alias = "keep_best")]
    pub load_best_model_at_end: bool,
    /// Name of the evaluation metric that decides which model is best; the first metric if `None`.
    pub metric_for_best_model: Option<String>,
    /// Whether a larger value of that metric is better.
    #[serde(alias = "maximize")]
    pub greater_is_better: bool,
    /// Number of evaluations without improvement after which training ends.
    #[serde(alias = "patience")]
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
            metric_for_best_model: None,
            greater_is_better: false,
            early_stopping_patience: None,
        }
    }
}

impl TrainerConfig {
    /// `max_steps` steps, with defaults for all other fields.
    pub fn new(max_steps: usize) -> Self {
        Self {
            max_steps,
            ..Self::default()
        }
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        let rate = self.learning_rate;
        ensure(
            self.max_steps > 0,
            "max_steps",
            self.max_steps,
            "at least 1",
        )?;
        ensure(
            rate > 0.0 && rate <= 1.0,
            "learning_rate",
            rate,
            "above 0, at most 1",
        )?;
        ensure(
            self.gradient_accumulation_steps > 0,
            "gradient_accumulation_steps",
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
            ensure(minutes > 0.0, "max_minutes", minutes, "above 0")?; // infinite is fine
        }
        if let Some(norm) = self.max_grad_norm {
            positive("max_grad_norm", norm)?;
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
            ensure(
                patience > 0,
                "early_stopping_patience",
                patience,
                "at least 1",
            )?;
            ensure(
                self.eval_steps > 0,
                "eval_steps",
                0,
                "at least 1, since `early_stopping_patience` counts evaluations",
            )?;
        }
        self.optimizer.validate()?;
        self.param_groups
            .iter()
            .try_for_each(ParamGroupConfig::validate)?;
        self.lr_schedule.validate()
    }

    /// Fails if this configuration would change the results of a run that began with `saved`.
    /// Lengths and intervals may differ, and so may settings that only decide which checkpoints are
    /// kept.
    pub(crate) fn check_continues(&self, saved: &TrainerConfig) -> Result<()> {
        let json = |config: &TrainerConfig| serde_json::to_value(config).unwrap_or_default();
        let (ours, theirs) = (json(self), json(saved));
        for field in [
            "seed",
            "optimizer",
            "learning_rate",
            "lr_schedule",
            "param_groups",
            "gradient_accumulation_steps",
            "max_grad_norm",
            "ema",
            "metric_for_best_model",
            "greater_is_better",
        ] {
            let expected = format!("{}, with which the run began", theirs[field]);
            ensure(ours[field] == theirs[field], field, &ours[field], &expected)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_reads_fields_of_older_runs() {
        let old = serde_json::json!({
            "steps": 12, "minutes": 3.0, "seed": 5, "learning_rate": 0.01,
            "schedule": {"warmup": 3, "decay": "cosine", "floor": 0.1},
            "groups": [{"pattern": "bias$", "learning_rate_scale": 0.5, "optimizer": null}],
            "accumulate": 2, "clip_norm": 0.5, "evaluate_every": 4, "preview_every": 7,
            "checkpoint_every": 6, "keep_last": 1, "keep_best": true, "maximize": true,
            "patience": 9,
        });
        let config: TrainerConfig = serde_json::from_value(old).unwrap();
        let expected = serde_json::json!({
            "max_steps": 12, "max_minutes": 3.0, "seed": 5, "learning_rate": 0.01,
            "lr_schedule": {"warmup_steps": 3, "decay": "cosine", "min_lr_ratio": 0.1},
            "param_groups": [{"pattern": "bias$", "learning_rate_scale": 0.5, "optimizer": null}],
            "gradient_accumulation_steps": 2, "max_grad_norm": 0.5, "eval_steps": 4,
            "preview_steps": 7, "save_steps": 6, "save_total_limit": 1,
            "load_best_model_at_end": true, "metric_for_best_model": null,
            "greater_is_better": true, "early_stopping_patience": 9, "ema": null,
            "optimizer": serde_json::to_value(OptimizerConfig::default()).unwrap(),
        });
        assert_eq!(serde_json::to_value(&config).unwrap(), expected);
    }
}
