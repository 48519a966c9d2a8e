//! Evaluation of a trained video network beside held-out clips, and beside an image model that
//! draws frame by frame.

use crate::train::NAME;
use aigc_core::{
    CancelToken, Error,
    burn::tensor::Device,
    checkpoint::{RunDir, write_atomic},
    data::{ClassLabels, SampleBatch},
    device::device,
    sampling::Samples,
};
use aigc_examples::{is_stop, labels_in_turn, outln};
use aigc_examples_video::{
    ClipReader, Clips, Compared, Gallery, ImageModel, Sampling, Settings, VideoModel,
    VideoModelConfig, VideoNetwork, equal_frames, hash_weights,
};
use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// Options of `evaluate`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Run directory; by default the newest of `runs/video-diffusion`.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Directory of the images, if it has moved since the training.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Weights of a LeNet-5 that classifies digits (`mnist-models/lenet5_csinva.safetensors`);
    /// without them, the nearest training frame is what is read.
    #[arg(long, value_name = "FILE")]
    classifier: Option<PathBuf>,
    /// Number of clips.
    #[arg(
        long, value_name = "N", default_value_t = 200,
        value_parser = clap::value_parser!(u32).range(2..=100_000)
    )]
    clips: u32,
    /// An image model that draws the frames one by one, as the floor: a run of `image`. By default
    /// that of motion modules.
    #[arg(long, value_name = "DIR")]
    floor: Option<PathBuf>,
    /// Number of sampling steps.
    #[arg(
        long, value_name = "N", default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..=1000)
    )]
    sampling_steps: u32,
    /// Scale of classifier-free guidance.
    #[arg(
        long,
        value_name = "SCALE",
        default_value_t = 2.0,
        allow_negative_numbers = true
    )]
    guidance: f64,
    /// File of the figures; by default `evaluation.json` in the run's directory.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seed of the samples.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// flex, ndarray, libtorch, wgpu, vulkan, metal, cuda:0, rocm or auto.
    #[arg(long, default_value = "flex")]
    device: String,
}

/// Evaluates until `stop` is cancelled.
pub(crate) fn run(options: &Options, stop: CancelToken) -> Result<()> {
    match evaluate(options, &stop) {
        Err(error) if is_stop(&error, &stop) => {
            outln!("stopped; the figures above are complete");
            Ok(())
        }
        result => result,
    }
}

fn evaluate(options: &Options, stop: &CancelToken) -> Result<()> {
    let device = device(&options.device)?;
    let scale = options.guidance;
    if !(scale.is_finite() && scale >= 0.0) {
        return Err(Error::argument("--guidance", scale, "0 or more").into());
    }
    let run = match &options.run {
        Some(run) => RunDir::open(run)?,
        None => RunDir::open_latest(Path::new("runs").join(NAME))?,
    };
    let settings: Settings = run.config()?;
    let dir = run.path().join("pipeline");
    let model = VideoModel::open(&dir, &device).with_context(|| {
        let path = run.path().display();
        format!("{path}: no pipeline; has its training ended?")
    })?;
    let mut data = settings.data.clone();
    if let Some(path) = &options.data {
        data.images.path = Some(path.clone());
    }
    let clips = Clips::open(&data, &device)?;
    if clips.shape() != model.shape {
        let expected = format!("{}, as the network draws them", model.shape);
        return Err(Error::argument("clips", clips.shape(), expected).into());
    }
    let reader = ClipReader::new(options.classifier.as_deref(), &clips, &device)?;
    let recorded = settings.model.image_model.as_ref();
    let image = options.floor.as_ref().or(recorded.map(|image| &image.path));
    let opened = |dir: &PathBuf| {
        let image = ImageModel::open(dir, &device);
        image.with_context(|| format!("--floor {}", dir.display()))
    };
    let image = image.map(opened).transpose()?;
    if let Some(image) = &image {
        image.check_frames(&clips, "--floor")?;
    }
    let sampling = Sampling {
        scheduler: &model.scheduler,
        shape: model.shape,
        classes: model.classes,
        device: &device,
        steps: options.sampling_steps as usize,
        scale,
        stop,
    };
    let bench = Bench {
        clips: &clips,
        reader: reader.as_ref(),
        device: &device,
        n: options.clips as usize,
        seed: options.seed,
    };

    let (samples, compared, seconds) = bench.compare(&model.network, &sampling)?;
    compared.print("the network", bench.reader);
    let goals = compared.print_goals();
    outln!("  {:.2} s for a clip", seconds / bench.n as f64);
    Gallery::new(NAME, clips.frame.width, 8.0)
        .with_model_hash(hash_weights(&dir)?)
        .with_setting("num_inference_steps", sampling.steps)
        .with_setting("guidance_scale", scale)
        .save(&first(samples, 10), run.path(), "clips")?;

    let (mut floor, mut equal) = (Value::Null, None);
    if let Some(image) = &image {
        let sampling = Sampling {
            scheduler: &image.scheduler,
            classes: sampling.classes.filter(|_| image.classes().is_some()),
            ..sampling
        };
        let frames = sampling.shape.dims()[1];
        let still = VideoModelConfig::for_image_model(image, frames)
            .init(Some(image), &device)?
            .with_motion_enabled(false);
        let (_, compared, _) = bench.compare(&still, &sampling)?;
        compared.print("the image model, frame by frame", bench.reader);
        floor = compared.to_json();
        if recorded.is_some_and(|record| record.hash == image.record.hash) {
            let n = 100.min(bench.n);
            let found = equal_frames(&model.network, &image.network, &sampling, n, options.seed)?;
            outln!(
                "with motion modules off, {} of {} frames equal those of the image model bit for \
                 bit",
                found.count(),
                found.total()
            );
            equal = Some([found.count(), found.total()]);
        }
    }

    let command: Vec<String> = std::env::args().skip(1).collect();
    let figures = json!({
        "command": format!("reproduce_video {}", command.join(" ")),
        // A time limit may have ended the training before the last step of its settings.
        "steps": run.checkpoint_steps().ok().and_then(|steps| steps.last().copied()),
        "seconds_per_clip": seconds / bench.n as f64,
        "network": compared.to_json(),
        "goals": goals,
        "floor": floor,
        "frames_equal_to_image_model": equal,
    });
    let path = options.json.clone();
    let path = path.unwrap_or_else(|| run.path().join("evaluation.json"));
    let text = serde_json::to_string_pretty(&figures)?;
    write_atomic(&path, text.as_bytes())?;
    outln!("{}", path.display());
    Ok(())
}

/// What all evaluations share.
struct Bench<'a> {
    clips: &'a Clips,
    reader: Option<&'a ClipReader>,
    device: &'a Device,
    n: usize,
    seed: u64,
}

impl Bench<'_> {
    /// Clips of all classes in turn, their figures, and the seconds that they took.
    fn compare(
        &self,
        network: &VideoNetwork,
        sampling: &Sampling<'_>,
    ) -> Result<(Samples<5>, Compared, f64)> {
        let n = self.n;
        let classes = match sampling.classes {
            Some(classes) => ClassLabels::PerSample(labels_in_turn(classes, n)),
            None => ClassLabels::Random,
        };
        let began = Instant::now();
        let samples = sampling.draw(network, classes, n, self.seed)?;
        // A GPU has finished once a value was read.
        samples.values.clone().sum().into_scalar::<f32>();
        let seconds = began.elapsed().as_secs_f64();
        let (data, other) = (self.clips.held_out(n, 0)?, self.clips.held_out(n, 1)?);
        let compared = Compared::new(
            (&samples.values, samples.labels.as_deref()),
            (&data.to_tensor(self.device), data.labels()),
            &other.to_tensor(self.device),
            self.reader,
        )?;
        Ok((samples, compared, seconds))
    }
}

/// The first `n` samples.
fn first(samples: Samples<5>, n: usize) -> Samples<5> {
    let n = n.min(samples.values.dims()[0]);
    let Samples {
        values,
        labels,
        seed,
        complete,
    } = samples;
    Samples::new((values.narrow(0, 0, n), complete), labels, seed)
}
