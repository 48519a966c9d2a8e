//! A directory of MIDI files.
//!
//! ```no_run
//! use aigc_core::data::{Dataset, midi::MidiFolder};
//! use aigc_core::music::PianoRoll;
//! use std::path::Path;
//!
//! # fn main() -> aigc_core::Result<()> {
//! let pieces = MidiFolder::open(Path::new("midi"))?;
//! // A frame for each sixteenth of 120 quarters a minute.
//! let roll = PianoRoll::from_notes(&pieces.get(0)?.notes, 8.0)?;
//! # Ok(()) }
//! ```

use super::{Dataset, listing::files_below};
use crate::{DataFault, Error, Result, check::ensure, music::MidiFile};
use std::path::{Path, PathBuf};

/// File extensions of MIDI files.
const EXTENSIONS: [&str; 3] = ["mid", "midi", "smf"];

/// The pieces of a directory and its subdirectories. Each file is read by [`get`](Dataset::get).
///
/// A file is a piece if its name ends like that of one. Hidden files and directories are skipped;
/// links to directories are followed, each directory once. The notes of a piece become tokens or
/// rolls by the types of [`music`](crate::music).
#[derive(Clone, Debug)]
pub struct MidiFolder {
    files: Vec<PathBuf>,
}

impl MidiFolder {
    /// Lists the pieces below `dir` in the order of their names.
    ///
    /// # Errors
    /// [`Error::Io`] if a directory cannot be read, [`Error::Data`] if there is no piece.
    pub fn open(dir: &Path) -> Result<Self> {
        let files = files_below(dir, &EXTENSIONS)?;
        if files.is_empty() {
            let known = EXTENSIONS.join(", ");
            let what = format!("no MIDI file in it (known extensions: {known})");
            return Err(Error::data(dir, DataFault::Empty(what)));
        }
        Ok(Self { files })
    }

    /// Keeps the files that `keep` is true for, such as those of a split.
    ///
    /// # Errors
    /// [`Error::Config`] if none is left.
    pub fn filter(mut self, keep: impl Fn(&Path) -> bool) -> Result<Self> {
        self.files.retain(|path| keep(path));
        let is_left = !self.files.is_empty();
        ensure(
            is_left,
            "files",
            "empty after the filter",
            "at least one file",
        )?;
        Ok(self)
    }

    /// The files in order.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }
}

impl Dataset for MidiFolder {
    type Item = MidiFile;

    fn len(&self) -> usize {
        self.files.len()
    }

    /// # Errors
    /// Those of [`MidiFile::read`]; [`Error::Data`] for a file without notes.
    fn get(&self, index: usize) -> Result<MidiFile> {
        let path = &self.files[index];
        let piece = MidiFile::read(path)?;
        if piece.notes.is_empty() && piece.drums.is_empty() {
            return Err(Error::data(path, DataFault::Empty("no notes".into())));
        }
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::{DataLoader, DataLoaderConfig, OnReadError},
        music::Note,
    };

    /// A piece of one note of this pitch.
    fn piece(pitch: u8) -> MidiFile {
        MidiFile::new(vec![Note::new(0.0, 0.5, pitch)], 120.0)
    }

    #[test]
    fn pieces_are_read_in_order_and_bad_ones_named_or_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("b");
        std::fs::create_dir(&inner).unwrap();
        piece(60).write(dir.path().join("a.MID")).unwrap();
        piece(62).write(inner.join("c.midi")).unwrap();
        MidiFile::new(vec![], 120.0)
            .write(dir.path().join("d.mid"))
            .unwrap();
        std::fs::write(dir.path().join("e.mid"), "MThd").unwrap();
        std::fs::write(dir.path().join("f.txt"), "").unwrap();
        std::fs::write(dir.path().join(".g.mid"), "").unwrap();

        let pieces = MidiFolder::open(dir.path()).unwrap();
        let names: Vec<_> = pieces
            .files()
            .iter()
            .map(|path| path.file_name().unwrap())
            .collect();
        assert_eq!(names, ["a.MID", "c.midi", "d.mid", "e.mid"]);
        let pitch = |index| pieces.get(index).map(|piece| piece.notes[0].pitch);
        assert_eq!((pitch(0).unwrap(), pitch(1).unwrap()), (60, 62));
        for (index, expected) in [(2, "no notes"), (3, "e.mid")] {
            let message = pieces.get(index).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }

        let config = DataLoaderConfig {
            batch_size: 4,
            num_workers: 0,
            on_read_error: OnReadError::Skip,
            ..DataLoaderConfig::default()
        };
        let pitches = |pieces: Vec<MidiFile>| -> Vec<u8> {
            pieces.iter().map(|piece| piece.notes[0].pitch).collect()
        };
        let loader = DataLoader::new(pieces.clone(), pitches, config).unwrap();
        let mut batch = loader.iter_from(0).next_batch().unwrap();
        batch.sort_unstable();
        batch.dedup();
        assert_eq!(batch, [60, 62]);

        let kept = pieces
            .clone()
            .filter(|path| path.starts_with(&inner))
            .unwrap();
        assert_eq!(kept.len(), 1);
        assert!(
            pieces
                .filter(|_| false)
                .unwrap_err()
                .to_string()
                .contains("`files`")
        );
    }

    #[test]
    fn folders_without_pieces_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let message = MidiFolder::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("mid, midi, smf"), "{message}");
        let missing = MidiFolder::open(&dir.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("none"), "{missing}");
    }
}
