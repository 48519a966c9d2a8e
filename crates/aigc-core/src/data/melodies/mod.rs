//! Melodies with chords from a small grammar: endless pieces, each from a seed and an index.
//!
//! ```text
//! piece      → statement answer contrast answer
//! statement  → tonic middle preparation dominant          (half cadence)
//! answer     → the first two bars of the statement, dominant, tonic    (full cadence)
//! contrast   → departure middle preparation dominant      (half cadence)
//! ```
//!
//! Each symbol on the right is a bar with one chord. A bar has one of a few rhythms; its first tone
//! and most of those on beats belong to the chord, the others are steps. A piece is in one of
//! twelve keys, major or minor, and has three or four beats in a bar.

mod grammar;
mod harmony;

pub use harmony::{Chord, Key};

use super::Dataset;
use crate::{
    Result,
    check::ensure,
    music::{MidiFile, Note, TimeSignature, VOICES, VoiceGrid, sort_notes},
    rng::Rng,
};

/// Sixteenths of a beat.
const STEPS_PER_BEAT: usize = 4;

/// Sounding fraction of the length of a melody note; the gap separates repeated notes.
const ARTICULATION: f64 = 0.95;

/// A tone of the melody, in sixteenths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tone {
    /// When it begins, from the beginning of the piece.
    pub start: usize,
    /// How long it lasts.
    pub len: usize,
    /// MIDI's number of the key.
    pub pitch: u8,
}

/// A melody with chords.
#[derive(Clone, Debug, PartialEq)]
pub struct Melody {
    /// The key.
    pub key: Key,
    /// Beats (quarter notes) of a bar: 3 or 4.
    pub beats_per_bar: usize,
    /// Tempo.
    pub beats_per_minute: f64,
    /// Instrument of the melody by General MIDI.
    pub program: u8,
    /// The chord of each bar.
    pub chords: Vec<Chord>,
    /// The melody, without pauses.
    pub tones: Vec<Tone>,
}

impl Melody {
    /// A random piece.
    pub fn random(rng: &mut Rng) -> Self {
        grammar::piece(rng)
    }

    /// Length in sixteenths.
    pub fn num_steps(&self) -> usize {
        self.chords.len() * self.steps_per_bar()
    }

    fn steps_per_bar(&self) -> usize {
        self.beats_per_bar * STEPS_PER_BEAT
    }

    /// The melody as the first voice, and three held voices of the chords, a sixteenth per step.
    /// The melody may go below the second voice. Repeated tones of the melody become one.
    ///
    /// # Panics
    /// If a tone ends after the bar of the last chord.
    pub fn to_grid(&self) -> VoiceGrid {
        let mut steps = vec![[None; VOICES]; self.num_steps()];
        let voicings = harmony::voicings(self.key, &self.chords);
        for (bar, lower) in steps.chunks_mut(self.steps_per_bar()).zip(voicings) {
            for step in bar {
                for (voice, pitch) in step[1..].iter_mut().zip(lower) {
                    *voice = Some(pitch);
                }
            }
        }
        for tone in &self.tones {
            for step in &mut steps[tone.start..tone.start + tone.len] {
                step[0] = Some(tone.pitch);
            }
        }
        VoiceGrid { steps }
    }

    /// The melody, and an accompaniment of guitar and bass: the bass on the first beat of a bar,
    /// the other tones of the chord on those that follow.
    pub fn to_notes(&self) -> Vec<Note> {
        let seconds = |steps: f64| steps * 60.0 / self.beats_per_minute / STEPS_PER_BEAT as f64;
        let mut notes = vec![];
        for tone in &self.tones {
            let (start, len) = (tone.start as f64, tone.len as f64);
            let accent = if tone.start.is_multiple_of(self.steps_per_bar()) {
                100
            } else {
                88
            };
            let end = seconds(start + ARTICULATION * len);
            let note = Note::new(seconds(start), end, tone.pitch);
            notes.push(note.with_velocity(accent).with_program(self.program));
        }
        let voicings = harmony::voicings(self.key, &self.chords);
        for (bar, [alto, tenor, bass]) in voicings.into_iter().enumerate() {
            for beat in 0..self.beats_per_bar {
                let start = (bar * self.steps_per_bar() + beat * STEPS_PER_BEAT) as f64;
                let mut add = |pitch, beats: f64, velocity, program| {
                    let end = seconds(start + beats * STEPS_PER_BEAT as f64);
                    let note = Note::new(seconds(start), end, pitch);
                    notes.push(note.with_velocity(velocity).with_program(program));
                };
                if beat == 0 {
                    // Nearly until the next bar; 32 is a bass, 24 a guitar.
                    add(bass, self.beats_per_bar as f64 - 0.1, 80, 32);
                } else {
                    add(alto, 0.9, 54, 24);
                    add(tenor, 0.9, 54, 24);
                }
            }
        }
        sort_notes(&mut notes);
        notes
    }

    /// The [notes](Self::to_notes) as a file, with tempo and time signature.
    pub fn to_midi(&self) -> MidiFile {
        let mut file = MidiFile::new(self.to_notes(), self.beats_per_minute);
        file.time_signatures.push(TimeSignature {
            start: 0.0,
            numerator: self.beats_per_bar as u8,
            denominator: 4,
        });
        file
    }
}

/// A data set of random pieces; nothing is stored.
///
/// ```
/// use aigc_core::data::{Dataset, melodies::Melodies};
///
/// # fn main() -> aigc_core::Result<()> {
/// let melody = Melodies::new(1000, 0)?.get(7)?;
/// assert_eq!(melody.chords.len(), 16);
/// assert_eq!(melody.to_grid().steps.len(), melody.num_steps());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Melodies {
    len: usize,
    seed: u64,
}

impl Melodies {
    /// `len` pieces of a seed.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if there are none.
    pub fn new(len: usize, seed: u64) -> Result<Self> {
        ensure(len > 0, "len", len, "at least one piece")?;
        Ok(Self { len, seed })
    }
}

impl Dataset for Melodies {
    type Item = Melody;

    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, index: usize) -> Result<Melody> {
        assert!(index < self.len, "piece {index} of {}", self.len);
        let mut rng = Rng::stream(self.seed, "data/melodies", index as u64);
        Ok(Melody::random(&mut rng))
    }
}

#[cfg(test)]
mod tests;
