//! Random cases of every operation, for holding one implementation against another.
//!
//! Inputs are drawn as flat tensors and laid out inside, sometimes through a transpose, so that kernels also meet tensors
//! whose numbers are not in order.

use aigc_core::{nn::Activation, ops, rng::Rng};
use burn::tensor::{
    Int, Tensor, TensorData,
    ops::{ConvOptions, ConvTransposeOptions},
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

/// An operation: its name, the error that its kernels may have, relative to the largest value of a tensor (at least one),
/// and what draws a case.
pub type Operation = (&'static str, f64, fn(&mut Rng) -> Case);

/// Every operation.
pub const OPERATIONS: [Operation; 15] = [
    ("conv2d", 2e-5, conv2d),
    ("conv2d 3×3", 2e-5, conv2d_3x3),
    ("conv2d small maps", 2e-5, conv2d_small_maps),
    ("conv_transpose2d", 2e-5, conv_transpose2d),
    ("linear", 1e-5, linear),
    ("activation", 5e-6, activation),
    ("group_norm", 2e-5, group_norm),
    ("batch_norm", 2e-5, batch_norm),
    ("layer_norm", 2e-5, layer_norm),
    ("attention", 2e-5, attention),
    ("self_attention", 2e-5, self_attention),
    ("embedding", 1e-6, embedding),
    ("upsample_nearest2d", 1e-6, upsample_nearest2d),
    ("cross_entropy", 1e-5, cross_entropy),
    ("binary_cross_entropy", 1e-5, binary_cross_entropy),
];

/// A number from `low` to `high`.
pub fn pick(rng: &mut Rng, low: usize, high: usize) -> usize {
    low + (rng.uniforms(1, 0.0, 1.0)[0] * (high - low + 1) as f32) as usize % (high - low + 1)
}

/// One case in twenty-five is so much larger that the work is shared between threads, and cut into parts.
fn scale_up(rng: &mut Rng) -> usize {
    if pick(rng, 0, 24) == 0 { 24 } else { 1 }
}

/// A flat tensor as `shape`; where `turned`, its last two axes lie the other way round in memory.
fn laid<const D: usize>(x: Tensor<1>, shape: [usize; D], turned: bool) -> Tensor<D> {
    if !turned {
        return x.reshape(shape);
    }
    let mut other = shape;
    other.swap(D - 2, D - 1);
    x.reshape(other).swap_dims(D - 2, D - 1)
}

fn flat<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let len = x.shape().num_elements();
    x.reshape([len])
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
    ];
    all[pick(rng, 0, all.len() - 1)]
}

fn conv2d(rng: &mut Rng) -> Case {
    let groups = [1, 1, 1, 2][pick(rng, 0, 3)];
    let (channels_in, channels_out) = (groups * pick(rng, 1, 9), groups * pick(rng, 1, 20));
    let kernel = [pick(rng, 1, 5), pick(rng, 1, 5)];
    let (stride, dilation) = ([pick(rng, 1, 3), pick(rng, 1, 3)], [pick(rng, 1, 2), pick(rng, 1, 2)]);
    let padding = [0, 1].map(|_| {
        let begin = pick(rng, 0, 3);
        (begin, if pick(rng, 0, 3) == 0 { pick(rng, 0, 3) } else { begin })
    });
    let size = [0, 1].map(|i| {
        let least = (dilation[i] * (kernel[i] - 1) + 1).saturating_sub(padding[i].0 + padding[i].1).max(1);
        pick(rng, least, least + 16)
    });
    let (batch, bias, turned) = (pick(rng, 1, 5), pick(rng, 0, 1) == 1, pick(rng, 0, 1) == 1);
    let x = [batch, channels_in, size[0], size[1]];
    let weight = [channels_out, channels_in / groups, kernel[0], kernel[1]];
    let options = ConvOptions::new_with_padding(stride, padding, dilation, groups);
    Case {
        lens: vec![x.iter().product(), weight.iter().product(), channels_out],
        about: format!("{x:?} by {weight:?}, {options:?}"),
        compute: Box::new(move |t| {
            let bias = bias.then(|| t[2].clone());
            flat(ops::conv2d(laid(t[0].clone(), x, turned), laid(t[1].clone(), weight, turned), bias, options.clone()))
        }),
    }
}

/// The kernel that most layers have goes its own way (Winograd's), forward and backward, where there are channels enough.
fn conv2d_3x3(rng: &mut Rng) -> Case {
    let x = [pick(rng, 1, 5), pick(rng, 1, 24), pick(rng, 3, 20), pick(rng, 3, 35)];
    let weight = [pick(rng, 1, 24), x[1], 3, 3];
    let (padding, bias) = ([pick(rng, 0, 2), pick(rng, 0, 2)], pick(rng, 0, 1) == 1);
    let turned = pick(rng, 0, 3) == 0;
    let options = ConvOptions::new([1, 1], padding, [1, 1], 1);
    Case {
        lens: vec![x.iter().product(), weight.iter().product(), weight[0]],
        about: format!("{x:?} by {weight:?}, padding {padding:?}"),
        compute: Box::new(move |t| {
            let (x, weight) = (laid(t[0].clone(), x, turned), laid(t[1].clone(), weight, turned));
            flat(ops::conv2d(x, weight, bias.then(|| t[2].clone()), options.clone()))
        }),
    }
}

/// So do maps narrower than a vector, in batches as large as one, whatever the kernel, up to three taps high per phase.
fn conv2d_small_maps(rng: &mut Rng) -> Case {
    let batch = [3, 15, 16, 31, 32][pick(rng, 0, 4)];
    let x = [batch, pick(rng, 1, 20), pick(rng, 4, 15), pick(rng, 4, 9)];
    let weight = [pick(rng, 3, 30), x[1], pick(rng, 1, 4), pick(rng, 1, 4)];
    let (stride, padding) = ([pick(rng, 1, 2), pick(rng, 1, 2)], [pick(rng, 0, 2), pick(rng, 0, 2)]);
    let (bias, options) = (pick(rng, 0, 1) == 1, ConvOptions::new(stride, padding, [1, 1], 1));
    let turned = pick(rng, 0, 3) == 0;
    Case {
        lens: vec![x.iter().product(), weight.iter().product(), weight[0]],
        about: format!("{x:?} by {weight:?}, {options:?}"),
        compute: Box::new(move |t| {
            let (x, weight) = (laid(t[0].clone(), x, turned), laid(t[1].clone(), weight, turned));
            flat(ops::conv2d(x, weight, bias.then(|| t[2].clone()), options.clone()))
        }),
    }
}

fn conv_transpose2d(rng: &mut Rng) -> Case {
    let groups = [1, 1, 1, 2][pick(rng, 0, 3)];
    let (channels_in, per_group) = (groups * pick(rng, 1, 9), pick(rng, 1, 20));
    let kernel = [pick(rng, 1, 5), pick(rng, 1, 5)];
    let (stride, dilation) = ([pick(rng, 1, 3), pick(rng, 1, 3)], [pick(rng, 1, 2), pick(rng, 1, 2)]);
    let padding_out = [0, 1].map(|i| pick(rng, 0, stride[i].max(dilation[i]) - 1));
    let size = [pick(rng, 1, 9), pick(rng, 1, 9)];
    let padding = [0, 1].map(|i| {
        let most = ((size[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + padding_out[i]) / 2;
        pick(rng, 0, most.min(3))
    });
    let (batch, bias, turned) = (pick(rng, 1, 5), pick(rng, 0, 1) == 1, pick(rng, 0, 1) == 1);
    let x = [batch, channels_in, size[0], size[1]];
    let weight = [channels_in, per_group, kernel[0], kernel[1]];
    let options = ConvTransposeOptions::new(stride, padding, padding_out, dilation, groups);
    Case {
        lens: vec![x.iter().product(), weight.iter().product(), per_group * groups],
        about: format!("{x:?} by {weight:?}, {options:?}"),
        compute: Box::new(move |t| {
            let bias = bias.then(|| t[2].clone());
            let (x, weight) = (laid(t[0].clone(), x, turned), laid(t[1].clone(), weight, turned));
            flat(ops::conv_transpose2d(x, weight, bias, options.clone()))
        }),
    }
}

fn linear(rng: &mut Rng) -> Case {
    // Many rows, or few rows of many columns.
    let (tall, wide) = (scale_up(rng), scale_up(rng));
    let rows = if wide > 1 { pick(rng, 1, 3) } else { tall * pick(rng, 1, 40) };
    let (tokens, i, o) = (pick(rng, 1, 5), pick(rng, 1, 70), wide * pick(rng, 1, 90));
    let (bias, turned) = (pick(rng, 0, 1) == 1, pick(rng, 0, 1) == 1);
    Case {
        lens: vec![rows * tokens * i, i * o, o],
        about: format!("{rows}×{tokens}×{i}→{o}"),
        compute: Box::new(move |t| {
            let x = laid(t[0].clone(), [rows, tokens, i], turned);
            flat(ops::linear(x, laid(t[1].clone(), [i, o], turned), bias.then(|| t[2].clone())))
        }),
    }
}

fn activation(rng: &mut Rng) -> Case {
    let (activation, a, b) = (some_activation(rng), scale_up(rng) * pick(rng, 1, 40), pick(rng, 1, 40));
    let (turned, scale) = (pick(rng, 0, 1) == 1, [0.01, 1.0, 10.0][pick(rng, 0, 2)]);
    Case {
        lens: vec![a * b],
        about: format!("{activation:?} of {a}×{b}, scale {scale}"),
        compute: Box::new(move |t| flat(ops::activation(laid(t[0].clone() * scale, [a, b], turned), activation))),
    }
}

fn group_norm(rng: &mut Rng) -> Case {
    let (groups, activation) = (pick(rng, 1, 4), some_activation(rng));
    let shape = [pick(rng, 1, 4), groups * pick(rng, 1, 5), pick(rng, 1, 9), pick(rng, 2, 19)];
    let turned = pick(rng, 0, 1) == 1;
    Case {
        lens: vec![shape.iter().product(), shape[1], shape[1]],
        about: format!("{shape:?} in {groups}, {activation:?}"),
        compute: Box::new(move |t| {
            let x = laid(t[0].clone() * 2.0 + 0.5, shape, turned);
            flat(ops::group_norm(x, t[1].clone(), t[2].clone(), groups, 1e-3, activation))
        }),
    }
}

fn batch_norm(rng: &mut Rng) -> Case {
    let activation = some_activation(rng);
    let shape = [pick(rng, 1, 6), pick(rng, 1, 12), pick(rng, 1, 8), pick(rng, 1, 19)];
    let turned = pick(rng, 0, 1) == 1;
    Case {
        lens: vec![shape.iter().product(), shape[1], shape[1]],
        about: format!("{shape:?}, {activation:?}"),
        compute: Box::new(move |t| {
            let x = laid(t[0].clone() * 2.0 + 0.5, shape, turned);
            let (y, mean, var) = ops::batch_norm(x, t[1].clone(), t[2].clone(), 1e-3, activation);
            Tensor::cat(vec![flat(y), mean, var], 0)
        }),
    }
}

fn layer_norm(rng: &mut Rng) -> Case {
    let shape = [pick(rng, 1, 4), scale_up(rng) * pick(rng, 1, 30), pick(rng, 2, 90)];
    let (bias, turned) = (pick(rng, 0, 1) == 1, pick(rng, 0, 1) == 1);
    Case {
        lens: vec![shape.iter().product(), shape[2], shape[2]],
        about: format!("{shape:?}, bias {bias}"),
        compute: Box::new(move |t| {
            let x = laid(t[0].clone() * 2.0 + 0.5, shape, turned);
            flat(ops::layer_norm(x, t[1].clone(), bias.then(|| t[2].clone()), 1e-3))
        }),
    }
}

fn attention(rng: &mut Rng) -> Case {
    let (batch, heads, d) = (pick(rng, 1, 3), pick(rng, 1, 4), pick(rng, 1, 40));
    let (queries, more) = (pick(rng, 1, 70), pick(rng, 0, 20));
    let (keys, causal, turned) = (queries + more, pick(rng, 0, 1) == 1, pick(rng, 0, 1) == 1);
    let (q, k) = ([batch, heads, queries, d], [batch, heads, keys, d]);
    let [q_len, k_len] = [q, k].map(|shape| shape.iter().product());
    Case {
        lens: vec![q_len, k_len, k_len],
        about: format!("{q:?} on {k:?}, causal {causal}"),
        compute: Box::new(move |t| {
            let q = laid(t[0].clone(), q, turned);
            let (k, v) = (laid(t[1].clone(), k, turned), laid(t[2].clone(), k, turned));
            flat(ops::attention(q, k, v, None, causal))
        }),
    }
}

fn self_attention(rng: &mut Rng) -> Case {
    let (batch, heads, d, tokens) = (pick(rng, 1, 3), pick(rng, 1, 4), pick(rng, 1, 40), pick(rng, 1, 90));
    let (causal, turned) = (pick(rng, 0, 1) == 1, pick(rng, 0, 1) == 1);
    let shape = [batch, tokens, 3 * heads * d];
    Case {
        lens: vec![shape.iter().product()],
        about: format!("{shape:?} in {heads} heads, causal {causal}"),
        compute: Box::new(move |t| flat(ops::self_attention(laid(t[0].clone(), shape, turned), heads, causal))),
    }
}

fn embedding(rng: &mut Rng) -> Case {
    let (rows, d) = (pick(rng, 1, 30), scale_up(rng) * pick(rng, 1, 40));
    let (batch, tokens, turned) = (pick(rng, 1, 6), pick(rng, 1, 20), pick(rng, 0, 1) == 1);
    let indices: Vec<i64> = (0..batch * tokens).map(|_| pick(rng, 0, rows - 1) as i64).collect();
    Case {
        lens: vec![rows * d],
        about: format!("{batch}×{tokens} of {rows}×{d}"),
        compute: Box::new(move |t| {
            let data = TensorData::new(indices.clone(), [batch, tokens]);
            let indices = Tensor::<2, Int>::from_data(data, &t[0].device());
            flat(ops::embedding(laid(t[0].clone(), [rows, d], turned), indices))
        }),
    }
}

fn upsample_nearest2d(rng: &mut Rng) -> Case {
    let shape = [scale_up(rng) * pick(rng, 1, 3), pick(rng, 1, 5), pick(rng, 1, 9), pick(rng, 1, 9)];
    let factor = pick(rng, 1, 4);
    let turned = pick(rng, 0, 1) == 1;
    Case {
        lens: vec![shape.iter().product()],
        about: format!("{shape:?} by {factor}"),
        compute: Box::new(move |t| flat(ops::upsample_nearest2d(laid(t[0].clone(), shape, turned), factor))),
    }
}

fn cross_entropy(rng: &mut Rng) -> Case {
    let (rows, classes) = (scale_up(rng) * pick(rng, 1, 40), pick(rng, 1, 90));
    let (turned, scale) = (pick(rng, 0, 1) == 1, [1.0, 10.0, 60.0][pick(rng, 0, 2)]);
    let targets: Vec<i64> = (0..rows).map(|_| pick(rng, 0, classes - 1) as i64).collect();
    Case {
        lens: vec![rows * classes],
        about: format!("{rows}×{classes}, scale {scale}"),
        compute: Box::new(move |t| {
            let targets = Tensor::<1, Int>::from_data(TensorData::new(targets.clone(), [rows]), &t[0].device());
            ops::cross_entropy(laid(t[0].clone() * scale, [rows, classes], turned), targets)
        }),
    }
}

fn binary_cross_entropy(rng: &mut Rng) -> Case {
    let (rows, n) = (scale_up(rng) * pick(rng, 1, 40), pick(rng, 1, 90));
    let (turned, scale) = (pick(rng, 0, 1) == 1, [1.0, 10.0, 60.0][pick(rng, 0, 2)]);
    Case {
        lens: vec![rows * n, rows * n],
        about: format!("{rows}×{n}, scale {scale}"),
        compute: Box::new(move |t| {
            let targets = ops::activation(laid(t[1].clone(), [rows, n], turned), Activation::Sigmoid);
            ops::binary_cross_entropy(laid(t[0].clone() * scale, [rows, n], turned), targets)
        }),
    }
}
