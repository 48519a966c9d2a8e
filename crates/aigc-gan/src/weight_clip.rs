//! Weight clipping (Arjovsky et al. 2017, <https://arxiv.org/abs/1701.07875>, algorithm 1).

use aigc_core::params::{ParamMapper, map_params};
use burn::{
    module::{Module, Param},
    tensor::Tensor,
};

/// Clamps every trained weight of `model` to `[−bound, bound]`.
pub(crate) fn clip_weights<M: Module>(model: M, bound: f64) -> M {
    map_params(model, &mut Clip { bound })
}

struct Clip {
    bound: f64,
}

impl ParamMapper for Clip {
    fn map<const D: usize>(&mut self, _path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !param.val().is_require_grad() {
            return param;
        }
        param.map(|tensor| {
            let clipped = tensor.without_autodiff().clamp(-self.bound, self.bound);
            Tensor::from_inner(clipped).require_grad()
        })
    }
}
