//! Exponential moving average of the weights.

use super::EmaConfig;
use crate::params::{ParamMapper, ParamVisitor, map_params, visit_params};
use burn::{
    module::{Module, Param},
    tensor::Tensor,
};
use std::{
    any::Any,
    collections::{HashMap, HashSet},
};

/// An exponential moving average of a model's weights: `w̄ ← d·w̄ + (1 − d)·w`.
///
/// The average is a model without autodiff that shares no tensors. Trained parameters are averaged;
/// everything else, such as running statistics of batch normalisation or frozen weights, is copied.
#[derive(Clone, Debug)]
pub struct Ema<M> {
    model: M,
    config: EmaConfig,
    updates: usize,
    averaged: HashSet<String>,
}

impl<M: Module> Ema<M> {
    /// An average that starts with the weights of `live`, a model in training mode.
    pub fn new(live: &M, config: EmaConfig) -> Self {
        // `valid` copies running statistics; a clone would share them with the live model.
        Self::resume(live, live.valid(), config, 0)
    }

    /// An average that continues from `model` after `updates` updates.
    pub fn resume(live: &M, model: M, config: EmaConfig, updates: usize) -> Self {
        let mut trained = TrainedPaths::default();
        visit_params(live, &mut trained);
        Self {
            model,
            config,
            updates,
            averaged: trained.0,
        }
    }

    /// Updates the average with the weights of `live`.
    ///
    /// # Panics
    /// If `live` does not have the parameters of the model that the average began with.
    pub fn update(&mut self, live: &M) {
        let mut old = Values::default();
        visit_params(&self.model, &mut old);
        // Built on a fresh copy of the live model, so that tensors that are not averaged are
        // copied.
        let mut average = Average {
            old: old.0,
            averaged: &self.averaged,
            keep: self.decay(),
        };
        self.model = map_params(live.valid(), &mut average);
        self.updates += 1;
    }

    /// Weight of the old average in the next update.
    pub fn decay(&self) -> f64 {
        let n = self.updates as f64;
        let start = if self.config.warmup {
            (1.0 + n) / (10.0 + n)
        } else {
            1.0
        };
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

/// Paths of the trained parameters.
#[derive(Default)]
struct TrainedPaths(HashSet<String>);

impl ParamVisitor for TrainedPaths {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        if param.val().is_require_grad() {
            self.0.insert(path.to_string());
        }
    }
}

/// Tensors by path.
#[derive(Default)]
struct Values(HashMap<String, Box<dyn Any>>);

impl ParamVisitor for Values {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        self.0.insert(path.to_string(), Box::new(param.val()));
    }
}

struct Average<'a> {
    old: HashMap<String, Box<dyn Any>>,
    averaged: &'a HashSet<String>,
    keep: f64,
}

impl ParamMapper for Average<'_> {
    fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.averaged.contains(path) {
            return param;
        }
        let old = self
            .old
            .remove(path)
            .and_then(|value| value.downcast::<Tensor<D>>().ok());
        let old = *old.expect("the average and the live model have the same tensors");
        param.map(|live| old * self.keep + live * (1.0 - self.keep))
    }
}
