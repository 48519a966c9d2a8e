//! Whichever network a folder holds.

use super::{
    DitConfig, DitModel, UNet2dConditionConfig, UNet2dConditionModel, UNet2dConfig, UNet2dModel,
};
use crate::{
    denoiser::{Conditioning, Denoiser},
    json,
};
use aigc_core::{
    Error, Result,
    checkpoint::write_atomic,
    data::ImageShape,
    weights::{KeyMapping, ParamKey, WeightReader, pytorch_key, save_weights},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde_json::Value;
use std::path::Path;

/// File of a network's configuration, and of its weights, in diffusers' folders.
const CONFIG: &str = "config.json";
const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";
const STEM: &str = "diffusion_pytorch_model";

/// Names of attention's weights in older versions of diffusers, whose files still have them.
const OLD_NAMES: &[(&str, &str)] = &[
    (".to_q.", ".query."),
    (".to_k.", ".key."),
    (".to_v.", ".value."),
    (".to_out.0.", ".proj_attn."),
];

/// Where diffusers stores a parameter.
fn diffusers_key(key: ParamKey<'_>) -> KeyMapping {
    let mapping = pytorch_key(key);
    match OLD_NAMES.iter().find(|(now, _)| key.path.contains(now)) {
        Some((now, old)) => {
            let name = mapping.candidates[0].replace(now, old);
            mapping.or(name)
        }
        None => mapping,
    }
}

/// Any of the networks of this crate.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // A program has one or two.
#[non_exhaustive]
pub enum AnyDenoiser {
    /// That of DDPM.
    UNet2d(UNet2dModel),
    /// One that looks at tokens.
    UNet2dCondition(UNet2dConditionModel),
    /// A transformer over patches.
    Dit(DitModel),
}

/// Runs `$then` with whichever network it is.
macro_rules! either {
    ($model:expr, $network:ident => $then:expr) => {
        match $model {
            AnyDenoiser::UNet2d($network) => $then,
            AnyDenoiser::UNet2dCondition($network) => $then,
            AnyDenoiser::Dit($network) => $then,
        }
    };
}

impl Denoiser for AnyDenoiser {
    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
        either!(self, network => network.predict(x, time, condition))
    }

    fn check_trainable(&self, shape: ImageShape) -> Result<()> {
        either!(self, network => network.check_trainable(shape))
    }

    fn check_shape(&self, shape: ImageShape) -> Result<()> {
        either!(self, network => network.check_shape(shape))
    }

    fn cross_attention_dim(&self) -> Option<usize> {
        either!(self, network => network.cross_attention_dim())
    }

    fn num_classes(&self) -> Option<usize> {
        either!(self, network => network.num_classes())
    }

    fn supports_self_conditioning(&self, channels: usize) -> bool {
        either!(self, network => network.supports_self_conditioning(channels))
    }
}

impl From<UNet2dModel> for AnyDenoiser {
    fn from(network: UNet2dModel) -> Self {
        Self::UNet2d(network)
    }
}

impl From<UNet2dConditionModel> for AnyDenoiser {
    fn from(network: UNet2dConditionModel) -> Self {
        Self::UNet2dCondition(network)
    }
}

impl From<DitModel> for AnyDenoiser {
    fn from(network: DitModel) -> Self {
        Self::Dit(network)
    }
}

impl AnyDenoiser {
    /// The names of all classes in diffusers.
    pub const CLASSES: &[&str] = &[
        "UNet2DModel",
        "UNet2DConditionModel",
        "DiTTransformer2DModel",
    ];

    /// The name of the class in diffusers.
    pub fn class(&self) -> &'static str {
        match self {
            AnyDenoiser::UNet2d(_) => Self::CLASSES[0],
            AnyDenoiser::UNet2dCondition(_) => Self::CLASSES[1],
            AnyDenoiser::Dit(_) => Self::CLASSES[2],
        }
    }

    /// Shape of the samples that it was made for; nothing where its file does not say the size.
    pub fn sample_shape(&self) -> Option<ImageShape> {
        let (channels, size) = match self {
            AnyDenoiser::UNet2d(network) => (
                network
                    .config()
                    .in_channels
                    .min(network.config().out_channels),
                network.config().sample_size,
            ),
            AnyDenoiser::UNet2dCondition(network) => {
                (network.config().in_channels, network.config().sample_size)
            }
            AnyDenoiser::Dit(network) => {
                let config = network.config();
                let out = config.out_channels.unwrap_or(config.in_channels);
                (config.in_channels.min(out), Some(config.sample_size.into()))
            }
        };
        size.map(|size| {
            let [height, width] = size.sides();
            ImageShape::new(channels, height, width)
        })
    }

    /// Opens a network's folder: `config.json` and `diffusion_pytorch_model.safetensors`. Also
    /// gives the fields of the configuration that are not known and change nothing.
    ///
    /// # Errors
    /// [`Error::Io`] for a missing file, [`Error::Data`] names file and field, [`Error::Weights`]
    /// the tensors that do not fit.
    pub fn open(folder: impl AsRef<Path>, device: &Device) -> Result<(Self, Vec<String>)> {
        let folder = folder.as_ref();
        let path = folder.join(CONFIG);
        let (network, ignored) = json::read_file(&path, |text| Self::from_json(text, device))?;
        let files = WeightReader::from_dir(folder, &[STEM])?;
        let (network, report) = files.load_into(network, diffusers_key)?;
        match report.unused.is_empty() {
            true => Ok((network, ignored)),
            false => Err(Error::weights(
                files.path(),
                format!("unexpected keys: {}", report.unused.join(", ")),
            )),
        }
    }

    /// A network with initial weights, from the text of its `config.json`, which has to name its
    /// class.
    ///
    /// # Errors
    /// [`Error::Config`] names the field.
    pub fn from_json(text: &str, device: &Device) -> Result<(Self, Vec<String>)> {
        let fields = json::parse_object(text)?;
        let class = fields
            .get("_class_name")
            .and_then(Value::as_str)
            .unwrap_or("missing");
        Ok(match class {
            "UNet2DModel" => {
                let (config, ignored) = UNet2dConfig::from_json(text)?;
                (config.init(device)?.into(), ignored)
            }
            "UNet2DConditionModel" => {
                let (config, ignored) = UNet2dConditionConfig::from_json(text)?;
                (config.init(device)?.into(), ignored)
            }
            "DiTTransformer2DModel" => {
                let (config, ignored) = DitConfig::from_json(text)?;
                (config.init(device)?.into(), ignored)
            }
            other => {
                return Err(Error::config(
                    "_class_name",
                    other,
                    format!("one of {}", Self::CLASSES.join(", ")),
                ));
            }
        })
    }

    /// Its configuration as diffusers writes it.
    pub fn to_json(&self) -> String {
        let mut fields = match self {
            AnyDenoiser::UNet2d(network) => json::to_map(network.config()),
            AnyDenoiser::UNet2dCondition(network) => json::to_map(network.config()),
            AnyDenoiser::Dit(network) => json::to_map(network.config()),
        };
        fields.insert("_class_name".into(), self.class().into());
        serde_json::to_string_pretty(&fields).expect("plain values")
    }

    /// Writes a network's folder, as diffusers does.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Weights`] if a file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        write_atomic(&folder.join(CONFIG), self.to_json().as_bytes())?;
        either!(self, network => save_weights(network, &folder.join(WEIGHTS)))
    }
}

/// What a folder holds, for an error message.
pub(crate) fn listing(folder: &Path) -> String {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return "nothing".into();
    };
    let mut names: Vec<_> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    if names.is_empty() {
        "nothing".into()
    } else {
        names.join(", ")
    }
}
