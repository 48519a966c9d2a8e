//! Training of a model of a codec's tokens, which is told a digit and a speaker.

use crate::{
    codec::{self, batch_of},
    coded::{encode, versions},
    fsdd::{
        BATCH, DIGITS, DataOptions, Fsdd, Label, Record, SECOND, Split, SpokenDigit, loader_config,
        spoken,
    },
    listen,
    measures::{Goal, Measure, Report},
    reader::{INCEPTION, Reader, largest_share, right, scores},
    resynthesis::waves_of,
    size::Size,
};
use aigc_core::{
    CancelToken, Error, Result,
    audio::{AudioCodec, Waveform},
    burn::tensor::Device,
    checkpoint::RunDir,
    data::{DataLoader, InMemory},
    rng::Rng,
    train::{EmaConfig, LrSchedule, OptimizerConfig, TrainerConfig},
};
use aigc_examples::{Progress, RunOptions, after_training};
use aigc_examples_sound::{SoundGallery, Speed, hash_weights};
use aigc_text::{
    FinishReason, GenerationConfig,
    music::{
        CodesBatch, ConditionInputs, MultiStreamGenerator, MultiStreamLm, MultiStreamObjective,
        MusicgenDecoder, MusicgenDecoderConfig, multi_stream_loss,
    },
};
use aigc_vae::codec::EncodecModel;
use clap::Args;
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// Options of `codes`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    data: DataOptions,
    /// Codec; by default that of the newest run without discriminators.
    #[arg(long, value_name = "DIR")]
    codec: Option<PathBuf>,
    /// Classifier of digits; by default that of the newest run.
    #[arg(long, value_name = "DIR")]
    classifier: Option<PathBuf>,
    /// Classifier of speakers; by default that of the newest run.
    #[arg(long, value_name = "DIR")]
    speaker_classifier: Option<PathBuf>,
    /// Size of the network.
    #[arg(long, value_enum, default_value = "full")]
    size: Size,
    /// Batch size.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Learning rate after warm-up.
    #[arg(long, default_value_t = 1e-3)]
    rate: f64,
    /// Versions of each training clip, which begin at other times and are louder or quieter.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    versions: u32,
    /// Sounds that are generated and measured.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(20..))]
    samples: u32,
    /// Scale of classifier-free guidance; 1 for none.
    #[arg(long, default_value_t = 1.5)]
    guidance: f64,
    /// Temperature of sampling.
    #[arg(long, default_value_t = 0.9)]
    temperature: f64,
    #[command(flatten)]
    run: RunOptions,
}

/// Name of the runs.
const NAME: &str = "sound-codes";
/// Folder of the model in a run.
const FOLDER: &str = "decoder";
/// Share of the training clips whose digit and speaker are not told.
const DROPOUT: f64 = 0.1;

/// The record of the data in a run: a resumed run must have the same codes.
#[derive(Debug, Serialize, Deserialize)]
struct DataRecord {
    #[serde(flatten)]
    recordings: Record,
    /// Hash of the weights of the codec.
    codec: Option<String>,
    /// Versions of each training clip.
    versions: u32,
}

pub(crate) fn run(options: &Options, stop: CancelToken) -> anyhow::Result<()> {
    let (device, seed) = (options.run.device()?, options.run.seed);
    let fsdd = options.data.open()?;
    let digits = Reader::open(options.classifier.as_deref(), Label::Digit, &fsdd, &device)?;
    let directory = options.speaker_classifier.as_deref();
    let speakers = Reader::open(directory, Label::Speaker, &fsdd, &device)?;
    let codec_dir = codec::folder(options.codec.as_deref())?;
    let codec = codec::open(&codec_dir, &device)?;
    let record = DataRecord {
        recordings: fsdd.record().clone(),
        codec: hash_weights(&[&codec_dir])?,
        versions: options.versions,
    };
    let config = MusicgenDecoderConfig {
        vocab_size: codec.codebook_size(),
        num_codebooks: codec.num_codebooks(),
        ..options.size.decoder(fsdd.speakers())
    };
    let trainer = options.run.config(TrainerConfig {
        seed,
        learning_rate: options.rate,
        lr_schedule: LrSchedule::cosine(200),
        optimizer: OptimizerConfig::adam_w(0.9, 0.98, 0.1),
        max_grad_norm: Some(1.0),
        ema: Some(EmaConfig::new(0.999)),
        ..TrainerConfig::new(4_000)
    })?;
    let objective = MultiStreamObjective::new(DROPOUT)?;
    let network = config.init(&device)?;
    // Wrong options of sampling would be noticed after the training.
    generator(options, &network, codec.hop_length())?;
    let train = fsdd.clips(Split::Train)?;
    let items = versions(
        &codec,
        &train,
        u64::from(options.versions),
        seed,
        &device,
        &stop,
    )?;
    let batches = loader_config(options.batch as usize, seed);
    let loader = DataLoader::new(InMemory(items), CodesBatch::collate, batches)?;
    let run = options.run.run(NAME)?;
    let trained = options
        .run
        .trainer(trainer, stop.clone(), 50)
        .with_model_config(&config)?
        .with_data_config(&record)?
        .fit(objective, network, &loader, &run)?;
    after_training(trained, &run, &stop, |trained| {
        trained.model.save_pretrained(run.path().join(FOLDER))?;
        let report = Report::new(trained.step, trained.elapsed);
        let evaluation = Evaluation {
            options,
            fsdd: &fsdd,
            train: &train,
            digits: &digits,
            speakers: &speakers,
            codec: &codec,
            codec_dir: &codec_dir,
            device: &device,
            stop: &stop,
        };
        Ok(evaluation.finish(&trained.model, report, &run)?)
    })
}

/// What generates a second of sound by the options.
///
/// # Errors
/// [`Error::Config`] naming an option of sampling that is out of range.
fn generator<'a>(
    options: &Options,
    model: &'a MusicgenDecoder,
    hop_length: usize,
) -> Result<MultiStreamGenerator<'a, MusicgenDecoder>> {
    let frames = SECOND.div_ceil(hop_length);
    let config = GenerationConfig {
        do_sample: true,
        temperature: options.temperature,
        top_k: 250,
        max_new_tokens: Some(model.delay_pattern().steps(frames)),
        ..GenerationConfig::default()
    };
    MultiStreamGenerator::new(model, config)?.with_guidance_scale(options.guidance)
}

/// What the evaluation of a model of codes needs.
struct Evaluation<'a> {
    options: &'a Options,
    fsdd: &'a Fsdd,
    train: &'a [SpokenDigit],
    digits: &'a Reader,
    speakers: &'a Reader,
    codec: &'a EncodecModel,
    codec_dir: &'a Path,
    device: &'a Device,
    stop: &'a CancelToken,
}

impl Evaluation<'_> {
    fn finish(&self, model: &MusicgenDecoder, mut report: Report, run: &RunDir) -> Result<()> {
        let test = self.fsdd.clips(Split::Test)?;
        let (digits, speakers) = self.classes();
        let (waves, speed) = self.generate(model, &digits, &speakers)?;
        let read = self.digits.read(&waves)?;
        let (of_digits, of_speakers): (Vec<u32>, Vec<u32>) =
            test.iter().map(|clip| (clip.digit, clip.speaker)).unzip();
        report.push(
            Measure::share("digit as told", &right(&read, &digits)?)
                .with_floor(largest_share(&of_digits))
                .with_goal(Goal::AtLeast(0.9)),
        );
        let read_speakers = self.speakers.read(&waves)?;
        report.push(
            Measure::share("speaker as told", &right(&read_speakers, &speakers)?)
                .with_floor(largest_share(&of_speakers))
                .with_goal(Goal::AtLeast(0.8)),
        );
        let test_waves = spoken(&test)?;
        let coded = self.coded(&test)?;
        for (set, waves) in [("test clips", &test_waves), ("decoded test clips", &coded)] {
            let share = right(&self.digits.read(waves)?, &of_digits)?;
            report.push(Measure::share(format!("digit of {set}"), &share));
            let share = right(&self.speakers.read(waves)?, &of_speakers)?;
            report.push(Measure::share(format!("speaker of {set}"), &share));
        }
        let real = self.digits.read(&spoken(self.train)?)?;
        let seed = self.options.run.seed;
        for (index, measure) in scores("generated", &real, &read, seed)?
            .into_iter()
            .enumerate()
        {
            report.push(match index {
                INCEPTION => measure.with_goal(Goal::AtLeast(7.0)),
                _ => measure,
            });
        }
        let of_test = self.digits.read(&test_waves)?;
        report.extend(scores("test clips", &real, &of_test, seed)?);
        report.extend(scores(
            "decoded test clips",
            &real,
            &self.digits.read(&coded)?,
            seed,
        )?);
        report.extend(scores("training clips", &real, &real, seed)?);
        report.push(self.nats(model, &test)?);
        let factor = speed.real_time_factor();
        report.push(Measure::new("real-time factor", factor, waves.len()));

        let made = SoundGallery::new("tokens of a codec", NAME)
            .with_weights(&[run.path().join(FOLDER), self.codec_dir.to_path_buf()])?
            .with_seed(seed)
            .with_setting("guidance_scale", self.options.guidance)
            .with_setting("temperature", self.options.temperature);
        let dir = run.path().join("listen");
        listen::write(&dir, "generated", &waves, Some((&made, digits.as_slice())))?;
        report.finish(run)
    }

    /// The digit and the speaker of each sound: all pairs in turn.
    fn classes(&self) -> (Vec<u32>, Vec<u32>) {
        let speakers = self.fsdd.speakers();
        let pair = |index: usize| ((index % DIGITS) as u32, (index / DIGITS % speakers) as u32);
        (0..self.options.samples as usize).map(pair).unzip()
    }

    /// Generates a second of sound of each pair. The time is that of tokens and sound.
    fn generate(
        &self,
        model: &MusicgenDecoder,
        digits: &[u32],
        speakers: &[u32],
    ) -> Result<(Vec<Waveform>, Speed)> {
        let options = self.options;
        let progress = Progress::new("generated sounds", digits.len(), self.stop);
        let (began, hop_length) = (Instant::now(), self.codec.hop_length());
        let mut waves = Vec::with_capacity(digits.len());
        let parts = digits.chunks(BATCH).zip(speakers.chunks(BATCH));
        for (part, (digits, speakers)) in parts.enumerate() {
            let pairs = digits.iter().zip(speakers);
            let classes = pairs
                .map(|(digit, speaker)| vec![*digit, *speaker])
                .collect();
            let condition = model.encode_condition(&ConditionInputs::classes(classes))?;
            let seed = Rng::stream(options.run.seed, "generated codes", part as u64).next_u64();
            let codes = generator(options, model, hop_length)?
                .with_seed(seed)
                .with_cancel(self.stop.clone())
                .generate(digits.len(), condition.as_ref())?;
            if codes.finish_reason == FinishReason::Cancelled {
                return Err(Error::cancelled("the evaluation"));
            }
            let decoded = self.codec.decode(codes.to_tensor(self.device)?)?;
            let [batch, _, time] = decoded.dims();
            waves.extend(waves_of(&decoded.reshape([batch, time]), None)?);
            progress.add(batch)?;
        }
        let seconds = waves.iter().map(Waveform::seconds).sum();
        Ok((waves, Speed::since(began, seconds)))
    }

    /// Clips that the codec has encoded and decoded.
    fn coded(&self, clips: &[SpokenDigit]) -> Result<Vec<Waveform>> {
        let mut waves = Vec::with_capacity(clips.len());
        for part in clips.chunks(BATCH) {
            let codes = self.codec.encode(batch_of(part, self.device))?;
            let decoded = self.codec.decode(codes)?;
            let [batch, _, time] = decoded.dims();
            let lengths: Vec<usize> = part.iter().map(|clip| clip.sound.len).collect();
            waves.extend(waves_of(&decoded.reshape([batch, time]), Some(&lengths))?);
        }
        Ok(waves)
    }

    /// The cross-entropy of the codes of test clips.
    fn nats(&self, model: &MusicgenDecoder, test: &[SpokenDigit]) -> Result<Measure> {
        let progress = Progress::new("codes of test clips", test.len(), self.stop);
        let mut values = Vec::with_capacity(test.len());
        for clip in test {
            let batch =
                CodesBatch::collate(encode(self.codec, std::slice::from_ref(clip), self.device)?);
            let nats = multi_stream_loss(model, &batch, None, self.device)?;
            values.push(f64::from(nats.mean().into_scalar::<f32>()));
            progress.add(1)?;
        }
        Measure::mean("nats a code of test clips", &values)
    }
}
