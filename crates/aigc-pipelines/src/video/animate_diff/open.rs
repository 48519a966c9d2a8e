//! Opening directories.

use super::pipeline::AnimateDiffPipeline;
use crate::model_index::{ModelIndex, merge};
use aigc_core::{
    Result,
    weights::{Loaded, OpenOptions},
};
use aigc_diffusion::{MotionAdapter, UNet2dConditionModel, UNetMotionModel, WithMotion};
use aigc_encoders::{
    clip::{ClipTextEncoder, ClipTextModel},
    tokenizer::ClipTokenizer,
};
use aigc_vae::AutoencoderKl;
use burn::tensor::Device;
use std::path::{Path, PathBuf};

/// Classes of diffusers' pipelines that are opened; the second one with a motion adapter of another
/// directory.
const CLASSES: &[&str] = &["AnimateDiffPipeline", "StableDiffusionPipeline"];
/// The class of a network whose files have the motion modules.
pub(super) const WHOLE: &str = "UNetMotionModel";
/// Names of the parts that are opened.
pub(super) const PARTS: [&str; 6] = [
    "motion_adapter",
    "scheduler",
    "text_encoder",
    "tokenizer",
    "unet",
    "vae",
];

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

impl AnimateDiffPipeline {
    /// Opens a pipeline's directory, as diffusers writes it: `model_index.json` and a directory for
    /// each part. The motion modules are a part of their own (`motion_adapter`), or they are in the
    /// files of `unet`. The result reports what was not used.
    ///
    /// # Errors
    /// [`Error::Io`](aigc_core::Error::Io) for a missing file;
    /// [`Error::Data`](aigc_core::Error::Data) names file and field,
    /// [`Error::Weights`](aigc_core::Error::Weights) the tensors that do not fit.
    pub fn from_pretrained(dir: impl AsRef<Path>, device: &Device) -> Result<Loaded<Self>> {
        Self::from_pretrained_with(dir, &AnimateDiffOpenOptions::default(), device)
    }

    /// [`from_pretrained`](Self::from_pretrained) for a variant of the weights, or with motion
    /// modules of another directory.
    ///
    /// # Errors
    /// As [`from_pretrained`](Self::from_pretrained).
    pub fn from_pretrained_with(
        dir: impl AsRef<Path>,
        options: &AnimateDiffOpenOptions,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let dir = dir.as_ref();
        let index = ModelIndex::open(dir, classes(options))?;
        let mut report = index.unused(&PARTS);
        let network = network(&index, options, device, &mut report)?;

        let (path, _) = index.needed("text_encoder", &["CLIPTextModel"])?;
        let encoder = ClipTextModel::from_pretrained_with(path, &options.model, device)?;
        let encoder = merge(&mut report, "text_encoder", encoder);
        let (path, _) = index.needed("tokenizer", &["CLIPTokenizer", "CLIPTokenizerFast"])?;
        let encoder = ClipTextEncoder::new(ClipTokenizer::from_pretrained(path)?, encoder)?;

        let (path, _) = index.needed("vae", &["AutoencoderKL"])?;
        let vae = AutoencoderKl::from_pretrained_with(path, &options.model, device)?;
        let vae = merge(&mut report, "vae", vae);
        let scheduler = merge(&mut report, "scheduler", index.scheduler()?);

        let name = dir.file_name().unwrap_or(dir.as_os_str());
        let name = name.to_string_lossy().into_owned();
        let pipeline = Self::new(name, encoder, network, vae, scheduler, device)?;
        Ok(report.map(|()| pipeline))
    }
}

/// Classes of pipelines that are opened with these options.
pub(super) fn classes(options: &AnimateDiffOpenOptions) -> &'static [&'static str] {
    match options.motion_adapter {
        Some(_) => CLASSES,
        None => &CLASSES[..1],
    }
}

fn network(
    index: &ModelIndex,
    options: &AnimateDiffOpenOptions,
    device: &Device,
    report: &mut Loaded<()>,
) -> Result<UNetMotionModel> {
    let (path, class) = index.needed("unet", &[WHOLE, "UNet2DConditionModel"])?;
    let unet = match class {
        WHOLE => {
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
