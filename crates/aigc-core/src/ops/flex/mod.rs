//! [`GenerativeOps`] for the CPU: `f32` tensors use the kernels of `aigc-kernels`, all others the
//! primitives.

mod sizes;
mod tensors;

use super::{
    Activation, AdamStep, GenerativeOps, OptionalTensor, Pool, PoolSizes, Quantization, primitives,
    profile::timer,
};
use aigc_kernels::{
    activation::{activate, activate_grad},
    adam::adam,
    attention::{self, AttentionSizes},
    conv::{conv2d, conv2d_transposed, conv2d_weight_grad},
    gaussian, loss, lstm,
    norm::{self, Units},
    pixels,
    pool::pool2d,
    product::{Matrix, column_sums, multiply},
    quantized::multiply_packed,
    rows, snake,
};
use burn::{
    backend::{Flex, TensorMetadata, flex::FlexTensor, ops::ModuleOps},
    tensor::{
        Shape,
        ops::{ConvOptions, ConvTransposeOptions},
    },
};
use sizes::{
    attention_sizes, conv_output, mirrored, self_attention_sizes, sizes, transposed_output,
};
use tensors::{
    all_f32, channel_dims, contiguous, dims, forward_strided, given, heads, is_f32_or_missing,
    matrix, owned, packed, row_dims, slice, tensor, transposed, usizes, widened, with_last,
};

type Two = (FlexTensor, FlexTensor);
type Three = (FlexTensor, FlexTensor, FlexTensor);

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

    fn snake_forward(x: FlexTensor, alpha: FlexTensor, beta: FlexTensor) -> FlexTensor {
        let _timer = timer("snake_forward");
        if !all_f32(&[&x, &alpha, &beta]) {
            return primitives::snake::<Flex>(x, alpha, beta);
        }
        let [x, alpha, beta] = [x, alpha, beta].map(contiguous);
        let [values, frequencies, divisors] = [&x, &alpha, &beta].map(slice);
        let epsilon = primitives::SNAKE_EPSILON as f32;
        let y = snake::snake(values, frequencies, divisors, epsilon, channel_dims(&x));
        tensor(y, x.shape())
    }

    fn snake_grads(x: FlexTensor, alpha: FlexTensor, beta: FlexTensor, grad: FlexTensor) -> Three {
        let _timer = timer("snake_grads");
        if !all_f32(&[&x, &alpha, &beta, &grad]) {
            return primitives::snake_grads::<Flex>(x, alpha, beta, grad);
        }
        let [x, alpha, beta, grad] = [x, alpha, beta, grad].map(contiguous);
        let (dx, dalpha, dbeta) = snake::snake_grads(
            slice(&x),
            slice(&alpha),
            slice(&beta),
            slice(&grad),
            primitives::SNAKE_EPSILON as f32,
            channel_dims(&x),
        );
        (
            tensor(dx, x.shape()),
            tensor(dalpha, alpha.shape()),
            tensor(dbeta, beta.shape()),
        )
    }

    fn lstm_cell_forward(gates: FlexTensor, cell: FlexTensor) -> FlexTensor {
        let _timer = timer("lstm_cell_forward");
        if !all_f32(&[&gates, &cell]) {
            return primitives::lstm_cell::<Flex>(gates, cell);
        }
        let (gates, cell) = (contiguous(gates), contiguous(cell));
        let [batch, d] = dims(&cell);
        tensor(
            lstm::lstm_cell(slice(&gates), slice(&cell), d),
            [2, batch, d],
        )
    }

    fn lstm_cell_grads(gates: FlexTensor, cell: FlexTensor, grad: FlexTensor) -> Two {
        let _timer = timer("lstm_cell_grads");
        if !all_f32(&[&gates, &cell, &grad]) {
            return primitives::lstm_cell_grads::<Flex>(gates, cell, grad);
        }
        let [gates, cell, grad] = [gates, cell, grad].map(contiguous);
        let [_, d] = dims(&cell);
        let (dgates, dcell) = lstm::lstm_cell_grads(slice(&gates), slice(&cell), slice(&grad), d);
        (tensor(dgates, gates.shape()), tensor(dcell, cell.shape()))
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

    fn contiguous(x: FlexTensor) -> FlexTensor {
        let _timer = timer("contiguous");
        contiguous(x)
    }

    fn widen(x: FlexTensor) -> FlexTensor {
        let _timer = timer("widen");
        widened(x)
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

    fn pool2d_forward(x: FlexTensor, pool: Pool, sizes: PoolSizes) -> FlexTensor {
        let _timer = timer("pool2d_forward");
        let [batch, channels, height, width] = dims(&x);
        let output = sizes.output().filter(|_| all_f32(&[&x]));
        let Some([high, wide]) = output.filter(|_| sizes.input == [height, width]) else {
            return primitives::pool2d::<Flex>(x, pool, sizes);
        };
        let x = contiguous(x);
        tensor(
            pool2d(slice(&x), pool, sizes),
            [batch, channels, high, wide],
        )
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

    fn reparameterize_forward(
        mean: FlexTensor,
        log_std: FlexTensor,
        noise: FlexTensor,
    ) -> FlexTensor {
        let _timer = timer("reparameterize_forward");
        if !all_f32(&[&mean, &log_std, &noise]) {
            return primitives::reparameterize::<Flex>(mean, log_std, noise);
        }
        let [mean, log_std, noise] = [mean, log_std, noise].map(contiguous);
        let draw = gaussian::reparameterize(slice(&mean), slice(&log_std), slice(&noise));
        tensor(draw, mean.shape())
    }

    fn reparameterize_grads(log_std: FlexTensor, noise: FlexTensor, grad: FlexTensor) -> Two {
        let _timer = timer("reparameterize_grads");
        if !all_f32(&[&log_std, &noise, &grad]) {
            return primitives::reparameterize_grads::<Flex>(log_std, noise, grad);
        }
        let [log_std, noise, grad] = [log_std, noise, grad].map(contiguous);
        let grads = gaussian::reparameterize_grads(slice(&log_std), slice(&noise), slice(&grad));
        let shape = log_std.shape();
        (tensor(grads.0, shape.clone()), tensor(grads.1, shape))
    }

    fn standard_normal_kl_forward(mean: FlexTensor, log_std: FlexTensor) -> FlexTensor {
        let _timer = timer("standard_normal_kl_forward");
        if !all_f32(&[&mean, &log_std]) || mean.shape().num_elements() == 0 {
            return primitives::standard_normal_kl::<Flex>(mean, log_std);
        }
        let (mean, log_std) = (contiguous(mean), contiguous(log_std));
        let [rows, n] = row_dims(&mean);
        let kl = gaussian::standard_normal_kl(slice(&mean), slice(&log_std), n);
        tensor(kl, [rows])
    }

    fn standard_normal_kl_grads(mean: FlexTensor, log_std: FlexTensor, grad: FlexTensor) -> Two {
        let _timer = timer("standard_normal_kl_grads");
        if !all_f32(&[&mean, &log_std, &grad]) || mean.shape().num_elements() == 0 {
            return primitives::standard_normal_kl_grads::<Flex>(mean, log_std, grad);
        }
        let [mean, log_std, grad] = [mean, log_std, grad].map(contiguous);
        let ([_, n], shape) = (row_dims(&mean), mean.shape());
        let grads =
            gaussian::standard_normal_kl_grads(slice(&mean), slice(&log_std), slice(&grad), n);
        (tensor(grads.0, shape.clone()), tensor(grads.1, shape))
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
