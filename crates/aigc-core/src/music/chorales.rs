//! The chorales of J. S. Bach as JSON.
//!
//! Files: `Jsb16thSeparated.json` (four voices at every sixteenth) and `jsb-chorales-quarter.json`
//! (sets of pitches at every quarter) of the JSB-Chorales-dataset, with the split of N.
//! Boulanger-Lewandowski et al., "Modeling Temporal Dependencies in High-Dimensional Sequences",
//! 2012; plain or gzipped.

use super::{ChordGrid, VOICES, VoiceGrid};
use crate::{DataFault, Error, Result, fs};
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use std::{io::Read, path::Path};

/// Limit on the size of a file, packed and unpacked, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// A data set in three parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Splits<T> {
    /// Pieces to train on.
    pub train: Vec<T>,
    /// Pieces to choose settings by.
    pub valid: Vec<T>,
    /// Pieces to report results of.
    pub test: Vec<T>,
}

impl<T> Splits<T> {
    fn try_map<U>(self, each: impl Fn(T) -> Result<U, String>) -> Result<Splits<U>, String> {
        let part = |name: &str, pieces: Vec<T>| {
            let numbered = pieces.into_iter().enumerate();
            let named = numbered.map(|(index, piece)| {
                each(piece).map_err(|fault| format!("{name}[{index}]{fault}"))
            });
            named.collect::<Result<Vec<U>, String>>()
        };
        Ok(Splits {
            train: part("train", self.train)?,
            valid: part("valid", self.valid)?,
            test: part("test", self.test)?,
        })
    }
}

/// Reads pieces of four voices: in each step four numbers, soprano first, -1 for silence.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Data`] naming piece and step if it has other
/// content, or holds more than 64 MiB.
pub fn read_voices(path: impl AsRef<Path>) -> Result<Splits<VoiceGrid>> {
    read(path.as_ref(), |piece| {
        let step = |numbers: &Vec<f64>| -> Result<_, String> {
            let voices = <&[f64; VOICES]>::try_from(&numbers[..])
                .map_err(|_| format!("has {} voices, expected {VOICES}", numbers.len()))?;
            let mut step = [None; VOICES];
            for (voice, number) in step.iter_mut().zip(voices) {
                *voice = if *number == -1.0 {
                    None
                } else {
                    Some(pitch(*number)?)
                };
            }
            Ok(step)
        };
        Ok(VoiceGrid {
            steps: steps(&piece, step)?,
        })
    })
}

/// Reads pieces that are sets of pitches: in each step any number of them, in any order.
///
/// # Errors
/// As for [`read_voices`].
pub fn read_chords(path: impl AsRef<Path>) -> Result<Splits<ChordGrid>> {
    read(path.as_ref(), |piece| {
        let frame = |numbers: &Vec<f64>| -> Result<_, String> {
            let pitches = numbers.iter().map(|number| pitch(*number));
            let mut pitches = pitches.collect::<Result<Vec<u8>, String>>()?;
            pitches.sort_unstable();
            pitches.dedup();
            Ok(pitches)
        };
        Ok(ChordGrid {
            frames: steps(&piece, frame)?,
        })
    })
}

/// Converts the steps of a piece; errors name the step.
fn steps<T>(
    piece: &[Vec<f64>],
    each: impl Fn(&Vec<f64>) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let numbered = piece.iter().enumerate();
    let named =
        numbered.map(|(index, step)| each(step).map_err(|fault| format!("[{index}] {fault}")));
    named.collect()
}

fn pitch(number: f64) -> Result<u8, String> {
    if (0.0..128.0).contains(&number) && number.fract() == 0.0 {
        return Ok(number as u8);
    }
    Err(format!("holds {number}, expected a pitch from 0 to 127"))
}

fn read<T>(path: &Path, each: impl Fn(Vec<Vec<f64>>) -> Result<T, String>) -> Result<Splits<T>> {
    let fault = |fault: DataFault| Error::data(path, fault);
    let mut bytes = fs::read_at_most(path, MAX_BYTES)?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let packed = std::mem::take(&mut bytes);
        let mut unpacked = MultiGzDecoder::new(&packed[..]).take(MAX_BYTES + 1);
        unpacked
            .read_to_end(&mut bytes)
            .map_err(|error| fault(DataFault::Decode(error.to_string())))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(fault(DataFault::Oversized {
                expected: MAX_BYTES,
            }));
        }
    }
    let splits: Splits<Vec<Vec<f64>>> = serde_json::from_slice(&bytes)
        .map_err(|error| fault(DataFault::Decode(format!("not the expected JSON: {error}"))))?;
    let splits = splits.try_map(each);
    splits.map_err(|reason| fault(DataFault::Mismatch(reason)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;

    #[test]
    fn plain_and_packed_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let text =
            r#"{"train": [[[74, 70, 65, 58], [74, -1, 65.0, 58]]], "valid": [], "test": [[]]}"#;
        std::fs::write(&path, text).unwrap();
        let voices = read_voices(&path).unwrap();
        let steps = &voices.train[0].steps;
        assert_eq!(steps[1], [Some(74), None, Some(65), Some(58)]);
        assert_eq!((voices.valid.len(), voices.test.len()), (0, 1));
        let mut packed = GzEncoder::new(vec![], Compression::fast());
        packed.write_all(text.as_bytes()).unwrap();
        std::fs::write(&path, packed.finish().unwrap()).unwrap();
        assert_eq!(read_voices(&path).unwrap(), voices);
        let error = read_chords(&path).unwrap_err().to_string();
        assert!(error.contains("train[0][1] holds -1"), "{error}");
    }

    #[test]
    fn other_content_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        for (text, expected) in [
            ("", "not the expected JSON"),
            (r#"{"train": [], "valid": []}"#, "`test`"),
            (
                r#"{"train": [], "valid": [[[1, 2]]], "test": []}"#,
                "valid[0][0] has 2 voices",
            ),
            (
                r#"{"train": [], "valid": [], "test": [[[1, 2, 3, 128]]]}"#,
                "holds 128",
            ),
            (
                r#"{"train": [], "valid": [], "test": [[[1, 2, 3, 0.5]]]}"#,
                "holds 0.5",
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = read_voices(&path).unwrap_err().to_string();
            assert!(
                error.contains(expected) && error.contains("a.json"),
                "{error}"
            );
        }
        assert!(matches!(
            read_chords(dir.path().join("no")),
            Err(Error::Io { .. })
        ));
    }

    #[test]
    fn chords_are_sorted_sets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        std::fs::write(
            &path,
            r#"{"train": [[[67, 60, 67]]], "valid": [], "test": []}"#,
        )
        .unwrap();
        assert_eq!(read_chords(&path).unwrap().train[0].frames, [[60, 67]]);
    }
}
