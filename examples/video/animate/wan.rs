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
    rng::TorchRng,
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
/// Most values of latents.
const MOST: usize = 1 << 28;

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
    let mut request = with_defaults(request(options, text));
    let out = out_dir(options)?;
    let began = Instant::now();
    let (latents, kept) = match &options.latents {
        Some(file) => (read_latents(file, device)?, None),
        None => {
            let noise = noise(&pipeline, &request, device)?;
            let prompts = pipeline.encode_prompts(&request)?;
            let latents = pipeline.denoise(&request, &prompts, noise, &mut watched(stop)?)?;
            (latents.clone(), Some(keep(&latents, &out)?))
        }
    };
    request.num_frames = Some(num_frames(&pipeline, &latents));
    decode(&pipeline, &request, latents, dir, &out, began, stop)?;
    if let Some(kept) = kept {
        std::fs::remove_file(&kept).map_err(Error::io(&kept))?;
    }
    outln!("{}", out.join("video.gif").display());
    Ok(())
}

/// Sets what is not given to what diffusers has by default.
fn with_defaults(mut request: VideoRequest) -> VideoRequest {
    request.num_frames.get_or_insert(81);
    request.size.get_or_insert(ImageSize::new(832, 480));
    request.fps.get_or_insert(16.0);
    request.num_inference_steps.get_or_insert(50);
    request.guidance_scale.get_or_insert(5.0);
    request
}

/// Noise of the request's seed, that of PyTorch's generator. The pipeline names values that it does
/// not have.
fn noise(pipeline: &WanPipeline, request: &VideoRequest, device: &Device) -> Result<Tensor<5>> {
    let config = pipeline.autoencoder().config();
    let frames = request.num_frames.unwrap_or(1).saturating_sub(1);
    let size = request.size.unwrap_or(ImageSize::new(0, 0));
    let side = |pixels: u32| pixels as usize / config.spatial_factor();
    let shape = [
        1,
        config.z_dim,
        1 + frames / config.temporal_factor(),
        side(size.height),
        side(size.width),
    ];
    let count = shape
        .iter()
        .try_fold(1usize, |product, n| product.checked_mul(*n));
    let Some(count) = count.filter(|count| *count <= MOST) else {
        let expected = format!("frames and sides with at most {MOST} values of latents");
        return Err(Error::argument("--frames", format!("{shape:?}"), expected).into());
    };
    let values = TorchRng::new(request.seed.unwrap_or(0)).normal_vec(count);
    Ok(Tensor::from_data(TensorData::new(values, shape), device))
}

/// Writes latents beside the video to come; decoding needs much memory.
fn keep(latents: &Tensor<5>, out: &Path) -> Result<PathBuf> {
    let path = out.join("latents.safetensors");
    let tensors = BTreeMap::from([(LATENTS.to_string(), latents.to_data())]);
    save_tensors(&tensors, &path)?;
    Ok(path)
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
    Ok(Tensor::from_data(TensorData::new(values, shape), device))
}

/// Frames that latents stand for.
fn num_frames(pipeline: &WanPipeline, latents: &Tensor<5>) -> usize {
    let factor = pipeline.autoencoder().config().temporal_factor();
    1 + latents.dims()[2].saturating_sub(1) * factor
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
    let fps = request.fps.unwrap_or(16.0);
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
