//! The losses of a batch on the host.

use super::LossOutput;
use crate::{Error, Result};
use burn::tensor::Tensor;
use std::collections::BTreeSet;

/// The name of the gradient norm in reports.
pub(super) const GRAD_NORM: &str = "grad_norm";

/// The values of the losses, in one transfer from the device.
pub(super) fn read(losses: &LossOutput) -> Result<Vec<(String, f64)>> {
    let names: Vec<&str> = std::iter::once("loss")
        .chain(losses.metrics.iter().map(|(name, _)| *name))
        .collect();
    let distinct: BTreeSet<&str> = names.iter().copied().chain([GRAD_NORM]).collect();
    if distinct.len() <= names.len() {
        return Err(Error::argument(
            "losses",
            format!("{names:?}"),
            "metrics of different names, none `loss` or `grad_norm`",
        ));
    }
    let values = std::iter::once(&losses.loss).chain(losses.metrics.iter().map(|(_, value)| value));
    let values = Tensor::cat(values.map(|v| v.clone().detach()).collect(), 0).into_data();
    Ok(names
        .into_iter()
        .map(String::from)
        .zip(values.iter::<f64>())
        .collect())
}

/// Adds the values of one of `count` batches to the means.
pub(super) fn add(means: &mut Vec<(String, f64)>, values: Vec<(String, f64)>, count: usize) {
    for (name, value) in values {
        let value = value / count as f64;
        match means.iter_mut().find(|(n, _)| *n == name) {
            Some((_, mean)) => *mean += value,
            None => means.push((name, value)),
        }
    }
}
