//! Pipelines that combine models of several families: text encoders, denoising networks and
//! autoencoders make images from a prompt.
#![forbid(unsafe_code)]

pub mod adapters;
pub mod audio;
pub mod music;
#[cfg(feature = "openai")]
pub mod openai;
pub mod single_file;
pub mod speech;
pub mod text_to_image;
pub mod training;
pub mod video;
