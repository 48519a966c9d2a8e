//! InceptionV3 against torch-fidelity and pytorch-fid, with weights that a formula draws
//! (`tests/reference/inception.py`).

use aigc_core::{
    device::device,
    eval::{Classifier, FeatureExtractor, InceptionLayer, InceptionPreprocessing, InceptionV3},
    weights::save_tensors,
};
use aigc_tests::{own_fixtures, python_with};
use burn::tensor::{Tensor, TensorData};
use safetensors::SafeTensors;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

/// Numbers in [−1, 1) by SplitMix64 from the CRC-32 of a name.
fn uniform(name: &str, count: usize) -> impl Iterator<Item = f64> + use<> {
    let mut crc = flate2::Crc::new();
    crc.update(name.as_bytes());
    let seed = u64::from(crc.sum()) << 32;
    (1..=count as u64).map(move |i| {
        let mut x = i.wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 40) as f64 / f64::from(1 << 23) - 1.0
    })
}

fn weight(name: &str, shape: &[usize]) -> TensorData {
    let fan_in: usize = shape[1..].iter().product();
    let scale = |u: f64| {
        if name.ends_with("conv.weight") || name == "fc.weight" {
            u * (6.0 / fan_in as f64).sqrt()
        } else if name.ends_with("running_var") {
            1.0 + 0.5 * u
        } else if name.ends_with("bn.weight") {
            1.0 + 0.25 * u
        } else {
            0.25 * u
        }
    };
    let values: Vec<f32> = uniform(name, shape.iter().product())
        .map(|u| scale(u) as f32)
        .collect();
    TensorData::new(values, shape)
}

/// `[1, channels, height, width]` in `[0, 1]`.
fn image(number: usize, [channels, height, width]: [usize; 3]) -> Tensor<4> {
    let noise = uniform(&format!("image {number}"), channels * height * width);
    let values: Vec<f32> = noise
        .enumerate()
        .map(|(i, noise)| {
            let (c, y, x) = (i / (height * width), i / width % height, i % width);
            let smooth = (0.05 * (number + 1) as f64 * x as f64 + c as f64).sin()
                + (0.07 * y as f64 * (1 + c) as f64).cos();
            let byte = (127.5 + 45.0 * smooth + 25.0 * noise).clamp(0.0, 255.0) as u8;
            f32::from(byte) / 255.0
        })
        .collect();
    let data = TensorData::new(values, [1, channels, height, width]);
    Tensor::from_data(data, &device("flex").unwrap())
}

fn folder() -> PathBuf {
    own_fixtures().join("eval/inception")
}

fn case() -> Value {
    serde_json::from_slice(&std::fs::read(folder().join("case.json")).unwrap()).unwrap()
}

fn sizes(value: &Value) -> Vec<usize> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Writes the weights of the script.
fn save_weights(path: &Path) {
    let weights: BTreeMap<String, TensorData> = case()["names"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, shape)| (name.clone(), weight(name, &sizes(shape))))
        .collect();
    save_tensors(&weights, path).unwrap();
}

#[test]
fn inception_matches_torch_fidelity_and_pytorch_fid() {
    let (folder, case) = (folder(), case());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("inception.safetensors");
    save_weights(&path);
    let inception = InceptionV3::from_file(&path, &device("flex").unwrap()).unwrap();

    let bytes = std::fs::read(folder.join("features.safetensors")).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let check = |name: &str, found: Tensor<2>| {
        let expected = stored.tensor(name).unwrap();
        assert_eq!(found.dims()[..], *expected.shape(), "{name}");
        let expected = expected.data().chunks_exact(4);
        let expected = expected.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        for (found, expected) in found.into_data().iter::<f32>().zip(expected) {
            let off = (found - expected).abs() / expected.abs().max(1.0);
            assert!(off < 1e-4, "{name}: {found}, expected {expected}");
        }
    };
    for (k, shape) in case["cases"].as_array().unwrap().iter().enumerate() {
        let [n, shape @ ..] = sizes(shape).try_into().unwrap_or([0; 4]);
        let images = (0..n).map(|i| image(10 * k + i, shape)).collect();
        let images: Tensor<4> = Tensor::cat(images, 0);
        let layers = [
            InceptionLayer::Pool1,
            InceptionLayer::Pool2,
            InceptionLayer::Mixed6,
            InceptionLayer::Pool3,
        ];
        // Half of the layers for each image: every layer of small and of large ones.
        for layer in layers.into_iter().skip(k % 2).step_by(2) {
            let net = inception.clone().with_layer(layer);
            let name = format!("torch_fidelity.{k}.{}", layer.width());
            check(&name, net.extract(images.clone()).unwrap());
        }
        if k == 0 {
            let net = inception.clone().with_layer(InceptionLayer::LogitsUnbiased);
            assert_eq!(net.width(), InceptionV3::CLASSES);
            let logits = net.extract(images.clone()).unwrap();
            check("torch_fidelity.0.logits_unbiased", logits);
            let output = inception.classify(images.clone());
            check("torch_fidelity.0.logits", output.logits);
            check("torch_fidelity.0.2048", output.features);
        }
        // Images that are enlarged, kept and reduced.
        let net = inception
            .clone()
            .with_preprocessing(InceptionPreprocessing::PytorchFid);
        check(
            &format!("pytorch_fid.{k}.2048"),
            net.extract(images).unwrap(),
        );
    }
    // Grey images are repeated.
    let grey = image(0, [1, 20, 20]);
    let colour = grey.clone().repeat_dim(1, 3);
    let values = |x| {
        inception
            .extract(x)
            .unwrap()
            .into_data()
            .try_into_vec::<f32>()
            .unwrap()
    };
    assert_eq!(values(grey.clone()), values(colour));
    let two = grey.clone().repeat_dim(1, 2);
    let error = inception.extract(two).unwrap_err().to_string();
    assert!(error.contains("`channels` is 2, expected 1"), "{error}");
    let other = inception.clone().with_layer(InceptionLayer::Pool1);
    assert_ne!(other.id(), inception.id());
}

/// Writes `weights.safetensors` of a directory as `zip.pth`, and as `legacy.pth` in the layout of
/// before PyTorch 1.6: state dicts, with the counters of batch norms and versions of modules.
const PICKLES: &str = r#"
import sys
from collections import OrderedDict
import torch
from safetensors.torch import load_file

folder, state = sys.argv[1], OrderedDict()
for name, tensor in load_file(f"{folder}/weights.safetensors").items():
    state[name] = tensor
    if name.endswith("running_var"):
        state[name.replace("running_var", "num_batches_tracked")] = torch.tensor(0)
state._metadata = OrderedDict({"": {"version": 1}, "Conv2d_1a_3x3.bn": {"version": 2}})
torch.save(state, f"{folder}/zip.pth")
torch.save(state, f"{folder}/legacy.pth", _use_new_zipfile_serialization=False)
"#;

/// The published files are pickles.
#[test]
fn inception_loads_pickles_of_pytorch() {
    let Some(python) = python_with("torch, safetensors") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    save_weights(&dir.path().join("weights.safetensors"));
    let output = Command::new(python)
        .args(["-c", PICKLES])
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let images = image(0, [3, 32, 32]);
    let logits = |name: &str| {
        let device = device("flex").unwrap();
        let inception = InceptionV3::from_file(&dir.path().join(name), &device).unwrap();
        let logits = inception.classify(images.clone()).logits;
        logits.into_data().try_into_vec::<f32>().unwrap()
    };
    let expected = logits("weights.safetensors");
    assert_eq!(logits("zip.pth"), expected);
    assert_eq!(logits("legacy.pth"), expected);
}
