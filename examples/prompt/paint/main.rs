//! Paints images from a prompt.
//!
//!     cargo run --release --example paint -- "A cat wearing a hat" --model DIR
//!     cargo run --release --example paint -- "A cat wearing a hat" --model FILE --base DIR
//!     cargo run --release --example paint -- "A cat wearing a hat" --api

#![forbid(unsafe_code)]

mod options;

use aigc_core::{
    CancelToken,
    device::device,
    text_to_image::{
        GeneratedImages, GenerationOptions, GenerationStage, ImageRequest, TextToImage,
    },
    weights::{Loaded, WeightDtype},
};
use aigc_examples::{outln, stop_on_ctrl_c};
use aigc_pipelines::{
    adapters::{LoraScales, TextualInversion},
    openai::{OpenAiConfig, OpenAiImages},
    single_file::SingleFile,
    text_to_image::{
        LoraMode, PipelineOpenOptions, PromptSyntax, Residency, TextToImagePipeline, Tiling,
        save_png,
    },
};
use anyhow::{Context, Result};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use options::Options;
use std::{
    io::IsTerminal,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

fn main() -> Result<()> {
    let options = Options::parse();
    let request = options.request()?;
    let result = match &options.api {
        Some(url) => paint(&client(&options, url)?, &request)?,
        None => {
            let pipeline = open(&options)?;
            if let Ok(estimate) = pipeline.memory_estimate(&request, pipeline.options()) {
                eprintln!("about {} MiB of memory", estimate.peak >> 20);
            }
            paint(&pipeline, &request)?
        }
    };
    save(&result, &options.out)
}

/// Opens a directory of diffusers or a single file, with its adapters.
fn open(options: &Options) -> Result<TextToImagePipeline> {
    let device = device(&options.device)?;
    let mut how = PipelineOpenOptions::default();
    if let Some(variant) = &options.variant {
        how = how.with_variant(variant);
    }
    if options.half {
        how = how.with_dtype(WeightDtype::F16);
    }
    if options.low_memory {
        how = how.with_residency(Residency::WhileNeeded);
    }
    let model = options.model.as_deref().context("--model is required")?;
    let loaded = if model.is_file() {
        let file = SingleFile::open(model)?;
        eprintln!("{}", file.report());
        let base = options.base.as_deref().unwrap_or(Path::new(""));
        TextToImagePipeline::from_single_file(&file, base, &how, &device)?
    } else {
        TextToImagePipeline::from_pretrained_with(model, &how, &device)
            .with_context(|| format!("--model {}", model.display()))?
    };
    let mut pipeline = warned(loaded);
    let loras = options.loras()?;
    if !loras.is_empty() {
        let files: Vec<(PathBuf, LoraScales)> = loras
            .into_iter()
            .map(|(path, scale)| (path, scale.into()))
            .collect();
        for report in pipeline.load_loras(&files, LoraMode::default())? {
            eprintln!("{report}");
        }
    }
    for path in &options.embedding {
        pipeline.load_textual_inversion(&TextualInversion::open(path)?)?;
    }
    if let Some(dir) = &options.controlnet {
        pipeline = pipeline.with_controlnet_from(dir, &how)?;
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

/// The value, after its warnings were printed.
fn warned<T>(loaded: Loaded<T>) -> T {
    for warning in loaded.warnings() {
        eprintln!("{warning}");
    }
    loaded.into_inner()
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

/// Fulfils a request with a progress bar; Ctrl-C keeps the images that are finished.
fn paint(model: &dyn TextToImage, request: &ImageRequest) -> Result<GeneratedImages> {
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} ETA {eta}")?;
    let bar = ProgressBar::new(1).with_style(style);
    let stop: CancelToken = stop_on_ctrl_c();
    let mut options = GenerationOptions::default()
        .with_cancel(stop)
        .with_callback(|at| {
            let stage = match at.stage {
                GenerationStage::Loading => "opening the model",
                GenerationStage::Encoding => "encoding",
                GenerationStage::Denoising => "denoising",
                GenerationStage::Decoding => "decoding",
                _ => "waiting",
            };
            bar.set_message(match at.total {
                1 => stage.to_string(),
                total => format!("{stage} image {} of {total}", at.images.start + 1),
            });
            bar.set_length(at.num_steps as u64);
            bar.set_position(at.step as u64);
            ControlFlow::Continue(())
        });
    let result = model.generate_with(request, &mut options);
    drop(options);
    bar.finish_and_clear();
    Ok(result?)
}

/// Writes the images with their settings and prints their paths.
fn save(result: &GeneratedImages, out: &Path) -> Result<()> {
    for warning in &result.warnings {
        eprintln!("{warning}");
    }
    let several = result.images.len() > 1;
    for image in &result.images {
        let path = match several {
            true => {
                let stem = out.file_stem().unwrap_or_default().to_string_lossy();
                out.with_file_name(format!("{stem}-{}.png", image.index + 1))
            }
            false => out.to_path_buf(),
        };
        save_png(result, image, &path)?;
        let seed = result.request.seed;
        let seed = seed.map_or(String::new(), |seed| format!(", seed {seed}"));
        let (width, height) = (image.image.width(), image.image.height());
        outln!("{} ({width}x{height}{seed})", path.display());
    }
    if !result.complete && std::io::stderr().is_terminal() {
        eprintln!("stopped before all images were finished");
    }
    Ok(())
}
