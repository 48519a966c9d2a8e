//! Training of a codec.

use crate::{
    fsdd::{BATCH, CROP, DataOptions, Label, RATE, SpokenDigit, one_of_each_digit, spoken},
    listen,
    measures::{Goal, Measure, Report},
    reader::{Reader, right},
    resynthesis::{Distances, griffin_lim, vocoder_mel, waves_of},
    runs::given_or_newest,
    size::Size,
};
use aigc_core::{
    CancelToken, Result,
    audio::{AudioCodec, Waveform},
    burn::tensor::{Device, Int, Tensor},
    checkpoint::RunDir,
    data::{
        SampleBatch,
        sound::{Sound, SoundBatch, collate_sounds},
    },
    train::{LrSchedule, OptimizerConfig, TrainerConfig},
};
use aigc_examples::{Progress, RunOptions, after_training};
use aigc_examples_sound::{SoundGallery, Speed, reported};
use aigc_gan::vocoder::WaveDiscriminators;
use aigc_vae::codec::{
    AdversarialCodec, AdversarialCodecConfig, AdversarialCodecObjective, CodecLossConfig,
    CodecObjective, CodecUsage, EncodecModel,
};
use clap::Args;
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// Options of `codec`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    data: DataOptions,
    /// Classifier of digits; by default that of the newest run.
    #[arg(long, value_name = "DIR")]
    classifier: Option<PathBuf>,
    /// Train against discriminators by period and by resolution of spectra.
    #[arg(long)]
    critics: bool,
    /// First step with discriminators.
    #[arg(long, value_name = "STEP", default_value_t = 2_000)]
    critics_from: usize,
    /// Size of the networks.
    #[arg(long, value_enum, default_value = "full")]
    size: Size,
    /// Batch size.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Learning rate after warm-up.
    #[arg(long, default_value_t = 3e-3)]
    rate: f64,
    /// Most test clips that are measured, at equal distances among all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    clips: Option<u32>,
    #[command(flatten)]
    run: RunOptions,
}

/// Name of the runs without discriminators.
const NAME: &str = "sound-codec";
/// Name of the runs with them.
const CRITICS_NAME: &str = "sound-codec-critics";
/// Folder of the codec in a run.
const FOLDER: &str = "codec";

/// The given directory of a codec, or that of the newest run without discriminators.
///
/// # Errors
/// As for [`given_or_newest`].
pub(crate) fn folder(given: Option<&Path>) -> Result<PathBuf> {
    given_or_newest(given, NAME, FOLDER)
}

/// Opens the codec in a directory.
///
/// # Errors
/// Those of opening.
pub(crate) fn open(dir: &Path, device: &Device) -> Result<EncodecModel> {
    let codec = reported(EncodecModel::from_pretrained(dir, device)?);
    Ok(codec.fold_weight_norm())
}

pub(crate) fn run(options: &Options, stop: CancelToken) -> anyhow::Result<()> {
    let (device, seed) = (options.run.device()?, options.run.seed);
    let fsdd = options.data.open()?;
    let reader = Reader::open(options.classifier.as_deref(), Label::Digit, &fsdd, &device)?;
    let clips = fsdd.compared(options.clips)?;
    let config = options.size.codec();
    let trainer = options.run.config(TrainerConfig {
        seed,
        learning_rate: options.rate,
        lr_schedule: LrSchedule::cosine(200),
        optimizer: OptimizerConfig::adam(0.8, 0.99),
        ..TrainerConfig::new(15_000)
    })?;
    let loader = fsdd.loader(Label::Digit, CROP, options.batch as usize, seed)?;
    let codec = config.init(&device)?;
    let evaluation = Evaluation {
        reader: &reader,
        clips: &clips,
        device: &device,
        seed,
        stop: &stop,
    };
    if !options.critics {
        let loss = CodecLossConfig::new(RATE);
        let objective = CodecObjective::<_, SoundBatch>::new(loss.clone(), &codec)?;
        let run = options.run.run(NAME)?;
        let trained = options
            .run
            .trainer(trainer, stop.clone(), 50)
            .with_model_config(&config)?
            .with_objective_config(&loss)?
            .with_data_config(fsdd.record())?
            .fit(objective, codec, &loader, &run)?;
        return after_training(trained, &run, &stop, |trained| {
            let report = Report::new(trained.step, trained.elapsed);
            Ok(evaluation.finish(trained.model, report, &run)?)
        });
    }
    let loss = AdversarialCodecConfig {
        start_step: options.critics_from,
        ..AdversarialCodecConfig::new(RATE)
    };
    let model: AdversarialCodec<EncodecModel, WaveDiscriminators> = AdversarialCodec {
        codec,
        discriminator: options.size.discriminators().init(&device)?,
    };
    let objective = AdversarialCodecObjective::<_, _, SoundBatch>::new(loss.clone(), &model)?;
    let run = options.run.run(CRITICS_NAME)?;
    let trained = options
        .run
        .trainer(trainer, stop.clone(), 50)
        .with_model_config(&config)?
        .with_objective_config(&loss)?
        .with_data_config(fsdd.record())?
        .fit(objective, model, &loader, &run)?;
    after_training(trained, &run, &stop, |trained| {
        let report = Report::new(trained.step, trained.elapsed);
        Ok(evaluation.finish(trained.model.codec, report, &run)?)
    })
}

/// What the evaluation of a codec needs.
struct Evaluation<'a> {
    reader: &'a Reader,
    /// Test clips.
    clips: &'a [SpokenDigit],
    device: &'a Device,
    seed: u64,
    stop: &'a CancelToken,
}

/// Decoded clips, and the codes of what is spoken in them.
#[derive(Default)]
struct Decoded {
    waves: Vec<Waveform>,
    codes: Vec<Tensor<3, Int>>,
    speed: Speed,
}

impl Evaluation<'_> {
    /// Writes the codec, measures it on the test set, and writes sounds to listen to.
    fn finish(&self, codec: EncodecModel, mut report: Report, run: &RunDir) -> Result<()> {
        codec.save_pretrained(run.path().join(FOLDER))?;
        let codec = codec.fold_weight_norm();
        let clips = self.clips;
        let originals = spoken(clips)?;
        let progress = Progress::new("test clips", 2 * clips.len(), self.stop);
        let decoded = self.decode(&codec, clips, &progress)?;
        let floor = griffin_lim(vocoder_mel(), &originals, &progress)?;
        drop(progress);
        let read = self.reader.read(&originals)?;
        let (heard, digits) = (read.predictions(), clips.iter().map(|clip| clip.digit));
        let digits: Vec<u32> = digits.collect();
        let of_decoded = self.reader.read(&decoded.waves)?;
        let of_floor = self.reader.read(&floor)?;
        let kept = right(&of_decoded, &heard)?;
        let kept_by_floor = right(&of_floor, &heard)?.value();
        report.push(
            Measure::share("decoded clips read as their originals are", &kept)
                .with_floor(kept_by_floor)
                .with_goal(Goal::AtLeast(0.95)),
        );
        for (name, readings) in [
            ("originals read rightly", &read),
            ("decoded clips read rightly", &of_decoded),
            ("Griffin-Lim read rightly", &of_floor),
        ] {
            report.push(Measure::share(name, &right(readings, &digits)?));
        }
        let ours = Distances::new(&decoded.waves, &originals, self.device)?;
        let theirs = Distances::new(&floor, &originals, self.device)?;
        for (name, ours, theirs) in [
            ("mel distance", &ours.mel, &theirs.mel),
            ("multi-resolution STFT distance", &ours.stft, &theirs.stft),
            ("SI-SNR, dB", &ours.si_snr, &theirs.si_snr),
        ] {
            let mean = theirs.iter().sum::<f64>() / theirs.len() as f64;
            report.push(Measure::mean(name, ours)?.with_floor(mean));
        }
        let codes = Tensor::cat(decoded.codes, 2);
        let frames = codes.dims()[2];
        let mut usage = CodecUsage::new(codec.num_codebooks(), codec.codebook_size())?;
        let metrics = usage.add(codes);
        let perplexities = metrics
            .iter()
            .filter(|(name, _)| name.starts_with("perplexity"));
        let perplexities: Vec<f64> = perplexities
            .map(|(_, value)| f64::from(value.clone().into_scalar::<f32>()))
            .collect();
        for (index, used) in usage.usage().into_iter().enumerate() {
            let name = format!("codes in use of codebook {}", index + 1);
            let measure = Measure::new(name, used, frames).in_percent();
            report.push(measure.with_goal(Goal::AtLeast(0.5)));
        }
        for (index, value) in perplexities.into_iter().enumerate() {
            let name = format!("perplexity of codebook {}", index + 1);
            report.push(Measure::new(name, value, frames));
        }
        let bit_rate = codec.bit_rate() / 1000.0;
        report.push(Measure::new("kbit/s", bit_rate, clips.len()));
        let factor = decoded.speed.real_time_factor();
        report.push(Measure::new("real-time factor", factor, clips.len()));

        let shown = one_of_each_digit(clips);
        let shown_digits: Vec<u32> = shown.iter().map(|index| digits[*index]).collect();
        let of = |waves: &[Waveform]| -> Vec<Waveform> {
            shown.iter().map(|index| waves[*index].clone()).collect()
        };
        let dir = run.path().join("listen");
        let made = SoundGallery::new("codec", NAME)
            .with_weights(&[run.path().join(FOLDER)])?
            .with_seed(self.seed)
            .with_setting("kbit_s", bit_rate);
        listen::write(&dir, "original", &of(&originals), None)?;
        listen::write(
            &dir,
            "decoded",
            &of(&decoded.waves),
            Some((&made, shown_digits.as_slice())),
        )?;
        listen::write(&dir, "griffin-lim", &of(&floor), None)?;
        report.finish(run)
    }

    /// Encodes and decodes clips.
    fn decode(
        &self,
        codec: &EncodecModel,
        clips: &[SpokenDigit],
        progress: &Progress,
    ) -> Result<Decoded> {
        let mut all = Decoded::default();
        for part in clips.chunks(BATCH) {
            let waves = batch_of(part, self.device);
            let began = Instant::now();
            let codes = codec.encode(waves.clone())?;
            let decoded = codec.decode(codes.clone())?;
            let [batch, _, time] = decoded.dims();
            let lengths: Vec<usize> = part.iter().map(|clip| clip.sound.len).collect();
            let decoded = waves_of(&decoded.reshape([batch, time]), Some(&lengths))?;
            let seconds = (batch * waves.dims()[2]) as f64 / f64::from(RATE);
            all.speed += Speed::since(began, seconds);
            all.waves.extend(decoded);
            for (row, len) in lengths.iter().enumerate() {
                let frames = len.div_ceil(codec.hop_length()).clamp(1, codes.dims()[2]);
                all.codes
                    .push(codes.clone().narrow(0, row, 1).narrow(2, 0, frames));
            }
            progress.add(batch)?;
        }
        Ok(all)
    }
}

/// Clips of a second as a batch, `[batch, 1, time]`.
pub(crate) fn batch_of(clips: &[SpokenDigit], device: &Device) -> Tensor<3> {
    let sounds: Vec<Sound> = clips.iter().map(|clip| clip.sound.clone()).collect();
    collate_sounds(sounds).to_tensor(device)
}
