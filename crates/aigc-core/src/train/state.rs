//! What a run folder and a checkpoint remember beside tensors.

use super::{Phase, TrainerConfig};
use crate::{Error, Result, checkpoint::Checkpoint};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What the run's `config.json` holds.
#[derive(Serialize, Deserialize)]
pub(super) struct RunConfig {
    pub(super) model: serde_json::Value,
    pub(super) trainer: TrainerConfig,
    pub(super) objective: serde_json::Value,
    pub(super) data: serde_json::Value,
    pub(super) loader: serde_json::Value,
}

/// What a checkpoint remembers beside tensors.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// Steps made.
    pub(super) step: usize,
    /// BatchIter drawn.
    pub(super) batches: usize,
    /// Updates of the average.
    pub(super) ema_updates: usize,
    /// Step and value of the best evaluation.
    pub(super) best: Option<(usize, f64)>,
    /// Evaluations since the best.
    pub(super) since_best: usize,
    /// Results of the last evaluation; JSON has no infinity, so what is not finite is `null`.
    pub(super) metrics: Vec<(String, Option<f64>)>,
    /// What the objective remembers beside the model.
    #[serde(default)]
    pub(super) objective: serde_json::Value,
}

pub(super) const STATE: &str = "state.json";
pub(super) const MODEL: &str = "model.safetensors";
pub(super) const EMA: &str = "ema.safetensors";

pub(super) fn optimizer_file(turn: &Phase) -> String {
    format!("optimizer-{}.bpk", turn.name)
}

/// The file of the optimizer in `checkpoint`, which may be from before the phase was renamed.
pub(super) fn saved_optimizer_file(turn: &Phase, checkpoint: &Checkpoint) -> PathBuf {
    let path = checkpoint.path(&optimizer_file(turn));
    match turn.former_name {
        Some(former) if !path.exists() => checkpoint.path(&format!("optimizer-{former}.bpk")),
        _ => path,
    }
}

/// Fails if `ours` would make another run out of the one that `saved` began.
pub(super) fn check_continues(ours: &RunConfig, saved: &RunConfig) -> Result<()> {
    ours.trainer.continues(&saved.trainer)?;
    for (field, ours, saved) in [
        ("data", &ours.data, &saved.data),
        ("model", &ours.model, &saved.model),
        ("objective", &ours.objective, &saved.objective),
        ("loader", &ours.loader, &saved.loader),
    ] {
        if ours != saved {
            return Err(Error::config(
                field,
                ours,
                format!("{saved}, with which the run began"),
            ));
        }
    }
    Ok(())
}
