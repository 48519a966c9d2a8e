//! Writing low-rank adapters.

use super::{
    Component, LoraForm,
    layers::{LayerKind, layers_of},
};
use aigc_core::{
    Error, Result,
    params::{ParamVisitor, visit_params},
    weights::save_tensors,
};
use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData},
};
use std::{collections::BTreeMap, path::Path};

/// File name of adapters in diffusers' directories.
const WEIGHTS: &str = "pytorch_lora_weights.safetensors";

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
                "attach them with `add_adapter`",
            )),
        }
    }

    /// Writes the adapters to a directory as `pytorch_lora_weights.safetensors`, which diffusers
    /// opens, or to a file if the path ends with `.safetensors`. PEFT's and diffusers' forms have
    /// no alpha, so there the scale is part of the factor `up`; kohya's form has alpha. The names
    /// in kohya's form are those for Stable Diffusion 1 and 2, unless there is a second text
    /// encoder; those of transformers begin with `lora_transformer_`.
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
                    let is_t5 = component.is_text_encoder() && name.starts_with("encoder.block.");
                    let prefix = match (component, several) {
                        (Component::Unet, _) => "lora_unet",
                        (Component::Transformer, _) => "lora_transformer",
                        // Also where T5 is the second encoder.
                        (Component::TextEncoder3, _) => "lora_te3",
                        _ if is_t5 => "lora_te3",
                        (Component::TextEncoder, false) => "lora_te",
                        (Component::TextEncoder, true) => "lora_te1",
                        (Component::TextEncoder2, _) => "lora_te2",
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
