//! An average of the weights.

use super::EmaConfig;
use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::Tensor,
};
use std::{
    any::Any,
    collections::{HashMap, HashSet},
};

/// An exponential moving average of a model's weights: `w̄ ← d·w̄ + (1 − d)·w`.
///
/// It is a model without autodiff that owns all its tensors. What is trained is averaged; everything else, such as
/// batch normalisation's running statistics or frozen weights, is copied.
#[derive(Clone, Debug)]
pub struct Ema<M> {
    model: M,
    config: EmaConfig,
    updates: usize,
    averaged: HashSet<String>,
}

impl<M: Module> Ema<M> {
    /// An average that starts at the weights of `live`, a model in training mode.
    pub fn new(live: &M, config: EmaConfig) -> Self {
        // `valid` makes fresh copies of running statistics; a clone would share them with the live model.
        Self { model: live.valid(), config, updates: 0, averaged: collect(live, true).trainable }
    }

    /// An average that goes on from `model` after `updates` updates.
    pub fn resume(live: &M, model: M, config: EmaConfig, updates: usize) -> Self {
        Self { model, config, updates, averaged: collect(live, true).trainable }
    }

    /// Takes the weights of `live` in.
    pub fn update(&mut self, live: &M)
    where
        M: Clone,
    {
        let values = collect(&live.valid(), false).values;
        let mut merge = Merge { path: Vec::new(), values, averaged: &self.averaged, keep: self.decay() };
        self.model = self.model.clone().map(&mut merge);
        self.updates += 1;
    }

    /// Share of the old average that the next update keeps.
    pub fn decay(&self) -> f64 {
        let n = self.updates as f64;
        let start = if self.config.warmup { (1.0 + n) / (10.0 + n) } else { 1.0 };
        self.config.decay.min(start)
    }

    /// Number of updates so far.
    pub fn updates(&self) -> usize {
        self.updates
    }

    /// The averaged model.
    pub fn model(&self) -> &M {
        &self.model
    }
}

/// Tensors of a model by path.
#[derive(Default)]
struct Collected {
    path: Vec<String>,
    trainable_only: bool,
    trainable: HashSet<String>,
    values: HashMap<String, Box<dyn Any>>,
}

fn collect<M: Module>(model: &M, trainable_only: bool) -> Collected {
    let mut collected = Collected { trainable_only, ..Collected::default() };
    model.visit(&mut collected);
    collected
}

impl ModuleVisitor for Collected {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (path, value) = (self.path.join("."), param.val());
        if !self.trainable_only {
            self.values.insert(path, Box::new(value));
        } else if value.is_require_grad() {
            self.trainable.insert(path);
        }
    }
}

struct Merge<'a> {
    path: Vec<String>,
    values: HashMap<String, Box<dyn Any>>,
    averaged: &'a HashSet<String>,
    keep: f64,
}

impl ModuleMapper for Merge<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = self.path.join(".");
        let live = self.values.remove(&path).and_then(|value| value.downcast::<Tensor<D>>().ok());
        let live = *live.expect("the average and the live model have the same tensors");
        if self.averaged.contains(&path) {
            param.map(|old| old * self.keep + live * (1.0 - self.keep))
        } else {
            param.map(|_| live)
        }
    }
}
