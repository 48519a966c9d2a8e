//! Models in directories of files: opening, saving, the Hugging Face hub, quantisation, adapters.

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
use aigc_core::{data::download::ProgressFn, hub::Hub};
use burn::tensor::Device;
use serde_json::{Map, Value};
use std::path::Path;

pub(crate) const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
/// Weights in a directory, by how the names of their files begin.
const STEMS: &[&str] = &["model", "pytorch_model"];

/// All files of a model on the hub but the weights; configuration first.
#[cfg(feature = "download")]
const SMALL: &[&str] = &[
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
];
/// Weights on the hub, preferred ones first.
#[cfg(feature = "download")]
const REMOTE_WEIGHTS: &[&str] = &[
    WEIGHTS,
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// A part of a model that can be quantised.
#[derive(Debug)]
pub enum Part<'a> {
    /// A linear layer of a block.
    Projection(&'a mut Projection),
    /// A table of vectors.
    Embedding(&'a mut Embedding),
    /// An output layer of its own.
    LmHead(&'a mut LmHead),
}

/// A language model with files in transformers' layout. A family implements the first group of
/// methods; the others follow.
pub trait PretrainedModel: CausalLm {
    /// Values of `model_type` in a `config.json` that this model opens.
    const MODEL_TYPES: &'static [&'static str];
    /// Prefix of the paths of parameters in blocks; adapters are attached below it.
    const BLOCKS: &'static str;

    /// Checks the text of a `config.json`.
    ///
    /// # Errors
    /// [`Error::Config`] names the field.
    fn check_config(text: &str) -> Result<()>;

    /// A model by the text of its `config.json` and its weights.
    ///
    /// # Errors
    /// [`Error::Config`] names a field, [`Error::Weights`] all tensors that are missing or do not
    /// fit.
    fn from_files(config: &str, files: &WeightReader, device: &Device) -> Result<Loaded<Self>>;

    /// The fields of the `config.json` to save.
    fn config_fields(&self) -> Map<String, Value>;

    /// Writes the weights as transformers names them and lays them out: those of
    /// [`Linear`](aigc_core::nn::Linear) as `[out, in]`, those of [`Projection`] as `[in, out]`.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Weights`] if the file cannot be written.
    fn save_weights_to(&self, path: &Path) -> Result<()> {
        save_weights(self, path)
    }

    /// All parts to quantise.
    fn parts_mut(&mut self) -> Vec<Part<'_>>;

    /// Whether [`quantize`](Self::quantize) was applied.
    fn is_quantized(&self) -> bool;

    /// Configuration of the attached adapters, if there are any.
    fn lora(&self) -> Option<&LoraConfig>;

    /// Stores the configuration of the attached adapters; for [`with_lora`](Self::with_lora) and
    /// [`merge_lora`](Self::merge_lora).
    fn set_lora(&mut self, config: Option<LoraConfig>);

    /// Opens a directory in transformers' layout: `config.json`, and `model.safetensors`,
    /// `pytorch_model.bin`, shards or variants of them. The report lists configuration fields and
    /// tensors that are not used.
    ///
    /// # Errors
    /// [`Error::Io`] for a missing file, [`Error::Data`] names file and field, [`Error::Weights`]
    /// all tensors that are missing or do not fit.
    fn from_pretrained(dir: impl AsRef<Path>, device: &Device) -> Result<Loaded<Self>> {
        let dir = dir.as_ref();
        let config = json::read_file(&dir.join(CONFIG), |text| {
            Self::check_config(text)?;
            Ok(text.to_owned())
        })?;
        Self::from_files(&config, &WeightReader::from_dir(dir, STEMS)?, device)
    }

    /// Downloads a model of the Hugging Face hub by name (`gpt2`, `organisation/name`) and revision
    /// (a branch, a tag or a commit), unless it is in the hub's cache, and opens it. Also returns
    /// the directory with its files, for
    /// [`tokenizer::from_pretrained`](crate::tokenizer::from_pretrained) and
    /// [`GenerationConfig::from_pretrained`](crate::GenerationConfig::from_pretrained).
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot) and [`from_pretrained`](Self::from_pretrained).
    #[cfg(feature = "download")]
    fn from_hub(
        repo: &str,
        revision: &str,
        device: &Device,
        progress: &mut ProgressFn<'_>,
    ) -> Result<(Loaded<Self>, std::path::PathBuf)> {
        let dir = Self::snapshot(&Hub::from_env()?, repo, revision, progress)?;
        Ok((Self::from_pretrained(&dir, device)?, dir))
    }

    /// The directory with the files of a model of the hub: configuration, tokenizer and weights,
    /// as safetensors if there are any, else as PyTorch's pickles.
    ///
    /// # Errors
    /// [`Error::Download`] for files that cannot be downloaded; [`Error::Data`] if the
    /// configuration is not this model's, before weights are downloaded; [`Error::Config`] for an
    /// invalid name; [`Error::Io`] if the cache cannot be written.
    #[cfg(feature = "download")]
    fn snapshot(
        hub: &Hub,
        repo: &str,
        revision: &str,
        progress: &mut ProgressFn<'_>,
    ) -> Result<std::path::PathBuf> {
        let files = aigc_core::hub_model::ModelFiles {
            small: SMALL,
            weights: REMOTE_WEIGHTS,
        };
        let check = |path: &Path| json::read_file(path, Self::check_config);
        files.snapshot(hub, repo, revision, check, progress)
    }

    /// Writes a directory that transformers opens: `config.json` and `model.safetensors`.
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

    /// The same model with quantised matrices, for generation: a quarter or an eighth of the
    /// memory. Embeddings and the output layer, where rounding shows most, keep eight bits.
    /// Adapters are merged first. The result cannot be trained or saved.
    fn quantize(self, quantization: Quantization) -> Self {
        let mut model = self.merge_lora();
        for part in model.parts_mut() {
            match part {
                Part::Projection(projection) => projection.quantize(quantization),
                Part::Embedding(table) => table.quantize(Quantization::Int8),
                Part::LmHead(head) => head.quantize(Quantization::Int8),
            }
        }
        model
    }

    /// The same model with new adapters, the only parameters that are trained from now on. `B` is
    /// zero, so the output does not change yet; `A` is drawn uniformly on `±1/√in`, as in the
    /// authors' program, from the seed of a run or of
    /// [`init_weights`](aigc_core::rng::InitWeights::init_weights).
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range, a rank above a layer's smaller side, and a target
    /// that is no layer of the blocks; [`Error::Unsupported`] for models that are quantised or have
    /// adapters.
    fn with_lora(self, config: LoraConfig) -> Result<Self> {
        lora::attach(self, config)
    }

    /// The model with `W + (alpha / rank)·A·B` in place of each `W`: the same output without
    /// adapters. All parameters are trained from now on. Without adapters, the model as it is.
    fn merge_lora(self) -> Self {
        lora::merge(self)
    }

    /// Writes the adapters alone, as a directory that PEFT opens on the model they were trained
    /// for: `adapter_config.json` and `adapter_model.safetensors`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a model without adapters; [`Error::Io`] if a file cannot be
    /// written.
    fn save_lora(&self, dir: impl AsRef<Path>) -> Result<()> {
        lora::save(self, dir.as_ref())
    }

    /// The same model with the adapters of a directory that [`save_lora`](Self::save_lora) or PEFT
    /// wrote, which can be trained further.
    ///
    /// # Errors
    /// [`Error::Data`] names file and field where [`with_lora`](Self::with_lora) refuses the
    /// configuration, or it requests what is not supported; [`Error::Weights`] names all tensors
    /// that do not fit; [`Error::Io`] for a missing file.
    fn load_lora(self, dir: impl AsRef<Path>) -> Result<Self> {
        lora::load(self, dir.as_ref())
    }
}
