//! Moving pictures: networks, pipelines, data and files against other implementations.
//!
//! The cases are those of the directory that `AIGC_FIXTURES` names; every case of a kind must pass.

mod animate_diff;
mod autoencoders;
mod data;
mod gradients;
mod kinds;
mod output;
mod transformers;
mod unets;
mod wan;
