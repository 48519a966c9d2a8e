//! Layers whose output for a sample depends on the rest of the batch or on random numbers.

use burn::{
    module::{Flag, Module, ModuleVisitor, Param},
    tensor::Tensor,
};

/// Paths of the layers whose output for a sample depends on more than that sample: batch
/// normalisations, and modules with a flag that is set in training, such as dropout.
#[derive(Default)]
pub(crate) struct BatchDependence {
    path: Vec<String>,
    norms: Vec<String>,
    flags: Vec<String>,
}

impl BatchDependence {
    pub(crate) fn of<M: Module>(model: &M) -> Self {
        let mut found = Self::default();
        model.visit(&mut found);
        found
    }

    pub(crate) fn has_batch_norm(&self) -> bool {
        !self.norms.is_empty()
    }

    pub(crate) fn draws_at_random(&self) -> bool {
        self.flags.iter().any(|holder| !self.norms.contains(holder))
    }

    /// Path of the module that contains the visited field.
    fn holder(&self) -> String {
        self.path[..self.path.len().saturating_sub(1)].join(".")
    }
}

impl ModuleVisitor for BatchDependence {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_flag(&mut self, flag: &Param<Flag>) {
        if flag.is_enabled() {
            self.flags.push(self.holder());
        }
    }

    fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
        if self.path.last().is_some_and(|name| name == "running_mean") {
            self.norms.push(self.holder());
        }
    }
}
