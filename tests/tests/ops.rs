//! Compares the kernels of every operation, gradients included, with the default implementations in
//! `f64`, on random shapes.
//!
//! The default implementations are burn's primitives, which Flex uses for `f64` tensors too.

use aigc_core::{
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig, ImageShape, collate_images, digits},
    nn::Activation,
    ops,
    rng::Rng,
    testing::assert_close,
    train::{Trainer, TrainerConfig},
};
use aigc_tests::{
    bits,
    cases::{Case, Layout, OPERATIONS, convolution, pick},
};
use aigc_vae::{ConvVaeConfig, KlWeight, VaeObjective};
use burn::tensor::{
    DType, Device, Int, Tensor, TensorData,
    ops::{ConvOptions, ConvTransposeOptions},
    quantization::QuantScheme,
};

/// Random shapes of each operation: `AIGC_SHAPES`, or 1,000.
fn shapes() -> u64 {
    std::env::var("AIGC_SHAPES").map_or(1_000, |n| n.parse().expect("AIGC_SHAPES is a number"))
}

/// Compares values and gradients in `f32` with those in `f64`. The error may be `tolerance` times
/// the largest value of a tensor (at least one). Returns the largest error.
fn compare(case: &Case, rng: &mut Rng, tolerance: f64) -> f64 {
    let Case {
        lens,
        compute,
        about,
    } = case;
    let device = Device::flex().autodiff();
    let inputs: Vec<Vec<f32>> = lens.iter().map(|len| rng.normal_vec(*len)).collect();
    let mut weights: Option<Vec<f32>> = None;
    let mut run = |dtype: DType| -> Vec<Vec<f64>> {
        let leaf = |values: &Vec<f32>| {
            let data = TensorData::new(values.clone(), [values.len()]);
            Tensor::<1>::from_data(data, &device)
                .cast(dtype)
                .detach()
                .require_grad()
        };
        let leaves: Vec<Tensor<1>> = inputs.iter().map(leaf).collect();
        let output = compute(leaves.clone());
        assert_eq!(output.dtype(), dtype, "{about}");
        let weights = weights.get_or_insert_with(|| rng.normal_vec(output.dims()[0]));
        let weights =
            Tensor::<1>::from_data(TensorData::new(weights.clone(), [weights.len()]), &device)
                .cast(dtype);
        let grads = (output.clone() * weights).sum().backward();
        let values = |tensor: Tensor<1>| {
            tensor
                .into_data()
                .convert::<f64>()
                .try_into_vec::<f64>()
                .unwrap()
        };
        let mut all = vec![values(output.inner())];
        all.extend(
            leaves
                .iter()
                .map(|leaf| leaf.grad(&grads).map(values).unwrap_or_default()),
        );
        all
    };
    let (fast, exact) = (run(DType::F32), run(DType::F64));
    let mut worst = 0.0f64;
    for (index, (fast, exact)) in fast.iter().zip(&exact).enumerate() {
        assert_eq!(
            fast.len(),
            exact.len(),
            "{about}: lengths of tensor {index}"
        );
        let scale = exact.iter().fold(1.0f64, |top, value| top.max(value.abs()));
        for (at, (fast, exact)) in fast.iter().zip(exact).enumerate() {
            let error = (fast - exact).abs() / scale;
            assert!(
                error <= tolerance,
                "{about}, tensor {index} at {at}: {fast}, expected {exact}"
            );
            worst = worst.max(error);
        }
    }
    worst
}

/// Compares an operation with its default implementation on random shapes.
fn check(name: &str) {
    let (name, tolerance, case) = *OPERATIONS
        .iter()
        .find(|(known, ..)| *known == name)
        .expect("a known operation");
    let worst = (0..shapes()).fold(0.0f64, |worst, seed| {
        let mut rng = Rng::new(seed * 7919 + 17);
        let case = case(&mut rng);
        worst.max(compare(&case, &mut rng, tolerance))
    });
    println!("{name}: largest error {worst:.1e} of the largest value, {tolerance:.0e} allowed");
}

#[test]
fn conv2d_matches_default() {
    check("conv2d");
}

#[test]
fn conv2d_3x3_matches_default() {
    check("conv2d 3×3");
}

#[test]
fn conv2d_small_maps_matches_default() {
    check("conv2d small maps");
}

#[test]
fn conv2d_1x1_matches_default() {
    check("conv2d 1×1");
}

/// Realistic sizes, whose work is split into several parts and groups of images.
#[test]
fn conv2d_large_matches_default() {
    for (x, weight, stride) in [
        ([20, 64, 28, 28], [64, 64, 3, 3], 1),
        ([40, 64, 14, 14], [128, 64, 4, 4], 2),
        ([2, 24, 70, 90], [40, 24, 3, 3], 1),
        ([3, 20, 80, 60], [30, 20, 5, 5], 2),
    ] {
        let options = ConvOptions::new([stride; 2], [1, 1], [1, 1], 1);
        let case = convolution(x, weight, true, options, Layout::InOrder);
        let worst = compare(&case, &mut Rng::new(1), 2e-5);
        println!(
            "{}: largest error {worst:.1e} of the largest value",
            case.about
        );
    }
}

#[test]
fn conv_transpose2d_matches_default() {
    check("conv_transpose2d");
}

#[test]
fn linear_matches_default() {
    check("linear");
}

#[test]
fn activation_matches_default() {
    check("activation");
}

#[test]
fn conv1d_matches_default() {
    check("conv1d");
}

#[test]
fn depthwise_matches_default() {
    check("conv2d depthwise");
}

#[test]
fn conv_transpose1d_matches_default() {
    check("conv_transpose1d");
}

#[test]
fn snake_matches_default() {
    check("snake");
}

#[test]
fn lstm_cell_matches_default() {
    check("lstm_cell");
}

#[test]
fn group_norm_matches_default() {
    check("group_norm");
}

#[test]
fn batch_norm_matches_default() {
    check("batch_norm");
}

#[test]
fn layer_norm_matches_default() {
    check("layer_norm");
}

#[test]
fn attention_matches_default() {
    check("attention");
    check("masked_attention");
}

#[test]
fn self_attention_matches_default() {
    check("self_attention");
}

#[test]
fn embedding_matches_default() {
    check("embedding");
}

#[test]
fn quantized_weight_matches_default() {
    check("quantized_linear");
    check("packed_embedding");
}

#[test]
fn upsample_nearest2d_matches_default() {
    check("upsample_nearest2d");
}

#[test]
fn pools_match_default() {
    check("pool2d");
}

#[test]
fn cross_entropy_matches_default() {
    check("cross_entropy");
}

#[test]
fn binary_cross_entropy_matches_default() {
    check("binary_cross_entropy");
}

#[test]
fn reparameterize_matches_default() {
    check("reparameterize");
}

#[test]
fn standard_normal_kl_matches_default() {
    check("standard_normal_kl");
}

#[test]
fn adam_matches_default() {
    let device = Device::flex();
    for seed in 0..shapes() {
        let mut rng = Rng::new(seed);
        // Some lengths are split into several parts.
        let len = pick(&mut rng, 1, 300) + if seed % 50 == 0 { 40_000 } else { 0 };
        let draws: [Vec<f32>; 4] = std::array::from_fn(|_| rng.normal_vec(len));
        let step = ops::AdamStep {
            learning_rate: 0.01,
            beta_1: 0.9,
            beta_2: 0.99,
            epsilon: 1e-8,
            step: pick(&mut rng, 1, 1000) as i32,
            weight_decay: [0.0, 0.1][pick(&mut rng, 0, 1)],
            decoupled_decay: [0.0, 0.1][pick(&mut rng, 0, 1)],
        };
        let run = |dtype: DType, shared: bool| {
            let tensor = |values: &[f32]| Tensor::<1>::from_floats(values, &device).cast(dtype);
            let [param, grad, moment_1, moment_2] = draws.each_ref().map(|draw| tensor(draw));
            let held = shared.then(|| (param.clone(), param.clone().into_data()));
            let (param, moments) = ops::adam_step(param, grad, [moment_1, moment_2.abs()], step);
            if let Some((held, before)) = held {
                assert_eq!(held.into_data(), before, "a shared parameter was modified");
            }
            let [moment_1, moment_2] = moments;
            Tensor::cat(vec![param, moment_1, moment_2], 0)
                .into_data()
                .convert::<f64>()
                .try_into_vec::<f64>()
                .unwrap()
        };
        let exact = run(DType::F64, false);
        for shared in [false, true] {
            for (fast, exact) in run(DType::F32, shared).iter().zip(&exact) {
                assert!(
                    (fast - exact).abs() <= 2e-6 * exact.abs().max(1.0),
                    "{len}, {step:?}: {fast}, expected {exact}"
                );
            }
        }
    }
}

/// Runs these tests with narrower vectors than the machine's widest, to cover other machines.
#[test]
fn kernels_match_default_with_narrower_vectors() {
    if std::env::var_os("AIGC_SIMD").is_some() {
        return;
    }
    let shapes = std::env::var("AIGC_SHAPES").unwrap_or("250".into());
    for simd in ["avx2", "scalar"] {
        let tests = std::process::Command::new(std::env::current_exe().unwrap())
            .env("AIGC_SIMD", simd)
            .env("AIGC_SHAPES", &shapes)
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&tests.stdout);
        let passed = output
            .lines()
            .filter(|line| line.starts_with("test ") && line.ends_with(" ok"))
            .count();
        assert!(
            tests.status.success() && passed >= OPERATIONS.len(),
            "{simd}: {output}"
        );
    }
}

const ACTIVATIONS: [Activation; 12] = [
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
    Activation::Elu(0.6),
];

fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
}

fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// NaN must not be hidden, so that diverged training is noticed, for any length and position.
#[test]
fn nan_propagates_through_operations() {
    for len in [1, 7, 16, 37] {
        for at in 0..len {
            let mut x = vec![0.5; 2 * len];
            x[len + at] = f32::NAN;
            for activation in ACTIVATIONS {
                let y = read(ops::activation(tensor(&x, [2 * len]), activation));
                let nan: Vec<usize> = (0..2 * len).filter(|i| y[*i].is_nan()).collect();
                assert_eq!(nan, [len + at], "{activation:?} of {len}");
            }
            let rows = |y: Vec<f32>, of: &str| {
                let (first, second) = y.split_at(y.len() / 2);
                assert!(
                    first.iter().all(|y| y.is_finite()) && second.iter().any(|y| y.is_nan()),
                    "{of} of {len}: {y:?}"
                );
            };
            let (x, ones) = (
                || tensor(&x, [2, len]),
                || Tensor::<1>::ones([len], &Device::flex()),
            );
            let targets = Tensor::<1, Int>::zeros([2], &Device::flex());
            rows(read(ops::cross_entropy(x(), targets)), "cross-entropy");
            rows(
                read(ops::binary_cross_entropy(x(), x().zeros_like())),
                "binary cross-entropy",
            );
            rows(
                read(ops::reparameterize(x(), x().zeros_like(), x().zeros_like())),
                "draw",
            );
            rows(
                read(ops::standard_normal_kl(x(), x().zeros_like())),
                "divergence",
            );
            rows(read(ops::layer_norm(x(), ones(), None, 1e-5)), "layer norm");
            let maps = x().reshape([2, 1, len]);
            let (gamma, beta) = (tensor(&[1.0], [1]), tensor(&[0.0], [1]));
            rows(
                read(ops::group_norm(
                    maps,
                    gamma,
                    beta,
                    1,
                    1e-5,
                    Activation::Silu,
                )),
                "group norm",
            );
            let one = || Tensor::<1>::ones([1], &Device::flex());
            let waves = x().reshape([2, 1, len]);
            rows(read(ops::snake(waves, one(), one())), "snake");
            let gates = Tensor::<2>::zeros([2, 4 * len], &Device::flex());
            rows(read(ops::lstm_cell(gates, x()).1), "LSTM");
            let heads = || x().reshape([2, 1, len, 1]);
            rows(
                read(ops::attention(heads(), heads(), heads(), None, false)),
                "attention",
            );
        }
    }
}

#[test]
fn activations_are_exact_at_extreme_inputs() {
    let ends = || tensor(&[-1e36, -200.0, 200.0, 1e36], [4]);
    for (activation, expected) in [
        (Activation::Relu, [0.0, 0.0, 200.0, 1e36]),
        (Activation::LeakyRelu(0.5), [-5e35, -100.0, 200.0, 1e36]),
        (Activation::Silu, [0.0, 0.0, 200.0, 1e36]),
        (Activation::Gelu, [0.0, 0.0, 200.0, 1e36]),
        (Activation::Sigmoid, [0.0, 0.0, 1.0, 1.0]),
        (Activation::Tanh, [-1.0, -1.0, 1.0, 1.0]),
        (Activation::Softplus, [0.0, 0.0, 200.0, 1e36]),
        (Activation::QuickGelu, [-0.0, -0.0, 200.0, 1e36]),
        (Activation::Mish, [-0.0, -0.0, 200.0, 1e36]),
        (Activation::Elu(0.5), [-0.5, -0.5, 200.0, 1e36]),
    ] {
        let got = read(ops::activation(ends(), activation));
        let close =
            |(got, expected): (&f32, &f32)| (got - expected).abs() <= 1e-30 + 1e-6 * expected.abs();
        assert!(
            got.iter().zip(&expected).all(close),
            "{activation:?}: {got:?}"
        );
    }
}

/// Zero is selected, instead of multiplying infinity by zero.
#[test]
fn relu_handles_infinities() {
    let device = Device::flex().autodiff();
    let x = Tensor::<1>::from_floats([f32::NEG_INFINITY, -1.0, 2.0, f32::INFINITY], &device)
        .require_grad();
    let y = ops::activation(x.clone(), Activation::Relu);
    assert_eq!(read(y.clone().inner()), [0.0, 0.0, 2.0, f32::INFINITY]);
    let grads = (y * Tensor::<1>::from_floats([f32::INFINITY; 4], &device))
        .sum()
        .backward();
    assert_eq!(
        read(x.grad(&grads).unwrap()),
        [0.0, 0.0, f32::INFINITY, f32::INFINITY]
    );
}

/// NaN propagates through a layer and its backward pass.
#[test]
fn nan_propagates_through_layers_and_gradients() {
    let device = Device::flex().autodiff();
    let nan = |len: usize, at: usize| {
        let values = (0..len)
            .map(|i| if i == at { f32::NAN } else { 0.5 })
            .collect::<Vec<f32>>();
        Tensor::<1>::from_floats(values.as_slice(), &device)
    };
    let any_nan = |tensor: Tensor<1>| read(tensor.inner()).iter().any(|value| value.is_nan());
    let maps = |at| nan(2 * 4 * 36, at).reshape([2, 4, 6, 6]);
    let ones = |len: usize| Tensor::<1>::ones([len], &device);
    for at in [0, 17, 2 * 4 * 36 - 1] {
        for (kernel, stride, padding) in [(3, 1, 1), (4, 2, 1), (1, 1, 0), (6, 1, 0)] {
            let weight = Tensor::<4>::ones([5, 4, kernel, kernel], &device);
            let options = ConvOptions::new([stride; 2], [padding; 2], [1, 1], 1);
            assert!(
                any_nan(ops::conv2d(maps(at), weight, None, options).flatten(0, 3)),
                "{kernel}×{kernel}, {at}"
            );
        }
        let (y, ..) = ops::batch_norm(maps(at), ones(4), ones(4), 1e-5, Activation::Relu);
        assert!(any_nan(y.flatten(0, 3)), "batch norm, {at}");
        let rows = maps(at).reshape([48, 6]);
        assert!(
            any_nan(ops::linear(rows, Tensor::ones([6, 3], &device), None).flatten(0, 1)),
            "linear, {at}"
        );
    }
    for at in [0, 5, 19] {
        let (x, weight) = (
            ones(48).reshape([2, 4, 6]).require_grad(),
            ones(24).reshape([6, 4]).require_grad(),
        );
        let y = ops::activation(
            ops::linear(x.clone(), weight.clone(), None),
            Activation::Silu,
        );
        let grads = (y.flatten::<1>(0, 2) * nan(32, at)).sum().backward();
        assert!(
            read(x.grad(&grads).unwrap())
                .iter()
                .any(|value| value.is_nan()),
            "gradient of the input, {at}"
        );
        assert!(
            read(weight.grad(&grads).unwrap())
                .iter()
                .any(|value| value.is_nan()),
            "gradient of the weight, {at}"
        );
    }
}

/// A mean of a thousand times the standard deviation costs no more precision than its digits.
#[test]
fn norms_are_accurate_far_from_zero() {
    let [batch, channels, len] = [3, 4, 50];
    let x: Vec<f32> = Rng::new(4)
        .normal_vec(batch * channels * len)
        .iter()
        .map(|x| 1_000.0 + x)
        .collect();
    let run = |dtype: DType| {
        let x = tensor(&x, [batch, channels, len]).cast(dtype);
        let ones = |n: usize| Tensor::<1>::ones([n], &Device::flex()).cast(dtype);
        let zeros = |n: usize| ones(n) * 0.0;
        let identity = Activation::Identity;
        let group = ops::group_norm(
            x.clone(),
            ones(channels),
            zeros(channels),
            2,
            1e-5,
            identity,
        );
        let (batch, ..) =
            ops::batch_norm(x.clone(), ones(channels), zeros(channels), 1e-5, identity);
        let layer = ops::layer_norm(x, ones(len), None, 1e-5);
        let all = Tensor::cat(
            [group, batch, layer].map(|y| y.flatten::<1>(0, 2)).into(),
            0,
        );
        all.into_data()
            .convert::<f64>()
            .try_into_vec::<f64>()
            .unwrap()
    };
    for (fast, exact) in run(DType::F32).iter().zip(&run(DType::F64)) {
        assert!((fast - exact).abs() < 1e-3, "{fast}, expected {exact}");
    }
}

/// A frozen weight, or an input without gradient, does not change the other gradients.
#[test]
fn conv_gradients_are_independent_of_tracked_inputs() {
    let device = Device::flex().autodiff();
    let draw = |seed: u64, len: usize| Rng::new(seed).normal_vec(len);
    let (x, weight, bias) = (draw(1, 2 * 4 * 81), draw(2, 4 * 4 * 9), draw(3, 4));
    let grads = |transposed: bool, tracked: [bool; 3]| {
        let leaf = |values: &[f32], tracked: bool| {
            let leaf = Tensor::<1>::from_floats(values, &device);
            if tracked { leaf.require_grad() } else { leaf }
        };
        let leaves = [
            leaf(&x, tracked[0]),
            leaf(&weight, tracked[1]),
            leaf(&bias, tracked[2]),
        ];
        let [x, weight, bias] = leaves.clone();
        let (x, weight) = (x.reshape([2, 4, 9, 9]), weight.reshape([4, 4, 3, 3]));
        let y = match transposed {
            false => ops::conv2d(
                x,
                weight,
                Some(bias),
                ConvOptions::new([2, 2], [1, 1], [1, 1], 1),
            ),
            true => {
                let options = ConvTransposeOptions::new([2, 2], [1, 1], [1, 1], [1, 1], 1);
                ops::conv_transpose2d(x, weight, Some(bias), options)
            }
        };
        let grads = (y.clone() * y).sum().backward();
        leaves.map(|leaf| leaf.grad(&grads).map(read))
    };
    for transposed in [false, true] {
        let all = grads(transposed, [true; 3]);
        assert!(all.iter().all(Option::is_some));
        for one in 0..3 {
            let only = grads(transposed, [0, 1, 2].map(|leaf| leaf == one));
            let expected: [_; 3] =
                std::array::from_fn(|leaf| all[leaf].clone().filter(|_| leaf == one));
            assert_eq!(only, expected, "transposed {transposed}, tracked {one}");
        }
    }
}

/// Draws and divergences of normal distributions, and their gradients for all sets of tracked
/// inputs, against burn's automatic derivatives of the formulas.
#[test]
fn normal_distributions_match_their_formulas() {
    let device = Device::flex().autodiff();
    let values = [1, 2, 3, 4].map(|seed: u64| Rng::new(seed).normal_vec(3 * 37));
    for formula in ["draw", "divergence"] {
        let grads = |fused: bool, tracked: [bool; 3]| {
            let leaves: [Tensor<2>; 3] = std::array::from_fn(|index| {
                let leaf =
                    Tensor::from_data(TensorData::new(values[index].clone(), [3, 37]), &device);
                if tracked[index] {
                    leaf.require_grad()
                } else {
                    leaf
                }
            });
            let [mean, log_std, noise] = leaves.clone();
            let y = match (formula, fused) {
                ("draw", true) => ops::reparameterize(mean, log_std, noise),
                ("draw", false) => mean + log_std.exp() * noise,
                (_, true) => ops::standard_normal_kl(mean, log_std).unsqueeze_dim(1),
                (_, false) => {
                    let variance = (log_std.clone() * 2.0).exp();
                    ((mean.clone() * mean + variance - 1.0) * 0.5 - log_std).sum_dim(1)
                }
            };
            let weights = Tensor::<1>::from_floats(&values[3][..y.shape().num_elements()], &device);
            let grads = (y.clone() * weights.reshape(y.dims())).sum().backward();
            let grads = leaves.map(|leaf| leaf.grad(&grads).map(read));
            grads.into_iter().chain([Some(read(y.inner()))])
        };
        for set in 1..8 {
            let tracked = [1, 2, 4].map(|bit| set & bit > 0);
            // The noise is no input of a divergence.
            if formula == "divergence" && tracked == [false, false, true] {
                continue;
            }
            for (fused, plain) in grads(true, tracked).zip(grads(false, tracked)) {
                assert_eq!(fused.is_some(), plain.is_some(), "{formula} {tracked:?}");
                let (fused, plain) = (fused.unwrap_or_default(), plain.unwrap_or_default());
                assert_close(&fused, &plain, 1e-4);
            }
        }
    }
}

/// Half-precision tensors use the primitives, and keep their type.
#[test]
fn half_precision_is_kept() {
    let device = Device::flex();
    let values = |dtype: DType| {
        let draw =
            |seed: u64, shape: [usize; 4]| Rng::new(seed).normal::<4>(shape, &device).cast(dtype);
        let (x, weight) = (draw(1, [2, 4, 6, 6]), draw(2, [3, 4, 3, 3]));
        let y = ops::conv2d(x, weight, None, ConvOptions::new([1, 1], [1, 1], [1, 1], 1));
        let y = ops::activation(y, Activation::Silu);
        let y = ops::linear(y, draw(3, [1, 1, 6, 5]).reshape([6, 5]), None);
        let y = ops::layer_norm(y, draw(4, [1, 1, 1, 5]).reshape([5]), None, 1e-3);
        assert_eq!(y.dtype(), dtype);
        y.into_data()
            .convert::<f32>()
            .try_into_vec::<f32>()
            .unwrap()
    };
    let exact = values(DType::F32);
    for (dtype, tolerance) in [(DType::F16, 2e-2), (DType::BF16, 2e-1)] {
        for (half, exact) in values(dtype).iter().zip(&exact) {
            assert!(
                (half - exact).abs() < tolerance,
                "{dtype:?}: {half}, expected {exact}"
            );
        }
    }
}

/// Weights that burn has quantised use burn's operations, which know their layout.
#[test]
fn linear_with_burn_quantized_weight_uses_burn() {
    let device = Device::flex();
    let (x, weight) = (
        Rng::new(1).normal::<2>([3, 32], &device),
        Rng::new(2).normal::<2>([32, 16], &device),
    );
    let quantized = weight.clone().quantize_dynamic(&QuantScheme::default());
    let (exact, rough) = (
        read(ops::linear(x.clone(), weight, None)),
        read(ops::linear(x, quantized, None)),
    );
    assert_ne!(exact, rough);
    for (rough, exact) in rough.iter().zip(&exact) {
        assert!((rough - exact).abs() < 0.3, "{rough}, expected {exact}");
    }
}

/// Values whose width differs from that of the keys use the primitives.
#[test]
fn attention_accepts_values_of_other_width() {
    let device = Device::flex();
    let draw = |seed: u64, d: usize| Rng::new(seed).normal::<4>([2, 3, 5, d], &device);
    let (q, k, v) = (draw(1, 4), draw(2, 4), draw(3, 6));
    let wide = ops::attention(q.clone(), k.clone(), v.clone(), None, true);
    assert_eq!(wide.dims(), [2, 3, 5, 6]);
    let (wide, half) = (
        read(wide.narrow(3, 0, 4)),
        read(ops::attention(q, k, v.narrow(3, 0, 4), None, true)),
    );
    assert!(
        wide.iter()
            .zip(&half)
            .all(|(wide, half)| (wide - half).abs() < 1e-5)
    );
}

/// Mismatched shapes fail at entry, with a message about the expected shape.
#[test]
fn operations_reject_mismatched_shapes() {
    let ones = |len: usize| Tensor::<1>::ones([len], &Device::flex());
    let maps = || Tensor::<4>::ones([2, 4, 3, 3], &Device::flex());
    let table = || Tensor::<2>::ones([4, 10], &Device::flex());
    let rejected = |what: &str, call: &dyn Fn()| {
        let error = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).expect_err(what);
        let message = error.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(message.contains(what), "{what}: {message}");
    };
    let identity = Activation::Identity;
    rejected("gamma of a layer norm", &|| {
        drop(ops::layer_norm(table(), ones(4), None, 1e-5))
    });
    rejected("beta of a layer norm", &|| {
        drop(ops::layer_norm(table(), ones(10), Some(ones(11)), 1e-5))
    });
    rejected("gamma of a group norm", &|| {
        drop(ops::group_norm(maps(), ones(8), ones(4), 2, 1e-5, identity))
    });
    rejected("beta of a snake", &|| {
        drop(ops::snake(maps().reshape([2, 4, 9]), ones(4), ones(3)))
    });
    rejected("gates of an LSTM", &|| {
        drop(ops::lstm_cell(table(), table()))
    });
    rejected("3 groups of 4", &|| {
        drop(ops::group_norm(maps(), ones(4), ones(4), 3, 1e-5, identity))
    });
    rejected("beta of a batch norm", &|| {
        drop(ops::batch_norm(maps(), ones(4), ones(3), 1e-5, identity))
    });
    rejected("targets of a cross-entropy", &|| {
        drop(ops::cross_entropy(table(), ones(2).int()))
    });
    rejected("bias of a linear layer", &|| {
        drop(ops::linear(table(), table().transpose(), Some(ones(5))))
    });
    rejected("bias of a convolution", &|| {
        drop(ops::conv2d(
            maps(),
            maps(),
            Some(ones(5)),
            ConvOptions::new([1, 1], [1, 1], [1, 1], 1),
        ));
    });
    let heads = |tokens: usize| Tensor::<4>::ones([1, 1, tokens, 4], &Device::flex());
    rejected("causal attention of 3 queries", &|| {
        drop(ops::attention(heads(3), heads(2), heads(2), None, true))
    });
}

#[test]
fn empty_axes_give_empty_sums() {
    let device = Device::flex();
    let y = ops::linear(
        Tensor::<2>::ones([5, 0], &device),
        Tensor::ones([0, 3], &device),
        Some(tensor(&[1.0, 2.0, 3.0], [3])),
    );
    assert_eq!((y.dims(), read(y)), ([5, 3], [1.0, 2.0, 3.0].repeat(5)));
    let none = || Tensor::<2>::ones([5, 0], &device);
    assert_eq!(read(ops::binary_cross_entropy(none(), none())), [0.0; 5]);
    assert_eq!(ops::activation(none(), Activation::Silu).dims(), [5, 0]);
}

/// Padding at the end only, and a kernel that would cover the input if it were not dilated.
#[test]
fn conv2d_dilated_kernel_skips_pixels() {
    let options = ConvOptions::new_with_padding([1, 1], [(0, 1), (0, 1)], [2, 2], 1);
    let y = ops::conv2d(
        tensor(&[2.0, 3.0, 5.0, 7.0], [1, 1, 2, 2]),
        tensor(&[11.0, 1.0, 1.0, 1.0], [1, 1, 2, 2]),
        None,
        options,
    );
    assert_eq!(read(y), [22.0]);
}

/// The result does not depend on which thread runs which part.
#[test]
fn training_is_bitwise_reproducible() {
    let train = || {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path().join("run")).unwrap();
        let config = DataLoaderConfig {
            batch_size: 64,
            ..DataLoaderConfig::default()
        };
        let digits = DataLoader::new(digits::load(), collate_images, config).unwrap();
        let model = ConvVaeConfig {
            channels: vec![16, 32],
            ..ConvVaeConfig::new(ImageShape::new(1, 8, 8))
        };
        let model = model.init(&Device::flex()).unwrap();
        let objective = VaeObjective::new(KlWeight::default()).unwrap();
        bits(
            &Trainer::new(TrainerConfig::new(25))
                .fit(objective, model, &digits, &run)
                .unwrap()
                .model,
        )
    };
    let first = train();
    assert!((0..3).all(|_| train() == first));
}
