//! Restores images with a diffusion model that was trained on intact images: inpainting, upscaling
//! and denoising.
//!
//!     cargo run --release --example restore -- inpaint
//!     cargo run --release --example restore -- enlarge --data MNIST-DIR --pipeline RUN/pipeline
//!     cargo run --release --example restore -- denoise --image digit.png

#![forbid(unsafe_code)]

mod simple;

use aigc_core::{
    Error,
    burn::tensor::{Device, Tensor},
    checkpoint::RunDir,
    data::{DataLoader, ImageBatch, ImageShape, collate_images, folder::read_image},
    device::device,
    eval::{Estimate, psnr, ssim},
    output::ImageGrid,
    rng::Rng,
};
use aigc_diffusion::{
    AnyDenoiser, AnyScheduler, DdpmScheduler, Degradation, Denoiser, DiffusionSampler,
    MomentMatchingGuidance, Pipeline,
};
use aigc_examples::{Gallery, ImagesConfig, outln};
use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use indicatif::ProgressBar;
use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

/// Restores images with a trained diffusion model, and compares the results with the originals.
#[derive(Debug, Parser)]
struct Args {
    /// Task.
    #[arg(value_enum)]
    task: Task,
    /// Directory of a pipeline, with any scheduler; by default that of the newest `digits --model
    /// diffusion`.
    #[arg(long, value_name = "DIR")]
    pipeline: Option<PathBuf>,
    /// Directory of test images, in MNIST format or as image files; by default the embedded digits.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Restore this image instead. It is resized to the size of the model and then degraded, so
    /// that the result can be compared with it.
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    image: Option<PathBuf>,
    /// The image is already degraded: small, noisy, or with a missing part. The result cannot be
    /// compared with an original.
    #[arg(long, requires = "image")]
    as_it_is: bool,
    /// Mask of the missing part: an image that is black where pixels are missing and white
    /// elsewhere; by default the right half is missing.
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// Number of images.
    #[arg(long, default_value_t = 20)]
    images: usize,
    /// Standard deviation of the noise to add or to remove, for values from 0 to 1.
    #[arg(long)]
    noise: Option<f64>,
    /// Enlargement factor.
    #[arg(long, default_value_t = 4)]
    factor: usize,
    /// Number of sampling steps; by default 50, and 250 for `denoise`, which runs only the last
    /// part of them.
    #[arg(long)]
    steps: Option<usize>,
    /// Number of restorations to average; the average is nearer to the original, but less sharp.
    #[arg(long, default_value_t = 1)]
    average: usize,
    /// Method for missing parts.
    #[arg(long, value_enum, default_value = "posterior")]
    method: Method,
    /// Number of steps of conjugate gradients.
    #[arg(long)]
    iterations: Option<usize>,
    /// Seed of the noise.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// flex, ndarray, libtorch, wgpu, vulkan, metal, cuda:0, rocm or auto.
    #[arg(long, default_value = "flex")]
    device: String,
    /// Image file to write.
    #[arg(long, default_value = "restored.png")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Task {
    /// Fill in a missing part: the right half, or the black part of --mask.
    Inpaint,
    /// Enlarge an image whose pixels are averages of squares.
    Enlarge,
    /// Remove noise.
    Denoise,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Method {
    /// Posterior sampling with moment matching guidance.
    Posterior,
    /// RePaint; only for `inpaint`.
    Repaint,
}

/// Number of times that RePaint repeats each step.
const RESAMPLINGS: usize = 5;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let device = device(&args.device)?;
    if args.images == 0 || args.average == 0 {
        bail!("--images and --average must be at least 1");
    }
    if args.mask.is_some() && args.task != Task::Inpaint {
        bail!("--mask is for `inpaint` only");
    }
    if args.as_it_is && args.task == Task::Inpaint && args.mask.is_none() {
        bail!(
            "--mask FILE is required: an image that is black where pixels are missing, and white elsewhere"
        );
    }
    if args.method == Method::Repaint && (args.task != Task::Inpaint || args.noise.is_some()) {
        bail!("RePaint only fills in missing parts of images without noise; leave --method out");
    }
    let dir = match &args.pipeline {
        Some(dir) => dir.clone(),
        None => RunDir::open_latest("runs/digits-diffusion")
            .context("no --pipeline given; train one with `digits --model diffusion`")?
            .path()
            .join("pipeline"),
    };
    let pipeline = Pipeline::from_pretrained(&dir, &device)
        .with_context(|| format!("{}: no pipeline; has its training ended?", dir.display()))?;
    for warning in pipeline.warnings() {
        eprintln!("{warning}");
    }
    let noise = args
        .noise
        .unwrap_or(if args.task == Task::Denoise { 0.5 } else { 0.0 });
    let ImageShape { height, width, .. } = pipeline.shape;
    let divides =
        args.factor > 0 && height.is_multiple_of(args.factor) && width.is_multiple_of(args.factor);
    if args.task == Task::Enlarge && !divides {
        return Err(Error::config(
            "--factor",
            args.factor,
            format!("a divisor of {height}×{width} pixels"),
        )
        .into());
    }
    if noise.is_nan() || noise < 0.0 || (args.task == Task::Denoise && noise == 0.0) {
        return Err(Error::config("--noise", noise, "more than 0").into());
    }
    let degradation = degradation(&args, &pipeline, &device)?;
    if args.as_it_is {
        let file = args.image.as_ref().expect("required by the option");
        let grid = ImageGrid::new(1, pipeline.shape.width);
        let gallery = gallery(&args, &dir, &pipeline, noise, grid)?;
        let restored = restore_as_it_is(&args, &pipeline, degradation, noise, file, &device)?;
        gallery.save(&restored, &args.out)?;
        outln!("{}", args.out.display());
        return Ok(());
    }
    let originals = originals(&args, &pipeline, &device)?;
    let n = originals.dims()[0];
    let left = degradation.apply(originals.clone())?;
    let measured =
        left.clone() + Rng::stream(args.seed, "measured", 0).normal(left.dims(), &device) * noise;
    let restored = restore(&args, &pipeline, degradation, noise, &measured, n, &device)?;
    let shape = pipeline.shape;
    let simple = match args.task {
        Task::Inpaint => simple::fill(&measured, &mask(&args, shape, &device)?),
        Task::Enlarge => simple::enlarge(&measured, args.factor),
        Task::Denoise => simple::blur(&measured),
    };
    let print = |what: &str, images: &Tensor<4>| -> anyhow::Result<()> {
        let (p, s) = (psnr(images, &originals)?, ssim(images, &originals)?);
        if n == 1 {
            outln!("{what:<12} PSNR {:.2} dB, SSIM {:.3}", p[0], s[0]);
        } else {
            outln!(
                "{what:<12} PSNR {:.2} dB, SSIM {:.4}",
                Estimate::from_samples(&p)?,
                Estimate::from_samples(&s)?
            );
        }
        Ok(())
    };
    outln!("{n} images, against their originals (mean ± standard error):");
    print(simple.0, &simple.1)?;
    print("restored", &restored)?;
    // Ten images per row: originals, degraded images, simple method, restored images.
    let shown = n.min(10);
    let first = |x: &Tensor<4>| x.clone().narrow(0, 0, shown);
    let degraded =
        simple::enlarge_squares(&measured, shape.width / measured.dims()[3]).clamp(0.0, 1.0);
    let rows = [&originals, &degraded, &simple.1, &restored].map(first);
    let grid = ImageGrid::new(shown, shape.width);
    let grid = if shape.width < 16 {
        grid.with_interpolation()
    } else {
        grid
    };
    let content = format!("originals, degraded, {}, restored", simple.0);
    gallery(&args, &dir, &pipeline, noise, grid)?
        .with_setting("content", content.as_str())
        .save(&Tensor::cat(rows.to_vec(), 0), &args.out)?;
    outln!("{}: {content}", args.out.display());
    Ok(())
}

/// Pictures that record the pipeline in `dir`, the task and its settings.
fn gallery(
    args: &Args,
    dir: &Path,
    pipeline: &Pipeline,
    noise: f64,
    grid: ImageGrid,
) -> anyhow::Result<Gallery> {
    let method = match args.method {
        _ if args.is_denoising() => "removal of noise",
        Method::Posterior => "moment matching guidance",
        Method::Repaint => "RePaint",
    };
    let task = match args.task {
        Task::Inpaint => "inpaint",
        Task::Enlarge => "enlarge",
        Task::Denoise => "denoise",
    };
    let gallery = Gallery::new(grid, "diffusion", &dir.display().to_string())
        .with_weights(&[dir.to_path_buf()])?
        .with_seed(args.seed)
        .with_setting("task", task)
        .with_setting("method", method)
        .with_setting("scheduler", ancestral(pipeline)?.class())
        .with_setting("num_inference_steps", args.num_steps())
        .with_setting("noise", noise)
        .with_setting("average", args.average);
    Ok(match args.task {
        Task::Enlarge => gallery.with_setting("factor", args.factor),
        _ => gallery,
    })
}

impl Args {
    /// Whether noise without another degradation is removed, by the sampler without guidance.
    fn is_denoising(&self) -> bool {
        self.task == Task::Denoise && self.method == Method::Posterior
    }

    /// Number of sampling steps.
    fn num_steps(&self) -> usize {
        let default = if self.is_denoising() { 250 } else { 50 };
        self.steps.unwrap_or(default)
    }
}

fn degradation(args: &Args, pipeline: &Pipeline, device: &Device) -> anyhow::Result<Degradation> {
    let shape = pipeline.shape;
    Ok(match args.task {
        Task::Denoise => Degradation::Identity,
        Task::Enlarge => Degradation::Downsample(args.factor),
        Task::Inpaint => Degradation::Inpaint(mask(args, shape, device)?),
    })
}

/// The mask: 1 where a pixel is known.
fn mask(args: &Args, shape: ImageShape, device: &Device) -> anyhow::Result<Tensor<4>> {
    let Some(file) = &args.mask else {
        let half = shape.width / 2;
        let known = Tensor::ones([1, 1, shape.height, half], device);
        let missing = Tensor::zeros([1, 1, shape.height, shape.width - half], device);
        return Ok(Tensor::cat(vec![known, missing], 3));
    };
    let grey = ImageShape::new(1, shape.height, shape.width);
    let known = collate_images(vec![read_image(file, grey)?])
        .to_tensor(device)
        .greater_elem(0.5)
        .float();
    if known.clone().max().into_scalar::<f32>() == 0.0 {
        bail!(
            "{}: the whole image is missing; make known parts white",
            file.display()
        );
    }
    Ok(known)
}

/// Images of the shape of the model: the given one, or held-out ones.
fn originals(args: &Args, pipeline: &Pipeline, device: &Device) -> anyhow::Result<Tensor<4>> {
    let shape = pipeline.shape;
    if let Some(file) = &args.image {
        return Ok(collate_images(vec![read_image(file, shape)?]).to_tensor(device));
    }
    let data = ImagesConfig {
        path: args.data.clone(),
        side: Some(shape.width),
        rgb: shape.channels == 3,
        ..ImagesConfig::default()
    }
    .open(100, 0)?;
    if data.shape != shape {
        return Err(Error::config(
            "data",
            data.shape,
            format!("images of {shape}, the shape of the model; --image resizes an image to it"),
        )
        .into());
    }
    let images: Vec<Tensor<4>> = take(&data.held_out, args.images, device)?;
    Ok(Tensor::cat(images, 0))
}

fn take(
    loader: &DataLoader<ImageBatch>,
    n: usize,
    device: &Device,
) -> anyhow::Result<Vec<Tensor<4>>> {
    let (mut images, mut left) = (Vec::new(), n);
    for batch in loader.iter_once() {
        if left == 0 {
            break;
        }
        let batch = batch?.take(left);
        left -= batch.len();
        images.push(batch.to_tensor(device));
    }
    Ok(images)
}

fn restore_as_it_is(
    args: &Args,
    pipeline: &Pipeline,
    degradation: Degradation,
    noise: f64,
    file: &Path,
    device: &Device,
) -> anyhow::Result<Tensor<4>> {
    let mut shape = pipeline.shape;
    if args.task == Task::Enlarge {
        (shape.height, shape.width) = (shape.height / args.factor, shape.width / args.factor);
    }
    let measured = collate_images(vec![read_image(file, shape)?]).to_tensor(device);
    restore(args, pipeline, degradation, noise, &measured, 1, device)
}

/// Ancestral sampling with the noise schedule of the pipeline; for other processes (EDM, flow
/// matching) the scheduler of the pipeline.
fn ancestral(pipeline: &Pipeline) -> aigc_core::Result<AnyScheduler> {
    let own = &pipeline.scheduler;
    if ["EDM", "FlowMatch"]
        .iter()
        .any(|other| own.class().starts_with(other))
    {
        return Ok(own.clone());
    }
    Ok(match own.to_class("DDPMScheduler") {
        Ok(AnyScheduler::Ddpm(ddpm)) => DdpmScheduler {
            noise: ddpm.noise,
            prediction_type: ddpm.prediction_type,
            rescale_betas_zero_snr: ddpm.rescale_betas_zero_snr,
            ..DdpmScheduler::default()
        }
        .into(),
        // A flow with a solver that also supports other processes.
        _ => own.clone(),
    })
}

fn restore(
    args: &Args,
    pipeline: &Pipeline,
    degradation: Degradation,
    noise: f64,
    measured: &Tensor<4>,
    n: usize,
    device: &Device,
) -> anyhow::Result<Tensor<4>> {
    let scheduler = ancestral(pipeline)?;
    let known = match &degradation {
        Degradation::Inpaint(mask) => Some(mask.clone()),
        _ => None,
    };
    let mut guide = MomentMatchingGuidance::new(degradation, measured, noise)?;
    if let Some(iterations) = args.iterations {
        guide = guide.with_iterations(iterations)?;
    }
    let bar = ProgressBar::new((args.average * n) as u64);
    let mut sum: Option<Tensor<4>> = None;
    for round in 0..args.average {
        let steps = args.num_steps();
        let sampler =
            DiffusionSampler::new(&pipeline.network, &scheduler, steps, pipeline.shape, device)?
                .with_batch_size(50);
        let sampler = unconditional(sampler, pipeline).with_callback(|progress| {
            if progress.step == progress.num_steps {
                bar.set_position((round * n + progress.images.end) as u64);
            }
            ControlFlow::Continue(())
        });
        let seed = args.seed.wrapping_add(round as u64);
        let restored = match (args.method, &known) {
            _ if args.is_denoising() => sampler.denoise(measured, noise, seed)?,
            (Method::Repaint, Some(known)) => {
                sampler.repaint(&measured.clone().clamp(0.0, 1.0), known, RESAMPLINGS, seed)?
            }
            _ => sampler.with_guide(&guide).sample(n, seed)?,
        };
        sum = Some(match sum {
            Some(sum) => sum + restored.values,
            None => restored.values,
        });
    }
    bar.finish_and_clear();
    Ok(sum.expect("at least one round") / args.average as f64)
}

/// Samples without a class, by the null class. A pipeline with names for all its classes has no
/// null class.
fn unconditional<'a>(
    sampler: DiffusionSampler<'a, AnyDenoiser>,
    pipeline: &Pipeline,
) -> DiffusionSampler<'a, AnyDenoiser> {
    match (pipeline.network.num_classes(), pipeline.labels().len()) {
        (None, _) => sampler,
        (Some(_), 0) => sampler.unconditional(),
        (Some(_), named) => sampler.with_num_classes(named).unconditional(),
    }
}
