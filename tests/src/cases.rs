//! Random cases of every operation, for holding one implementation against another.
//!
//! Inputs are drawn as flat tensors and laid out inside, half of them out of order, so that kernels
//! also meet transposed, flipped and cut tensors, and gradients that come back transposed.

use aigc_core::{
    nn::{Activation, QuantizedWeight},
    ops::{self, Quantization},
    rng::Rng,
};
use burn::{
    module::Module,
    tensor::{
        Bool, Device, Int, Tensor, TensorData,
        ops::{ConvOptions, ConvTransposeOptions},
    },
};

/// A case: lengths of its inputs, and what is computed from them.
pub struct Case {
    /// Lengths of the inputs.
    pub lens: Vec<usize>,
    /// From inputs to output.
    pub compute: Box<dyn Fn(Vec<Tensor<1>>) -> Tensor<1>>,
    /// Shapes and settings, for messages.
    pub about: String,
}

/// An operation: its name, the error that its kernels may have, relative to the largest value of a
/// tensor (at least one), and what draws a case.
pub type Operation = (&'static str, f64, fn(&mut Rng) -> Case);

/// Every operation.
pub const OPERATIONS: [Operation; 27] = [
    ("conv2d", 2e-5, conv2d),
    ("conv2d 3×3", 2e-5, conv2d_3x3),
    ("conv2d small maps", 2e-5, conv2d_small_maps),
    ("conv2d 1×1", 2e-5, conv2d_1x1),
    ("conv1d", 2e-5, conv1d),
    ("conv2d depthwise", 2e-5, depthwise),
    ("conv_transpose2d", 2e-5, conv_transpose2d),
    ("conv_transpose1d", 2e-5, conv_transpose1d),
    ("linear", 1e-5, linear),
    ("activation", 5e-6, activation),
    ("snake", 5e-5, snake),
    ("lstm_cell", 1e-5, lstm_cell),
    ("group_norm", 2e-5, group_norm),
    ("batch_norm", 2e-5, batch_norm),
    ("layer_norm", 2e-5, layer_norm),
    ("attention", 2e-5, attention),
    ("masked_attention", 2e-5, masked_attention),
    ("self_attention", 2e-5, self_attention),
    ("embedding", 1e-6, embedding),
    ("quantized_linear", 1e-5, quantized_linear),
    ("packed_embedding", 1e-6, packed_embedding),
    ("upsample_nearest2d", 1e-6, upsample_nearest2d),
    ("pool2d", 1e-5, pool2d),
    ("cross_entropy", 1e-5, cross_entropy),
    ("binary_cross_entropy", 1e-5, binary_cross_entropy),
    ("reparameterize", 1e-5, reparameterize),
    ("standard_normal_kl", 1e-5, standard_normal_kl),
];

/// A number from `low` to `high`.
pub fn pick(rng: &mut Rng, low: usize, high: usize) -> usize {
    low + rng.random_index(high - low + 1)
}

/// One case in twenty-five is so much larger that the work is shared between threads, and cut into
/// parts.
fn scale_up(rng: &mut Rng) -> usize {
    if pick(rng, 0, 24) == 0 { 24 } else { 1 }
}

/// How the numbers of a tensor lie in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layout {
    /// In order.
    InOrder,
    /// The last two axes the other way round.
    Turned,
    /// The last axis backwards.
    Flipped,
    /// In order, as part of a larger tensor, beginning somewhere inside.
    Cut,
}

/// Half of all tensors lie in order.
fn some_layout(rng: &mut Rng) -> Layout {
    use Layout::{Cut, Flipped, InOrder, Turned};
    [InOrder, InOrder, InOrder, Turned, Flipped, Cut][pick(rng, 0, 5)]
}

/// A flat tensor as `shape`.
fn laid<const D: usize>(x: Tensor<1>, shape: [usize; D], layout: Layout) -> Tensor<D> {
    match layout {
        Layout::InOrder => x.reshape(shape),
        Layout::Turned => {
            let mut other = shape;
            other.swap(D - 2, D - 1);
            x.reshape(other).swap_dims(D - 2, D - 1)
        }
        Layout::Flipped => x.reshape(shape).flip([D as isize - 1]),
        Layout::Cut => {
            let x = x.reshape(shape);
            Tensor::cat(vec![x.clone(), x], D - 1).narrow(D - 1, shape[D - 1], shape[D - 1])
        }
    }
}

/// All numbers of an output; where inputs are turned the output is too, so that its gradient comes
/// back out of order.
fn flat<const D: usize>(x: Tensor<D>, layout: Layout) -> Tensor<1> {
    let len = x.shape().num_elements();
    match layout {
        Layout::Turned => x.swap_dims(D - 2, D - 1).reshape([len]),
        _ => x.reshape([len]),
    }
}

fn some_activation(rng: &mut Rng) -> Activation {
    let all = [
        Activation::Identity,
        Activation::Relu,
        Activation::LeakyRelu(0.2),
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
        Activation::Tanh,
        Activation::Sigmoid,
        Activation::Softplus,
        Activation::QuickGelu,
        Activation::Mish,
        Activation::SoftClamp(3.0),
        Activation::Elu(1.0),
        Activation::Elu(0.6),
    ];
    all[pick(rng, 0, all.len() - 1)]
}

/// As [`scale_up`], but not before an activation with a kink: among many numbers some lie so close
/// to it that rounding decides on which side.
fn scale_up_before(activation: Activation, rng: &mut Rng) -> usize {
    match activation {
        Activation::Relu | Activation::LeakyRelu(_) | Activation::Elu(_) => 1,
        _ => scale_up(rng),
    }
}

fn conv2d(rng: &mut Rng) -> Case {
    let groups = [1, 1, 1, 2][pick(rng, 0, 3)];
    let (channels_in, channels_out) = (groups * pick(rng, 1, 9), groups * pick(rng, 1, 20));
    let kernel = [pick(rng, 1, 5), pick(rng, 1, 5)];
    let (stride, dilation) = (
        [pick(rng, 1, 3), pick(rng, 1, 3)],
        [pick(rng, 1, 2), pick(rng, 1, 2)],
    );
    let padding = [0, 1].map(|_| {
        let begin = pick(rng, 0, 3);
        (
            begin,
            if pick(rng, 0, 3) == 0 {
                pick(rng, 0, 3)
            } else {
                begin
            },
        )
    });
    let size = [0, 1].map(|i| {
        let least = (dilation[i] * (kernel[i] - 1) + 1)
            .saturating_sub(padding[i].0 + padding[i].1)
            .max(1);
        pick(rng, least, least + 16)
    });
    let (batch, bias, layout) = (
        scale_up(rng) * pick(rng, 1, 5),
        pick(rng, 0, 1) == 1,
        some_layout(rng),
    );
    let x = [batch, channels_in, size[0], size[1]];
    let weight = [channels_out, channels_in / groups, kernel[0], kernel[1]];
    convolution(
        x,
        weight,
        bias,
        ConvOptions::new_with_padding(stride, padding, dilation, groups),
        layout,
    )
}

/// A convolution of an input and a weight of these shapes.
pub fn convolution(
    x: [usize; 4],
    weight: [usize; 4],
    bias: bool,
    options: ConvOptions<2>,
    layout: Layout,
) -> Case {
    Case {
        lens: vec![x.iter().product(), weight.iter().product(), weight[0]],
        about: format!("{x:?} by {weight:?}, bias {bias}, {options:?}, {layout:?}"),
        compute: Box::new(move |t| {
            let (x, weight) = (
                laid(t[0].clone(), x, layout),
                laid(t[1].clone(), weight, layout),
            );
            flat(
                ops::conv2d(x, weight, bias.then(|| t[2].clone()), options.clone()),
                layout,
            )
        }),
    }
}

/// The kernel that most layers have goes its own way (Winograd's), forward and backward, where
/// there are channels enough.
fn conv2d_3x3(rng: &mut Rng) -> Case {
    let x = [
        scale_up(rng) * pick(rng, 1, 5),
        pick(rng, 1, 24),
        pick(rng, 3, 20),
        pick(rng, 3, 35),
    ];
    let weight = [pick(rng, 1, 24), x[1], 3, 3];
    let (padding, bias) = ([pick(rng, 0, 2), pick(rng, 0, 2)], pick(rng, 0, 1) == 1);
    convolution(
        x,
        weight,
        bias,
        ConvOptions::new([1, 1], padding, [1, 1], 1),
        some_layout(rng),
    )
}

/// So do small maps, whatever the stride, with kernels of two or three taps per axis and phase.
fn conv2d_small_maps(rng: &mut Rng) -> Case {
    let batch = [3, 15, 16, 31, 32][pick(rng, 0, 4)];
    let x = [batch, pick(rng, 1, 20), pick(rng, 4, 15), pick(rng, 4, 9)];
    let weight = [pick(rng, 3, 30), x[1], pick(rng, 1, 4), pick(rng, 1, 4)];
    let (stride, padding) = (
        [pick(rng, 1, 2), pick(rng, 1, 2)],
        [pick(rng, 0, 2), pick(rng, 0, 2)],
    );
    let bias = pick(rng, 0, 1) == 1;
    convolution(
        x,
        weight,
        bias,
        ConvOptions::new(stride, padding, [1, 1], 1),
        some_layout(rng),
    )
}

/// And kernels of one pixel, which are matrix products.
fn conv2d_1x1(rng: &mut Rng) -> Case {
    let x = [
        scale_up(rng) * pick(rng, 1, 5),
        pick(rng, 1, 40),
        pick(rng, 1, 20),
        pick(rng, 1, 20),
    ];
    let (weight, bias) = ([pick(rng, 1, 40), x[1], 1, 1], pick(rng, 0, 1) == 1);
    convolution(
        x,
        weight,
        bias,
        ConvOptions::new([1, 1], [0, 0], [1, 1], 1),
        some_layout(rng),
    )
}

/// Rows of samples with long kernels, dilations, strides and groups; one in ten is so long that it
/// is cut into windows.
fn conv1d(rng: &mut Rng) -> Case {
    let groups = [1, 1, 1, 2, 4][pick(rng, 0, 4)];
    let channels_in = groups * pick(rng, 1, 8);
    let kernel = [1, 3, 4, 7, 11, 41][pick(rng, 0, 5)];
    let (stride, dilation) = (
        [1, 1, 2, 3, 4, 8][pick(rng, 0, 5)],
        [1, 1, 3, 5][pick(rng, 0, 3)],
    );
    let reach = dilation * (kernel - 1) + 1;
    let padding = pick(rng, 0, reach / 2);
    let least = reach.saturating_sub(2 * padding).max(1);
    let long = if pick(rng, 0, 9) == 0 { 1500 } else { 120 };
    let x = [
        pick(rng, 1, 3),
        channels_in,
        1,
        pick(rng, least, least + long),
    ];
    let weight = [groups * pick(rng, 1, 20), channels_in / groups, 1, kernel];
    let bias = pick(rng, 0, 1) == 1;
    convolution(
        x,
        weight,
        bias,
        ConvOptions::new([1, stride], [0, padding], [1, dilation], groups),
        some_layout(rng),
    )
}

/// A kernel of every channel's own, or a few.
fn depthwise(rng: &mut Rng) -> Case {
    let groups = pick(rng, 1, 24);
    let kernel = [[1, 3], [1, 7], [3, 3], [5, 2], [1, 41]][pick(rng, 0, 4)];
    let (stride, dilation) = (
        [pick(rng, 1, 2), pick(rng, 1, 3)],
        [pick(rng, 1, 2), [1, 3, 9][pick(rng, 0, 2)]],
    );
    let padding = [0, 1].map(|axis| pick(rng, 0, dilation[axis] * (kernel[axis] - 1)));
    let size = [0, 1].map(|axis| {
        let reach = dilation[axis] * (kernel[axis] - 1) + 1;
        let least = reach.saturating_sub(2 * padding[axis]).max(1);
        pick(rng, least, least + [6, 150][axis])
    });
    let height = if kernel[0] == 1 && pick(rng, 0, 1) == 0 {
        1
    } else {
        size[0]
    };
    let per_group = [1, 1, 1, 2][pick(rng, 0, 3)];
    let (x, weight) = (
        [pick(rng, 1, 4), groups, height, size[1]],
        [groups * per_group, 1, kernel[0], kernel[1]],
    );
    let bias = pick(rng, 0, 1) == 1;
    convolution(
        x,
        weight,
        bias,
        ConvOptions::new(stride, padding, dilation, groups),
        some_layout(rng),
    )
}

fn conv_transpose2d(rng: &mut Rng) -> Case {
    let groups = [1, 1, 1, 2][pick(rng, 0, 3)];
    let (channels_in, per_group) = (groups * pick(rng, 1, 9), pick(rng, 1, 20));
    let kernel = [pick(rng, 1, 5), pick(rng, 1, 5)];
    let (stride, dilation) = (
        [pick(rng, 1, 3), pick(rng, 1, 3)],
        [pick(rng, 1, 2), pick(rng, 1, 2)],
    );
    let padding_out = [0, 1].map(|i| pick(rng, 0, stride[i].max(dilation[i]) - 1));
    let size = [pick(rng, 1, 9), pick(rng, 1, 9)];
    let padding = [0, 1].map(|i| {
        let most = ((size[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + padding_out[i]) / 2;
        pick(rng, 0, most.min(3))
    });
    let (batch, bias, layout) = (
        scale_up(rng) * pick(rng, 1, 5),
        pick(rng, 0, 1) == 1,
        some_layout(rng),
    );
    let x = [batch, channels_in, size[0], size[1]];
    let weight = [channels_in, per_group, kernel[0], kernel[1]];
    let options = ConvTransposeOptions::new(stride, padding, padding_out, dilation, groups);
    transposed_convolution(x, weight, bias, options, layout)
}

/// A transposed convolution of an input and a weight of these shapes.
fn transposed_convolution(
    x: [usize; 4],
    weight: [usize; 4],
    bias: bool,
    options: ConvTransposeOptions<2>,
    layout: Layout,
) -> Case {
    Case {
        lens: vec![
            x.iter().product(),
            weight.iter().product(),
            weight[1] * options.groups,
        ],
        about: format!("{x:?} by {weight:?}, {options:?}"),
        compute: Box::new(move |t| {
            let bias = bias.then(|| t[2].clone());
            let (x, weight) = (
                laid(t[0].clone(), x, layout),
                laid(t[1].clone(), weight, layout),
            );
            flat(
                ops::conv_transpose2d(x, weight, bias, options.clone()),
                layout,
            )
        }),
    }
}

/// Rows of samples that become two to eight times as long, as in vocoders and codecs.
fn conv_transpose1d(rng: &mut Rng) -> Case {
    let groups = [1, 1, 1, 2, 4][pick(rng, 0, 4)];
    let channels_in = groups * pick(rng, 1, 9);
    let stride = [1, 2, 3, 4, 5, 8][pick(rng, 0, 5)];
    let kernel = [stride, 2 * stride, 3, 7][pick(rng, 0, 3)];
    let padding_out = pick(rng, 0, stride - 1);
    let long = if pick(rng, 0, 9) == 0 { 700 } else { 60 };
    let time = pick(rng, 1, long);
    let most = ((time - 1) * stride + kernel - 1 + padding_out) / 2;
    let padding = pick(rng, 0, most.min(stride));
    let (bias, layout) = (pick(rng, 0, 1) == 1, some_layout(rng));
    let x = [pick(rng, 1, 3), channels_in, 1, time];
    let weight = [channels_in, pick(rng, 1, 20), 1, kernel];
    let options =
        ConvTransposeOptions::new([1, stride], [0, padding], [0, padding_out], [1, 1], groups);
    transposed_convolution(x, weight, bias, options, layout)
}

fn linear(rng: &mut Rng) -> Case {
    // Many rows, or few rows of many columns.
    let (tall, wide) = (scale_up(rng), scale_up(rng));
    let rows = if wide > 1 {
        pick(rng, 1, 3)
    } else {
        tall * pick(rng, 1, 40)
    };
    let (tokens, i, o) = (pick(rng, 1, 5), pick(rng, 1, 70), wide * pick(rng, 1, 90));
    let (bias, layout) = (pick(rng, 0, 1) == 1, some_layout(rng));
    Case {
        lens: vec![rows * tokens * i, i * o, o],
        about: format!("{rows}×{tokens}×{i}→{o}"),
        compute: Box::new(move |t| {
            let x = laid(t[0].clone(), [rows, tokens, i], layout);
            flat(
                ops::linear(
                    x,
                    laid(t[1].clone(), [i, o], layout),
                    bias.then(|| t[2].clone()),
                ),
                layout,
            )
        }),
    }
}

fn activation(rng: &mut Rng) -> Case {
    let (activation, a, b) = (
        some_activation(rng),
        scale_up(rng) * pick(rng, 1, 40),
        pick(rng, 1, 40),
    );
    let (layout, scale) = (some_layout(rng), [0.01, 1.0, 10.0][pick(rng, 0, 2)]);
    Case {
        lens: vec![a * b],
        about: format!("{activation:?} of {a}×{b}, scale {scale}"),
        compute: Box::new(move |t| {
            flat(
                ops::activation(laid(t[0].clone() * scale, [a, b], layout), activation),
                layout,
            )
        }),
    }
}

/// Many short rows, or rows that are summed in parts. The arguments are small, because the rounding
/// of large ones shows; a test of the kernel has those.
fn snake(rng: &mut Rng) -> Case {
    let (many, long) = (scale_up(rng), [1, 1, 1, 25][pick(rng, 0, 3)]);
    let shape = [
        pick(rng, 1, 4),
        many * pick(rng, 1, 6),
        long * pick(rng, 1, 50),
    ];
    let (layout, scale) = (some_layout(rng), [0.01, 0.3, 1.0][pick(rng, 0, 2)]);
    // Frequency and divisor are one number in half of the cases.
    let own_divisor = pick(rng, 0, 1) == 1;
    Case {
        lens: vec![shape.iter().product(), shape[1], shape[1]],
        about: format!("{shape:?}, scale {scale}, own divisor {own_divisor}, {layout:?}"),
        compute: Box::new(move |t| {
            let [alpha, beta] = [1, 2].map(|index: usize| (t[index].clone() * 0.3).exp());
            let beta = if own_divisor { beta } else { alpha.clone() };
            let x = laid(t[0].clone() * scale, shape, layout);
            flat(ops::snake(x, alpha, beta), layout)
        }),
    }
}

/// Hidden states and states of the cells have different weights in the loss.
fn lstm_cell(rng: &mut Rng) -> Case {
    let (batch, d) = (scale_up(rng) * pick(rng, 1, 9), pick(rng, 1, 60));
    let (layout, scale) = (some_layout(rng), [0.1, 1.0, 10.0][pick(rng, 0, 2)]);
    Case {
        lens: vec![batch * 4 * d, batch * d],
        about: format!("{batch}×{d}, scale {scale}, {layout:?}"),
        compute: Box::new(move |t| {
            let gates = laid(t[0].clone() * scale, [batch, 4 * d], layout);
            let cell = laid(t[1].clone(), [batch, d], layout);
            let (hidden, cell) = ops::lstm_cell(gates, cell);
            Tensor::cat(vec![flat(hidden, layout), flat(cell, layout)], 0)
        }),
    }
}

fn group_norm(rng: &mut Rng) -> Case {
    let (groups, activation) = (pick(rng, 1, 4), some_activation(rng));
    let batch = scale_up_before(activation, rng) * pick(rng, 1, 4);
    let shape = [
        batch,
        groups * pick(rng, 1, 5),
        pick(rng, 1, 9),
        pick(rng, 2, 19),
    ];
    let layout = some_layout(rng);
    Case {
        lens: vec![shape.iter().product(), shape[1], shape[1]],
        about: format!("{shape:?} in {groups}, {activation:?}"),
        compute: Box::new(move |t| {
            let x = laid(t[0].clone() * 2.0 + 0.5, shape, layout);
            flat(
                ops::group_norm(x, t[1].clone(), t[2].clone(), groups, 1e-3, activation),
                layout,
            )
        }),
    }
}

fn batch_norm(rng: &mut Rng) -> Case {
    let activation = some_activation(rng);
    let batch = scale_up_before(activation, rng) * pick(rng, 1, 6);
    let mut shape = [batch, pick(rng, 1, 12), pick(rng, 1, 8), pick(rng, 1, 19)];
    // The variance of two or three values may all but vanish, and with it the digits of f32.
    if shape[0] * shape[2] * shape[3] < 4 {
        shape[2] = 4;
    }
    let layout = some_layout(rng);
    Case {
        lens: vec![shape.iter().product(), shape[1], shape[1]],
        about: format!("{shape:?}, {activation:?}"),
        compute: Box::new(move |t| {
            let x = laid(t[0].clone() * 2.0 + 0.5, shape, layout);
            let (y, mean, var) = ops::batch_norm(x, t[1].clone(), t[2].clone(), 1e-3, activation);
            Tensor::cat(vec![flat(y, layout), mean, var], 0)
        }),
    }
}

fn layer_norm(rng: &mut Rng) -> Case {
    let shape = [
        pick(rng, 1, 4),
        scale_up(rng) * pick(rng, 1, 30),
        pick(rng, 2, 90),
    ];
    let (bias, layout) = (pick(rng, 0, 1) == 1, some_layout(rng));
    Case {
        lens: vec![shape.iter().product(), shape[2], shape[2]],
        about: format!("{shape:?}, bias {bias}"),
        compute: Box::new(move |t| {
            let x = laid(t[0].clone() * 2.0 + 0.5, shape, layout);
            flat(
                ops::layer_norm(x, t[1].clone(), bias.then(|| t[2].clone()), 1e-3),
                layout,
            )
        }),
    }
}

fn attention(rng: &mut Rng) -> Case {
    let (batch, heads, d) = (
        scale_up(rng) * pick(rng, 1, 3),
        pick(rng, 1, 4),
        pick(rng, 1, 40),
    );
    let (queries, more) = (pick(rng, 1, 70), pick(rng, 0, 20));
    let (keys, causal, layout) = (queries + more, pick(rng, 0, 1) == 1, some_layout(rng));
    let (q, k) = ([batch, heads, queries, d], [batch, heads, keys, d]);
    let [q_len, k_len] = [q, k].map(|shape| shape.iter().product());
    Case {
        lens: vec![q_len, k_len, k_len],
        about: format!("{q:?} on {k:?}, causal {causal}"),
        compute: Box::new(move |t| {
            let q = laid(t[0].clone(), q, layout);
            let (k, v) = (laid(t[1].clone(), k, layout), laid(t[2].clone(), k, layout));
            flat(ops::attention(q, k, v, None, causal), layout)
        }),
    }
}

/// Some keys are hidden, never a query's own; values may have another width.
fn masked_attention(rng: &mut Rng) -> Case {
    let (batch, heads, d, d_value) = (
        pick(rng, 1, 3),
        pick(rng, 1, 4),
        pick(rng, 1, 40),
        pick(rng, 1, 40),
    );
    let (queries, more, causal, layout) = (
        pick(rng, 1, 20),
        pick(rng, 0, 20),
        pick(rng, 0, 1) == 1,
        some_layout(rng),
    );
    let keys = queries + more;
    let shapes = [
        [batch, heads, queries, d],
        [batch, heads, keys, d],
        [batch, heads, keys, d_value],
    ];
    let hidden: Vec<bool> = (0..batch * heads * queries * keys)
        .map(|at| at % keys != at / keys % queries + more && pick(rng, 0, 2) == 0)
        .collect();
    let masked = pick(rng, 0, 3) > 0;
    Case {
        lens: shapes.iter().map(|shape| shape.iter().product()).collect(),
        about: format!("{shapes:?}, causal {causal}, masked {masked}"),
        compute: Box::new(move |t| {
            let [q, k, v] = std::array::from_fn(|at| laid(t[at].clone(), shapes[at], layout));
            let mask = TensorData::new(hidden.clone(), [batch, heads, queries, keys]);
            let mask = masked.then(|| Tensor::<4, Bool>::from_data(mask, &t[0].device()));
            flat(ops::attention(q, k, v, mask, causal), layout)
        }),
    }
}

fn self_attention(rng: &mut Rng) -> Case {
    let (batch, heads, d, tokens) = (
        scale_up(rng) * pick(rng, 1, 3),
        pick(rng, 1, 4),
        pick(rng, 1, 40),
        pick(rng, 1, 90),
    );
    let (causal, layout) = (pick(rng, 0, 1) == 1, some_layout(rng));
    let shape = [batch, tokens, 3 * heads * d];
    Case {
        lens: vec![shape.iter().product()],
        about: format!("{shape:?} in {heads} heads, causal {causal}"),
        compute: Box::new(move |t| {
            flat(
                ops::self_attention(laid(t[0].clone(), shape, layout), heads, causal),
                layout,
            )
        }),
    }
}

fn embedding(rng: &mut Rng) -> Case {
    let (rows, d) = (pick(rng, 1, 30), scale_up(rng) * pick(rng, 1, 40));
    let (batch, tokens, layout) = (pick(rng, 1, 6), pick(rng, 1, 20), some_layout(rng));
    let indices: Vec<i64> = (0..batch * tokens)
        .map(|_| pick(rng, 0, rows - 1) as i64)
        .collect();
    Case {
        lens: vec![rows * d],
        about: format!("{batch}×{tokens} of {rows}×{d}"),
        compute: Box::new(move |t| {
            let data = TensorData::new(indices.clone(), [batch, tokens]);
            let indices = Tensor::<2, Int>::from_data(data, &t[0].device());
            flat(
                ops::embedding(laid(t[0].clone(), [rows, d], layout), indices),
                layout,
            )
        }),
    }
}

fn some_packed(
    rng: &mut Rng,
    [rows, width]: [usize; 2],
) -> (Quantization, impl Fn(&Device) -> QuantizedWeight + 'static) {
    let quantization = [Quantization::Int8, Quantization::Int4][pick(rng, 0, 1)];
    let weight = TensorData::new(rng.normal_vec(rows * width), [rows, width]);
    (quantization, move |device| {
        QuantizedWeight::new(Tensor::from_data(weight.clone(), device), quantization)
    })
}

/// With and without gradients, which are two ways.
fn quantized_linear(rng: &mut Rng) -> Case {
    // Few rows are multiplied as they are packed, many by what is unpacked.
    let (rows, i, o) = (
        [1, 2, 5, 8, 9, 63, 65][pick(rng, 0, 6)],
        pick(rng, 1, 300),
        scale_up(rng) * pick(rng, 1, 60),
    );
    let ((quantization, weight), bias, layout) = (
        some_packed(rng, [o, i]),
        pick(rng, 0, 1) == 1,
        some_layout(rng),
    );
    Case {
        lens: vec![rows * i, o],
        about: format!("{quantization:?} {rows}×{i}→{o}"),
        compute: Box::new(move |t| {
            let (x, weight) = (
                laid(t[0].clone(), [rows, i], layout),
                weight(&t[0].device()),
            );
            let bias = bias.then(|| t[1].clone());
            let y = weight.linear(x.clone(), bias.clone());
            let untracked = match y.device().is_autodiff() {
                true => {
                    Tensor::from_inner(weight.valid().linear(x.inner(), bias.map(Tensor::inner)))
                }
                false => y.clone(),
            };
            Tensor::cat(vec![flat(y, layout), flat(untracked, layout)], 0)
        }),
    }
}

fn packed_embedding(rng: &mut Rng) -> Case {
    let (rows, d) = (pick(rng, 1, 30), scale_up(rng) * pick(rng, 1, 80));
    let (batch, tokens) = (pick(rng, 1, 6), pick(rng, 1, 20));
    let indices: Vec<i64> = (0..batch * tokens)
        .map(|_| pick(rng, 0, rows - 1) as i64)
        .collect();
    let (quantization, weight) = some_packed(rng, [rows, d]);
    Case {
        lens: vec![d],
        about: format!("{quantization:?} {batch}×{tokens} of {rows}×{d}"),
        compute: Box::new(move |t| {
            let device = t[0].device();
            let data = TensorData::new(indices.clone(), [batch, tokens]);
            let table = weight(&device);
            let rows = table
                .embedding(Tensor::from_data(data, &device))
                .cast(t[0].dtype());
            let sums = table
                .dequantize()
                .cast(t[0].dtype())
                .sum_dim(0)
                .reshape([d])
                * t[0].clone();
            Tensor::cat(
                vec![(rows * t[0].clone().reshape([1, 1, d])).reshape([-1]), sums],
                0,
            )
        }),
    }
}

fn upsample_nearest2d(rng: &mut Rng) -> Case {
    let shape = [
        scale_up(rng) * pick(rng, 1, 3),
        pick(rng, 1, 5),
        pick(rng, 1, 9),
        pick(rng, 1, 9),
    ];
    let factor = pick(rng, 1, 4);
    let layout = some_layout(rng);
    Case {
        lens: vec![shape.iter().product()],
        about: format!("{shape:?} by {factor}"),
        compute: Box::new(move |t| {
            flat(
                ops::upsample_nearest2d(laid(t[0].clone(), shape, layout), factor),
                layout,
            )
        }),
    }
}

fn pool2d(rng: &mut Rng) -> Case {
    let (kernel, stride) = (pick(rng, 1, 4), pick(rng, 1, 3));
    let padding = pick(rng, 0, kernel / 2);
    let shape = [
        scale_up(rng) * pick(rng, 1, 3),
        pick(rng, 1, 5),
        pick(rng, kernel, 12),
        pick(rng, kernel, 12),
    ];
    let (maximum, layout) = (pick(rng, 0, 1) == 1, some_layout(rng));
    let pool = if maximum {
        ops::max_pool2d
    } else {
        ops::avg_pool2d
    };
    Case {
        lens: vec![shape.iter().product()],
        about: format!("{shape:?}, maximum {maximum}, {kernel}/{stride}/{padding}"),
        compute: Box::new(move |t| {
            let x = laid(t[0].clone(), shape, layout);
            flat(pool(x, kernel, stride, padding), layout)
        }),
    }
}

fn cross_entropy(rng: &mut Rng) -> Case {
    let (rows, classes) = (scale_up(rng) * pick(rng, 1, 40), pick(rng, 1, 90));
    let (layout, scale) = (some_layout(rng), [1.0, 10.0, 60.0][pick(rng, 0, 2)]);
    let targets: Vec<i64> = (0..rows)
        .map(|_| pick(rng, 0, classes - 1) as i64)
        .collect();
    Case {
        lens: vec![rows * classes],
        about: format!("{rows}×{classes}, scale {scale}"),
        compute: Box::new(move |t| {
            let targets = Tensor::<1, Int>::from_data(
                TensorData::new(targets.clone(), [rows]),
                &t[0].device(),
            );
            ops::cross_entropy(laid(t[0].clone() * scale, [rows, classes], layout), targets)
        }),
    }
}

fn binary_cross_entropy(rng: &mut Rng) -> Case {
    let (rows, n) = (scale_up(rng) * pick(rng, 1, 40), pick(rng, 1, 90));
    let (layout, scale) = (some_layout(rng), [1.0, 10.0, 60.0][pick(rng, 0, 2)]);
    Case {
        lens: vec![rows * n, rows * n],
        about: format!("{rows}×{n}, scale {scale}"),
        compute: Box::new(move |t| {
            let targets =
                ops::activation(laid(t[1].clone(), [rows, n], layout), Activation::Sigmoid);
            ops::binary_cross_entropy(laid(t[0].clone() * scale, [rows, n], layout), targets)
        }),
    }
}

fn reparameterize(rng: &mut Rng) -> Case {
    let (rows, n) = (scale_up(rng) * pick(rng, 1, 40), pick(rng, 1, 90));
    let layout = some_layout(rng);
    Case {
        lens: vec![rows * n; 3],
        about: format!("{rows}×{n}, {layout:?}"),
        compute: Box::new(move |t| {
            let [mean, log_std, noise] =
                [0, 1, 2].map(|index: usize| laid(t[index].clone(), [rows, n], layout));
            ops::reparameterize(mean, log_std, noise).flatten(0, 1)
        }),
    }
}

fn standard_normal_kl(rng: &mut Rng) -> Case {
    let (rows, n) = (scale_up(rng) * pick(rng, 1, 40), pick(rng, 1, 90));
    let layout = some_layout(rng);
    Case {
        lens: vec![rows * n; 2],
        about: format!("{rows}×{n}, {layout:?}"),
        compute: Box::new(move |t| {
            let [mean, log_std] =
                [0, 1].map(|index: usize| laid(t[index].clone(), [rows, n], layout));
            ops::standard_normal_kl(mean, log_std)
        }),
    }
}
