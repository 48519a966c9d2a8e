//! [Low-rank adapters](LoraConfig) of language models, in memory and in PEFT's files.
//!
//! A layer becomes `y = x·W + (alpha / rank)·(x·A)·B + b`. Only few parameters are trained, so the
//! optimizer's state and the files are small.

use super::PretrainedModel;
use crate::fields;
use aigc_core::{
    Error, Result,
    checkpoint::write_atomic,
    json,
    lora::LoraConfig,
    nn::Initializer,
    params::{ParamVisitor, visit_params},
    weights::{KeyMapping, Loaded, ParamKey, WeightReader, save_tensors},
};
use burn::{
    module::{LoraAdapter, Param, ParamId, Reparameterizer},
    tensor::{Tensor, TensorData},
};
use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// Stem of the names of weight files in a directory.
const STEM: &str = "adapter_model";
/// Prefix of names in the model that PEFT wraps.
const WRAPPED: &str = "base_model.model.";

/// Fields of PEFT that do not affect trained adapters.
const INERT: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "fan_in_fan_out",
    "inference_mode",
    "layers_pattern",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
];

/// Reads an `adapter_config.json`. Unsupported features are errors unless they are turned off.
fn config_from_json(text: &str) -> Result<LoraConfig> {
    let mut fields = fields::parse(text)?;
    json::reject_unsupported(
        &mut fields,
        &[("peft_type", r#""LORA""#), ("bias", r#""none""#)],
    )?;
    // Other values also change the adapted weights.
    fields
        .remove("init_lora_weights")
        .map_or(Ok(()), |init| match init.as_str() {
            None | Some("gaussian") => Ok(()),
            Some(other) => Err(Error::config(
                "init_lora_weights",
                other,
                "true, false or gaussian",
            )),
        })?;
    let Loaded {
        value: config,
        unused_fields: others,
        ..
    } = json::from_map_with_defaults::<LoraConfig>(&fields)?;
    let is_off = |value: &serde_json::Value| match value {
        serde_json::Value::Null | serde_json::Value::Bool(false) => true,
        serde_json::Value::Array(items) => items.is_empty(),
        serde_json::Value::Object(items) => items.is_empty(),
        _ => false,
    };
    match others
        .iter()
        .find(|name| !INERT.contains(&name.as_str()) && !is_off(&fields[*name]))
    {
        Some(name) => Err(Error::config(
            name,
            &fields[name],
            "null or false: adapters of this kind are not supported",
        )),
        None => Ok(config),
    }
}

/// See [`PretrainedModel::with_lora`].
pub(super) fn attach<M: PretrainedModel>(model: M, config: LoraConfig) -> Result<M> {
    config.validate()?;
    let refuse = |feature, hint| Err(Error::unsupported(feature, "with_lora", hint));
    if model.is_quantized() {
        return refuse(
            "a quantised model",
            "attach adapters before it is quantised",
        );
    }
    if model.lora().is_some() {
        return refuse(
            "a model that has adapters already",
            "merge them with merge_lora first",
        );
    }
    let mut layers = Layers {
        below: M::BLOCK_PREFIX,
        found: Vec::new(),
    };
    visit_params(&model, &mut layers);
    let layers = layers.found;
    let names: Vec<&str> = layers.iter().map(|layer| &layer.name[..]).collect();
    config.check_targets(&names)?;
    let adapted: Vec<&Layer> = layers
        .iter()
        .filter(|layer| config.adapts(&layer.name))
        .collect();
    if let Some(layer) = adapted
        .iter()
        .find(|layer| layer.smaller_side < config.rank)
    {
        let expected = format!(
            "1 to {}, the smaller side of {}",
            layer.smaller_side, layer.name
        );
        return Err(Error::config("rank", config.rank, expected));
    }
    let attach = Attach {
        to: adapted.iter().map(|layer| layer.weight).collect(),
        rank: config.rank,
        scale: config.scale(),
    };
    let mut model = model.apply_reparameterization(attach);
    model.set_lora(Some(config));
    Ok(model)
}

/// See [`PretrainedModel::merge_lora`].
pub(super) fn merge<M: PretrainedModel>(mut model: M) -> M {
    if model.lora().is_none() {
        return model;
    }
    model.set_lora(None);
    model.materialize().set_require_grad(true)
}

/// See [`PretrainedModel::save_lora`].
pub(super) fn save<M: PretrainedModel>(model: &M, dir: &Path) -> Result<()> {
    let Some(config) = model.lora() else {
        return Err(Error::unsupported(
            "a model without adapters",
            "save_lora",
            "write the model with save_pretrained",
        ));
    };
    let mut fields = json::to_map(config);
    fields.insert("peft_type".into(), "LORA".into());
    fields.insert("task_type".into(), "CAUSAL_LM".into());
    fields.insert("fan_in_fan_out".into(), M::FAN_IN_FAN_OUT.into());
    fields.insert("bias".into(), "none".into());
    let text = serde_json::to_string_pretty(&fields).expect("plain values");
    let mut factors = Factors(BTreeMap::new());
    visit_params(model, &mut factors);
    save_tensors(&factors.0, &dir.join(WEIGHTS))?;
    write_atomic(&dir.join(CONFIG), text.as_bytes())
}

/// See [`PretrainedModel::load_lora`].
pub(super) fn load<M: PretrainedModel>(model: M, dir: &Path) -> Result<M> {
    let adapted = json::read_file(&dir.join(CONFIG), |text| {
        model.with_lora(config_from_json(text)?)
    })?;
    let mapping = |key: ParamKey<'_>| match peft_name(key.path) {
        // Names in a model without output layer lack the first component.
        Some(name) => {
            let short = name.split_once('.').map_or(&name[..], |(_, short)| short);
            let candidates = [&name[..], short]
                .map(|name| format!("{WRAPPED}{name}"))
                .into();
            KeyMapping {
                candidates,
                transpose: true,
            }
        }
        None => KeyMapping::skip(),
    };
    let files = WeightReader::from_dir(dir, &[STEM])?;
    let (model, report) = files.load_into(adapted, mapping)?;
    match report.unused.is_empty() {
        true => Ok(model),
        // A missing factor would change the result of the adapters.
        false => Err(Error::weights(
            files.path(),
            format!("unexpected keys: {}", report.unused.join(", ")),
        )),
    }
}

/// PEFT's name of a factor, which it stores transposed.
fn peft_name(path: &str) -> Option<String> {
    let (layer, factor) = path.split_once(".weight.lora.")?;
    Some(format!("{layer}.lora_{}.weight", factor.to_uppercase()))
}

/// Collects the linear layers of the blocks.
struct Layers {
    /// Prefix of their paths.
    below: &'static str,
    found: Vec<Layer>,
}

struct Layer {
    name: String,
    weight: ParamId,
    smaller_side: usize,
}

impl ParamVisitor for Layers {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        let layer = path
            .strip_suffix(".weight")
            .filter(|name| name.starts_with(self.below));
        if let (Some(name), &[from, to]) = (layer, &param.lazy_shape().to_vec()[..]) {
            self.found.push(Layer {
                name: name.into(),
                weight: param.id,
                smaller_side: from.min(to),
            });
        }
    }
}

/// Attaches adapters to the selected weights, and freezes all other parameters.
struct Attach {
    to: HashSet<ParamId>,
    rank: usize,
    scale: f64,
}

impl Reparameterizer for Attach {
    type Reparam = LoraAdapter;

    fn reparameterize<const D: usize>(
        &mut self,
        _path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LoraAdapter>) {
        let adapter = self.to.contains(&param.id).then(|| {
            let (shape, device, rank) =
                (param.lazy_shape().to_vec(), param.lazy_device(), self.rank);
            let (from, to) = (shape[0], shape[1]);
            LoraAdapter {
                a: Initializer::PYTORCH.param([from, rank], from, rank, &device),
                b: Initializer::ZEROS.param([rank, to], rank, to, &device),
                scale: self.scale,
            }
        });
        (param.set_require_grad(false), adapter)
    }
}

/// Factors of adapters with PEFT's names and layout.
struct Factors(BTreeMap<String, TensorData>);

impl ParamVisitor for Factors {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        if let Some(name) = peft_name(path) {
            self.0.insert(
                format!("{WRAPPED}{name}"),
                param.val().transpose().into_data(),
            );
        }
    }
}
