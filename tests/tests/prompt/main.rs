//! Images from a prompt: tokenizers, networks and pipelines against transformers and diffusers.
//!
//! The cases are those of the directory that `AIGC_FIXTURES` names; every case of a kind must pass.

mod adapters;
mod adapters_of_transformers;
mod autoencoders;
mod bad_parts;
mod bad_requests;
mod cases;
mod clip;
mod controlnets;
mod differences;
mod directories;
mod given_parts;
mod images;
mod inversions;
mod kinds;
mod loaded_adapters;
mod memory;
mod pipelines;
mod requests;
mod rng;
mod settings;
mod single_file;
mod stages;
mod t5;
mod tiny_pipelines;
mod trained_adapters;
mod transformers;
mod unet;
mod web_ui;
