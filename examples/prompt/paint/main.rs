//! Paints images from a prompt.
//!
//!     cargo run --release --example paint -- "two red circles left of a blue square"
//!     cargo run --release --example paint -- "A cat wearing a hat" --model DIR
//!     cargo run --release --example paint -- "A cat wearing a hat" --model FILE --base DIR
//!     cargo run --release --example paint -- "A cat wearing a hat" --api

#![forbid(unsafe_code)]

mod options;

use aigc_core::text_to_image::{
    GeneratedImages, GenerationOptions, GenerationProgress, GenerationStage, ImageRequest,
    TextToImage,
};
use aigc_examples::{is_stop, outln, stop_on_ctrl_c};
use aigc_pipelines::{
    adapters::TextualInversion,
    openai::{OpenAiConfig, OpenAiImages},
    text_to_image::{PromptSyntax, Residency, TextToImagePipeline, Tiling, save_png},
};
use anyhow::Result;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use options::Options;
use std::{ops::ControlFlow, path::Path};

fn main() -> Result<()> {
    let options = Options::parse();
    options.check()?;
    let request = options.request()?;
    let made = match &options.api {
        Some(url) => paint(&client(&options, url)?, &request)?,
        None => {
            let pipeline = open(&options)?;
            if let Ok(estimate) = pipeline.memory_estimate(&request, pipeline.options()) {
                eprintln!("about {} MiB of memory", estimate.peak >> 20);
            }
            let known = pipeline.report().warnings();
            let made = paint(&pipeline, &request)?;
            // Of the parts that were opened since.
            for warning in pipeline.report().warnings() {
                if !known.contains(&warning) {
                    eprintln!("{warning}");
                }
            }
            made
        }
    };
    match made {
        Some(made) => save(&made, &options.out),
        None => {
            eprintln!("stopped before an image was finished");
            std::process::exit(130)
        }
    }
}

/// The program fulfils one request, so that no part is needed twice.
const RESIDENCY: Residency = Residency::WhileNeeded;

/// Opens the model on this machine, with all that is added to it.
fn open(options: &Options) -> Result<TextToImagePipeline> {
    let mut pipeline = options.model.open(RESIDENCY)?;
    for path in &options.embedding {
        let report = pipeline.load_textual_inversion(&TextualInversion::open(path)?)?;
        if !report.is_complete() {
            eprintln!("{report}");
        }
    }
    if let Some(dir) = &options.controlnet {
        pipeline = pipeline.with_controlnet_from(dir, &options.model.open_options(RESIDENCY))?;
    }
    let settings = pipeline.options_mut();
    if options.web_ui {
        settings.prompt_syntax = PromptSyntax::WebUi;
    }
    if options.tiles {
        settings.tiling = Tiling::Always;
    }
    Ok(pipeline)
}

/// A client of the API at `url`, or of OpenAI's if it is empty.
fn client(options: &Options, url: &str) -> Result<OpenAiImages> {
    let mut config = OpenAiConfig::from_env()?;
    if !url.is_empty() {
        config.base_url = url.into();
    }
    if let Some(model) = &options.api_model {
        config = config.with_model(model);
    }
    Ok(OpenAiImages::new(config)?)
}

/// Fulfils a request with a progress bar. Ctrl-C keeps the images that are finished; `None` if
/// there is none yet.
fn paint(model: &dyn TextToImage, request: &ImageRequest) -> Result<Option<GeneratedImages>> {
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} ETA {eta}")?;
    let bar = ProgressBar::new(1).with_style(style);
    let stop = stop_on_ctrl_c();
    let mut options = GenerationOptions::default()
        .with_cancel(stop.clone())
        .with_callback(|at| {
            bar.set_message(message(at));
            bar.set_length(at.num_steps as u64);
            bar.set_position(at.step as u64);
            ControlFlow::Continue(())
        });
    let result = model.generate_with(request, &mut options);
    drop(options);
    bar.finish_and_clear();
    match result.map_err(anyhow::Error::from) {
        Ok(made) => Ok(Some(made)),
        Err(error) if is_stop(&error, &stop) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is being done, and for which images.
fn message(at: &GenerationProgress<'_>) -> String {
    let stage = match at.stage {
        GenerationStage::Loading => "opening the model",
        GenerationStage::Encoding => "encoding",
        GenerationStage::Denoising => "denoising",
        GenerationStage::Decoding => "decoding",
        _ => "waiting",
    };
    let (first, last) = (at.images.start + 1, at.images.end);
    if at.images.len() >= at.total {
        stage.into()
    } else if first == last {
        format!("{stage} image {first} of {}", at.total)
    } else {
        format!("{stage} images {first} to {last} of {}", at.total)
    }
}

/// Writes the images with their settings and prints their paths. An image that cannot be written
/// does not keep the others from it; the first error is returned.
fn save(result: &GeneratedImages, out: &Path) -> Result<()> {
    for warning in &result.warnings {
        eprintln!("{warning}");
    }
    let several = result.images.len() > 1;
    let mut saved: Result<()> = Ok(());
    for image in &result.images {
        let path = match several {
            true => {
                let stem = out.file_stem().unwrap_or_default().to_string_lossy();
                out.with_file_name(format!("{stem}-{}.png", image.index + 1))
            }
            false => out.to_path_buf(),
        };
        if let Err(error) = save_png(result, image, &path) {
            saved = saved.and(Err(error.into()));
            continue;
        }
        let seed = result.request.seed;
        let seed = seed.map_or(String::new(), |seed| format!(", seed {seed}"));
        let (width, height) = (image.image.width(), image.image.height());
        outln!("{} ({width}x{height}{seed})", path.display());
    }
    if !result.complete {
        let (finished, wanted) = (result.images.len(), result.request.n.unwrap_or(1));
        eprintln!("{finished} of {wanted} images were finished");
    }
    saved
}
