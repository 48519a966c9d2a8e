//! Grids as sequences of tokens.

use super::{ChordGrid, VOICES, VoiceGrid};
use crate::{Error, Result, check::ensure_argument};
use std::ops::RangeInclusive;

/// Four voices as tokens, one per voice and step: soprano, alto, tenor, bass of the first step,
/// then of the second, as in C.-Z. A. Huang et al., "Music Transformer", 2018.
///
/// Token 0 is silence, then come the pitches, then the start of a piece.
///
/// ```
/// use aigc_core::music::{VoiceGrid, VoiceTokens};
///
/// # fn main() -> aigc_core::Result<()> {
/// let grid = VoiceGrid { steps: vec![[Some(72), Some(67), Some(64), None]] };
/// let tokens = VoiceTokens::new(36, 81)?;
/// assert_eq!(tokens.encode(&grid)?, [37, 32, 29, 0]);
/// assert_eq!(tokens.decode(&[37, 32, 29, 0])?, grid);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoiceTokens {
    pitches: RangeInclusive<u8>,
}

/// Sets of pitches as tokens: the pitches of a step in ascending order, then the end of the step.
/// The probabilities of a step's tokens multiply to that of the step.
///
/// Token 0 is the end of a step, then come the pitches, then the start of a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChordTokens {
    pitches: RangeInclusive<u8>,
}

impl Default for VoiceTokens {
    /// The range of Bach's chorales, a fifth or more wider at both ends: 29 to 88.
    fn default() -> Self {
        Self { pitches: 29..=88 }
    }
}

impl Default for ChordTokens {
    /// The keys of a piano.
    fn default() -> Self {
        Self { pitches: 21..=108 }
    }
}

impl VoiceTokens {
    /// Tokens for the pitches from `lowest` to `highest`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is none, or they are not MIDI's.
    pub fn new(lowest: u8, highest: u8) -> Result<Self> {
        Ok(Self {
            pitches: check(lowest, highest)?,
        })
    }

    /// Number of tokens, the start included.
    pub fn vocab_size(&self) -> usize {
        self.pitches.len() + 2
    }

    /// The token before the first one of a piece.
    pub fn start_token(&self) -> u32 {
        start_token(&self.pitches)
    }

    /// The transpositions under which all pitches of a piece have tokens, in semitones; empty if
    /// its range is too wide.
    pub fn transpositions(&self, grid: &VoiceGrid) -> RangeInclusive<i32> {
        transpositions(&self.pitches, grid.range())
    }

    /// The tokens of a piece, without the start.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the step if a pitch has no token.
    pub fn encode(&self, grid: &VoiceGrid) -> Result<Vec<u32>> {
        let mut tokens = Vec::with_capacity(VOICES * grid.steps.len());
        for (step, voices) in grid.steps.iter().enumerate() {
            for pitch in voices {
                tokens.push(match pitch {
                    Some(pitch) => encode(&self.pitches, *pitch, step)?,
                    None => 0,
                });
            }
        }
        Ok(tokens)
    }

    /// The piece of these tokens; those of a step that is not complete are left out.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the place of a token that is no pitch.
    pub fn decode(&self, tokens: &[u32]) -> Result<VoiceGrid> {
        let decode_step = |(step, chunk): (usize, &[u32])| -> Result<_> {
            let mut voices = [None; VOICES];
            for (voice, (pitch, token)) in voices.iter_mut().zip(chunk).enumerate() {
                *pitch = decode(&self.pitches, *token, VOICES * step + voice)?;
            }
            Ok(voices)
        };
        let steps = tokens.chunks_exact(VOICES).enumerate();
        Ok(VoiceGrid {
            steps: steps.map(decode_step).collect::<Result<_>>()?,
        })
    }
}

impl ChordTokens {
    /// Tokens for the pitches from `lowest` to `highest`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is none, or they are not MIDI's.
    pub fn new(lowest: u8, highest: u8) -> Result<Self> {
        Ok(Self {
            pitches: check(lowest, highest)?,
        })
    }

    /// Number of tokens, the start included.
    pub fn vocab_size(&self) -> usize {
        self.pitches.len() + 2
    }

    /// The token that ends a step.
    pub fn end_token(&self) -> u32 {
        0
    }

    /// The token before the first one of a piece.
    pub fn start_token(&self) -> u32 {
        start_token(&self.pitches)
    }

    /// The transpositions under which all pitches of a piece have tokens, in semitones; empty if
    /// its range is too wide.
    pub fn transpositions(&self, grid: &ChordGrid) -> RangeInclusive<i32> {
        transpositions(&self.pitches, grid.range())
    }

    /// The tokens of a piece, without the start.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the step if a pitch has no token.
    pub fn encode(&self, grid: &ChordGrid) -> Result<Vec<u32>> {
        let mut tokens = vec![];
        for (step, frame) in grid.frames.iter().enumerate() {
            for pitch in frame {
                tokens.push(encode(&self.pitches, *pitch, step)?);
            }
            tokens.push(self.end_token());
        }
        Ok(tokens)
    }

    /// The piece of these tokens; those after the last end of a step are left out. Pitches of a
    /// step may come in any order, and twice.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the place of a token that is no pitch.
    pub fn decode(&self, tokens: &[u32]) -> Result<ChordGrid> {
        let (mut frames, mut frame) = (vec![], vec![]);
        for (at, token) in tokens.iter().enumerate() {
            match decode(&self.pitches, *token, at)? {
                Some(pitch) => frame.push(pitch),
                None => {
                    frame.sort_unstable();
                    frame.dedup();
                    frames.push(std::mem::take(&mut frame));
                }
            }
        }
        Ok(ChordGrid { frames })
    }
}

fn check(lowest: u8, highest: u8) -> Result<RangeInclusive<u8>> {
    ensure_argument(
        lowest <= highest && highest < 128,
        "pitches",
        format!("{lowest} to {highest}"),
        "an ascending range within 0 to 127",
    )?;
    Ok(lowest..=highest)
}

fn start_token(pitches: &RangeInclusive<u8>) -> u32 {
    pitches.len() as u32 + 1
}

fn transpositions(
    pitches: &RangeInclusive<u8>,
    used: Option<RangeInclusive<u8>>,
) -> RangeInclusive<i32> {
    let used = used.unwrap_or_else(|| pitches.clone());
    let room = |from: u8, to: u8| i32::from(to) - i32::from(from);
    room(*used.start(), *pitches.start())..=room(*used.end(), *pitches.end())
}

fn encode(pitches: &RangeInclusive<u8>, pitch: u8, step: usize) -> Result<u32> {
    if !pitches.contains(&pitch) {
        return Err(Error::argument(
            format!("steps[{step}]"),
            format!("pitch {pitch}"),
            format!("{} to {}", pitches.start(), pitches.end()),
        ));
    }
    Ok(u32::from(pitch - pitches.start()) + 1)
}

/// The pitch of a token; `None` for token 0.
fn decode(pitches: &RangeInclusive<u8>, token: u32, at: usize) -> Result<Option<u8>> {
    let Some(above) = token.checked_sub(1) else {
        return Ok(None);
    };
    let pitch = u8::try_from(above)
        .ok()
        .and_then(|above| above.checked_add(*pitches.start()));
    match pitch.filter(|pitch| pitches.contains(pitch)) {
        Some(pitch) => Ok(Some(pitch)),
        None => Err(Error::argument(
            format!("tokens[{at}]"),
            token,
            format!("0 to {}", pitches.len()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chords_end_with_a_mark() {
        let grid = ChordGrid {
            frames: vec![vec![60, 64], vec![], vec![21, 108]],
        };
        let tokens = ChordTokens::default();
        let ids = tokens.encode(&grid).unwrap();
        assert_eq!(ids, [40, 44, 0, 0, 1, 88, 0]);
        assert_eq!(tokens.decode(&ids).unwrap(), grid);
        assert_eq!(
            tokens.decode(&[44, 40, 44, 0, 5]).unwrap().frames,
            [[60, 64]]
        );
        assert_eq!((tokens.vocab_size(), tokens.start_token()), (90, 89));
        for id in [89, 90, 300, u32::MAX] {
            let error = tokens.decode(&[0, id]).unwrap_err().to_string();
            assert!(
                error.contains("`tokens[1]`") && error.contains("0 to 88"),
                "{error}"
            );
        }
    }

    #[test]
    fn voices_keep_their_order() {
        let tokens = VoiceTokens::new(60, 62).unwrap();
        assert_eq!((tokens.vocab_size(), tokens.start_token()), (5, 4));
        let grid = tokens.decode(&[3, 0, 1, 2, 1, 1]).unwrap();
        assert_eq!(grid.steps, [[Some(62), None, Some(60), Some(61)]]);
        assert_eq!(tokens.encode(&grid).unwrap(), [3, 0, 1, 2]);
        assert!(tokens.decode(&[0, 0, 0, 4]).is_err());
        let error = tokens.encode(&grid.transposed(1).unwrap()).unwrap_err();
        assert!(
            error.to_string().contains("`steps[0]` is pitch 63"),
            "{error}"
        );
        assert!(VoiceTokens::new(62, 60).is_err() && VoiceTokens::new(0, 128).is_err());
    }

    #[test]
    fn every_transposition_has_tokens() {
        let tokens = VoiceTokens::default();
        let grid = VoiceGrid {
            steps: vec![[Some(81), Some(60), None, Some(36)]],
        };
        let shifts = tokens.transpositions(&grid);
        assert_eq!(shifts, -7..=7);
        for shift in shifts {
            assert!(tokens.encode(&grid.transposed(shift).unwrap()).is_ok());
        }
        let narrow = VoiceTokens::new(60, 70).unwrap();
        assert!(narrow.transpositions(&grid).is_empty());
        assert_eq!(tokens.transpositions(&VoiceGrid::default()), 0..=0);
    }
}
