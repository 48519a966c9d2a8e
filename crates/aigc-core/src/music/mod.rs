//! Symbolic music: notes, MIDI files, piano rolls, chorales, and a synthesiser to hear them with.
//!
//! ```no_run
//! use aigc_core::music::{MidiFile, PianoRoll, SynthConfig};
//!
//! # fn main() -> aigc_core::Result<()> {
//! let music = MidiFile::read("song.mid")?;
//! let roll = PianoRoll::from_notes(&music.notes, 8.0)?;
//! println!("{} notes, {} frames", music.notes.len(), roll.num_frames());
//! let wave = SynthConfig::default().render(&music.notes)?;
//! # let _ = wave;
//! # Ok(()) }
//! ```
//!
//! | item | content |
//! |---|---|
//! | [`Note`] | a note in seconds, with pitch, velocity and program |
//! | [`MidiFile`] | reading and writing Standard MIDI Files, with tempi and time signatures |
//! | [`PianoRoll`] | which keys sound in each frame; to notes and back |
//! | [`VoiceGrid`], [`ChordGrid`] | music on a grid: four voices, or sets of pitches |
//! | [`read_voices`], [`read_chords`] | the chorales of Bach as splits of pieces |
//! | [`VoiceTokens`], [`ChordTokens`] | grids as sequences of tokens, and back |
//! | [`WittenBell`], [`voice_floors`], [`chord_floor`] | what counting alone achieves |
//! | [`pitch_classes`], [`repeats`], [`parallels`], [`CopyIndex`] | statistics of pieces |
//! | [`SynthConfig`] | notes as sound |
//!
//! Pitches are MIDI's: 60 is the middle C, a step is a semitone.

mod chorales;
mod copies;
mod floors;
mod grid;
mod midi;
mod ngram;
mod note;
mod roll;
mod statistics;
mod synth;
mod timbre;
mod tokens;

pub use chorales::{Splits, read_chords, read_voices};
pub use copies::{CopiedPassage, CopyIndex};
pub use floors::{VoiceFloors, chord_floor, voice_floors};
pub use grid::{ChordGrid, VOICES, VoiceGrid};
pub use midi::{MidiFile, Tempo, TimeSignature};
pub use ngram::WittenBell;
pub use note::{Note, pitch_frequency, pitch_name, sort_notes};
pub use roll::PianoRoll;
pub use statistics::{Parallels, parallels, pitch_class_distance, pitch_classes, repeats};
pub use synth::SynthConfig;
pub use timbre::Timbre;
pub use tokens::{ChordTokens, VoiceTokens};
