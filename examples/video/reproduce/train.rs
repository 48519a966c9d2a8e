//! Training of a video network, or of motion modules alone.

use aigc_core::{CancelToken, Error};
use aigc_examples::{after_training, outln};
use aigc_examples_video::{Job, TrainingOptions, VideoModel};
use anyhow::Result;
use clap::Args;

/// Name of the runs.
pub(crate) const NAME: &str = "video-diffusion";

/// Options of `train`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    training: TrainingOptions,
}

pub(crate) fn run(options: &Options, stop: CancelToken) -> Result<()> {
    let training = &options.training;
    let resumes = training.run.resume || training.run.resume_at.is_some();
    if training.image_model.is_none() && !resumes {
        training.data.given()?;
    }
    if let Some(path) = &training.classifier {
        let expected = "none: `evaluate` reads digits";
        return Err(Error::argument("--classifier", path.display(), expected).into());
    }
    if let Some(clips) = training.eval_clips {
        let expected = "none: `evaluate` has its own number of clips";
        return Err(Error::argument("--eval-clips", clips, expected).into());
    }
    let device = training.run.device()?;
    let job = Job::prepare(training, NAME, &device)?;
    let sampling = job.sampling(training, &stop)?;
    let gallery = job.gallery(&sampling, 8.0);
    let (trained, run) = job.train(training, &sampling, &gallery, &stop)?;
    after_training(trained, &run, &stop, |trained| {
        let minutes = trained.elapsed.as_secs_f64() / 60.0;
        let (step, steps) = (trained.step, trained.steps_run);
        let dir = run.path().join("pipeline");
        let model = VideoModel {
            network: trained.model,
            scheduler: job.scheduler.clone(),
            shape: sampling.shape,
            classes: sampling.classes,
        };
        model.save(&dir)?;
        outln!(
            "{step} steps, {steps} of them in this run, in {minutes:.1} minutes; the network is in \
             {}",
            dir.display()
        );
        Ok(())
    })
}
