//! What a classifier reads in sounds, and scores of sets of sounds by it.

use crate::{
    classifier::run_name,
    fsdd::{BATCH, Fsdd, Label, RATE, Record},
    measures::{CONFIDENCE, Measure, ROUNDS},
    runs::given_or_newest,
};
use aigc_core::{
    DataFault, Error, Result,
    audio::Waveform,
    burn::tensor::Device,
    data::sound::{Sound, collate_sounds},
    eval::{
        FeatureStatistics, Features, Proportion, centred_bootstrap, frechet_interval,
        sound_classifier::{
            ClassifierScores, SoundClassifier, SoundReadings, am_score, modified_inception_score,
            split_inception_score,
        },
    },
    json,
    rng::Rng,
};
use aigc_examples_sound::reported;
use serde::Deserialize;
use std::path::Path;

/// A trained classifier.
#[derive(Debug)]
pub(crate) struct Reader {
    classifier: SoundClassifier,
    device: Device,
}

impl Reader {
    /// Opens the classifier in a directory, or that of the newest run with this label.
    ///
    /// # Errors
    /// [`Error::Run`] if there is no run, or its training has not ended; [`Error::Config`] if the
    /// classifier has another number of classes or another sample rate; [`Error::Data`] if its
    /// classes are other speakers; errors of opening it.
    pub(crate) fn open(
        dir: Option<&Path>,
        label: Label,
        fsdd: &Fsdd,
        device: &Device,
    ) -> Result<Self> {
        let dir = given_or_newest(dir, run_name(label), "final")?;
        if label == Label::Speaker {
            check_speakers(&dir, &fsdd.record().speakers)?;
        }
        let classifier = reported(SoundClassifier::from_pretrained(&dir, device)?);
        let (config, classes) = (classifier.config(), fsdd.classes(label));
        if config.num_classes != classes {
            let expected = format!("{classes}, the classes of the recordings");
            return Err(Error::config("num_classes", config.num_classes, expected));
        }
        if config.mel.sample_rate != RATE {
            let rate = config.mel.sample_rate;
            return Err(Error::config("mel.sample_rate", rate, RATE.to_string()));
        }
        Ok(Self {
            classifier,
            device: device.clone(),
        })
    }

    /// A classifier that has just been trained.
    pub(crate) fn new(classifier: SoundClassifier, device: &Device) -> Self {
        Self {
            classifier,
            device: device.clone(),
        }
    }

    /// Reads sounds, which are padded with silence.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] without sounds.
    pub(crate) fn read(&self, waves: &[Waveform]) -> Result<SoundReadings> {
        let sound = |wave: &Waveform| Sound {
            wave: wave.clone(),
            len: wave.len(),
            label: None,
        };
        let batches = waves
            .chunks(BATCH)
            .map(|part| Ok::<_, Error>(collate_sounds(part.iter().map(sound).collect())));
        self.classifier.read(batches, &self.device)
    }
}

/// Fails if the run of the classifier in `dir` has recorded other speakers: the same number of
/// classes would then have other names. A directory outside of a run has no names.
fn check_speakers(dir: &Path, speakers: &[String]) -> Result<()> {
    #[derive(Deserialize)]
    struct Saved {
        data: Record,
    }
    let Some(path) = dir.parent().map(|run| run.join("config.json")) else {
        return Ok(());
    };
    let read = |text: &str| serde_json::from_str::<Saved>(text).map_err(Error::other);
    match json::read_file(&path, read) {
        Ok(Saved { data }) if data.speakers != speakers => {
            let (theirs, ours) = (data.speakers.join(", "), speakers.join(", "));
            let reason =
                format!("a classifier of the speakers {theirs}; the recordings have {ours}");
            Err(Error::data(&path, DataFault::Mismatch(reason)))
        }
        _ => Ok(()),
    }
}

/// The share of sounds that are read as expected.
///
/// # Errors
/// [`Error::InvalidArgument`] without sounds.
pub(crate) fn right(readings: &SoundReadings, expected: &[u32]) -> Result<Proportion> {
    let pairs = readings.predictions().into_iter().zip(expected);
    let count = pairs.filter(|(read, expected)| read == *expected).count();
    Proportion::new(count, expected.len())
}

/// The share of the most frequent class, which a guess without listening has.
pub(crate) fn largest_share(classes: &[u32]) -> f64 {
    let count = |class: &u32| classes.iter().filter(|other| *other == class).count();
    let largest = classes.iter().map(count).max().unwrap_or(0);
    largest as f64 / classes.len().max(1) as f64
}

/// Names of the four scores.
const SCORES: [&str; 4] = [
    "Fréchet distance of the classifier's features",
    "IS",
    "mIS",
    "AM",
];
/// Index of the inception score.
pub(crate) const INCEPTION: usize = 1;

/// Fréchet distance, IS, mIS and AM of a set of sounds beside real ones, with bootstrap intervals.
///
/// # Errors
/// As [`ClassifierScores::new`].
pub(crate) fn scores(
    set: &str,
    real: &SoundReadings,
    found: &SoundReadings,
    seed: u64,
) -> Result<[Measure; 4]> {
    let scores = ClassifierScores::new(real, found, seed)?;
    let mut statistics = FeatureStatistics::new(real.features.width())?;
    statistics.add_features(&real.features)?;
    let moments = statistics.moments()?;
    let mut rng = Rng::stream(seed, "scores", 0);
    let features = &found.features;
    let rounds = ROUNDS / 4;
    let frechet = frechet_interval(&moments, features, rounds, CONFIDENCE, &mut rng, |_| Ok(()))?;
    let count = found.logits.len();
    let mut interval = |statistic: &dyn Fn(&Features) -> Result<f64>| {
        centred_bootstrap(count, ROUNDS, CONFIDENCE, &mut rng, |items| {
            statistic(&found.logits.select(items))
        })
    };
    let inception = interval(&|logits| split_inception_score(logits, seed))?;
    let modified = interval(&modified_inception_score)?;
    let am = interval(&|logits| am_score(&real.logits, logits))?;
    let values = [
        (scores.frechet, frechet),
        (scores.inception, inception),
        (scores.modified_inception, modified),
        (scores.am, am),
    ];
    Ok(std::array::from_fn(|index| {
        let (value, interval) = values[index];
        Measure::new(format!("{}, {set}", SCORES[index]), value, count).with_interval(interval)
    }))
}
