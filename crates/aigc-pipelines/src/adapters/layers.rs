//! The layers of a model that low-rank adapters can change, by their names in weight files.

use crate::single_file::scope::Shapes;
use aigc_core::weights::{ParamKey, pytorch_key};
use burn::{
    module::{Module, ModuleVisitor, Param, ParamId},
    tensor::Tensor,
};

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
    let mut visit = Visit::default();
    model.visit(&mut visit);
    visit.found
}

#[derive(Default)]
struct Visit {
    path: Vec<String>,
    modules: Vec<String>,
    found: ModelLayers,
}

impl ModuleVisitor for Visit {
    fn enter_module(&mut self, name: &str, container: &str) {
        if !container.starts_with("Enum:") {
            self.path.push(name.to_string());
        }
        self.modules.push(container.to_string());
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        if !container.starts_with("Enum:") {
            self.path.pop();
        }
        self.modules.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let modules = self.modules.iter().rev();
        let module = modules
            .filter_map(|module| module.strip_prefix("Struct:"))
            .next()
            .unwrap_or("");
        if self.modules.iter().any(|kind| kind == "Reparameterization") {
            self.found.adapted = true;
            return;
        }
        let key = pytorch_key(ParamKey {
            path: &path,
            module,
        });
        let name = key.candidates.into_iter().next().unwrap_or(path);
        self.found.names.insert(name.clone(), vec![]);
        let Some(layer) = name.strip_suffix(".weight") else {
            return;
        };
        let shape = param.lazy_shape().to_vec();
        let (kind, rows, columns) = match (module, &shape[..]) {
            ("Linear", [from, to]) => (LayerKind::Linear, *to, vec![*from]),
            ("Conv2d", [to, columns @ ..]) if columns.len() == 3 => {
                (LayerKind::Conv, *to, columns.to_vec())
            }
            _ => return,
        };
        self.found.layers.push(Layer {
            name: layer.into(),
            id: param.id,
            kind,
            rows,
            columns,
        });
    }
}
