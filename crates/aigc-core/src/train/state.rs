//! The contents of a run directory and of a checkpoint besides tensors.

use super::{Phase, TrainerConfig};
use crate::{
    Error, Result,
    checkpoint::Checkpoint,
    data::{DataLoaderConfig, OnReadError},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::path::PathBuf;

/// The content of the run's `config.json`.
#[derive(Serialize, Deserialize)]
pub(crate) struct RunConfig {
    pub(super) model: Value,
    pub(super) trainer: TrainerConfig,
    pub(super) objective: Value,
    pub(super) data: Value,
    pub(super) loader: LoaderRecord,
}

/// The settings that determine the batches of a loader.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LoaderRecord {
    items: usize,
    batch_size: usize,
    #[serde(alias = "shuffle")]
    shuffle_seed: Option<u64>,
    #[serde(alias = "bad_items")]
    on_read_error: OnReadError,
}

impl LoaderRecord {
    pub(super) fn new(items: usize, config: &DataLoaderConfig) -> Self {
        Self {
            items,
            batch_size: config.batch_size,
            shuffle_seed: config.shuffle_seed,
            on_read_error: config.on_read_error,
        }
    }
}

/// A configuration as JSON, and a function that converts one saved by an older version to its form.
pub(super) struct ConfigRecord {
    pub(super) json: Value,
    renew: fn(&Value) -> Option<Value>,
}

impl ConfigRecord {
    pub(super) fn none() -> Self {
        Self {
            json: Value::Null,
            renew: |_| None,
        }
    }

    pub(super) fn new<C: Serialize + DeserializeOwned>(field: &str, config: &C) -> Result<Self> {
        let json = serde_json::to_value(config).map_err(|error| {
            Error::argument(field, error, "a value that can be serialised as JSON")
        })?;
        Ok(Self {
            json,
            renew: |saved| serde_json::to_value(C::deserialize(saved).ok()?).ok(),
        })
    }

    /// Fails unless this configuration is the one that a run was saved with.
    fn check_continues(&self, field: &str, saved: &Value) -> Result<()> {
        let renewed = (self.renew)(saved);
        let saved = renewed.as_ref().unwrap_or(saved);
        if self.json == *saved || is_moved(&self.json, saved) {
            return Ok(());
        }
        // For objects, only the first field that differs is reported.
        if let (Value::Object(ours), Value::Object(theirs)) = (&self.json, saved) {
            let null = Value::Null;
            for name in ours.keys().chain(theirs.keys()) {
                let (our, their) = (
                    ours.get(name).unwrap_or(&null),
                    theirs.get(name).unwrap_or(&null),
                );
                if our != their {
                    let expected = format!("{their}, with which the run began");
                    return Err(Error::config(format!("{field}.{name}"), our, expected));
                }
            }
        }
        let expected = format!("{saved}, with which the run began");
        Err(Error::config(field, &self.json, expected))
    }
}

/// Whether two descriptions of data differ only in their `path` and have the same `fingerprint`:
/// the data were moved.
fn is_moved(ours: &Value, saved: &Value) -> bool {
    let (Value::Object(ours), Value::Object(saved)) = (ours, saved) else {
        return false;
    };
    let fingerprinted = saved.get("fingerprint").is_some_and(Value::is_string);
    let rest = |all: &serde_json::Map<String, Value>| {
        let mut all = all.clone();
        all.remove("path");
        all
    };
    fingerprinted && rest(ours) == rest(saved)
}

/// The training state in a checkpoint, without its tensors.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// Steps completed.
    pub(super) step: usize,
    /// Batches drawn.
    pub(super) batches: usize,
    /// Number of updates of the average.
    pub(super) ema_updates: usize,
    /// Step and value of the best evaluation.
    pub(super) best: Option<(usize, f64)>,
    /// Number of evaluations since the best.
    pub(super) since_best: usize,
    /// Results of the last evaluation; `null` for values that are not finite, which JSON does not
    /// have.
    pub(super) metrics: Vec<(String, Option<f64>)>,
    /// The state of the objective.
    #[serde(default)]
    pub(super) objective: Value,
}

/// The training time, in a separate file: the state of a resumed run equals that of an
/// uninterrupted one, but its time does not.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct TimeSpent {
    /// Seconds over all starts of the run.
    pub(super) seconds: f64,
}

pub(super) const STATE: &str = "state.json";
pub(super) const TIME: &str = "time.json";
pub(super) const MODEL: &str = "model.safetensors";
pub(super) const EMA: &str = "ema.safetensors";

pub(super) fn optimizer_file(phase: &Phase) -> String {
    format!("optimizer-{}.bpk", phase.name)
}

/// The file of the optimizer in `checkpoint`, which may have the former name of the phase.
pub(super) fn saved_optimizer_file(phase: &Phase, checkpoint: &Checkpoint) -> PathBuf {
    let path = checkpoint.path(&optimizer_file(phase));
    match phase.former_name {
        Some(former) if !path.exists() => checkpoint.path(&format!("optimizer-{former}.bpk")),
        _ => path,
    }
}

/// The configurations of a run.
pub(super) struct ConfigRecords<'a> {
    pub(super) model: &'a ConfigRecord,
    pub(super) objective: &'a ConfigRecord,
    pub(super) data: &'a ConfigRecord,
}

/// Fails if these configurations would change the results of the run that began with `saved`.
pub(super) fn check_continues(
    trainer: &TrainerConfig,
    records: &ConfigRecords<'_>,
    loader: &LoaderRecord,
    saved: &RunConfig,
) -> Result<()> {
    trainer.check_continues(&saved.trainer)?;
    records.data.check_continues("data", &saved.data)?;
    records.model.check_continues("model", &saved.model)?;
    records
        .objective
        .check_continues("objective", &saved.objective)?;
    let loader = ConfigRecord::new("loader", loader)?;
    let saved = ConfigRecord::new("loader", &saved.loader)?;
    loader.check_continues("loader", &saved.json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Serialize, Deserialize)]
    struct Config {
        path: Option<String>,
        #[serde(alias = "side")]
        size: usize,
        #[serde(default)]
        fingerprint: Option<String>,
    }

    fn check(path: &str, size: usize, fingerprint: Option<&str>, saved: Value) -> String {
        let config = Config {
            path: Some(path.into()),
            size,
            fingerprint: fingerprint.map(Into::into),
        };
        let record = ConfigRecord::new("data", &config).unwrap();
        match record.check_continues("data", &saved) {
            Ok(()) => "continues".into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn records_of_older_versions_are_the_same() {
        assert_eq!(
            check("a", 8, None, json!({"path": "a", "side": 8})),
            "continues"
        );
        let other = check("a", 9, None, json!({"path": "a", "side": 8}));
        assert!(
            other.contains("`data.size` is 9, expected 8, with which"),
            "{other}"
        );
    }

    #[test]
    fn moved_data_are_known_by_their_fingerprint() {
        let saved = json!({"path": "a", "size": 8, "fingerprint": "x"});
        assert_eq!(check("b", 8, Some("x"), saved.clone()), "continues");
        assert!(check("b", 8, Some("y"), saved.clone()).contains("`data."));
        assert!(check("b", 9, Some("x"), saved).contains("`data."));
        let without = check("b", 8, None, json!({"path": "a", "size": 8}));
        assert!(without.contains("`data.path` is \"b\""), "{without}");
    }
}
