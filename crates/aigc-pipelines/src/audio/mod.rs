//! Sound by diffusion: from a prompt by Stable Audio, or from noise alone by Dance Diffusion.
//!
//! ```no_run
//! # use aigc_core::{audio::{WavFormat, write_wav}, device::device};
//! # use aigc_pipelines::audio::*;
//! # fn main() -> aigc_core::Result<()> {
//! let device = device("flex")?;
//! let pipeline = StableAudioPipeline::from_pretrained("stable-audio-open-1.0", &device)?;
//! let request = AudioRequest::new("rain on a tin roof, birds in the distance")
//!     .with_negative_prompt("low quality")
//!     .with_seconds(8.0)
//!     .with_seed(7);
//! let result = pipeline.generate(&request)?;
//! write_wav(&result.sounds[0], "rain.wav", WavFormat::default())?;
//! # Ok(()) }
//! ```
//!
//! [`GenerationSettings`] reports progress and stops a request. The stages of a request are methods
//! too: [`StableAudioPipeline::prepare`], `encode_prompt`, `denoise` and `decode`.
//!
//! | file | content |
//! |---|---|
//! | `request` | requests, progress, results |
//! | `denoise` | the loop, for both pipelines |
//! | `stable_audio` | a pipeline with a text encoder and an autoencoder |
//! | `dance_diffusion` | a pipeline over samples |

mod dance_diffusion;
mod denoise;
mod request;
mod stable_audio;
#[cfg(all(test, feature = "flex"))]
mod tests;

pub use dance_diffusion::{DanceDiffusionPipeline, DanceDiffusionRequest};
pub use request::{AudioProgress, AudioRequest, AudioStage, GeneratedAudio, GenerationSettings};
pub use stable_audio::{
    StableAudioConditions, StableAudioJob, StableAudioParts, StableAudioPipeline,
};
