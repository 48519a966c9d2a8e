//! Pretrained models: opening, saving, the Hugging Face hub, quantisation, adapters.

use super::{CausalLm, LoraConfig, lora};
use crate::nn::{Embedding, LmHead, Projection};
use aigc_core::{
    Error, Result,
    checkpoint::write_atomic,
    json,
    ops::Quantization,
    weights::{Loaded, WeightReader, save_weights},
};
#[cfg(feature = "download")]
use aigc_core::{data::download::ProgressFn, hub::Hub, hub_model::ModelFiles};
use burn::tensor::Device;
use serde_json::{Map, Value};
use std::path::Path;
#[cfg(feature = "download")]
use std::path::PathBuf;

pub(crate) const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
/// Stems of the names of weight files in a directory.
const STEMS: &[&str] = &["model", "pytorch_model"];

/// Files of a model on the hub except the weights, configuration first.
#[cfg(feature = "download")]
const CONFIG_FILES: &[&str] = &[
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
];

/// A part of a model that can be quantised.
#[derive(Debug)]
#[non_exhaustive]
pub enum QuantizablePart<'a> {
    /// A linear layer of a block.
    Projection(&'a mut Projection),
    /// A table of embeddings.
    Embedding(&'a mut Embedding),
    /// An output layer that is not tied to the embedding.
    LmHead(&'a mut LmHead),
}

/// A language model with files in transformers' layout. A model implements the required methods;
/// the others are provided.
///
/// With the feature `download`, `from_hub` opens models of the Hugging Face hub by their names. It
/// also returns the directory of the files, for
/// [`tokenizer::from_pretrained`](crate::tokenizer::from_pretrained) and
/// [`GenerationConfig::from_pretrained`](crate::GenerationConfig::from_pretrained).
pub trait PretrainedModel: CausalLm {
    /// Values of `model_type` in a `config.json` that the model supports.
    const MODEL_TYPES: &'static [&'static str];
    /// Prefix of the paths of parameters in blocks, where adapters can be attached.
    const BLOCK_PREFIX: &'static str;
    /// Whether the model's files in transformers' layout have the weights of [`Projection`]s as
    /// `[in, out]`, as GPT-2's do; PEFT's `fan_in_fan_out`, which [`save_lora`](Self::save_lora)
    /// writes. A model whose files have them as `[out, in]` sets `false` and overrides
    /// [`save_weights_to`](Self::save_weights_to).
    const FAN_IN_FAN_OUT: bool = true;

    /// Checks the text of a `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    fn check_config(text: &str) -> Result<()>;

    /// Creates the model from the text of its `config.json` and its weights.
    ///
    /// # Errors
    /// [`Error::Config`] naming a field; [`Error::Weights`] naming all tensors that are missing or
    /// do not fit.
    fn from_files(config: &str, files: &WeightReader, device: &Device) -> Result<Loaded<Self>>;

    /// The fields of the `config.json` to save.
    fn config_fields(&self) -> Map<String, Value>;

    /// Writes the weights with the names and layouts of transformers. By default those of
    /// [`Linear`](aigc_core::nn::Linear) are written as `[out, in]`, those of [`Projection`] as
    /// `[in, out]`, which suits a model with [`FAN_IN_FAN_OUT`](Self::FAN_IN_FAN_OUT) only.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Weights`] if the file cannot be written.
    fn save_weights_to(&self, path: &Path) -> Result<()> {
        save_weights(self, path)
    }

    /// All parts that are quantised.
    fn parts_mut(&mut self) -> Vec<QuantizablePart<'_>>;

    /// Whether the model is quantised.
    fn is_quantized(&self) -> bool;

    /// Configuration of the attached adapters, if there are any.
    fn lora(&self) -> Option<&LoraConfig>;

    /// Stores the configuration of the attached adapters; used by [`with_lora`](Self::with_lora)
    /// and [`merge_lora`](Self::merge_lora).
    fn set_lora(&mut self, config: Option<LoraConfig>);

    /// Opens a model from a directory in transformers' layout: `config.json`, and
    /// `model.safetensors`, `pytorch_model.bin`, or shards or variants of them. The report lists
    /// configuration fields and tensors that were not used.
    ///
    /// # Errors
    /// [`Error::Io`] for a missing file; [`Error::Data`] naming file and field; [`Error::Weights`]
    /// naming all tensors that are missing or do not fit.
    fn from_pretrained(dir: impl AsRef<Path>, device: &Device) -> Result<Loaded<Self>> {
        open(dir.as_ref(), None, device)
    }

    /// [`from_pretrained`](Self::from_pretrained) for a variant of the weights: `fp16` opens
    /// `model.fp16.safetensors`.
    ///
    /// # Errors
    /// As [`from_pretrained`](Self::from_pretrained); [`Error::Weights`] if the variant is missing.
    fn from_pretrained_with_variant(
        dir: impl AsRef<Path>,
        variant: &str,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        open(dir.as_ref(), Some(variant), device)
    }

    #[cfg(feature = "download")]
    aigc_core::hub_methods!(download::<Self>);

    /// Writes a directory that transformers can open: `config.json` and `model.safetensors`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a quantised model or one with adapters; [`Error::Io`] or
    /// [`Error::Weights`] if a file cannot be written.
    fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        let refuse =
            |feature: &str, hint: &str| Err(Error::unsupported(feature, "save_pretrained", hint));
        if self.is_quantized() {
            return refuse("a quantised model", "save the model before it is quantised");
        }
        if self.lora().is_some() {
            return refuse(
                "a model with adapters",
                "merge them with merge_lora, or write them alone with save_lora",
            );
        }
        let text = serde_json::to_string_pretty(&self.config_fields()).expect("plain values");
        write_atomic(&dir.join(CONFIG), text.as_bytes())?;
        self.save_weights_to(&dir.join(WEIGHTS))
    }

    /// Quantises the weight matrices, for generation with a quarter or an eighth of the memory.
    /// Embeddings and the output layer, which are most sensitive to rounding, have eight bits.
    /// Adapters are merged first. A quantised model cannot be trained or saved.
    fn quantize(self, quantization: Quantization) -> Self {
        let mut model = self.merge_lora();
        for part in model.parts_mut() {
            match part {
                QuantizablePart::Projection(projection) => projection.quantize(quantization),
                QuantizablePart::Embedding(table) => table.quantize(Quantization::Int8),
                QuantizablePart::LmHead(head) => head.quantize(Quantization::Int8),
            }
        }
        model
    }

    /// Attaches new adapters, which are the only parameters trained from then on. `B` is zero, so
    /// the output does not change at first; `A` is drawn uniformly from `±1/√in`, as in the
    /// authors' code, with the seed of a training run or of
    /// [`init_weights`](aigc_core::rng::InitWeights::init_weights).
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range, a rank above a layer's smaller side, or a target
    /// that is not a layer of the blocks; [`Error::Unsupported`] for models that are quantised or
    /// have adapters.
    fn with_lora(self, config: LoraConfig) -> Result<Self> {
        lora::attach(self, config)
    }

    /// Merges the adapters: replaces each `W` by `W + (alpha / rank)·A·B`, so the output stays the
    /// same. All parameters are trained from then on. A model without adapters is returned
    /// unchanged.
    fn merge_lora(self) -> Self {
        lora::merge(self)
    }

    /// Writes only the adapters, as a directory that PEFT can open with the model they were trained
    /// for: `adapter_config.json` and `adapter_model.safetensors`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a model without adapters; [`Error::Io`] if a file cannot be
    /// written.
    fn save_lora(&self, dir: impl AsRef<Path>) -> Result<()> {
        lora::save(self, dir.as_ref())
    }

    /// Attaches the adapters in a directory that [`save_lora`](Self::save_lora) or PEFT wrote; they
    /// can be trained further.
    ///
    /// # Errors
    /// [`Error::Data`] naming file and field if [`with_lora`](Self::with_lora) rejects the
    /// configuration or it uses unsupported features; [`Error::Weights`] naming all tensors that do
    /// not fit; [`Error::Io`] for a missing file.
    fn load_lora(self, dir: impl AsRef<Path>) -> Result<Self> {
        lora::load(self, dir.as_ref())
    }
}

fn open<M: PretrainedModel>(
    dir: &Path,
    variant: Option<&str>,
    device: &Device,
) -> Result<Loaded<M>> {
    let config = json::read_file(&dir.join(CONFIG), |text| {
        M::check_config(text)?;
        Ok(text.to_owned())
    })?;
    let files = WeightReader::from_dir_with_variant(dir, STEMS, variant)?;
    M::from_files(&config, &files, device)
}

/// Downloads the files of a model of the hub, those of its tokenizer too, and returns their
/// directory.
#[cfg(feature = "download")]
fn download<M: PretrainedModel>(
    hub: &Hub,
    repo: &str,
    revision: &str,
    variant: Option<&str>,
    progress: &mut ProgressFn<'_>,
) -> Result<PathBuf> {
    let files = ModelFiles {
        config_files: CONFIG_FILES,
        stems: STEMS,
        variant,
        ..ModelFiles::default()
    };
    let check = |path: &Path| json::read_file(path, M::check_config);
    files.snapshot(hub, repo, revision, check, progress)
}
