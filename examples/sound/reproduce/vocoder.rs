//! Training of a vocoder.

use crate::{
    fsdd::{CROP, DataOptions, Fsdd, Label, RATE, Split, SpokenDigit, one_of_each_digit, spoken},
    listen,
    measures::{Goal, Measure, Report},
    reader::{Reader, right},
    resynthesis::{Distances, griffin_lim, vocoder_mel},
    size::Size,
};
use aigc_core::{
    CancelToken, Error, Result,
    audio::{Vocoder, Waveform},
    burn::tensor::Device,
    checkpoint::RunDir,
    data::sound::SoundBatch,
    dsp::MelConfig,
    train::{LrSchedule, Objective, OptimizerConfig, TrainerConfig},
};
use aigc_examples::{Progress, RunOptions, after_training};
use aigc_examples_sound::{SoundGallery, Speed};
use aigc_gan::{
    Gan,
    vocoder::{
        MagnitudeLossConfig, MagnitudeObjective, VocoderGenerator, VocoderObjective,
        VocoderObjectiveConfig, WaveDiscriminators,
    },
};
use clap::{Args, ValueEnum};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// The generators of sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Network {
    /// Magnitudes of spectra; their angles are found by Griffin and Lim's algorithm.
    Magnitude,
    /// HiFi-GAN with a harmonic source of a predicted pitch.
    Nsf,
    /// A small HiFi-GAN with the published layers.
    HifiGan,
}

/// Options of `vocoder`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    data: DataOptions,
    /// Classifier of digits; by default that of the newest run.
    #[arg(long, value_name = "DIR")]
    classifier: Option<PathBuf>,
    /// The generator of sound; a resumed run needs the one that it began with.
    #[arg(long, value_enum, default_value = "magnitude")]
    network: Network,
    /// First step with discriminators, by default 8,000; not with --network magnitude, which has
    /// none.
    #[arg(long, value_name = "STEP")]
    critics_from: Option<usize>,
    /// Size of the networks.
    #[arg(long, value_enum, default_value = "full")]
    size: Size,
    /// Batch size.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Learning rate after warm-up; by default 0.002, of --network magnitude 0.001.
    #[arg(long)]
    rate: Option<f64>,
    /// Most test clips that are measured, at equal distances among all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    clips: Option<u32>,
    #[command(flatten)]
    run: RunOptions,
}

/// Name of the runs.
const NAME: &str = "sound-vocoder";
/// First step with discriminators by default.
const CRITICS_FROM: usize = 8_000;
/// Folder of the vocoder in a run.
const FOLDER: &str = "vocoder";

/// A training: a model, its objective with its configuration, and how to get the vocoder of it.
struct Training<O: Objective, L, C> {
    model: O::Model,
    model_config: C,
    objective: O,
    objective_config: L,
    /// What the vocoder reads.
    mel: MelConfig,
    /// Settings without those of options.
    trainer: TrainerConfig,
    finish: Finish<O::Model>,
}

/// Writes the vocoder of a trained model to a directory, and returns it as it runs fastest.
type Finish<M> = fn(M, &Path) -> Result<Box<dyn Vocoder>>;

pub(crate) fn run(options: &Options, stop: CancelToken) -> anyhow::Result<()> {
    let device = options.run.device()?;
    let fsdd = options.data.open()?;
    let training = spoken(&fsdd.clips(Split::Train)?)?;
    match options.network {
        Network::Magnitude => {
            if let Some(step) = options.critics_from {
                let expected = "left out: --network magnitude has no discriminators";
                return Err(Error::argument("--critics-from", step, expected).into());
            }
            let network = options.size.magnitude().init(&device)?;
            let network = network.with_statistics_of(&training)?;
            let losses = MagnitudeLossConfig::default();
            let training = Training {
                model_config: network.config().clone(),
                mel: *network.mel_config(),
                objective: MagnitudeObjective::<SoundBatch>::new(losses.clone(), &network)?,
                objective_config: losses,
                model: network,
                trainer: TrainerConfig {
                    learning_rate: 1e-3,
                    max_grad_norm: Some(1.0),
                    optimizer: OptimizerConfig::adam_w(0.9, 0.99, 0.01),
                    ..TrainerConfig::new(8_000)
                },
                finish: |network, dir| {
                    network.save_pretrained(dir)?;
                    Ok(Box::new(network))
                },
            };
            training.run(options, &fsdd, stop)
        }
        Network::Nsf => {
            let network = options.size.nsf().init(&device)?;
            let network = network.with_statistics_of(&training)?;
            let config = network.config().clone();
            let training = adversarial(options, network, config, |model, dir| {
                model.generator.save_pretrained(dir)?;
                Ok(Box::new(model.generator))
            });
            training?.run(options, &fsdd, stop)
        }
        Network::HifiGan => {
            let network = options.size.vocoder().init(&device)?;
            let network = network.with_statistics_of(&training)?;
            let config = network.config().clone();
            let training = adversarial(options, network, config, |model, dir| {
                model.generator.save_pretrained(dir)?;
                Ok(Box::new(model.generator.fold()))
            });
            training?.run(options, &fsdd, stop)
        }
    }
}

/// A generator of sound and the discriminators that it is trained against.
type Critics<G> = Gan<G, WaveDiscriminators>;

/// The training of a generator of sound.
fn adversarial<G: VocoderGenerator + 'static, C>(
    options: &Options,
    generator: G,
    model_config: C,
    finish: Finish<Critics<G>>,
) -> Result<Training<VocoderObjective<G, WaveDiscriminators, SoundBatch>, VocoderObjectiveConfig, C>>
{
    let critics_from = options.critics_from.unwrap_or(CRITICS_FROM);
    let losses = VocoderObjectiveConfig::speech_8khz(critics_from);
    let discriminators = options.size.discriminators();
    let model = Gan {
        generator,
        discriminator: discriminators.init(&options.run.device()?)?,
    };
    Ok(Training {
        objective: VocoderObjective::new(losses.clone(), &model)?,
        mel: *model.generator.mel_config(),
        model,
        model_config,
        objective_config: losses,
        trainer: TrainerConfig {
            learning_rate: 2e-3,
            optimizer: OptimizerConfig::adam_w(0.8, 0.99, 0.01),
            ..TrainerConfig::new(10_000)
        },
        finish,
    })
}

impl<O, L, C> Training<O, L, C>
where
    O: Objective<Batch = SoundBatch>,
    L: Serialize + DeserializeOwned,
    C: Serialize + DeserializeOwned,
{
    /// Trains and measures the vocoder.
    fn run(self, options: &Options, fsdd: &Fsdd, stop: CancelToken) -> anyhow::Result<()> {
        self.mel.check_same(&vocoder_mel())?;
        let (device, seed) = (options.run.device()?, options.run.seed);
        let reader = Reader::open(options.classifier.as_deref(), Label::Digit, fsdd, &device)?;
        let clips = fsdd.compared(options.clips)?;
        let trainer = options.run.config(TrainerConfig {
            seed,
            learning_rate: options.rate.unwrap_or(self.trainer.learning_rate),
            lr_schedule: LrSchedule::cosine(200),
            ..self.trainer
        })?;
        let loader = fsdd.loader(Label::Digit, CROP, options.batch as usize, seed)?;
        let run = options.run.run(NAME)?;
        let trained = options
            .run
            .trainer(trainer, stop.clone(), 50)
            .with_model_config(&self.model_config)?
            .with_objective_config(&self.objective_config)?
            .with_data_config(fsdd.record())?
            .fit(self.objective, self.model, &loader, &run)?;
        after_training(trained, &run, &stop, |trained| {
            let vocoder = (self.finish)(trained.model, &run.path().join(FOLDER))?;
            let report = Report::new(trained.step, trained.elapsed);
            let evaluation = Evaluation {
                reader: &reader,
                clips: &clips,
                device: &device,
                seed,
                stop: &stop,
            };
            Ok(evaluation.finish(&*vocoder, report, &run)?)
        })
    }
}

/// What the evaluation of a vocoder needs.
struct Evaluation<'a> {
    reader: &'a Reader,
    /// Test clips.
    clips: &'a [SpokenDigit],
    device: &'a Device,
    seed: u64,
    stop: &'a CancelToken,
}

impl Evaluation<'_> {
    fn finish(&self, vocoder: &dyn Vocoder, mut report: Report, run: &RunDir) -> Result<()> {
        let originals = spoken(self.clips)?;
        let count = originals.len();
        let progress = Progress::new("test clips", 2 * count, self.stop);
        let (again, speed) = self.vocode(vocoder, &originals, &progress)?;
        let floor = griffin_lim(*vocoder.mel_config(), &originals, &progress)?;
        drop(progress);
        let ours = Distances::new(&again, &originals, self.device)?;
        let theirs = Distances::new(&floor, &originals, self.device)?;
        let name = "multi-resolution STFT distance, of Griffin-Lim's";
        let ratio = Measure::ratio(name, &ours.stft, &theirs.stft, self.seed)?;
        report.push(ratio.with_floor(1.0).with_goal(Goal::AtMost(0.8)));
        for (name, ours, theirs) in [
            ("multi-resolution STFT distance", &ours.stft, &theirs.stft),
            ("mel distance", &ours.mel, &theirs.mel),
            ("SI-SNR, dB", &ours.si_snr, &theirs.si_snr),
            ("frames with another pitch", &ours.pitch, &theirs.pitch),
        ] {
            let mean = theirs.iter().sum::<f64>() / theirs.len() as f64;
            report.push(Measure::mean(name, ours)?.with_floor(mean));
        }
        let factor = Measure::new("real-time factor", speed.real_time_factor(), count);
        report.push(factor.with_goal(Goal::AtMost(0.05)));
        let digits: Vec<u32> = self.clips.iter().map(|clip| clip.digit).collect();
        let [ours, theirs, read] =
            [&again, &floor, &originals].map(|waves| right(&self.reader.read(waves)?, &digits));
        let measure = Measure::share("vocoded clips read rightly", &ours?);
        report.push(measure.with_floor(theirs?.value()));
        report.push(Measure::share("originals read rightly", &read?));

        let shown = one_of_each_digit(self.clips);
        let of = |waves: &[Waveform]| -> Vec<Waveform> {
            shown.iter().map(|index| waves[*index].clone()).collect()
        };
        let dir = run.path().join("listen");
        let shown_digits: Vec<u32> = shown.iter().map(|index| digits[*index]).collect();
        let made = SoundGallery::new("vocoder", NAME)
            .with_weights(&[run.path().join(FOLDER)])?
            .with_seed(self.seed);
        listen::write(&dir, "original", &of(&originals), None)?;
        listen::write(
            &dir,
            "vocoded",
            &of(&again),
            Some((&made, shown_digits.as_slice())),
        )?;
        listen::write(&dir, "griffin-lim", &of(&floor), None)?;
        report.finish(run)
    }

    /// What the vocoder makes of the mels of sounds, one at a time, and how fast.
    fn vocode(
        &self,
        vocoder: &dyn Vocoder,
        waves: &[Waveform],
        progress: &Progress,
    ) -> Result<(Vec<Waveform>, Speed)> {
        let mel = vocoder.mel_config().init()?;
        let (mut again, mut speed) = (vec![], Speed::default());
        for wave in waves {
            mel.stft().frames(wave.len())?;
            let log_mel = mel.log_mel_tensor(wave.to_tensor(self.device));
            let began = Instant::now();
            // A device has finished once its values are read.
            let made = Waveform::from_tensor(vocoder.vocode(log_mel)?, RATE)?;
            speed += Speed::since(began, made.seconds());
            again.push(made);
            progress.add(1)?;
        }
        Ok((again, speed))
    }
}
