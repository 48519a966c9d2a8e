//! Standard MIDI Files.
//!
//! Format: "Standard MIDI Files 1.0", MIDI Manufacturers Association, 1996. Bytes are parsed and
//! written by the crate `midly`.

mod clock;
mod read;
mod write;

use super::Note;
use crate::{DataFault, Error, Result, fs};
use std::path::Path;

/// The shortest beat that is accepted, in microseconds: 6,000 beats per minute. The longest that
/// the format can express is one of 3.58 beats per minute.
const MIN_MICROSECONDS: u32 = 10_000;

/// Limit on the size of a file, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// From `start` on, music has this many beats per minute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tempo {
    /// When it begins, in seconds.
    pub start: f64,
    /// Beats (quarter notes) per minute.
    pub beats_per_minute: f64,
}

/// From `start` on, bars have this many beats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TimeSignature {
    /// When it begins, in seconds.
    pub start: f64,
    /// Beats of a bar.
    pub numerator: u8,
    /// Length of a beat as a part of a whole note: a power of two.
    pub denominator: u16,
}

/// The music of a MIDI file: notes in seconds.
///
/// ```
/// use aigc_core::music::{MidiFile, Note};
///
/// # fn main() -> aigc_core::Result<()> {
/// let music = MidiFile::new(vec![Note::new(0.0, 0.5, 60), Note::new(0.5, 1.0, 64)], 120.0);
/// let bytes = music.encode()?;
/// assert_eq!(MidiFile::parse(&bytes).unwrap().notes, music.notes);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MidiFile {
    /// The notes of all instruments, sorted by start, pitch and program.
    pub notes: Vec<Note>,
    /// The notes of the percussion channel, where a pitch is a kind of drum and a program a kit.
    pub drums: Vec<Note>,
    /// Tempi in the order of their starts. Before the first one there are 120 beats per minute.
    pub tempi: Vec<Tempo>,
    /// Time signatures in the order of their starts.
    pub time_signatures: Vec<TimeSignature>,
    /// Ticks of a beat: notes begin and end at whole ticks.
    pub ticks_per_beat: u16,
    /// Number of notes that were read but never ended; they last until the end of their track.
    pub hanging_notes: usize,
}

impl MidiFile {
    /// Notes at a constant tempo, with 480 ticks per beat.
    pub fn new(mut notes: Vec<Note>, beats_per_minute: f64) -> Self {
        super::sort_notes(&mut notes);
        Self {
            notes,
            drums: vec![],
            tempi: vec![Tempo {
                start: 0.0,
                beats_per_minute,
            }],
            time_signatures: vec![],
            ticks_per_beat: 480,
            hanging_notes: 0,
        }
    }

    /// Reads a file.
    ///
    /// A note ends by its own event or by one that begins it with velocity 0; both end every note
    /// of that key, channel and track that began before. Notes that nothing ends last until the
    /// end of their track and are counted as [`hanging_notes`](Self::hanging_notes). Tempi of all
    /// tracks apply to all tracks. Notes of no length are dropped.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::Data`] with the faults of
    /// [`parse`](Self::parse), or if it is larger than 64 MiB.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = fs::read_at_most(path, MAX_BYTES)?;
        Self::parse(&bytes).map_err(|fault| Error::data(path, fault))
    }

    /// Reads the bytes of a file; see [`read`](Self::read).
    ///
    /// # Errors
    /// A [`DataFault`] if they are no MIDI file, are truncated or malformed; if several songs
    /// follow each other (format 2); if a tempo is above 6,000 beats per minute, a tick has no
    /// length, or the music lasts more than a day.
    pub fn parse(bytes: &[u8]) -> Result<Self, DataFault> {
        read::parse(bytes)
    }

    /// The bytes of a file: a track of tempi, one track and channel per program, one of drums.
    ///
    /// Times are rounded to ticks, and no note is shorter than a tick. As MIDI has one note per
    /// key, a note ends where the next one of its key and program begins. Drums of one pitch share
    /// a key, whatever their programs.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a field of a note is out of range, there are more than 15
    /// programs, tempi or time signatures are out of range or order, or a pause is too long for the
    /// format.
    pub fn encode(&self) -> Result<Vec<u8>> {
        write::encode(self)
    }

    /// Writes a file; see [`encode`](Self::encode).
    ///
    /// # Errors
    /// As for [`encode`](Self::encode), and [`Error::Io`].
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        fs::write_atomic(path.as_ref(), &self.encode()?)
    }

    /// When the last note ends, in seconds.
    pub fn seconds(&self) -> f64 {
        let notes = self.notes.iter().chain(&self.drums);
        notes.map(|note| note.end).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests;
