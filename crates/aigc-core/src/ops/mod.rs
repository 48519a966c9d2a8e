//! The operations that dominate the time of training and sampling.
//!
//! The trait [`GenerativeOps`] declares them, with default implementations from burn's primitives.
//! [`Flex`](burn::backend::Flex) overrides most of them with the kernels of `aigc-kernels`, and
//! LibTorch some. The backward passes are written by hand. [The layers](crate::nn) call the
//! functions of this module, which take tensors on any device: they call the backend's
//! implementation if a feature of this crate compiled the backend in, and the primitives otherwise.
//!
//! On Linux with glibc, the first operation on Flex or LibTorch configures the allocator to keep
//! freed memory for reuse (`mallopt`), unless one of `MALLOC_MMAP_THRESHOLD_`,
//! `MALLOC_TRIM_THRESHOLD_`, `MALLOC_TOP_PAD_` and `GLIBC_TUNABLES` is set.
//!
//! To add a kernel for a backend, override the method in its `impl GenerativeOps` in this module.
//!
//! Operations with parameters compute in the type of their input: parameters of another type, such
//! as weights in half precision, are converted by [`cast`] for the operation. Group and layer norms
//! of an input in half precision compute in 32 bits, because squares overflow from 256 on.
//!
//! Under burn's gradient checkpointing these operations keep their inputs; none of them is
//! recomputed.

mod activation;
mod backend;
mod dtype;
#[cfg(feature = "flex")]
mod flex;
mod gradients;
#[cfg(feature = "tch")]
#[allow(deprecated)]
mod libtorch;
mod pad;
mod primitives;
pub mod profile;
mod resize;

pub use activation::Activation;
pub use aigc_kernels::{
    AdamStep, Quantization,
    pool::{Pool, PoolSizes},
};
pub use backend::{GenerativeOps, OptionalTensor};
pub use dtype::cast;
pub(crate) use dtype::computed;
pub use pad::{PaddingMode, pad1d};
pub use resize::{resize_bilinear, resize_nearest};

use burn::{
    backend::Dispatch,
    tensor::{
        Bool, DType, Device, Int, Tensor,
        ops::{ConvOptions, ConvTransposeOptions},
    },
};

/// Whether a feature of this crate compiled the backend of `device` in, so that [`GenerativeOps`]
/// is dispatched to it.
fn is_listed(device: &Device) -> bool {
    use burn::backend::DispatchDevice;
    match device.clone().without_autodiff().as_dispatch() {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => true,
        #[cfg(feature = "ndarray")]
        DispatchDevice::NdArray(_) => true,
        #[cfg(feature = "tch")]
        DispatchDevice::LibTorch(_) => true,
        #[cfg(any(feature = "wgpu", feature = "cuda", feature = "rocm"))]
        DispatchDevice::Cube(_) => true,
        #[allow(unreachable_patterns)]
        _ => false,
    }
}

/// Whether [`GenerativeOps`] supports a layer's input and weight. Tensors that burn has quantised
/// are left to burn, which knows their layout.
fn are_supported<const D: usize, const W: usize>(x: &Tensor<D>, weight: &Tensor<W>) -> bool {
    is_listed(&x.device())
        && ![x.dtype(), weight.dtype()]
            .iter()
            .any(|dtype| matches!(dtype, DType::QFloat(_)))
}

/// A weight and a bias in the type of the input.
fn in_type_of<const D: usize, const W: usize>(
    x: &Tensor<D>,
    weight: Tensor<W>,
    bias: Option<Tensor<1>>,
) -> (Tensor<W>, Option<Tensor<1>>) {
    let dtype = x.dtype();
    (cast(weight, dtype), bias.map(|bias| cast(bias, dtype)))
}

/// Panics unless a vector of one element per channel, or per output, has `len` elements.
#[track_caller]
fn check_len(what: &str, tensor: &Tensor<1>, len: usize) {
    assert_eq!(
        tensor.dims(),
        [len],
        "{what}: expected a tensor of shape [{len}]"
    );
}

fn optional<const D: usize>(tensor: Option<Tensor<D>>) -> OptionalTensor<Dispatch> {
    tensor.map_or(OptionalTensor::Missing, |tensor| {
        OptionalTensor::Given(tensor.into_dispatch())
    })
}

/// Two-dimensional convolution (cross-correlation).
///
/// # Shapes
/// - x: `[batch, channels_in, height, width]`
/// - weight: `[channels_out, channels_in / groups, kernel, kernel]`, bias: `[channels_out]`
/// - output:
///   `[batch, channels_out, (height + padding − dilation·(kernel − 1) − 1) / stride + 1, …]`
///
/// # Panics
/// If the shapes do not fit each other.
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: ConvOptions<2>,
) -> Tensor<4> {
    let (weight, bias) = in_type_of(&x, weight, bias);
    if !are_supported(&x, &weight) {
        return burn::tensor::module::conv2d(x, weight, bias, options);
    }
    let ([_, channels, ..], [outputs, per_group, ..]) = (x.dims(), weight.dims());
    assert!(
        channels == per_group * options.groups && outputs.is_multiple_of(options.groups),
        "a convolution of {channels} channels in {} groups does not fit a weight of shape {:?}",
        options.groups,
        weight.dims()
    );
    bias.iter()
        .for_each(|bias| check_len("bias of a convolution", bias, outputs));
    let bias = optional(bias);
    Tensor::from_dispatch(Dispatch::conv2d_forward(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias,
        options,
    ))
}

/// Transposed convolution: the transpose of [`conv2d`] as a linear map.
///
/// # Shapes
/// - x: `[batch, channels_in, height, width]`
/// - weight: `[channels_in, channels_out / groups, kernel, kernel]`, bias: `[channels_out]`
/// - output:
///   `[batch, channels_out, (height − 1)·stride − 2·padding + dilation·(kernel − 1) +
///   padding_out + 1, …]`
///
/// # Panics
/// If the shapes do not fit each other.
pub fn conv_transpose2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: ConvTransposeOptions<2>,
) -> Tensor<4> {
    let (weight, bias) = in_type_of(&x, weight, bias);
    if !are_supported(&x, &weight) {
        return burn::tensor::module::conv_transpose2d(x, weight, bias, options);
    }
    assert_eq!(
        x.dims()[1],
        weight.dims()[0],
        "channels of the input and the weight of a transposed convolution differ"
    );
    let outputs = weight.dims()[1] * options.groups;
    bias.iter()
        .for_each(|bias| check_len("bias of a transposed convolution", bias, outputs));
    let bias = optional(bias);
    Tensor::from_dispatch(Dispatch::conv_transpose2d_forward(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias,
        options,
    ))
}

/// Linear layer, `x·weight + bias`.
///
/// # Shapes
/// - x: `[…, d_input]`, weight: `[d_input, d_output]`, bias: `[d_output]`
/// - output: `[…, d_output]`
///
/// # Panics
/// If the shapes do not fit each other.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    let (weight, bias) = in_type_of(&x, weight, bias);
    if !are_supported(&x, &weight) || D < 2 {
        return burn::tensor::module::linear(x, weight, bias);
    }
    assert_eq!(
        x.dims()[D - 1],
        weight.dims()[0],
        "last axis of the input and first axis of the weight of a linear layer differ"
    );
    bias.iter()
        .for_each(|bias| check_len("bias of a linear layer", bias, weight.dims()[1]));
    let bias = optional(bias);
    Tensor::from_dispatch(Dispatch::linear_forward(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias,
    ))
}

/// Applies `activation` to every element.
pub fn activation<const D: usize>(x: Tensor<D>, activation: Activation) -> Tensor<D> {
    if activation == Activation::Identity {
        return x;
    }
    let listed = is_listed(&x.device());
    let x = x.into_dispatch();
    Tensor::from_dispatch(match listed {
        true => Dispatch::activation_forward(x, activation),
        false => primitives::activation::<Dispatch>(x, activation),
    })
}

/// Snake, `x + sin²(α·x) / (β + 10⁻⁹)`, with an α and a β for every channel (Ziyin et al. 2020,
/// <https://arxiv.org/abs/2006.08195>). It computes in 32 bits if `x` is in half precision.
///
/// # Shapes
/// - x and output: `[batch, channels, time]`
/// - alpha and beta: `[channels]`
///
/// # Panics
/// If alpha or beta does not have one element per channel.
pub fn snake(x: Tensor<3>, alpha: Tensor<1>, beta: Tensor<1>) -> Tensor<3> {
    check_len("alpha of a snake", &alpha, x.dims()[1]);
    check_len("beta of a snake", &beta, x.dims()[1]);
    let dtype = x.dtype();
    let x = cast(x, computed(dtype));
    let (alpha, beta) = (cast(alpha, x.dtype()), cast(beta, x.dtype()));
    let listed = is_listed(&x.device());
    let (x, alpha, beta) = (
        x.into_dispatch(),
        alpha.into_dispatch(),
        beta.into_dispatch(),
    );
    let y = match listed {
        true => Dispatch::snake_forward(x, alpha, beta),
        false => primitives::snake::<Dispatch>(x, alpha, beta),
    };
    cast(Tensor::from_dispatch(y), dtype)
}

/// One step of an LSTM's cells (Hochreiter and Schmidhuber 1997), whose matrix products are in
/// `gates`: before their activations, the input gates `i`, the forget gates `f`, the candidates `g`
/// and the output gates `o`, side by side. Returns the hidden states `σ(o)·tanh(c′)` and the new
/// states of the cells, `c′ = σ(f)·c + σ(i)·tanh(g)`.
///
/// # Shapes
/// - gates: `[batch, 4·hidden]`
/// - cell and both outputs: `[batch, hidden]`
///
/// # Panics
/// If the shapes do not fit each other.
pub fn lstm_cell(gates: Tensor<2>, cell: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let [batch, hidden] = cell.dims();
    assert_eq!(
        gates.dims(),
        [batch, 4 * hidden],
        "gates of an LSTM whose cells are {:?}",
        cell.dims()
    );
    let cell = cast(cell, gates.dtype());
    let listed = is_listed(&gates.device());
    let (gates, cell) = (gates.into_dispatch(), cell.into_dispatch());
    let states = Tensor::<3>::from_dispatch(match listed {
        true => Dispatch::lstm_cell_forward(gates, cell),
        false => primitives::lstm_cell::<Dispatch>(gates, cell),
    });
    let state = |index: usize| {
        let one = states.clone().narrow(0, index, 1);
        one.reshape([batch, hidden])
    };
    (state(0), state(1))
}

/// Group normalisation (Wu and He 2018, <https://arxiv.org/abs/1803.08494>), then `activation`.
///
/// # Shapes
/// - x and output: `[batch, channels, …]`
/// - gamma and beta: `[channels]`
///
/// # Panics
/// If `groups` does not divide the channels, or gamma or beta does not have one element per
/// channel.
pub fn group_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    groups: usize,
    epsilon: f64,
    activation: Activation,
) -> Tensor<D> {
    let channels = x.dims()[1];
    assert!(
        groups > 0 && channels.is_multiple_of(groups),
        "{groups} groups of {channels} channels: the groups must divide the channels"
    );
    check_len("gamma of a group norm", &gamma, channels);
    check_len("beta of a group norm", &beta, channels);
    let dtype = x.dtype();
    let x = cast(x, computed(dtype));
    let (gamma, beta) = (cast(gamma, x.dtype()), cast(beta, x.dtype()));
    let listed = is_listed(&x.device());
    let (x, gamma, beta) = (
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
    );
    let y = match listed {
        true => Dispatch::group_norm_forward(x, gamma, beta, groups, epsilon, activation).0,
        false => primitives::group_norm::<Dispatch>(x, gamma, beta, groups, epsilon, activation).0,
    };
    cast(Tensor::from_dispatch(y), dtype)
}

/// Batch normalisation with the statistics of the batch (Ioffe and Szegedy 2015,
/// <https://arxiv.org/abs/1502.03167>), then `activation`. Returns the result, and the batch's mean
/// and biased variance, which are detached from autodiff.
///
/// # Shapes
/// - x and output: `[batch, channels, …]`
/// - gamma, beta, mean and variance: `[channels]`
///
/// # Panics
/// If gamma or beta does not have one element per channel.
pub fn batch_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
    activation: Activation,
) -> (Tensor<D>, Tensor<1>, Tensor<1>) {
    check_len("gamma of a batch norm", &gamma, x.dims()[1]);
    check_len("beta of a batch norm", &beta, x.dims()[1]);
    let (gamma, beta) = (cast(gamma, x.dtype()), cast(beta, x.dtype()));
    let listed = is_listed(&x.device());
    let (x, gamma, beta) = (
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
    );
    let (y, mean, var) = match listed {
        true => Dispatch::batch_norm_forward(x, gamma, beta, epsilon, activation),
        false => primitives::batch_norm::<Dispatch>(x, gamma, beta, epsilon, activation),
    };
    let statistic = |s| Tensor::<1>::from_dispatch(s).detach();
    (Tensor::from_dispatch(y), statistic(mean), statistic(var))
}

/// Layer normalisation over the last axis (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>).
///
/// # Shapes
/// - x and output: `[…, d]`
/// - gamma and beta: `[d]`
///
/// # Panics
/// If gamma or beta is not as long as the last axis.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Option<Tensor<1>>,
    epsilon: f64,
) -> Tensor<D> {
    let d = x.dims()[D - 1];
    check_len("gamma of a layer norm", &gamma, d);
    beta.iter()
        .for_each(|beta| check_len("beta of a layer norm", beta, d));
    let dtype = x.dtype();
    let x = cast(x, computed(dtype));
    let (gamma, beta) = in_type_of(&x, gamma, beta);
    let listed = is_listed(&x.device());
    let (x, gamma, beta) = (x.into_dispatch(), gamma.into_dispatch(), optional(beta));
    let y = match listed {
        true => Dispatch::layer_norm_forward(x, gamma, beta, epsilon).0,
        false => primitives::layer_norm::<Dispatch>(x, gamma, beta.into_option(), epsilon).0,
    };
    cast(Tensor::from_dispatch(y), dtype)
}

/// `softmax(q·kᵀ / √d)·v`, per head (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>).
/// `mask` is true where a key is hidden; `causal` also hides keys after their query.
///
/// The scores, queries × keys of every head, are computed block by block. Without gradients, at
/// most 2²⁴ of them are in memory at a time, or those of one query. On Flex in 32 bits, without a
/// mask and with values as wide as keys, that holds for gradients too (Dao et al. 2022,
/// <https://arxiv.org/abs/2205.14135>); otherwise backward passes hold all scores, and so do
/// forward passes with autodiff if there is a mask or values are not as wide as keys.
///
/// # Shapes
/// - q: `[batch, heads, queries, d]`, k: `[batch, kv_heads, keys, d]`, v:
///   `[batch, kv_heads, keys, d_value]`
/// - mask: `[batch, heads, queries, keys]`
/// - output: `[batch, heads, queries, d_value]`
///
/// With `causal`, the last query has the position of the last key.
///
/// There may be fewer heads of keys and values than of queries (grouped-query attention, Ainslie et
/// al. 2023, <https://arxiv.org/abs/2305.13245>): query head `h` attends to key head
/// `h / (heads / kv_heads)`.
///
/// # Panics
/// If the shapes do not fit each other, or causal attention has more queries than keys: the first
/// queries would have no keys.
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: Option<Tensor<4, Bool>>,
    causal: bool,
) -> Tensor<4> {
    let ([batch, heads, queries, d], [_, kv_heads, keys, _]) = (q.dims(), k.dims());
    assert!(
        kv_heads > 0 && heads.is_multiple_of(kv_heads),
        "{kv_heads} heads of keys do not divide {heads} heads of queries"
    );
    assert_eq!(
        k.dims(),
        [batch, kv_heads, keys, d],
        "keys of attention, for queries {:?}",
        q.dims()
    );
    let [.., d_value] = v.dims();
    assert_eq!(
        v.dims(),
        [batch, kv_heads, keys, d_value],
        "values of attention, for keys {:?}",
        k.dims()
    );
    assert!(
        !causal || queries <= keys,
        "causal attention of {queries} queries has {keys} keys only"
    );
    let listed = is_listed(&q.device()) && mask.is_none() && d_value == d;
    let (q, k, v) = (q.into_dispatch(), k.into_dispatch(), v.into_dispatch());
    Tensor::from_dispatch(match listed {
        true => Dispatch::attention_forward(q, k, v, causal).0,
        false => primitives::masked_attention::<Dispatch>(
            q,
            k,
            v,
            mask.map(Tensor::into_dispatch),
            causal,
        ),
    })
}

/// [`attention`] of queries, keys and values that lie side by side, as the output of one linear
/// layer.
///
/// # Shapes
/// - qkv: `[batch, tokens, 3·heads·d]`, all queries before all keys before all values
/// - output: `[batch, tokens, heads·d]`
///
/// # Panics
/// If the last axis is not three times a multiple of `heads`.
pub fn self_attention(qkv: Tensor<3>, heads: usize, causal: bool) -> Tensor<3> {
    let [.., width] = qkv.dims();
    assert!(
        heads > 0 && width.is_multiple_of(3 * heads),
        "{heads} heads of queries, keys and values {width} wide"
    );
    let listed = is_listed(&qkv.device());
    let qkv = qkv.into_dispatch();
    Tensor::from_dispatch(match listed {
        true => Dispatch::self_attention_forward(qkv, heads, causal).0,
        false => primitives::self_attention::<Dispatch>(qkv, heads, causal).0,
    })
}

/// The same tensor in contiguous memory. On Flex, exchanged axes are a view, which light operations
/// read slowly; this copies the view, by a fast kernel where the last two axes are exchanged. With
/// autodiff, and on other backends, it does nothing.
pub fn contiguous<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match is_listed(&x.device()) {
        true => Tensor::from_dispatch(Dispatch::contiguous(x.into_dispatch())),
        false => x,
    }
}

/// Embedding lookup: selects rows of `weight`. Rows of half precision are returned in 32 bits.
///
/// # Shapes
/// - weight: `[rows, d]`, indices: `[batch, tokens]`
/// - output: `[batch, tokens, d]`
///
/// # Panics
/// If an index is not below `rows`.
pub fn embedding(weight: Tensor<2>, indices: Tensor<2, Int>) -> Tensor<3> {
    if !are_supported(&weight, &weight) {
        return burn::tensor::module::embedding(weight, indices);
    }
    let dtype = computed(weight.dtype());
    let rows = Dispatch::embedding_forward(weight.into_dispatch(), indices.into_dispatch());
    cast(Tensor::from_dispatch(rows), dtype)
}

/// Checks the shapes of the values and scales of a quantised weight with rows of `width`.
#[track_caller]
fn check_quantized(
    values: &Tensor<2, Int>,
    scales: &Tensor<2>,
    width: usize,
    quantization: Quantization,
) {
    let expected = [
        [scales.dims()[0], quantization.packed_len(width)],
        [scales.dims()[0], width.div_ceil(Quantization::BLOCK_SIZE)],
    ];
    assert_eq!(
        [values.dims(), scales.dims()],
        expected,
        "shapes of the values and scales of a quantised weight with rows of {width}"
    );
}

/// [`linear`] with a quantised weight, which has one row per output. Gradients flow to `x` and
/// `bias`.
///
/// # Shapes
/// - x: `[…, in]`, bias: `[out]`
/// - values: `[out, quantization.packed_len(in)]`, scales: `[out, ⌈in / BLOCK_SIZE⌉]`
/// - output: `[…, out]`
///
/// # Panics
/// If the shapes do not fit each other.
pub fn quantized_linear<const D: usize>(
    x: Tensor<D>,
    values: Tensor<2, Int>,
    scales: Tensor<2>,
    bias: Option<Tensor<1>>,
    quantization: Quantization,
) -> Tensor<D> {
    let width = x.dims()[D - 1];
    if x.device().is_autodiff() {
        let weight = dequantize(values, scales, width, quantization).cast(x.dtype());
        return linear(x, weight.transpose(), bias);
    }
    check_quantized(&values, &scales, width, quantization);
    bias.iter()
        .for_each(|bias| check_len("bias of a linear layer", bias, scales.dims()[0]));
    let listed = is_listed(&x.device());
    let (x, values, scales) = (
        x.into_dispatch(),
        values.into_dispatch(),
        scales.into_dispatch(),
    );
    Tensor::from_dispatch(match listed {
        true => Dispatch::quantized_linear(x, values, scales, optional(bias), quantization),
        false => primitives::quantized_linear::<Dispatch>(
            x,
            values,
            scales,
            bias.map(|bias| bias.into_dispatch()),
            quantization,
        ),
    })
}

/// A quantised weight as floats, `[rows, width]`. No gradients flow through it.
///
/// # Shapes
/// - values: `[rows, quantization.packed_len(width)]`, scales: `[rows, ⌈width / BLOCK_SIZE⌉]`
///
/// # Panics
/// If the shapes do not fit each other.
pub fn dequantize(
    values: Tensor<2, Int>,
    scales: Tensor<2>,
    width: usize,
    quantization: Quantization,
) -> Tensor<2> {
    check_quantized(&values, &scales, width, quantization);
    if scales.device().is_autodiff() {
        return Tensor::from_inner(dequantize(
            values.inner(),
            scales.inner(),
            width,
            quantization,
        ));
    }
    let listed = is_listed(&scales.device());
    let (values, scales) = (values.into_dispatch(), scales.into_dispatch());
    Tensor::from_dispatch(match listed {
        true => Dispatch::dequantize(values, scales, width, quantization),
        false => primitives::dequantize::<Dispatch>(values, scales, width, quantization),
    })
}

/// Nearest-neighbour upsampling: repeats every pixel `factor` times in both directions.
///
/// # Shapes
/// - x: `[batch, channels, height, width]`
/// - output: `[batch, channels, factor·height, factor·width]`
///
/// # Panics
/// If `factor` is 0.
pub fn upsample_nearest2d(x: Tensor<4>, factor: usize) -> Tensor<4> {
    assert!(factor > 0, "upsampling factor is 0, expected at least 1");
    let listed = is_listed(&x.device());
    let x = x.into_dispatch();
    Tensor::from_dispatch(match listed {
        true => Dispatch::upsample_nearest2d_forward(x, factor),
        false => primitives::upsample_nearest2d::<Dispatch>(x, factor),
    })
}

/// The largest pixel of every window.
///
/// # Shapes
/// - x: `[batch, channels, height, width]`
/// - output: `[batch, channels, (height + 2·padding − kernel) / stride + 1, …]`
///
/// # Panics
/// If no window fits, the stride is 0, or the padding is more than half of the kernel.
pub fn max_pool2d(x: Tensor<4>, kernel: usize, stride: usize, padding: usize) -> Tensor<4> {
    pool2d(x, Pool::Max, [kernel, stride, padding])
}

/// The mean of the pixels of every window that are inside the map. Padding is not counted, unlike
/// in PyTorch by default: this is its `count_include_pad=False`.
///
/// # Shapes
/// As [`max_pool2d`].
///
/// # Panics
/// As [`max_pool2d`].
pub fn avg_pool2d(x: Tensor<4>, kernel: usize, stride: usize, padding: usize) -> Tensor<4> {
    pool2d(x, Pool::Mean, [kernel, stride, padding])
}

fn pool2d(x: Tensor<4>, pool: Pool, [kernel, stride, padding]: [usize; 3]) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    let sizes = PoolSizes {
        input: [height, width],
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [padding; 2],
    };
    assert!(sizes.output().is_some(), "no window fits in {sizes:?}");
    let listed = is_listed(&x.device());
    let x = x.into_dispatch();
    Tensor::from_dispatch(match listed {
        true => Dispatch::pool2d_forward(x, pool, sizes),
        false => primitives::pool2d::<Dispatch>(x, pool, sizes),
    })
}

/// Cross-entropy of every row, `−ln softmax(logits)[target]`.
///
/// # Shapes
/// - logits: `[rows, classes]`, targets: `[rows]`
/// - output: `[rows]`
///
/// # Panics
/// If there is not one target per row, or a target is not below `classes`.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    assert_eq!(
        logits.dims()[0],
        targets.dims()[0],
        "rows of the logits and targets of a cross-entropy differ"
    );
    let listed = is_listed(&logits.device());
    let (logits, targets) = (logits.into_dispatch(), targets.into_dispatch());
    Tensor::from_dispatch(match listed {
        true => Dispatch::cross_entropy_forward(logits, targets),
        false => primitives::cross_entropy::<Dispatch>(logits, targets),
    })
}

/// Binary cross-entropy of every row, `−Σ t·ln σ(l) + (1 − t)·ln(1 − σ(l))`, for targets in [0, 1].
///
/// # Shapes
/// - logits and targets: `[rows, n]`
/// - output: `[rows]`
///
/// # Panics
/// If the shapes differ.
pub fn binary_cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    assert_eq!(
        logits.dims(),
        targets.dims(),
        "shapes of the logits and targets of a binary cross-entropy differ"
    );
    let listed = is_listed(&logits.device());
    let (logits, targets) = (logits.into_dispatch(), targets.into_dispatch());
    Tensor::from_dispatch(match listed {
        true => Dispatch::binary_cross_entropy_forward(logits, targets),
        false => primitives::binary_cross_entropy::<Dispatch>(logits, targets),
    })
}

/// A draw from a normal distribution as a function of its parameters, `mean + e^log_std·noise`
/// (Kingma and Welling 2014, <https://arxiv.org/abs/1312.6114>).
///
/// # Shapes
/// - all tensors have the same shape
///
/// # Panics
/// If the shapes differ.
pub fn reparameterize<const D: usize>(
    mean: Tensor<D>,
    log_std: Tensor<D>,
    noise: Tensor<D>,
) -> Tensor<D> {
    assert!(
        mean.dims() == log_std.dims() && mean.dims() == noise.dims(),
        "shapes of a normal distribution and its noise differ: {:?}, {:?} and {:?}",
        mean.dims(),
        log_std.dims(),
        noise.dims()
    );
    let listed = is_listed(&mean.device());
    let (mean, log_std) = (mean.into_dispatch(), log_std.into_dispatch());
    let noise = noise.into_dispatch();
    Tensor::from_dispatch(match listed {
        true => Dispatch::reparameterize_forward(mean, log_std, noise),
        false => primitives::reparameterize::<Dispatch>(mean, log_std, noise),
    })
}

/// Kullback-Leibler divergence of independent normal distributions from the standard normal
/// distribution, summed over every row: `Σ ½(μ² + σ² − 1) − log σ`.
///
/// # Shapes
/// - mean and log_std: `[rows, n]`
/// - output: `[rows]`
///
/// # Panics
/// If the shapes differ.
pub fn standard_normal_kl(mean: Tensor<2>, log_std: Tensor<2>) -> Tensor<1> {
    assert_eq!(
        mean.dims(),
        log_std.dims(),
        "shapes of the means and scales of normal distributions differ"
    );
    let listed = is_listed(&mean.device());
    let (mean, log_std) = (mean.into_dispatch(), log_std.into_dispatch());
    Tensor::from_dispatch(match listed {
        true => Dispatch::standard_normal_kl_forward(mean, log_std),
        false => primitives::standard_normal_kl::<Dispatch>(mean, log_std),
    })
}

/// One Adam step. Returns the updated parameter and moments. Updates in place if the tensors are
/// not shared.
///
/// # Shapes
/// - all tensors have the same shape
///
/// # Panics
/// If the shapes differ.
pub fn adam_step<const D: usize>(
    param: Tensor<D>,
    grad: Tensor<D>,
    moments: [Tensor<D>; 2],
    step: AdamStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    for other in [&grad, &moments[0], &moments[1]] {
        assert_eq!(
            other.dims(),
            param.dims(),
            "shapes of a gradient or moment and of the parameter of Adam differ"
        );
    }
    let listed = is_listed(&param.device());
    let [moment_1, moment_2] = moments.map(Tensor::into_dispatch);
    let (param, grad) = (param.into_dispatch(), grad.into_dispatch());
    let (param, moment_1, moment_2) = match listed {
        true => Dispatch::adam_step(param, grad, moment_1, moment_2, step),
        false => primitives::adam_step::<Dispatch>(param, grad, moment_1, moment_2, step),
    };
    (
        Tensor::from_dispatch(param),
        [moment_1, moment_2].map(Tensor::from_dispatch),
    )
}
