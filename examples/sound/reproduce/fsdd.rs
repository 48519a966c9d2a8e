//! The spoken digits of FSDD, or recordings with names of the same form.

use aigc_core::{
    DataFault, Error, Result,
    audio::Waveform,
    data::{
        DataLoader, DataLoaderConfig,
        sound::{SoundBatch, WaveFolder, WaveFolderConfig, collate_sounds},
    },
};
pub(crate) use aigc_examples_sound::{Label, Split, SpokenDigit};
use aigc_examples_sound::{SpokenDigits, spread};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

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
/// Fewest samples of a clip that is compared with its original: the longest window of the spectra.
const SHORTEST: usize = 512;
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

/// The record of the data in a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    path: PathBuf,
    fingerprint: String,
    pub(crate) speakers: Vec<String>,
}

/// Recordings of digits by several speakers.
#[derive(Clone, Debug)]
pub(crate) struct Fsdd {
    digits: SpokenDigits,
    record: Record,
}

/// The recordings of clips, without what they are padded with.
pub(crate) fn spoken(clips: &[SpokenDigit]) -> Result<Vec<Waveform>> {
    clips.iter().map(SpokenDigit::spoken).collect()
}

/// The first clip of every digit that occurs, in the order of the digits.
pub(crate) fn one_of_each_digit(clips: &[SpokenDigit]) -> Vec<usize> {
    let first = |digit: usize| clips.iter().position(|clip| clip.digit as usize == digit);
    (0..DIGITS).filter_map(first).collect()
}

impl DataOptions {
    /// Lists the recordings.
    ///
    /// # Errors
    /// As for [`SpokenDigits::open`]; [`Error::Data`] if there is a single speaker.
    pub(crate) fn open(&self) -> Result<Fsdd> {
        let digits = SpokenDigits::open(&self.data)?;
        let speakers = digits.speakers().to_vec();
        if speakers.len() < 2 {
            let reason = "recordings of a single speaker; at least two are needed";
            return Err(Error::data(&self.data, DataFault::Mismatch(reason.into())));
        }
        let record = Record {
            path: self.data.clone(),
            fingerprint: digits.fingerprint().to_owned(),
            speakers,
        };
        Ok(Fsdd { digits, record })
    }
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

    /// The clips of a split with these labels, cut or padded to `length` samples; where they are
    /// cut in training depends on the seed.
    pub(crate) fn folder(
        &self,
        split: Split,
        label: Label,
        length: usize,
        crop_seed: Option<u64>,
    ) -> Result<WaveFolder> {
        self.digits.folder(split, label, clip(length, crop_seed))
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
    pub(crate) fn clips(&self, split: Split) -> Result<Vec<SpokenDigit>> {
        self.digits.recordings(split, clip(SECOND, None))
    }

    /// The test clips to compare with what a model makes of them, at most `most`, at equal
    /// distances among all. Read them before a training, so that an error does not come after it.
    ///
    /// # Errors
    /// As for [`SpokenDigits::recordings`]; [`Error::Data`] naming a clip that is too short.
    pub(crate) fn compared(&self, most: Option<u32>) -> Result<Vec<SpokenDigit>> {
        let most = most.map_or(usize::MAX, |most| most as usize);
        let clips = spread(&self.clips(Split::Test)?, most);
        match clips.iter().find(|clip| clip.sound.len < SHORTEST) {
            None => Ok(clips),
            Some(SpokenDigit { sound, path, .. }) => {
                let reason = format!(
                    "{} samples are too few for spectra; at least {SHORTEST} are needed",
                    sound.len
                );
                Err(Error::data(path, DataFault::Mismatch(reason)))
            }
        }
    }
}

/// How recordings become clips of `length` samples.
fn clip(length: usize, crop_seed: Option<u64>) -> WaveFolderConfig {
    WaveFolderConfig {
        sample_rate: Some(RATE),
        length: Some(length),
        crop_seed,
        ..WaveFolderConfig::default()
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
