//! Training low-rank adapters, and writing them.

use super::{
    Component, LoraForm,
    layers::{Layer, LayerKind, layers_of},
    low_rank::LowRank,
};
use aigc_core::{
    Error, Result, check,
    nn::Initializer,
    params::{ParamVisitor, visit_params},
    weights::save_tensors,
};
use burn::{
    module::{Module, Param, ParamId, Reparameterizer},
    tensor::{Tensor, TensorData},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

/// File name of adapters in diffusers' directories.
const WEIGHTS: &str = "pytorch_lora_weights.safetensors";

/// Configuration of adapters that are trained; the fields are PEFT's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoraConfig {
    /// Number of columns of one factor and of rows of the other.
    #[serde(rename = "r")]
    pub rank: usize,
    /// Numerator of the factor `alpha / rank` of the product, which makes the learning rate
    /// independent of the rank.
    #[serde(rename = "lora_alpha")]
    pub alpha: f64,
    /// Endings of the names of the layers to adapt, linear layers or convolutions.
    #[serde(rename = "target_modules")]
    pub targets: Vec<String>,
}

/// Those of diffusers' training scripts: the projections of attention.
impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 4,
            alpha: 4.0,
            targets: ["to_q", "to_k", "to_v", "to_out.0"].map(Into::into).into(),
        }
    }
}

impl LoraConfig {
    /// Attaches new adapters to `model` and freezes all its parameters, so that only the adapters
    /// are trained (Hu et al. 2021, <https://arxiv.org/abs/2106.09685>). One factor is zero, so
    /// the model's outputs stay the same at first.
    ///
    /// Initial values are drawn at first use; call
    /// [`init_weights`](aigc_core::rng::InitWeights::init_weights) for those of a seed.
    ///
    /// # Errors
    /// [`Error::Config`] for a rank or alpha out of range, and for a target that no layer's name
    /// ends with; [`Error::Unsupported`] for a model with adapters.
    pub fn attach<M: Module>(&self, model: M) -> Result<M> {
        check::sizes(&[("rank", self.rank, 1 << 16)])?;
        check::positive("alpha", self.alpha)?;
        let found = layers_of(&model);
        if found.adapted {
            return Err(Error::unsupported(
                "a model with attached adapters",
                "LoraConfig::attach",
                "take them away with `detach`, or merge them",
            ));
        }
        if self.targets.is_empty() {
            return Err(Error::config("targets", "[]", "at least one layer"));
        }
        let ends = |layer: &Layer, target: &str| {
            let rest = layer.name.strip_suffix(target);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        for target in &self.targets {
            if !found.layers.iter().any(|layer| ends(layer, target)) {
                let layers = found.layers.iter();
                let mut known: Vec<&str> = layers
                    .filter_map(|layer| layer.name.rsplit('.').next())
                    .collect();
                known.sort_unstable();
                known.dedup();
                let expected = format!("endings of layers' names, such as {}", known.join(", "));
                return Err(Error::config("targets", target, expected));
            }
        }
        let adapted = found.layers.iter().filter(|layer| {
            let mut targets = self.targets.iter();
            targets.any(|target| ends(layer, target))
        });
        let attach = Attach {
            layers: adapted.map(|layer| (layer.id, layer)).collect(),
            config: self,
        };
        Ok(model.apply_reparameterization(attach))
    }
}

struct Attach<'a> {
    layers: HashMap<ParamId, &'a Layer>,
    config: &'a LoraConfig,
}

impl Reparameterizer for Attach<'_> {
    type Reparam = LowRank;

    fn reparameterize<const D: usize>(
        &mut self,
        _path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LowRank>) {
        let LoraConfig { rank, alpha, .. } = *self.config;
        let adapter = self.layers.get(&param.id).map(|layer| {
            let (rows, width, device) = (
                layer.rows,
                layer.columns.iter().product(),
                param.lazy_device(),
            );
            // The factor on the side of the inputs is drawn, the other is zero.
            let drawn = |shape| Initializer::PYTORCH.param(shape, width, rank, &device);
            let zero = |shape| Initializer::ZEROS.param(shape, rank, rows, &device);
            let (a, b) = match layer.kind {
                LayerKind::Linear => (drawn([width, rank]), zero([rank, rows])),
                LayerKind::Conv => (zero([rows, rank]), drawn([rank, width])),
            };
            LowRank::new(a, b, alpha / rank as f64)
        });
        (param.set_require_grad(false), adapter)
    }
}

/// Adapters that are attached to models, to be written to a file.
#[derive(Clone, Debug, Default)]
pub struct LoraWriter {
    layers: Vec<Written>,
}

/// An adapter as files have it.
#[derive(Clone, Debug)]
struct Written {
    component: Component,
    name: String,
    /// `[rank, …]` and `[out, rank, …]`.
    down: TensorData,
    up: TensorData,
    scale: f64,
}

impl LoraWriter {
    /// Without adapters.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the adapters that are attached to a part.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the model has none.
    pub fn with<M: Module>(mut self, model: &M, component: Component) -> Result<Self> {
        let layers = layers_of(model).layers;
        let mut factors = Factors::default();
        visit_params(model, &mut factors);
        let before = self.layers.len();
        for layer in &layers {
            let at = |end: &str| factors.0.get(&format!("{}.weight.lora.{end}", layer.name));
            let (Some(a), Some(b), Some(scale)) = (at("a"), at("b"), at("scale")) else {
                continue;
            };
            let scale = scale.iter::<f64>().next().unwrap_or(1.0);
            let (down, up) = match layer.kind {
                LayerKind::Linear => (transposed(a), transposed(b)),
                LayerKind::Conv => (b.clone(), a.clone()),
            };
            let rank = down.shape()[0];
            let (mut down_shape, mut up_shape) = (vec![rank], vec![layer.rows, rank]);
            down_shape.extend(&layer.columns);
            if layer.kind == LayerKind::Conv {
                up_shape.extend([1, 1]);
            }
            let shaped = |data: &TensorData, shape: Vec<usize>| {
                TensorData::new(data.iter::<f32>().collect::<Vec<f32>>(), shape)
            };
            let text_model =
                component.is_text_encoder() && layer.name.starts_with("encoder.layers.");
            let prefix = if text_model { "text_model." } else { "" };
            self.layers.push(Written {
                component,
                name: format!("{prefix}{}", layer.name),
                down: shaped(&down, down_shape),
                up: shaped(&up, up_shape),
                scale,
            });
        }
        match self.layers.len() > before {
            true => Ok(self),
            false => Err(Error::unsupported(
                format!("a {component} without attached adapters"),
                "LoraWriter",
                "attach them with `LoraConfig::attach`",
            )),
        }
    }

    /// Writes the adapters to a directory as `pytorch_lora_weights.safetensors`, which diffusers
    /// opens, or to a file if the path ends with `.safetensors`. PEFT's and diffusers' forms have
    /// no alpha, so there the scale is part of the factor `up`; kohya's form has alpha. The names
    /// in kohya's form are those for Stable Diffusion 1 and 2, unless there is a second text
    /// encoder.
    ///
    /// # Errors
    /// [`Error::Weights`] or [`Error::Io`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>, form: LoraForm) -> Result<()> {
        let path = path.as_ref();
        let path = match path.extension().is_some_and(|kind| kind == "safetensors") {
            true => path.to_path_buf(),
            false => {
                std::fs::create_dir_all(path).map_err(Error::io(path))?;
                path.join(WEIGHTS)
            }
        };
        let several = self
            .layers
            .iter()
            .any(|layer| layer.component == Component::TextEncoder2);
        let mut tensors = BTreeMap::new();
        for layer in &self.layers {
            let Written {
                component,
                name,
                down,
                up,
                scale,
            } = layer;
            let scaled = || {
                let values: Vec<f32> = up
                    .iter::<f64>()
                    .map(|value| (value * scale) as f32)
                    .collect();
                TensorData::new(values, up.shape().to_vec())
            };
            match form {
                LoraForm::Peft => {
                    let stem = format!("{component}.{name}");
                    tensors.insert(format!("{stem}.lora_A.weight"), down.clone());
                    tensors.insert(format!("{stem}.lora_B.weight"), scaled());
                }
                LoraForm::Diffusers => {
                    let stem = format!("{component}.{name}");
                    tensors.insert(format!("{stem}.lora.down.weight"), down.clone());
                    tensors.insert(format!("{stem}.lora.up.weight"), scaled());
                }
                LoraForm::Kohya => {
                    let prefix = match (component, several) {
                        (Component::Unet | Component::Transformer, _) => "lora_unet",
                        (Component::TextEncoder, false) => "lora_te",
                        (Component::TextEncoder, true) => "lora_te1",
                        (Component::TextEncoder2, _) => "lora_te2",
                        (Component::TextEncoder3, _) => "lora_te3",
                    };
                    let stem = format!("{prefix}_{}", name.replace('.', "_"));
                    let alpha = (scale * down.shape()[0] as f64) as f32;
                    tensors.insert(format!("{stem}.lora_down.weight"), down.clone());
                    tensors.insert(format!("{stem}.lora_up.weight"), up.clone());
                    tensors.insert(
                        format!("{stem}.alpha"),
                        TensorData::new(vec![alpha], Vec::<usize>::new()),
                    );
                }
            }
        }
        save_tensors(&tensors, &path)
    }
}

/// Factors by their paths.
#[derive(Default)]
struct Factors(BTreeMap<String, TensorData>);

impl ParamVisitor for Factors {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        if path.contains(".lora.") {
            self.0.insert(path.into(), param.val().into_data());
        }
    }
}

/// The transpose of a matrix.
fn transposed(matrix: &TensorData) -> TensorData {
    let values: Vec<f32> = matrix.iter().collect();
    let [rows, columns] = [matrix.shape()[0], matrix.shape()[1]];
    let mut out = Vec::with_capacity(values.len());
    for column in 0..columns {
        out.extend((0..rows).map(|row| values[row * columns + column]));
    }
    TensorData::new(out, [columns, rows])
}
