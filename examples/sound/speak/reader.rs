//! Which digit is heard: a classifier trained on the recordings of the voice.

use crate::{
    data::{DIGITS, Recordings, sounds},
    stage::{Settings, Stage},
};
use aigc_core::{
    Result,
    audio::Waveform,
    burn::tensor::Device,
    data::{
        DataLoader, DataLoaderConfig, InMemory, SampleBatch,
        sound::{Sound, collate_sounds},
    },
    eval::{
        Proportion,
        sound_classifier::{
            SoundAugmentation, SoundClassifier, SoundClassifierConfig, SoundClassifierObjective,
        },
    },
    train::{LrSchedule, TrainerConfig},
};
use aigc_examples::{RunOptions, unless_stopped};

/// Directory of the training in the run.
pub(crate) const NAME: &str = "reader";

/// Share of the time limit.
pub(crate) const SHARE: f64 = 0.1;

const STEPS: usize = 600;
const BATCH: usize = 32;

/// Recordings that are read at once.
const PART: usize = 100;

/// Trains the reader in the directory [`NAME`] of the run.
///
/// # Errors
/// [`Error::Cancelled`](aigc_core::Error::Cancelled) if training was interrupted; errors of
/// training.
pub(crate) fn train(
    stage: &Stage<'_>,
    recordings: &Recordings,
    sample_rate: u32,
    minutes: f64,
) -> Result<SoundClassifier> {
    let (device, stop) = (stage.device, stage.stop);
    let options = RunOptions {
        steps: stage.options.steps.map(|steps| steps.min(STEPS)),
        ..stage.options.clone()
    };
    let stage = &Stage {
        options: &options,
        ..*stage
    };
    let given = Settings {
        model: SoundClassifierConfig::new(sample_rate, DIGITS.len()),
        trainer: TrainerConfig {
            seed: stage.seed,
            max_minutes: Some(SHARE * minutes),
            learning_rate: 2e-3,
            lr_schedule: LrSchedule::cosine(50),
            ..TrainerConfig::new(STEPS)
        },
        objective: SoundAugmentation::default(),
    };
    let prepared = stage.prepare(NAME, SHARE, given)?;
    let settings = &prepared.settings;
    let loader = DataLoader::new(
        InMemory(sounds(&recordings.train)),
        collate_sounds,
        DataLoaderConfig {
            batch_size: BATCH,
            shuffle_seed: Some(stage.seed),
            ..DataLoaderConfig::default()
        },
    )?;
    let objective = SoundClassifierObjective::new().with_augmentation(settings.objective)?;
    let trained = stage
        .trainer(&prepared)?
        .with_evaluation(|reader: &SoundClassifier| {
            unless_stopped(stop, || {
                let right = accuracy(reader, recordings, device)?;
                Ok(vec![("accuracy".to_owned(), right.value())])
            })
        })
        .fit(
            objective,
            settings.model.init(device)?,
            &loader,
            &prepared.run,
        )?;
    stage.finished("the reader", trained)
}

/// The held-out recordings that are read right.
///
/// # Errors
/// As [`SoundClassifier::read`].
pub(crate) fn accuracy(
    reader: &SoundClassifier,
    recordings: &Recordings,
    device: &Device,
) -> Result<Proportion> {
    let mut right = 0;
    for part in recordings.test.chunks(PART) {
        let batch = collate_sounds(sounds(part));
        let labels = batch.labels().unwrap_or_default().to_vec();
        let found = reader.read([Ok(batch)], device)?.predictions();
        right += found.iter().zip(&labels).filter(|(a, b)| a == b).count();
    }
    Proportion::new(right, recordings.test.len())
}

/// The digits that are heard in sounds, at least one.
///
/// # Errors
/// As [`SoundClassifier::read`].
pub(crate) fn read(
    reader: &SoundClassifier,
    waves: Vec<Waveform>,
    device: &Device,
) -> Result<Vec<usize>> {
    let sound = |wave: Waveform| Sound {
        len: wave.len(),
        wave,
        label: None,
    };
    let batch = collate_sounds(waves.into_iter().map(sound).collect());
    let found = reader.read([Ok(batch)], device)?.predictions();
    Ok(found.into_iter().map(|digit| digit as usize).collect())
}
