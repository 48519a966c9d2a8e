//! LPIPS, MS-SSIM and perceptual path length, against the numbers of public implementations
//! (`tests/reference/perceptual.py`).

mod formulas;

use aigc_core::{
    Result,
    adversarial::PerceptualDistance,
    device::device,
    eval::{
        LatentInterpolation, Lpips, LpipsNetwork, MsSsimConfig, MsSsimNormalize, PathLengthConfig,
        ms_ssim, perceptual_path_length_between,
    },
    testing::{assert_close, values},
    weights::WeightReader,
};
use aigc_tests::own_fixtures;
use burn::tensor::{Device, Tensor, TensorData};
use formulas::{Entry, backbone, images, unit, weight, write};
use serde_json::Value;
use std::path::PathBuf;

fn flex() -> Device {
    device("flex").unwrap()
}

fn folder() -> PathBuf {
    own_fixtures().join("eval/perceptual")
}

/// A list of the fixture.
fn cases(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder().join("perceptual.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    json[name].as_array().unwrap().clone()
}

fn numbers(json: &Value) -> Vec<f64> {
    let numbers = json.as_array().unwrap().iter();
    numbers.map(|number| number.as_f64().unwrap()).collect()
}

fn shape(json: &Value) -> [usize; 4] {
    let sizes = numbers(&json["shape"]);
    std::array::from_fn(|axis| sizes[axis] as usize)
}

#[track_caller]
fn assert_near(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let tolerance = 1e-4 * expected.abs();
        assert!((found - expected).abs() <= tolerance, "{found} {expected}");
    }
}

fn network(name: &str) -> LpipsNetwork {
    match name {
        "vgg" => LpipsNetwork::Vgg16,
        "alex" => LpipsNetwork::AlexNet,
        _ => LpipsNetwork::SqueezeNet,
    }
}

/// LPIPS with the script's backbone and the published weights of channels.
fn lpips(name: &str) -> Lpips {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backbone.safetensors");
    let mut entries = backbone(name);
    // torchvision's files have the classifier too.
    entries.push(weight("classifier.1.weight".into(), vec![2, 3]));
    write(&path, &entries);
    let linear = folder().join(format!("{name}.pth"));
    Lpips::from_files(network(name), &path, &linear, &flex()).unwrap()
}

/// Distances, and the gradient that a training would have: with the images on a device with
/// autodiff, and the weights on one without.
fn check_lpips(name: &str) {
    let lpips = lpips(name);
    let cases = cases("lpips");
    let of_network: Vec<&Value> = cases.iter().filter(|case| case["net"] == name).collect();
    assert!(!of_network.is_empty());
    for case in of_network {
        let [x, y] = images(shape(case));
        let found = lpips.evaluate(&x, &y).unwrap();
        assert_near(&found, &numbers(&case["distances"]));
        let x = Tensor::<4>::from_data(x.to_data(), &flex().autodiff()).require_grad();
        let loss: &dyn PerceptualDistance = &lpips;
        let distance = loss.distance(x.clone() * 2.0 - 1.0, y.clone() * 2.0 - 1.0);
        let gradient = values(x.grad(&distance.sum().backward()).unwrap());
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            let pairs = a.iter().zip(b);
            pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let found = [
            dot(&gradient, &gradient).sqrt(),
            dot(&gradient, &values(y.clone())),
        ];
        let expected = ["gradient_norm", "gradient_with_y"];
        assert_near(&found, &expected.map(|name| case[name].as_f64().unwrap()));
    }
}

#[test]
fn lpips_with_vgg16_matches_lpips() {
    check_lpips("vgg");
}

#[test]
fn lpips_with_alexnet_matches_lpips() {
    check_lpips("alex");
}

#[test]
fn lpips_with_squeezenet_matches_lpips() {
    check_lpips("squeeze");
}

/// The state dict of `lpips.LPIPS`, with and without the second copy of the weights of channels.
#[test]
fn lpips_loads_joined_state_dict() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lpips.safetensors");
    let slices = [2, 5, 8, 10, 11, 12, 13];
    let mut entries = backbone("squeeze");
    for (name, _, _) in &mut entries {
        let rest = name.strip_prefix("features.").unwrap();
        let index: usize = rest.split('.').next().unwrap().parse().unwrap();
        let slice = slices.iter().filter(|end| **end <= index).count() + 1;
        *name = format!("net.slice{slice}.{rest}");
    }
    entries.push(weight("scaling_layer.shift".into(), vec![1, 3, 1, 1]));
    let linear = WeightReader::open(&folder().join("squeeze.pth")).unwrap();
    let names: Vec<String> = linear.names().map(String::from).collect();
    let linear: Vec<Entry> = names
        .iter()
        .map(|name| {
            let values = linear.read(name).unwrap();
            let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
            (name.clone(), linear.shape(name).unwrap().to_vec(), bytes)
        })
        .collect();
    let again = linear.iter().map(|(name, shape, bytes)| {
        let name = name.replacen("lin", "lins.", 1);
        (name, shape.clone(), bytes.clone())
    });
    let again: Vec<Entry> = again.collect();
    let [x, y] = images([1, 3, 30, 30]);
    let expected = lpips("squeeze").evaluate(&x, &y).unwrap();
    for copies in [vec![&linear, &again], vec![&linear], vec![&again]] {
        let entries: Vec<Entry> = entries
            .iter()
            .chain(copies.into_iter().flatten())
            .cloned()
            .collect();
        write(&path, &entries);
        let joined = Lpips::from_file(LpipsNetwork::SqueezeNet, &path, &flex()).unwrap();
        assert_eq!(joined.evaluate(&x, &y).unwrap(), expected);
    }
}

/// The message names the file and the tensors.
#[test]
fn lpips_refuses_weights_of_another_network() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backbone.safetensors");
    let load = |network, linear: &str| {
        let result = Lpips::from_files(network, &path, &folder().join(linear), &flex());
        result.unwrap_err().to_string()
    };
    let mut entries = backbone("squeeze");
    write(&path, &entries);
    let text = load(LpipsNetwork::SqueezeNet, "alex.pth");
    assert!(
        text.contains("alex.pth") && text.contains("lin1.model.1.weight"),
        "{text}"
    );
    let text = load(LpipsNetwork::AlexNet, "alex.pth");
    assert!(
        text.contains("backbone.safetensors") && text.contains("net.slice2.3.weight"),
        "{text}"
    );
    entries.push(weight("extra.weight".into(), vec![2, 3]));
    write(&path, &entries);
    let text = load(LpipsNetwork::SqueezeNet, "squeeze.pth");
    assert!(text.contains("unexpected keys") && text.contains("extra.weight"));
}

#[test]
fn ms_ssim_matches_torchmetrics() {
    let cases = cases("ms_ssim");
    assert_eq!(cases.len(), 8);
    for case in &cases {
        let [x, mut y] = images(shape(case));
        if case["negative"].as_bool().unwrap() {
            y = x.clone() * -1.0 + 1.0;
        }
        let config = MsSsimConfig {
            betas: numbers(&case["betas"]),
            normalize: match case["normalize"].as_str().unwrap() {
                "relu" => MsSsimNormalize::Relu,
                "simple" => MsSsimNormalize::Simple,
                _ => MsSsimNormalize::None,
            },
        };
        let found = ms_ssim(&y, &x, &config);
        // Terms below 0 have no real power; torchmetrics returns NaN.
        if case["values"][0].is_null() {
            let text = found.unwrap_err().to_string();
            assert!(text.contains("image 0 has the term -"), "{text}");
        } else {
            assert_near(&found.unwrap(), &numbers(&case["values"]));
        }
    }
}

#[test]
fn perceptual_path_length_matches_torch_fidelity() {
    let weights: Vec<f32> = unit("generator")[..432].iter().map(|u| *u as f32).collect();
    let weights = Tensor::<2>::from_data(TensorData::new(weights, [4, 108]), &flex());
    let generate = |z: Tensor<2>| {
        let p = z.matmul(weights.clone());
        let batch = p.dims()[0];
        let images = p.clone() * 0.1 + p.clone() * p * 0.01 + 0.5;
        Ok(images.reshape([batch, 3, 6, 6]))
    };
    let distance = |a: Tensor<4>, b: Tensor<4>| -> Result<Tensor<1>> {
        let difference = (a - b).flatten::<2>(1, 3);
        let squares = difference.clone() * difference;
        Ok(squares.mean_dim(1).squeeze_dim::<1>(1))
    };
    let cases = cases("path_length");
    assert_eq!(cases.len(), 3);
    for case in &cases {
        let latents = |name: &str| {
            let values: Vec<f32> = numbers(&case[name]).iter().map(|v| *v as f32).collect();
            let rows = values.len() / 4;
            Tensor::<2>::from_data(TensorData::new(values, [rows, 4]), &flex())
        };
        let config = PathLengthConfig {
            batch_size: 16,
            epsilon: 0.05,
            interpolation: match case["mode"].as_str().unwrap() {
                "lerp" => LatentInterpolation::Lerp,
                "slerp_any" => LatentInterpolation::SlerpAny,
                _ => LatentInterpolation::SlerpUnit,
            },
            discard_percentiles: Some([5.0, 90.0]),
            ..PathLengthConfig::new(4)
        };
        let (starts, ends) = (latents("starts"), latents("ends"));
        let found = perceptual_path_length_between(generate, distance, &starts, &ends, &config);
        let found = found.unwrap();
        assert_near(
            &[found.mean, found.std],
            &[
                case["mean"].as_f64().unwrap(),
                case["std"].as_f64().unwrap(),
            ],
        );
        // Each distance is a mean of differences of neighbouring images in 32 bits.
        let raw = |values: &[f64]| -> Vec<f32> { values.iter().map(|v| *v as f32).collect() };
        let expected = numbers(&case["raw"]);
        let tolerance = 1e-4 * found.mean as f32;
        assert_close(&raw(&found.raw), &raw(&expected), tolerance);
    }
}
