//! A small speaker of one's own: text to log-mel spectrograms, trained from recordings and their
//! transcripts alone.
//!
//! As in Matcha-TTS (Mehta et al. 2024, <https://arxiv.org/abs/2309.03199>), a text encoder gives
//! every symbol a mean spectrum, an alignment search finds the frames of every symbol, a predictor
//! learns their durations, and a decoder turns the repeated means into a spectrogram by flow
//! matching. Positions are relative and durations belong to symbols, so that texts of other lengths
//! than those of the training can be spoken.
//!
//! | file | content |
//! |---|---|
//! | `config` | [`SpeakerConfig`] |
//! | `decoder` | the network of the flow |
//! | `model` | [`Speaker`] |
//! | `data`, `batch` | recordings with transcripts |
//! | `objective` | [`SpeechObjective`] |

mod batch;
mod config;
mod data;
mod decoder;
mod model;
mod objective;
#[cfg(all(test, feature = "flex"))]
mod tests;

pub use batch::{SpeechBatch, SpeechItem};
pub use config::SpeakerConfig;
pub use data::{SpeechDataset, Utterance};
pub use model::{Speaker, SpeakerOptions, SpokenMel};
pub use objective::SpeechObjective;
