//! Images from a prompt: tokenizers, networks and pipelines against transformers and diffusers.
//!
//! The cases are those of the directory that `AIGC_FIXTURES` names; every case of a kind must pass.

mod adapters;
mod autoencoders;
mod cases;
mod clip;
mod pipelines;
mod requests;
mod rng;
mod single_file;
mod t5;
mod transformers;
mod unet;
