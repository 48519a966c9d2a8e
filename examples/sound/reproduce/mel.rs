//! Training of a diffusion model of mel spectra, which is told a digit.

use crate::{
    fsdd::{
        DIGITS, DataOptions, Fsdd, Label, RATE, SECOND, Split, SpokenDigit, loader_config, spoken,
    },
    listen,
    measures::{Goal, Measure, Report},
    reader::{Reader, largest_share, right, scores},
    resynthesis::waves_of,
    size::Size,
};
use aigc_core::{
    CancelToken, Result,
    audio::{Vocoder, Waveform},
    burn::tensor::{Device, Tensor},
    checkpoint::RunDir,
    data::{ClassLabels, DataLoader, SampleBatch},
    dsp::MelConfig,
    sampling::Samples,
    train::{EmaConfig, LrSchedule, OptimizerConfig, TrainerConfig},
};
use aigc_diffusion::{
    AnyScheduler, ClassifierFreeGuidance, DiffusionObjective, DiffusionObjectiveConfig,
    DiffusionSampler, Pipeline, UNet2dConfig, UNet2dModel,
};
use aigc_examples::{Progress, RunOptions, after_training, complete};
use aigc_examples_sound::{
    MelBatch, MelImageConfig, MelImages, MelSample, SoundGallery, Speed, collate_mels,
    open_vocoder, spectrum_scheduler,
};
use clap::Args;
use std::{path::PathBuf, time::Instant};

/// Options of `mel`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    data: DataOptions,
    /// Classifier of digits; by default that of the newest run.
    #[arg(long, value_name = "DIR")]
    classifier: Option<PathBuf>,
    /// Size of the network.
    #[arg(long, value_enum, default_value = "full")]
    size: Size,
    /// Batch size.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Learning rate after warm-up.
    #[arg(long, default_value_t = 1e-3)]
    rate: f64,
    /// Sounds that are generated and measured.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..))]
    samples: u32,
    /// Steps of sampling.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..))]
    sampling_steps: u32,
    /// Vocoder of these spectra; by default Griffin-Lim.
    #[arg(long, value_name = "DIR")]
    vocoder: Option<PathBuf>,
    /// Scale of classifier-free guidance; 1 for none.
    #[arg(long, default_value_t = 2.0)]
    guidance: f64,
    #[command(flatten)]
    run: RunOptions,
}

/// Name of the runs.
const NAME: &str = "sound-mel";
/// Folder of the pipeline in a run.
const FOLDER: &str = "pipeline";
/// Sounds that are sampled at once.
const AT_ONCE: usize = 50;
/// Sounds that are made of spectra at once.
const VOCODED: usize = 10;
/// Number of frames.
const FRAMES: usize = 64;
/// Samples from one frame to the next.
const HOP: usize = 128;
/// Number of mels.
const MELS: usize = 40;
/// The log-mel that is 1 in an image: somewhat above the loudest of FSDD.
const HIGH: f64 = 0.5;

/// Spectra as images: windows of 48 ms, one every 16 ms, so that 64 frames are a second. Windows
/// overlap by two thirds, which Griffin-Lim needs.
fn images() -> MelImageConfig {
    let mel = MelConfig {
        win_length: 3 * HOP,
        ..MelConfig::hifi_gan(RATE, 4 * HOP, HOP, MELS)
    };
    MelImageConfig::new(mel, FRAMES, mel.floor.ln(), HIGH)
}

pub(crate) fn run(options: &Options, stop: CancelToken) -> anyhow::Result<()> {
    let (device, seed) = (options.run.device()?, options.run.seed);
    let fsdd = options.data.open()?;
    let reader = Reader::open(options.classifier.as_deref(), Label::Digit, &fsdd, &device)?;
    let images = images().init()?;
    let shape = images.config().shape();
    let mel = &images.config().mel_config;
    let vocoder = open_vocoder(options.vocoder.as_deref(), mel, &device)?;
    let config = options.size.unet(shape);
    // A wrong scale would be noticed after the training.
    ClassifierFreeGuidance::new(options.guidance).validate()?;
    let losses = DiffusionObjectiveConfig {
        conditioning_dropout: 0.1,
        ..DiffusionObjectiveConfig::default()
    };
    let trainer = options.run.config(TrainerConfig {
        seed,
        learning_rate: options.rate,
        lr_schedule: LrSchedule::cosine(200),
        optimizer: OptimizerConfig::adam(0.9, 0.99),
        max_grad_norm: Some(1.0),
        ema: Some(EmaConfig::new(0.999)),
        ..TrainerConfig::new(3_000)
    })?;
    let network = config.init(&device)?;
    let objective = DiffusionObjective::<UNet2dModel, MelBatch, 4>::new(losses.clone(), &network)?;
    let train = fsdd.folder(Split::Train, Label::Digit, SECOND, None)?;
    let train = images.dataset(&train, &stop)?;
    let batches = loader_config(options.batch as usize, seed);
    let loader = DataLoader::new(train, collate_mels, batches)?;
    let run = options.run.run(NAME)?;
    // The null class is none of the fields of the file.
    let recorded = UNet2dConfig {
        null_class: None,
        ..config
    };
    let trained = options
        .run
        .trainer(trainer, stop.clone(), 50)
        .with_model_config(&recorded)?
        .with_objective_config(&losses)?
        .with_data_config(fsdd.record())?
        .fit(objective, network, &loader, &run)?;
    after_training(trained, &run, &stop, |trained| {
        let report = Report::new(trained.step, trained.elapsed);
        let evaluation = Evaluation {
            options,
            fsdd: &fsdd,
            reader: &reader,
            images: &images,
            vocoder: &*vocoder,
            device: &device,
            stop: &stop,
        };
        let names = (0..DIGITS).map(|digit| digit.to_string()).collect();
        let pipeline = Pipeline::new(trained.model.clone(), spectrum_scheduler(), shape)?;
        let pipeline = pipeline.with_labels(names)?;
        pipeline.save_pretrained(run.path().join(FOLDER))?;
        Ok(evaluation.finish(&trained.model, report, &run)?)
    })
}

/// What the evaluation of the model needs.
struct Evaluation<'a> {
    options: &'a Options,
    fsdd: &'a Fsdd,
    reader: &'a Reader,
    images: &'a MelImages,
    vocoder: &'a dyn Vocoder,
    device: &'a Device,
    stop: &'a CancelToken,
}

impl Evaluation<'_> {
    fn finish(&self, network: &UNet2dModel, mut report: Report, run: &RunDir) -> Result<()> {
        let seed = self.options.run.seed;
        let began = Instant::now();
        let samples = self.sample(network)?;
        let digits = samples.labels.unwrap_or_default();
        let waves = self.vocode(samples.values)?;
        let seconds = waves.iter().map(Waveform::seconds).sum();
        let speed = Speed::since(began, seconds);
        let test = self.fsdd.clips(Split::Test)?;
        let of_test: Vec<u32> = test.iter().map(|clip| clip.digit).collect();
        let read = self.reader.read(&waves)?;
        report.push(
            Measure::share("digit as told", &right(&read, &digits)?)
                .with_floor(largest_share(&of_test))
                .with_goal(Goal::AtLeast(0.95)),
        );
        let read_test = self.reader.read(&spoken(&test)?)?;
        let vocoded = self.reader.read(&self.vocode(self.test_images(&test)?)?)?;
        for (set, readings) in [("test clips", &read_test), ("vocoded test clips", &vocoded)] {
            let share = right(readings, &of_test)?;
            report.push(Measure::share(format!("digit of {set}"), &share));
        }
        let train: Vec<SpokenDigit> = self.fsdd.clips(Split::Train)?;
        let real = self.reader.read(&spoken(&train)?)?;
        for (set, readings) in [
            ("generated", &read),
            ("vocoded test clips", &vocoded),
            ("test clips", &read_test),
            ("training clips", &real),
        ] {
            report.extend(scores(set, &real, readings, seed)?);
        }
        let factor = speed.real_time_factor();
        report.push(Measure::new("real-time factor", factor, waves.len()));

        let vocoder = self.options.vocoder.as_ref();
        let mut weights = vec![run.path().join(FOLDER)];
        weights.extend(vocoder.cloned());
        let vocoder = vocoder.map_or("Griffin-Lim".into(), |dir| dir.display().to_string());
        let made = SoundGallery::new("diffusion", NAME)
            .with_weights(&weights)?
            .with_seed(seed)
            .with_setting("vocoder", vocoder)
            .with_setting(
                "scheduler",
                AnyScheduler::from(spectrum_scheduler()).class(),
            )
            .with_setting("num_inference_steps", self.options.sampling_steps)
            .with_setting("guidance_scale", self.options.guidance);
        let dir = run.path().join("listen");
        listen::write(&dir, "generated", &waves, Some((&made, digits.as_slice())))?;
        report.finish(run)
    }

    /// Spectra of all digits in turn.
    fn sample(&self, network: &UNet2dModel) -> Result<Samples> {
        let options = self.options;
        let (count, steps) = (options.samples as usize, options.sampling_steps as usize);
        let digits = (0..count).map(|index| (index % DIGITS) as u32).collect();
        let shape = self.images.config().shape();
        let progress = Progress::new("samples", count, self.stop);
        let mut sampler =
            DiffusionSampler::new(network, &spectrum_scheduler(), steps, shape, self.device)?
                .with_classes(ClassLabels::PerSample(digits))
                .with_batch_size(AT_ONCE)
                .with_callback(|at| progress.on_step(at));
        if options.guidance != 1.0 {
            sampler = sampler.with_guidance(ClassifierFreeGuidance::new(options.guidance));
        }
        complete(sampler.sample(count, options.run.seed)?)
    }

    /// The sounds of images.
    fn vocode(&self, images: Tensor<4>) -> Result<Vec<Waveform>> {
        let log_mels = self.images.log_mel(images);
        let count = log_mels.dims()[0];
        let progress = Progress::new("sounds of spectra", count, self.stop);
        let mut waves = Vec::with_capacity(count);
        for start in (0..count).step_by(VOCODED) {
            let part = log_mels
                .clone()
                .narrow(0, start, VOCODED.min(count - start));
            let made = waves_of(&self.vocoder.vocode(part)?, None)?;
            progress.add(made.len())?;
            waves.extend(made);
        }
        Ok(waves)
    }

    /// The images of clips.
    fn test_images(&self, clips: &[SpokenDigit]) -> Result<Tensor<4>> {
        let images = clips.iter().map(|clip| self.images.image(&clip.sound));
        let images: Vec<MelSample> = images.collect::<Result<_>>()?;
        Ok(collate_mels(images).to_tensor(self.device))
    }
}
