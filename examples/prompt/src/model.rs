//! A model on this machine: its options on the command line, and how it is opened.

use aigc_core::{device::device, weights::WeightDtype};
use aigc_pipelines::{
    adapters::LoraScales,
    single_file::{SingleFile, SingleFileOptions},
    text_to_image::{LoraMode, PipelineOpenOptions, Residency, TextToImagePipeline},
};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::path::{Path, PathBuf};

/// Directory and name of the model that is opened where none is given.
const OWN_MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/paint/model");
const OWN_NAME: &str = "paint";

/// Options of a model on this machine.
#[derive(Clone, Debug, Args)]
pub struct ModelOptions {
    /// Directory of a pipeline as diffusers saves it, or a checkpoint in a single file. By default
    /// the small model of this repository, which paints shapes: "two red circles above a blue
    /// square".
    #[arg(long, value_name = "DIR|FILE")]
    model: Option<PathBuf>,
    /// For a single file: a pipeline's directory of the same family, which has the tokenizer.
    #[arg(long, value_name = "DIR", requires = "model")]
    base: Option<PathBuf>,
    /// For a single file of no published model: a pipeline's directory whose configurations
    /// describe the parts of the file. It also has the tokenizer, if --base is not given.
    #[arg(long, value_name = "DIR", requires = "model")]
    config: Option<PathBuf>,
    /// Variant of the weights, such as fp16.
    #[arg(long)]
    variant: Option<String>,
    /// Low-rank adapter, with its strength after a colon; may be repeated.
    #[arg(long, value_name = "FILE[:SCALE]")]
    lora: Vec<String>,
    /// Keep the weights in half precision in memory.
    #[arg(long)]
    half: bool,
    /// flex, ndarray, libtorch, wgpu, vulkan, metal, cuda:0, rocm or auto.
    #[arg(long, default_value = "flex")]
    device: String,
}

impl ModelOptions {
    /// Whether it is the model of this repository.
    pub fn is_own_model(&self) -> bool {
        self.model.is_none()
    }

    /// Checks what can be known before the model is opened, which takes its time.
    ///
    /// # Errors
    /// Names the option that cannot be.
    pub fn check(&self) -> Result<()> {
        let loras = self.loras()?;
        let given = [
            ("model", &self.model),
            ("base", &self.base),
            ("config", &self.config),
        ];
        let given = given
            .into_iter()
            .filter_map(|(name, path)| Some((name, path.as_ref()?)));
        for (name, path) in given.chain(loras.iter().map(|(path, _)| ("lora", path))) {
            check_exists(name, path)?;
        }
        let Some(model) = &self.model else {
            return check_own_model(Path::new(OWN_MODEL));
        };
        let shown = model.display();
        if model.is_file() {
            ensure!(
                self.variant.is_none(),
                "--variant names files in a directory, but --model {shown} is a file"
            );
            self.tokenizers(model)?;
        } else {
            for (name, dir) in [("base", &self.base), ("config", &self.config)] {
                ensure!(
                    dir.is_none(),
                    "--{name} is for a checkpoint in a single file, but --model {shown} is a \
                     directory"
                );
            }
        }
        Ok(())
    }

    /// How the parts of the model, and what is added to them, are opened and kept.
    pub fn open_options(&self, residency: Residency) -> PipelineOpenOptions {
        let mut options = PipelineOpenOptions::default().with_residency(residency);
        if let Some(variant) = &self.variant {
            options = options.with_variant(variant);
        }
        if self.half {
            options = options.with_dtype(WeightDtype::F16);
        }
        options
    }

    /// Opens the model with its adapters, and prints to standard error what was found.
    ///
    /// # Errors
    /// Those of [`check`](Self::check), and of the files.
    pub fn open(&self, residency: Residency) -> Result<TextToImagePipeline> {
        self.check()?;
        let (device, options) = (device(&self.device)?, self.open_options(residency));
        let path = self.model.as_deref().unwrap_or(Path::new(OWN_MODEL));
        let mut pipeline = if path.is_file() {
            let mut how = SingleFileOptions::new();
            if let Some(config) = &self.config {
                how = how.with_configs(config);
            }
            let file = SingleFile::open_with_options(path, &how)?;
            eprint!("{}", file.report());
            let base = self.tokenizers(path)?;
            let loaded = TextToImagePipeline::from_single_file(&file, base, &options, &device)?;
            let printed = file.report().warnings();
            for warning in loaded.warnings() {
                if !printed.contains(&warning) {
                    eprintln!("{warning}");
                }
            }
            loaded.into_inner()
        } else {
            let loaded = TextToImagePipeline::from_pretrained_with(path, &options, &device);
            let loaded = loaded.with_context(|| format!("--model {}", path.display()))?;
            let mut pipeline = loaded.into_inner();
            if self.is_own_model() {
                pipeline = pipeline.with_name(OWN_NAME);
            }
            eprint!("{}", pipeline.report());
            pipeline
        };
        let loras = self.loras()?;
        if !loras.is_empty() {
            let files: Vec<(PathBuf, LoraScales)> = loras
                .into_iter()
                .map(|(path, scale)| (path, scale.into()))
                .collect();
            for report in pipeline.load_loras(&files, LoraMode::default())? {
                eprintln!("{report}");
            }
        }
        Ok(pipeline)
    }

    /// Directory that has the tokenizers for a single file.
    fn tokenizers(&self, file: &Path) -> Result<&Path> {
        let dir = self.base.as_deref().or(self.config.as_deref());
        dir.with_context(|| {
            format!(
                "--model {} is a single file: --base DIR has the tokenizers, where DIR is a \
                 pipeline's directory of the same family",
                file.display()
            )
        })
    }

    /// Files of low-rank adapters and their strengths.
    fn loras(&self) -> Result<Vec<(PathBuf, f64)>> {
        let parse = |text: &String| {
            let parts = text.rsplit_once(':');
            let scaled = parts.and_then(|(path, scale)| Some((path, scale.parse::<f64>().ok()?)));
            let (path, scale) = scaled.unwrap_or((text, 1.0));
            ensure!(
                scale.is_finite(),
                "--lora {text}: the strength is {scale}, expected a finite number"
            );
            Ok((PathBuf::from(path), scale))
        };
        self.lora.iter().map(parse).collect()
    }
}

/// Checks that the path of an option is there.
///
/// # Errors
/// Names the option and the path.
pub fn check_exists(option: &str, path: &Path) -> Result<()> {
    let shown = path.display();
    ensure!(
        path.exists(),
        "--{option} {shown}: there is no such file or directory"
    );
    Ok(())
}

/// Checks that the model of this repository is there.
fn check_own_model(dir: &Path) -> Result<()> {
    let (is_there, shown) = (dir.join("model_index.json").is_file(), dir.display());
    ensure!(
        is_there,
        "there is no model in {shown}: give one by --model, or train the small one by \
         `cargo run --release --example reproduce_paint -- autoencoder` and \
         `cargo run --release --example reproduce_paint -- painter`, and copy \
         runs/paint-<newest>/model there"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        model: ModelOptions,
    }

    fn parse(arguments: &[&str]) -> ModelOptions {
        let program = Program::try_parse_from([&["program"], arguments].concat());
        program.unwrap().model
    }

    #[test]
    fn adapters_may_have_a_strength() {
        let options = parse(&["--lora", "x:0.5", "--lora", "C:\\y"]);
        let expected = [(PathBuf::from("x"), 0.5), (PathBuf::from("C:\\y"), 1.0)];
        assert_eq!(options.loras().unwrap(), expected);
    }

    #[test]
    fn options_say_how_parts_are_opened() {
        assert_eq!(
            parse(&[]).open_options(Residency::default()),
            PipelineOpenOptions::default()
        );
        let options = parse(&["--variant", "fp16", "--half"]);
        let expected = PipelineOpenOptions::default()
            .with_variant("fp16")
            .with_dtype(WeightDtype::F16)
            .with_residency(Residency::WhileNeeded);
        assert_eq!(options.open_options(Residency::WhileNeeded), expected);
    }

    #[test]
    fn mistakes_are_named_before_the_model_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (here, no, file) = (
            dir.path().display().to_string(),
            path("none"),
            path("model.safetensors"),
        );
        std::fs::write(&file, "").unwrap();
        assert!(parse(&["--model", &here]).check().is_ok());
        for option in ["--base", "--config"] {
            assert!(parse(&["--model", &file, option, &here]).check().is_ok());
        }
        let lora = format!("{no}:0.5");
        for (options, expected) in [
            (&["--model", &no][..], "there is no such file"),
            (&["--model", &file, "--base", &no], "--base"),
            (&["--model", &file], "--base DIR has the tokenizers"),
            (&["--model", &here, "--base", &here], "is a directory"),
            (&["--model", &file, "--variant", "fp16"], "is a file"),
            (&["--model", &here, "--lora", "x:inf"], "--lora x:inf"),
            (
                &["--model", &here, "--lora", &lora],
                "there is no such file",
            ),
        ] {
            let error = parse(options).check().unwrap_err().to_string();
            assert!(error.contains(expected), "{options:?}: {error}");
        }
    }

    #[test]
    fn without_a_model_the_commands_that_make_one_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = check_own_model(dir.path()).unwrap_err().to_string();
        for expected in [
            "--model",
            "reproduce_paint -- autoencoder",
            "reproduce_paint -- painter",
            "copy runs/paint-<newest>/model",
        ] {
            assert!(error.contains(expected), "{error}");
        }
        std::fs::write(dir.path().join("model_index.json"), "{}").unwrap();
        assert!(check_own_model(dir.path()).is_ok());
    }
}
