//! Every operation's fast body against its default body in `f64`, gradients included, on random shapes.
//!
//! The default bodies are burn's primitives, which `f64` tensors take on Flex too. Inputs are drawn as flat tensors and
//! laid out inside, sometimes through a transpose, so that kernels also meet tensors whose numbers are not in order.

use aigc_core::{nn::Activation, ops, rng::Rng};
use burn::tensor::{
    DType, Device, Int, Tensor, TensorData,
    ops::{ConvOptions, ConvTransposeOptions},
};

const SHAPES: u64 = 1_000;

/// A case: lengths of its inputs, and what is computed from them.
struct Case {
    lens: Vec<usize>,
    compute: Box<dyn Fn(Vec<Tensor<1>>) -> Tensor<1>>,
    about: String,
}

/// Draws cases and holds values and gradients in `f32` against those in `f64`. The error may be `tolerance` times the
/// largest value of a tensor (at least one).
fn check(name: &str, tolerance: f64, case: impl Fn(&mut Rng) -> Case) {
    let device = Device::flex().autodiff();
    let mut worst = 0.0f64;
    for seed in 0..SHAPES {
        let mut rng = Rng::new(seed * 7919 + 17);
        let Case { lens, compute, about } = case(&mut rng);
        let inputs: Vec<Vec<f32>> = lens.iter().map(|len| rng.normals(*len)).collect();
        let mut weights: Option<Vec<f32>> = None;
        let mut run = |dtype: DType| -> Vec<Vec<f64>> {
            let leaf = |values: &Vec<f32>| {
                let data = TensorData::new(values.clone(), [values.len()]);
                Tensor::<1>::from_data(data, &device).cast(dtype).detach().require_grad()
            };
            let leaves: Vec<Tensor<1>> = inputs.iter().map(leaf).collect();
            let output = compute(leaves.clone());
            assert_eq!(output.dtype(), dtype, "{name} {about}");
            let weights = weights.get_or_insert_with(|| rng.normals(output.dims()[0]));
            let weights =
                Tensor::<1>::from_data(TensorData::new(weights.clone(), [weights.len()]), &device).cast(dtype);
            let grads = (output.clone() * weights).sum().backward();
            let values = |tensor: Tensor<1>| tensor.into_data().convert::<f64>().try_into_vec::<f64>().unwrap();
            let mut all = vec![values(output.inner())];
            all.extend(leaves.iter().map(|leaf| leaf.grad(&grads).map(values).unwrap_or_default()));
            all
        };
        let (fast, exact) = (run(DType::F32), run(DType::F64));
        for (index, (fast, exact)) in fast.iter().zip(&exact).enumerate() {
            assert_eq!(fast.len(), exact.len(), "{name} {about}: lengths of tensor {index}");
            let scale = exact.iter().fold(1.0f64, |top, value| top.max(value.abs()));
            for (at, (fast, exact)) in fast.iter().zip(exact).enumerate() {
                let error = (fast - exact).abs() / scale;
                assert!(error <= tolerance, "{name} {about}, tensor {index} at {at}: {fast} for {exact}");
                worst = worst.max(error);
            }
        }
    }
    println!("{name}: largest error {worst:.1e} of the largest value, {tolerance:.0e} allowed");
}

fn pick(rng: &mut Rng, low: usize, high: usize) -> usize {
    low + (rng.uniforms(1, 0.0, 1.0)[0] * (high - low + 1) as f32) as usize % (high - low + 1)
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

#[test]
fn convolutions_equal_their_default_bodies() {
    check("conv2d", 2e-5, |rng| {
        let groups = [1, 1, 1, 2][pick(rng, 0, 3)];
        let (channels_in, channels_out) = (groups * pick(rng, 1, 9), groups * pick(rng, 1, 20));
        let kernel = [pick(rng, 1, 5), pick(rng, 1, 5)];
        let (stride, dilation) = ([pick(rng, 1, 3), pick(rng, 1, 3)], [pick(rng, 1, 2), pick(rng, 1, 2)]);
        let padding = [pick(rng, 0, 3), pick(rng, 0, 3)];
        let size = [0, 1].map(|i| {
            let least = (dilation[i] * (kernel[i] - 1) + 1).saturating_sub(2 * padding[i]).max(1);
            pick(rng, least, least + 16)
        });
        let (batch, bias, turned) = (pick(rng, 1, 5), pick(rng, 0, 1) == 1, pick(rng, 0, 1) == 1);
        let x = [batch, channels_in, size[0], size[1]];
        let weight = [channels_out, channels_in / groups, kernel[0], kernel[1]];
        let options = ConvOptions::new(stride, padding, dilation, groups);
        Case {
            lens: vec![x.iter().product(), weight.iter().product(), channels_out],
            about: format!("{x:?} by {weight:?}, {options:?}"),
            compute: Box::new(move |t| {
                let bias = bias.then(|| t[2].clone());
                flat(ops::conv2d(
                    laid(t[0].clone(), x, turned),
                    laid(t[1].clone(), weight, turned),
                    bias,
                    options.clone(),
                ))
            }),
        }
    });
}

/// The kernel that most layers have goes its own way (Winograd's), forward and backward, where there are channels enough.
#[test]
fn three_by_three_convolutions_equal_their_default_bodies() {
    check("conv2d 3×3", 2e-5, |rng| {
        let x = [pick(rng, 1, 5), pick(rng, 1, 24), pick(rng, 3, 20), pick(rng, 3, 35)];
        let weight = [pick(rng, 1, 24), x[1], 3, 3];
        let (padding, bias) = ([pick(rng, 0, 2), pick(rng, 0, 2)], pick(rng, 0, 1) == 1);
        let options = ConvOptions::new([1, 1], padding, [1, 1], 1);
        Case {
            lens: vec![x.iter().product(), weight.iter().product(), weight[0]],
            about: format!("{x:?} by {weight:?}, padding {padding:?}"),
            compute: Box::new(move |t| {
                let (x, weight) = (t[0].clone().reshape(x), t[1].clone().reshape(weight));
                flat(ops::conv2d(x, weight, bias.then(|| t[2].clone()), options.clone()))
            }),
        }
    });
}

#[test]
fn transposed_convolutions_equal_their_default_bodies() {
    check("conv_transpose2d", 2e-5, |rng| {
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
    });
}

#[test]
fn linear_maps_equal_their_default_bodies() {
    check("linear", 1e-5, |rng| {
        let (rows, tokens, i, o) = (pick(rng, 1, 40), pick(rng, 1, 5), pick(rng, 1, 70), pick(rng, 1, 90));
        let (bias, turned) = (pick(rng, 0, 1) == 1, pick(rng, 0, 1) == 1);
        Case {
            lens: vec![rows * tokens * i, i * o, o],
            about: format!("{rows}×{tokens}×{i}→{o}"),
            compute: Box::new(move |t| {
                let x = laid(t[0].clone(), [rows, tokens, i], turned);
                flat(ops::linear(x, laid(t[1].clone(), [i, o], turned), bias.then(|| t[2].clone())))
            }),
        }
    });
}

#[test]
fn activations_equal_their_default_bodies() {
    check("activation", 2e-6, |rng| {
        let (activation, a, b) = (some_activation(rng), pick(rng, 1, 40), pick(rng, 1, 40));
        let (turned, scale) = (pick(rng, 0, 1) == 1, [0.01, 1.0, 10.0][pick(rng, 0, 2)]);
        Case {
            lens: vec![a * b],
            about: format!("{activation:?} of {a}×{b}, scale {scale}"),
            compute: Box::new(move |t| flat(ops::activation(laid(t[0].clone() * scale, [a, b], turned), activation))),
        }
    });
}

#[test]
fn group_norms_equal_their_default_bodies() {
    check("group_norm", 2e-5, |rng| {
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
    });
}

#[test]
fn batch_norms_equal_their_default_bodies() {
    check("batch_norm", 2e-5, |rng| {
        let activation = some_activation(rng);
        let shape = [pick(rng, 2, 6), pick(rng, 1, 12), pick(rng, 1, 8), pick(rng, 1, 19)];
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
    });
}

#[test]
fn layer_norms_equal_their_default_bodies() {
    check("layer_norm", 2e-5, |rng| {
        let shape = [pick(rng, 1, 4), pick(rng, 1, 30), pick(rng, 2, 90)];
        let (bias, turned) = (pick(rng, 0, 1) == 1, pick(rng, 0, 1) == 1);
        Case {
            lens: vec![shape.iter().product(), shape[2], shape[2]],
            about: format!("{shape:?}, bias {bias}"),
            compute: Box::new(move |t| {
                let x = laid(t[0].clone() * 2.0 + 0.5, shape, turned);
                flat(ops::layer_norm(x, t[1].clone(), bias.then(|| t[2].clone()), 1e-3))
            }),
        }
    });
}

#[test]
fn attention_equals_its_default_body() {
    check("attention", 2e-5, |rng| {
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
    });
}

#[test]
fn self_attention_equals_its_default_body() {
    check("self_attention", 2e-5, |rng| {
        let (batch, heads, d, tokens) = (pick(rng, 1, 3), pick(rng, 1, 4), pick(rng, 1, 40), pick(rng, 1, 90));
        let (causal, turned) = (pick(rng, 0, 1) == 1, pick(rng, 0, 1) == 1);
        let shape = [batch, tokens, 3 * heads * d];
        Case {
            lens: vec![shape.iter().product()],
            about: format!("{shape:?} in {heads} heads, causal {causal}"),
            compute: Box::new(move |t| flat(ops::self_attention(laid(t[0].clone(), shape, turned), heads, causal))),
        }
    });
}

#[test]
fn embeddings_equal_their_default_bodies() {
    check("embedding", 1e-6, |rng| {
        let (rows, d, batch, tokens) = (pick(rng, 1, 30), pick(rng, 1, 40), pick(rng, 1, 6), pick(rng, 1, 20));
        let indices: Vec<i64> = (0..batch * tokens).map(|_| pick(rng, 0, rows - 1) as i64).collect();
        Case {
            lens: vec![rows * d],
            about: format!("{batch}×{tokens} of {rows}×{d}"),
            compute: Box::new(move |t| {
                let data = TensorData::new(indices.clone(), [batch, tokens]);
                let indices = Tensor::<2, Int>::from_data(data, &t[0].device());
                flat(ops::embedding(t[0].clone().reshape([rows, d]), indices))
            }),
        }
    });
}

#[test]
fn upsampling_equals_its_default_body() {
    check("upsample_nearest2d", 1e-6, |rng| {
        let (shape, factor) = ([pick(rng, 1, 3), pick(rng, 1, 5), pick(rng, 1, 9), pick(rng, 1, 9)], pick(rng, 1, 4));
        let turned = pick(rng, 0, 1) == 1;
        Case {
            lens: vec![shape.iter().product()],
            about: format!("{shape:?} by {factor}"),
            compute: Box::new(move |t| flat(ops::upsample_nearest2d(laid(t[0].clone(), shape, turned), factor))),
        }
    });
}

#[test]
fn cross_entropy_equals_its_default_body() {
    check("cross_entropy", 1e-5, |rng| {
        let (rows, classes) = (pick(rng, 1, 40), pick(rng, 1, 90));
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
    });
}

#[test]
fn binary_cross_entropy_equals_its_default_body() {
    check("binary_cross_entropy", 1e-5, |rng| {
        let (rows, n) = (pick(rng, 1, 40), pick(rng, 1, 90));
        let (turned, scale) = (pick(rng, 0, 1) == 1, [1.0, 10.0, 60.0][pick(rng, 0, 2)]);
        Case {
            lens: vec![rows * n, rows * n],
            about: format!("{rows}×{n}, scale {scale}"),
            compute: Box::new(move |t| {
                let targets = ops::activation(laid(t[1].clone(), [rows, n], turned), Activation::Sigmoid);
                ops::binary_cross_entropy(laid(t[0].clone() * scale, [rows, n], turned), targets)
            }),
        }
    });
}

#[test]
fn adam_equals_its_default_body() {
    let device = Device::flex();
    for seed in 0..SHAPES {
        let mut rng = Rng::new(seed);
        let len = pick(&mut rng, 1, 300);
        let draws: [Vec<f32>; 4] = std::array::from_fn(|_| rng.normals(len));
        let step = ops::AdamStep {
            learning_rate: 0.01,
            beta_1: 0.9,
            beta_2: 0.99,
            epsilon: 1e-8,
            time: pick(&mut rng, 1, 1000) as i32,
            weight_decay: [0.0, 0.1][pick(&mut rng, 0, 1)],
            decoupled_decay: [0.0, 0.1][pick(&mut rng, 0, 1)],
        };
        let run = |dtype: DType, shared: bool| {
            let tensor = |values: &[f32]| Tensor::<1>::from_floats(values, &device).cast(dtype);
            let [param, grad, moment_1, moment_2] = draws.each_ref().map(|draw| tensor(draw));
            let held = shared.then(|| (param.clone(), param.clone().into_data()));
            let (param, moments) = ops::adam_step(param, grad, [moment_1, moment_2.abs()], step);
            if let Some((held, before)) = held {
                assert_eq!(held.into_data(), before, "who holds the parameter keeps it");
            }
            let [moment_1, moment_2] = moments;
            Tensor::cat(vec![param, moment_1, moment_2], 0).into_data().convert::<f64>().try_into_vec::<f64>().unwrap()
        };
        let exact = run(DType::F64, false);
        for shared in [false, true] {
            for (fast, exact) in run(DType::F32, shared).iter().zip(&exact) {
                assert!((fast - exact).abs() <= 2e-6 * exact.abs().max(1.0), "{len}, {step:?}: {fast} for {exact}");
            }
        }
    }
}
