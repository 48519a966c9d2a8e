//! Weights and configurations of models.

use aigc_core::{
    device::device,
    nn::LinearConfig,
    rng::InitWeights,
    weights::{load_weights, save_weights},
};
use aigc_tests::Net;

#[test]
fn mismatched_and_broken_weights_are_errors() {
    let device = device("flex").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let linear = |i, o| LinearConfig::new(i, o).init(&device).init_weights(1);
    save_weights(&linear(3, 2), &path).unwrap();
    assert!(load_weights(linear(3, 2), &path).is_ok());
    let error = |model| load_weights(model, &path).unwrap_err().to_string();
    let message = error(linear(2, 3));
    assert!(
        message.contains("size mismatch: bias ([2], expected [3])") && message.contains("weight ("),
        "{message}"
    );
    let without_bias = LinearConfig::new(3, 2).with_bias(false).init(&device);
    assert!(error(without_bias).contains("unexpected keys: bias"));
    let net = load_weights(Net::new(&device), &path)
        .unwrap_err()
        .to_string();
    assert!(
        net.contains("missing keys: ")
            && net.contains("first.weight")
            && net.contains("unexpected keys: bias"),
        "{net}"
    );
    let header = |text: &str| {
        [
            &(text.len() as u64).to_le_bytes()[..],
            text.as_bytes(),
            &[0; 24],
        ]
        .concat()
    };
    let files: [(&str, Vec<u8>); 7] = [
        (
            "a header longer than the file",
            [&u64::MAX.to_le_bytes()[..], b"{}"].concat(),
        ),
        (
            "a header of 90 megabytes in 10 bytes",
            [&90_000_000u64.to_le_bytes()[..], b"{}"].concat(),
        ),
        ("a header that is no JSON", header("hello")),
        (
            "offsets beyond the end",
            header(r#"{"weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,99999]}}"#),
        ),
        (
            "offsets that disagree with the shape",
            header(r#"{"weight":{"dtype":"F32","shape":[9,9],"data_offsets":[0,24]}}"#),
        ),
        (
            "a shape that overflows",
            header(
                r#"{"weight":{"dtype":"F32","shape":[18446744073709551615,9],"data_offsets":[0,24]}}"#,
            ),
        ),
        (
            "an unknown type",
            header(r#"{"weight":{"dtype":"F99","shape":[2,3],"data_offsets":[0,24]}}"#),
        ),
    ];
    for (name, content) in files {
        std::fs::write(&path, content).unwrap();
        let error = load_weights(linear(3, 2), &path)
            .expect_err(name)
            .to_string();
        assert!(error.contains("w.safetensors"), "{name}: {error}");
    }
    let missing = load_weights(linear(3, 2), &folder.path().join("nowhere.safetensors"))
        .unwrap_err()
        .to_string();
    assert!(missing.contains("nowhere.safetensors"), "{missing}");
}

#[test]
fn broken_model_configurations_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let device = device("flex").unwrap();
    let load = |content: &str| {
        std::fs::write(folder.path().join("config.json"), content).unwrap();
        aigc_vae::AnyVae::from_pretrained(folder.path(), &device)
            .unwrap_err()
            .to_string()
    };
    let mlp = |hidden: &str, latent: &str, likelihood: &str| {
        format!(
            r#"{{"kind":"mlp","shape":{{"channels":1,"height":4,"width":4}},"hidden":{hidden},"latent":{latent},"likelihood":{likelihood},"activation":"relu"}}"#
        )
    };
    let conv = |side: usize, channels: &str| {
        format!(
            r#"{{"kind":"conv","shape":{{"channels":1,"height":{side},"width":{side}}},"channels":{channels},"hidden":8,"latent":2,"likelihood":"bernoulli","activation":"relu"}}"#
        )
    };
    for (content, expected) in [
        ("hello".to_string(), "config.json"),
        (
            r#"{"kind":"transformer"}"#.into(),
            "unknown variant `transformer`",
        ),
        (mlp("0", "2", r#""bernoulli""#), "`hidden_dim` is 0"),
        (
            mlp("8", "99999999999", r#""bernoulli""#),
            "`latent_dim` is 99999999999",
        ),
        (
            mlp("8", "2", r#"{"gaussian":0.0}"#),
            "`likelihood.gaussian` is 0",
        ),
        (mlp("-1", "2", r#""bernoulli""#), "config.json"),
        (
            conv(6, "[4,8]"),
            "`shape.height` is 6, expected a multiple of 4",
        ),
        (conv(8, "[]"), "`channels` is []"),
        (conv(8, "[4,0]"), "`channels` is [4, 0]"),
        (mlp("8", "2", r#""bernoulli""#), "model.safetensors"),
    ] {
        let error = load(&content);
        assert!(error.contains(expected), "{content}: {error}");
    }
}
