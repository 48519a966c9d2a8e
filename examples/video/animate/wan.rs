//! Videos of Wan: latents are kept on disk before they are decoded, and frames are written as they
//! come.

use crate::{
    folder::out_dir,
    options::Options,
    prompt::{bar, opened, push, record, report, request, watched, writer},
};
use aigc_core::{
    CancelToken, Error,
    burn::tensor::{Device, Tensor, TensorData},
    checkpoint::write_atomic,
    json,
    text_to_image::ImageSize,
    weights::save_tensors,
};
use aigc_examples::outln;
use aigc_examples_video::ClipWriter;
use aigc_pipelines::video::{VideoRequest, WanPipeline};
use anyhow::{Context, Result};
use safetensors::{Dtype, SafeTensors};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

/// Name of the tensor in a file of latents.
const LATENTS: &str = "latents";
/// Frames a second of Wan's videos.
const FPS: f64 = 16.0;

/// Makes a video with Wan.
pub(crate) fn run(
    options: &Options,
    dir: &Path,
    text: &str,
    device: &Device,
    stop: &CancelToken,
) -> Result<()> {
    if let Some(adapter) = &options.motion_adapter {
        let expected = "none: Wan has no motion modules of its own";
        return Err(Error::argument("--motion-adapter", adapter.display(), expected).into());
    }
    let pipeline = WanPipeline::from_pretrained(dir, device);
    let pipeline = opened(pipeline.with_context(|| format!("--model {}", dir.display()))?);
    let request = request(options, text);
    let out = out_dir(options)?;
    let began = Instant::now();
    let (mut request, latents, kept) = match &options.latents {
        Some(file) => {
            let latents = read_latents(file, device)?;
            (request_of(file, request)?, latents, None)
        }
        None => {
            let request = pipeline.prepare_request(&request)?;
            let noise = pipeline.prepare_latents(&request)?;
            let prompts = pipeline.encode_prompts(&request)?;
            for warning in &prompts.warnings {
                eprintln!("{warning}");
            }
            let latents = pipeline.denoise(&request, &prompts, noise, &mut watched(stop)?)?;
            let kept = keep(&latents, &request, &out)?;
            (request, latents, Some(kept))
        }
    };
    request.num_frames = Some(num_frames(&pipeline, &latents));
    request.size = Some(size(&pipeline, &latents));
    let decoded = decode(&pipeline, &request, latents, dir, &out, began, stop);
    match (decoded, kept) {
        (Err(error), Some([latents, _])) => {
            eprintln!(
                "the latents are kept; --latents {} decodes them",
                latents.display()
            );
            return Err(error);
        }
        (decoded, None) => decoded?,
        (Ok(()), Some(files)) => {
            for file in files {
                std::fs::remove_file(&file).map_err(Error::io(&file))?;
            }
        }
    }
    outln!("{}", out.join("video.gif").display());
    Ok(())
}

/// Writes latents beside the video to come, and the request that they were made for; decoding needs
/// much memory. Returns both files.
fn keep(latents: &Tensor<5>, request: &VideoRequest, out: &Path) -> Result<[PathBuf; 2]> {
    let path = out.join("latents.safetensors");
    let tensors = BTreeMap::from([(LATENTS.to_string(), latents.to_data())]);
    save_tensors(&tensors, &path)?;
    let made = path.with_extension("json");
    write_atomic(&made, serde_json::to_string_pretty(request)?.as_bytes())?;
    Ok([path, made])
}

/// The request that latents were made for, as [`keep`] wrote it beside them, with the frames a
/// second that are given now. Without that file, only the given prompt is known: the record of the
/// video must not name a seed or steps that are not those of the latents.
fn request_of(latents: &Path, given: VideoRequest) -> Result<VideoRequest> {
    let path = latents.with_extension("json");
    let mut request = VideoRequest::new(given.prompt.clone());
    if path.is_file() {
        request = json::read_file(&path, |text| {
            serde_json::from_str(text).map_err(|error| Error::Json(error.to_string()))
        })?;
    }
    if request.prompt != given.prompt {
        let expected = format!("{:?}, as {} says", request.prompt, path.display());
        return Err(Error::argument("--prompt", format!("{:?}", given.prompt), expected).into());
    }
    request.fps = given.fps.or(request.fps).or(Some(FPS));
    Ok(request)
}

/// Reads what [`keep`] wrote.
fn read_latents(path: &Path, device: &Device) -> Result<Tensor<5>> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let failed = |reason: String| Error::weights(path, reason);
    let file = SafeTensors::deserialize(&bytes).map_err(|error| failed(error.to_string()))?;
    let view = file
        .tensor(LATENTS)
        .map_err(|error| failed(error.to_string()))?;
    let Ok(shape) = <[usize; 5]>::try_from(view.shape()) else {
        return Err(failed(format!("{LATENTS} has {} axes, not 5", view.shape().len())).into());
    };
    if shape.contains(&0) {
        return Err(failed(format!("{LATENTS} is empty: {shape:?}")).into());
    }
    if view.dtype() != Dtype::F32 {
        return Err(failed(format!("{LATENTS} is {:?}, not F32", view.dtype())).into());
    }
    let values: Vec<f32> = view
        .data()
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect();
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        return Err(failed(format!("{LATENTS} contains {value}, which is not finite")).into());
    }
    Ok(Tensor::from_data(TensorData::new(values, shape), device))
}

/// Frames that latents stand for.
fn num_frames(pipeline: &WanPipeline, latents: &Tensor<5>) -> usize {
    let factor = pipeline.autoencoder().config().temporal_factor();
    1 + latents.dims()[2].saturating_sub(1) * factor
}

/// Size of the frames that latents stand for.
fn size(pipeline: &WanPipeline, latents: &Tensor<5>) -> ImageSize {
    let factor = pipeline.autoencoder().config().spatial_factor();
    let [.., height, width] = latents.dims().map(|side| (side * factor) as u32);
    ImageSize::new(width, height)
}

/// Decodes chunk by chunk; memory holds one chunk of frames.
fn decode(
    pipeline: &WanPipeline,
    request: &VideoRequest,
    latents: Tensor<5>,
    dir: &Path,
    out: &Path,
    began: Instant,
    stop: &CancelToken,
) -> Result<()> {
    let frames = num_frames(pipeline, &latents);
    let fps = request.fps.unwrap_or(FPS);
    let name = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy();
    let record = record(request, &name, &pipeline.scheduler().to_json(), dir)?;
    let mut files: Option<ClipWriter> = None;
    let (decoding, bar) = (Instant::now(), bar("decoding", frames)?);
    pipeline.decode_chunks(latents, |part| {
        if stop.is_cancelled() {
            return Err(Error::cancelled("decoding"));
        }
        if files.is_none() {
            files = Some(writer(out, &part, fps, &record, frames)?);
        }
        match &mut files {
            Some(files) => {
                bar.inc(part.dims()[0] as u64);
                push(files, &part)
            }
            None => Ok(()),
        }
    })?;
    drop(bar);
    if let Some(files) = files {
        files.finish()?;
    }
    report(frames, fps, began);
    outln!(
        "  of that, decoding: {:.1} s",
        decoding.elapsed().as_secs_f64()
    );
    Ok(())
}
