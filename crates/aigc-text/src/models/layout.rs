//! GPT-2's files, as transformers, OpenAI, minGPT and nanoGPT lay them out.

use super::{Gpt2, Gpt2Config};
use aigc_core::{
    DataFault, Error, Result,
    checkpoint::write_atomic,
    json,
    params::{ParamMapper, ParamVisitor, map_params, visit_params},
    weights::{ParamKey, WeightReader, pytorch_key, save_weights},
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};
use std::{collections::BTreeMap, path::Path};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
/// Weights in a folder, by how the names of their files begin.
const STEMS: &[&str] = &["model", "pytorch_model"];

impl Gpt2 {
    /// Opens a folder of transformers: `config.json`, and `model.safetensors`, `pytorch_model.bin`
    /// or shards of them. Also gives the fields of the configuration that are not known and change
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Io`] for a missing file, [`Error::Data`] names file and field, [`Error::Weights`]
    /// all tensors that do not fit.
    pub fn open(folder: impl AsRef<Path>, device: &Device) -> Result<(Self, Vec<String>)> {
        let folder = folder.as_ref();
        let (config, ignored) = json::read_file(&folder.join(CONFIG), Gpt2Config::from_json)?;
        let files = WeightReader::from_dir(folder, STEMS)?;
        Ok((Self::fill(config, &files, device)?, ignored))
    }

    /// Opens a file of weights for a configuration; `[in, out]` and `[out, in]` are told apart by
    /// the perceptrons' weights.
    ///
    /// # Errors
    /// [`Error::Config`] for a configuration out of range, [`Error::Weights`] names all tensors
    /// that do not fit.
    pub fn open_weights(
        config: Gpt2Config,
        path: impl AsRef<Path>,
        device: &Device,
    ) -> Result<Self> {
        Self::fill(config, &WeightReader::open(path.as_ref())?, device)
    }

    fn fill(config: Gpt2Config, files: &WeightReader, device: &Device) -> Result<Self> {
        let d = config.n_embd;
        // OpenAI's names begin with the block, everyone else's with `transformer.`.
        let fc = files
            .names()
            .find(|name| name.ends_with("h.0.mlp.c_fc.weight"))
            .and_then(|name| files.shape(name));
        // PyTorch's linear layers, as in minGPT and nanoGPT, have [out, in].
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
        // Masks of attention, and a tied output layer that is written twice.
        let tied = model.config().tie_word_embeddings;
        let is_known = |name: &String| {
            let is_mask = name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias");
            is_mask || tied && name.ends_with("lm_head.weight")
        };
        let unused: Vec<String> = report
            .unused
            .into_iter()
            .filter(|name| !is_known(name))
            .collect();
        match unused.is_empty() {
            true => Ok(model),
            false => Err(Error::weights(
                files.path(),
                format!("unexpected keys: {}", unused.join(", ")),
            )),
        }
    }

    /// Writes a folder that transformers opens. It knows no model without biases: there they are
    /// zeros.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Weights`] if a file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let config = self.config();
        let refuse = |reason: &str| Error::Data {
            path: folder.into(),
            fault: DataFault::Mismatch(reason.into()),
        };
        if self.is_quantized() {
            return Err(refuse(
                "weights of few bits have no place in transformers' layout; save the model before it is quantized",
            ));
        }
        if self.lora().is_some() {
            return Err(refuse(
                "adapters have no place in transformers' layout; merge them before, or save them alone",
            ));
        }
        if !config.bias {
            return self.with_biases()?.save(folder);
        }
        let mut fields = json::to_map(config);
        fields.remove("bias");
        fields.insert("model_type".into(), "gpt2".into());
        fields.insert("architectures".into(), vec!["GPT2LMHeadModel"].into());
        let text = serde_json::to_string_pretty(&fields).expect("plain values");
        write_atomic(&folder.join(CONFIG), text.as_bytes())?;
        save_weights(self, &folder.join(WEIGHTS))
    }

    /// The same model with biases, which are zeros where there were none.
    fn with_biases(&self) -> Result<Self> {
        let mut tensors = Collected(BTreeMap::new());
        visit_params(self, &mut tensors);
        let device = self.devices().into_iter().next().unwrap_or_default();
        let whole = Gpt2Config {
            bias: true,
            ..self.config().clone()
        }
        .init(&device)?;
        Ok(map_params(whole, &mut tensors))
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
