//! Quantised weights.

use crate::ops::{self, Quantization};
use burn::{
    module::{Module, Param, ParamId},
    tensor::{DType, Int, Tensor, TensorData},
};

/// A weight matrix, block-quantised to 8 or 4 bits. It takes about a quarter or an eighth of the
/// memory; autoregressive decoding, which is bound by reading the weights, becomes faster by about
/// the same factor.
///
/// The weight is not trainable, but gradients flow through it to the input. Devices without 8-bit
/// integers (WGPU) store 32 bits for each byte.
#[derive(Module, Debug)]
pub struct QuantizedWeight {
    /// Packed integers, `[rows, quantization.packed_len(width)]`.
    pub values: Param<Tensor<2, Int>>,
    /// Block scales, `[rows, ⌈width / BLOCK_SIZE⌉]`.
    pub scales: Param<Tensor<2>>,
    width: usize,
    #[module(skip)]
    quantization: Quantization,
}

impl QuantizedWeight {
    /// Quantises `weight`, `[rows, width]`.
    pub fn new(weight: Tensor<2>, quantization: Quantization) -> Self {
        let ([rows, width], device) = (weight.dims(), weight.device().without_autodiff());
        let weight: Vec<f32> = weight
            .into_data()
            .try_into_vec_as()
            .expect("floats become floats");
        let (values, scales) = quantization.pack(&weight, width);
        let values = TensorData::new(values, [rows, quantization.packed_len(width)]);
        let scales = TensorData::new(scales, [rows, width.div_ceil(Quantization::BLOCK_SIZE)]);
        let scales = Param::initialized(ParamId::new(), Tensor::from_data(scales, &device));
        // WGSL has no 8-bit integers.
        let dtype = if device.supports_dtype(DType::I8) {
            DType::I8
        } else {
            DType::I32
        };
        Self {
            values: Param::initialized(ParamId::new(), Tensor::from_data(values, (&device, dtype))),
            scales: scales.set_require_grad(false),
            width,
            quantization,
        }
    }

    /// The weight as floats, `[rows, width]`.
    pub fn dequantize(&self) -> Tensor<2> {
        ops::dequantize(
            self.values.val(),
            self.scales.val(),
            self.width,
            self.quantization,
        )
    }

    /// Linear layer with this weight, `x·Wᵀ (+ b)`.
    ///
    /// # Shapes
    /// - x: `[…, width]`, bias: `[rows]`
    /// - output: `[…, rows]`
    ///
    /// # Panics
    /// If the last axis of `x` is not `width`.
    pub fn linear<const D: usize>(&self, x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
        ops::quantized_linear(
            x,
            self.values.val(),
            self.scales.val(),
            bias,
            self.quantization,
        )
    }

    /// Embedding lookup with this weight.
    ///
    /// # Shapes
    /// - indices: `[batch, n]`
    /// - output: `[batch, n, width]`
    ///
    /// # Panics
    /// If an index is out of range.
    pub fn embedding(&self, indices: Tensor<2, Int>) -> Tensor<3> {
        let [batch, n] = indices.dims();
        let indices = indices.reshape([batch * n]);
        let (values, scales) = (
            self.values.val().select(0, indices.clone()),
            self.scales.val().select(0, indices),
        );
        ops::dequantize(values, scales, self.width, self.quantization)
            .reshape([batch, n, self.width])
    }
}
