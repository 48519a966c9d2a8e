//! A voice of one's own, from recordings of digits and their words.

use crate::{
    Args, VocoderKind, cannot_stream, check,
    data::{DIGITS, DataConfig, Recordings},
    reader,
    stage::Stage,
    vocoder::{self, MelVocoder},
    voice::{Request, Voice},
};
use aigc_core::{
    CancelToken, Error,
    audio::{Vocoder, WavFormat, Waveform, write_wav_with_provenance},
    burn::tensor::Device,
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig},
    dsp::GriffinLimConfig,
    eval::sound_classifier::SoundClassifier,
    output::provenance::Provenance,
    rng::Rng,
    train::{EmaConfig, LrSchedule, StartFrom, TrainerConfig},
};
use aigc_examples::{after_training, outln};
use aigc_examples_sound::{reported, wav_path};
use aigc_vae::speech::{
    Speaker, SpeakerConfig, SpeechBatch, SpeechDataset, SpeechObjective, VitsTokenizer,
};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::path::Path;

const NAME: &str = "speak";

const STEPS: usize = 5000;

/// Recordings of a batch.
const BATCH: usize = 32;

/// Most recordings that are joined to one in training.
const JOINED: usize = 3;

/// Texts of a check after a training.
const CHECKED: usize = 60;

/// Settings in the `config.json` of a run, which a resumed run uses.
#[derive(Deserialize)]
struct Settings {
    model: SpeakerConfig,
    trainer: TrainerConfig,
    data: DataConfig,
}

/// Whether a folder is a run, and no other kind of model.
pub(crate) fn is_run(dir: &Path) -> bool {
    dir.join("final").is_dir() || dir.join("checkpoints").is_dir()
}

fn settings(run: &RunDir) -> Result<Settings> {
    run.config()
        .with_context(|| format!("{} is not a run of `speak`", run.path().display()))
}

/// Speaks with the voice of a run.
///
/// # Errors
/// If the training of the run has not ended, or the text cannot be spoken.
pub(crate) fn speak(args: &Args, dir: &Path, device: &Device, stop: &CancelToken) -> Result<()> {
    let path = wav_path(&args.run, "speech.wav")?;
    let run = RunDir::open(dir)?;
    let settings = settings(&run)?;
    let weights = run.final_dir();
    if !weights.is_dir() {
        let reason = "its training has not ended; go on with --resume --out and this directory";
        return Err(Error::run(dir, reason).into());
    }
    let speaker = reported(Speaker::from_pretrained(&weights, device)?);
    let names = settings.data.speakers;
    let speakers = speaker.config().num_speakers.max(1);
    if names.len() != speakers {
        let reason = format!(
            "its settings name {} speakers, its voice has {speakers}",
            names.len()
        );
        return Err(Error::run(dir, reason).into());
    }
    let request = Request::new(args, speaker.tokenizer(), &names, args.run.seed)?;

    let mel = &speaker.config().mel;
    let (vocoder, of_vocoder) = MelVocoder::of_run(&run, args.vocoder, mel, device)?;
    if args.stream && !vocoder.kind().can_stream() {
        return Err(cannot_stream(vocoder.kind()).into());
    }
    let of_reader = run.path().join(reader::NAME).join("final");
    let reader = match of_reader.is_dir() {
        true => Some(reported(SoundClassifier::from_pretrained(
            of_reader, device,
        )?)),
        false => None,
    };
    let voice = Voice {
        speaker,
        vocoder,
        reader,
        names,
        weights: [vec![weights], of_vocoder].concat(),
    };
    voice.speak(&request, &path, device)?;
    if let Some(count) = args.check {
        let report = path.with_extension("json");
        let used = (device, stop);
        check::run(&voice, count as usize, args.run.seed, None, used, &report)?;
    }
    Ok(())
}

/// Trains a voice, or goes on with a training, and speaks with it.
///
/// # Errors
/// Before the training: if the text has letters that the recordings' words do not have, or the
/// speaker is not among them. Errors of training and of files.
pub(crate) fn train(args: &Args, device: &Device, stop: &CancelToken) -> Result<()> {
    let options = &args.run;
    let existing = match options.start() {
        StartFrom::Fresh => None,
        _ => Some(options.existing_run(NAME)?),
    };
    // A run that was killed before it wrote its settings starts with the given ones.
    let saved = existing
        .as_ref()
        .filter(|run| run.config_path().exists())
        .map(settings)
        .transpose()?;
    let path = match (&args.data, &saved) {
        (Some(path), _) => path.clone(),
        (None, Some(saved)) => saved.data.path.clone(),
        (None, None) => {
            let expected = "a folder with recordings of digits, or --model with that of a voice";
            return Err(Error::argument("--data", "missing", expected).into());
        }
    };
    let default = SpeakerConfig::default();
    let mel = saved.as_ref().map_or(default.mel, |saved| saved.model.mel);
    let recordings = Recordings::read(&path, &mel)?;
    let (seed, tokenizer) = match &saved {
        Some(saved) => {
            options.check_seed(saved.trainer.seed)?;
            let symbols = saved.model.tokenizer.clone();
            (saved.trainer.seed, VitsTokenizer::new(symbols)?)
        }
        None => (options.seed, VitsTokenizer::from_texts(&DIGITS)?),
    };
    // Before the training, which takes long.
    let request = Request::new(args, tokenizer.clone(), &recordings.speakers, seed)?;
    let began = saved
        .as_ref()
        .map(|saved| (saved.data.batch, saved.data.joined));
    let (batch, joined) = began.unwrap_or((BATCH, JOINED));
    let recorded = saved.as_ref().map(|saved| saved.data.vocoder);
    let kind = match (args.vocoder, recorded, &existing) {
        (Some(kind), _, _) | (None, Some(Some(kind)), _) => kind,
        // Without a record, a run with a reader and no vocoder began with --vocoder griffin-lim,
        // and others with nsf.
        (None, _, Some(run)) if has(run, reader::NAME) && !has(run, vocoder::NAME) => {
            VocoderKind::GriffinLim
        }
        (None, Some(None), _) => VocoderKind::Nsf,
        _ if args.stream => VocoderKind::Nsf,
        _ => VocoderKind::Magnitude,
    };
    if args.stream && !kind.can_stream() {
        return Err(cannot_stream(kind).into());
    }
    let (minutes, of_vocoder) = kind.limits();
    let data = DataConfig {
        path: path.canonicalize().map_err(Error::io(&path))?,
        fingerprint: recordings.fingerprint.clone(),
        speakers: recordings.speakers.clone(),
        batch: args.batch.map_or(batch, |batch| batch as usize),
        joined,
        // A resumed run must have the record that it began with, if any.
        vocoder: recorded.map_or(Some(kind), |began| began.and(Some(kind))),
    };
    let utterances = SpeechDataset::new(recordings.utterances(), tokenizer.clone(), mel)?;
    let share = 1.0 - reader::SHARE - of_vocoder;
    let (model, trainer) = match saved {
        Some(saved) => (saved.model, saved.trainer),
        None => {
            let (mel_mean, mel_std) = utterances.mel_statistics()?;
            let model = SpeakerConfig {
                mel_mean,
                mel_std,
                num_speakers: recordings.speakers.len(),
                ..SpeakerConfig::new(&tokenizer, mel)
            };
            (model, trainer(seed, share * minutes))
        }
    };
    let trainer = options.with_share_of_time(share).config(trainer)?;
    let loader = DataLoader::new(
        utterances.with_joined(data.joined, seed)?,
        SpeechBatch::collate,
        DataLoaderConfig {
            batch_size: data.batch,
            shuffle_seed: Some(seed),
            ..DataLoaderConfig::default()
        },
    )?;
    let network = model.init(device)?;
    let run = &existing.map_or_else(|| options.run(NAME), Ok)?;
    outln!(
        "{} recordings of {} speakers, {} held out; run directory: {}",
        recordings.train.len(),
        recordings.speakers.len(),
        recordings.test.len(),
        run.path().display()
    );
    let trained = options
        .trainer(trainer, stop.clone(), 10)
        .with_model_config(&model)?
        .with_data_config(&data)?
        .with_preview(|speaker: &Speaker, at| {
            let path = at.run.sample_path(at.step, "wav");
            // At the beginning, durations and spectra can be of any size.
            if let Err(error) = preview(speaker, &request, at.step, &path) {
                eprintln!("no preview of step {}: {error}", at.step);
            }
            Ok(())
        })
        .fit(SpeechObjective::new(), network, &loader, run)?;

    after_training(trained, run, stop, |trained| {
        let stage = Stage {
            run,
            data: &data,
            seed,
            options,
            device,
            stop,
        };
        let mut weights = vec![run.final_dir()];
        let vocoder = vocoder::train(&stage, &recordings, &mel, kind)?;
        if kind != VocoderKind::GriffinLim {
            weights.push(run.path().join(vocoder::NAME).join("final"));
        }
        let reader = reader::train(&stage, &recordings, mel.sample_rate, minutes)?;
        let of_recordings = reader::accuracy(&reader, &recordings, device)?;
        let voice = Voice {
            speaker: trained.model,
            vocoder,
            reader: Some(reader),
            names: recordings.speakers.clone(),
            weights,
        };
        voice.speak(&request, &run.path().join("speech.wav"), device)?;
        let count = args.check.map_or(CHECKED, |count| count as usize);
        let report = run.path().join("check.json");
        let (right, used) = (Some(&of_recordings), (device, stop));
        check::run(&voice, count, seed, right, used, &report)?;
        outln!();
        outln!(
            "to speak with this voice again: speak TEXT --model {}",
            run.path().display()
        );
        Ok(())
    })
}

/// Whether a training inside of a run has begun.
fn has(run: &RunDir, training: &str) -> bool {
    run.path().join(training).is_dir()
}

fn trainer(seed: u64, minutes: f64) -> TrainerConfig {
    TrainerConfig {
        seed,
        max_minutes: Some(minutes),
        learning_rate: 1e-3,
        lr_schedule: LrSchedule {
            min_lr_ratio: 0.05,
            ..LrSchedule::cosine(100)
        },
        max_grad_norm: Some(1.0),
        ema: Some(EmaConfig::new(0.998)),
        preview_steps: 500,
        ..TrainerConfig::new(STEPS)
    }
}

/// Speaks with a voice in training, without a trained vocoder.
fn preview(
    speaker: &Speaker,
    request: &Request<'_>,
    step: usize,
    path: &Path,
) -> aigc_core::Result<()> {
    let mel = speaker.config().mel;
    let ids = std::slice::from_ref(&request.ids);
    let spoken = speaker.mel(ids, &request.options, &mut Rng::new(request.seed))?;
    let sound = GriffinLimConfig::new(mel).init()?.vocode(spoken.log_mel)?;
    let wave = Waveform::from_tensor(sound, mel.sample_rate)?;
    let record = Provenance::new(NAME)
        .with_prompt(request.text)
        .with_seed(request.seed)
        .with_setting("training_step", step);
    write_wav_with_provenance(&wave, path, WavFormat::default(), &record)
}
