//! Pipelines that combine models of several families: text encoders, denoising networks and
//! autoencoders make images from a prompt.
#![forbid(unsafe_code)]

pub mod adapters;
#[cfg(feature = "openai")]
pub mod openai;
pub mod single_file;
pub mod text_to_image;
pub mod training;
