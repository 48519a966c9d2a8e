//! The trait of the operations, with default implementations that are correct on every backend.

// NdArray and LibTorch are deprecated upstream, but supported here (docs/architecture.md).
#![allow(deprecated)]

use super::Activation;
use super::{Pool, PoolSizes, Quantization, primitives};
use burn::{
    backend::{
        Backend, ExtensionType, backend_extension,
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{
        FloatDType, Shape,
        ops::{ConvOptions, ConvTransposeOptions},
    },
};

/// An optional float tensor in the signature of an operation.
#[derive(Clone, Debug, ExtensionType)]
pub enum OptionalTensor<B: Backend> {
    /// The tensor.
    Given(FloatTensor<B>),
    /// No tensor.
    Missing,
}

impl<B: Backend> OptionalTensor<B> {
    /// Converts to an `Option`.
    pub fn into_option(self) -> Option<FloatTensor<B>> {
        match self {
            Self::Given(tensor) => Some(tensor),
            Self::Missing => None,
        }
    }
}

/// The operations that dominate the time of generative models, which a backend may override.
///
/// Every operation has a default implementation from burn's primitives, so
/// `impl GenerativeOps for MyBackend {}` is correct, and overriding a method makes it faster.
/// Methods that end in `_forward` have a handwritten backward pass, which calls the methods that
/// end in `_grad`, `_grads` or `_sums`; these are not differentiable again.
///
/// Shapes are those of [the functions](super) of the same names.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    LibTorch: cfg(feature = "tch"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda", feature = "rocm")),
    Autodiff
)]
pub trait GenerativeOps: Backend {
    /// Convolution.
    fn conv2d_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        #[extension_type] bias: OptionalTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        Self::conv2d(x, weight, bias.into_option(), options)
    }

    /// Gradient of a convolution's input, whose shape is `x`.
    fn conv2d_input_grad(
        x: Shape,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        Self::conv2d_x_backward(
            primitives::of_shape::<Self>(x, &grad),
            weight,
            grad,
            options,
        )
    }

    /// Gradient of a convolution's weight.
    fn conv2d_weight_grad(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        Self::conv2d_weight_backward(x, weight, grad, options)
    }

    /// Transposed convolution.
    fn conv_transpose2d_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        #[extension_type] bias: OptionalTensor<Self>,
        options: ConvTransposeOptions<2>,
    ) -> FloatTensor<Self> {
        Self::conv_transpose2d(x, weight, bias.into_option(), options)
    }

    /// Gradient of a transposed convolution's input, whose shape is `x`.
    fn conv_transpose2d_input_grad(
        x: Shape,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: ConvTransposeOptions<2>,
    ) -> FloatTensor<Self> {
        let _ = x;
        Self::conv_transpose2d_x_backward(weight, grad, options)
    }

    /// Gradient of a transposed convolution's weight.
    fn conv_transpose2d_weight_grad(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: ConvTransposeOptions<2>,
    ) -> FloatTensor<Self> {
        Self::conv_transpose2d_weight_backward(x, weight, grad, options)
    }

    /// Sum over all axes but the second: the gradient of a convolution's bias.
    fn channel_sums(grad: FloatTensor<Self>) -> FloatTensor<Self> {
        primitives::channel_sums::<Self>(grad)
    }

    /// Linear layer.
    fn linear_forward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        #[extension_type] bias: OptionalTensor<Self>,
    ) -> FloatTensor<Self> {
        Self::linear(x, weight, bias.into_option())
    }

    /// Gradient of a linear layer's input.
    fn linear_input_grad(weight: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::linear_x_backward(weight, grad)
    }

    /// Gradient of a linear layer's weight.
    fn linear_weight_grad(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::linear_weight_backward(x, grad)
    }

    /// Gradient of a linear layer's bias.
    fn linear_bias_grad(grad: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::linear_bias_backward(grad)
    }

    /// Activation function of every element.
    fn activation_forward(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        primitives::activation::<Self>(x, activation)
    }

    /// Gradient of an activation, `grad·f′(x)`.
    fn activation_grad(
        x: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        primitives::activation_grad::<Self>(x, grad, activation)
    }

    /// Snake, an activation with a frequency and a divisor for every channel.
    fn snake_forward(
        x: FloatTensor<Self>,
        alpha: FloatTensor<Self>,
        beta: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        primitives::snake::<Self>(x, alpha, beta)
    }

    /// Gradients with respect to `x`, alpha and beta.
    fn snake_grads(
        x: FloatTensor<Self>,
        alpha: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        primitives::snake_grads::<Self>(x, alpha, beta, grad)
    }

    /// A step of an LSTM's cells: the hidden states, then the states of the cells,
    /// `[2, batch, hidden]`.
    fn lstm_cell_forward(gates: FloatTensor<Self>, cell: FloatTensor<Self>) -> FloatTensor<Self> {
        primitives::lstm_cell::<Self>(gates, cell)
    }

    /// Gradients with respect to the gates and the cells; `grad` is `[2, batch, hidden]`.
    fn lstm_cell_grads(
        gates: FloatTensor<Self>,
        cell: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        primitives::lstm_cell_grads::<Self>(gates, cell, grad)
    }

    /// Group normalisation and activation. Returns the result, and the mean and biased variance
    /// `[batch, groups]`.
    fn group_norm_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        groups: usize,
        epsilon: f64,
        activation: Activation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        primitives::group_norm::<Self>(x, gamma, beta, groups, epsilon, activation)
    }

    /// Gradients with respect to `x`, gamma and beta.
    #[allow(clippy::too_many_arguments)]
    fn group_norm_grads(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        var: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        groups: usize,
        epsilon: f64,
        activation: Activation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        primitives::group_norm_grads::<Self>(
            x, gamma, beta, mean, var, grad, groups, epsilon, activation,
        )
    }

    /// Batch normalisation with the batch's statistics, and activation. Returns the result, and the
    /// mean and biased variance `[channels]`.
    fn batch_norm_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
        activation: Activation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        primitives::batch_norm::<Self>(x, gamma, beta, epsilon, activation)
    }

    /// Gradients with respect to `x`, gamma and beta.
    #[allow(clippy::too_many_arguments)]
    fn batch_norm_grads(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        var: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        epsilon: f64,
        activation: Activation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        primitives::batch_norm_grads::<Self>(x, gamma, beta, mean, var, grad, epsilon, activation)
    }

    /// Layer normalisation over the last axis. Returns the result, and the mean and biased variance
    /// `[rows]`.
    fn layer_norm_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        #[extension_type] beta: OptionalTensor<Self>,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        primitives::layer_norm::<Self>(x, gamma, beta.into_option(), epsilon)
    }

    /// Gradients with respect to `x`, gamma and beta.
    fn layer_norm_grads(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        var: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        epsilon: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        primitives::layer_norm_grads::<Self>(x, gamma, mean, var, grad, epsilon)
    }

    /// Softmax attention: the result, and the logarithm of every query's sum of exponentials
    /// `[batch, heads, queries]`. The default computes the scores of blocks of queries.
    fn attention_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        causal: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        primitives::attention::<Self>(q, k, v, causal)
    }

    /// Gradients of queries, keys and values. The default holds all scores.
    fn attention_grads(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        output: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        causal: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        primitives::attention_grads::<Self>(q, k, v, output, log_sums, grad, causal)
    }

    /// Softmax attention of queries, keys and values side by side: the result, and the logarithm of
    /// every query's sum of exponentials `[batch, heads, queries]`.
    fn self_attention_forward(
        qkv: FloatTensor<Self>,
        heads: usize,
        causal: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        primitives::self_attention::<Self>(qkv, heads, causal)
    }

    /// Gradient of queries, keys and values side by side.
    fn self_attention_grad(
        qkv: FloatTensor<Self>,
        output: FloatTensor<Self>,
        log_sums: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        heads: usize,
        causal: bool,
    ) -> FloatTensor<Self> {
        primitives::self_attention_grad::<Self>(qkv, output, log_sums, grad, heads, causal)
    }

    /// The same tensor in contiguous memory, on backends that have views of it in other layouts.
    fn contiguous(x: FloatTensor<Self>) -> FloatTensor<Self> {
        x
    }

    /// Floats of half precision in 32 bits.
    fn widen(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_cast(x, FloatDType::F32)
    }

    /// Embedding lookup: selects rows of `weight`.
    fn embedding_forward(weight: FloatTensor<Self>, indices: IntTensor<Self>) -> FloatTensor<Self> {
        Self::embedding(weight, indices)
    }

    /// Linear layer with a quantised weight; not differentiable.
    fn quantized_linear(
        x: FloatTensor<Self>,
        values: IntTensor<Self>,
        scales: FloatTensor<Self>,
        #[extension_type] bias: OptionalTensor<Self>,
        quantization: Quantization,
    ) -> FloatTensor<Self> {
        primitives::quantized_linear::<Self>(x, values, scales, bias.into_option(), quantization)
    }

    /// A quantised weight as floats, in rows of `width`.
    fn dequantize(
        values: IntTensor<Self>,
        scales: FloatTensor<Self>,
        width: usize,
        quantization: Quantization,
    ) -> FloatTensor<Self> {
        primitives::dequantize::<Self>(values, scales, width, quantization)
    }

    /// Gradient of an embedding table of `rows` rows.
    fn embedding_grad(
        grad: FloatTensor<Self>,
        indices: IntTensor<Self>,
        rows: usize,
    ) -> FloatTensor<Self> {
        primitives::embedding_grad::<Self>(grad, indices, rows)
    }

    /// Nearest-neighbour upsampling: repeats every pixel `factor` times in both directions.
    fn upsample_nearest2d_forward(x: FloatTensor<Self>, factor: usize) -> FloatTensor<Self> {
        primitives::upsample_nearest2d::<Self>(x, factor)
    }

    /// Gradient of the upsampling: sums of blocks of `factor` × `factor` pixels.
    fn upsample_nearest2d_grad(grad: FloatTensor<Self>, factor: usize) -> FloatTensor<Self> {
        primitives::upsample_nearest2d_grad::<Self>(grad, factor)
    }

    /// Maxima or means of windows of pixels, which fit in the maps.
    fn pool2d_forward(x: FloatTensor<Self>, pool: Pool, sizes: PoolSizes) -> FloatTensor<Self> {
        primitives::pool2d::<Self>(x, pool, sizes)
    }

    /// Cross-entropy of every row, `−ln softmax(logits)[target]`.
    fn cross_entropy_forward(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        primitives::cross_entropy::<Self>(logits, targets)
    }

    /// Gradient of the cross-entropy, `grad·(softmax(logits) − one_hot(target))` of every row.
    fn cross_entropy_grad(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        primitives::cross_entropy_grad::<Self>(logits, targets, grad)
    }

    /// Binary cross-entropy of every row, `Σ softplus(l) − t·l`.
    fn binary_cross_entropy_forward(
        logits: FloatTensor<Self>,
        targets: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        primitives::binary_cross_entropy::<Self>(logits, targets)
    }

    /// Gradient of the binary cross-entropy, `grad·(σ(l) − t)` of every row.
    fn binary_cross_entropy_grad(
        logits: FloatTensor<Self>,
        targets: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        primitives::binary_cross_entropy_grad::<Self>(logits, targets, grad)
    }

    /// A draw from a normal distribution, `mean + e^log_std·noise`.
    fn reparameterize_forward(
        mean: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
        noise: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        primitives::reparameterize::<Self>(mean, log_std, noise)
    }

    /// Gradients of a draw with respect to `log_std` and `noise`; that of `mean` is `grad`.
    fn reparameterize_grads(
        log_std: FloatTensor<Self>,
        noise: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        primitives::reparameterize_grads::<Self>(log_std, noise, grad)
    }

    /// Divergence of normal distributions from the standard normal distribution, summed over every
    /// row.
    fn standard_normal_kl_forward(
        mean: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        primitives::standard_normal_kl::<Self>(mean, log_std)
    }

    /// Gradients of the divergence with respect to `mean` and `log_std`.
    fn standard_normal_kl_grads(
        mean: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        primitives::standard_normal_kl_grads::<Self>(mean, log_std, grad)
    }

    /// One Adam step. Returns the updated parameter and moments.
    fn adam_step(
        param: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        moment_1: FloatTensor<Self>,
        moment_2: FloatTensor<Self>,
        step: super::AdamStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        primitives::adam_step::<Self>(param, grad, moment_1, moment_2, step)
    }
}

#[cfg(feature = "ndarray")]
impl GenerativeOps for burn::backend::NdArray {}

#[cfg(any(feature = "wgpu", feature = "cuda", feature = "rocm"))]
impl GenerativeOps for burn::backend::Cube {}
