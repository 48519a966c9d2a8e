//! Code that the programs with sound share: files of sounds, mel spectra as images, vocoders, the
//! real-time factor, runs that are used again.
#![forbid(unsafe_code)]

mod gallery;
mod mel_images;
mod run_state;
mod speed;
mod vocoder;

pub use gallery::SoundGallery;
pub use mel_images::{MelBatch, MelImageConfig, MelImages, MelSample, collate_mels};
pub use run_state::RunState;
pub use speed::Speed;
pub use vocoder::open_vocoder;
