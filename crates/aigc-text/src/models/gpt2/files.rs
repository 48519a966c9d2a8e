//! Files of GPT-2 in the layouts of transformers, OpenAI, minGPT and nanoGPT.

use super::{Gpt2, Gpt2Config, Transformer, config::MODEL_TYPE};
use crate::models::{LoraConfig, PretrainedModel, pretrained::QuantizablePart};
use aigc_core::{
    Result, json,
    params::{ParamMapper, ParamVisitor, map_params, visit_params},
    weights::{Loaded, ParamKey, WeightReader, pytorch_key, save_weights},
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, path::Path};

impl Gpt2 {
    /// Opens a weight file (or an index of shards) for a configuration. The layouts `[in, out]` and
    /// `[out, in]` are distinguished by the shape of the MLP weights.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for a configuration out of range;
    /// [`Error::Weights`](aigc_core::Error::Weights) naming all tensors that are missing or do not
    /// fit.
    pub fn from_weights(
        config: Gpt2Config,
        path: impl AsRef<Path>,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        Self::load(config, &WeightReader::open(path.as_ref())?, device)
    }

    fn load(mut config: Gpt2Config, files: &WeightReader, device: &Device) -> Result<Loaded<Self>> {
        let mut notes = files.notes().to_vec();
        if config.tie_word_embeddings && has_own_head(files)? {
            config.tie_word_embeddings = false;
            notes.push(format!(
                "{}: lm_head.weight differs from wte.weight although tie_word_embeddings is true; \
                 the file's lm_head is used",
                files.path().display()
            ));
        }
        let d = config.n_embd;
        // OpenAI's names begin with the block, all others with `transformer.`.
        let fc = named(files, "h.0.mlp.c_fc.weight").and_then(|name| files.shape(name));
        // PyTorch's linear layers, as in minGPT and nanoGPT, are stored as [out, in].
        let linear =
            fc.is_some_and(|shape| matches!(shape, [_, inner] if *inner == d) && shape[0] != d);
        let mapping = |key: ParamKey<'_>| {
            let mut mapping = pytorch_key(key);
            let layer = key.path.strip_suffix(".weight").unwrap_or_default();
            if ["c_attn", "c_proj", "c_fc"]
                .iter()
                .any(|name| layer.ends_with(&format!(".{name}")))
            {
                mapping.transpose = linear;
            }
            let short = |name: &String| name.strip_prefix("transformer.").map(str::to_owned);
            let short: Vec<String> = mapping.candidates.iter().filter_map(short).collect();
            mapping.candidates.extend(short);
            mapping
        };
        let (model, report) = files.load_into(config.init(device)?, mapping)?;
        notes.extend(
            report
                .prefix
                .map(|prefix| format!("names of tensors begin with `{prefix}`, which was removed")),
        );
        // Attention masks, and a tied output layer that is stored a second time.
        let tied = model.config().tie_word_embeddings;
        let is_redundant = |name: &String| {
            let is_mask = name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias");
            is_mask || tied && name.ends_with("lm_head.weight")
        };
        Ok(Loaded {
            unused_tensors: report
                .unused
                .into_iter()
                .filter(|name| !is_redundant(name))
                .collect(),
            notes,
            ..Loaded::new(model)
        })
    }

    /// The same model with biases; missing biases become zeros.
    fn with_biases(&self) -> Result<Self> {
        let mut tensors = Collected(BTreeMap::new());
        visit_params(self, &mut tensors);
        let device = self.devices().into_iter().next().unwrap_or_default();
        let whole = Gpt2Config {
            bias: true,
            ..self.config.clone()
        }
        .init(&device)?;
        Ok(map_params(whole, &mut tensors))
    }
}

/// The tensor whose name ends with `end`, if any.
fn named<'a>(files: &'a WeightReader, end: &str) -> Option<&'a str> {
    files.names().find(|name| name.ends_with(end))
}

/// Whether the files contain an output layer with other values than the token embedding.
fn has_own_head(files: &WeightReader) -> Result<bool> {
    let (Some(head), Some(table)) = (named(files, "lm_head.weight"), named(files, "wte.weight"))
    else {
        return Ok(false);
    };
    if files.shape(head) != files.shape(table) {
        return Ok(true);
    }
    let [head, table] = [files.read(head)?, files.read(table)?];
    let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
    Ok(head.iter().zip(&table).any(differs))
}

impl PretrainedModel for Gpt2 {
    const MODEL_TYPES: &'static [&'static str] = &[MODEL_TYPE];
    const BLOCK_PREFIX: &'static str = "transformer.h.";

    fn check_config(text: &str) -> Result<()> {
        Gpt2Config::from_json(text).map(|_| ())
    }

    fn from_files(config: &str, files: &WeightReader, device: &Device) -> Result<Loaded<Self>> {
        let config = Gpt2Config::from_json(config)?;
        let model = Self::load(config.value, files, device)?;
        Ok(model.with_unused_fields(config.unused_fields))
    }

    fn config_fields(&self) -> Map<String, Value> {
        let mut fields = json::to_map(&self.config);
        fields.remove("bias");
        fields.insert("model_type".into(), MODEL_TYPE.into());
        fields.insert("architectures".into(), vec!["GPT2LMHeadModel"].into());
        fields
    }

    /// transformers does not support GPT-2 without biases, so zeros are written.
    fn save_weights_to(&self, path: &Path) -> Result<()> {
        match self.config.bias {
            true => save_weights(self, path),
            false => save_weights(&self.with_biases()?, path),
        }
    }

    fn parts_mut(&mut self) -> Vec<QuantizablePart<'_>> {
        let Transformer { wte, wpe, h, .. } = &mut self.transformer;
        let mut parts = vec![
            QuantizablePart::Embedding(wte),
            QuantizablePart::Embedding(wpe),
        ];
        for block in h {
            let (attn, mlp) = (&mut block.attn, &mut block.mlp);
            let projections = [
                &mut attn.c_attn,
                &mut attn.c_proj,
                &mut mlp.c_fc,
                &mut mlp.c_proj,
            ];
            parts.extend(projections.map(QuantizablePart::Projection));
        }
        parts.extend(self.lm_head.as_mut().map(QuantizablePart::LmHead));
        parts
    }

    fn is_quantized(&self) -> bool {
        self.transformer.wte.weight.is_quantized()
    }

    fn lora(&self) -> Option<&LoraConfig> {
        self.lora.as_ref()
    }

    fn set_lora(&mut self, config: Option<LoraConfig>) {
        self.lora = config;
    }
}

/// Tensors by path.
struct Collected(BTreeMap<String, TensorData>);

impl ParamVisitor for Collected {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        self.0.insert(path.into(), param.val().into_data());
    }
}

impl ParamMapper for Collected {
    fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(data) = self.0.remove(path) else {
            return param;
        };
        let (id, tensor) = (param.id, Tensor::from_data(data, &param.lazy_device()));
        param.transform_for_load(tensor, id)
    }
}
