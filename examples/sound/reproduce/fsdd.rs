//! The spoken digits of FSDD, or recordings with names of the same form.

use aigc_core::{
    DataFault, Error, Result,
    audio::Waveform,
    data::{
        DataLoader, DataLoaderConfig, Dataset,
        sound::{
            DigitName, Sound, SoundBatch, WaveFolder, WaveFolderConfig, collate_sounds,
            digit_of_name,
        },
    },
    weights::hash_files,
};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Samples per second.
pub(crate) const RATE: u32 = 8000;
/// Samples of a second, to which clips are cut or padded.
pub(crate) const SECOND: usize = 8000;
/// Samples of the crops that codec and vocoder are trained on.
pub(crate) const CROP: usize = 4000;
/// Number of digits.
pub(crate) const DIGITS: usize = 10;
/// Clips that are processed at once outside training.
pub(crate) const BATCH: usize = 50;
/// Threads that read clips and compute their spectra.
const WORKERS: usize = 1;

/// Where the recordings are.
#[derive(Clone, Debug, Args)]
pub(crate) struct DataOptions {
    /// Directory of recordings named `digit_speaker_index.wav`, such as those of FSDD. Indices
    /// below 5 are the test set.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

/// What a clip is labelled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Label {
    /// The digit that is spoken.
    Digit,
    /// Who speaks.
    Speaker,
}

/// A part of the recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    Train,
    Test,
}

/// The record of the data in a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    path: PathBuf,
    fingerprint: String,
    speakers: Vec<String>,
}

/// Recordings of digits by several speakers.
#[derive(Clone, Debug)]
pub(crate) struct Fsdd {
    record: Record,
}

/// A clip of a second, padded with silence.
#[derive(Clone, Debug)]
pub(crate) struct Clip {
    pub(crate) sound: Sound,
    pub(crate) digit: u32,
    pub(crate) speaker: u32,
}

impl Clip {
    /// The recording without what it is padded with.
    pub(crate) fn spoken(&self) -> Result<Waveform> {
        self.sound.wave.slice(0, self.sound.len)
    }
}

/// The recordings of clips, without what they are padded with.
pub(crate) fn spoken(clips: &[Clip]) -> Result<Vec<Waveform>> {
    clips.iter().map(Clip::spoken).collect()
}

/// The first clip of every digit that occurs, in the order of the digits.
pub(crate) fn one_of_each_digit(clips: &[Clip]) -> Vec<usize> {
    let first = |digit: usize| clips.iter().position(|clip| clip.digit as usize == digit);
    (0..DIGITS).filter_map(first).collect()
}

impl DataOptions {
    /// Lists the recordings.
    ///
    /// # Errors
    /// [`Error::Io`] for a directory or file that cannot be read; [`Error::Data`] if there is no
    /// sound, a name is of another form, or a split or a second speaker is missing.
    pub(crate) fn open(&self) -> Result<Fsdd> {
        let folder = WaveFolder::open(&self.data, WaveFolderConfig::default())?;
        let names: Vec<DigitName> = folder.files().map(name_of).collect::<Result<_>>()?;
        let mismatch = |reason: &str| Error::data(&self.data, DataFault::Mismatch(reason.into()));
        for (is_test, reason) in [
            (true, "no recording of the test set, with an index below 5"),
            (
                false,
                "no recording of the training set, with an index of 5 or above",
            ),
        ] {
            if !names.iter().any(|name| name.is_test() == is_test) {
                return Err(mismatch(reason));
            }
        }
        let speakers: BTreeSet<String> = names.into_iter().map(|name| name.speaker).collect();
        if speakers.len() < 2 {
            return Err(mismatch(
                "recordings of a single speaker; at least two are needed",
            ));
        }
        Ok(Fsdd {
            record: Record {
                path: self.data.clone(),
                fingerprint: hash_files(folder.files())?,
                speakers: speakers.into_iter().collect(),
            },
        })
    }
}

/// The parts of a file's name.
fn name_of(path: &Path) -> Result<DigitName> {
    digit_of_name(path).ok_or_else(|| {
        let reason = "its name is not of the form digit_speaker_index";
        Error::data(path, DataFault::Mismatch(reason.into()))
    })
}

impl Fsdd {
    /// What a run records.
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Number of speakers.
    pub(crate) fn speakers(&self) -> usize {
        self.record.speakers.len()
    }

    /// Number of classes of a label.
    pub(crate) fn classes(&self, label: Label) -> usize {
        match label {
            Label::Digit => DIGITS,
            Label::Speaker => self.speakers(),
        }
    }

    fn class(&self, name: &DigitName, label: Label) -> Option<u32> {
        match label {
            Label::Digit => Some(u32::from(name.digit)),
            Label::Speaker => {
                let speakers = &self.record.speakers;
                let index = speakers.iter().position(|known| *known == name.speaker)?;
                u32::try_from(index).ok()
            }
        }
    }

    /// The clips of a split with these labels, cut or padded to `length` samples; where they are
    /// cut in training depends on the seed.
    pub(crate) fn folder(
        &self,
        split: Split,
        label: Label,
        length: usize,
        crop_seed: Option<u64>,
    ) -> Result<WaveFolder> {
        let config = WaveFolderConfig {
            sample_rate: Some(RATE),
            length: Some(length),
            crop_seed,
            ..WaveFolderConfig::default()
        };
        let is_of_split = |path: &Path| {
            digit_of_name(path).is_some_and(|name| name.is_test() == (split == Split::Test))
        };
        WaveFolder::open(&self.record.path, config)?
            .filter(is_of_split)?
            .with_label(|path| self.class(&digit_of_name(path)?, label))
    }

    /// Batches of training clips.
    pub(crate) fn loader(
        &self,
        label: Label,
        length: usize,
        batch: usize,
        seed: u64,
    ) -> Result<DataLoader<SoundBatch>> {
        let folder = self.folder(Split::Train, label, length, Some(seed))?;
        DataLoader::new(folder, collate_sounds, loader_config(batch, seed))
    }

    /// All clips of a split, of a second each.
    pub(crate) fn clips(&self, split: Split) -> Result<Vec<Clip>> {
        let folder = self.folder(split, Label::Digit, SECOND, None)?;
        let clip = |(index, path): (usize, &Path)| {
            let name = name_of(path)?;
            let speaker = self.class(&name, Label::Speaker);
            Ok(Clip {
                sound: folder.get(index)?,
                digit: u32::from(name.digit),
                speaker: speaker.expect("the speakers are those of all names"),
            })
        };
        folder.files().enumerate().map(clip).collect()
    }
}

/// How training clips are read.
pub(crate) fn loader_config(batch: usize, seed: u64) -> DataLoaderConfig {
    DataLoaderConfig {
        batch_size: batch,
        shuffle_seed: Some(seed),
        num_workers: WORKERS,
        ..DataLoaderConfig::default()
    }
}
