//! Autoencoders in diffusers' layout: `AutoencoderKL` and `VQModel`, with the fields, the names of
//! weights and the files of diffusers.
//!
//! | file | content |
//! |---|---|
//! | `config` | the configurations |
//! | `architecture` | the fields that both configurations have, and their checks |
//! | `blocks` | encoder and decoder, which both models share |
//! | `autoencoder_kl` | Gaussian latents |
//! | `codebook` | codes, and the posterior over them |
//! | `vq_model` | latents out of a codebook |
//!
//! Images are in `[0, 1]`, as everywhere in this library. The networks work in `[−1, 1]`: the
//! encoder maps its input with `2·x − 1`, and the decoder's output `y` is the mean `(y + 1) / 2`.
//!
//! The models are used in two ways. As a [`Vae`](crate::Vae) they are trained, and their latents
//! are the encoder's. As an [`Autoencoder`](aigc_core::encoder::Autoencoder) they are the first
//! stage of latent diffusion: latents are shifted and scaled as their configuration says, and
//! decoded images are clamped to `[0, 1]`. Both traits have methods `encode` and `decode`; where
//! both are imported, `Vae::<4, 4>::encode(&model, x)` names one.

/// Defines the methods that open and save a model with the configuration `$config`.
macro_rules! diffusers_methods {
    ($config:ident) => {
        /// Opens a model's directory: `config.json` and `diffusion_pytorch_model.*`, in any layout
        /// that [`WeightReader::from_dir`](aigc_core::weights::WeightReader::from_dir) knows. The
        /// weights of attention may have the names of older versions of diffusers, and the shapes
        /// of convolutions of one pixel.
        ///
        /// # Errors
        /// [`Error::Io`](aigc_core::Error::Io) for a missing file; [`Error::Data`] names file and
        /// field, [`Error::Weights`](aigc_core::Error::Weights) the tensors that do not fit.
        ///
        /// [`Error::Data`]: aigc_core::Error::Data
        pub fn from_pretrained(dir: impl AsRef<Path>, device: &Device) -> Result<Loaded<Self>> {
            Self::open(dir.as_ref(), None, device)
        }

        /// [`from_pretrained`](Self::from_pretrained) for a variant of the weights: `fp16` opens
        /// `diffusion_pytorch_model.fp16.safetensors`.
        ///
        /// # Errors
        /// As [`from_pretrained`](Self::from_pretrained);
        /// [`Error::Weights`](aigc_core::Error::Weights) if the variant is missing.
        pub fn from_pretrained_with_variant(
            dir: impl AsRef<Path>,
            variant: &str,
            device: &Device,
        ) -> Result<Loaded<Self>> {
            Self::open(dir.as_ref(), Some(variant), device)
        }

        fn open(dir: &Path, variant: Option<&str>, device: &Device) -> Result<Loaded<Self>> {
            super::open(dir, variant, |text| {
                let mut config = $config::from_json(text)?;
                let model = config.init(device)?;
                let note = config.force_upcast.then(|| super::UPCAST.to_owned());
                config.notes.extend(note);
                Ok(config.map(|_| model))
            })
        }

        /// Writes a model's directory, as diffusers does: `config.json` and
        /// `diffusion_pytorch_model.safetensors`.
        ///
        /// # Errors
        /// [`Error::Io`](aigc_core::Error::Io) or [`Error::Weights`](aigc_core::Error::Weights) if
        /// a file cannot be written.
        pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
            super::save(self, &self.config.to_json(), dir.as_ref())
        }
    };
}

mod architecture;
mod autoencoder_kl;
mod blocks;
mod codebook;
mod config;
mod vq_model;

pub use autoencoder_kl::AutoencoderKl;
pub use codebook::QuantizedLatents;
pub use config::{AutoencoderKlConfig, DownEncoderBlockType, UpDecoderBlockType, VqModelConfig};
pub use vq_model::VqModel;

use aigc_core::{
    Error, Result,
    checkpoint::write_atomic,
    data::ValueRange,
    json,
    nn::diffusers::diffusers_key,
    params::{ParamMapper, map_params},
    weights::{KeyMapping, LoadReport, Loaded, ParamKey, WeightReader, save_weights},
};
use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData},
};
use std::{cell::RefCell, collections::BTreeMap, path::Path};

/// Names of files in a model's directory.
const CONFIG: &str = "config.json";
const STEM: &str = "diffusion_pytorch_model";

/// A note for files with `force_upcast`.
const UPCAST: &str = "force_upcast has no effect: the network computes in 32-bit floats";

/// Images in `[0, 1]` as the networks receive them, in `[−1, 1]`.
fn to_network(images: Tensor<4>) -> Tensor<4> {
    ValueRange::Unit.normalize(images)
}

/// Outputs of the networks as images in `[0, 1]`. Values outside stay outside.
fn to_images(output: Tensor<4>) -> Tensor<4> {
    (output + 1.0) * 0.5
}

/// Opens a model's directory. `init` creates the model of the text of a configuration.
fn open<M: Module>(
    dir: &Path,
    variant: Option<&str>,
    init: impl FnOnce(&str) -> Result<Loaded<M>>,
) -> Result<Loaded<M>> {
    let mut loaded = json::read_file(&dir.join(CONFIG), init)?;
    let files = WeightReader::from_dir_with_variant(dir, &[STEM], variant)?;
    let (model, report) = load_weights(loaded.value, &files)?;
    loaded.value = model;
    loaded.unused_tensors = report.unused;
    loaded.notes.extend(files.notes().iter().cloned());
    if let Some(prefix) = report.prefix {
        loaded
            .notes
            .push(format!("the prefix `{prefix}` of all tensors was removed"));
    }
    Ok(loaded)
}

/// Writes a model's directory, which is created if it is missing.
fn save<M: Module>(model: &M, config: &str, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    save_weights(&model.valid(), &dir.join(format!("{STEM}.safetensors")))?;
    write_atomic(&dir.join(CONFIG), config.as_bytes())
}

/// Loads the weights of `model`. Weights of attention may also be stored as convolutions of one
/// pixel, `[out, in, 1, 1]`, as in the files of the first latent diffusion models.
fn load_weights<M: Module>(model: M, files: &WeightReader) -> Result<(M, LoadReport)> {
    let convolutions = RefCell::new(BTreeMap::new());
    let (model, mut report) = files.load_into(model, |key: ParamKey<'_>| {
        let mapping = diffusers_key(key);
        let stored = (key.module == "Linear")
            .then(|| mapping.candidates.iter().find_map(|n| pointwise(files, n)))
            .flatten();
        match stored {
            Some(name) => {
                convolutions.borrow_mut().insert(key.path.to_owned(), name);
                KeyMapping::skip()
            }
            None => mapping,
        }
    })?;
    let names = convolutions.into_inner();
    if names.is_empty() {
        return Ok((model, report));
    }
    let mut fill = Pointwise {
        files,
        names,
        failed: None,
    };
    let model = map_params(model, &mut fill);
    report
        .unused
        .retain(|name| !fill.names.values().any(|used| used == name));
    match fill.failed {
        Some(error) => Err(error),
        None => Ok((model, report)),
    }
}

/// The stored name of a tensor, with or without a prefix, if it is a convolution of one pixel.
fn pointwise(files: &WeightReader, name: &str) -> Option<String> {
    let suffix = format!(".{name}");
    let matches = |stored: &&str| {
        (*stored == name || stored.ends_with(&suffix))
            && matches!(files.shape(stored), Some([_, _, 1, 1]))
    };
    files.names().find(matches).map(str::to_owned)
}

/// Loads the weights of linear layers that are stored as convolutions of one pixel.
struct Pointwise<'a> {
    files: &'a WeightReader,
    /// Names in the files, by path.
    names: BTreeMap<String, String>,
    failed: Option<Error>,
}

impl Pointwise<'_> {
    /// The transpose of the stored weight, for a layer of `shape`, `[in, out]`.
    fn read(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let found = self.files.shape(name).unwrap_or_default();
        match (found, shape) {
            ([to, from, 1, 1], [inputs, outputs]) if to == outputs && from == inputs => {
                let values = self.files.read(name)?;
                let columns = (0..*inputs).map(|i| values.iter().skip(i).step_by(*inputs));
                Ok(columns.flatten().copied().collect())
            }
            _ => {
                let reason = format!(
                    "size mismatch: {name} ({found:?}, expected the transpose of {shape:?})"
                );
                Err(Error::weights(self.files.path(), reason))
            }
        }
    }
}

impl ParamMapper for Pointwise<'_> {
    fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(name) = self.names.get(path).filter(|_| self.failed.is_none()) else {
            return param;
        };
        let shape = param.lazy_shape().to_vec();
        match self.read(name, &shape) {
            Ok(values) => {
                let data = TensorData::new(values, shape);
                let (id, tensor) = (param.id, Tensor::from_data(data, &param.lazy_device()));
                param.transform_for_load(tensor, id)
            }
            Err(error) => {
                self.failed = Some(error);
                param
            }
        }
    }
}
