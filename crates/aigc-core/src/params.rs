//! Visiting every float tensor of a model, by path; the memory of a model.
//!
//! Paths are those in weight files: field names joined by dots, without the names of enum variants.

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Bool, DType, Int, Shape, Tensor},
};

/// Visits every float tensor of a model.
pub trait ParamVisitor {
    /// Called with each tensor, trained or not, and its path.
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>);
}

/// Replaces every float tensor of a model.
pub trait ParamMapper {
    /// Called with each tensor, trained or not, and its path; the tensor is replaced by the
    /// returned one.
    fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>>;
}

/// Calls `visitor` with every float tensor of `model`.
pub fn visit_params<M: Module>(model: &M, visitor: &mut impl ParamVisitor) {
    model.visit(&mut Walk {
        place: Place::default(),
        with: visitor,
    });
}

/// Replaces every float tensor of `model` by what `mapper` returns.
pub fn map_params<M: Module>(model: M, mapper: &mut impl ParamMapper) -> M {
    model.map(&mut Walk {
        place: Place::default(),
        with: mapper,
    })
}

/// The memory of all tensors of `model`, in bytes. Parameters that have no values yet count as
/// 32-bit floats.
pub fn num_bytes<M: Module>(model: &M) -> usize {
    let mut sum = Sum(0);
    model.visit(&mut sum);
    sum.0
}

/// Where a traversal of a model is.
#[derive(Default)]
pub(crate) struct Place {
    path: Vec<String>,
    /// Types of the enclosing modules, outermost first.
    modules: Vec<String>,
}

impl Place {
    pub(crate) fn enter(&mut self, name: &str, container: &str) {
        if !container.starts_with("Enum:") {
            self.path.push(name.to_string());
        }
        self.modules.push(container.to_string());
    }

    pub(crate) fn exit(&mut self, container: &str) {
        if !container.starts_with("Enum:") {
            self.path.pop();
        }
        self.modules.pop();
    }

    /// The path of the current parameter.
    pub(crate) fn path(&self) -> String {
        self.path.join(".")
    }

    /// The type of the module with the current parameter.
    pub(crate) fn module(&self) -> &str {
        let mut modules = self.modules.iter().rev();
        modules
            .find_map(|module| module.strip_prefix("Struct:"))
            .unwrap_or("")
    }
}

struct Walk<'a, W> {
    place: Place,
    with: &'a mut W,
}

impl<W: ParamVisitor> ModuleVisitor for Walk<'_, W> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.place.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.with.visit(&self.place.path(), param);
    }
}

impl<W: ParamMapper> ModuleMapper for Walk<'_, W> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.place.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.place.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.place.path();
        self.with.map(&path, param)
    }
}

struct Sum(usize);

impl Sum {
    fn add(&mut self, shape: Shape, dtype: DType) {
        self.0 += shape.num_elements() * dtype.size();
    }
}

impl ModuleVisitor for Sum {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let dtype = match param.is_initialized() {
            true => param.base().dtype(),
            false => DType::F32,
        };
        self.add(param.lazy_shape(), dtype);
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.add(param.lazy_shape(), param.val().dtype());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.add(param.lazy_shape(), param.val().dtype());
    }
}
