//! Adapters of low rank (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models",
//! <https://arxiv.org/abs/2106.09685>), in memory and in PEFT's files.
//!
//! A layer's `W`, `[in, out]`, stays as it is, and what it lacks for a new task is learned as a
//! product of two thin matrices: `y = x·W + (alpha / rank)·(x·A)·B + b` (equation 3). Few numbers
//! are trained, so few are kept by the optimizer and in a file.

use super::Gpt2;
use aigc_core::{
    DataFault, Error, Result,
    checkpoint::write_atomic,
    json,
    nn::Initializer,
    params::{ParamVisitor, visit_params},
    weights::{KeyMapping, ParamKey, WeightReader, save_tensors},
};
use burn::{
    module::{LoraAdapter, Module, Param, ParamId, Reparameterizer},
    tensor::{Tensor, TensorData},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
};

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";
/// Weights in a folder, by how the names of their files begin.
const STEM: &str = "adapter_model";
/// What PEFT puts before the names of the model it wraps.
const WRAPPED: &str = "base_model.model.";

/// Which layers are adapted, and by how much; in JSON the fields of PEFT's `adapter_config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoraConfig {
    /// Columns of `A` and rows of `B`.
    #[serde(rename = "r")]
    pub rank: usize,
    /// What the product is multiplied by, times the rank: another rank then needs no other learning
    /// rate.
    #[serde(rename = "lora_alpha")]
    pub alpha: f64,
    /// Layers by the ends of their names: `c_attn`, `c_proj`, `c_fc`, or `mlp.c_proj` where a name
    /// means two.
    #[serde(rename = "target_modules")]
    pub targets: Vec<String>,
}

/// PEFT's for GPT-2.
impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 8.0,
            targets: vec!["c_attn".into()],
        }
    }
}

/// Fields of PEFT that change nothing about adapters that are trained already.
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

impl LoraConfig {
    /// Fails unless every value is in its range; how large a rank may be, and which targets there
    /// are, the model says.
    ///
    /// # Errors
    /// [`Error::Config`] names the field.
    pub fn validate(&self) -> Result<()> {
        json::check_ranges(&[("rank", self.rank, 1 << 16)])?;
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            return Err(Error::config("alpha", self.alpha, "above 0"));
        }
        if self.targets.is_empty() {
            return Err(Error::config("targets", "[]", "a layer at least"));
        }
        Ok(())
    }

    /// A configuration from an `adapter_config.json`. What is not made here is refused, known or
    /// not, unless it is off.
    fn from_json(text: &str) -> Result<Self> {
        let mut fields = json::parse_object(text)?;
        json::reject_unsupported(
            &mut fields,
            &[("peft_type", r#""LORA""#), ("bias", r#""none""#)],
        )?;
        // Others change the weights that are adapted, too.
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
        let (config, others): (Self, _) = json::from_map_with_defaults(&fields)?;
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
                "null or false: adapters of this kind are not made here",
            )),
            None => Ok(config),
        }
    }

    fn adapts(&self, layer: &str) -> bool {
        self.targets
            .iter()
            .any(|target| ends_with_name(layer, target))
    }
}

/// Whether the last parts of a dotted name are `end`.
fn ends_with_name(name: &str, end: &str) -> bool {
    name.strip_suffix(end)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

impl Gpt2 {
    /// The same model with fresh adapters, which alone are trained from now on. `B` is zero, so
    /// nothing changes yet; `A` is drawn as the authors' program does, uniformly on `±1/√in`, from
    /// the seed of a run or of [`init_weights`](aigc_core::rng::InitWeights::init_weights).
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range, a rank above a layer's smaller side, a target
    /// that is no layer of the blocks, and models that are quantized or adapted already.
    pub fn with_lora(self, config: LoraConfig) -> Result<Self> {
        config.validate()?;
        if self.is_quantized() {
            return Err(Error::config(
                "model",
                "quantized",
                "adapters before it is quantized",
            ));
        }
        if self.lora.is_some() {
            return Err(Error::config(
                "model",
                "adapted",
                "merge_lora before other adapters",
            ));
        }
        let mut layers = Layers::default();
        visit_params(&self, &mut layers);
        let Layers(layers) = layers;
        let is_none = |target: &&String| {
            !layers
                .iter()
                .any(|layer| ends_with_name(&layer.name, target))
        };
        if let Some(target) = config.targets.iter().find(is_none) {
            return Err(Error::config(
                "targets",
                target,
                "ends of layers' names: c_attn, c_proj, c_fc, attn.c_proj, …",
            ));
        }
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
        let (rank, scale) = (config.rank, config.alpha / config.rank as f64);
        let attach = Attach {
            to: adapted.iter().map(|layer| layer.weight).collect(),
            rank,
            scale,
        };
        let mut model = self.apply_reparameterization(attach);
        model.lora = Some(config);
        Ok(model)
    }

    /// How it is adapted, if it is.
    pub fn lora(&self) -> Option<&LoraConfig> {
        self.lora.as_ref()
    }

    /// A plain model that says the same, `W + (alpha / rank)·A·B` in place of each `W`; all of it
    /// is trained from now on. Without adapters, the model as it is.
    pub fn merge_lora(mut self) -> Self {
        match self.lora.take() {
            Some(_) => self.materialize().set_require_grad(true),
            None => self,
        }
    }

    /// Writes the adapters alone, as a folder that PEFT opens upon the model they were made for:
    /// `adapter_config.json` and `adapter_model.safetensors`.
    ///
    /// # Errors
    /// [`Error::Data`] for a model without adapters; [`Error::Io`] if a file cannot be written.
    pub fn save_lora(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let Some(config) = &self.lora else {
            let fault = DataFault::Mismatch("a model without adapters has none to save".into());
            return Err(Error::Data {
                path: folder.into(),
                fault,
            });
        };
        let mut fields = json::to_map(config);
        fields.insert("peft_type".into(), "LORA".into());
        fields.insert("task_type".into(), "CAUSAL_LM".into());
        fields.insert("fan_in_fan_out".into(), true.into());
        fields.insert("bias".into(), "none".into());
        let text = serde_json::to_string_pretty(&fields).expect("plain values");
        let mut factors = Factors(BTreeMap::new());
        visit_params(self, &mut factors);
        save_tensors(&factors.0, &folder.join(WEIGHTS))?;
        write_atomic(&folder.join(CONFIG), text.as_bytes())
    }

    /// The same model with the adapters of a folder that [`save_lora`](Self::save_lora) or PEFT has
    /// written, ready to be trained further.
    ///
    /// # Errors
    /// [`Error::Data`] names file and field where [`with_lora`](Self::with_lora) refuses the
    /// configuration, or it asks for what is not made here; [`Error::Weights`] names all tensors
    /// that do not fit; [`Error::Io`] for a missing file.
    pub fn load_lora(self, folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let fresh = json::read_file(&folder.join(CONFIG), |text| {
            self.with_lora(LoraConfig::from_json(text)?)
        })?;
        let mapping = |key: ParamKey<'_>| match peft_name(key.path) {
            // Upon the model without its output layer, the names are shorter.
            Some(name) => {
                let short = name.strip_prefix("transformer.").unwrap_or(&name);
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
        let files = WeightReader::from_dir(folder, &[STEM])?;
        let (model, report) = files.load_into(fresh, mapping)?;
        match report.unused.is_empty() {
            true => Ok(model),
            false => Err(Error::weights(
                files.path(),
                format!("unexpected keys: {}", report.unused.join(", ")),
            )),
        }
    }
}

/// PEFT's name of a factor, which it keeps the other way round.
fn peft_name(path: &str) -> Option<String> {
    let (layer, factor) = path.split_once(".weight.lora.")?;
    Some(format!("{layer}.lora_{}.weight", factor.to_uppercase()))
}

/// Linear layers of the blocks.
#[derive(Default)]
struct Layers(Vec<Layer>);

struct Layer {
    name: String,
    weight: ParamId,
    smaller_side: usize,
}

impl ParamVisitor for Layers {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        let layer = path
            .strip_suffix(".weight")
            .filter(|name| name.starts_with("transformer.h."));
        if let (Some(name), &[from, to]) = (layer, &param.lazy_shape().to_vec()[..]) {
            self.0.push(Layer {
                name: name.into(),
                weight: param.id,
                smaller_side: from.min(to),
            });
        }
    }
}

/// Attaches adapters to some weights, and takes the gradients of all.
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

/// Adapters by PEFT's names, in its layout.
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
