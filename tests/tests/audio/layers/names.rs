//! Weight-normalised and recurrent layers in files of PyTorch, and in our own.

use super::{assert_near, flex, host, normalised, random};
use aigc_core::{
    nn::{Conv1dConfig, LstmConfig, layer_key},
    rng::InitWeights,
    weights::{WeightReader, load_weights, save_weights},
};
use aigc_tests::{floats, write_case};
use burn::tensor::Tensor;

/// Both names of the gain and the direction; the gain has the further axes of the weight.
#[test]
fn both_names_of_weight_norm_are_read() {
    let (device, dir) = (flex(), tempfile::tempdir().unwrap());
    let path = dir.path().join("case.safetensors");
    let gain: Tensor<3> = random([6, 1, 1], 5, &device);
    let direction: Tensor<3> = random([6, 2, 3], 6, &device);
    let bias: Tensor<1> = random([6], 7, &device);
    let config = Conv1dConfig::new([4, 6], 3).with_groups(2);
    let config = config.with_weight_norm(true);
    for (g, v) in [
        ("weight_g", "weight_v"),
        (
            "parametrizations.weight.original0",
            "parametrizations.weight.original1",
        ),
    ] {
        let entries = [
            (g, floats(&gain)),
            (v, floats(&direction)),
            ("bias", floats(&bias)),
        ];
        write_case(dir.path(), &entries);
        let reader = WeightReader::open(&path).unwrap();
        let (conv, report) = reader.load_into(config.init(&device), layer_key).unwrap();
        assert!(report.unused.is_empty(), "{report:?}");
        let norm = conv.weight_norm.as_ref().unwrap();
        assert_eq!(host(norm.gain.val()), host(gain.clone()));
        assert_eq!(host(conv.weight.val()), host(direction.clone()));
        assert_eq!(host(conv.bias.unwrap().val()), host(bias.clone()));
    }
    // A plain weight has no gain.
    write_case(
        dir.path(),
        &[("weight", floats(&direction)), ("bias", floats(&bias))],
    );
    let reader = WeightReader::open(&path).unwrap();
    let error = reader.load_into(config.init(&device), layer_key);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("missing keys: weight_g"), "{error}");
    let plain = config.with_weight_norm(false).init(&device);
    assert!(reader.load_into(plain, layer_key).is_ok());
}

/// A layer without normalisation does not take a direction for a weight.
#[test]
fn directions_are_no_weights() {
    let (device, dir) = (flex(), tempfile::tempdir().unwrap());
    let path = dir.path().join("case.safetensors");
    let direction: Tensor<3> = random([6, 4, 3], 6, &device);
    let bias: Tensor<1> = random([6], 7, &device);
    let plain = || Conv1dConfig::new([4, 6], 3).init(&device);
    for (g, v) in [
        ("weight_g", "weight_v"),
        (
            "parametrizations.weight.original0",
            "parametrizations.weight.original1",
        ),
        ("weight_norm.gain", "weight"),
    ] {
        // The prefix is that of a wrapper.
        for prefix in ["", "module."] {
            let [g, v, b] = [g, v, "bias"].map(|name| format!("{prefix}{name}"));
            let gain: Tensor<3> = random([6, 1, 1], 5, &device);
            let entries = [
                (g.as_str(), floats(&gain)),
                (v.as_str(), floats(&direction)),
                (b.as_str(), floats(&bias)),
            ];
            write_case(dir.path(), &entries);
            let reader = WeightReader::open(&path).unwrap();
            let error = reader.load_into(plain(), layer_key).unwrap_err();
            let expected = format!("without normalisation: {v} (its gain is {g})");
            assert!(error.to_string().contains(&expected), "{error}");
            // Who leaves the gains out answers for the lengths.
            let lengthless = reader.filtered(|name| name != g);
            assert!(lengthless.load_into(plain(), layer_key).is_ok());
        }
    }
}

#[test]
fn saved_layers_are_read_again() {
    let (device, dir) = (flex(), tempfile::tempdir().unwrap());
    let path = dir.path().join("layers.safetensors");
    let (conv, transpose) = normalised(&device);
    save_weights(&conv, &path).unwrap();
    let reader = WeightReader::open(&path).unwrap();
    let names: Vec<&str> = reader.names().collect();
    assert_eq!(names, ["bias", "weight", "weight_norm.gain"]);
    let new = Conv1dConfig::new([4, 6], 3)
        .with_groups(2)
        .with_weight_norm(true)
        .init(&device)
        .init_weights(9);
    let (read, _) = reader.load_into(new, layer_key).unwrap();
    let x = random([1, 4, 9], 3, &device);
    let expected = host(conv.forward(x.clone()));
    assert_near(&host(read.forward(x)), &expected, 0.0);
    save_weights(&transpose, &path).unwrap();
    let (_, other) = normalised(&device);
    let read = load_weights(other, &path).unwrap();
    assert_eq!(host(read.weight.val()), host(transpose.weight.val()));
}

/// The names of `torch.nn.LSTM(3, 4, num_layers=2, bidirectional=True)`.
#[test]
fn lstm_has_names_of_pytorch() {
    let (device, dir) = (flex(), tempfile::tempdir().unwrap());
    let mut entries = vec![];
    for (index, (layer, inputs)) in [("l0", 3), ("l0_reverse", 3), ("l1", 8), ("l1_reverse", 8)]
        .into_iter()
        .enumerate()
    {
        let seed = 4 * index as u64;
        let matrix = |inputs: usize, at: u64| floats(&random([16, inputs], seed + at, &device));
        let bias = |at: u64| floats(&random([16], seed + at, &device));
        entries.extend([
            (format!("weight_ih_{layer}"), matrix(inputs, 0)),
            (format!("weight_hh_{layer}"), matrix(4, 1)),
            (format!("bias_ih_{layer}"), bias(2)),
            (format!("bias_hh_{layer}"), bias(3)),
        ]);
    }
    let entries: Vec<_> = entries
        .iter()
        .map(|(name, entry)| (name.as_str(), entry.clone()))
        .collect();
    write_case(dir.path(), &entries);
    let reader = WeightReader::open(&dir.path().join("case.safetensors")).unwrap();
    let lstm = LstmConfig::new(3, 4)
        .with_num_layers(2)
        .with_bidirectional(true)
        .init(&device);
    let (lstm, report) = reader.load_into(lstm, layer_key).unwrap();
    assert!(report.unused.is_empty(), "{report:?}");
    let reverse = lstm.layers[1].reverse.as_ref().unwrap();
    let expected: Tensor<2> = random([16, 4], 13, &device);
    assert_eq!(host(reverse.weight_hh.val()), host(expected));
    let expected: Tensor<1> = random([16], 6, &device);
    assert_eq!(
        host(lstm.layers[0].reverse.as_ref().unwrap().bias_ih.val()),
        host(expected)
    );
}
