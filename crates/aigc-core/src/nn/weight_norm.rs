//! Weight normalisation.

use crate::ops;
use burn::{
    module::{Module, Param, ParamId},
    tensor::{DType, Tensor, TensorData},
};

/// Squared norms below this value are raised to it, so that a direction of zeros gives zeros.
const LEAST_SQUARE: f64 = 1e-30;

/// A weight as direction and length, `g·v / ‖v‖` (Salimans and Kingma 2016,
/// <https://arxiv.org/abs/1602.07868>).
///
/// Norms are those of the parts of `v` along its first axis: the outputs of a convolution, the
/// inputs of a transposed one, as in PyTorch. The layer keeps `v` as its weight.
///
/// The gain of a new layer is the norm of the weight that is drawn for it, so that the layer starts
/// as one without normalisation. A layer that moves to another device before its weights are drawn
/// draws them then.
#[derive(Module, Debug)]
pub struct WeightNorm {
    /// The lengths `g`, `[outputs]`.
    pub gain: Param<Tensor<1>>,
}

impl WeightNorm {
    /// The normalisation under which `weight` stays as it is. Its gain is computed at first use.
    pub fn new<const D: usize>(weight: &Param<Tensor<D>>) -> Self {
        let (weight, device) = (weight.clone(), weight.lazy_device());
        let outputs = weight.lazy_shape()[0];
        let gain = Param::uninitialized(
            ParamId::new(),
            move |device, require_grad| {
                let values: Vec<f32> = weight.val().into_data().iter::<f32>().collect();
                let row = (values.len() / outputs.max(1)).max(1);
                let norm = |row: &[f32]| {
                    let square: f64 = row.iter().map(|v| f64::from(*v).powi(2)).sum();
                    square.sqrt() as f32
                };
                let norms: Vec<f32> = values.chunks_exact(row).map(norm).collect();
                Tensor::<1>::from_data(TensorData::new(norms, [outputs]), device)
                    .set_require_grad(require_grad)
            },
            device,
            true,
            [outputs].into(),
        );
        Self { gain }
    }

    /// `g·v / ‖v‖` for the direction `v`, in its type.
    ///
    /// # Shapes
    /// - v and output: `[outputs, …]`
    ///
    /// # Panics
    /// If the first axis does not have the number of outputs.
    pub fn normalize<const D: usize>(&self, v: Tensor<D>) -> Tensor<D> {
        let outputs = v.dims()[0];
        let gain = ops::cast(self.gain.val(), v.dtype());
        assert_eq!(
            gain.dims(),
            [outputs],
            "the gain of a weight norm needs an element for every output"
        );
        let row = v.shape().num_elements() / outputs.max(1);
        let square = (v.clone() * v.clone()).reshape([outputs, row]).sum_dim(1);
        let norm = square.clamp_min(LEAST_SQUARE).sqrt();
        let mut shape = [1; D];
        shape[0] = outputs;
        v * (gain.reshape([outputs, 1]) / norm).reshape(shape)
    }
}

/// The weight that a layer applies to inputs of type `dtype`.
pub(super) fn effective<const D: usize>(
    weight: &Param<Tensor<D>>,
    norm: Option<&WeightNorm>,
    dtype: DType,
) -> Tensor<D> {
    match norm {
        // Squares of small weights vanish in half precision.
        Some(norm) => norm.normalize(ops::cast(weight.val(), ops::computed(dtype))),
        None => weight.val(),
    }
}

/// The weight of a layer without its normalisation, in the type of its parameter. It is trained if
/// the direction is.
pub(super) fn folded<const D: usize>(
    weight: Param<Tensor<D>>,
    norm: Option<&WeightNorm>,
) -> Param<Tensor<D>> {
    let Some(norm) = norm else { return weight };
    weight.map(|v| {
        let (dtype, tracked) = (v.dtype(), v.is_require_grad());
        let plain = norm.normalize(ops::cast(v, ops::computed(dtype)));
        ops::cast(plain.detach(), dtype).set_require_grad(tracked)
    })
}
