//! Music from a prompt, by a folder of MusicGen.

use crate::Args;
use aigc_core::{
    CancelToken,
    audio::{WavFormat, WavWriter},
};
use aigc_examples::{Progress, is_stop, outln};
use aigc_examples_sound::{SoundGallery, Speed, reported, wav_path};
use aigc_pipelines::music::{GeneratedMusic, MusicOptions, MusicRequest, MusicgenPipeline};
use anyhow::{Context, Result};
use std::{path::Path, time::Instant};

/// The WAV file without `--out`.
const FILE: &str = "music.wav";

/// Makes music. The WAV file grows while codes are drawn; a picture of its spectrum is beside it.
///
/// # Errors
/// Errors of the folder, the request and the files.
pub(crate) fn run(args: &Args, dir: &Path, stop: &CancelToken) -> Result<()> {
    let path = wav_path(&args.run, FILE)?;
    let device = args.run.device()?;
    let pipeline = reported(MusicgenPipeline::from_pretrained(dir, &device)?);
    let made = match make(args, &pipeline, &path, stop) {
        Ok(made) => made,
        Err(error) if is_stop(&error, stop) => {
            eprintln!("stopped before there was any sound");
            std::process::exit(130)
        }
        Err(error) => return Err(error),
    };
    for warning in &made.music.warnings {
        eprintln!("{warning}");
    }
    let used = &made.music.request;
    let mut gallery = SoundGallery::new("MusicGen", &dir.display().to_string())
        .with_weights(&[dir])?
        .with_prompt(&used.prompt);
    if let Some(seed) = used.seed {
        gallery = gallery.with_seed(seed);
    }
    if let Some(scale) = used.guidance_scale {
        gallery = gallery.with_setting("guidance_scale", scale);
    }
    made.file.finish_with_provenance(gallery.record())?;
    let figure = gallery.draw(&made.music.wave)?;
    figure.save_with_provenance(gallery.record(), &path.with_extension("png"))?;
    outln!("{}", made.speed);
    outln!("first sound after {:.2} s", made.first);
    outln!(
        "{} (seed {})",
        path.display(),
        used.seed.unwrap_or_default()
    );
    if !made.music.complete {
        outln!("stopped after {:.2} s of sound", made.music.wave.seconds());
    }
    Ok(())
}

/// Music whose file only lacks its record.
struct Made {
    music: GeneratedMusic,
    file: WavWriter,
    speed: Speed,
    /// Seconds until the first piece of sound.
    first: f64,
}

fn request(args: &Args) -> MusicRequest {
    let mut request = MusicRequest::new(args.prompt.clone().unwrap_or_default());
    request.seed = Some(args.run.seed);
    request.seconds = args.seconds;
    request.guidance_scale = args.guidance_scale;
    request.temperature = args.sampling.temperature;
    request.top_p = args.sampling.top_p;
    request.top_k = args.sampling.top_k;
    request
}

fn make(args: &Args, pipeline: &MusicgenPipeline, path: &Path, stop: &CancelToken) -> Result<Made> {
    let (channels, rate) = (pipeline.channels(), pipeline.sample_rate());
    let began = Instant::now();
    // The file is created with the first piece: a request that is refused leaves none behind.
    let (mut writer, mut first, mut bar) = (None, None, None);
    let mut options = MusicOptions::default()
        .with_cancel(stop.clone())
        .with_progress(|at| {
            let bar = bar.get_or_insert_with(|| Progress::new("music", at.num_frames, stop));
            // The pipeline sees the token, too.
            let _ = bar.add(1);
        })
        .with_audio(|piece| {
            first.get_or_insert_with(|| began.elapsed().as_secs_f64());
            let mut file = match writer.take() {
                Some(file) => file,
                None => WavWriter::create(path, channels, rate, WavFormat::default())?,
            };
            file.write(piece)?;
            file.flush()?;
            writer = Some(file);
            Ok(())
        });
    let music = pipeline.generate_with(&request(args), &mut options)?;
    drop(options);
    drop(bar);
    Ok(Made {
        speed: Speed::since(began, music.wave.seconds()),
        file: writer.context("the model made no sound")?,
        first: first.unwrap_or_default(),
        music,
    })
}
