//! [`GenerativeOps`] for the CPU: `f32` tensors use the kernels of `aigc-kernels`, all others the
//! primitives.

use super::{
    Activation, AdamStep, GenerativeOps, OptionalTensor, Quantization, primitives, profile::timer,
};
use aigc_kernels::{
    activation::{activate, activate_grad},
    adam::adam,
    attention::{self, AttentionSizes, Heads},
    conv::{ConvSizes, conv2d, conv2d_transposed, conv2d_weight_grad},
    loss,
    norm::{self, Units},
    pixels,
    product::{Matrix, column_sums, multiply},
    quantized::{Packed, multiply_packed},
    rows,
};
use burn::{
    backend::{
        Flex, TensorMetadata,
        flex::{FlexTensor, Layout},
        ops::ModuleOps,
    },
    tensor::{
        Bytes, DType, Shape,
        ops::{ConvOptions, ConvTransposeOptions},
    },
};

type Three = (FlexTensor, FlexTensor, FlexTensor);

/// Whether all tensors are `f32`.
fn all_f32(tensors: &[&FlexTensor]) -> bool {
    tensors.iter().all(|tensor| tensor.dtype() == DType::F32)
}

/// `x` as a contiguous tensor.
fn contiguous(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() {
        x
    } else {
        x.to_contiguous()
    }
}

/// Whether an optional tensor is `f32` or missing.
fn is_f32_or_missing(tensor: &OptionalTensor<Flex>) -> bool {
    match tensor {
        OptionalTensor::Given(tensor) => tensor.dtype() == DType::F32,
        OptionalTensor::Missing => true,
    }
}

/// An optional tensor as a contiguous one.
fn given(tensor: OptionalTensor<Flex>) -> Option<FlexTensor> {
    tensor.into_option().map(contiguous)
}

/// The elements of a [`contiguous`] `f32` tensor.
fn slice(x: &FlexTensor) -> &[f32] {
    x.as_slice()
        .unwrap_or_else(|| unreachable!("a contiguous f32 tensor"))
}

/// A tensor of `values`.
fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    let shape = shape.into();
    assert_eq!(
        values.len(),
        shape.num_elements(),
        "number of elements of a result of shape {shape:?}"
    );
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(shape),
        DType::F32,
    )
}

fn dims<const N: usize>(x: &FlexTensor) -> [usize; N] {
    x.shape().dims()
}

/// The shape of `[batch, channels, …]` as `[batch, channels, rest]`.
fn channel_dims(x: &FlexTensor) -> [usize; 3] {
    let shape = x.shape();
    [
        shape[0],
        shape[1],
        shape
            .num_elements()
            .checked_div(shape[0] * shape[1])
            .unwrap_or(0),
    ]
}

/// The shape of `[…, d]` as `[rows, d]`.
fn row_dims(x: &FlexTensor) -> [usize; 2] {
    let shape = x.shape();
    let (rows, d) = (0..shape.num_dims() - 1, shape[shape.num_dims() - 1]);
    [rows.map(|axis| shape[axis]).product(), d]
}

/// Sizes of a convolution from `x` to `y`, if the kernels support it: one group, and no empty axis.
fn sizes(
    x: [usize; 4],
    y: [usize; 4],
    weight: [usize; 4],
    options: &ConvOptions<2>,
) -> Option<ConvSizes> {
    let [batch, channels_in, height, width] = x;
    let [_, channels_out, out_height, out_width] = y;
    let fits = options.groups == 1 && x.iter().chain(&y).chain(&weight).all(|n| *n > 0);
    fits.then_some(ConvSizes {
        batch,
        channels_in,
        channels_out,
        input: [height, width],
        output: [out_height, out_width],
        kernel: [weight[2], weight[3]],
        stride: options.stride,
        padding: options.padding.map(|(begin, _)| begin),
        dilation: options.dilation,
    })
}

/// Shape of a convolution's output; `None` if the kernel is larger than the padded input.
fn conv_output(x: [usize; 4], weight: [usize; 4], options: &ConvOptions<2>) -> Option<[usize; 4]> {
    let side = |axis: usize| {
        let (begin, end) = options.padding[axis];
        let reach = options.dilation[axis] * (weight[2 + axis].checked_sub(1)?) + 1;
        Some((x[2 + axis] + begin + end).checked_sub(reach)? / options.stride[axis] + 1)
    };
    Some([x[0], weight[0], side(0)?, side(1)?])
}

/// The options of the convolution whose transpose is computed.
fn mirrored(options: &ConvTransposeOptions<2>) -> ConvOptions<2> {
    ConvOptions::new(
        options.stride,
        options.padding,
        options.dilation,
        options.groups,
    )
}

/// Shape of a transposed convolution's output; `None` if an axis is empty.
fn transposed_output(
    x: [usize; 4],
    weight: [usize; 4],
    options: &ConvTransposeOptions<2>,
) -> Option<[usize; 4]> {
    let side = |axis: usize| {
        let reach = options.dilation[axis] * weight[2 + axis].checked_sub(1)?
            + options.padding_out[axis]
            + 1;
        (x[2 + axis].checked_sub(1)? * options.stride[axis] + reach)
            .checked_sub(2 * options.padding[axis])
    };
    Some([x[0], weight[1], side(0)?, side(1)?])
}

impl GenerativeOps for Flex {
    fn conv2d_forward(
        x: FlexTensor,
        weight: FlexTensor,
        bias: OptionalTensor<Flex>,
        options: ConvOptions<2>,
    ) -> FlexTensor {
        let _timer = timer("conv2d_forward");
        let fast = (all_f32(&[&x, &weight]) && is_f32_or_missing(&bias)).then(|| {
            let (x, weight) = (dims(&x), dims(&weight));
            let output = conv_output(x, weight, &options)?;
            Some((sizes(x, output, weight, &options)?, output))
        });
        let Some((sizes, output)) = fast.flatten() else {
            return Flex::conv2d(x, weight, bias.into_option(), options);
        };
        let (x, weight, bias) = (contiguous(x), contiguous(weight), given(bias));
        tensor(
            conv2d(slice(&x), slice(&weight), bias.as_ref().map(slice), sizes),
            output,
        )
    }

    fn conv2d_input_grad(
        x: Shape,
        weight: FlexTensor,
        grad: FlexTensor,
        options: ConvOptions<2>,
    ) -> FlexTensor {
        let _timer = timer("conv2d_input_grad");
        let fast = all_f32(&[&weight, &grad])
            .then(|| sizes(x.dims(), dims(&grad), dims(&weight), &options));
        let Some(sizes) = fast.flatten() else {
            let x = primitives::of_shape::<Flex>(x, &grad);
            return Flex::conv2d_x_backward(x, weight, grad, options);
        };
        let (weight, grad) = (contiguous(weight), contiguous(grad));
        tensor(
            conv2d_transposed(slice(&grad), slice(&weight), None, sizes),
            x,
        )
    }

    fn conv2d_weight_grad(
        x: FlexTensor,
        weight: FlexTensor,
        grad: FlexTensor,
        options: ConvOptions<2>,
    ) -> FlexTensor {
        let _timer = timer("conv2d_weight_grad");
        let fast =
            all_f32(&[&x, &grad]).then(|| sizes(dims(&x), dims(&grad), dims(&weight), &options));
        let Some(sizes) = fast.flatten() else {
            return Flex::conv2d_weight_backward(x, weight, grad, options);
        };
        let (x, grad) = (contiguous(x), contiguous(grad));
        tensor(
            conv2d_weight_grad(slice(&x), slice(&grad), sizes),
            weight.shape(),
        )
    }

    fn conv_transpose2d_forward(
        x: FlexTensor,
        weight: FlexTensor,
        bias: OptionalTensor<Flex>,
        options: ConvTransposeOptions<2>,
    ) -> FlexTensor {
        let _timer = timer("conv_transpose2d_forward");
        let fast = (all_f32(&[&x, &weight]) && is_f32_or_missing(&bias)).then(|| {
            let (x, weight) = (dims(&x), dims(&weight));
            let output = transposed_output(x, weight, &options)?;
            Some((sizes(output, x, weight, &mirrored(&options))?, output))
        });
        let Some((sizes, output)) = fast.flatten() else {
            return Flex::conv_transpose2d(x, weight, bias.into_option(), options);
        };
        let (x, weight, bias) = (contiguous(x), contiguous(weight), given(bias));
        tensor(
            conv2d_transposed(slice(&x), slice(&weight), bias.as_ref().map(slice), sizes),
            output,
        )
    }

    fn conv_transpose2d_input_grad(
        x: Shape,
        weight: FlexTensor,
        grad: FlexTensor,
        options: ConvTransposeOptions<2>,
    ) -> FlexTensor {
        let _timer = timer("conv_transpose2d_input_grad");
        let fast = all_f32(&[&weight, &grad])
            .then(|| sizes(dims(&grad), x.dims(), dims(&weight), &mirrored(&options)));
        let Some(sizes) = fast.flatten() else {
            return Flex::conv_transpose2d_x_backward(weight, grad, options);
        };
        let (weight, grad) = (contiguous(weight), contiguous(grad));
        tensor(conv2d(slice(&grad), slice(&weight), None, sizes), x)
    }

    fn conv_transpose2d_weight_grad(
        x: FlexTensor,
        weight: FlexTensor,
        grad: FlexTensor,
        options: ConvTransposeOptions<2>,
    ) -> FlexTensor {
        let _timer = timer("conv_transpose2d_weight_grad");
        let fast = all_f32(&[&x, &grad])
            .then(|| sizes(dims(&grad), dims(&x), dims(&weight), &mirrored(&options)));
        let Some(sizes) = fast.flatten() else {
            return Flex::conv_transpose2d_weight_backward(x, weight, grad, options);
        };
        let (x, grad) = (contiguous(x), contiguous(grad));
        tensor(
            conv2d_weight_grad(slice(&grad), slice(&x), sizes),
            weight.shape(),
        )
    }

    fn channel_sums(grad: FlexTensor) -> FlexTensor {
        let _timer = timer("channel_sums");
        if !all_f32(&[&grad]) {
            return primitives::channel_sums::<Flex>(grad);
        }
        let grad = contiguous(grad);
        let shape = channel_dims(&grad);
        tensor(norm::channel_sums(slice(&grad), shape), [shape[1]])
    }

    fn linear_forward(x: FlexTensor, weight: FlexTensor, bias: OptionalTensor<Flex>) -> FlexTensor {
        let _timer = timer("linear_forward");
        if !all_f32(&[&x, &weight]) || !is_f32_or_missing(&bias) {
            return Flex::linear(x, weight, bias.into_option());
        }
        // A transposed weight, such as a tied embedding table, is read in place.
        let (x, weight, bias) = (contiguous(x), forward_strided(weight), given(bias));
        let ([m, k], [_, n]) = (row_dims(&x), dims(&weight));
        let (a, b) = (Matrix::rows(slice(&x), k), matrix(&weight));
        tensor(
            multiply([m, n, k], a, b, bias.as_ref().map(slice)),
            with_last(x.shape(), n),
        )
    }

    fn linear_input_grad(weight: FlexTensor, grad: FlexTensor) -> FlexTensor {
        let _timer = timer("linear_input_grad");
        if !all_f32(&[&grad, &weight]) {
            return Flex::linear_x_backward(weight, grad);
        }
        let (weight, grad) = (forward_strided(weight), contiguous(grad));
        let ([m, k], [n, _]) = (row_dims(&grad), dims(&weight));
        let (a, b) = (Matrix::rows(slice(&grad), k), matrix(&weight).t());
        tensor(multiply([m, n, k], a, b, None), with_last(grad.shape(), n))
    }

    fn linear_weight_grad(x: FlexTensor, grad: FlexTensor) -> FlexTensor {
        let _timer = timer("linear_weight_grad");
        if !all_f32(&[&x, &grad]) {
            return Flex::linear_weight_backward(x, grad);
        }
        let (x, grad) = (contiguous(x), contiguous(grad));
        let ([k, m], [_, n]) = (row_dims(&x), row_dims(&grad));
        let (a, b) = (
            Matrix::rows(slice(&x), m).t(),
            Matrix::rows(slice(&grad), n),
        );
        tensor(multiply([m, n, k], a, b, None), [m, n])
    }

    fn linear_bias_grad(grad: FlexTensor) -> FlexTensor {
        let _timer = timer("linear_bias_grad");
        if !all_f32(&[&grad]) {
            return Flex::linear_bias_backward(grad);
        }
        let grad = contiguous(grad);
        let [_, n] = row_dims(&grad);
        tensor(column_sums(slice(&grad), n), [n])
    }

    fn activation_forward(x: FlexTensor, activation: Activation) -> FlexTensor {
        let _timer = timer("activation_forward");
        if !all_f32(&[&x]) {
            return primitives::activation::<Flex>(x, activation);
        }
        let x = contiguous(x);
        tensor(activate(slice(&x), activation.into()), x.shape())
    }

    fn activation_grad(x: FlexTensor, grad: FlexTensor, activation: Activation) -> FlexTensor {
        let _timer = timer("activation_grad");
        if !all_f32(&[&x, &grad]) {
            return primitives::activation_grad::<Flex>(x, grad, activation);
        }
        let (x, grad) = (contiguous(x), contiguous(grad));
        tensor(
            activate_grad(slice(&x), slice(&grad), activation.into()),
            x.shape(),
        )
    }

    fn group_norm_forward(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        groups: usize,
        epsilon: f64,
        activation: Activation,
    ) -> Three {
        let _timer = timer("group_norm_forward");
        if !all_f32(&[&x, &gamma, &beta]) || x.shape().num_elements() == 0 {
            return primitives::group_norm::<Flex>(x, gamma, beta, groups, epsilon, activation);
        }
        let (x, gamma, beta) = (contiguous(x), contiguous(gamma), contiguous(beta));
        let shape = channel_dims(&x);
        let units = Units::groups(shape, groups);
        let (y, mean, var) = norm::norm(
            slice(&x),
            slice(&gamma),
            slice(&beta),
            epsilon as f32,
            activation.into(),
            units,
        );
        let statistic = [shape[0], groups];
        (
            tensor(y, x.shape()),
            tensor(mean, statistic),
            tensor(var, statistic),
        )
    }

    fn group_norm_grads(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        mean: FlexTensor,
        var: FlexTensor,
        grad: FlexTensor,
        groups: usize,
        epsilon: f64,
        activation: Activation,
    ) -> Three {
        let _timer = timer("group_norm_grads");
        if !all_f32(&[&x, &gamma, &beta, &grad]) || x.shape().num_elements() == 0 {
            return primitives::group_norm_grads::<Flex>(
                x, gamma, beta, mean, var, grad, groups, epsilon, activation,
            );
        }
        let shape = channel_dims(&x);
        let units = Units::groups(shape, groups);
        unit_norm_grads(
            [x, gamma, beta, mean, var, grad],
            epsilon,
            activation,
            units,
        )
    }

    fn batch_norm_forward(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        epsilon: f64,
        activation: Activation,
    ) -> Three {
        let _timer = timer("batch_norm_forward");
        if !all_f32(&[&x, &gamma, &beta]) || x.shape().num_elements() == 0 {
            return primitives::batch_norm::<Flex>(x, gamma, beta, epsilon, activation);
        }
        let (x, gamma, beta) = (contiguous(x), contiguous(gamma), contiguous(beta));
        let shape = channel_dims(&x);
        let units = Units::Channels { shape };
        let (y, mean, var) = norm::norm(
            slice(&x),
            slice(&gamma),
            slice(&beta),
            epsilon as f32,
            activation.into(),
            units,
        );
        (
            tensor(y, x.shape()),
            tensor(mean, [shape[1]]),
            tensor(var, [shape[1]]),
        )
    }

    fn batch_norm_grads(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        mean: FlexTensor,
        var: FlexTensor,
        grad: FlexTensor,
        epsilon: f64,
        activation: Activation,
    ) -> Three {
        let _timer = timer("batch_norm_grads");
        if !all_f32(&[&x, &gamma, &beta, &grad]) || x.shape().num_elements() == 0 {
            return primitives::batch_norm_grads::<Flex>(
                x, gamma, beta, mean, var, grad, epsilon, activation,
            );
        }
        let units = Units::Channels {
            shape: channel_dims(&x),
        };
        unit_norm_grads(
            [x, gamma, beta, mean, var, grad],
            epsilon,
            activation,
            units,
        )
    }

    fn layer_norm_forward(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: OptionalTensor<Flex>,
        epsilon: f64,
    ) -> Three {
        let _timer = timer("layer_norm_forward");
        if !all_f32(&[&x, &gamma]) || !is_f32_or_missing(&beta) || x.shape().num_elements() == 0 {
            return primitives::layer_norm::<Flex>(x, gamma, beta.into_option(), epsilon);
        }
        let (x, gamma, beta) = (contiguous(x), contiguous(gamma), given(beta));
        let (y, mean, var) = norm::layer_norm(
            slice(&x),
            slice(&gamma),
            beta.as_ref().map(slice),
            epsilon as f32,
        );
        let rows = [mean.len()];
        (tensor(y, x.shape()), tensor(mean, rows), tensor(var, rows))
    }

    fn layer_norm_grads(
        x: FlexTensor,
        gamma: FlexTensor,
        mean: FlexTensor,
        var: FlexTensor,
        grad: FlexTensor,
        epsilon: f64,
    ) -> Three {
        let _timer = timer("layer_norm_grads");
        if !all_f32(&[&x, &gamma, &grad]) || x.shape().num_elements() == 0 {
            return primitives::layer_norm_grads::<Flex>(x, gamma, mean, var, grad, epsilon);
        }
        let [x, gamma, mean, var, grad] = [x, gamma, mean, var, grad].map(contiguous);
        let (dx, dgamma, dbeta) = norm::layer_norm_grads(
            slice(&x),
            slice(&gamma),
            slice(&mean),
            slice(&var),
            slice(&grad),
            epsilon as f32,
        );
        (
            tensor(dx, x.shape()),
            tensor(dgamma, gamma.shape()),
            tensor(dbeta, gamma.shape()),
        )
    }

    fn attention_forward(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        causal: bool,
    ) -> (FlexTensor, FlexTensor) {
        let _timer = timer("attention_forward");
        let Some(sizes) = attention_sizes(&q, &k, &v, causal) else {
            return primitives::attention::<Flex>(q, k, v, causal);
        };
        let [q, k, v] = [q, k, v].map(forward_strided);
        let (output, log_sums) = attention::attention(heads(&q), heads(&k), heads(&v), sizes);
        (
            transposed(output, sizes, sizes.heads, sizes.queries),
            tensor(log_sums, [sizes.batch, sizes.heads, sizes.queries]),
        )
    }

    fn attention_grads(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        output: FlexTensor,
        log_sums: FlexTensor,
        grad: FlexTensor,
        causal: bool,
    ) -> Three {
        let _timer = timer("attention_grads");
        let sizes =
            attention_sizes(&q, &k, &v, causal).filter(|_| all_f32(&[&output, &log_sums, &grad]));
        let Some(sizes) = sizes else {
            return primitives::attention_grads::<Flex>(q, k, v, output, log_sums, grad, causal);
        };
        let [q, k, v, output, grad] = [q, k, v, output, grad].map(forward_strided);
        let log_sums = contiguous(log_sums);
        let AttentionSizes {
            heads: n_q,
            kv_heads: n_kv,
            ..
        } = sizes;
        let [dq, dk, dv] = attention::attention_grads(
            heads(&q),
            heads(&k),
            heads(&v),
            heads(&output),
            slice(&log_sums),
            heads(&grad),
            sizes,
        );
        (
            transposed(dq, sizes, n_q, sizes.queries),
            transposed(dk, sizes, n_kv, sizes.keys),
            transposed(dv, sizes, n_kv, sizes.keys),
        )
    }

    fn self_attention_forward(
        qkv: FlexTensor,
        heads: usize,
        causal: bool,
    ) -> (FlexTensor, FlexTensor) {
        let _timer = timer("self_attention_forward");
        let Some(sizes) = self_attention_sizes(&qkv, heads, causal) else {
            return primitives::self_attention::<Flex>(qkv, heads, causal);
        };
        let qkv = contiguous(qkv);
        let [q, k, v] = attention::side_by_side(slice(&qkv), sizes);
        let (output, log_sums) = attention::attention(q, k, v, sizes);
        let output = tensor(output, [sizes.batch, sizes.queries, heads * sizes.d]);
        (
            output,
            tensor(log_sums, [sizes.batch, heads, sizes.queries]),
        )
    }

    fn self_attention_grad(
        qkv: FlexTensor,
        output: FlexTensor,
        log_sums: FlexTensor,
        grad: FlexTensor,
        heads: usize,
        causal: bool,
    ) -> FlexTensor {
        let _timer = timer("self_attention_grad");
        let sizes = self_attention_sizes(&qkv, heads, causal)
            .filter(|_| all_f32(&[&output, &log_sums, &grad]));
        let Some(sizes) = sizes else {
            return primitives::self_attention_grad::<Flex>(
                qkv, output, log_sums, grad, heads, causal,
            );
        };
        let [qkv, output, log_sums, grad] = [qkv, output, log_sums, grad].map(contiguous);
        let dqkv = attention::self_attention_grad(
            slice(&qkv),
            slice(&output),
            slice(&log_sums),
            slice(&grad),
            sizes,
        );
        tensor(dqkv, qkv.shape())
    }

    fn embedding_forward(weight: FlexTensor, indices: FlexTensor) -> FlexTensor {
        let _timer = timer("embedding_forward");
        let places = usizes(&indices);
        let (false, Some(places)) = (!all_f32(&[&weight]), places) else {
            return Flex::embedding(weight, indices);
        };
        let weight = contiguous(weight);
        let ([_, d], [batch, tokens]) = (dims(&weight), dims(&indices));
        tensor(rows::select(slice(&weight), d, &places), [batch, tokens, d])
    }

    fn quantized_linear(
        x: FlexTensor,
        values: FlexTensor,
        scales: FlexTensor,
        bias: OptionalTensor<Flex>,
        quantization: Quantization,
    ) -> FlexTensor {
        let _timer = timer("quantized_linear");
        let ([m, k], n) = (row_dims(&x), scales.shape()[0]);
        let (values, scales, x) = (values.to_contiguous(), contiguous(scales), contiguous(x));
        match packed(&values, &scales, k, quantization) {
            Some(weight) if all_f32(&[&x]) && is_f32_or_missing(&bias) => {
                let bias = given(bias);
                let y = multiply_packed([m, n], slice(&x), weight, bias.as_ref().map(slice));
                tensor(y, with_last(x.shape(), n))
            }
            _ => primitives::quantized_linear::<Flex>(
                x,
                values,
                scales,
                bias.into_option(),
                quantization,
            ),
        }
    }

    fn dequantize(
        values: FlexTensor,
        scales: FlexTensor,
        width: usize,
        quantization: Quantization,
    ) -> FlexTensor {
        let _timer = timer("dequantize");
        let rows = scales.shape()[0];
        let (values, scales) = (values.to_contiguous(), contiguous(scales));
        match packed(&values, &scales, width, quantization) {
            Some(weight) => tensor(weight.dequantize(0..rows), [rows, width]),
            None => primitives::dequantize::<Flex>(values, scales, width, quantization),
        }
    }

    fn embedding_grad(grad: FlexTensor, indices: FlexTensor, rows: usize) -> FlexTensor {
        let _timer = timer("embedding_grad");
        let places = usizes(&indices);
        let (false, Some(places)) = (!all_f32(&[&grad]), places) else {
            return primitives::embedding_grad::<Flex>(grad, indices, rows);
        };
        let grad = contiguous(grad);
        let [_, d] = row_dims(&grad);
        tensor(rows::add_up(slice(&grad), d, &places, rows), [rows, d])
    }

    fn cross_entropy_forward(logits: FlexTensor, targets: FlexTensor) -> FlexTensor {
        let _timer = timer("cross_entropy_forward");
        let places = usizes(&targets);
        let (false, Some(places)) = (!all_f32(&[&logits]), places) else {
            return primitives::cross_entropy::<Flex>(logits, targets);
        };
        let logits = contiguous(logits);
        let [rows, n] = dims(&logits);
        tensor(loss::cross_entropy(slice(&logits), &places, n), [rows])
    }

    fn cross_entropy_grad(logits: FlexTensor, targets: FlexTensor, grad: FlexTensor) -> FlexTensor {
        let _timer = timer("cross_entropy_grad");
        let places = usizes(&targets);
        let (false, Some(places)) = (!all_f32(&[&logits, &grad]), places) else {
            return primitives::cross_entropy_grad::<Flex>(logits, targets, grad);
        };
        let (logits, grad) = (contiguous(logits), contiguous(grad));
        let [_, n] = row_dims(&logits);
        tensor(
            loss::cross_entropy_grad(slice(&logits), &places, slice(&grad), n),
            logits.shape(),
        )
    }

    fn upsample_nearest2d_forward(x: FlexTensor, factor: usize) -> FlexTensor {
        let _timer = timer("upsample_nearest2d_forward");
        if !all_f32(&[&x]) || factor == 0 {
            return primitives::upsample_nearest2d::<Flex>(x, factor);
        }
        let x = contiguous(x);
        let [batch, channels, height, width] = dims(&x);
        let y = pixels::repeat(slice(&x), width, factor);
        tensor(y, [batch, channels, height * factor, width * factor])
    }

    fn upsample_nearest2d_grad(grad: FlexTensor, factor: usize) -> FlexTensor {
        let _timer = timer("upsample_nearest2d_grad");
        if !all_f32(&[&grad]) || factor == 0 {
            return primitives::upsample_nearest2d_grad::<Flex>(grad, factor);
        }
        let grad = contiguous(grad);
        let [batch, channels, height, width] = dims(&grad);
        assert!(
            height.is_multiple_of(factor) && width.is_multiple_of(factor),
            "blocks of {factor} × {factor} do not divide maps of {height} × {width}"
        );
        let dx = pixels::sum_blocks(slice(&grad), width, factor);
        tensor(dx, [batch, channels, height / factor, width / factor])
    }

    fn binary_cross_entropy_forward(logits: FlexTensor, targets: FlexTensor) -> FlexTensor {
        let _timer = timer("binary_cross_entropy_forward");
        if !all_f32(&[&logits, &targets]) || logits.shape().num_elements() == 0 {
            return primitives::binary_cross_entropy::<Flex>(logits, targets);
        }
        let (logits, targets) = (contiguous(logits), contiguous(targets));
        let [rows, n] = row_dims(&logits);
        tensor(
            loss::binary_cross_entropy(slice(&logits), slice(&targets), n),
            [rows],
        )
    }

    fn binary_cross_entropy_grad(
        logits: FlexTensor,
        targets: FlexTensor,
        grad: FlexTensor,
    ) -> FlexTensor {
        let _timer = timer("binary_cross_entropy_grad");
        if !all_f32(&[&logits, &targets, &grad]) || logits.shape().num_elements() == 0 {
            return primitives::binary_cross_entropy_grad::<Flex>(logits, targets, grad);
        }
        let (logits, targets, grad) = (contiguous(logits), contiguous(targets), contiguous(grad));
        let [_, n] = row_dims(&logits);
        let dl = loss::binary_cross_entropy_grad(slice(&logits), slice(&targets), slice(&grad), n);
        tensor(dl, logits.shape())
    }

    fn adam_step(
        param: FlexTensor,
        grad: FlexTensor,
        moment_1: FlexTensor,
        moment_2: FlexTensor,
        step: AdamStep,
    ) -> Three {
        let _timer = timer("adam_step");
        if !all_f32(&[&param, &grad, &moment_1, &moment_2]) {
            return primitives::adam_step::<Flex>(param, grad, moment_1, moment_2, step);
        }
        let grad = contiguous(grad);
        let [mut param, mut moment_1, mut moment_2] = [param, moment_1, moment_2].map(owned);
        adam(
            param.storage_mut(),
            slice(&grad),
            moment_1.storage_mut(),
            moment_2.storage_mut(),
            step,
        );
        (param, moment_1, moment_2)
    }
}

/// The indices as `usize`, or `None` if their type is not supported or one is negative.
fn usizes(indices: &FlexTensor) -> Option<Vec<usize>> {
    let indices = indices.to_contiguous();
    match indices.dtype() {
        DType::I64 => indices
            .as_slice::<i64>()?
            .iter()
            .map(|i| usize::try_from(*i).ok())
            .collect(),
        DType::I32 => indices
            .as_slice::<i32>()?
            .iter()
            .map(|i| usize::try_from(*i).ok())
            .collect(),
        _ => None,
    }
}

/// A quantised weight from contiguous tensors, if the kernels support their types.
fn packed<'a>(
    values: &'a FlexTensor,
    scales: &'a FlexTensor,
    k: usize,
    quantization: Quantization,
) -> Option<Packed<'a>> {
    let values = (values.dtype() == DType::I8).then(|| values.as_slice::<i8>())??;
    let scales = (scales.dtype() == DType::F32).then(|| slice(scales))?;
    Some(Packed {
        values,
        scales,
        quantization,
        k,
    })
}

/// `x` with non-negative strides: itself, or a contiguous copy.
fn forward_strided(x: FlexTensor) -> FlexTensor {
    if x.layout().strides().iter().all(|stride| *stride >= 0) {
        x
    } else {
        x.to_contiguous()
    }
}

/// A view of a `[rows, columns]` tensor of [`forward_strided`].
fn matrix(x: &FlexTensor) -> Matrix<'_> {
    let [row, column] = std::array::from_fn(|axis| x.layout().strides()[axis].unsigned_abs());
    let values: &[f32] = x.storage();
    Matrix {
        values: &values[x.layout().start_offset()..],
        row,
        column,
    }
}

/// A view of a `[batch, heads, tokens, d]` tensor of [`forward_strided`].
fn heads(x: &FlexTensor) -> Heads<'_> {
    let steps = std::array::from_fn(|axis| x.layout().strides()[axis].unsigned_abs());
    Heads {
        values: x.storage(),
        start: x.layout().start_offset(),
        steps,
    }
}

fn attention_sizes(
    q: &FlexTensor,
    k: &FlexTensor,
    v: &FlexTensor,
    causal: bool,
) -> Option<AttentionSizes> {
    let ([batch, heads, queries, d], [_, kv_heads, keys, _]) = (dims(q), dims::<4>(k));
    let something = [batch, heads, kv_heads, queries, keys, d]
        .iter()
        .all(|n| *n > 0);
    let same = k.shape() == v.shape()
        && dims::<4>(k) == [batch, kv_heads, keys, d]
        && something
        && heads.is_multiple_of(kv_heads)
        && (!causal || queries <= keys);
    (all_f32(&[q, k, v]) && something && same).then_some(AttentionSizes {
        batch,
        heads,
        kv_heads,
        queries,
        keys,
        d,
        causal,
    })
}

fn self_attention_sizes(qkv: &FlexTensor, heads: usize, causal: bool) -> Option<AttentionSizes> {
    let [batch, tokens, width] = dims(qkv);
    assert!(
        heads > 0 && width.is_multiple_of(3 * heads),
        "{heads} heads of queries, keys and values {width} wide"
    );
    let d = width / (3 * heads);
    let something = [batch, heads, tokens, d].iter().all(|n| *n > 0);
    let sizes = AttentionSizes {
        batch,
        heads,
        kv_heads: heads,
        queries: tokens,
        keys: tokens,
        d,
        causal,
    };
    (all_f32(&[qkv]) && something).then_some(sizes)
}

/// Transposes `[batch, tokens, heads, d]` in memory to `[batch, heads, tokens, d]`.
fn transposed(values: Vec<f32>, sizes: AttentionSizes, heads: usize, tokens: usize) -> FlexTensor {
    tensor(values, [sizes.batch, tokens, heads, sizes.d]).permute(&[0, 2, 1, 3])
}

/// `x` as a contiguous tensor that spans its whole storage, which is copied on write if it is
/// shared.
fn owned(x: FlexTensor) -> FlexTensor {
    let whole = x.is_contiguous() && x.layout().start_offset() == 0;
    match x.as_slice::<f32>() {
        Some(values) if !whole || values.len() != x.storage::<f32>().len() => {
            tensor(values.to_vec(), x.shape())
        }
        Some(_) => x,
        None => x.to_contiguous(),
    }
}

/// `shape` with its last axis replaced.
fn with_last(shape: Shape, len: usize) -> Shape {
    let mut shape = shape;
    let last = shape.num_dims() - 1;
    shape[last] = len;
    shape
}

fn unit_norm_grads(
    tensors: [FlexTensor; 6],
    epsilon: f64,
    activation: Activation,
    units: Units,
) -> Three {
    let tensors = tensors.map(contiguous);
    let [x, gamma, beta, mean, var, grad] = tensors.each_ref().map(slice);
    let (dx, dgamma, dbeta) = norm::norm_grads(
        x,
        gamma,
        beta,
        mean,
        var,
        grad,
        epsilon as f32,
        activation.into(),
        units,
    );
    let [x, gamma, ..] = tensors.each_ref().map(|tensor| tensor.shape());
    (
        tensor(dx, x),
        tensor(dgamma, gamma.clone()),
        tensor(dbeta, gamma),
    )
}
