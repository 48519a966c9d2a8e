//! A directory of sounds.

use super::Sound;
use crate::{
    DataFault, Error, Result,
    audio::{Waveform, read_audio},
    check::{ensure, in_range, positive},
    data::{
        Dataset, entries,
        listing::{files_below, is_hidden},
    },
    rng::Rng,
};
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// File extensions of sounds.
const EXTENSIONS: [&str; 9] = [
    "wav", "wave", "flac", "mp3", "ogg", "oga", "aif", "aiff", "aifc",
];

/// Ends of the names of archives, and the commands that unpack them.
const ARCHIVES: [(&str, &str, &str); 3] = [
    (".tar.gz", "tar -xzf", "-C"),
    (".tgz", "tar -xzf", "-C"),
    (".zip", "unzip", "-d"),
];

/// Longest clip, in samples.
const MAX_LENGTH: usize = 1 << 28;

/// How to read a directory of sounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WaveFolderConfig {
    /// Samples per second that all sounds are resampled to; `None` keeps the rate of the files,
    /// which is then the same for all.
    pub sample_rate: Option<u32>,
    /// 1 for the mean of all channels, 2 for stereo; `None` for 1.
    pub channels: Option<usize>,
    /// Number of samples of each sound: longer ones are cut, shorter ones padded with silence at
    /// the end. `None` keeps all lengths.
    pub length: Option<usize>,
    /// Trims silence at both ends: parts that are this number of decibels below the loudest frame.
    /// A file of which nothing is left is an error when it is read.
    pub trim_silence: Option<f64>,
    /// Scales each sound so that its largest magnitude is this, in 0 to 1, before it is cut; `None`
    /// keeps the volumes of the files. Networks learn quiet recordings slowly without it.
    pub normalize_peak: Option<f32>,
    /// Seed of the places that longer sounds are cut at in training, another one in each epoch;
    /// `None` cuts the middle out. Outside training, the middle is used.
    pub crop_seed: Option<u64>,
}

impl WaveFolderConfig {
    /// Fails if a value is out of range.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn validate(&self) -> Result<()> {
        if let Some(rate) = self.sample_rate {
            in_range("sample_rate", rate, 1..=768_000)?;
        }
        if let Some(channels) = self.channels {
            ensure(matches!(channels, 1 | 2), "channels", channels, "1 or 2")?;
        }
        if let Some(length) = self.length {
            in_range("length", length, 1..=MAX_LENGTH)?;
        }
        if let Some(peak) = self.normalize_peak {
            let is_volume = peak > 0.0 && peak <= 1.0;
            ensure(is_volume, "normalize_peak", peak, "above 0, and at most 1")?;
        }
        self.trim_silence
            .map_or(Ok(()), |threshold| positive("trim_silence", threshold))
    }
}

/// Sounds of a directory and its subdirectories, decoded when they are read.
///
/// A file is a sound if its name ends like that of one. Hidden files and directories, whose names
/// begin with a dot, are skipped. Links to directories are followed, each directory once. Formats
/// other than WAV need the feature `audio-files`.
#[derive(Clone, Debug)]
pub struct WaveFolder {
    config: WaveFolderConfig,
    files: Vec<(PathBuf, Option<u32>)>,
    /// The first file and its rate, with which others are compared unless they are resampled.
    rate: OnceLock<(PathBuf, u32)>,
}

impl WaveFolder {
    /// Lists the sounds under `dir` in the order of their names.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is out of range, [`Error::Io`] if a directory cannot
    /// be read, [`Error::Data`] if there is no sound. If there is an archive in place of sounds, it
    /// is named, with the command that unpacks it.
    pub fn open(dir: &Path, config: WaveFolderConfig) -> Result<Self> {
        config.validate()?;
        let files = files_below(dir, &EXTENSIONS)?;
        if files.is_empty() {
            let known = EXTENSIONS.join(", ");
            let what = match unpacking(dir)? {
                Some(hint) => format!("no sound in it, but {hint}"),
                None => format!("no sound in it (known extensions: {known})"),
            };
            return Err(Error::data(dir, DataFault::Empty(what)));
        }
        Ok(Self {
            config,
            files: files.into_iter().map(|path| (path, None)).collect(),
            rate: OnceLock::new(),
        })
    }

    /// Sets the class of each sound by its path.
    ///
    /// # Errors
    /// [`Error::Data`] naming the first file that `label` gives no class.
    pub fn with_label(mut self, label: impl Fn(&Path) -> Option<u32>) -> Result<Self> {
        for (path, class) in &mut self.files {
            *class = label(path);
            if class.is_none() {
                let reason = "its name has no label of the expected form";
                return Err(Error::data(&*path, DataFault::Mismatch(reason.into())));
            }
        }
        Ok(self)
    }

    /// Keeps the files that `keep` is true for, such as those of a split or a speaker.
    ///
    /// # Errors
    /// [`Error::Config`] if none is left.
    pub fn filter(mut self, keep: impl Fn(&Path) -> bool) -> Result<Self> {
        self.files.retain(|(path, _)| keep(path));
        ensure(
            !self.files.is_empty(),
            "files",
            "empty after the filter",
            "at least one file",
        )?;
        self.rate = OnceLock::new();
        Ok(self)
    }

    /// The files in order.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// The configuration.
    pub fn config(&self) -> &WaveFolderConfig {
        &self.config
    }

    /// Reads a sound; `crop` chooses the first sample that is kept, given the number of choices.
    ///
    /// # Errors
    /// Those of [`read_audio`]; [`Error::Data`] if there are no samples, or if the rate is not that
    /// of the first file and sounds are not resampled.
    fn read(&self, index: usize, crop: impl FnOnce(usize) -> usize) -> Result<Sound> {
        let (path, label) = &self.files[index];
        let mut wave = read_audio(path)?;
        wave = match self.config.channels {
            Some(2) => wave.to_stereo(),
            _ => wave.to_mono(),
        };
        match self.config.sample_rate {
            Some(rate) if rate != wave.sample_rate() => wave = wave.resample(rate)?,
            Some(_) => {}
            None => self.check_rate(path, wave.sample_rate())?,
        }
        if let Some(threshold) = self.config.trim_silence {
            wave = wave.trim_silence(threshold);
        }
        let mut len = wave.len();
        if len == 0 {
            let reason = match self.config.trim_silence {
                Some(_) => "no samples, or silence alone, which `trim_silence` removes",
                None => "no samples",
            };
            return Err(Error::data(path, DataFault::Empty(reason.into())));
        }
        if let Some(peak) = self.config.normalize_peak {
            wave = wave.normalize_peak(peak);
        }
        if let Some(length) = self.config.length {
            if len > length {
                wave = wave.slice(crop(len - length + 1), length)?;
            }
            len = len.min(length);
            wave = pad(wave, length)?;
        }
        Ok(Sound {
            wave,
            len,
            label: *label,
        })
    }
}

impl WaveFolder {
    /// Fails unless a file has the rate of the first one: sounds of a batch have one rate.
    fn check_rate(&self, path: &Path, rate: u32) -> Result<()> {
        // Of the first file that can be read: loaders may leave out those that cannot.
        let (first, expected) = self.rate.get_or_init(|| {
            let mut files = self.files.iter().map(|(path, _)| path);
            let found = files.find_map(|file| Some((file, read_audio(file).ok()?.sample_rate())));
            found.map_or((path.into(), rate), |(file, rate)| (file.clone(), rate))
        });
        if *expected == rate {
            return Ok(());
        }
        let reason = format!(
            "{rate} Hz, and {} {expected} Hz; set `sample_rate`, to which all are resampled",
            first.display()
        );
        Err(Error::data(path, DataFault::Mismatch(reason)))
    }
}

impl Dataset for WaveFolder {
    type Item = Sound;

    fn len(&self) -> usize {
        self.files.len()
    }

    fn get(&self, index: usize) -> Result<Sound> {
        self.read(index, |choices| (choices - 1) / 2)
    }

    fn get_in_epoch(&self, index: usize, epoch: usize) -> Result<Sound> {
        let Some(seed) = self.config.crop_seed else {
            return self.get(index);
        };
        let stream = (epoch as u64)
            .wrapping_mul(self.files.len() as u64)
            .wrapping_add(index as u64);
        let mut rng = Rng::stream(seed, "data/sound/crop", stream);
        self.read(index, |choices| rng.random_index(choices))
    }
}

/// Silence at the end, up to a length.
fn pad(wave: Waveform, length: usize) -> Result<Waveform> {
    let (rate, mut channels) = (wave.sample_rate(), wave.into_channels());
    for channel in &mut channels {
        channel.resize(length, 0.0);
    }
    Waveform::new(channels, rate)
}

/// The first archive in a directory, and how to unpack it.
fn unpacking(dir: &Path) -> Result<Option<String>> {
    Ok(entries(dir)?.into_iter().find_map(|path| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        let lower = name.to_lowercase();
        let (_, command, into) = ARCHIVES.iter().find(|(end, ..)| lower.ends_with(end))?;
        let is_archive = path.is_file() && !is_hidden(&path);
        is_archive.then(|| {
            format!(
                "the archive {name}; unpack it: {command} \"{}\" {into} \"{}\"",
                path.display(),
                dir.display()
            )
        })
    }))
}
