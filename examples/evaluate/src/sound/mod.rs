//! Sounds, read from files and judged.

mod judge;

use crate::{
    Options,
    book::{Book, some_of},
    subject::{Content, Subject},
};
use aigc_core::{
    DataFault, Error, Result,
    audio::{Waveform, read_audio},
    eval::{FeatureExtractor, FeatureStatistics, Features, audio::LogMel},
    rng::Rng,
};
use aigc_examples::Progress;
use judge::Judged;
use std::path::{Path, PathBuf};

/// Seconds of a frame, and the root mean square below which it is silent (−60 dB).
const FRAME: f64 = 0.02;
const SILENCE: f64 = 1e-3;

/// What is kept of a sound; its samples are not, so that memory does not grow with its length.
#[derive(Clone, Copy)]
struct Sound {
    seconds: f64,
    /// The share of frames that are silent.
    silence: f64,
}

impl Sound {
    /// Of the first channel.
    fn of(wave: &Waveform) -> Self {
        let frame = ((FRAME * f64::from(wave.sample_rate())) as usize).max(1);
        let is_silent = |frame: &&[f32]| {
            let power: f64 = frame.iter().map(|x| f64::from(*x).powi(2)).sum();
            (power / frame.len() as f64).sqrt() < SILENCE
        };
        let frames = wave.channel(0).chunks(frame);
        let count = frames.len() as f64;
        Self {
            seconds: wave.seconds(),
            silence: frames.filter(is_silent).count() as f64 / count,
        }
    }
}

/// Sounds with their features; there is at least one.
struct Sounds {
    name: String,
    sounds: Vec<Sound>,
    names: Vec<String>,
    files: Vec<PathBuf>,
    features: Features,
}

/// Judges sounds.
pub(crate) fn evaluate(subject: &Subject, options: &Options, book: &mut Book) -> Result<()> {
    let path = match subject {
        Subject::Samples { path, .. } | Subject::Run { path, .. } => path,
    };
    let device = options.device()?;
    let rate = first_rate(&options.against)?;
    let log_mel = LogMel::with_sample_rate(rate)?;
    let read = |path: &Path, book: &mut Book| -> Result<Sounds> {
        let files = Content::Sounds.files(path)?;
        let progress = Progress::new("reading sounds", files.len(), book.stop());
        let mut found = Sounds {
            name: path.display().to_string(),
            sounds: vec![],
            names: vec![],
            files: vec![],
            features: Features::empty(log_mel.width())?,
        };
        let (mut broken, mut failed) = (Vec::new(), None);
        for file in &files {
            progress.add(1)?;
            let name = file
                .strip_prefix(path)
                .unwrap_or(file)
                .display()
                .to_string();
            let outcome = read_audio(file).and_then(|wave| {
                let (wave, found) = (wave.to_mono(), wave.sample_rate());
                if found != rate {
                    let reason = format!("{found} Hz, where the data has {rate} Hz");
                    return Err(Error::data(file, DataFault::Mismatch(reason)));
                }
                let features = log_mel.extract(wave.to_tensor(&device).unsqueeze::<3>())?;
                Ok((Sound::of(&wave), Features::from_tensor(&features)?))
            });
            match outcome {
                Ok((sound, features)) => {
                    found.features.append(&features)?;
                    found.sounds.push(sound);
                    found.names.push(name);
                    found.files.push(file.clone());
                }
                Err(error) => {
                    broken.push(name);
                    failed.get_or_insert(error);
                }
            }
        }
        match failed {
            Some(first) if found.sounds.is_empty() => {
                let reason = format!("none of its sounds can be used; the first: {first}");
                Err(Error::data(path, DataFault::Empty(reason)))
            }
            Some(first) => {
                book.warn(format!(
                    "{} of {} files in {} cannot be used and were skipped: {}. The first: {first}.",
                    broken.len(),
                    files.len(),
                    path.display(),
                    some_of(&broken)
                ));
                Ok(found)
            }
            None => Ok(found),
        }
    };
    let train = read(&options.against, book)?;
    let (train, held_out) = match &options.held_out {
        Some(path) => (train, Some(read(path, book)?)),
        None => train.split(),
    };
    let samples = read(path, book)?.drawn(options.samples, options.seed);
    let n = samples.sounds.len();
    book.fact(
        "Subject",
        format!("{}, {n} sounds at {rate} Hz", path.display()),
    );
    book.fact(
        "Reference",
        format!("{} ({})", train.name, train.sounds.len()),
    );
    book.fact("Seed", options.seed.to_string());
    if held_out.is_none() {
        book.warn(
            "There are no held-out sounds: values of real data and closest records are missing. \
             Give --held-out DATA.",
        );
    }
    if options.check {
        return Ok(());
    }
    let judged = Judged {
        samples,
        train,
        held_out,
        seed: options.seed,
    };
    judged.report(book)
}

/// The sample rate of the first file that can be read.
fn first_rate(path: &Path) -> Result<u32> {
    let mut failed = None;
    for file in Content::Sounds.files(path)? {
        match read_audio(&file) {
            Ok(wave) => return Ok(wave.sample_rate()),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.unwrap_or_else(|| Error::data(path, DataFault::Empty("no sound in it".into()))))
}

impl Sounds {
    fn select(&self, rows: &[usize], name: String) -> Self {
        Self {
            name,
            sounds: rows.iter().map(|row| self.sounds[*row]).collect(),
            names: rows.iter().map(|row| self.names[*row].clone()).collect(),
            files: rows.iter().map(|row| self.files[*row].clone()).collect(),
            features: self.features.select(rows),
        }
    }

    /// Holds out a tenth, always the same; nothing of fewer than ten sounds.
    fn split(self) -> (Self, Option<Self>) {
        let n = self.sounds.len();
        if n < 10 {
            return (self, None);
        }
        let mut order = Rng::stream(0, "held-out", 0).permutation(n);
        let held_out = order.split_off(n - n / 10);
        let train = self.select(&order, format!("{}, training sounds", self.name));
        let held_out = self.select(&held_out, format!("{}, held-out tenth", self.name));
        (train, Some(held_out))
    }

    /// At most `most` sounds, drawn at random.
    fn drawn(self, most: Option<u32>, seed: u64) -> Self {
        let n = self.sounds.len();
        match most.map(|most| most as usize).filter(|most| *most < n) {
            Some(most) => {
                let mut rows = Rng::stream(seed, "sounds", 0).permutation(n);
                rows.truncate(most);
                self.select(&rows, self.name.clone())
            }
            None => self,
        }
    }
}

fn statistics(features: &Features) -> Result<FeatureStatistics> {
    let mut statistics = FeatureStatistics::new(features.width())?;
    statistics.add_features(features)?;
    Ok(statistics)
}
