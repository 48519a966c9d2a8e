//! Checks and counts over all parameters.

use crate::params::{ParamVisitor, visit_params};
use burn::{
    module::{Module, Param, ParamId},
    tensor::Tensor,
};

/// Path and value of the first tensor in `models` that is not finite.
pub(super) fn not_finite<M: Module>(models: &[&M]) -> Option<(String, f64)> {
    let mut sums = Sums::default();
    models
        .iter()
        .for_each(|model| visit_params(*model, &mut sums));
    let values: Vec<f64> = Tensor::cat(sums.sums, 0)
        .into_data()
        .iter::<f64>()
        .collect();
    sums.paths
        .into_iter()
        .zip(values)
        .find(|(_, value)| !value.is_finite())
}

/// The sum of zero times every tensor: finite exactly if all tensors are.
#[derive(Default)]
struct Sums {
    paths: Vec<String>,
    sums: Vec<Tensor<1>>,
}

impl ParamVisitor for Sums {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        self.paths.push(path.to_string());
        self.sums.push((param.val() * 0.0).sum());
    }
}

/// Ids of the trained parameters under `field`, or of all, and their number of values.
pub(super) fn trainable<M: Module>(model: &M, field: Option<&str>) -> (Vec<ParamId>, usize) {
    let mut found = Trainable {
        field,
        ids: Vec::new(),
        values: 0,
    };
    visit_params(model, &mut found);
    (found.ids, found.values)
}

struct Trainable<'a> {
    field: Option<&'a str>,
    ids: Vec<ParamId>,
    values: usize,
}

impl ParamVisitor for Trainable<'_> {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        let inside = self
            .field
            .is_none_or(|field| path.split('.').next() == Some(field));
        if inside && param.val().is_require_grad() {
            self.ids.push(param.id);
            self.values += param.lazy_shape().num_elements();
        }
    }
}
