//! Visiting every float tensor of a model, by path.
//!
//! Paths are those in weight files: field names joined by dots, without the names of enum variants.

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::Tensor,
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
        path: Vec::new(),
        with: visitor,
    });
}

/// Replaces every float tensor of `model` by what `mapper` returns.
pub fn map_params<M: Module>(model: M, mapper: &mut impl ParamMapper) -> M {
    model.map(&mut Walk {
        path: Vec::new(),
        with: mapper,
    })
}

struct Walk<'a, W> {
    path: Vec<String>,
    with: &'a mut W,
}

impl<W> Walk<'_, W> {
    fn enter(&mut self, name: &str, container: &str) {
        if !container.starts_with("Enum:") {
            self.path.push(name.to_string());
        }
    }

    fn exit(&mut self, container: &str) {
        if !container.starts_with("Enum:") {
            self.path.pop();
        }
    }
}

impl<W: ParamVisitor> ModuleVisitor for Walk<'_, W> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.with.visit(&self.path.join("."), param);
    }
}

impl<W: ParamMapper> ModuleMapper for Walk<'_, W> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        self.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        self.with.map(&path, param)
    }
}
