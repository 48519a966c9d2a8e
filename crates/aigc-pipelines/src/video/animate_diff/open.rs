//! Opening directories.

use super::pipeline::AnimateDiffPipeline;
use aigc_core::{
    DataFault, Error, Result, json,
    weights::{Loaded, OpenOptions},
};
use aigc_diffusion::{
    AnyScheduler, MotionAdapter, UNet2dConditionModel, UNetMotionModel, WithMotion,
};
use aigc_encoders::{
    clip::{ClipTextEncoder, ClipTextModel},
    tokenizer::ClipTokenizer,
};
use aigc_vae::AutoencoderKl;
use burn::tensor::Device;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

const INDEX: &str = "model_index.json";

/// Classes of diffusers' pipelines that are opened; the second one with a motion adapter from
/// elsewhere.
const CLASSES: [&str; 2] = ["AnimateDiffPipeline", "StableDiffusionPipeline"];

/// How an AnimateDiff pipeline is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnimateDiffOpenOptions {
    /// Variant and type of the weights.
    pub model: OpenOptions,
    /// Directory of motion modules, in place of those of the pipeline. With it, a directory of
    /// Stable Diffusion is opened too.
    pub motion_adapter: Option<PathBuf>,
}

impl AnimateDiffOpenOptions {
    /// With a variant and a type of the weights.
    pub fn with_model(mut self, model: OpenOptions) -> Self {
        self.model = model;
        self
    }

    /// With motion modules from a directory.
    pub fn with_motion_adapter(mut self, dir: impl Into<PathBuf>) -> Self {
        self.motion_adapter = Some(dir.into());
        self
    }
}

/// `model_index.json`.
struct Index {
    dir: PathBuf,
    fields: Map<String, Value>,
}

impl Index {
    fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(INDEX);
        let fields = json::read_file(&path, json::parse_object)?;
        Ok(Self {
            dir: dir.into(),
            fields,
        })
    }

    /// An error of the index.
    fn wrong(&self, field: &str, value: &str, expected: &str) -> Error {
        let reason = Error::config(field, value, expected).to_string();
        Error::data(self.dir.join(INDEX), DataFault::Mismatch(reason))
    }

    /// Directory and class of a part, if the pipeline has it.
    fn part(&self, name: &str) -> Option<(PathBuf, &str)> {
        let class = self.fields.get(name)?.get(1)?.as_str()?;
        Some((self.dir.join(name), class))
    }

    /// Directory and class of a part of one of these classes; any class if there are none.
    fn needed(&self, name: &str, classes: &[&str]) -> Result<(PathBuf, &str)> {
        let expected = match classes {
            [] => "a part of the pipeline".to_owned(),
            classes => classes.join(" or "),
        };
        match self.part(name) {
            Some((_, class)) if !classes.is_empty() && !classes.contains(&class) => {
                Err(self.wrong(name, class, &expected))
            }
            Some(part) => Ok(part),
            None => Err(self.wrong(name, "missing", &expected)),
        }
    }
}

/// The value of a part; its report goes to that of the pipeline.
fn merge<T>(report: &mut Loaded<()>, name: &str, mut part: Loaded<T>) -> T {
    for list in [
        &mut part.unused_fields,
        &mut part.unused_tensors,
        &mut part.notes,
    ] {
        list.iter_mut()
            .for_each(|text| *text = format!("{name}: {text}"));
    }
    report.merge(part)
}

impl AnimateDiffPipeline {
    /// Opens a pipeline's directory, as diffusers writes it: `model_index.json` and a directory for
    /// each part. The network is one of images and motion modules beside it, or both in one. What
    /// is returned says what was not used.
    ///
    /// # Errors
    /// [`Error::Io`] for a missing file; [`Error::Data`] names file and field,
    /// [`Error::Weights`] the tensors that do not fit.
    pub fn from_pretrained(dir: impl AsRef<Path>, device: &Device) -> Result<Loaded<Self>> {
        Self::from_pretrained_with(dir, &AnimateDiffOpenOptions::default(), device)
    }

    /// [`from_pretrained`](Self::from_pretrained) for a variant of the weights, or with motion
    /// modules from elsewhere.
    ///
    /// # Errors
    /// As [`from_pretrained`](Self::from_pretrained).
    pub fn from_pretrained_with(
        dir: impl AsRef<Path>,
        options: &AnimateDiffOpenOptions,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let dir = dir.as_ref();
        let index = Index::open(dir)?;
        let class = index.fields.get("_class_name").and_then(Value::as_str);
        let class = class.unwrap_or("missing");
        let known = match options.motion_adapter {
            Some(_) => &CLASSES[..],
            None => &CLASSES[..1],
        };
        if !known.contains(&class) {
            return Err(index.wrong("_class_name", class, &known.join(" or ")));
        }
        let mut report = Loaded::new(());
        let network = network(&index, options, device, &mut report)?;

        let (path, _) = index.needed("text_encoder", &["CLIPTextModel"])?;
        let encoder = ClipTextModel::from_pretrained_with(path, &options.model, device)?;
        let encoder = merge(&mut report, "text_encoder", encoder);
        let (path, _) = index.needed("tokenizer", &["CLIPTokenizer", "CLIPTokenizerFast"])?;
        let encoder = ClipTextEncoder::new(ClipTokenizer::from_pretrained(path)?, encoder)?;

        let (path, _) = index.needed("vae", &["AutoencoderKL"])?;
        let vae = AutoencoderKl::from_pretrained_with(path, &options.model, device)?;
        let vae = merge(&mut report, "vae", vae);
        let scheduler = merge(&mut report, "scheduler", scheduler(&index)?);

        if let Some((_, class)) = index.part("image_encoder") {
            let note = format!("image_encoder ({class}) was not opened");
            report.notes.push(note);
        }
        let name = dir.file_name().unwrap_or(dir.as_os_str());
        let name = name.to_string_lossy().into_owned();
        let pipeline = Self::new(name, encoder, network, vae, scheduler, device)?;
        Ok(report.map(|()| pipeline))
    }
}

fn network(
    index: &Index,
    options: &AnimateDiffOpenOptions,
    device: &Device,
    report: &mut Loaded<()>,
) -> Result<UNetMotionModel> {
    let (path, class) = index.needed("unet", &["UNetMotionModel", "UNet2DConditionModel"])?;
    let unet = match class {
        "UNetMotionModel" => {
            let whole = UNetMotionModel::from_pretrained_with(path, &options.model, device)?;
            let whole = merge(report, "unet", whole);
            if options.motion_adapter.is_none() {
                return Ok(whole);
            }
            whole.into_parts().0
        }
        _ => {
            let unet = UNet2dConditionModel::from_pretrained_with(path, &options.model, device)?;
            merge(report, "unet", unet)
        }
    };
    let path = match &options.motion_adapter {
        Some(path) => path.clone(),
        None => index.needed("motion_adapter", &["MotionAdapter"])?.0,
    };
    let motion = MotionAdapter::from_pretrained_with(path, &options.model, device)?;
    WithMotion::new(unet, merge(report, "motion_adapter", motion))
}

/// The scheduler, of the class that the index names.
fn scheduler(index: &Index) -> Result<Loaded<AnyScheduler>> {
    let (dir, class) = index.needed("scheduler", &[])?;
    json::read_file(&dir.join("scheduler_config.json"), |text| {
        let mut fields = json::parse_object(text)?;
        fields.insert("_class_name".into(), class.into());
        AnyScheduler::from_json(&Value::Object(fields).to_string())
    })
}
