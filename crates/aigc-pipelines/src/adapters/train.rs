//! Low-rank adapters that are trained.

use super::{
    layers::{Layer, LayerKind, layers_of},
    low_rank::LowRank,
};
use aigc_core::{Error, Result, lora::LoraConfig, nn::Initializer};
use burn::{
    module::{Module, Param, ParamId, Reparameterizer},
    tensor::Tensor,
};
use std::collections::HashMap;

/// Attaches new adapters to linear layers and convolutions of `model`, and freezes all its
/// parameters, so that only the adapters are trained (Hu et al. 2021,
/// <https://arxiv.org/abs/2106.09685>). One factor is zero, so the model's outputs stay the same at
/// first.
///
/// Initial values are drawn at first use; call
/// [`init_weights`](aigc_core::rng::InitWeights::init_weights) for those of a seed.
///
/// # Errors
/// [`Error::Config`] for a rank or alpha out of range, and for a target that no layer's name ends
/// with; [`Error::Unsupported`] for a model with adapters.
pub fn add_adapter<M: Module>(model: M, config: &LoraConfig) -> Result<M> {
    config.validate()?;
    let found = layers_of(&model);
    if found.adapted {
        return Err(Error::unsupported(
            "a model with attached adapters",
            "add_adapter",
            "take them away with `detach`, or merge them",
        ));
    }
    let names: Vec<&str> = found.layers.iter().map(|layer| &layer.name[..]).collect();
    config.check_targets(&names)?;
    let adapted = found
        .layers
        .iter()
        .filter(|layer| config.adapts(&layer.name));
    let attach = Attach {
        layers: adapted.map(|layer| (layer.id, layer)).collect(),
        config,
    };
    Ok(model.apply_reparameterization(attach))
}

struct Attach<'a> {
    layers: HashMap<ParamId, &'a Layer>,
    config: &'a LoraConfig,
}

impl Reparameterizer for Attach<'_> {
    type Reparam = LowRank;

    fn reparameterize<const D: usize>(
        &mut self,
        _path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<LowRank>) {
        let (rank, scale) = (self.config.rank, self.config.scale());
        let adapter = self.layers.get(&param.id).map(|layer| {
            let (rows, width, device) = (
                layer.rows,
                layer.columns.iter().product(),
                param.lazy_device(),
            );
            // The factor on the side of the inputs is drawn, the other is zero.
            let drawn = |shape| Initializer::PYTORCH.param(shape, width, rank, &device);
            let zero = |shape| Initializer::ZEROS.param(shape, rank, rows, &device);
            let (a, b) = match layer.kind {
                LayerKind::Linear => (drawn([width, rank]), zero([rank, rows])),
                LayerKind::Conv => (zero([rows, rank]), drawn([rank, width])),
            };
            LowRank::new(a, b, scale)
        });
        (param.set_require_grad(false), adapter)
    }
}
