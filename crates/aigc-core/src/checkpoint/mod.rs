//! The run directory, through which training passes its results to sampling and evaluation.
//!
//! ```text
//! run/
//!   config.json              configuration of model, trainer, objective and data
//!   metrics.jsonl            one line per logged step and per evaluation
//!   loss.svg
//!   samples/step-000500.png
//!   checkpoints/step-000500/ state.json  time.json  model.safetensors  ema.safetensors
//!                            optimizer-….bpk  manifest.json
//!   final/                   config.json  model.safetensors
//! ```
//!
//! Every file except the log, which grows line by line, is written under a temporary name, synced
//! and renamed. The directory of a checkpoint is renamed only when all of it is on disk, and its
//! manifest holds the size and SHA-256 of every file in it.

mod dir;
mod ids;
mod json;
mod optimizer;
mod run;

pub use crate::fs::{write_atomic, write_atomic_with};
pub use dir::{Checkpoint, CheckpointWriter};
pub use ids::assign_path_ids;
pub(crate) use ids::assign_path_ids_with;
pub(crate) use json::{read_json, write_json};
pub use optimizer::{load_optimizer, save_optimizer};
pub use run::RunDir;
pub(crate) use run::{OTHER_CONFIG, RunLock};
