//! What the programs with images from a prompt share: the options of a model on this machine.
#![forbid(unsafe_code)]

mod model;

pub use model::{ModelOptions, check_exists};
