//! Music on a grid of equal steps.

use super::{Note, note::transpose, sort_notes};
use std::ops::RangeInclusive;

/// Number of voices of a [`VoiceGrid`]: soprano, alto, tenor, bass.
pub const VOICES: usize = 4;

/// Velocity of the notes that grids become.
const VELOCITY: u8 = 80;

/// Music of four voices, a sixteenth per step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VoiceGrid {
    /// The pitch of each voice in each step, soprano first; `None` where it is silent.
    pub steps: Vec<[Option<u8>; VOICES]>,
}

/// Sets of pitches, one per step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChordGrid {
    /// The pitches of each step in ascending order.
    pub frames: Vec<Vec<u8>>,
}

impl VoiceGrid {
    /// The piece some semitones higher; `None` if a pitch would leave 0 to 127.
    pub fn transposed(&self, semitones: i32) -> Option<Self> {
        let voice = |pitch: &Option<u8>| match pitch {
            Some(pitch) => transpose(*pitch, semitones).map(Some),
            None => Some(None),
        };
        let step = |step: &[Option<u8>; VOICES]| {
            let mut moved = [None; VOICES];
            for (moved, pitch) in moved.iter_mut().zip(step) {
                *moved = voice(pitch)?;
            }
            Some(moved)
        };
        let steps = self.steps.iter().map(step).collect::<Option<_>>()?;
        Some(Self { steps })
    }

    /// Lowest and highest pitch; `None` of silence.
    pub fn range(&self) -> Option<RangeInclusive<u8>> {
        range(self.steps.iter().flatten().flatten().copied())
    }

    /// The pitches of each step, without the voices.
    pub fn chords(&self) -> ChordGrid {
        let chord = |step: &[Option<u8>; VOICES]| {
            let mut pitches: Vec<u8> = step.iter().flatten().copied().collect();
            pitches.sort_unstable();
            pitches.dedup();
            pitches
        };
        ChordGrid {
            frames: self.steps.iter().map(chord).collect(),
        }
    }

    /// Notes at a tempo of quarter notes. Equal pitches of a voice in neighbouring steps are one
    /// note, as the grid does not tell repeated notes from held ones.
    ///
    /// # Panics
    /// If the tempo is not above 0.
    pub fn to_notes(&self, beats_per_minute: f64, programs: [u8; VOICES]) -> Vec<Note> {
        let mut notes = vec![];
        for (voice, program) in programs.into_iter().enumerate() {
            let line = self.steps.iter().map(|step| step[voice]);
            held(line, step_seconds(beats_per_minute, 4.0), |note| {
                notes.push(note.with_program(program));
            });
        }
        sort_notes(&mut notes);
        notes
    }
}

impl ChordGrid {
    /// The piece some semitones higher; `None` if a pitch would leave 0 to 127.
    pub fn transposed(&self, semitones: i32) -> Option<Self> {
        let frame = |frame: &Vec<u8>| {
            let pitches = frame.iter().map(|pitch| transpose(*pitch, semitones));
            pitches.collect::<Option<Vec<u8>>>()
        };
        let frames = self.frames.iter().map(frame).collect::<Option<_>>()?;
        Some(Self { frames })
    }

    /// Lowest and highest pitch; `None` of silence.
    pub fn range(&self) -> Option<RangeInclusive<u8>> {
        range(self.frames.iter().flatten().copied())
    }

    /// Notes at a tempo of quarter notes, with so many steps per quarter. A pitch of neighbouring
    /// steps is one note.
    ///
    /// # Panics
    /// If tempo or steps are not above 0.
    pub fn to_notes(&self, beats_per_minute: f64, steps_per_beat: f64, program: u8) -> Vec<Note> {
        let mut notes = vec![];
        let seconds = step_seconds(beats_per_minute, steps_per_beat);
        for pitch in self.range().into_iter().flatten() {
            let line = self
                .frames
                .iter()
                .map(|frame| frame.contains(&pitch).then_some(pitch));
            held(line, seconds, |note| notes.push(note.with_program(program)));
        }
        sort_notes(&mut notes);
        notes
    }
}

fn range(pitches: impl Iterator<Item = u8> + Clone) -> Option<RangeInclusive<u8>> {
    Some(pitches.clone().min()?..=pitches.max()?)
}

fn step_seconds(beats_per_minute: f64, steps_per_beat: f64) -> f64 {
    let seconds = 60.0 / (beats_per_minute * steps_per_beat);
    assert!(
        seconds > 0.0 && seconds.is_finite(),
        "{steps_per_beat} steps at {beats_per_minute} beats per minute"
    );
    seconds
}

/// Calls `push` with the notes of a line of pitches.
fn held(line: impl Iterator<Item = Option<u8>>, seconds: f64, mut push: impl FnMut(Note)) {
    let mut open: Option<(usize, u8)> = None;
    let ended = line.chain([None]).enumerate();
    for (step, pitch) in ended {
        if let Some((start, of)) = open
            && pitch != Some(of)
        {
            let at = |step: usize| step as f64 * seconds;
            push(Note::new(at(start), at(step), of).with_velocity(VELOCITY));
            open = None;
        }
        if open.is_none() {
            open = pitch.map(|pitch| (step, pitch));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> VoiceGrid {
        let held = [Some(72), Some(67), Some(60), None];
        VoiceGrid {
            steps: vec![
                held,
                held,
                [Some(74), Some(67), Some(67), Some(36)],
                [None; VOICES],
            ],
        }
    }

    #[test]
    fn held_pitches_are_one_note() {
        let notes = grid().to_notes(60.0, [1, 2, 3, 4]);
        let note = |start, end, pitch, program| Note::new(start, end, pitch).with_program(program);
        let expected = [
            note(0.0, 0.5, 60, 3),
            note(0.0, 0.75, 67, 2),
            note(0.0, 0.5, 72, 1),
            note(0.5, 0.75, 36, 4),
            note(0.5, 0.75, 67, 3),
            note(0.5, 0.75, 74, 1),
        ];
        assert_eq!(notes, expected);
        let chords = grid().chords();
        assert_eq!(chords.frames[2], [36, 67, 74]);
        let notes = chords.to_notes(60.0, 4.0, 0);
        assert_eq!(notes.len(), 5);
        assert_eq!(notes[1], Note::new(0.0, 0.75, 67));
    }

    #[test]
    fn pieces_are_transposed_or_refused() {
        let grid = grid();
        assert_eq!(grid.range(), Some(36..=74));
        let higher = grid.transposed(5).unwrap();
        assert_eq!(higher.steps[2][0], Some(79));
        assert_eq!(higher.steps[0][3], None);
        assert_eq!(higher.transposed(-5).unwrap(), grid);
        assert!(grid.transposed(-37).is_none() && grid.transposed(54).is_none());
        let chords = grid.chords();
        assert_eq!(chords.transposed(2).unwrap().range(), Some(38..=76));
        assert!(chords.transposed(60).is_none());
        assert_eq!(ChordGrid::default().range(), None);
    }
}
