//! Recordings of spoken digits.

use crate::VocoderKind;
use aigc_core::{
    DataFault, Error, Result,
    data::sound::{Sound, WaveFolderConfig},
    dsp::MelConfig,
};
use aigc_examples_sound::{Split, SpokenDigit, SpokenDigits};
use aigc_vae::speech::Utterance;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

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
    /// What makes sound of spectra. Runs of before it was recorded have none.
    #[serde(default)]
    pub(crate) vocoder: Option<VocoderKind>,
}

/// All recordings of a directory.
#[derive(Debug)]
pub(crate) struct Recordings {
    /// Those to train on.
    pub(crate) train: Vec<SpokenDigit>,
    /// Those held out: indices below 5, by the rule of the data set.
    pub(crate) test: Vec<SpokenDigit>,
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
        let digits = SpokenDigits::open(dir)?;
        let [train, test] = [Split::Train, Split::Test].map(|split| {
            let config = WaveFolderConfig {
                sample_rate: Some(mel.sample_rate),
                ..WaveFolderConfig::default()
            };
            let all = digits.recordings(split, config)?;
            all.iter().try_for_each(|one| check_length(one, mel))?;
            Ok::<_, Error>(all)
        });
        Ok(Self {
            train: train?,
            test: test?,
            speakers: digits.speakers().to_vec(),
            fingerprint: digits.fingerprint().to_owned(),
        })
    }

    /// The training recordings with their words.
    pub(crate) fn utterances(&self) -> Vec<Utterance> {
        let utterance = |recording: &SpokenDigit| Utterance {
            wave: recording.sound.wave.clone(),
            text: DIGITS[recording.digit as usize].into(),
            speaker: recording.speaker as usize,
        };
        self.train.iter().map(utterance).collect()
    }
}

/// Fails if a recording is too short for its word: every letter takes a frame at least, and so do
/// the blanks around it.
fn check_length(recording: &SpokenDigit, mel: &MelConfig) -> Result<()> {
    let (len, word) = (recording.sound.len, DIGITS[recording.digit as usize]);
    let symbols = 2 * word.len() + 1;
    let least = (symbols * mel.hop_length).max(mel.n_fft);
    if len < least {
        let reason =
            format!("{len} samples are too few for the word `{word}`, which needs {least}");
        return Err(Error::data(&recording.path, DataFault::Mismatch(reason)));
    }
    Ok(())
}

/// Recordings as sounds with classes.
pub(crate) fn sounds(recordings: &[SpokenDigit]) -> Vec<Sound> {
    recordings.iter().map(|one| one.sound.clone()).collect()
}
