//! Recordings of spoken digits, named as those of the Free Spoken Digit Dataset (FSDD).

use aigc_core::{
    DataFault, Error, Result,
    audio::Waveform,
    data::{
        Dataset,
        sound::{DigitName, Sound, WaveFolder, WaveFolderConfig, digit_of_name},
    },
    weights::hash_files,
};
use clap::ValueEnum;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Largest magnitude of every recording; those of FSDD have from 0.02 to 1. Networks learn quiet
/// sounds slowly: activations are nearly linear there.
const PEAK: f32 = 0.95;

/// What a recording is labelled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Label {
    /// The digit that is spoken.
    Digit,
    /// Who speaks.
    Speaker,
}

/// A part of the recordings, by the rule of the data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Indices of 5 or above.
    Train,
    /// Indices below 5.
    Test,
}

impl Split {
    fn holds(self, name: &DigitName) -> bool {
        name.is_test() == (self == Self::Test)
    }
}

/// A directory of recordings named `digit_speaker_index`, such as `7_theo_32.wav`.
#[derive(Clone, Debug)]
pub struct SpokenDigits {
    dir: PathBuf,
    speakers: Vec<String>,
    fingerprint: String,
}

/// A recording of a digit.
#[derive(Clone, Debug)]
pub struct SpokenDigit {
    /// The sound, labelled with the digit.
    pub sound: Sound,
    /// The digit that is spoken.
    pub digit: u32,
    /// Number of the speaker.
    pub speaker: u32,
    /// The file.
    pub path: PathBuf,
}

impl SpokenDigits {
    /// Lists the recordings of a directory and its subdirectories.
    ///
    /// # Errors
    /// [`Error::Io`] for a directory or a file that cannot be read; [`Error::Data`] if there is no
    /// sound, a name is of another form, or a split has no recording.
    pub fn open(dir: &Path) -> Result<Self> {
        let folder = WaveFolder::open(dir, WaveFolderConfig::default())?;
        let names: Vec<DigitName> = folder.files().map(name_of).collect::<Result<_>>()?;
        for (split, reason) in [
            (
                Split::Test,
                "no recording of the test set, with an index below 5",
            ),
            (
                Split::Train,
                "no recording of the training set, with an index of 5 or above",
            ),
        ] {
            if !names.iter().any(|name| split.holds(name)) {
                return Err(Error::data(dir, DataFault::Empty(reason.into())));
            }
        }
        let speakers: BTreeSet<String> = names.into_iter().map(|name| name.speaker).collect();
        Ok(Self {
            dir: dir.to_path_buf(),
            speakers: speakers.into_iter().collect(),
            fingerprint: hash_files(folder.files())?,
        })
    }

    /// Names of the speakers in alphabetical order, which is that of their numbers.
    pub fn speakers(&self) -> &[String] {
        &self.speakers
    }

    /// Hash of the content of all recordings.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The labelled recordings of a split, which are decoded when they are read, all equally loud.
    ///
    /// # Errors
    /// As for [`WaveFolder::open`] and [`WaveFolder::with_label`].
    pub fn folder(
        &self,
        split: Split,
        label: Label,
        config: WaveFolderConfig,
    ) -> Result<WaveFolder> {
        let config = WaveFolderConfig {
            normalize_peak: Some(PEAK),
            ..config
        };
        WaveFolder::open(&self.dir, config)?
            .filter(|path| digit_of_name(path).is_some_and(|name| split.holds(&name)))?
            .with_label(|path| {
                let name = digit_of_name(path)?;
                match label {
                    Label::Digit => Some(u32::from(name.digit)),
                    Label::Speaker => self.number(&name.speaker),
                }
            })
    }

    /// All recordings of a split in memory, in the order of their names.
    ///
    /// # Errors
    /// As for [`folder`](Self::folder); [`Error::Data`] naming a file that cannot be decoded.
    pub fn recordings(&self, split: Split, config: WaveFolderConfig) -> Result<Vec<SpokenDigit>> {
        let folder = self.folder(split, Label::Digit, config)?;
        let recording = |(index, path): (usize, &Path)| {
            let name = name_of(path)?;
            let speaker = self.number(&name.speaker).ok_or_else(|| {
                let reason = "its speaker was not there when the directory was listed";
                Error::data(path, DataFault::Mismatch(reason.into()))
            })?;
            Ok(SpokenDigit {
                sound: folder.get(index)?,
                digit: u32::from(name.digit),
                speaker,
                path: path.to_path_buf(),
            })
        };
        folder.files().enumerate().map(recording).collect()
    }

    /// The number of a speaker.
    fn number(&self, speaker: &str) -> Option<u32> {
        let index = self.speakers.iter().position(|known| known == speaker)?;
        u32::try_from(index).ok()
    }
}

impl SpokenDigit {
    /// The recording without the silence that it is padded with.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the sound is shorter than its recorded length.
    pub fn spoken(&self) -> Result<Waveform> {
        self.sound.wave.slice(0, self.sound.len)
    }
}

/// The parts of a file's name.
fn name_of(path: &Path) -> Result<DigitName> {
    digit_of_name(path).ok_or_else(|| {
        let reason = "its name is not of the form digit_speaker_index";
        Error::data(path, DataFault::Mismatch(reason.into()))
    })
}

/// At most `most` of the items, at equal distances from the first on. Recordings come in the order
/// of their digits, so that the first ones alone would all be the same digit.
pub fn spread<T: Clone>(items: &[T], most: usize) -> Vec<T> {
    let kept = most.min(items.len());
    (0..kept)
        .map(|index| items[index * items.len() / kept].clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::audio::{WavFormat, write_wav};

    /// Recordings of these names, each as long as ten times its place in the list.
    fn write(dir: &Path, names: &[&str]) {
        std::fs::create_dir_all(dir).unwrap();
        for (place, name) in names.iter().enumerate() {
            let wave = Waveform::mono(vec![0.1; 10 * (place + 1)], 8000).unwrap();
            write_wav(&wave, dir.join(name), WavFormat::default()).unwrap();
        }
    }

    #[test]
    fn splits_and_classes_follow_from_names() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["3_zoe_4.wav", "3_ann_5.wav", "0_zoe_12.wav", "9_bo_0.wav"];
        write(folder.path(), &names);
        let digits = SpokenDigits::open(folder.path()).unwrap();
        assert_eq!(digits.speakers(), ["ann", "bo", "zoe"]);
        let config = WaveFolderConfig {
            length: Some(25),
            ..WaveFolderConfig::default()
        };
        let found = |split: Split| -> Vec<_> {
            let all = digits.recordings(split, config.clone()).unwrap();
            all.iter()
                .map(|one| {
                    assert_eq!(one.sound.label, Some(one.digit));
                    assert_eq!(one.sound.wave.len(), 25);
                    let name = one.path.file_name().unwrap().to_str().unwrap();
                    let len = one.spoken().unwrap().len();
                    (name.to_owned(), one.digit, one.speaker, len)
                })
                .collect()
        };
        let is = |name: &str, digit: u32, speaker: u32, len: usize| {
            (name.to_owned(), digit, speaker, len)
        };
        assert_eq!(
            found(Split::Train),
            [is("0_zoe_12.wav", 0, 2, 25), is("3_ann_5.wav", 3, 0, 20)]
        );
        assert_eq!(
            found(Split::Test),
            [is("3_zoe_4.wav", 3, 2, 10), is("9_bo_0.wav", 9, 1, 25)]
        );
        let speakers = digits.folder(Split::Test, Label::Speaker, config).unwrap();
        assert_eq!(speakers.get(0).unwrap().label, Some(2));
        assert_eq!(speakers.get(1).unwrap().label, Some(1));

        // The fingerprint follows the content.
        let before = digits.fingerprint().to_owned();
        let same = SpokenDigits::open(folder.path()).unwrap();
        assert_eq!(same.fingerprint(), before);
        let wave = Waveform::mono(vec![0.2; 10], 8000).unwrap();
        let path = folder.path().join(names[0]);
        write_wav(&wave, path, WavFormat::default()).unwrap();
        let other = SpokenDigits::open(folder.path()).unwrap();
        assert_ne!(other.fingerprint(), before);
    }

    #[test]
    fn directories_of_other_sounds_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let cases: [(&str, &[&str], &str); 3] = [
            ("names", &["3_ann_0.wav", "three.wav"], "three.wav"),
            ("train", &["3_ann_5.wav"], "an index below 5"),
            ("test", &["3_ann_4.wav"], "an index of 5 or above"),
        ];
        for (name, files, expected) in cases {
            let dir = folder.path().join(name);
            write(&dir, files);
            let error = SpokenDigits::open(&dir).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(SpokenDigits::open(&folder.path().join("none")).is_err());
    }

    #[test]
    fn some_items_are_spread_over_all() {
        let items: Vec<usize> = (0..10).collect();
        assert_eq!(spread(&items, 4), [0, 2, 5, 7]);
        assert_eq!(spread(&items, 10), items);
        assert_eq!(spread(&items, usize::MAX), items);
        assert_eq!(spread(&items, 1), [0]);
        assert!(spread(&items, 0).is_empty() && spread::<usize>(&[], 3).is_empty());
    }
}
