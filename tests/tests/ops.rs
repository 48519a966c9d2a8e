//! Every operation's fast body against its default body in `f64`, gradients included, on random shapes.
//!
//! The default bodies are burn's primitives, which `f64` tensors take on Flex too.

use aigc_core::{
    checkpoint::RunFolder,
    data::{ImageShape, Loader, LoaderConfig, collate_images, digits},
    nn::Activation,
    ops,
    rng::Rng,
    train::{Trainer, TrainerConfig},
};
use aigc_tests::{
    bits,
    cases::{Case, OPERATIONS, pick},
};
use aigc_vae::{Beta, ConvVaeConfig, VaeObjective};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

const SHAPES: u64 = if cfg!(miri) { 3 } else { 1_000 };

/// Draws cases and holds values and gradients in `f32` against those in `f64`. The error may be `tolerance` times the
/// largest value of a tensor (at least one).
fn check(name: &str) {
    let (name, tolerance, case) = *OPERATIONS.iter().find(|(known, ..)| *known == name).expect("an operation");
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

#[test]
fn convolutions_equal_their_default_bodies() {
    check("conv2d");
}

#[test]
fn three_by_three_convolutions_equal_their_default_bodies() {
    check("conv2d 3×3");
}

#[test]
fn convolutions_of_small_maps_equal_their_default_bodies() {
    check("conv2d small maps");
}

#[test]
fn transposed_convolutions_equal_their_default_bodies() {
    check("conv_transpose2d");
}

#[test]
fn linear_maps_equal_their_default_bodies() {
    check("linear");
}

#[test]
fn activations_equal_their_default_bodies() {
    check("activation");
}

#[test]
fn group_norms_equal_their_default_bodies() {
    check("group_norm");
}

#[test]
fn batch_norms_equal_their_default_bodies() {
    check("batch_norm");
}

#[test]
fn layer_norms_equal_their_default_bodies() {
    check("layer_norm");
}

#[test]
fn attention_equals_its_default_body() {
    check("attention");
}

#[test]
fn self_attention_equals_its_default_body() {
    check("self_attention");
}

#[test]
fn embeddings_equal_their_default_bodies() {
    check("embedding");
}

#[test]
fn upsampling_equals_its_default_body() {
    check("upsample_nearest2d");
}

#[test]
fn cross_entropy_equals_its_default_body() {
    check("cross_entropy");
}

#[test]
fn binary_cross_entropy_equals_its_default_body() {
    check("binary_cross_entropy");
}

#[test]
fn adam_equals_its_default_body() {
    let device = Device::flex();
    for seed in 0..SHAPES {
        let mut rng = Rng::new(seed);
        // Now and then several parts.
        let len = pick(&mut rng, 1, 300) + if seed % 50 == 0 { 40_000 } else { 0 };
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

/// The same tests with narrower vectors than this machine's best, so that its kernels are right elsewhere too.
#[test]
fn narrower_vectors_pass_the_same_tests() {
    if std::env::var_os("AIGC_SIMD").is_some() {
        return;
    }
    for simd in ["avx2", "scalar"] {
        let tests =
            std::process::Command::new(std::env::current_exe().unwrap()).env("AIGC_SIMD", simd).output().unwrap();
        let said = String::from_utf8_lossy(&tests.stdout);
        let passed = said.lines().filter(|line| line.starts_with("test ") && line.ends_with(" ok")).count();
        assert!(tests.status.success() && passed >= OPERATIONS.len(), "{simd}: {said}");
    }
}

const ACTIVATIONS: [Activation; 8] = [
    Activation::Relu,
    Activation::LeakyRelu(0.2),
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Silu,
    Activation::Tanh,
    Activation::Sigmoid,
    Activation::Softplus,
];

fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
}

fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// A training that has gone wrong must show, whatever the length and the place.
#[test]
fn what_is_no_number_stays_none() {
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
            let (x, ones) = (|| tensor(&x, [2, len]), || Tensor::<1>::ones([len], &Device::flex()));
            let targets = Tensor::<1, Int>::zeros([2], &Device::flex());
            rows(read(ops::cross_entropy(x(), targets)), "cross-entropy");
            rows(read(ops::binary_cross_entropy(x(), x().zeros_like())), "binary cross-entropy");
            rows(read(ops::layer_norm(x(), ones(), None, 1e-5)), "layer norm");
            let maps = x().reshape([2, 1, len]);
            let (gamma, beta) = (tensor(&[1.0], [1]), tensor(&[0.0], [1]));
            rows(read(ops::group_norm(maps, gamma, beta, 1, 1e-5, Activation::Silu)), "group norm");
            let heads = || x().reshape([2, 1, len, 1]);
            rows(read(ops::attention(heads(), heads(), heads(), None, false)), "attention");
        }
    }
}

#[test]
fn activations_hold_at_the_far_ends() {
    let ends = || tensor(&[-1e36, -200.0, 200.0, 1e36], [4]);
    for (activation, expected) in [
        (Activation::Silu, [0.0, 0.0, 200.0, 1e36]),
        (Activation::Gelu, [0.0, 0.0, 200.0, 1e36]),
        (Activation::Sigmoid, [0.0, 0.0, 1.0, 1.0]),
        (Activation::Tanh, [-1.0, -1.0, 1.0, 1.0]),
        (Activation::Softplus, [0.0, 0.0, 200.0, 1e36]),
    ] {
        let got = read(ops::activation(ends(), activation));
        let close = |(got, expected): (&f32, &f32)| (got - expected).abs() <= 1e-30 + 1e-6 * expected.abs();
        assert!(got.iter().zip(&expected).all(close), "{activation:?}: {got:?}");
    }
}

/// Shapes that do not fit each other are refused where they come in, with a word about what was expected.
#[test]
fn shapes_that_do_not_fit_are_refused() {
    let ones = |len: usize| Tensor::<1>::ones([len], &Device::flex());
    let maps = || Tensor::<4>::ones([2, 4, 3, 3], &Device::flex());
    let table = || Tensor::<2>::ones([4, 10], &Device::flex());
    let refused = |what: &str, call: &dyn Fn()| {
        let error = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).expect_err(what);
        let message = error.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(message.contains(what), "{what}: {message}");
    };
    let identity = Activation::Identity;
    refused("gamma of a layer norm", &|| drop(ops::layer_norm(table(), ones(4), None, 1e-5)));
    refused("beta of a layer norm", &|| drop(ops::layer_norm(table(), ones(10), Some(ones(11)), 1e-5)));
    refused("gamma of a group norm", &|| drop(ops::group_norm(maps(), ones(8), ones(4), 2, 1e-5, identity)));
    refused("3 groups of 4", &|| drop(ops::group_norm(maps(), ones(4), ones(4), 3, 1e-5, identity)));
    refused("beta of a batch norm", &|| drop(ops::batch_norm(maps(), ones(4), ones(3), 1e-5, identity)));
    refused("targets of a cross-entropy", &|| drop(ops::cross_entropy(table(), ones(2).int())));
    refused("bias of a linear layer", &|| drop(ops::linear(table(), table().transpose(), Some(ones(5)))));
    refused("bias of a convolution", &|| {
        drop(ops::conv2d(
            maps(),
            maps(),
            Some(ones(5)),
            burn::tensor::ops::ConvOptions::new([1, 1], [1, 1], [1, 1], 1),
        ));
    });
    let heads = |tokens: usize| Tensor::<4>::ones([1, 1, tokens, 4], &Device::flex());
    refused("causal attention of 3 queries", &|| drop(ops::attention(heads(3), heads(2), heads(2), None, true)));
}

#[test]
fn empty_axes_are_sums_of_nothing() {
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

/// Padding at the end only, and a kernel that would cover the input were it not spread out.
#[test]
fn a_spread_kernel_does_not_cover_what_lies_between() {
    let options = burn::tensor::ops::ConvOptions::new_with_padding([1, 1], [(0, 1), (0, 1)], [2, 2], 1);
    let y = ops::conv2d(
        tensor(&[2.0, 3.0, 5.0, 7.0], [1, 1, 2, 2]),
        tensor(&[11.0, 1.0, 1.0, 1.0], [1, 1, 2, 2]),
        None,
        options,
    );
    assert_eq!(read(y), [22.0]);
}

/// Threads take parts as they come; what the parts add up to does not depend on it.
#[test]
fn a_run_repeats_bit_for_bit() {
    let train = || {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::create(folder.path().join("run")).unwrap();
        let config = LoaderConfig { batch_size: 64, ..LoaderConfig::default() };
        let digits = Loader::new(digits::all(), collate_images, config).unwrap();
        let model = ConvVaeConfig { channels: vec![16, 32], ..ConvVaeConfig::new(ImageShape::new(1, 8, 8)) };
        let model = model.init(&Device::flex()).unwrap();
        let objective = VaeObjective::new(Beta::default()).unwrap();
        bits(&Trainer::new(TrainerConfig::new(25)).fit(objective, model, &digits, &run).unwrap().model)
    };
    let first = train();
    assert!((0..3).all(|_| train() == first));
}
