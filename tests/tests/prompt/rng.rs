//! PyTorch's random numbers.

use crate::{
    cases::{Case, every},
    differences::largest,
};
use aigc_core::{device::device, rng::TorchRng};

/// Fails unless the numbers are those of a tensor, which are equal bit for bit where it was made by
/// PyTorch's kernel for AVX2.
fn check(case: &Case, name: &str, found: &[f64]) {
    let (_, expected) = case.values(name);
    assert_eq!(found.len(), expected.len(), "{name}");
    let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    let worst = largest(apart);
    assert!(worst <= 1e-6, "{name} is off by {worst:.1e}");
}

pub(crate) fn is_randn(case: &Case) -> bool {
    case.text("kind") == "torch-randn"
}

#[test]
fn normal_numbers_match_pytorch() {
    every(is_randn, |case| {
        let calls = case.json["calls"].as_array().expect("calls");
        for (i, call) in calls.iter().enumerate() {
            let mut rng = TorchRng::new(call["seed"].as_u64().unwrap());
            for (j, shape) in call["shapes"].as_array().unwrap().iter().enumerate() {
                let shape = shape.as_array().unwrap().iter();
                let n: u64 = shape.map(|size| size.as_u64().unwrap()).product();
                let found = rng.normal_vec(n as usize).into_iter();
                let found: Vec<f64> = found.map(f64::from).collect();
                check(case, &format!("draw.{i}.{j}"), &found);
            }
        }
        for (i, seed) in case.json["half"].as_array().unwrap().iter().enumerate() {
            let rng = || TorchRng::new(seed.as_u64().unwrap());
            let (_, halves) = case.values(&format!("half.{i}"));
            let found = rng().normal_vec_f16(halves.len()).into_iter();
            let found: Vec<f64> = found.map(|x| x.to_f64()).collect();
            check(case, &format!("half.{i}"), &found);
            let (_, doubles) = case.values(&format!("double.{i}"));
            let found = rng().normal_vec_f64(doubles.len());
            check(case, &format!("double.{i}"), &found);
        }
    });
}

/// A tensor has the numbers of its elements in order.
#[test]
fn tensors_have_the_numbers_in_order() {
    let tensor = TorchRng::new(3).normal([2, 3, 4], &device("flex").unwrap());
    let values: Vec<f32> = tensor.into_data().iter().collect();
    assert_eq!(values, TorchRng::new(3).normal_vec(24));
}
