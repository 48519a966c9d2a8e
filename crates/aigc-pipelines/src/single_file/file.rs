//! A single-file checkpoint, opened.

use super::{
    Family, PartReport, SingleFileOptions, SingleFileReport, config,
    detect::detect,
    flux,
    given::{hidden_layers, prediction, scheduler_config, with_prediction},
    scope::{Part, Scope, Shapes, shapes},
    sd3,
    text::{self, Projection, TextEncoderAt},
    unet::UnetLayout,
    vae,
};
use aigc_core::{
    Error, Result, json,
    weights::{TensorSource, WeightReader},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Prefixes of autoencoders: of Stable Diffusion's files, and of those with FLUX.1.
const AUTOENCODERS: [&str; 2] = ["first_stage_model.", "vae."];
/// Prefix of averaged weights, whose names have no dots.
const AVERAGED: &str = "model_ema.";
/// Prefix of the network that averaged weights belong to.
const NETWORK: &str = "model.diffusion_model.";

/// Beginnings of the names of tensors that are computed, or say how the model was trained.
const COMPUTED: [&str; 14] = [
    "alphas_cumprod",
    "betas",
    "denoiser.",
    "global_step",
    "log_one_minus_alphas_cumprod",
    "logvar",
    "lvlb_weights",
    "model_ema.",
    "posterior_",
    "scale_factor",
    "sqrt_",
    "v_pred",
    "ztsnr",
    "cond_stage_model.model.attn_mask",
];

/// A checkpoint in a single file, with the names of its first publication (`.safetensors` or
/// `.ckpt`). Weights are read when a part is loaded.
#[derive(Debug)]
pub struct SingleFile {
    reader: WeightReader,
    shapes: Shapes,
    parts: Vec<Part>,
    options: SingleFileOptions,
    zero_snr: bool,
    report: SingleFileReport,
}

impl SingleFile {
    /// Opens a file: its plain weights, with built-in configurations.
    ///
    /// # Errors
    /// As [`open_with_options`](Self::open_with_options).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with_options(path, &SingleFileOptions::new())
    }

    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with what was found and the known kinds, if the file is of no known
    /// kind or a directory; [`Error::InvalidArgument`] if averaged weights are requested and there
    /// are none; [`Error::Weights`], [`Error::Io`] or [`Error::Data`] if the file or a
    /// configuration is broken or cannot be read.
    pub fn open_with_options(path: impl AsRef<Path>, options: &SingleFileOptions) -> Result<Self> {
        if path.as_ref().is_dir() {
            return Err(Error::unsupported(
                format!("{}: a directory", path.as_ref().display()),
                "SingleFile",
                "open it with `TextToImagePipeline::from_pretrained`",
            ));
        }
        let reader = WeightReader::open(path.as_ref())?;
        let shapes = shapes(&reader);
        let (family, prefix) = detect(reader.path(), &shapes)?;
        let mut assumptions = vec![];
        let mut parts = vec![];
        let mut network = network(reader.path(), family, Scope::new(&shapes, prefix))?;
        let averaged = shapes.keys().filter(|name| name.starts_with(AVERAGED));
        let averaged = averaged.count();
        if options.averaged {
            use_averaged(reader.path(), &mut network, &shapes)?;
        }
        parts.push(network);
        let autoencoder = AUTOENCODERS
            .into_iter()
            .map(|prefix| Scope::new(&shapes, prefix))
            .find(|scope| scope.any("decoder."));
        parts.extend(autoencoder.map(vae::part));
        for (name, place) in family.text_encoders() {
            if !place.is_in(&shapes) {
                continue;
            }
            let layers = match family.is_2() {
                true => Some(layers_of_version_2(name, place, &shapes, options)?),
                false => None,
            };
            if layers.is_some_and(|layers| layers < place.layers(&shapes)) {
                let unused = "the last layers of the text encoder are not used, as published";
                assumptions.push(unused.to_owned());
            }
            let projection = match family.is_projected(name) {
                false => Projection::Without,
                true if family.is_flow() && name == "text_encoder" => Projection::OrIdentity,
                true => Projection::Kept,
            };
            parts.push(place.part(&shapes, name, layers, projection));
        }
        let (prediction_type, assumed) = prediction(family, &reader, options)?;
        assumptions.extend(assumed);
        let zero_snr = shapes.contains_key("ztsnr");
        let here: Vec<&str> = parts.iter().map(|part| part.name).collect();
        let missing_parts = family.parts();
        let report = SingleFileReport {
            path: reader.path().into(),
            family,
            prediction_type,
            parts: parts
                .iter()
                .map(|part| part_report(part, &reader, &shapes))
                .collect(),
            missing_parts: missing_parts
                .into_iter()
                .filter(|name| !here.contains(name))
                .collect(),
            averaged,
            uses_averaged: options.averaged,
            unused: unused(&parts, family, options.averaged, &shapes),
            assumptions,
        };
        Ok(Self {
            reader,
            shapes,
            parts,
            options: options.clone(),
            zero_snr,
            report,
        })
    }

    /// The model that the file holds.
    pub fn family(&self) -> Family {
        self.report.family
    }

    /// What was found in the file.
    pub fn report(&self) -> &SingleFileReport {
        &self.report
    }

    /// Names of the parts in the file, those of the directories in diffusers' layout: `unet` or
    /// `transformer`, `vae`, `text_encoder`, `text_encoder_2`, `text_encoder_3`.
    pub fn parts(&self) -> Vec<&'static str> {
        self.parts.iter().map(|part| part.name).collect()
    }

    /// The tensors of a part, with the names and layouts of diffusers' and transformers' files.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the file does not have the part.
    pub fn component_reader(&self, part: &str) -> Result<WeightReader> {
        let part = self.part(part)?;
        let wanted: BTreeSet<&str> = part
            .sources
            .iter()
            .map(|source| &source.source[..])
            .collect();
        let reader = self
            .reader
            .filtered(|name| wanted.contains(name))
            .renamed(part.sources.clone())?;
        Ok(match part.identity {
            Some((name, size)) => reader.with_identity(name, size),
            None => reader,
        })
    }

    /// The configuration of a part, as in its `config.json`; also that of the `scheduler`, and the
    /// `model_index`. Configurations come from the directory that was given, else they are built
    /// in: those of the published models, with the sizes of this file's tensors.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the file does not have the part; [`Error::Unsupported`] if a
    /// size cannot be found; [`Error::Io`] or [`Error::Data`] if the file of a directory cannot be
    /// read.
    pub fn config(&self, name: &str) -> Result<String> {
        if let Some(dir) = &self.options.configs {
            let path = match name {
                "scheduler" => scheduler_config(dir),
                "model_index" => dir.join("model_index.json"),
                _ => dir.join(self.part(name)?.name).join("config.json"),
            };
            let given = self.options.prediction_type;
            return json::read_file(&path, |text| match given {
                Some(given) if name == "scheduler" && !self.family().is_flow() => {
                    with_prediction(text, given)
                }
                _ => Ok(text.to_owned()),
            });
        }
        let (family, prediction) = (self.family(), self.report.prediction_type);
        let scheduler = || config::scheduler(family, prediction, self.zero_snr);
        match name {
            "scheduler" => Ok(scheduler()),
            "model_index" => Ok(config::model_index(family, &scheduler())),
            _ => config::of_part(family, prediction, self.part(name)?, &self.shapes),
        }
    }

    fn part(&self, name: &str) -> Result<&Part> {
        self.parts
            .iter()
            .find(|part| part.name == name)
            .ok_or_else(|| {
                let expected = format!("one of {}", self.parts().join(", "));
                Error::argument("part", name, expected)
            })
    }
}

/// The denoising network.
fn network(path: &Path, family: Family, scope: Scope<'_>) -> Result<Part> {
    match family {
        Family::StableDiffusion3 => Ok(sd3::part(scope)),
        Family::FluxDev | Family::FluxSchnell => Ok(flux::part(scope)),
        _ => {
            let layout = UnetLayout::from_original(scope);
            match layout.problem() {
                None => Ok(layout.part(scope)),
                Some(problem) => {
                    let reason = format!("an incomplete network: {problem}");
                    Err(Error::weights(path, reason))
                }
            }
        }
    }
}

/// Layers of the text encoder of version 2: those of the configuration that was given, else those
/// that are used.
fn layers_of_version_2(
    name: &str,
    place: TextEncoderAt,
    shapes: &Shapes,
    options: &SingleFileOptions,
) -> Result<usize> {
    let configured = match &options.configs {
        Some(dir) => hidden_layers(&dir.join(name))?,
        None => None,
    };
    Ok(configured.unwrap_or_else(|| text::used_layers_of_version_2(shapes, place)))
}

/// Replaces a network's tensors by their averages.
fn use_averaged(path: &Path, network: &mut Part, shapes: &Shapes) -> Result<()> {
    let of = |source: &TensorSource| {
        let inner = source.source.strip_prefix(NETWORK)?;
        let name = format!(
            "{AVERAGED}{}",
            format!("diffusion_model.{inner}").replace('.', "")
        );
        (shapes.get(&name) == shapes.get(&source.source)).then_some(name)
    };
    let total = network.sources.len();
    let names: Vec<String> = network.sources.iter().filter_map(of).collect();
    if names.len() < total {
        let found = format!("averages of {} of {total} tensors", names.len());
        let expected = format!("averages of all in {}", path.display());
        return Err(Error::argument("averaged_weights", found, expected));
    }
    for (source, name) in network.sources.iter_mut().zip(names) {
        source.source = name;
    }
    Ok(())
}

fn part_report(part: &Part, reader: &WeightReader, shapes: &Shapes) -> PartReport {
    let mut precision = BTreeMap::new();
    for source in &part.sources {
        let name = reader.type_name(&source.source).unwrap_or_default();
        *precision.entry(name).or_insert(0) += 1;
    }
    let sizes = part.shapes(shapes);
    let count = |shape: &Vec<usize>| {
        let sizes = shape.iter().map(|size| *size as u64);
        sizes.fold(1, u64::saturating_mul)
    };
    PartReport {
        name: part.name,
        tensors: part.sources.len(),
        parameters: sizes.values().map(count).fold(0, u64::saturating_add),
        precision,
        missing: part.missing.clone(),
    }
}

/// Names that no part uses, and that mean something.
fn unused(parts: &[Part], family: Family, averaged: bool, shapes: &Shapes) -> Vec<String> {
    let sources = parts.iter().flat_map(|part| &part.sources);
    let used: BTreeSet<&str> = sources.map(|source| &source.source[..]).collect();
    // What version 2 leaves out of its text encoder.
    let left_out = |name: &str| {
        family.is_2()
            && name.starts_with("cond_stage_model.model.")
            && (name.contains(".resblocks.") || name.contains("text_projection"))
    };
    // Of the network, the averages are used instead.
    let replaced = |name: &str| averaged && name.starts_with(NETWORK);
    // The table of tokens, a second time, and projections of encoders that are used without.
    let repeated = |name: &str| {
        name.ends_with("t5xxl.transformer.encoder.embed_tokens.weight")
            || name.ends_with(".transformer.text_projection.weight")
    };
    shapes
        .keys()
        .filter(|name| !used.contains(name.as_str()))
        .filter(|name| !COMPUTED.iter().any(|start| name.starts_with(start)))
        .filter(|name| !text::is_inert(name) && !left_out(name))
        .filter(|name| !replaced(name) && !repeated(name))
        .cloned()
        .collect()
}
