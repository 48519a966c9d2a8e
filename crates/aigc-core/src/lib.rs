//! What every generative-model crate of aigc stands on.
//!
//! ```text
//! Dataset → BatchIter → Objective(model, batch) → Trainer → run folder → load → sample → pictures
//! ```
//!
//! | module | what lives there |
//! |---|---|
//! | [`device`] | one string picks the backend: `flex`, `cuda:0`, `libtorch`, … |
//! | [`rng`] | seeded noise drawn on the host: one seed, one picture, on every backend |
//! | [`data`] | data sets (embedded digits, IDX files, image folders) and the loader that reads ahead |
//! | [`json`] | configuration files of other libraries |
//! | [`latent`] | ways through a latent space |
//! | [`nn`] | the layers that all families share |
//! | [`ops`] | the operations underneath, with kernels for CPUs and backward passes written by hand |
//! | [`params`] | every tensor of a model, by path |
//! | [`train`] | the one [`Trainer`](train::Trainer), its schedules, EMA, clipping, events and observers |
//! | [`checkpoint`] | the run folder: atomic, checksummed, exactly resumable |
//! | [`output`] | tensors to PNG grids and GIFs, points to plots |
//! | `eval` | what came out, in numbers (feature `eval`) |
//! | `hub` | files of models by name, from the Hugging Face hub (feature `download`) |
//!
//! A family's crate (aigc-vae, …) adds models and an [`Objective`](train::Objective); everything
//! else is here.
#![deny(unsafe_code)]

mod cancel;
pub mod check;
pub mod checkpoint;
pub mod data;
pub mod device;
pub mod encoder;
mod error;
#[cfg(feature = "eval")]
pub mod eval;
#[cfg(feature = "download")]
pub mod hub;
#[cfg(feature = "download")]
pub mod hub_model;
pub mod json;
pub mod latent;
pub mod nn;
#[allow(unsafe_code)]
pub mod ops;
#[cfg(any(feature = "image", feature = "plot"))]
pub mod output;
pub mod params;
pub mod rng;
pub mod sampling;
pub mod train;
pub mod weights;

pub use burn;
pub use cancel::CancelToken;
pub use error::{DataFault, Error, Result};
