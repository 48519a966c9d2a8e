//! Every operation's fast body against its default body in `f64`, gradients included, on random shapes.
//!
//! The default bodies are burn's primitives, which `f64` tensors take on Flex too.

use aigc_core::{ops, rng::Rng};
use aigc_tests::cases::{Case, OPERATIONS, pick};
use burn::tensor::{DType, Device, Tensor, TensorData};

const SHAPES: u64 = 1_000;

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
        assert!(tests.status.success() && said.contains("17 passed; 0 failed"), "{simd}: {said}");
    }
}
