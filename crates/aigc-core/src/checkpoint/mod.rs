//! The run folder: the only thing that passes between training, sampling and evaluation.
//!
//! ```text
//! run/
//!   config.json              model, trainer and data, as they were given
//!   metrics.jsonl            one line per logged step and per evaluation
//!   loss.svg
//!   samples/step-000500.png
//!   checkpoints/step-000500/ state.json  model.safetensors  ema.safetensors  optimizer-….bpk  manifest.json
//!   final/                   config.json  model.safetensors
//! ```
//!
//! Every file but the log, which grows line by line, is written under another name, synced and
//! renamed; a checkpoint's folder gets its name only when all of it is on disk, and its manifest
//! holds the size and SHA-256 of every file in it.

mod atomic;
mod folder;
mod ids;
mod optimizer;

pub use atomic::{write_atomic, write_atomic_with};
#[cfg(feature = "download")]
pub(crate) use folder::sha256;
pub use folder::{Checkpoint, CheckpointWriter, RunDir};
pub(crate) use folder::{RunLock, read_json, write_json};
pub use ids::assign_path_ids;
pub(crate) use ids::assign_path_ids_with;
pub use optimizer::{load_optimizer, save_optimizer};
