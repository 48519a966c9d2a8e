//! Attaching the changes of adapters to the weights of a model.

use super::{
    delta::LowRankFactors,
    layers::{Layer, LayerKind, ModelLayers},
    low_rank::LowRank,
    plan::{Plan, Planned},
};
use aigc_core::{Error, Result};
use burn::{
    module::{Module, Param, ParamId, Reparameterizer},
    tensor::{Device, Tensor},
};
use std::collections::HashMap;

/// Attaches the changes of a plan to a model with these layers.
///
/// # Errors
/// [`Error::Unsupported`] for changes that are not products of two factors; errors of reading their
/// tensors.
pub(crate) fn attach<M: Module>(model: M, layers: &ModelLayers, plan: &Plan<'_>) -> Result<M> {
    let mut adapters = HashMap::new();
    for (index, changes) in plan {
        let layer = &layers.layers[*index];
        adapters.insert(layer.id, (layer, &changes[..]));
    }
    let mut failed = None;
    let model = model.apply_reparameterization(Attach {
        adapters,
        failed: &mut failed,
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(model),
    }
}

struct Attach<'a> {
    adapters: HashMap<ParamId, (&'a Layer, &'a [Planned<'a>])>,
    failed: &'a mut Option<Error>,
}

impl Attach<'_> {
    /// All changes of a layer as one, with the ranks side by side.
    fn low_rank(&self, id: ParamId, device: &Device) -> Result<Option<LowRank>> {
        let Some((layer, changes)) = self.adapters.get(&id) else {
            return Ok(None);
        };
        let factors: Vec<(LowRankFactors, f64)> = changes
            .iter()
            .map(|change| change.factors(layer, device))
            .collect::<Result<_>>()?;
        let scale = match &factors[..] {
            [(_, scale)] => *scale,
            _ => 1.0,
        };
        let (mut ups, mut downs) = (vec![], vec![]);
        for (LowRankFactors { up, down }, own) in factors {
            ups.push(if changes.len() > 1 { up * own } else { up });
            downs.push(down);
        }
        let (up, down) = (Tensor::cat(ups, 1), Tensor::cat(downs, 0));
        let (a, b) = match layer.kind {
            LayerKind::Linear => (down.transpose(), up.transpose()),
            LayerKind::Conv => (up, down),
        };
        let param = |factor| Param::from_tensor(factor).set_require_grad(false);
        Ok(Some(LowRank::new(param(a), param(b), scale)))
    }
}

impl Reparameterizer for Attach<'_> {
    type Reparam = LowRank;

    fn reparameterize<const D: usize>(
        &mut self,
        _path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LowRank>) {
        if self.failed.is_some() {
            return (param, None);
        }
        match self.low_rank(param.id, &param.lazy_device()) {
            Ok(adapter) => (param, adapter),
            Err(error) => {
                *self.failed = Some(error);
                (param, None)
            }
        }
    }
}
