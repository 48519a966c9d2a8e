//! Speech: text to latents or spectrograms, with durations that are learned without marks in time.
//!
//! ```text
//! VITS      text → text encoder → durations → prior → flow⁻¹ → latents → decoder of aigc-gan
//! speaker   text → text encoder → durations → mean mel → flow matching → log-mel → any vocoder
//! ```
//!
//! | item | content |
//! |---|---|
//! | [`VitsModel`] | VITS in transformers' layout, such as the voices of MMS, without its decoder |
//! | [`Speaker`], [`SpeechObjective`] | a small speaker of one's own, and its training |
//! | [`Utterance`], [`SpeechDataset`], [`SpeechBatch`] | recordings with transcripts |
//! | [`VitsTokenizer`], [`Lexicon`] | letters, or the symbols of a user's lexicon |
//! | [`monotonic_alignment`] | the most probable alignment of text and sound |
//!
//! The networks of this module make latents and spectrograms. What makes sound of them is a model
//! of another crate: the generator of `aigc-gan` for VITS, joined in `aigc-pipelines`, and any
//! [`Vocoder`](aigc_core::audio::Vocoder) for a [`Speaker`].

mod alignment;
mod duration;
mod layers;
mod speaker;
mod text_encoder;
mod tokenizer;
mod vits;

pub use alignment::{Alignments, monotonic_alignment};
pub use speaker::{
    Speaker, SpeakerConfig, SpeakerOptions, SpeechBatch, SpeechDataset, SpeechItem,
    SpeechObjective, SpokenMel, Utterance,
};
pub use tokenizer::{
    Lexicon, UnknownCharacters, VitsTokenBatch, VitsTokenizer, VitsTokenizerConfig, VitsTokens,
};
pub use vits::{VitsConfig, VitsLatents, VitsModel, VitsOptions, VitsPosterior, VitsText};
