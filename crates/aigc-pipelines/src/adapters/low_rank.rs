//! A low-rank change of a weight that stays apart from it.

use aigc_core::params::{ParamMapper, map_params};
use burn::{
    module::{Module, Param, Reparameterization},
    tensor::{DType, Tensor, TensorData},
};

/// A weight plus `scale · a · b`, computed whenever the weight is used.
///
/// In the layout of the weight in memory: `[in, rank]` and `[rank, out]` for a linear layer,
/// `[out, rank]` and `[rank, in·height·width]` for a convolution.
#[derive(Module, Debug)]
pub(crate) struct LowRank {
    pub(crate) a: Param<Tensor<2>>,
    pub(crate) b: Param<Tensor<2>>,
    /// A parameter without gradient, so that it is in checkpoints.
    pub(crate) scale: Param<Tensor<1>>,
}

impl LowRank {
    pub(crate) fn new(a: Param<Tensor<2>>, b: Param<Tensor<2>>, scale: f64) -> Self {
        let data = TensorData::new(vec![scale as f32], [1]);
        let scale = Tensor::from_data(data, (&a.lazy_device(), DType::F32));
        Self {
            a,
            b,
            scale: Param::from_tensor(scale).set_require_grad(false),
        }
    }
}

impl Reparameterization for LowRank {
    const NAME: &'static str = "lora";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let (a, b) = (self.a.val(), self.b.val());
        let shape = base.shape();
        // Placeholders of a change that was taken away.
        if a.dims()[0] * b.dims()[1] != shape.num_elements() {
            return base;
        }
        let delta = a.matmul(b) * self.scale.val().reshape([1, 1]);
        let delta = delta.reshape(shape);
        // Of weights in half precision, the sum is in the precision of the change.
        let dtype = delta.dtype();
        base.cast(dtype) + delta
    }
}

/// Takes away all changes that were attached; the weights are bit for bit what they were.
pub fn detach<M: Module>(model: M) -> M {
    struct Placeholders;

    impl ParamMapper for Placeholders {
        fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let factor = [".lora.a", ".lora.b"].iter().any(|end| path.ends_with(end));
            if !factor {
                return param;
            }
            let device = param.lazy_device();
            Param::initialized(param.id, Tensor::zeros([1; D], &device))
        }
    }

    map_params(model, &mut Placeholders).materialize()
}
