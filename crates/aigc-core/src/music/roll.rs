//! Piano rolls.

use super::{Note, note::check_notes, sort_notes};
use crate::{Error, Result, check::ensure_argument};
use burn::tensor::{Device, Tensor, TensorData};
use std::ops::RangeInclusive;

/// The keys of a piano.
const PIANO: RangeInclusive<u8> = 21..=108;

/// Limit on the number of cells.
const MAX_CELLS: f64 = (1u32 << 28) as f64;

/// Tolerance for rounding errors of a time, in frames.
const ROUNDING: f64 = 1e-6;

/// Which keys sound in each frame.
///
/// A note fills the frames from `⌊start·rate⌋` up to and without `⌊end·rate⌋`, so one shorter than
/// a frame may fill none.
///
/// ```
/// use aigc_core::music::{Note, PianoRoll};
///
/// # fn main() -> aigc_core::Result<()> {
/// let notes = [Note::new(0.0, 0.5, 60), Note::new(0.5, 1.0, 60)];
/// let roll = PianoRoll::from_notes(&notes, 4.0)?;
/// assert_eq!((roll.num_frames(), roll.velocity(1, 60), roll.velocity(1, 61)), (4, 80, 0));
/// assert_eq!(roll.to_notes(0), notes);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct PianoRoll {
    keys: RangeInclusive<u8>,
    frames_per_second: f64,
    /// `[frames, keys]`; 0 where nothing sounds.
    velocities: Vec<u8>,
    /// Whether a note begins there: two notes of a key may follow each other without a pause.
    onsets: Vec<bool>,
}

impl PianoRoll {
    /// The roll of notes on the keys of a piano, 21 (A0) to 108 (C8). Notes of other pitches are
    /// left out; of notes of a key that sound together, the louder one counts.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a note or the number of frames per second is out of range, or
    /// the roll would have more than 2²⁸ cells.
    pub fn from_notes(notes: &[Note], frames_per_second: f64) -> Result<Self> {
        Self::of_keys(notes, PIANO, frames_per_second)
    }

    /// [`from_notes`](Self::from_notes) with other keys than a piano's.
    ///
    /// # Errors
    /// As for [`from_notes`](Self::from_notes), and if there are no keys.
    pub fn of_keys(
        notes: &[Note],
        keys: RangeInclusive<u8>,
        frames_per_second: f64,
    ) -> Result<Self> {
        check_notes(notes)?;
        ensure_argument(
            frames_per_second > 0.0 && frames_per_second.is_finite(),
            "frames_per_second",
            frames_per_second,
            "a finite number above 0",
        )?;
        ensure_argument(
            !keys.is_empty() && *keys.end() < 128,
            "keys",
            format!("{keys:?}"),
            "some of 0 to 127",
        )?;
        let frame = |seconds: f64| (seconds * frames_per_second + ROUNDING).floor();
        let last = notes.iter().map(|note| note.end).fold(0.0, f64::max);
        if frame(last) * keys.len() as f64 > MAX_CELLS {
            return Err(Error::argument(
                "frames_per_second",
                format!("{frames_per_second}, for {last} seconds"),
                "at most 2^28 cells",
            ));
        }
        let cells = frame(last) as usize * keys.len();
        let mut roll = Self {
            keys,
            frames_per_second,
            velocities: vec![0; cells],
            onsets: vec![false; cells],
        };
        for note in notes {
            let frames = frame(note.start) as usize..frame(note.end) as usize;
            let first = frames.start;
            for at in frames {
                if let Some(cell) = roll.cell(at, note.pitch) {
                    roll.velocities[cell] = roll.velocities[cell].max(note.velocity);
                    roll.onsets[cell] |= at == first;
                }
            }
        }
        Ok(roll)
    }

    /// The keys.
    pub fn keys(&self) -> RangeInclusive<u8> {
        self.keys.clone()
    }

    /// Frames per second.
    pub fn frames_per_second(&self) -> f64 {
        self.frames_per_second
    }

    /// Number of frames.
    pub fn num_frames(&self) -> usize {
        self.velocities.len() / self.keys.len()
    }

    /// Velocity of the key that sounds in a frame; 0 if it does not sound, and outside the roll.
    pub fn velocity(&self, frame: usize, pitch: u8) -> u8 {
        self.cell(frame, pitch)
            .map_or(0, |cell| self.velocities[cell])
    }

    /// Whether a note of the key begins in a frame.
    pub fn is_onset(&self, frame: usize, pitch: u8) -> bool {
        self.cell(frame, pitch)
            .is_some_and(|cell| self.onsets[cell])
    }

    fn cell(&self, frame: usize, pitch: u8) -> Option<usize> {
        let inside = self.keys.contains(&pitch) && frame < self.num_frames();
        inside.then(|| frame * self.keys.len() + usize::from(pitch - self.keys.start()))
    }

    /// The pitches that sound in each frame, in ascending order.
    pub fn chords(&self) -> Vec<Vec<u8>> {
        let frames = self.velocities.chunks_exact(self.keys.len());
        let pitches = |frame: &[u8]| {
            let keys = self.keys.clone().zip(frame);
            keys.filter(|(_, velocity)| **velocity > 0)
                .map(|(pitch, _)| pitch)
                .collect()
        };
        frames.map(pitches).collect()
    }

    /// The notes of the roll, with a program: each lasts as long as its key sounds, or until the
    /// next one of the key begins.
    pub fn to_notes(&self, program: u8) -> Vec<Note> {
        let mut notes = vec![];
        let seconds = |frame: usize| frame as f64 / self.frames_per_second;
        for pitch in self.keys.clone() {
            let mut frame = 0;
            while frame < self.num_frames() {
                let (start, velocity) = (frame, self.velocity(frame, pitch));
                frame += 1;
                if velocity == 0 {
                    continue;
                }
                while self.velocity(frame, pitch) > 0 && !self.is_onset(frame, pitch) {
                    frame += 1;
                }
                notes.push(Note {
                    start: seconds(start),
                    end: seconds(frame),
                    pitch,
                    velocity,
                    program,
                });
            }
        }
        sort_notes(&mut notes);
        notes
    }

    /// 1 where a key sounds, 0 elsewhere.
    ///
    /// # Shapes
    /// - output: `[keys, frames]`
    pub fn to_tensor(&self, device: &Device) -> Tensor<2> {
        let (keys, frames) = (self.keys.len(), self.num_frames());
        let on = |index: usize| {
            let (key, frame) = (index / frames, index % frames);
            f32::from(u8::from(self.velocities[frame * keys + key] > 0))
        };
        let values: Vec<f32> = (0..keys * frames).map(on).collect();
        Tensor::from_data(TensorData::new(values, [keys, frames]), device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_fill_frames() {
        let notes = [
            Note::new(0.0, 0.24, 60),
            Note::new(0.1, 0.6, 62).with_velocity(5),
            Note::new(0.5, 1.0, 20),
        ];
        let roll = PianoRoll::from_notes(&notes, 4.0).unwrap();
        assert_eq!(roll.num_frames(), 4);
        let empty: Vec<u8> = vec![];
        // The first note is shorter than a frame; the last one is below the piano.
        assert_eq!(roll.chords(), [vec![62], vec![62], empty.clone(), empty]);
        assert_eq!((roll.velocity(0, 62), roll.velocity(9, 62)), (5, 0));
        let all = PianoRoll::of_keys(&notes, 20..=20, 4.0).unwrap();
        assert_eq!(all.chords()[2..], [[20], [20]]);
        assert_eq!(PianoRoll::from_notes(&[], 4.0).unwrap().num_frames(), 0);
    }

    /// Products such as 0.29·100 are below the whole number.
    #[test]
    fn notes_on_the_grid_return() {
        for rate in [3.0, 7.0, 10.0, 100.0] {
            let notes: Vec<Note> = (0..90u8)
                .map(|i| {
                    let at = |frame: u8| f64::from(frame) / rate;
                    Note::new(at(i), at(i + 1 + i % 3), 30 + i % 7 * 5)
                })
                .collect();
            let roll = PianoRoll::from_notes(&notes, rate).unwrap();
            assert_eq!(roll.to_notes(0), notes);
        }
    }

    #[test]
    fn bad_sizes_are_refused() {
        let note = Note::new(0.0, 80_000.0, 60);
        let error = |result: Result<PianoRoll>| result.unwrap_err().to_string();
        assert!(error(PianoRoll::from_notes(&[note], 1e6)).contains("2^28"));
        assert!(error(PianoRoll::from_notes(&[note], 0.0)).contains("`frames_per_second` is 0"));
        let silent = Note::new(1.0, 1.0, 60);
        assert!(error(PianoRoll::from_notes(&[silent], 8.0)).contains("`notes[0].end`"));
        #[allow(clippy::reversed_empty_ranges)]
        let none = 60..=50;
        assert!(error(PianoRoll::of_keys(&[], none, 8.0)).contains("`keys`"));
    }
}
