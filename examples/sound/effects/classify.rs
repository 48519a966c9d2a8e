//! The classifier that reads which kind a sound is.

use crate::{
    Args,
    model::{Description, Right, waves},
    spectra::{LENGTH, Part, SAMPLE_RATE},
};
use aigc_core::{
    CancelToken, Error, Result,
    audio::Waveform,
    burn::tensor::Device,
    checkpoint::RunDir,
    data::{
        DataLoader, DataLoaderConfig, Dataset, SampleBatch,
        effects::{EffectKind, Effects},
        sound::{Sound, collate_sounds},
    },
    dsp::GriffinLimConfig,
    eval::sound_classifier::{
        SoundAugmentation, SoundClassifier, SoundClassifierConfig, SoundClassifierObjective,
    },
    train::{LrSchedule, OptimizerConfig, StartFrom, StopReason, TrainerConfig},
};
use aigc_examples::{Progress, outln};
use aigc_examples_sound::{MelImages, collate_mels};
use serde::Deserialize;

/// Training steps of a new run.
const STEPS: usize = 300;
/// Directory of its training in a run.
const FOLDER: &str = "classifier";
/// Sounds that it learns from.
const CLIPS: usize = 2048;
/// Sounds of a batch in training, and in reading.
const BATCH: usize = 32;

/// The part of its `config.json` that is read.
#[derive(Deserialize)]
struct Saved {
    trainer: TrainerConfig,
}

/// Fails if `--classifier-steps` is given and is not the length that the classifier of `run` began
/// with.
///
/// # Errors
/// [`Error::InvalidArgument`]; errors of reading the settings of its training.
pub(crate) fn check(args: &Args, run: &RunDir) -> Result<()> {
    let dir = run.path().join(FOLDER);
    let Some(given) = args.classifier_steps else {
        return Ok(());
    };
    if !dir.join("config.json").is_file() {
        return Ok(());
    }
    let saved = RunDir::open(&dir)?.config::<Saved>()?.trainer.max_steps;
    if given as usize != saved {
        let expected = format!("{saved}, with which the run began");
        return Err(Error::argument("--classifier-steps", given, expected));
    }
    Ok(())
}

/// Trains the classifier in a directory of `run`; training that was interrupted goes on.
///
/// # Errors
/// [`Error::Cancelled`] if training was interrupted; errors of training.
pub(crate) fn fit(
    args: &Args,
    run: &RunDir,
    seed: u64,
    device: &Device,
    stop: &CancelToken,
) -> Result<SoundClassifier> {
    let dir = run.path().join(FOLDER);
    let (run, start) = match dir.join("config.json").is_file() {
        true => (RunDir::open(&dir)?, StartFrom::Resume),
        false => (RunDir::create(&dir)?, StartFrom::Fresh),
    };
    let steps = match (args.classifier_steps, start) {
        (Some(steps), _) => steps as usize,
        (None, StartFrom::Fresh) => STEPS,
        (None, _) => run.config::<Saved>()?.trainer.max_steps,
    };
    let config = SoundClassifierConfig::new(SAMPLE_RATE, EffectKind::ALL.len());
    let trainer = TrainerConfig {
        seed,
        learning_rate: 2e-3,
        lr_schedule: LrSchedule::cosine(20),
        optimizer: OptimizerConfig::adam(0.9, 0.99),
        max_grad_norm: Some(1.0),
        save_steps: 100,
        ..TrainerConfig::new(steps)
    };
    let effects = Effects::new(CLIPS, SAMPLE_RATE, Part::Classifier.seed(seed))?;
    let loader = DataLoaderConfig {
        batch_size: BATCH,
        shuffle_seed: Some(seed),
        ..DataLoaderConfig::default()
    };
    let loader = DataLoader::new(effects, collate_sounds, loader)?;
    let objective =
        SoundClassifierObjective::new().with_augmentation(SoundAugmentation::default())?;
    outln!("classifier of the kinds, in {}", run.path().display());
    let trained = args
        .run
        .trainer(trainer, stop.clone(), 10)
        .with_start(start)
        .with_model_config(&config)?
        .fit(objective, config.init(device)?, &loader, &run)?;
    if trained.stop_reason == StopReason::Interrupted || stop.is_cancelled() {
        return Err(Error::cancelled("training of the classifier"));
    }
    Ok(trained.model)
}

/// Reads effects that neither network has learned, as many of each kind as samples are evaluated:
/// as they are computed, and made of their spectra by Griffin-Lim.
///
/// # Errors
/// [`Error::Cancelled`] if `stop` is cancelled; errors of the classifier.
pub(crate) fn describe(
    args: &Args,
    images: &MelImages,
    classifier: &SoundClassifier,
    seed: u64,
    device: &Device,
    stop: &CancelToken,
) -> Result<Description> {
    let count = EffectKind::ALL.len() * args.eval_samples as usize;
    let effects = Effects::new(count, SAMPLE_RATE, Part::HeldOut.seed(seed))?;
    let progress = Progress::new("reading held-out effects", count, stop);
    let vocoder = GriffinLimConfig::new(images.config().mel_config).init()?;
    let mut found = [Right { count: 0, total: 0 }; 2];
    for first in (0..count).step_by(BATCH) {
        let part = first..(first + BATCH).min(count);
        let sounds: Vec<Sound> = part
            .clone()
            .map(|index| effects.get(index))
            .collect::<Result<_>>()?;
        let spectra: Vec<_> = sounds
            .iter()
            .map(|sound| images.image(sound))
            .collect::<Result<_>>()?;
        let spectra = collate_mels(spectra).to_tensor(device);
        let again = waves(images, spectra, LENGTH, &vocoder)?;
        let kinds: Vec<u32> = sounds.iter().filter_map(|sound| sound.label).collect();
        let plain = sounds.into_iter().map(|sound| sound.wave).collect();
        for (found, waves) in found.iter_mut().zip([plain, again]) {
            let right = read(classifier, &waves, &kinds, device)?;
            found.count += right.count;
            found.total += right.total;
        }
        progress.add(part.len())?;
    }
    let [held_out, from_spectra] = found;
    Ok(Description::new(*images.config(), held_out, from_spectra))
}

/// Number of sounds that the classifier reads as their requested kind; one kind for each sound.
///
/// # Errors
/// [`Error::InvalidArgument`] if there are no sounds, or one is not finite.
pub(crate) fn read(
    classifier: &SoundClassifier,
    waves: &[Waveform],
    kinds: &[u32],
    device: &Device,
) -> Result<Right> {
    let sound = |wave: &Waveform| Sound {
        wave: wave.clone(),
        len: wave.len(),
        label: None,
    };
    let batches = waves
        .chunks(BATCH)
        .map(|part| Ok(collate_sounds(part.iter().map(sound).collect())));
    let read = classifier.read(batches, device)?.predictions();
    let right = read.iter().zip(kinds).filter(|(read, kind)| read == kind);
    Ok(Right {
        count: right.count(),
        total: read.len(),
    })
}
