//! What a directory of a model is, and who makes clips with it.

use crate::{options::Options, own, prompt, wan};
use aigc_core::{CancelToken, Error, json};
use aigc_examples::is_stop;
use aigc_examples_video::VideoModel;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

const INDEX: &str = "model_index.json";
/// Classes of pipelines that make videos from prompts.
const PROMPTED: [&str; 3] = [
    "AnimateDiffPipeline",
    "StableDiffusionPipeline",
    "WanPipeline",
];

/// Makes clips with the model of a directory. Ctrl-C ends the program without a file.
pub(crate) fn run(options: &Options, model: &Path, stop: CancelToken) -> Result<()> {
    let made = make(options, model, &stop);
    match made {
        Err(error) if is_stop(&error, &stop) => {
            eprintln!("stopped before the video was finished");
            std::process::exit(130)
        }
        made => made,
    }
}

fn make(options: &Options, model: &Path, stop: &CancelToken) -> Result<()> {
    let dir = pipeline_in(model);
    let device = options.training.run.device()?;
    let shown = || format!("--model {}", model.display());
    let fields = json::read_file(&dir.join(INDEX), json::parse_object).with_context(shown)?;
    let class = fields.get("_class_name").and_then(Value::as_str);
    let class = class.unwrap_or("missing");
    let is_own = VideoModel::is_in(&dir) && !PROMPTED.contains(&class);
    let text = match &options.prompt {
        None if is_own => {
            let model = VideoModel::open(&dir, &device).with_context(shown)?;
            return own::run(options, &dir, &model, &device, stop);
        }
        Some(text) if is_own => {
            let expected = "none: this model is told a class, with --class";
            return Err(Error::argument("--prompt", text, expected).into());
        }
        None => {
            let expected = "a text, for a model that makes videos from prompts";
            return Err(Error::argument("--prompt", "missing", expected).into());
        }
        Some(text) => text,
    };
    match class {
        "WanPipeline" => wan::run(options, &dir, text, &device, stop),
        "AnimateDiffPipeline" | "StableDiffusionPipeline" => {
            prompt::run(options, &dir, text, &device, stop)
        }
        other => {
            let expected = "a directory of AnimateDiffPipeline or WanPipeline, or of \
                            StableDiffusionPipeline with --motion-adapter";
            Err(Error::argument("--model", other, expected).into())
        }
    }
}

/// The pipeline's directory of a run, or the directory itself.
fn pipeline_in(dir: &Path) -> PathBuf {
    let inner = dir.join("pipeline");
    match inner.join(INDEX).is_file() {
        true => inner,
        false => dir.to_path_buf(),
    }
}

/// The directory of the files: that of `--out`, or `animate`.
pub(crate) fn out_dir(options: &Options) -> Result<PathBuf> {
    let out = options.training.run.out.clone();
    let out = out.unwrap_or_else(|| "animate".into());
    std::fs::create_dir_all(&out).map_err(Error::io(&out))?;
    Ok(out)
}
