//! The layers of a model that low-rank adapters can change, by their names in weight files.

use crate::single_file::scope::Shapes;
use aigc_core::{
    params::{ParamVisitor, visit_params},
    weights::{pytorch_key, stored_params},
};
use burn::{
    module::{Module, Param, ParamId},
    tensor::Tensor,
};
use std::collections::HashMap;

/// In the paths of adapters' factors, after that of the weight.
const LORA: &str = ".lora.";

/// Layout of a layer's weight in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LayerKind {
    /// `[in, out]`.
    Linear,
    /// `[out, in, height, width]`.
    Conv,
}

/// A layer with a weight of two or four axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    /// Its name in weight files.
    pub(crate) name: String,
    pub(crate) id: ParamId,
    pub(crate) kind: LayerKind,
    /// Outputs.
    pub(crate) rows: usize,
    /// The inputs, and the size of the kernel of a convolution.
    pub(crate) columns: Vec<usize>,
}

/// The layers of a model.
#[derive(Clone, Debug, Default)]
pub(crate) struct ModelLayers {
    pub(crate) layers: Vec<Layer>,
    /// Names of all tensors in files, with empty shapes.
    pub(crate) names: Shapes,
    /// Whether adapters are attached already.
    pub(crate) adapted: bool,
}

/// The layers of `model`.
pub(crate) fn layers_of<M: Module>(model: &M) -> ModelLayers {
    let mut ids = Ids::default();
    visit_params(model, &mut ids);
    let mut found = ModelLayers::default();
    for param in stored_params(model, pytorch_key) {
        if param.path.contains(LORA) {
            found.adapted = true;
            continue;
        }
        found.names.insert(param.name.clone(), vec![]);
        let kind = match (&param.module[..], param.shape.len()) {
            ("Linear", 2) => LayerKind::Linear,
            ("Conv2d", 4) => LayerKind::Conv,
            _ => continue,
        };
        if let (Some(name), Some(id)) = (param.name.strip_suffix(".weight"), ids.0.get(&param.path))
        {
            found.layers.push(Layer {
                name: name.into(),
                id: *id,
                kind,
                rows: param.shape[0],
                columns: param.shape[1..].to_vec(),
            });
        }
    }
    found
}

/// Ids by paths.
#[derive(Default)]
struct Ids(HashMap<String, ParamId>);

impl ParamVisitor for Ids {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        self.0.insert(path.into(), param.id);
    }
}
