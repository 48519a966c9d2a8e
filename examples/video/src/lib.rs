//! Code that the programs with moving pictures share: clips of digits, image networks set in
//! motion, sampling, figures and files.
//!
//! | file | content |
//! |---|---|
//! | `options` | options on the command line |
//! | `clips` | clips to train on and to evaluate with |
//! | `image_model` | trained image models |
//! | `model` | the video network, and its directory |
//! | `settings`, `job` | settings of a run, its preparation and training |
//! | `sampling` | clips from noise |
//! | `reading`, `figures`, `goals` | what a classifier reads in clips; figures beside the data's |
//! | `files` | GIF, APNG, Y4M, MP4 and frame strips |
#![forbid(unsafe_code)]

mod clips;
mod figures;
mod files;
mod goals;
mod image_model;
mod job;
mod model;
mod options;
mod reading;
mod sampling;
mod settings;

pub use clips::{Clips, ClipsConfig, Place};
pub use figures::{ClipFigures, Compared};
pub use files::{ClipWriter, Gallery, hash_weights};
pub use image_model::{ImageModel, ImageModelRecord};
pub use job::Job;
pub use model::{VideoModel, VideoModelConfig, VideoNetwork, equal_frames};
pub use options::{TrainingOptions, parse_size};
pub use reading::{ClipDistances, ClipReader};
pub use sampling::Sampling;
pub use settings::{Settings, default_scheduler};
