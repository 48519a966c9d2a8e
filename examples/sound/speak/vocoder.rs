//! From spectra to sound: a HiFi-GAN with a harmonic source, trained on the recordings of the
//! voice.

use crate::{
    data::Recordings,
    stage::{Settings, Stage},
};
use aigc_core::{
    Result,
    audio::{Vocoder, Waveform},
    data::{
        DataLoader, DataLoaderConfig, Dataset,
        sound::{Sound, SoundBatch, collate_sounds},
    },
    dsp::{GriffinLim, GriffinLimConfig, MelConfig},
    rng::Rng,
    train::{LrSchedule, OptimizerConfig, TrainerConfig},
};
use aigc_examples::{outln, unless_stopped};
use aigc_examples_sound::{SpokenDigit, spread};
use aigc_gan::{
    Gan,
    vocoder::{
        NsfHifiGan, NsfHifiGanConfig, VocoderMetrics, VocoderObjective, VocoderObjectiveConfig,
        WaveDiscriminators, WaveDiscriminatorsConfig,
    },
};

/// Directory of the training in the run.
pub(crate) const NAME: &str = "vocoder";

/// Share of the time limit.
pub(crate) const SHARE: f64 = 0.5;

const STEPS: usize = 10_000;

/// Share of the steps after which discriminators begin: spectra alone come close sooner. On two
/// cores, the default time limit ends before it.
const CRITICS: f64 = 0.8;

/// Length of a stretch of sound, half a second.
const STRETCH: usize = 4000;

/// Most silence between recordings in a stretch, in samples, as in the training of the speaker.
const PAUSE: usize = 1600;

/// Held-out recordings that are resynthesised in evaluations, and the least length that their
/// spectra need.
const HELD_OUT: (usize, usize) = (30, 2048);

/// A vocoder of a voice.
#[derive(Debug)]
pub(crate) enum MelVocoder {
    Nsf(Box<NsfHifiGan>),
    GriffinLim(Box<GriffinLim>),
}

impl MelVocoder {
    /// The vocoder without training for these spectra.
    ///
    /// # Errors
    /// As [`GriffinLimConfig::init`].
    pub(crate) fn griffin_lim(mel: &MelConfig) -> Result<Self> {
        let vocoder = GriffinLimConfig::new(*mel).init()?;
        Ok(Self::GriffinLim(Box::new(vocoder)))
    }

    pub(crate) fn as_dyn(&self) -> &dyn Vocoder {
        match self {
            Self::Nsf(vocoder) => &**vocoder,
            Self::GriffinLim(vocoder) => &**vocoder,
        }
    }

    /// Name for records.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Nsf(_) => "nsf-hifigan",
            Self::GriffinLim(_) => "griffin-lim",
        }
    }
}

/// Trains the vocoder of the spectra `mel` in the directory [`NAME`] of the run, and prints how far
/// its sound is from that of held-out recordings.
///
/// # Errors
/// [`Error::Config`](aigc_core::Error::Config) naming the first field in which the spectra of the
/// vocoder are others; [`Error::Cancelled`](aigc_core::Error::Cancelled) if training was
/// interrupted; errors of training.
pub(crate) fn train(
    stage: &Stage<'_>,
    recordings: &Recordings,
    mel: &MelConfig,
    minutes: f64,
) -> Result<NsfHifiGan> {
    let (device, stop) = (stage.device, stage.stop);
    let steps = stage.options.steps.unwrap_or(STEPS);
    let given = Settings {
        model: NsfHifiGanConfig::speech_8khz(),
        trainer: trainer(stage.seed, SHARE * minutes),
        objective: VocoderObjectiveConfig::speech_8khz((CRITICS * steps as f64) as usize),
    };
    mel.check_same(&given.model.mel_config)?;
    let prepared = stage.prepare(NAME, SHARE, given)?;
    let settings = &prepared.settings;
    mel.check_same(&settings.model.mel_config)?;
    let model = Gan {
        generator: settings
            .model
            .init(device)?
            .with_statistics_of(waves(&recordings.train))?,
        discriminator: WaveDiscriminatorsConfig::light().init(device)?,
    };
    let stretches = Stretches {
        waves: waves(&recordings.train).cloned().collect(),
        seed: stage.seed,
    };
    let loader = DataLoader::new(
        stretches,
        collate_sounds,
        DataLoaderConfig {
            batch_size: (stage.data.batch / 2).max(1),
            shuffle_seed: Some(stage.seed),
            ..DataLoaderConfig::default()
        },
    )?;
    let objective = VocoderObjective::<NsfHifiGan, WaveDiscriminators, SoundBatch>::new(
        settings.objective.clone(),
        &model,
    )?;
    let held_out = held_out(&recordings.test);
    let metrics = VocoderMetrics::new(*mel)?;
    let trained = stage
        .trainer(&prepared)?
        .with_evaluation(|model: &Gan<NsfHifiGan, WaveDiscriminators>| {
            unless_stopped(stop, || {
                if held_out.is_empty() {
                    return Ok(vec![]);
                }
                let found = metrics.evaluate(&model.generator, &held_out, device)?;
                Ok(vec![
                    ("mel".to_owned(), found.mel),
                    ("stft".to_owned(), found.stft),
                ])
            })
        })
        .fit(objective, model, &loader, &prepared.run)?;
    let vocoder = stage.finished("the vocoder", trained)?.generator;
    if !held_out.is_empty() {
        let floor = GriffinLimConfig::new(*mel).init()?;
        let floor = metrics.evaluate(&floor, &held_out, device)?;
        let found = metrics.evaluate(&vocoder, &held_out, device)?;
        outln!(
            "{} held-out recordings, resynthesised: spectral distance {:.3}, by Griffin-Lim {:.3}",
            held_out.len(),
            found.stft,
            floor.stft
        );
    }
    Ok(vocoder)
}

fn trainer(seed: u64, minutes: f64) -> TrainerConfig {
    TrainerConfig {
        seed,
        max_minutes: Some(minutes),
        learning_rate: 2e-3,
        lr_schedule: LrSchedule {
            min_lr_ratio: 0.05,
            ..LrSchedule::cosine(100)
        },
        optimizer: OptimizerConfig::adam_w(0.8, 0.99, 0.01),
        eval_steps: 1000,
        ..TrainerConfig::new(STEPS)
    }
}

/// The sounds of recordings.
fn waves(recordings: &[SpokenDigit]) -> impl Iterator<Item = &Waveform> {
    recordings.iter().map(|recording| &recording.sound.wave)
}

/// Some held-out recordings, at equal distances, that are long enough for every spectrum.
fn held_out(test: &[SpokenDigit]) -> Vec<Waveform> {
    let (count, least) = HELD_OUT;
    let long: Vec<&Waveform> = waves(test).filter(|wave| wave.len() >= least).collect();
    spread(&long, count).into_iter().cloned().collect()
}

/// Stretches of one length: a recording, others behind it with silence between them as far as it is
/// too short, and out of them a part at a random place.
#[derive(Debug)]
struct Stretches {
    /// None is empty.
    waves: Vec<Waveform>,
    seed: u64,
}

impl Dataset for Stretches {
    type Item = Sound;

    fn len(&self) -> usize {
        self.waves.len()
    }

    fn get(&self, index: usize) -> Result<Sound> {
        self.get_in_epoch(index, 0)
    }

    fn get_in_epoch(&self, index: usize, epoch: usize) -> Result<Sound> {
        let draw = (epoch * self.len() + index) as u64;
        let mut rng = Rng::stream(self.seed, "stretches of sound", draw);
        let mut samples = self.waves[index].channel(0).to_vec();
        while samples.len() < STRETCH {
            let pause = rng.random_index(PAUSE + 1);
            samples.resize(samples.len() + pause, 0.0);
            let next = &self.waves[rng.random_index(self.waves.len())];
            samples.extend_from_slice(next.channel(0));
        }
        let start = rng.random_index(samples.len() - STRETCH + 1);
        let rate = self.waves[index].sample_rate();
        Ok(Sound {
            wave: Waveform::mono(samples[start..start + STRETCH].to_vec(), rate)?,
            len: STRETCH,
            label: None,
        })
    }
}
