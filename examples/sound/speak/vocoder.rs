//! From spectra to sound: a vocoder, trained on the recordings of the voice.

use crate::{
    VocoderKind,
    data::Recordings,
    stage::{Prepared, Settings, Stage},
};
use aigc_core::{
    Error, Result,
    audio::{Vocoder, Waveform},
    burn::tensor::Device,
    checkpoint::RunDir,
    data::{
        DataLoader, DataLoaderConfig, Dataset,
        sound::{Sound, SoundBatch, collate_sounds},
    },
    dsp::{GriffinLim, GriffinLimConfig, MelConfig},
    rng::Rng,
    train::{LrSchedule, Objective, OptimizerConfig, TrainerConfig},
};
use aigc_examples::{outln, unless_stopped};
use aigc_examples_sound::{SpokenDigit, model_type, reported, spread};
use aigc_gan::{
    Gan,
    vocoder::{
        MagnitudeLossConfig, MagnitudeObjective, MagnitudeVocoder, MagnitudeVocoderConfig,
        NsfHifiGan, NsfHifiGanConfig, VocoderMetrics, VocoderObjective, VocoderObjectiveConfig,
        WaveDiscriminators, WaveDiscriminatorsConfig,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use std::path::PathBuf;

/// Directory of the training in the run.
pub(crate) const NAME: &str = "vocoder";

/// Steps of a HiFi-GAN.
const NSF_STEPS: usize = 10_000;

/// Steps of a network of magnitudes.
const MAGNITUDE_STEPS: usize = 4_000;

/// Share of the steps after which discriminators of a HiFi-GAN begin: spectra alone come close
/// sooner.
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
    Magnitude(Box<MagnitudeVocoder>),
    Nsf(Box<NsfHifiGan>),
    GriffinLim(Box<GriffinLim>),
}

impl MelVocoder {
    /// The vocoder of a run for these spectra, with the directories of its weights: Griffin-Lim if
    /// `kind` is that, or if it is `None` and the run has no trained vocoder; else the trained one.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `kind` is not that of the trained vocoder; errors of opening
    /// it, and of [`GriffinLimConfig::init`].
    pub(crate) fn of_run(
        run: &RunDir,
        kind: Option<VocoderKind>,
        mel: &MelConfig,
        device: &Device,
    ) -> Result<(Self, Vec<PathBuf>)> {
        let folder = run.path().join(NAME).join("final");
        let found = match folder.is_dir() {
            false => VocoderKind::GriffinLim,
            true => match model_type(&folder)?.as_deref() {
                Some(MagnitudeVocoderConfig::MODEL_TYPE) => VocoderKind::Magnitude,
                _ => VocoderKind::Nsf,
            },
        };
        if kind.unwrap_or(found) == VocoderKind::GriffinLim {
            let vocoder = GriffinLimConfig::new(*mel).init()?;
            return Ok((Self::GriffinLim(Box::new(vocoder)), vec![]));
        }
        if let Some(kind) = kind.filter(|kind| *kind != found) {
            let expected = match found {
                VocoderKind::GriffinLim => "griffin-lim; the run has no trained vocoder".to_owned(),
                found => format!("{}, the vocoder of the run, or griffin-lim", found.name()),
            };
            return Err(Error::argument("--vocoder", kind.name(), expected));
        }
        let vocoder = match found {
            VocoderKind::Magnitude => {
                let vocoder = MagnitudeVocoder::from_pretrained(&folder, device)?;
                Self::Magnitude(Box::new(reported(vocoder)))
            }
            _ => Self::Nsf(Box::new(reported(NsfHifiGan::from_pretrained(
                &folder, device,
            )?))),
        };
        Ok((vocoder, vec![folder]))
    }

    pub(crate) fn as_dyn(&self) -> &dyn Vocoder {
        match self {
            Self::Magnitude(vocoder) => &**vocoder,
            Self::Nsf(vocoder) => &**vocoder,
            Self::GriffinLim(vocoder) => &**vocoder,
        }
    }

    pub(crate) fn kind(&self) -> VocoderKind {
        match self {
            Self::Magnitude(_) => VocoderKind::Magnitude,
            Self::Nsf(_) => VocoderKind::Nsf,
            Self::GriffinLim(_) => VocoderKind::GriffinLim,
        }
    }
}

impl VocoderKind {
    /// Time limit of all trainings of a voice in minutes, and the share of the vocoder in it.
    pub(crate) fn limits(self) -> (f64, f64) {
        match self {
            Self::Magnitude => (20.0, 0.3),
            Self::Nsf => (30.0, 0.5),
            Self::GriffinLim => (15.0, 0.0),
        }
    }

    /// Whether the sound of the first frames can be made without those behind them.
    pub(crate) fn can_stream(self) -> bool {
        self == Self::Nsf
    }
}

/// Trains the vocoder `kind` of the spectra `mel` in the directory [`NAME`] of the run, and prints
/// how far its sound is from that of held-out recordings. Griffin-Lim has no training.
///
/// # Errors
/// [`Error::Config`] naming the first field in which the spectra of the vocoder are others;
/// [`Error::Cancelled`] if training was interrupted; errors of training.
pub(crate) fn train(
    stage: &Stage<'_>,
    recordings: &Recordings,
    mel: &MelConfig,
    kind: VocoderKind,
) -> Result<MelVocoder> {
    let training = Training {
        stage,
        recordings,
        mel,
    };
    let (minutes, share) = kind.limits();
    let of = |steps, learning_rate| TrainerConfig {
        seed: stage.seed,
        max_minutes: Some(share * minutes),
        learning_rate,
        lr_schedule: LrSchedule {
            min_lr_ratio: 0.05,
            ..LrSchedule::cosine(100)
        },
        eval_steps: 1000,
        ..TrainerConfig::new(steps)
    };
    match kind {
        VocoderKind::GriffinLim => {
            let vocoder = GriffinLimConfig::new(*mel).init()?;
            Ok(MelVocoder::GriffinLim(Box::new(vocoder)))
        }
        VocoderKind::Magnitude => {
            let given = Settings {
                model: MagnitudeVocoderConfig::speech_8khz(),
                trainer: TrainerConfig {
                    optimizer: OptimizerConfig::adam_w(0.9, 0.99, 0.01),
                    max_grad_norm: Some(1.0),
                    ..of(MAGNITUDE_STEPS, 1e-3)
                },
                objective: MagnitudeLossConfig::default(),
            };
            mel.check_same(&given.model.mel_config)?;
            let prepared = stage.prepare(NAME, share, given)?;
            let settings = &prepared.settings;
            let vocoder = settings.model.init(stage.device)?;
            let vocoder = vocoder.with_statistics_of(waves(&recordings.train))?;
            let losses = settings.objective.clone();
            let objective = MagnitudeObjective::<SoundBatch>::new(losses, &vocoder)?;
            let trained = training.run(&prepared, objective, vocoder, |vocoder| vocoder)?;
            Ok(MelVocoder::Magnitude(Box::new(trained)))
        }
        VocoderKind::Nsf => {
            let steps = stage.options.steps.unwrap_or(NSF_STEPS);
            let critics_from = (CRITICS * steps as f64) as usize;
            let given = Settings {
                model: NsfHifiGanConfig::speech_8khz(),
                trainer: TrainerConfig {
                    optimizer: OptimizerConfig::adam_w(0.8, 0.99, 0.01),
                    ..of(NSF_STEPS, 2e-3)
                },
                objective: VocoderObjectiveConfig::speech_8khz(critics_from),
            };
            mel.check_same(&given.model.mel_config)?;
            let prepared = stage.prepare(NAME, share, given)?;
            let settings = &prepared.settings;
            let generator = settings.model.init(stage.device)?;
            let model = Gan {
                generator: generator.with_statistics_of(waves(&recordings.train))?,
                discriminator: WaveDiscriminatorsConfig::light().init(stage.device)?,
            };
            let losses = settings.objective.clone();
            let objective =
                VocoderObjective::<_, WaveDiscriminators, SoundBatch>::new(losses, &model)?;
            let trained = training.run(&prepared, objective, model, |model| &model.generator)?;
            Ok(MelVocoder::Nsf(Box::new(trained.generator)))
        }
    }
}

/// What trainings of vocoders have in common.
struct Training<'a> {
    stage: &'a Stage<'a>,
    recordings: &'a Recordings,
    mel: &'a MelConfig,
}

impl Training<'_> {
    /// Trains a model, of which `vocoder` is one.
    fn run<O, V, C, L>(
        &self,
        prepared: &Prepared<C, L>,
        objective: O,
        model: O::Model,
        vocoder: fn(&O::Model) -> &V,
    ) -> Result<O::Model>
    where
        O: Objective<Batch = SoundBatch>,
        V: Vocoder + 'static,
        C: Serialize + DeserializeOwned,
        L: Serialize + DeserializeOwned,
    {
        let (stage, device, stop) = (self.stage, self.stage.device, self.stage.stop);
        self.mel.check_same(vocoder(&model).mel_config())?;
        let stretches = Stretches {
            waves: waves(&self.recordings.train).cloned().collect(),
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
        let held_out = held_out(&self.recordings.test);
        let metrics = VocoderMetrics::new(*self.mel)?;
        let trained = stage
            .trainer(prepared)?
            .with_evaluation(|model: &O::Model| {
                unless_stopped(stop, || {
                    if held_out.is_empty() {
                        return Ok(vec![]);
                    }
                    let found = metrics.evaluate(vocoder(model), &held_out, device)?;
                    Ok(vec![
                        ("mel".to_owned(), found.mel),
                        ("stft".to_owned(), found.stft),
                    ])
                })
            })
            .fit(objective, model, &loader, &prepared.run)?;
        let trained = stage.finished("the vocoder", trained)?;
        if !held_out.is_empty() {
            let floor = GriffinLimConfig::new(*self.mel).init()?;
            let floor = metrics.evaluate(&floor, &held_out, device)?;
            let found = metrics.evaluate(vocoder(&trained), &held_out, device)?;
            outln!(
                "{} held-out recordings, resynthesised: spectral distance {:.3}, by Griffin-Lim \
                 {:.3}",
                held_out.len(),
                found.stft,
                floor.stft
            );
        }
        Ok(trained)
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
