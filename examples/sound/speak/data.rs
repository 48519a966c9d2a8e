//! Recordings of spoken digits.

use aigc_core::{
    DataFault, Error, Result,
    audio::Waveform,
    data::{
        Dataset,
        sound::{DigitName, Sound, WaveFolder, WaveFolderConfig, digit_of_name},
    },
    dsp::MelConfig,
    weights::hash_files,
};
use aigc_vae::speech::Utterance;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// The words of the digits.
pub(crate) const DIGITS: [&str; 10] = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
];

/// The data in the `config.json` of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DataConfig {
    /// Directory of the recordings.
    pub(crate) path: PathBuf,
    /// Hash of all recordings, by which they are recognised in another directory.
    pub(crate) fingerprint: String,
    /// Names of the speakers, in the order of their numbers.
    pub(crate) speakers: Vec<String>,
    /// Recordings of a batch.
    pub(crate) batch: usize,
    /// Most recordings that are joined to one.
    pub(crate) joined: usize,
}

/// A recording of a digit.
#[derive(Clone, Debug)]
pub(crate) struct Recording {
    pub(crate) wave: Waveform,
    pub(crate) digit: usize,
    pub(crate) speaker: usize,
}

/// All recordings of a directory.
#[derive(Debug)]
pub(crate) struct Recordings {
    /// Those to train on.
    pub(crate) train: Vec<Recording>,
    /// Those held out: indices below 5, by the rule of the data set.
    pub(crate) test: Vec<Recording>,
    /// Names of the speakers, in alphabetical order.
    pub(crate) speakers: Vec<String>,
    /// Hash of the files.
    pub(crate) fingerprint: String,
}

impl Recordings {
    /// Reads a directory; sounds are resampled to the rate of `mel`.
    ///
    /// # Errors
    /// Naming the file: if it cannot be read, its name is of another form, or it is too short.
    pub(crate) fn read(dir: &Path, mel: &MelConfig) -> Result<Self> {
        let config = WaveFolderConfig {
            sample_rate: Some(mel.sample_rate),
            ..WaveFolderConfig::default()
        };
        let label = |path: &Path| digit_of_name(path).map(|name| u32::from(name.digit));
        let folder = WaveFolder::open(dir, config)?.with_label(label)?;
        let files: Vec<PathBuf> = folder.files().map(Path::to_path_buf).collect();
        // Every file has a name of this form, or it would have no label.
        let names: Vec<DigitName> = files
            .iter()
            .filter_map(|file| digit_of_name(file))
            .collect();
        let speakers: BTreeSet<&String> = names.iter().map(|name| &name.speaker).collect();
        let speakers: Vec<String> = speakers.into_iter().cloned().collect();
        let (mut train, mut test) = (vec![], vec![]);
        for (index, (name, file)) in names.iter().zip(&files).enumerate() {
            let (wave, digit) = (folder.get(index)?.wave, usize::from(name.digit));
            // Every letter takes a frame at least, and so do the blanks around it.
            let symbols = 2 * DIGITS[digit].len() + 1;
            let least = (symbols * mel.hop_length).max(mel.n_fft);
            if wave.len() < least {
                let reason = format!(
                    "{} samples are too few for the word `{}`, which needs {least}",
                    wave.len(),
                    DIGITS[digit]
                );
                return Err(Error::data(file, DataFault::Mismatch(reason)));
            }
            let speaker = speakers.iter().position(|known| *known == name.speaker);
            let part = if name.is_test() {
                &mut test
            } else {
                &mut train
            };
            part.push(Recording {
                wave,
                digit,
                speaker: speaker.unwrap_or(0),
            });
        }
        for (part, what) in [
            (&train, "an index of 5 or above, to train on"),
            (&test, "an index below 5, to check the reader with"),
        ] {
            if part.is_empty() {
                let reason = format!("no recording with {what}");
                return Err(Error::data(dir, DataFault::Empty(reason)));
            }
        }
        Ok(Self {
            train,
            test,
            speakers,
            fingerprint: hash_files(files.iter().map(PathBuf::as_path))?,
        })
    }

    /// The training recordings with their words.
    pub(crate) fn utterances(&self) -> Vec<Utterance> {
        let utterance = |recording: &Recording| Utterance {
            wave: recording.wave.clone(),
            text: DIGITS[recording.digit].into(),
            speaker: recording.speaker,
        };
        self.train.iter().map(utterance).collect()
    }
}

/// Recordings as sounds with classes.
pub(crate) fn sounds(recordings: &[Recording]) -> Vec<Sound> {
    let sound = |recording: &Recording| Sound {
        len: recording.wave.len(),
        wave: recording.wave.clone(),
        label: Some(recording.digit as u32),
    };
    recordings.iter().map(sound).collect()
}
