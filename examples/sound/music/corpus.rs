//! The chorales of Bach as tokens.

use crate::{notation::Notation, windows::with_ends};
use aigc_core::{
    Error, Result,
    check::ensure_argument,
    music::{
        ChordGrid, ChordTokens, Splits, VOICES, VoiceGrid, VoiceTokens, chord_floor, read_chords,
        read_voices, voice_floors,
    },
    weights::hash_files,
};
use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

/// The transpositions of training, in semitones: each of the twelve keys once.
const SHIFTS: RangeInclusive<i32> = -5..=6;

/// Chorales of one notation.
#[derive(Clone, Debug)]
pub(crate) struct Corpus {
    /// For each training piece its transpositions, with start and end.
    pub(crate) train: Vec<Vec<Vec<u32>>>,
    /// With start and end.
    pub(crate) valid: Vec<Vec<u32>>,
    /// With start and end.
    pub(crate) test: Vec<Vec<u32>>,
    /// Notes or frames of valid and test pieces.
    pub(crate) units: [usize; 2],
    /// The pieces as four voices, for statistics.
    pub(crate) voices: Splits<VoiceGrid>,
    /// What counting achieves on valid and test pieces, in nats a note or a frame.
    pub(crate) floors: [f64; 2],
    /// Hash of the file.
    pub(crate) fingerprint: String,
}

/// The file of a notation in a directory; `path` may also be the file.
fn file(path: &Path, notation: Notation) -> Result<PathBuf> {
    if path.is_file() {
        return Ok(path.to_path_buf());
    }
    let stem = match notation {
        Notation::Quarters => "jsb-chorales-quarter",
        _ => "Jsb16thSeparated",
    };
    let names = ["json", "json.gz"].map(|kind| format!("{stem}.{kind}"));
    let mut files = names.iter().map(|name| path.join(name));
    files.find(|file| file.is_file()).ok_or_else(|| {
        let expected = format!("a directory with {} or {}", names[0], names[1]);
        Error::argument("--data", path.display(), expected)
    })
}

impl Corpus {
    /// Reads the chorales of a directory.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the file is not there, has no pieces, or pitches without
    /// tokens; [`Error::Data`] if it has other content.
    pub(crate) fn read(path: &Path, notation: Notation) -> Result<Self> {
        let file = file(path, notation)?;
        let corpus = match notation {
            Notation::Quarters => Self::of_chords(read_chords(&file)?)?,
            _ => Self::of_voices(read_voices(&file)?)?,
        };
        let least = corpus.train.len().min(corpus.valid.len());
        let least = least.min(corpus.test.len());
        let expected = "pieces in train, valid and test";
        ensure_argument(least > 0, "--data", file.display(), expected)?;
        let fingerprint = hash_files([file.as_path()])?;
        Ok(Self {
            fingerprint,
            ..corpus
        })
    }

    fn of_voices(pieces: Splits<VoiceGrid>) -> Result<Self> {
        let pieces = without_empty(pieces, |piece| piece.steps.is_empty());
        let tokens = VoiceTokens::default();
        let floor = |eval: &[VoiceGrid]| voice_floors(&pieces.train, eval).n_gram;
        let notes = |split: &[VoiceGrid]| {
            let steps: usize = split.iter().map(|piece| piece.steps.len()).sum();
            VOICES * steps
        };
        let encode = |piece: &VoiceGrid, shift: i32| match piece.transposed(shift) {
            Some(moved) => tokens.encode(&moved),
            None => tokens.encode(piece),
        };
        let range = |piece: &VoiceGrid| tokens.transpositions(piece);
        Ok(Self {
            train: transposed(Notation::Sixteenths, &pieces.train, encode, range)?,
            valid: encoded(Notation::Sixteenths, &pieces.valid, encode)?,
            test: encoded(Notation::Sixteenths, &pieces.test, encode)?,
            units: [notes(&pieces.valid), notes(&pieces.test)],
            floors: [floor(&pieces.valid), floor(&pieces.test)],
            voices: pieces,
            fingerprint: String::new(),
        })
    }

    fn of_chords(pieces: Splits<ChordGrid>) -> Result<Self> {
        let pieces = without_empty(pieces, |piece| piece.frames.is_empty());
        let tokens = ChordTokens::default();
        let floor = |eval: &[ChordGrid]| chord_floor(&pieces.train, eval);
        let frames =
            |split: &[ChordGrid]| -> usize { split.iter().map(|piece| piece.frames.len()).sum() };
        let voices =
            |split: &[ChordGrid]| -> Vec<VoiceGrid> { split.iter().map(voices_of).collect() };
        let encode = |piece: &ChordGrid, shift: i32| match piece.transposed(shift) {
            Some(moved) => tokens.encode(&moved),
            None => tokens.encode(piece),
        };
        let range = |piece: &ChordGrid| tokens.transpositions(piece);
        Ok(Self {
            train: transposed(Notation::Quarters, &pieces.train, encode, range)?,
            valid: encoded(Notation::Quarters, &pieces.valid, encode)?,
            test: encoded(Notation::Quarters, &pieces.test, encode)?,
            units: [frames(&pieces.valid), frames(&pieces.test)],
            floors: [floor(&pieces.valid), floor(&pieces.test)],
            voices: Splits {
                train: voices(&pieces.train),
                valid: voices(&pieces.valid),
                test: voices(&pieces.test),
            },
            fingerprint: String::new(),
        })
    }
}

fn without_empty<T>(mut pieces: Splits<T>, is_empty: impl Fn(&T) -> bool) -> Splits<T> {
    for split in [&mut pieces.train, &mut pieces.valid, &mut pieces.test] {
        split.retain(|piece| !is_empty(piece));
    }
    pieces
}

/// The tokens of pieces as they are.
fn encoded<T>(
    notation: Notation,
    pieces: &[T],
    encode: impl Fn(&T, i32) -> Result<Vec<u32>>,
) -> Result<Vec<Vec<u32>>> {
    let tokens = pieces.iter().map(|piece| encode(piece, 0));
    let all = tokens.map(|tokens| tokens.map(|tokens| with_ends(notation, tokens)));
    all.collect()
}

/// The tokens of pieces in all transpositions that have tokens.
fn transposed<T>(
    notation: Notation,
    pieces: &[T],
    encode: impl Fn(&T, i32) -> Result<Vec<u32>>,
    range: impl Fn(&T) -> RangeInclusive<i32>,
) -> Result<Vec<Vec<Vec<u32>>>> {
    let each = pieces.iter().map(|piece| {
        let possible = range(piece);
        let mut shifts: Vec<i32> = SHIFTS.filter(|shift| possible.contains(shift)).collect();
        if shifts.is_empty() {
            // The error of a piece that has no tokens.
            shifts.push(0);
        }
        let tokens = shifts.iter().map(|shift| encode(piece, *shift));
        let all = tokens.map(|tokens| tokens.map(|tokens| with_ends(notation, tokens)));
        all.collect::<Result<Vec<_>>>()
    });
    each.collect()
}

/// Sets of pitches as four voices: soprano, alto and tenor have the highest ones, the bass has the
/// lowest. Where there are fewer pitches, inner voices are silent.
pub(crate) fn voices_of(piece: &ChordGrid) -> VoiceGrid {
    let step = |frame: &Vec<u8>| {
        let mut voices = [None; VOICES];
        let upper = frame.iter().rev().take(VOICES - 1);
        for (voice, pitch) in voices.iter_mut().zip(upper) {
            *voice = Some(*pitch);
        }
        // The lowest pitch leaves the voice that it has so far.
        if let (Some(lowest), 2..) = (frame.first(), frame.len()) {
            if frame.len() < VOICES {
                voices[frame.len() - 1] = None;
            }
            voices[VOICES - 1] = Some(*lowest);
        }
        voices
    };
    VoiceGrid {
        steps: piece.frames.iter().map(step).collect(),
    }
}
