//! Notes.

use crate::{Result, check::ensure_argument};
use serde::{Deserialize, Serialize};

/// Names of the twelve pitch classes.
const NAMES: [&str; 12] = [
    "C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B",
];

/// The latest end of a note that is accepted, in seconds: one day.
pub(super) const MAX_SECONDS: f64 = 86_400.0;

/// A note.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// When it begins, in seconds.
    pub start: f64,
    /// When it ends, in seconds.
    pub end: f64,
    /// MIDI's number of the key, 0 to 127; 60 is the middle C.
    pub pitch: u8,
    /// How hard the key is struck, 1 to 127.
    pub velocity: u8,
    /// Instrument by the numbers of General MIDI, 0 to 127; 0 is a piano.
    pub program: u8,
}

impl Note {
    /// A note of the piano with velocity 80.
    pub const fn new(start: f64, end: f64, pitch: u8) -> Self {
        Self {
            start,
            end,
            pitch,
            velocity: 80,
            program: 0,
        }
    }

    /// Sets the velocity.
    pub const fn with_velocity(self, velocity: u8) -> Self {
        Self { velocity, ..self }
    }

    /// Sets the instrument.
    pub const fn with_program(self, program: u8) -> Self {
        Self { program, ..self }
    }

    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        self.end - self.start
    }

    /// The note some semitones higher; `None` if that is no pitch of MIDI.
    pub fn transposed(self, semitones: i32) -> Option<Self> {
        let pitch = transpose(self.pitch, semitones)?;
        Some(Self { pitch, ..self })
    }

    /// Fails unless every field is in its range and the note ends after it begins, within a day.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) naming `notes[index]` and the
    /// field.
    pub(super) fn check(&self, index: usize) -> Result<()> {
        let name = |field: &str| format!("notes[{index}].{field}");
        let in_day = |seconds: f64| (0.0..=MAX_SECONDS).contains(&seconds);
        ensure_argument(
            in_day(self.start),
            &name("start"),
            self.start,
            "0 to 86400 seconds",
        )?;
        ensure_argument(
            in_day(self.end) && self.end > self.start,
            &name("end"),
            self.end,
            &format!("after the start at {}, up to 86400 seconds", self.start),
        )?;
        ensure_argument(self.pitch < 128, &name("pitch"), self.pitch, "0 to 127")?;
        ensure_argument(
            (1..128).contains(&self.velocity),
            &name("velocity"),
            self.velocity,
            "1 to 127",
        )?;
        ensure_argument(
            self.program < 128,
            &name("program"),
            self.program,
            "0 to 127",
        )
    }
}

/// Checks all notes; see [`Note::check`].
pub(super) fn check_notes(notes: &[Note]) -> Result<()> {
    let mut numbered = notes.iter().enumerate();
    numbered.try_for_each(|(index, note)| note.check(index))
}

/// A pitch some semitones higher, if it is one of MIDI.
pub(super) fn transpose(pitch: u8, semitones: i32) -> Option<u8> {
    let moved = i32::from(pitch).checked_add(semitones)?;
    u8::try_from(moved).ok().filter(|pitch| *pitch < 128)
}

/// Sorts notes by start, then pitch, then program.
pub fn sort_notes(notes: &mut [Note]) {
    notes.sort_by(|a, b| {
        let by_start = a.start.total_cmp(&b.start);
        by_start.then_with(|| (a.pitch, a.program).cmp(&(b.pitch, b.program)))
    });
}

/// Frequency of a pitch in hertz, in equal temperament with A4 (69) at 440 Hz.
pub fn pitch_frequency(pitch: u8) -> f64 {
    440.0 * ((f64::from(pitch) - 69.0) / 12.0).exp2()
}

/// Name of a pitch with its octave: 60 is `C4`, 61 is `C#4`.
pub fn pitch_name(pitch: u8) -> String {
    let octave = i32::from(pitch) / 12 - 1;
    format!("{}{octave}", NAMES[usize::from(pitch % 12)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pitches_have_names_and_frequencies() {
        for (pitch, name, hertz) in [
            (69, "A4", 440.0),
            (57, "A3", 220.0),
            (60, "C4", 261.6256),
            (0, "C-1", 8.1758),
            (127, "G9", 12_543.854),
        ] {
            assert_eq!(pitch_name(pitch), name);
            assert!((pitch_frequency(pitch) / hertz - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn notes_are_checked_by_field() {
        let good = Note::new(0.0, 1.0, 60);
        assert!(check_notes(&[good]).is_ok());
        for (bad, expected) in [
            (Note::new(-0.1, 1.0, 60), "`notes[1].start` is -0.1"),
            (Note::new(f64::NAN, 1.0, 60), "`notes[1].start` is NaN"),
            (Note::new(1.0, 1.0, 60), "`notes[1].end` is 1"),
            (Note::new(0.0, 1e9, 60), "`notes[1].end`"),
            (Note::new(0.0, 1.0, 128), "`notes[1].pitch` is 128"),
            (good.with_velocity(0), "`notes[1].velocity` is 0"),
            (good.with_program(200), "`notes[1].program` is 200"),
        ] {
            let error = check_notes(&[good, bad]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn transposition_stays_within_midi() {
        let note = Note::new(0.0, 1.0, 120);
        assert_eq!(note.transposed(7).unwrap().pitch, 127);
        assert_eq!(note.transposed(8), None);
        assert_eq!(note.transposed(-121), None);
        assert_eq!(note.transposed(i32::MAX), None);
    }
}
