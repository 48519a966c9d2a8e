//! Clips of a network that this program trained.

use crate::{folder::out_dir, options::Options, train::draw};
use aigc_core::{CancelToken, Error, burn::tensor::Device, data::SampleShape};
use aigc_examples::outln;
use aigc_examples_video::{Gallery, Sampling, VideoModel, hash_weights};
use anyhow::Result;
use std::path::Path;

pub(crate) fn run(
    options: &Options,
    dir: &Path,
    model: &VideoModel,
    device: &Device,
    stop: &CancelToken,
) -> Result<()> {
    let training = &options.training;
    let [channels, most, height, width] = *model.shape.dims() else {
        return Err(Error::argument("--model", model.shape, "a model of clips").into());
    };
    let frames = training.frames.unwrap_or(most);
    if !(1..=most).contains(&frames) {
        let expected = format!("1 to {most}, the frames that the motion modules learned");
        return Err(Error::argument("--frames", frames, expected).into());
    }
    let side = training.side()?.unwrap_or(width);
    if side != width {
        let expected = format!("{width}, the side of the model's frames");
        return Err(Error::argument("--size", side, expected).into());
    }
    let steps = training.run.steps.unwrap_or(training.sampling_steps());
    let sampling = Sampling {
        scheduler: &model.scheduler,
        shape: SampleShape::new(&[channels, frames, height, width]),
        classes: model.classes,
        device,
        steps,
        scale: training.guidance()?,
        stop,
    };
    let gallery = Gallery::new("animate", width, options.fps())
        .with_model_hash(hash_weights(dir)?)
        .with_setting("num_inference_steps", steps)
        .with_setting("guidance_scale", sampling.scale);
    options.classes(sampling.classes)?;
    let out = out_dir(options)?;
    draw(
        options,
        &model.network,
        &sampling,
        training.run.seed,
        |samples| gallery.save(samples, &out, "clips"),
    )?;
    outln!("{}", out.join("clips.gif").display());
    Ok(())
}
