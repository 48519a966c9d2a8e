//! The networks of this crate by the names of their classes in diffusers.

use super::{
    DitConfig, DitModel, FluxTransformerConfig, FluxTransformerModel, PixArtTransformerConfig,
    PixArtTransformerModel, Sd3TransformerConfig, Sd3TransformerModel, UNet2dConditionConfig,
    UNet2dConditionModel, UNet2dConfig, UNet2dModel, dit, transformers,
};
use crate::{
    denoiser::{Conditioning, Denoiser},
    json,
};
use aigc_core::{
    Error, Result,
    checkpoint::write_atomic,
    data::SampleShape,
    nn::diffusers::diffusers_key,
    weights::{Loaded, OpenOptions, WeightDtype, WeightReader, open_model, save_weights},
};
#[cfg(feature = "download")]
use aigc_core::{data::download::ProgressFn, hub::Hub, hub_model::ModelFiles};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde_json::{Map, Value};
use std::path::Path;
#[cfg(feature = "download")]
use std::path::PathBuf;

/// File of a network's configuration, and of its weights, in diffusers' directories.
pub(crate) const CONFIG: &str = "config.json";
pub(super) const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";
/// Stems of the names of weight files in a directory.
pub(super) const STEMS: &[&str] = &["diffusion_pytorch_model"];

/// The table of networks. A new network is one row here, besides its own file: its class in
/// diffusers (and older names of that class), its module and its configuration, which has
/// `from_json` and `init`.
macro_rules! denoisers {
    ($($variant:ident($model:ident, $config:ident) = $class:literal $(| $alias:literal)*,
        $doc:literal;)*) => {
        /// Any of the networks of this crate.
        #[derive(Module, Debug)]
        #[allow(clippy::large_enum_variant)] // A program has one or two.
        #[non_exhaustive]
        pub enum AnyDenoiser {
            $(#[doc = $doc] $variant($model),)*
        }

        /// Evaluates an expression for whichever network it is.
        macro_rules! either {
            ($any:expr, $network:ident => $then:expr) => {
                match $any { $(AnyDenoiser::$variant($network) => $then,)* }
            };
        }

        impl AnyDenoiser {
            /// The names of all classes in diffusers.
            pub const CLASSES: &[&str] = &[$($class, $($alias,)*)*];

            /// The name of the class in diffusers.
            pub fn class(&self) -> &'static str {
                match self { $(Self::$variant(_) => $class,)* }
            }

            /// The current name of a class that has had several.
            fn canonical(class: &str) -> &str {
                match class { $($class $(| $alias)* => $class,)* other => other }
            }

            /// A network of this class with initial weights, by the fields of its configuration.
            fn init(class: &str, text: &str, device: &Device) -> Result<Loaded<Self>> {
                match class {
                    $($class $(| $alias)* => {
                        let config = $config::from_json(text)?;
                        let network = config.init(device)?;
                        Ok(config.map(|_| Self::$variant(network)))
                    })*
                    other => Err(Error::config("_class_name", other, expected_classes())),
                }
            }

            /// Checks the fields of the configuration of a network of this class.
            #[cfg(feature = "download")]
            fn check_class(class: &str, text: &str) -> Result<()> {
                match class {
                    $($class $(| $alias)* => $config::from_json(text).map(drop),)*
                    other => Err(Error::config("_class_name", other, expected_classes())),
                }
            }

            /// The fields of the configuration.
            fn fields(&self) -> Map<String, Value> {
                either!(self, network => json::to_map(network.config()))
            }

            fn save_weights(&self, path: &Path) -> Result<()> {
                either!(self, network => save_weights(network, path))
            }
        }

        impl Denoiser for AnyDenoiser {
            fn predict(
                &self,
                x: Tensor<4>,
                time: Tensor<1>,
                condition: &Conditioning,
            ) -> Tensor<4> {
                either!(self, network => network.predict(x, time, condition))
            }

            fn check_shape(&self, shape: SampleShape) -> Result<()> {
                either!(self, network => network.check_shape(shape))
            }

            fn check_trainable(&self, shape: SampleShape) -> Result<()> {
                either!(self, network => network.check_trainable(shape))
            }

            fn check_min_time(&self, min: f64) -> Result<()> {
                either!(self, network => network.check_min_time(min))
            }

            fn cross_attention_dim(&self) -> Option<usize> {
                either!(self, network => network.cross_attention_dim())
            }

            fn class_embedding_dim(&self) -> Option<usize> {
                either!(self, network => network.class_embedding_dim())
            }

            fn num_classes(&self) -> Option<usize> {
                either!(self, network => network.num_classes())
            }

            fn null_class(&self) -> Option<u32> {
                either!(self, network => network.null_class())
            }

            fn needs_from_pipeline(&self) -> Option<&'static str> {
                either!(self, network => network.needs_from_pipeline())
            }

            fn extra_input_channels(&self) -> usize {
                either!(self, network => network.extra_input_channels())
            }

            fn supports_self_conditioning(&self, channels: usize) -> bool {
                either!(self, network => network.supports_self_conditioning(channels))
            }

            fn sample_shape(&self) -> Option<SampleShape> {
                either!(self, network => network.sample_shape())
            }

            fn component(&self) -> &'static str {
                either!(self, network => network.component())
            }
        }

        $(impl From<$model> for AnyDenoiser {
            fn from(network: $model) -> Self {
                Self::$variant(network)
            }
        })*
    };
}

denoisers! {
    UNet2d(UNet2dModel, UNet2dConfig) = "UNet2DModel", "The U-net of DDPM.";
    UNet2dCondition(UNet2dConditionModel, UNet2dConditionConfig) = "UNet2DConditionModel",
        "A U-net with cross-attention.";
    Dit(DitModel, DitConfig) = "DiTTransformer2DModel" | "Transformer2DModel",
        "A transformer over patches.";
    Sd3Transformer(Sd3TransformerModel, Sd3TransformerConfig) = "SD3Transformer2DModel",
        "The transformer of Stable Diffusion 3 and 3.5.";
    FluxTransformer(FluxTransformerModel, FluxTransformerConfig) = "FluxTransformer2DModel",
        "The transformer of FLUX.1.";
    PixArtTransformer(PixArtTransformerModel, PixArtTransformerConfig) = "PixArtTransformer2DModel",
        "The transformer of PixArt.";
}

fn expected_classes() -> String {
    format!("one of {}", AnyDenoiser::CLASSES.join(", "))
}

impl AnyDenoiser {
    aigc_core::open_methods!("diffusion_pytorch_model");

    fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
        Self::open_class(dir, None, options, device)
    }

    /// [`from_pretrained_with`](Self::from_pretrained_with) for a network whose class is known from
    /// elsewhere, such as a `model_index.json`: its configuration need not name it.
    ///
    /// # Errors
    /// As [`from_pretrained`](Self::from_pretrained); [`Error::Data`] if the configuration names
    /// another class.
    pub fn open_class(
        dir: impl AsRef<Path>,
        class: Option<&str>,
        options: &OpenOptions,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let create = |text: &str| Self::read(text, class, device);
        open_model(dir.as_ref(), STEMS, options, create, diffusers_key)
    }

    /// A network from the text of its `config.json`, which has to name its class, and its weights,
    /// which may be a part of a larger file ([`WeightReader::renamed`]).
    ///
    /// # Errors
    /// [`Error::Config`] names the field, [`Error::Weights`] the tensors that do not fit.
    pub fn from_weights(
        config: &str,
        files: &WeightReader,
        dtype: WeightDtype,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        files.load(Self::from_json(config, device)?, dtype, diffusers_key)
    }

    #[cfg(feature = "download")]
    aigc_core::hub_methods!(pub download);

    /// The files of a network on the hub, in the first of `directories` that has them.
    #[cfg(feature = "download")]
    pub(crate) fn hub_files<'a>(
        directories: &'a [&'a str],
        variant: Option<&'a str>,
    ) -> ModelFiles<'a> {
        ModelFiles {
            directories,
            config_files: &[CONFIG],
            stems: STEMS,
            variant,
        }
    }

    /// Checks a `config.json` without creating the network; `class` as for
    /// [`open_class`](Self::open_class).
    #[cfg(feature = "download")]
    pub(crate) fn check_config(path: &Path, class: Option<&str>) -> Result<()> {
        json::read_file(path, |text| {
            let fields = json::parse_object(text)?;
            Self::check_class(Self::class_of(&fields, class)?, text)
        })
    }

    /// A network with initial weights, from the text of its `config.json`, which has to name its
    /// class.
    ///
    /// # Errors
    /// [`Error::Config`] names the field.
    pub fn from_json(text: &str, device: &Device) -> Result<Loaded<Self>> {
        Self::read(text, None, device)
    }

    fn read(text: &str, class: Option<&str>, device: &Device) -> Result<Loaded<Self>> {
        let fields = json::parse_object(text)?;
        Self::init(Self::class_of(&fields, class)?, text, device)
    }

    /// The class that a configuration names, or `class` if it names none.
    fn class_of<'a>(fields: &'a Map<String, Value>, class: Option<&'a str>) -> Result<&'a str> {
        // A class of older versions of diffusers was divided into several.
        let current = |class: &'a str| match class {
            dit::OLD_CLASS if transformers::is_pixart(fields) => transformers::PIXART,
            other => other,
        };
        let named = fields.get("_class_name").and_then(Value::as_str);
        let (named, class) = (named.map(current), class.map(current));
        if let (Some(named), Some(class)) = (named, class)
            && Self::canonical(named) != Self::canonical(class)
        {
            let expected = format!("{class}, the class that model_index.json names");
            return Err(Error::config("_class_name", named, expected));
        }
        named
            .or(class)
            .ok_or_else(|| Error::config("_class_name", "missing", expected_classes()))
    }

    /// The configuration of the network as diffusers writes it.
    pub fn to_json(&self) -> String {
        let mut fields = self.fields();
        // A field of this library, which other readers need not see.
        if fields.get("null_class") == Some(&Value::Null) {
            fields.remove("null_class");
        }
        fields.insert("_class_name".into(), self.class().into());
        serde_json::to_string_pretty(&fields).expect("plain values")
    }

    /// Writes a network's directory, as diffusers does.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Weights`] if a file cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        write_atomic(&dir.join(CONFIG), self.to_json().as_bytes())?;
        self.save_weights(&dir.join(WEIGHTS))
    }
}

/// Downloads the files of a network of the hub, and returns their directory.
#[cfg(feature = "download")]
fn download(
    hub: &Hub,
    repo: &str,
    revision: &str,
    variant: Option<&str>,
    progress: &mut ProgressFn<'_>,
) -> Result<PathBuf> {
    let check = |path: &Path| AnyDenoiser::check_config(path, None);
    AnyDenoiser::hub_files(&[], variant).snapshot(hub, repo, revision, check, progress)
}

/// The names in a directory, for an error message.
pub(crate) fn listing(dir: &Path) -> String {
    let Ok(entries) = std::fs::read_dir(dir) else {
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
