//! Pipelines that combine models of several families, such as text encoders, denoising networks and
//! autoencoders: images, sound, music, speech and video from a prompt.
#![forbid(unsafe_code)]

pub mod adapters;
pub mod audio;
#[cfg(feature = "download")]
mod hub;
mod methods;
mod model_index;
pub mod music;
#[cfg(feature = "openai")]
pub mod openai;
mod sampling;
mod seed;
pub mod single_file;
pub mod speech;
pub mod text_to_image;
pub mod training;
pub mod video;
