//! Code that the programs with sound share: files of sounds, recordings of digits, mel spectra as
//! images and how they are sampled, vocoders, the real-time factor, runs that are used again.
#![forbid(unsafe_code)]

mod gallery;
mod mel_images;
mod out;
mod reported;
mod run_state;
mod spectrum_scheduler;
mod speed;
mod spoken_digits;
mod vocoder;

pub use gallery::{SoundGallery, hash_weights};
pub use mel_images::{MelBatch, MelImageConfig, MelImages, MelSample, collate_mels};
pub use out::wav_path;
pub use reported::reported;
pub use run_state::RunState;
pub use spectrum_scheduler::spectrum_scheduler;
pub use speed::Speed;
pub use spoken_digits::{Label, Split, SpokenDigit, SpokenDigits, spread};
pub use vocoder::{model_type, open_vocoder};
