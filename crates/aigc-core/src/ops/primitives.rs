//! Default implementations of [`GenerativeOps`](super::GenerativeOps) from burn's primitives.

use super::Activation;
use super::{AdamStep, Pool, PoolSizes, Quantization};
use burn::{
    backend::{
        Backend, TensorMetadata,
        ops::attention::attention_fallback,
        tensor::{BoolTensor, FloatTensor, IntTensor},
    },
    tensor::{
        IndexingUpdateOp, Shape, Slice,
        ops::{AttentionModuleOptions, InterpolateMode, InterpolateOptions},
    },
};
use std::ops::Range;

type Float<B> = FloatTensor<B>;

pub(crate) fn channel_sums<B: Backend>(grad: Float<B>) -> Float<B> {
    let shape = grad.shape();
    let axes: Vec<usize> = (0..shape.num_dims()).filter(|axis| *axis != 1).collect();
    B::float_reshape(B::float_sum_dims(grad, &axes), Shape::new([shape[1]]))
}

pub(crate) fn activation<B: Backend>(x: Float<B>, kind: Activation) -> Float<B> {
    match kind {
        Activation::Identity => x,
        Activation::Relu => B::relu(x),
        Activation::LeakyRelu(slope) => B::leaky_relu(x, slope.into()),
        // Not burn's gelu, whose backward pass is that of the tanh approximation.
        Activation::Gelu => B::float_mul(x.clone(), normal_cdf::<B>(x)),
        Activation::GeluTanh => {
            let (value, _) = gelu_tanh::<B>(x);
            value
        }
        Activation::Silu => B::float_mul(x.clone(), B::sigmoid(x)),
        Activation::Tanh => B::float_tanh(x),
        Activation::Sigmoid => B::sigmoid(x),
        Activation::Softplus => {
            // ln(1 + eˣ) = (x + |x|)/2 + ln(1 + e^−|x|) does not overflow, and its automatic
            // derivative at 0 is the correct ½.
            let size = B::float_abs(x.clone());
            let rest = B::float_log1p(B::float_exp(B::float_neg(size.clone())));
            B::float_add(B::float_mul_scalar(B::float_add(x, size), 0.5.into()), rest)
        }
        Activation::QuickGelu => {
            let u = B::float_mul_scalar(x.clone(), QUICK_GELU.into());
            B::float_mul(x, B::sigmoid(u))
        }
        Activation::Mish => {
            let t = B::float_tanh(activation::<B>(x.clone(), Activation::Softplus));
            B::float_mul(x, t)
        }
        Activation::SoftClamp(bound) => {
            let t = B::float_tanh(B::float_div_scalar(x, bound.into()));
            B::float_mul_scalar(t, bound.into())
        }
        Activation::Elu(alpha) => {
            let below = B::float_add_scalar(exp_of_negative::<B>(x.clone()), (-1.0).into());
            B::float_add(B::relu(x), B::float_mul_scalar(below, alpha.into()))
        }
    }
}

/// `e^min(x, 0)`, which is finite, as its automatic derivative is.
fn exp_of_negative<B: Backend>(x: Float<B>) -> Float<B> {
    B::float_exp(B::float_clamp_max(x, 0.0.into()))
}

/// The factor of the sigmoid's argument in `x·σ(1.702·x)`.
const QUICK_GELU: f64 = 1.702;

/// The distribution function of the normal distribution, `Φ(x) = ½(1 + erf(x/√2))`.
fn normal_cdf<B: Backend>(x: Float<B>) -> Float<B> {
    let erf = B::float_erf(B::float_mul_scalar(
        x,
        std::f64::consts::FRAC_1_SQRT_2.into(),
    ));
    B::float_mul_scalar(B::float_add_scalar(erf, 1.0.into()), 0.5.into())
}

/// `1 − x`.
fn one_minus<B: Backend>(x: Float<B>) -> Float<B> {
    B::float_add_scalar(B::float_neg(x), 1.0.into())
}

/// Value and derivative of `x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`.
fn gelu_tanh<B: Backend>(x: Float<B>) -> (Float<B>, Float<B>) {
    let scale = (2.0 / std::f64::consts::PI).sqrt();
    let square = B::float_mul(x.clone(), x.clone());
    let cubic = |factor: f64| {
        B::float_add_scalar(
            B::float_mul_scalar(square.clone(), factor.into()),
            1.0.into(),
        )
    };
    let inner = B::float_mul_scalar(B::float_mul(x.clone(), cubic(0.044715)), scale.into());
    let t = B::float_tanh(inner);
    let half_x = B::float_mul_scalar(x, 0.5.into());
    let plus = B::float_add_scalar(t.clone(), 1.0.into());
    let steep = B::float_mul(
        one_minus::<B>(B::float_mul(t.clone(), t)),
        cubic(3.0 * 0.044715),
    );
    let slope = B::float_add(
        B::float_mul_scalar(plus.clone(), 0.5.into()),
        B::float_mul(half_x.clone(), B::float_mul_scalar(steep, scale.into())),
    );
    (B::float_mul(half_x, plus), slope)
}

pub(crate) fn activation_grad<B: Backend>(
    x: Float<B>,
    grad: Float<B>,
    activation: Activation,
) -> Float<B> {
    match activation {
        Activation::Identity => grad,
        Activation::Relu => B::relu_backward(B::relu(x), grad),
        Activation::LeakyRelu(slope) => {
            let dtype = burn::backend::get_or_init_device_settings::<B>(&x.device()).bool_dtype;
            let negative = B::float_lower_equal_elem(x, 0.0.into(), dtype);
            B::float_mask_where(
                grad.clone(),
                negative,
                B::float_mul_scalar(grad, slope.into()),
            )
        }
        Activation::Gelu => {
            // Φ(x) + x·φ(x)
            let density = B::float_exp(B::float_mul_scalar(
                B::float_mul(x.clone(), x.clone()),
                (-0.5).into(),
            ));
            let density =
                B::float_mul_scalar(density, (2.0 * std::f64::consts::PI).sqrt().recip().into());
            B::float_mul(
                grad,
                B::float_add(normal_cdf::<B>(x.clone()), B::float_mul(x, density)),
            )
        }
        Activation::GeluTanh => B::float_mul(grad, gelu_tanh::<B>(x).1),
        Activation::Silu => {
            // σ·(1 + x·(1 − σ))
            let y = B::sigmoid(x.clone());
            let inner = B::float_add_scalar(B::float_mul(x, one_minus::<B>(y.clone())), 1.0.into());
            B::float_mul(grad, B::float_mul(y, inner))
        }
        Activation::Tanh => {
            let y = B::float_tanh(x);
            B::float_mul(grad, one_minus::<B>(B::float_mul(y.clone(), y)))
        }
        Activation::Sigmoid => {
            let y = B::sigmoid(x);
            B::float_mul(grad, B::float_mul(y.clone(), one_minus::<B>(y)))
        }
        Activation::Softplus => B::float_mul(grad, B::sigmoid(x)),
        Activation::QuickGelu => {
            // σ(u)·(1 + u·(1 − σ(u))) with u = 1.702·x
            let u = B::float_mul_scalar(x, QUICK_GELU.into());
            let y = B::sigmoid(u.clone());
            let inner = B::float_add_scalar(B::float_mul(u, one_minus::<B>(y.clone())), 1.0.into());
            B::float_mul(grad, B::float_mul(y, inner))
        }
        Activation::Mish => {
            // t + x·σ(x)·(1 − t²) with t = tanh(ln(1 + eˣ))
            let softplus = self::activation::<B>(x.clone(), Activation::Softplus);
            let t = B::float_tanh(softplus);
            let steep = one_minus::<B>(B::float_mul(t.clone(), t.clone()));
            let gate = B::float_mul(x.clone(), B::sigmoid(x));
            B::float_mul(grad, B::float_add(t, B::float_mul(gate, steep)))
        }
        Activation::SoftClamp(bound) => {
            let x = B::float_div_scalar(x, bound.into());
            activation_grad::<B>(x, grad, Activation::Tanh)
        }
        Activation::Elu(alpha) => {
            let dtype = burn::backend::get_or_init_device_settings::<B>(&x.device()).bool_dtype;
            let negative = B::float_lower_equal_elem(x.clone(), 0.0.into(), dtype);
            let slope = B::float_mul_scalar(exp_of_negative::<B>(x), alpha.into());
            B::float_mask_where(grad.clone(), negative, B::float_mul(grad, slope))
        }
    }
}

/// Added to the divisor of a snake.
pub(crate) const SNAKE_EPSILON: f64 = 1e-9;

/// `α` and `1/(β + ε)`, to broadcast over a tensor of the shape `like`.
fn snake_factors<B: Backend>(alpha: Float<B>, beta: Float<B>, like: &Shape) -> [Float<B>; 2] {
    let scale = B::float_recip(B::float_add_scalar(beta, SNAKE_EPSILON.into()));
    [alpha, scale].map(|values| per_channel::<B>(values, like))
}

pub(crate) fn snake<B: Backend>(x: Float<B>, alpha: Float<B>, beta: Float<B>) -> Float<B> {
    let [alpha, scale] = snake_factors::<B>(alpha, beta, &x.shape());
    let wave = B::float_sin(B::float_mul(x.clone(), alpha));
    let square = B::float_mul(wave.clone(), wave);
    B::float_add(x, B::float_mul(square, scale))
}

pub(crate) fn snake_grads<B: Backend>(
    x: Float<B>,
    alpha: Float<B>,
    beta: Float<B>,
    grad: Float<B>,
) -> (Float<B>, Float<B>, Float<B>) {
    let [alpha, scale] = snake_factors::<B>(alpha, beta, &x.shape());
    let angle = B::float_mul(x.clone(), alpha.clone());
    let sine = B::float_sin(angle.clone());
    // sin(2αx)/(β + ε)
    let twice = B::float_mul_scalar(B::float_mul(sine.clone(), B::float_cos(angle)), 2.0.into());
    let pull = B::float_mul(grad.clone(), B::float_mul(twice, scale.clone()));
    // sin²(αx)/(β + ε)²
    let part = B::float_mul(sine, scale);
    let dbeta = B::float_mul(grad.clone(), B::float_mul(part.clone(), part));
    (
        B::float_add(grad, B::float_mul(pull.clone(), alpha)),
        channel_sums::<B>(B::float_mul(pull, x)),
        B::float_neg(channel_sums::<B>(dbeta)),
    )
}

/// The gates of an LSTM's cells after their activations, `[batch, hidden]`: input gate, forget
/// gate, candidate and output gate.
fn lstm_gates<B: Backend>(gates: Float<B>) -> [Float<B>; 4] {
    let d = gates.shape()[1] / 4;
    let part = |index: usize| {
        let columns = (index * d..(index + 1) * d).into();
        B::float_slice(gates.clone(), &[Slice::new(0, None, 1), columns])
    };
    [
        B::sigmoid(part(0)),
        B::sigmoid(part(1)),
        B::float_tanh(part(2)),
        B::sigmoid(part(3)),
    ]
}

pub(crate) fn lstm_cell<B: Backend>(gates: Float<B>, cell: Float<B>) -> Float<B> {
    let shape = cell.shape();
    let [input, forget, candidate, output] = lstm_gates::<B>(gates);
    let next = B::float_add(B::float_mul(forget, cell), B::float_mul(input, candidate));
    let hidden = B::float_mul(output, B::float_tanh(next.clone()));
    let states =
        [hidden, next].map(|state| B::float_reshape(state, Shape::new([1, shape[0], shape[1]])));
    B::float_cat(states.into(), 0)
}

pub(crate) fn lstm_cell_grads<B: Backend>(
    gates: Float<B>,
    cell: Float<B>,
    grad: Float<B>,
) -> (Float<B>, Float<B>) {
    let shape = cell.shape();
    let [dhidden, dnext] = [0, 1].map(|index: usize| {
        let all = Slice::new(0, None, 1);
        let part = B::float_slice(grad.clone(), &[(index..index + 1).into(), all, all]);
        B::float_reshape(part, shape.clone())
    });
    let [input, forget, candidate, output] = lstm_gates::<B>(gates);
    let next = B::float_add(
        B::float_mul(forget.clone(), cell.clone()),
        B::float_mul(input.clone(), candidate.clone()),
    );
    let size = B::float_tanh(next);
    // The derivative of a sigmoid is σ(1 − σ), that of a hyperbolic tangent 1 − tanh².
    let bell = |gate: Float<B>| B::float_mul(gate.clone(), one_minus::<B>(gate));
    let steep = |value: Float<B>| one_minus::<B>(B::float_mul(value.clone(), value));
    let through = B::float_mul(dhidden.clone(), output.clone());
    let dnext = B::float_add(dnext, B::float_mul(through, steep(size.clone())));
    let on = |factor: Float<B>, slope: Float<B>| {
        B::float_mul(B::float_mul(dnext.clone(), factor), slope)
    };
    let dgates = vec![
        on(candidate.clone(), bell(input.clone())),
        on(cell, bell(forget.clone())),
        on(input, steep(candidate)),
        B::float_mul(B::float_mul(dhidden, size), bell(output)),
    ];
    (B::float_cat(dgates, 1), B::float_mul(dnext, forget))
}

/// Reshapes `[batch, channels, …]` to `[batch·groups, channels/groups·…]`, one row per group.
fn grouped<B: Backend>(x: Float<B>, groups: usize) -> Float<B> {
    let shape = x.shape();
    let per_group = shape.num_elements() / (shape[0] * groups).max(1);
    B::float_reshape(x, Shape::new([shape[0] * groups, per_group]))
}

/// A zero expanded to `shape`, for operations that read only the shape.
pub(crate) fn of_shape<B: Backend>(shape: Shape, like: &Float<B>) -> Float<B> {
    let one = Shape::from(vec![1; shape.num_dims()]);
    B::float_expand(
        B::float_zeros(one, &like.device(), like.dtype().into()),
        shape,
    )
}

/// Reshapes `[channels]` to broadcast over `[batch, channels, …]`.
fn per_channel<B: Backend>(values: Float<B>, like: &Shape) -> Float<B> {
    let mut shape = vec![1; like.num_dims()];
    shape[1] = like[1];
    B::float_reshape(values, Shape::from(shape))
}

fn flat<B: Backend>(x: Float<B>) -> Float<B> {
    let len = x.shape().num_elements();
    B::float_reshape(x, Shape::new([len]))
}

/// Mean and biased variance of every row, `[rows, 1]`, and the rows minus their means.
fn moments<B: Backend>(rows: Float<B>) -> (Float<B>, Float<B>, Float<B>) {
    let mean = B::float_mean_dim(rows.clone(), 1);
    let centred = B::float_sub(rows, mean.clone());
    let var = B::float_mean_dim(B::float_mul(centred.clone(), centred.clone()), 1);
    (mean, var, centred)
}

fn inverse_deviation<B: Backend>(var: Float<B>, epsilon: f64) -> Float<B> {
    B::float_recip(B::float_sqrt(B::float_add_scalar(var, epsilon.into())))
}

pub(crate) fn group_norm<B: Backend>(
    x: Float<B>,
    gamma: Float<B>,
    beta: Float<B>,
    groups: usize,
    epsilon: f64,
    act: Activation,
) -> (Float<B>, Float<B>, Float<B>) {
    let shape = x.shape();
    let (mean, var, centred) = moments::<B>(grouped::<B>(x, groups));
    let normed = B::float_reshape(
        B::float_mul(centred, inverse_deviation::<B>(var.clone(), epsilon)),
        shape.clone(),
    );
    let scaled = B::float_mul(normed, per_channel::<B>(gamma, &shape));
    let y = activation::<B>(B::float_add(scaled, per_channel::<B>(beta, &shape)), act);
    let statistic = Shape::new([shape[0], groups]);
    (
        y,
        B::float_reshape(mean, statistic.clone()),
        B::float_reshape(var, statistic),
    )
}

#[allow(clippy::too_many_arguments)]
pub(crate) fn group_norm_grads<B: Backend>(
    x: Float<B>,
    gamma: Float<B>,
    beta: Float<B>,
    mean: Float<B>,
    var: Float<B>,
    grad: Float<B>,
    groups: usize,
    epsilon: f64,
    act: Activation,
) -> (Float<B>, Float<B>, Float<B>) {
    let shape = x.shape();
    let column = Shape::new([shape[0] * groups, 1]);
    let inv_std = inverse_deviation::<B>(B::float_reshape(var, column.clone()), epsilon);
    let rows = grouped::<B>(x, groups);
    let normed_rows = B::float_mul(
        B::float_sub(rows, B::float_reshape(mean, column)),
        inv_std.clone(),
    );
    let normed = B::float_reshape(normed_rows.clone(), shape.clone());
    let gamma = per_channel::<B>(gamma, &shape);
    let dz = through_activation::<B>(
        normed.clone(),
        gamma.clone(),
        per_channel::<B>(beta, &shape),
        grad,
        act,
    );
    let dgamma = channel_sums::<B>(B::float_mul(dz.clone(), normed));
    let dbeta = channel_sums::<B>(dz.clone());
    let dn = grouped::<B>(B::float_mul(dz, gamma), groups);
    (
        B::float_reshape(norm_input_grad::<B>(dn, normed_rows, inv_std), shape),
        dgamma,
        dbeta,
    )
}

/// Gradient of `n·gamma + beta` from the gradient of its activation.
fn through_activation<B: Backend>(
    normed: Float<B>,
    gamma: Float<B>,
    beta: Float<B>,
    grad: Float<B>,
    act: Activation,
) -> Float<B> {
    match act {
        Activation::Identity => grad,
        act => activation_grad::<B>(B::float_add(B::float_mul(normed, gamma), beta), grad, act),
    }
}

/// `(dn − mean(dn) − n·mean(n·dn)) / σ`, row by row.
fn norm_input_grad<B: Backend>(dn: Float<B>, normed: Float<B>, inv_std: Float<B>) -> Float<B> {
    let mean = B::float_mean_dim(dn.clone(), 1);
    let dot = B::float_mean_dim(B::float_mul(dn.clone(), normed.clone()), 1);
    let rest = B::float_add(B::float_mul(normed, dot), mean);
    B::float_mul(B::float_sub(dn, rest), inv_std)
}

pub(crate) fn batch_norm<B: Backend>(
    x: Float<B>,
    gamma: Float<B>,
    beta: Float<B>,
    epsilon: f64,
    act: Activation,
) -> (Float<B>, Float<B>, Float<B>) {
    let result = B::batch_norm_train(x, gamma, beta, epsilon);
    (
        activation::<B>(result.output, act),
        result.mean,
        result.variance,
    )
}

#[allow(clippy::too_many_arguments)]
pub(crate) fn batch_norm_grads<B: Backend>(
    x: Float<B>,
    gamma: Float<B>,
    beta: Float<B>,
    mean: Float<B>,
    var: Float<B>,
    grad: Float<B>,
    epsilon: f64,
    act: Activation,
) -> (Float<B>, Float<B>, Float<B>) {
    let grad = match act {
        Activation::Identity => grad,
        act => {
            let z = B::batch_norm(
                x.clone(),
                gamma.clone(),
                beta,
                mean.clone(),
                var.clone(),
                epsilon,
            );
            activation_grad::<B>(z, grad, act)
        }
    };
    let grads = B::batch_norm_train_backward(x, gamma, mean, var, epsilon, grad);
    (grads.x_grad, grads.gamma_grad, grads.beta_grad)
}

/// Reshapes `[…, d]` to `[rows, d]`.
fn rows<B: Backend>(x: Float<B>) -> Float<B> {
    let shape = x.shape();
    let d = shape[shape.num_dims() - 1];
    let rows = shape.num_elements() / d.max(1);
    B::float_reshape(x, Shape::new([rows, d]))
}

fn row<B: Backend>(values: Float<B>) -> Float<B> {
    let len = values.shape().num_elements();
    B::float_reshape(values, Shape::new([1, len]))
}

pub(crate) fn layer_norm<B: Backend>(
    x: Float<B>,
    gamma: Float<B>,
    beta: Option<Float<B>>,
    epsilon: f64,
) -> (Float<B>, Float<B>, Float<B>) {
    let shape = x.shape();
    let (mean, var, centred) = moments::<B>(rows::<B>(x));
    let normed = B::float_mul(centred, inverse_deviation::<B>(var.clone(), epsilon));
    let scaled = B::float_mul(normed, row::<B>(gamma));
    let y = match beta {
        Some(beta) => B::float_add(scaled, row::<B>(beta)),
        None => scaled,
    };
    (B::float_reshape(y, shape), flat::<B>(mean), flat::<B>(var))
}

pub(crate) fn layer_norm_grads<B: Backend>(
    x: Float<B>,
    gamma: Float<B>,
    mean: Float<B>,
    var: Float<B>,
    grad: Float<B>,
    epsilon: f64,
) -> (Float<B>, Float<B>, Float<B>) {
    let shape = x.shape();
    let column = Shape::new([mean.shape().num_elements(), 1]);
    let inv_std = inverse_deviation::<B>(B::float_reshape(var, column.clone()), epsilon);
    let normed = B::float_mul(
        B::float_sub(rows::<B>(x), B::float_reshape(mean, column)),
        inv_std.clone(),
    );
    let grad = rows::<B>(grad);
    let dgamma = flat::<B>(B::float_sum_dim(
        B::float_mul(grad.clone(), normed.clone()),
        0,
    ));
    let dbeta = flat::<B>(B::float_sum_dim(grad.clone(), 0));
    let dn = B::float_mul(grad, row::<B>(gamma));
    (
        B::float_reshape(norm_input_grad::<B>(dn, normed, inv_std), shape),
        dgamma,
        dbeta,
    )
}

/// `q·kᵀ/√d`, with hidden keys at minus infinity (or a finite number near it, so that no NaN
/// appears).
fn scores<B: Backend>(q: Float<B>, k: Float<B>, causal: bool) -> Float<B> {
    let (queries, keys, d) = (q.shape()[2], k.shape()[2], q.shape()[3]);
    let device = q.device();
    let scaled = B::float_mul_scalar(q, (1.0 / (d as f64).sqrt()).into());
    let scores = B::float_matmul(scaled, B::float_swap_dims(k, 2, 3));
    if !causal {
        return scores;
    }
    // Query i attends to the keys up to i, counted from the end if there are more keys than
    // queries.
    let hidden: Vec<f32> = (0..queries)
        .flat_map(|i| (0..keys).map(move |j| if j + queries > i + keys { -1e9 } else { 0.0 }))
        .collect();
    let hidden = B::float_from_data(
        burn::tensor::TensorData::new(hidden, [1, 1, queries, keys]),
        &device,
    );
    let dtype = scores.dtype();
    B::float_add(scores, B::float_cast(hidden, dtype.into()))
}

/// Keys or values with each head repeated for the query heads that attend to it.
fn repeated<B: Backend>(x: Float<B>, heads: usize) -> Float<B> {
    let shape = x.shape();
    let (batch, kv_heads, keys, d) = (shape[0], shape[1], shape[2], shape[3]);
    if kv_heads == heads {
        return x;
    }
    let group = heads / kv_heads;
    let x = B::float_reshape(x, Shape::new([batch, kv_heads, 1, keys, d]));
    let x = B::float_expand(x, Shape::new([batch, kv_heads, group, keys, d]));
    B::float_reshape(x, Shape::new([batch, heads, keys, d]))
}

/// The gradient of [`repeated`].
fn summed<B: Backend>(grad: Float<B>, kv_heads: usize) -> Float<B> {
    let shape = grad.shape();
    let (batch, heads, keys, d) = (shape[0], shape[1], shape[2], shape[3]);
    if kv_heads == heads {
        return grad;
    }
    let each = Shape::new([batch, kv_heads, heads / kv_heads, keys, d]);
    let sum = B::float_sum_dim(B::float_reshape(grad, each), 2);
    B::float_reshape(sum, Shape::new([batch, kv_heads, keys, d]))
}

/// Scores of attention in memory at a time, unless those of one query are more.
const SCORES: usize = 1 << 24;

/// Applies `attend` to blocks of queries with at most `limit` scores, or of one query, and to the
/// keys and values that they see. A block's last query has the position of its last key if
/// `causal`, as all queries have. `attend` also gets the ranges of the queries and keys.
fn in_blocks<B: Backend, T>(
    [q, k, v]: [Float<B>; 3],
    causal: bool,
    limit: usize,
    mut attend: impl FnMut([Float<B>; 3], [Range<usize>; 2]) -> T,
) -> Vec<T> {
    let (shape, keys) = (q.shape(), k.shape()[2]);
    let (heads, queries) = (shape[1], shape[2]);
    let rows = match causal && keys < queries {
        // The first queries see no key: softmax over none is left to the whole.
        true => queries.max(1),
        false => (limit / (shape[0] * heads * keys).max(1)).max(1),
    };
    let (k, v) = (repeated::<B>(k, heads), repeated::<B>(v, heads));
    // No queries are one block, too.
    let starts = (0..queries.max(1)).step_by(rows);
    let block = |start: usize| {
        let end = queries.min(start.saturating_add(rows));
        let seen = if causal { end + keys - queries } else { keys };
        let part = |x: &Float<B>, range: Range<usize>| narrowed::<B>(x.clone(), range);
        let inputs = [part(&q, start..end), part(&k, 0..seen), part(&v, 0..seen)];
        attend(inputs, [start..end, 0..seen])
    };
    starts.map(block).collect()
}

/// The part of queries, keys or values in a range of their positions.
fn narrowed<B: Backend>(x: Float<B>, range: Range<usize>) -> Float<B> {
    if range.len() == x.shape()[2] {
        return x;
    }
    let all = Slice::new(0, None, 1);
    B::float_slice(x, &[all, all, range.into(), all])
}

/// The results of [`in_blocks`] side by side.
fn whole<B: Backend>(mut blocks: Vec<Float<B>>) -> Float<B> {
    match blocks.len() {
        1 => blocks.remove(0),
        _ => B::float_cat(blocks, 2),
    }
}

pub(crate) fn attention<B: Backend>(
    q: Float<B>,
    k: Float<B>,
    v: Float<B>,
    causal: bool,
) -> (Float<B>, Float<B>) {
    attention_in_blocks::<B>([q, k, v], causal, SCORES)
}

fn attention_in_blocks<B: Backend>(
    inputs: [Float<B>; 3],
    causal: bool,
    limit: usize,
) -> (Float<B>, Float<B>) {
    let blocks = in_blocks::<B, _>(inputs, causal, limit, |[q, k, v], _| {
        let shape = q.shape();
        let scores = scores::<B>(q, k, causal);
        let top = B::float_max_dim(scores.clone(), 3);
        let exponentials = B::float_exp(B::float_sub(scores, top.clone()));
        let sums = B::float_sum_dim(exponentials.clone(), 3);
        let log_sums = B::float_add(B::float_log(sums.clone()), top);
        let output = B::float_matmul(B::float_div(exponentials, sums), v);
        let each = Shape::new([shape[0], shape[1], shape[2]]);
        (output, B::float_reshape(log_sums, each))
    });
    let (outputs, log_sums): (Vec<_>, Vec<_>) = blocks.into_iter().unzip();
    (whole::<B>(outputs), whole::<B>(log_sums))
}

/// Holds all scores, several times.
pub(crate) fn attention_grads<B: Backend>(
    q: Float<B>,
    k: Float<B>,
    v: Float<B>,
    output: Float<B>,
    log_sums: Float<B>,
    grad: Float<B>,
    causal: bool,
) -> (Float<B>, Float<B>, Float<B>) {
    let (shape, kv_heads) = (q.shape(), k.shape()[1]);
    let (k, v) = (repeated::<B>(k, shape[1]), repeated::<B>(v, shape[1]));
    let scale = 1.0 / (shape[3] as f64).sqrt();
    let log_sums = B::float_reshape(log_sums, Shape::new([shape[0], shape[1], shape[2], 1]));
    let weights = B::float_exp(B::float_sub(
        scores::<B>(q.clone(), k.clone(), causal),
        log_sums,
    ));
    let dv = B::float_matmul(B::float_swap_dims(weights.clone(), 2, 3), grad.clone());
    let dweights = B::float_matmul(grad.clone(), B::float_swap_dims(v, 2, 3));
    // Σ weights·dweights over the keys is Σ output·grad over the channels (Dao et al. 2022,
    // appendix B.2).
    let dot = B::float_sum_dim(B::float_mul(grad, output), 3);
    let dscores = B::float_mul_scalar(
        B::float_mul(weights, B::float_sub(dweights, dot)),
        scale.into(),
    );
    let dq = B::float_matmul(dscores.clone(), k);
    let dk = B::float_matmul(B::float_swap_dims(dscores, 2, 3), q);
    (dq, summed::<B>(dk, kv_heads), summed::<B>(dv, kv_heads))
}

/// Queries, keys and values `[batch, heads, tokens, d]` of `[batch, tokens, 3·heads·d]`.
fn parts<B: Backend>(qkv: Float<B>, heads: usize) -> [Float<B>; 3] {
    let (batch, tokens, d) = (qkv.shape()[0], qkv.shape()[1], qkv.shape()[2] / (3 * heads));
    let qkv = B::float_reshape(qkv, Shape::new([batch, tokens, 3, heads, d]));
    let all = Slice::new(0, None, 1);
    [0, 1, 2].map(|part| {
        let one = Slice::new(part, Some(part + 1), 1);
        let part = B::float_slice(qkv.clone(), &[all, all, one, all, all]);
        B::float_swap_dims(
            B::float_reshape(part, Shape::new([batch, tokens, heads, d])),
            1,
            2,
        )
    })
}

/// `[batch, heads, tokens, d]` as `[batch, tokens, heads·d]`.
fn joined<B: Backend>(x: Float<B>) -> Float<B> {
    let shape = x.shape();
    B::float_reshape(
        B::float_swap_dims(x, 1, 2),
        Shape::new([shape[0], shape[2], shape[1] * shape[3]]),
    )
}

pub(crate) fn self_attention<B: Backend>(
    qkv: Float<B>,
    heads: usize,
    causal: bool,
) -> (Float<B>, Float<B>) {
    let [q, k, v] = parts::<B>(qkv, heads);
    let (output, log_sums) = attention::<B>(q, k, v, causal);
    (joined::<B>(output), log_sums)
}

pub(crate) fn self_attention_grad<B: Backend>(
    qkv: Float<B>,
    output: Float<B>,
    log_sums: Float<B>,
    grad: Float<B>,
    heads: usize,
    causal: bool,
) -> Float<B> {
    let [q, k, v] = parts::<B>(qkv, heads);
    let (shape, flat) = (q.shape(), output.shape());
    let split = |x: Float<B>| {
        let x = B::float_reshape(x, Shape::new([flat[0], flat[1], heads, shape[3]]));
        B::float_swap_dims(x, 1, 2)
    };
    let (dq, dk, dv) = attention_grads::<B>(q, k, v, split(output), log_sums, split(grad), causal);
    B::float_cat([dq, dk, dv].map(joined::<B>).into(), 2)
}

/// [`attention`] by burn's own function, for masks, and for values of another width than keys.
pub(crate) fn masked_attention<B: Backend>(
    q: Float<B>,
    k: Float<B>,
    v: Float<B>,
    mask: Option<BoolTensor<B>>,
    causal: bool,
) -> Float<B> {
    masked_in_blocks::<B>([q, k, v], mask, causal, SCORES)
}

fn masked_in_blocks<B: Backend>(
    inputs: [Float<B>; 3],
    mask: Option<BoolTensor<B>>,
    causal: bool,
    limit: usize,
) -> Float<B> {
    // LibTorch's own attention attends to what the mask hides, and counts causal keys from the
    // first (burn-tch 0.22.1, `ops/module.rs:488`).
    let is_libtorch = B::name(&inputs[0].device()).contains("libtorch");
    let blocks = in_blocks::<B, _>(inputs, causal, limit, |[q, k, v], ranges| {
        let mask = mask.clone().map(|mask| mask_of::<B>(mask, ranges));
        let options = AttentionModuleOptions {
            is_causal: causal,
            ..Default::default()
        };
        match is_libtorch {
            true => attention_fallback::<B>(q, k, v, mask, None, options),
            false => B::attention(q, k, v, mask, None, options),
        }
    });
    whole::<B>(blocks)
}

/// The part of a mask for ranges of the queries and keys.
fn mask_of<B: Backend>(mask: BoolTensor<B>, ranges: [Range<usize>; 2]) -> BoolTensor<B> {
    let shape = mask.shape();
    let all = Slice::new(0, None, 1);
    // An axis of one is the same for all.
    let part = |axis: usize, range: Range<usize>| match shape[axis] {
        1 => all,
        _ => range.into(),
    };
    let [queries, keys] = ranges;
    if [queries.len(), keys.len()] == [shape[2], shape[3]] {
        return mask;
    }
    B::bool_slice(mask, &[all, all, part(2, queries), part(3, keys)])
}

pub(crate) fn quantized_linear<B: Backend>(
    x: Float<B>,
    values: IntTensor<B>,
    scales: Float<B>,
    bias: Option<Float<B>>,
    quantization: Quantization,
) -> Float<B> {
    let width = x.shape()[x.shape().num_dims() - 1];
    let weight = B::float_cast(
        dequantize::<B>(values, scales, width, quantization),
        x.dtype().into(),
    );
    B::linear(x, B::float_transpose(weight), bias)
}

pub(crate) fn dequantize<B: Backend>(
    values: IntTensor<B>,
    scales: Float<B>,
    width: usize,
    quantization: Quantization,
) -> Float<B> {
    let [rows, blocks] = [scales.shape()[0], scales.shape()[1]];
    let values = B::int_into_float(values, scales.dtype().into());
    let values = match quantization {
        Quantization::Int8 => {
            B::float_reshape(values, Shape::new([rows, blocks, Quantization::BLOCK_SIZE]))
        }
        Quantization::Int4 => {
            // A byte is 16·high + low, where low is −8 to 7 stored modulo 16.
            let bytes = B::float_reshape(
                values,
                Shape::new([rows, blocks, Quantization::BLOCK_SIZE / 2]),
            );
            let high = B::float_floor(B::float_div_scalar(bytes.clone(), 16.0.into()));
            let low = B::float_sub(bytes, B::float_mul_scalar(high.clone(), 16.0.into()));
            let above = B::float_floor(B::float_div_scalar(low.clone(), 8.0.into()));
            B::float_cat(
                vec![
                    B::float_sub(low, B::float_mul_scalar(above, 16.0.into())),
                    high,
                ],
                2,
            )
        }
    };
    let values = B::float_mul(
        values,
        B::float_reshape(scales, Shape::new([rows, blocks, 1])),
    );
    let all = B::float_reshape(
        values,
        Shape::new([rows, blocks * Quantization::BLOCK_SIZE]),
    );
    B::float_slice(all, &[(0..rows).into(), (0..width).into()])
}

pub(crate) fn embedding_grad<B: Backend>(
    grad: Float<B>,
    indices: IntTensor<B>,
    rows: usize,
) -> Float<B> {
    let (grad, indices) = (self::rows::<B>(grad), {
        let len = indices.shape().num_elements();
        B::int_reshape(indices, Shape::new([len]))
    });
    let zeros = B::float_zeros(
        Shape::new([rows, grad.shape()[1]]),
        &grad.device(),
        grad.dtype().into(),
    );
    B::float_select_assign(zeros, 0, indices, grad, IndexingUpdateOp::Add)
}

pub(crate) fn upsample_nearest2d<B: Backend>(x: Float<B>, factor: usize) -> Float<B> {
    let shape = x.shape();
    let size = [shape[2] * factor, shape[3] * factor];
    B::interpolate(x, size, InterpolateOptions::new(InterpolateMode::Nearest))
}

pub(crate) fn pool2d<B: Backend>(x: Float<B>, pool: Pool, sizes: PoolSizes) -> Float<B> {
    let PoolSizes {
        kernel,
        stride,
        padding,
        ..
    } = sizes;
    match pool {
        Pool::Max => B::max_pool2d(x, kernel, stride, padding, [1, 1], false),
        // Neither with padding nor with a last window that leaves the map.
        Pool::Mean => B::avg_pool2d(x, kernel, stride, padding, false, false),
    }
}

pub(crate) fn upsample_nearest2d_grad<B: Backend>(grad: Float<B>, factor: usize) -> Float<B> {
    let shape = grad.shape();
    let (height, width) = (shape[2] / factor, shape[3] / factor);
    let blocks = Shape::new([shape[0] * shape[1] * height, factor, width, factor]);
    let sums = B::float_sum_dims(B::float_reshape(grad, blocks), &[1, 3]);
    B::float_reshape(sums, Shape::new([shape[0], shape[1], height, width]))
}

/// `ln Σ e^l` of every row, `[rows, 1]`.
fn log_sum_exp<B: Backend>(logits: Float<B>) -> Float<B> {
    let top = B::float_max_dim(logits.clone(), 1);
    let sums = B::float_sum_dim(B::float_exp(B::float_sub(logits, top.clone())), 1);
    B::float_add(B::float_log(sums), top)
}

pub(crate) fn cross_entropy<B: Backend>(logits: Float<B>, targets: IntTensor<B>) -> Float<B> {
    let rows = logits.shape()[0];
    let picked = B::float_gather(
        1,
        logits.clone(),
        B::int_reshape(targets, Shape::new([rows, 1])),
    );
    flat::<B>(B::float_sub(log_sum_exp::<B>(logits), picked))
}

pub(crate) fn cross_entropy_grad<B: Backend>(
    logits: Float<B>,
    targets: IntTensor<B>,
    grad: Float<B>,
) -> Float<B> {
    let rows = logits.shape()[0];
    let grad = B::float_reshape(grad, Shape::new([rows, 1]));
    let probabilities = B::float_exp(B::float_sub(logits.clone(), log_sum_exp::<B>(logits)));
    let targets = B::int_reshape(targets, Shape::new([rows, 1]));
    let scaled = B::float_mul(probabilities, grad.clone());
    B::float_scatter(
        1,
        scaled,
        targets,
        B::float_neg(grad),
        IndexingUpdateOp::Add,
    )
}

pub(crate) fn binary_cross_entropy<B: Backend>(logits: Float<B>, targets: Float<B>) -> Float<B> {
    let loss = B::float_sub(
        activation::<B>(logits.clone(), Activation::Softplus),
        B::float_mul(targets, logits),
    );
    flat::<B>(B::float_sum_dim(loss, 1))
}

pub(crate) fn binary_cross_entropy_grad<B: Backend>(
    logits: Float<B>,
    targets: Float<B>,
    grad: Float<B>,
) -> Float<B> {
    let rows = logits.shape()[0];
    B::float_mul(
        B::float_sub(B::sigmoid(logits), targets),
        B::float_reshape(grad, Shape::new([rows, 1])),
    )
}

pub(crate) fn reparameterize<B: Backend>(
    mean: Float<B>,
    log_std: Float<B>,
    noise: Float<B>,
) -> Float<B> {
    B::float_add(mean, B::float_mul(B::float_exp(log_std), noise))
}

pub(crate) fn reparameterize_grads<B: Backend>(
    log_std: Float<B>,
    noise: Float<B>,
    grad: Float<B>,
) -> (Float<B>, Float<B>) {
    let scaled = B::float_mul(grad, B::float_exp(log_std));
    (B::float_mul(scaled.clone(), noise), scaled)
}

/// `e^(2·log σ) − 1`
fn variance_less_one<B: Backend>(log_std: Float<B>) -> Float<B> {
    let variance = B::float_exp(B::float_mul_scalar(log_std, 2.0.into()));
    B::float_add_scalar(variance, (-1.0).into())
}

pub(crate) fn standard_normal_kl<B: Backend>(mean: Float<B>, log_std: Float<B>) -> Float<B> {
    let squares = B::float_add(
        B::float_mul(mean.clone(), mean),
        variance_less_one::<B>(log_std.clone()),
    );
    let terms = B::float_sub(B::float_mul_scalar(squares, 0.5.into()), log_std);
    flat::<B>(B::float_sum_dim(terms, 1))
}

pub(crate) fn standard_normal_kl_grads<B: Backend>(
    mean: Float<B>,
    log_std: Float<B>,
    grad: Float<B>,
) -> (Float<B>, Float<B>) {
    let grad = B::float_reshape(grad, Shape::new([mean.shape()[0], 1]));
    (
        B::float_mul(mean, grad.clone()),
        B::float_mul(variance_less_one::<B>(log_std), grad),
    )
}

pub(crate) fn adam_step<B: Backend>(
    param: Float<B>,
    grad: Float<B>,
    moment_1: Float<B>,
    moment_2: Float<B>,
    step: AdamStep,
) -> (Float<B>, Float<B>, Float<B>) {
    let AdamStep {
        learning_rate,
        beta_1,
        beta_2,
        epsilon,
        step: number,
        weight_decay,
        decoupled_decay,
    } = step;
    let scale = |x: Float<B>, by: f64| B::float_mul_scalar(x, by.into());
    let grad = if weight_decay == 0.0 {
        grad
    } else {
        B::float_add(grad, scale(param.clone(), weight_decay))
    };
    let moment_1 = B::float_add(scale(moment_1, beta_1), scale(grad.clone(), 1.0 - beta_1));
    let moment_2 = B::float_add(
        scale(moment_2, beta_2),
        scale(B::float_mul(grad.clone(), grad), 1.0 - beta_2),
    );
    let (correction_1, correction_2) = (
        1.0 - beta_1.powi(number),
        (1.0 - beta_2.powi(number)).sqrt(),
    );
    let deviation = B::float_add_scalar(
        scale(B::float_sqrt(moment_2.clone()), 1.0 / correction_2),
        epsilon.into(),
    );
    let change = scale(
        B::float_div(moment_1.clone(), deviation),
        learning_rate / correction_1,
    );
    let decayed = if decoupled_decay == 0.0 {
        param
    } else {
        scale(param, 1.0 - learning_rate * decoupled_decay)
    };
    (B::float_sub(decayed, change), moment_1, moment_2)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        rng::Rng,
        testing::{assert_close, values},
    };
    use burn::{
        backend::Dispatch,
        tensor::{Bool, Device, Tensor, TensorData},
    };

    const BATCH: usize = 2;
    const HEADS: usize = 4;
    const QUERIES: usize = 8;

    /// Numbers of heads of keys, of keys, and whether attention is causal.
    const CASES: [(usize, usize, bool); 5] = [
        (4, 8, true),
        (2, 11, true),
        (1, 11, false),
        (4, 5, false),
        (2, 8, false),
    ];

    /// Limits of scores for blocks of one query, of three, where the last is smaller, and of all.
    fn limits(keys: usize) -> [usize; 3] {
        let row = BATCH * HEADS * keys;
        [1, 3 * row + 1, QUERIES * row]
    }

    fn inputs(kv_heads: usize, keys: usize, device: &Device) -> [Tensor<4>; 3] {
        let mut rng = Rng::new(1);
        let shapes = [
            [BATCH, HEADS, QUERIES, 5],
            [BATCH, kv_heads, keys, 5],
            [BATCH, kv_heads, keys, 3],
        ];
        shapes.map(|shape| rng.normal(shape, device))
    }

    #[test]
    fn blocks_have_bounded_scores_and_the_keys_that_they_see() {
        for (kv_heads, keys, causal) in CASES {
            let counts = limits(keys).map(|limit| {
                let inputs = inputs(kv_heads, keys, &Device::flex()).map(Tensor::into_dispatch);
                let blocks = in_blocks::<Dispatch, _>(inputs, causal, limit, |inputs, ranges| {
                    (inputs.map(|x| x.shape()), ranges)
                });
                let mut next = 0;
                for ([q, k, v], [queries, seen]) in &blocks {
                    assert_eq!((queries.start, q[2]), (next, queries.len()));
                    next = queries.end;
                    let hidden = if causal { QUERIES - next } else { 0 };
                    assert_eq!(*seen, 0..keys - hidden);
                    assert_eq!([k[1], k[2]], [HEADS, seen.len()]);
                    assert_eq!([v[1], v[2]], [HEADS, seen.len()]);
                    let scores = BATCH * HEADS * queries.len() * seen.len();
                    assert!(queries.len() == 1 || scores <= limit);
                }
                assert_eq!(next, QUERIES);
                blocks.len()
            });
            assert_eq!(counts, [8, 3, 1]);
        }
    }

    /// Some of them see no key.
    #[test]
    fn causal_queries_with_fewer_keys_are_one_block() {
        let inputs = inputs(4, 5, &Device::flex()).map(Tensor::into_dispatch);
        let ranges = in_blocks::<Dispatch, _>(inputs, true, 1, |_, ranges| ranges);
        assert_eq!(ranges, [[0..QUERIES, 0..5]]);
    }

    /// Results and sums of exponentials.
    #[test]
    fn attention_in_blocks_matches_one_block() {
        for (kv_heads, keys, causal) in CASES {
            let inputs = inputs(kv_heads, keys, &Device::flex());
            let run = |limit: usize| {
                let inputs = inputs.clone().map(Tensor::into_dispatch);
                let (y, log_sums) = attention_in_blocks::<Dispatch>(inputs, causal, limit);
                let (y, log_sums) = (
                    Tensor::<4>::from_dispatch(y),
                    Tensor::<3>::from_dispatch(log_sums),
                );
                assert_eq!(y.dims(), [BATCH, HEADS, QUERIES, 3]);
                assert_eq!(log_sums.dims(), [BATCH, HEADS, QUERIES]);
                [values(y), values(log_sums)]
            };
            let [single, several, one] = limits(keys).map(run);
            for found in [single, several] {
                for (found, expected) in found.iter().zip(&one) {
                    assert_close(found, expected, 1e-5);
                }
            }
        }
    }

    /// Results and gradients, with a mask that differs between queries and without one.
    #[test]
    fn masked_attention_in_blocks_matches_one_block() {
        let device = Device::flex().autodiff();
        for (kv_heads, keys, causal) in CASES {
            let inputs = inputs(kv_heads, keys, &device);
            // The first key, which every query sees, is never hidden.
            let hidden: Vec<bool> = (0..BATCH * HEADS * QUERIES * keys)
                .map(|at| at % keys > 0 && at * 7 % 11 < 4)
                .collect();
            let hidden = TensorData::new(hidden, [BATCH, HEADS, QUERIES, keys]);
            let hidden = Tensor::<4, Bool>::from_data(hidden, &device);
            for mask in [None, Some(hidden)] {
                let run = |limit: usize| {
                    let leaves = inputs.clone().map(|x| x.detach().require_grad());
                    let mask = mask.clone().map(Tensor::into_dispatch);
                    let parts = leaves.clone().map(Tensor::into_dispatch);
                    let y = masked_in_blocks::<Dispatch>(parts, mask, causal, limit);
                    let y = Tensor::<4>::from_dispatch(y);
                    let grads = y.clone().powi_scalar(2).sum().backward();
                    let grads = leaves.map(|x| values(x.grad(&grads).expect("a gradient")));
                    (values(y.inner()), grads)
                };
                let [single, several, one] = limits(keys).map(run);
                for (found, grads) in [single, several] {
                    assert_close(&found, &one.0, 1e-5);
                    for (found, expected) in grads.iter().zip(&one.1) {
                        assert_close(found, expected, 1e-4);
                    }
                }
            }
        }
    }
}
