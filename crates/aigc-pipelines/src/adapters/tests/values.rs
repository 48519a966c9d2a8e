//! Changed weights against their definitions.

use super::{File, IN, Model, OUT, convolution, linear, model};
use crate::adapters::{Component, Lora, LoraScales, LoraStack};
use aigc_core::{
    rng::Rng,
    weights::{restore_params, save_tensors},
};
use burn::{
    module::Module,
    tensor::{DType, FloatDType, TensorData},
};

fn product(a: &[f64], b: &[f64], inner: usize) -> Vec<f64> {
    let columns = b.len() / inner;
    let element = |row: usize, column: usize| -> f64 {
        (0..inner)
            .map(|k| a[row * inner + k] * b[k * columns + column])
            .sum()
    };
    let rows = 0..a.len() / inner;
    rows.flat_map(|row| (0..columns).map(move |column| (row, column)))
        .map(|(row, column)| element(row, column))
        .collect()
}

fn assert_change(before: &[f64], after: &[f64], expected: &[f64]) {
    assert_eq!((before.len(), before.len()), (after.len(), expected.len()));
    for ((before, after), expected) in before.iter().zip(after).zip(expected) {
        let off = (after - before - expected).abs();
        assert!(off < 1e-5, "{} instead of {expected}", after - before);
    }
}

fn merged(file: &File, scale: f64) -> Model {
    let (merged, _, report) = file
        .open()
        .unwrap()
        .merge(model(), Component::Unet, scale)
        .unwrap();
    assert!(
        report.is_complete() && !report.applied.is_empty(),
        "{report:?}"
    );
    merged
}

fn scaled(values: Vec<f64>, scale: f64) -> Vec<f64> {
    values.into_iter().map(|value| value * scale).collect()
}

#[test]
fn low_rank_changes_are_scaled_by_alpha_over_rank() {
    for (alpha, factor) in [
        (None, 1.0),
        (Some(1.0), 1.0 / 3.0),
        (Some(-6.0), -2.0),
        (Some(0.0), 0.0),
    ] {
        let mut file = File::new();
        let down = file.draw("lora_unet_to_q.lora_down.weight", &[3, IN]);
        let up = file.draw("lora_unet_to_q.lora_up.weight", &[OUT, 3, 1, 1]);
        if let Some(alpha) = alpha {
            file.number("lora_unet_to_q.alpha", alpha);
        }
        let expected = scaled(product(&up, &down, 3), 0.5 * factor);
        let after = merged(&file, 0.5);
        assert_change(&linear(&model()), &linear(&after), &expected);
        assert_eq!(convolution(&after), convolution(&model()));
    }
}

/// A rank above both sides of the layer is a product like any other. The adapter may have a name.
#[test]
fn any_rank_fits() {
    let mut file = File::new();
    let down = file.draw("unet.to_q.lora_A.style.weight", &[40, IN]);
    let up = file.draw("unet.to_q.lora_B.style.weight", &[OUT, 40]);
    let expected = product(&up, &down, 40);
    assert_change(&linear(&model()), &linear(&merged(&file, 1.0)), &expected);
}

#[test]
fn convolutions_change_with_and_without_a_factor_of_the_kernel() {
    let mut file = File::new();
    let down = file.draw("lora_unet_conv.lora_down.weight", &[2, IN, 3, 3]);
    let up = file.draw("lora_unet_conv.lora_up.weight", &[OUT, 2, 1, 1]);
    let after = merged(&file, 1.0);
    assert_change(
        &convolution(&model()),
        &convolution(&after),
        &product(&up, &down, 2),
    );
    let mut file = File::new();
    let down = file.draw("lora_unet_conv.lora_down.weight", &[3, IN, 1, 1]);
    let mid = file.draw("lora_unet_conv.lora_mid.weight", &[2, 3, 3, 3]);
    let up = file.draw("lora_unet_conv.lora_up.weight", &[OUT, 2, 1, 1]);
    let mut expected = vec![0.0; OUT * IN * 9];
    for (at, value) in expected.iter_mut().enumerate() {
        let (out, input, position) = (at / (IN * 9), at / 9 % IN, at % 9);
        for outer in 0..2 {
            for inner in 0..3 {
                *value += up[out * 2 + outer]
                    * mid[(outer * 3 + inner) * 9 + position]
                    * down[inner * IN + input];
            }
        }
    }
    assert_change(
        &convolution(&model()),
        &convolution(&merged(&file, 1.0)),
        &expected,
    );
    // The same, attached.
    let attached = file
        .open()
        .unwrap()
        .attach(model(), Component::Unet, 1.0)
        .unwrap()
        .0;
    assert_change(
        &convolution(&model()),
        &convolution(&attached.materialize()),
        &expected,
    );
}

#[test]
fn hadamard_and_kronecker_products_and_differences_are_merged() {
    let mut file = File::new();
    let w1 = (
        file.draw("lora_unet_to_q.hada_w1_a", &[OUT, 2]),
        file.draw("lora_unet_to_q.hada_w1_b", &[2, IN]),
    );
    let w2 = (
        file.draw("lora_unet_to_q.hada_w2_a", &[OUT, 2]),
        file.draw("lora_unet_to_q.hada_w2_b", &[2, IN]),
    );
    file.number("lora_unet_to_q.alpha", 1.0);
    let (first, second) = (product(&w1.0, &w1.1, 2), product(&w2.0, &w2.1, 2));
    let expected = first
        .iter()
        .zip(&second)
        .map(|(a, b)| a * b * 0.5)
        .collect::<Vec<f64>>();
    assert_change(&linear(&model()), &linear(&merged(&file, 1.0)), &expected);
    let attached = file.open().unwrap().attach(model(), Component::Unet, 1.0);
    assert!(attached.unwrap_err().to_string().contains("merge it"));

    // [2, 2] ⊗ [3, 2, 3, 3], the second with factors.
    let mut file = File::new();
    let w1 = file.draw("lora_unet_conv.lokr_w1", &[2, 2]);
    let w2_a = file.draw("lora_unet_conv.lokr_w2_a", &[3, 4]);
    let w2_b = file.draw("lora_unet_conv.lokr_w2_b", &[4, 2 * 9]);
    file.number("lora_unet_conv.alpha", 2.0);
    let w2 = product(&w2_a, &w2_b, 4);
    let kronecker = |at: usize| {
        let (out, input, position) = (at / (IN * 9), at / 9 % IN, at % 9);
        w1[out / 3 * 2 + input / 2] * w2[(out % 3) * 18 + (input % 2) * 9 + position]
    };
    let expected: Vec<f64> = (0..OUT * IN * 9).map(|at| kronecker(at) * 0.5).collect();
    assert_change(
        &convolution(&model()),
        &convolution(&merged(&file, 1.0)),
        &expected,
    );
    // Without factors, alpha has no meaning.
    let mut file = File::new();
    let w1 = file.draw("lora_unet_to_q.lokr_w1", &[3, 2]);
    let w2 = file.draw("lora_unet_to_q.lokr_w2", &[2, 2]);
    file.number("lora_unet_to_q.alpha", 99.0);
    let kronecker = |at: usize| {
        let (out, input) = (at / IN, at % IN);
        w1[out / 2 * 2 + input / 2] * w2[out % 2 * 2 + input % 2]
    };
    let expected: Vec<f64> = (0..OUT * IN).map(kronecker).collect();
    assert_change(&linear(&model()), &linear(&merged(&file, 1.0)), &expected);

    let mut file = File::new();
    let difference = file.draw("lora_unet_conv.diff", &[OUT, IN, 3, 3]);
    let after = merged(&file, 0.25);
    assert_change(
        &convolution(&model()),
        &convolution(&after),
        &scaled(difference, 0.25),
    );
}

#[test]
fn several_adapters_add_up_with_strengths_of_their_own() {
    let (mut first, mut second) = (File::new(), File::new());
    let a = (
        first.draw("unet.to_q.lora_A.weight", &[2, IN]),
        first.draw("unet.to_q.lora_B.weight", &[OUT, 2]),
    );
    second.rng = Rng::new(8);
    let b = (
        second.draw("lora_unet_to_q.lora_down.weight", &[1, IN]),
        second.draw("lora_unet_to_q.lora_up.weight", &[OUT, 1]),
    );
    let stack = || {
        let scales = LoraScales::new(9.0).with_component(Component::Unet, 0.5);
        let stack = LoraStack::new()
            .with(first.open().unwrap(), scales)
            .unwrap();
        stack.with(second.open().unwrap(), -2.0).unwrap()
    };
    let (left, right) = (product(&a.1, &a.0, 2), product(&b.1, &b.0, 1));
    let pairs = left.iter().zip(&right);
    let expected: Vec<f64> = pairs.map(|(a, b)| 0.5 * a - 2.0 * b).collect();
    let mut merging = stack();
    let (merged, _) = merging.merge(model(), Component::Unet).unwrap();
    assert_eq!(merging.finish().unwrap().len(), 2);
    assert_change(&linear(&model()), &linear(&merged), &expected);
    let attached = stack().attach(model(), Component::Unet).unwrap();
    assert_change(
        &linear(&model()),
        &linear(&attached.materialize()),
        &expected,
    );
    let refused = LoraStack::new().with(first.open().unwrap(), f64::NAN);
    assert!(refused.unwrap_err().to_string().contains("`scale` is NaN"));
}

#[test]
fn alpha_of_metadata_counts_and_its_root() {
    let mut file = File::new();
    let down = file.draw("base_model.model.to_q.lora_A.weight", &[4, IN]);
    let up = file.draw("base_model.model.to_q.lora_B.weight", &[OUT, 4]);
    save_tensors(
        &file.tensors,
        &file.dir.path().join("adapter_model.safetensors"),
    )
    .unwrap();
    let config = file.dir.path().join("adapter_config.json");
    for (text, factor) in [
        (r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 2}"#, 0.5),
        (r#"{"r": 4, "lora_alpha": 2, "use_rslora": true}"#, 1.0),
        (
            r#"{"r": 4, "lora_alpha": 2, "alpha_pattern": {"to_q": 8}}"#,
            2.0,
        ),
    ] {
        std::fs::write(&config, text).unwrap();
        let lora = Lora::open(file.dir.path()).unwrap();
        let (after, ..) = lora.merge(model(), Component::Unet, 1.0).unwrap();
        let expected = scaled(product(&up, &down, 4), factor);
        assert_change(&linear(&model()), &linear(&after), &expected);
    }
    std::fs::write(&config, r#"{"lora_alpha": 2, "use_dora": true}"#).unwrap();
    let error = Lora::open(file.dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("use_dora") && error.contains("adapter_config.json"),
        "{error}"
    );
}

/// Of several changes that are each too small for a weight in half precision, the sum counts.
#[test]
fn changes_of_half_precision_are_rounded_once() {
    let mut file = File::new();
    for (name, value, shape) in [
        ("unet.to_q.lora_A.weight", 1.0f32, [1, IN]),
        ("unet.to_q.lora_B.weight", 4e-4, [OUT, 1]),
    ] {
        let values = TensorData::new(vec![value; shape[0] * shape[1]], shape);
        file.tensors.insert(name.into(), values);
    }
    let mut plain = model();
    plain.to_q.weight = plain
        .to_q
        .weight
        .map(|weight| (weight * 0.0 + 1.0).cast(FloatDType::F16));
    // The next number above 1 is 1 + 2⁻¹⁰.
    for (times, expected) in [(1, 1.0), (2, 1.0 + 1.0 / 1024.0)] {
        let mut stack = LoraStack::new();
        for _ in 0..times {
            stack = stack.with(file.open().unwrap(), 1.0).unwrap();
        }
        let (merged, mut originals) = stack.merge(plain.clone(), Component::Unet).unwrap();
        assert_eq!(merged.to_q.weight.val().dtype(), DType::F16);
        assert!(linear(&merged).iter().all(|weight| *weight == expected));
        let restored = restore_params(merged, &mut originals);
        assert_eq!(linear(&restored), linear(&plain));
    }
}
