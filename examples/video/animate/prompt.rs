//! Videos from a prompt: what AnimateDiff and Wan share, and AnimateDiff.

use crate::{folder::out_dir, options::Options};
use aigc_core::{
    CancelToken, Error,
    burn::tensor::{Device, Tensor},
    output::{ImageGrid, provenance::Provenance},
    weights::Loaded,
};
use aigc_examples::outln;
use aigc_examples_video::{ClipWriter, hash_weights};
use aigc_pipelines::video::{
    AnimateDiffOpenOptions, AnimateDiffPipeline, VideoOptions, VideoProgress, VideoRequest,
    VideoStage,
};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use std::{path::Path, time::Instant};

/// Makes a video with AnimateDiff.
pub(crate) fn run(
    options: &Options,
    dir: &Path,
    text: &str,
    device: &Device,
    stop: &CancelToken,
) -> Result<()> {
    if let Some(file) = &options.latents {
        let expected = "none: only videos of Wan are kept as latents";
        return Err(Error::argument("--latents", file.display(), expected).into());
    }
    let mut how = AnimateDiffOpenOptions::default();
    if let Some(adapter) = &options.motion_adapter {
        how = how.with_motion_adapter(adapter);
    }
    let pipeline = AnimateDiffPipeline::from_pretrained_with(dir, &how, device);
    let pipeline = opened(pipeline.with_context(|| format!("--model {}", dir.display()))?);
    let request = request(options, text);
    let began = Instant::now();
    let video = pipeline.generate_with(&request, &mut watched(stop)?)?;
    for warning in &video.warnings {
        eprintln!("{warning}");
    }
    let fps = video.request.fps.unwrap_or(options.fps());
    let frames = video.frames.dims()[0];
    report(frames, fps, began);
    let mut record = record(&video.request, &video.model, &video.scheduler, dir)?;
    if let Some(adapter) = &options.motion_adapter {
        record = record.with_setting("motion_adapter_hash", hash_weights(adapter)?);
    }
    let out = out_dir(options)?;
    let mut writer = writer(&out, &video.frames, fps, &record, frames)?;
    push(&mut writer, &video.frames)?;
    writer.finish()?;
    outln!("{}", out.join("video.gif").display());
    Ok(())
}

/// The pipeline; what was noticed is printed.
pub(crate) fn opened<T>(pipeline: Loaded<T>) -> T {
    for warning in pipeline.warnings() {
        eprintln!("{warning}");
    }
    pipeline.into_inner()
}

/// The request of the command line. What is not given has the defaults of the model.
pub(crate) fn request(options: &Options, text: &str) -> VideoRequest {
    let training = &options.training;
    let mut request = VideoRequest::new(text).with_seed(training.run.seed);
    request.negative_prompt = options.negative.clone();
    request.num_frames = training.frames;
    request.size = training.size;
    request.fps = options.fps;
    request.num_inference_steps = training.run.steps;
    request.guidance_scale = training.guidance;
    request.window_overlap = options.overlap;
    request
}

/// A progress bar, which disappears at its end.
pub(crate) fn bar(what: &'static str, steps: usize) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} ETA {eta}")?;
    let bar = ProgressBar::new(steps as u64).with_style(style);
    Ok(bar.with_message(what))
}

/// A progress bar, and the token that stops the request.
pub(crate) fn watched(stop: &CancelToken) -> Result<VideoOptions<'static>> {
    let bar = bar("denoising", 1)?;
    let progress = move |at: VideoProgress| {
        bar.set_message(match at.stage {
            VideoStage::Denoising => "denoising",
            _ => "decoding",
        });
        bar.set_length(at.num_steps as u64);
        bar.set_position(at.step as u64);
    };
    Ok(VideoOptions {
        cancel: stop.clone(),
        progress: Some(Box::new(progress)),
    })
}

/// Prints how long frames took.
pub(crate) fn report(frames: usize, fps: f64, began: Instant) {
    let seconds = began.elapsed().as_secs_f64();
    let rate = frames as f64 / seconds;
    outln!(
        "{frames} frames in {seconds:.1} s: {rate:.2} frames a second, {:.3} times real time at \
         {fps} frames a second",
        rate / fps
    );
}

/// How a video was made.
pub(crate) fn record(
    request: &VideoRequest,
    model: &str,
    scheduler: &str,
    dir: &Path,
) -> Result<Provenance> {
    let mut record = Provenance::new(model)
        .with_prompt(request.prompt.clone())
        .with_model_hash(hash_weights(dir)?)
        .with_setting("request", serde_json::to_value(request)?)
        .with_setting("scheduler", scheduler);
    if let Some(seed) = request.seed {
        record = record.with_seed(seed);
    }
    Ok(record)
}

/// The files of a video, whose frames are like `like`, `[count, 3, height, width]`.
pub(crate) fn writer(
    out: &Path,
    like: &Tensor<4>,
    fps: f64,
    record: &Provenance,
    frames: usize,
) -> aigc_core::Result<ClipWriter> {
    let grid = ImageGrid {
        padding: 0,
        scale: 1,
        ..ImageGrid::new(1, like.dims()[3])
    };
    ClipWriter::create(out, "video", grid, fps, record, frames)
}

/// Adds frames, `[count, 3, height, width]`.
pub(crate) fn push(writer: &mut ClipWriter, frames: &Tensor<4>) -> aigc_core::Result<()> {
    (0..frames.dims()[0]).try_for_each(|index| writer.push(&frames.clone().narrow(0, index, 1)))
}
