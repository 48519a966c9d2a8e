//! Melodies of the grammar as tokens.
//!
//! ```text
//! key, metre, then for each of 16 bars: chord, (pitch, length), (pitch, length), …
//! ```

use crate::notation::Place;
use aigc_core::data::melodies::{Chord, Key, Melody, Tone};

/// Bars of a piece.
pub(crate) const BARS: usize = 16;
/// Sixteenths of an eighth, the unit of lengths.
const EIGHTH: usize = 2;
/// Sixteenths of a beat.
const BEAT: usize = 4;

/// The token before and after a piece.
pub(crate) const START: u32 = 0;
/// Tokens of the 24 keys: for each tonic major and minor.
const KEY: u32 = 1;
/// Tokens of three and of four beats.
const METRE: u32 = KEY + 24;
/// Tokens of the chords on the steps of the scale.
const CHORD: u32 = METRE + 2;
/// Tokens of the pitches.
const PITCH: u32 = CHORD + 7;
const LOWEST: u8 = 50;
const HIGHEST: u8 = 86;
/// Tokens of the lengths, one to eight eighths.
const LENGTH: u32 = PITCH + (HIGHEST - LOWEST) as u32 + 1;
/// Number of tokens.
pub(crate) const VOCABULARY: usize = LENGTH as usize + 8;

/// Tempo of generated pieces, in beats per minute.
pub(crate) const TEMPO: f64 = 108.0;

/// The tokens of a piece, without start and end.
pub(crate) fn encode(melody: &Melody) -> Vec<u32> {
    let Key { tonic, minor } = melody.key;
    let beats = melody.beats_per_bar;
    let mut tokens = vec![
        KEY + 2 * u32::from(tonic % 12) + u32::from(minor),
        METRE + beats as u32 - 3,
    ];
    for (bar, chord) in melody.chords.iter().enumerate() {
        tokens.push(CHORD + u32::from(chord.degree % 7));
        let steps = bar * beats * BEAT..(bar + 1) * beats * BEAT;
        for tone in melody.tones.iter().filter(|t| steps.contains(&t.start)) {
            let pitch = tone.pitch.clamp(LOWEST, HIGHEST);
            tokens.push(PITCH + u32::from(pitch - LOWEST));
            tokens.push(LENGTH + (tone.len / EIGHTH).clamp(1, 8) as u32 - 1);
        }
    }
    tokens
}

/// The complete bars of a piece; `None` if the tokens are not in the order of the grammar, or there
/// is no complete bar.
pub(crate) fn decode(tokens: &[u32], program: u8) -> Option<Melody> {
    let mut cursor = MelodyCursor::new();
    let (mut key, mut chords, mut tones) = (None, vec![], vec![]);
    let mut pitch = LOWEST;
    for token in tokens {
        if *token == START || !cursor.allows(*token) {
            return None;
        }
        let start = EIGHTH * (2 * cursor.beats * cursor.bar + cursor.at);
        match cursor.expected {
            Expected::Key => {
                key = Some(Key {
                    tonic: ((token - KEY) / 2) as u8,
                    minor: (token - KEY) % 2 == 1,
                });
            }
            Expected::Metre => {}
            Expected::Chord => chords.push(Chord {
                degree: (token - CHORD) as u8,
            }),
            Expected::Pitch => pitch = LOWEST + (token - PITCH) as u8,
            Expected::Length => tones.push(Tone {
                start,
                len: EIGHTH * (token - LENGTH + 1) as usize,
                pitch,
            }),
        }
        cursor.push(*token);
    }
    chords.truncate(cursor.bar);
    let end = cursor.bar * cursor.beats * BEAT;
    tones.retain(|tone: &Tone| tone.start < end);
    (!chords.is_empty()).then_some(Melody {
        key: key?,
        beats_per_bar: cursor.beats,
        beats_per_minute: TEMPO,
        program,
        chords,
        tones,
    })
}

/// The kind of the next token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Key,
    Metre,
    Chord,
    Pitch,
    Length,
}

/// A place in a piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MelodyCursor {
    expected: Expected,
    /// Beats of a bar.
    beats: usize,
    /// Bars that are complete.
    bar: usize,
    /// Eighths of the bar that are filled.
    at: usize,
}

impl MelodyCursor {
    /// Before the first token.
    pub(crate) fn new() -> Self {
        Self {
            expected: Expected::Key,
            beats: 4,
            bar: 0,
            at: 0,
        }
    }

    /// The kind of the next token with the eighth of its bar, and the bar.
    pub(crate) fn place(&self) -> Place {
        let at = self.at.min(7);
        let slot = match self.expected {
            Expected::Key => 0,
            Expected::Metre => 1,
            Expected::Chord => 2,
            Expected::Pitch => 3 + at,
            Expected::Length => 11 + at,
        };
        Place {
            slot,
            beat: self.bar.min(BARS - 1),
        }
    }

    /// Whether a bar may begin here.
    pub(crate) fn is_boundary(&self) -> bool {
        self.expected == Expected::Chord
    }

    /// Goes on. A token that is not expected here counts as the nearest one that is.
    pub(crate) fn push(&mut self, token: u32) {
        self.expected = match self.expected {
            Expected::Key => Expected::Metre,
            Expected::Metre => {
                self.beats = 3 + token.saturating_sub(METRE).min(1) as usize;
                Expected::Chord
            }
            Expected::Chord => Expected::Pitch,
            Expected::Pitch => Expected::Length,
            Expected::Length => {
                self.at += 1 + token.saturating_sub(LENGTH).min(7) as usize;
                if self.at < 2 * self.beats {
                    Expected::Pitch
                } else {
                    (self.bar, self.at) = (self.bar + 1, 0);
                    Expected::Chord
                }
            }
        };
    }

    /// Whether a token may come next: the piece ends after 16 bars, and tones fill their bars.
    pub(crate) fn allows(&self, token: u32) -> bool {
        let tokens = match self.expected {
            Expected::Key => KEY..METRE,
            Expected::Metre => METRE..CHORD,
            Expected::Chord if self.bar >= BARS => START..START + 1,
            Expected::Chord => CHORD..PITCH,
            Expected::Pitch => PITCH..LENGTH,
            Expected::Length => LENGTH..LENGTH + (2 * self.beats - self.at) as u32,
        };
        tokens.contains(&token)
    }
}
