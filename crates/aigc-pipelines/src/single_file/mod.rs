//! Checkpoints in a single file, with the names of their first publication.
//!
//! [`SingleFile::open`] finds out which model a `.safetensors` or `.ckpt` file is of, and
//! [reports](SingleFileReport) what it has. [`SingleFile::component_reader`] gives the weights of
//! a part under the names of diffusers and transformers, and [`SingleFile::config`] its
//! configuration, so that the parts are built as from a directory. Tokenizers are not in such
//! files.
//!
//! Names are mapped by lists of [`TensorSource`](aigc_core::weights::TensorSource): which tensor
//! of the file, which rows of it, in which shape.

mod config;
mod detect;
mod family;
mod file;
mod flux;
mod fused;
mod given;
mod options;
mod other_kinds;
mod report;
pub(crate) mod scope;
mod sd3;
#[cfg(all(test, feature = "flex"))]
mod tests;
mod text;
pub(crate) mod unet;
mod vae;

pub use family::Family;
pub use file::SingleFile;
pub use options::SingleFileOptions;
pub use report::{PartReport, SingleFileReport};
