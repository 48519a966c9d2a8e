//! Sounds, read from WAV files and judged.

mod judge;
mod wav;

use crate::{
    Options,
    book::{Book, some_of},
    subject::{Content, Subject},
};
use aigc_core::{
    DataFault, Error, Result,
    burn::tensor::{Tensor, TensorData},
    eval::{
        FeatureExtractor, FeatureStatistics, Features,
        audio::{LogMel, LogMelConfig},
    },
    rng::Rng,
};
use aigc_examples::Progress;
use judge::Judged;
use std::path::{Path, PathBuf};
use wav::Clip;

/// Sounds with their features; there is at least one.
struct Sounds {
    name: String,
    clips: Vec<Clip>,
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
    let log_mel = LogMel::new(LogMelConfig::new(rate))?;
    let read = |path: &Path, book: &mut Book| -> Result<Sounds> {
        let files = Content::Sounds.files(path)?;
        let progress = Progress::new("reading sounds", files.len(), book.stop());
        let mut found = Sounds {
            name: path.display().to_string(),
            clips: vec![],
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
            let clip = wav::read(file).and_then(|clip| {
                if clip.rate != rate {
                    let reason = format!("{} Hz, where the data has {rate} Hz", clip.rate);
                    return Err(Error::data(file, DataFault::Mismatch(reason)));
                }
                let data = TensorData::new(clip.samples.clone(), [1, 1, clip.samples.len()]);
                let features = log_mel.extract(Tensor::<3>::from_data(data, &device))?;
                Ok((clip, Features::from_tensor(&features)?))
            });
            match clip {
                Ok((clip, features)) => {
                    found.features.append(&features)?;
                    found.clips.push(clip);
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
            Some(first) if found.clips.is_empty() => {
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
    let n = samples.clips.len();
    book.fact(
        "Subject",
        format!("{}, {n} sounds at {rate} Hz", path.display()),
    );
    book.fact(
        "Reference",
        format!("{} ({})", train.name, train.clips.len()),
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
        match wav::read(&file) {
            Ok(clip) => return Ok(clip.rate),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.unwrap_or_else(|| Error::data(path, DataFault::Empty("no sound in it".into()))))
}

impl Sounds {
    fn select(&self, rows: &[usize], name: String) -> Self {
        Self {
            name,
            clips: rows.iter().map(|row| self.clips[*row].clone()).collect(),
            names: rows.iter().map(|row| self.names[*row].clone()).collect(),
            files: rows.iter().map(|row| self.files[*row].clone()).collect(),
            features: self.features.select(rows),
        }
    }

    /// Holds out a tenth, always the same; nothing of fewer than ten sounds.
    fn split(self) -> (Self, Option<Self>) {
        let n = self.clips.len();
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
        let n = self.clips.len();
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
