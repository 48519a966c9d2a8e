//! Digits that move: a network is trained, draws clips, and is evaluated.

use crate::options::Options;
use aigc_core::{
    CancelToken,
    burn::tensor::Device,
    checkpoint::{RunDir, write_atomic},
    data::{ClassLabels, SampleBatch},
};
use aigc_examples::{after_training, labels_in_turn, outln};
use aigc_examples_video::{
    ClipReader, Compared, Job, Sampling, VideoModel, VideoNetwork, equal_frames, hash_weights,
};
use anyhow::Result;
use serde_json::json;
use std::time::Instant;

/// Name of the runs.
const NAME: &str = "animate";
/// Images that are compared bit for bit with those of an image model.
const COMPARED: usize = 10;

pub(crate) fn run(options: &Options, stop: CancelToken) -> Result<()> {
    let training = &options.training;
    let device = training.run.device()?;
    let job = Job::prepare(training, NAME, &device)?;
    let sampling = job.sampling(training, &stop)?;
    // Mistakes are found before training.
    options.classes(sampling.classes)?;
    let reader = ClipReader::new(training.classifier.as_deref(), &job.clips, &device)?;
    let gallery = job.gallery(&sampling, options.fps());
    let (trained, run) = job.train(training, &sampling, &gallery, &stop)?;

    after_training(trained, &run, &stop, |trained| {
        let network = trained.model;
        let dir = run.path().join("pipeline");
        let model = VideoModel {
            network: network.clone(),
            scheduler: job.scheduler.clone(),
            shape: sampling.shape,
            classes: sampling.classes,
        };
        model.save(&dir)?;
        let gallery = gallery.clone().with_model_hash(hash_weights(&dir)?);
        draw(
            options,
            &network,
            &sampling,
            job.settings.trainer.seed,
            |samples| gallery.save(samples, run.path(), "clips"),
        )?;
        let equal = match &job.image_model {
            None => None,
            Some(image) => {
                let seed = job.settings.trainer.seed;
                let equal = equal_frames(&network, &image.network, &sampling, COMPARED, seed)?;
                outln!(
                    "with motion modules off, {} of {} frames equal those of the image model bit \
                     for bit",
                    equal.count(),
                    equal.total()
                );
                Some(equal)
            }
        };
        let compared = evaluate(options, &job, &network, &sampling, reader.as_ref(), &device)?;
        compared.print("evaluation", reader.as_ref());
        let figures = json!({
            "steps": trained.step,
            "figures": compared.to_json(),
            "frames_equal_to_image_model": equal.map(|equal| [equal.count(), equal.total()]),
        });
        let text = serde_json::to_string_pretty(&figures)?;
        write_atomic(&run.path().join("figures.json"), text.as_bytes())?;
        outln!();
        list(&run);
        Ok(())
    })
}

/// Draws the clips that are asked for, hands them to `save`, and prints how long it took.
pub(crate) fn draw(
    options: &Options,
    network: &VideoNetwork,
    sampling: &Sampling<'_>,
    seed: u64,
    save: impl FnOnce(&aigc_core::sampling::Samples<5>) -> aigc_core::Result<()>,
) -> Result<()> {
    let (n, began) = (options.n as usize, Instant::now());
    let classes = options.classes(sampling.classes)?;
    let samples = sampling.draw(network, classes, n, seed)?;
    // A GPU has finished once a value was read.
    samples.values.clone().sum().into_scalar::<f32>();
    let seconds = began.elapsed().as_secs_f64();
    let frames = n * sampling.shape.dims()[1];
    let rate = frames as f64 / seconds;
    let fps = options.fps();
    outln!(
        "{n} clips of {} in {seconds:.1} s: {rate:.1} frames a second, {:.2} times real time at \
         {fps} frames a second",
        sampling.shape,
        rate / fps
    );
    save(&samples)?;
    Ok(())
}

/// Figures of clips of all classes beside those of held-out ones.
fn evaluate(
    options: &Options,
    job: &Job,
    network: &VideoNetwork,
    sampling: &Sampling<'_>,
    reader: Option<&ClipReader>,
    device: &Device,
) -> Result<Compared> {
    let n = options.training.eval_clips.unwrap_or(40) as usize;
    let classes = match sampling.classes {
        Some(classes) => ClassLabels::PerSample(labels_in_turn(classes, n)),
        None => ClassLabels::Random,
    };
    let seed = job.settings.trainer.seed ^ 1;
    let samples = sampling.draw(network, classes, n, seed)?;
    let (data, other) = (job.clips.held_out(n, 0)?, job.clips.held_out(n, 1)?);
    let compared = Compared::new(
        (&samples.values, samples.labels.as_deref()),
        (&data.to_tensor(device), data.labels()),
        &other.to_tensor(device),
        reader,
    )?;
    Ok(compared)
}

/// Prints the files of a run.
fn list(run: &RunDir) {
    for (file, what) in [
        (
            "clips.gif",
            "the clips; also as clips.apng and, for players, clips.y4m",
        ),
        ("clips-strip.png", "eight frames of each clip in a row"),
        ("samples/", "clips during training"),
        ("figures.json", "the figures of the evaluation"),
        ("loss.svg", "the training loss"),
        ("metrics.jsonl", "the logged metrics"),
        (
            "pipeline/",
            "the network, for `animate --model`, and its parts for diffusers in Python",
        ),
    ] {
        outln!("  {:<50} {what}", run.path().join(file).display());
    }
}
