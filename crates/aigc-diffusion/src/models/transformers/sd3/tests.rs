//! Tests of the transformer.

use super::*;
use crate::models::AnyDenoiser;
use aigc_core::{
    device::device,
    rng::{InitWeights, Rng},
    testing::{assert_close, values},
};
use burn::tensor::{DType, FloatDType};

fn tiny() -> Sd3TransformerConfig {
    Sd3TransformerConfig {
        sample_size: 8,
        in_channels: 4,
        num_layers: 2,
        attention_head_dim: 4,
        num_attention_heads: 2,
        joint_attention_dim: 6,
        caption_projection_dim: 8,
        pooled_projection_dim: 5,
        out_channels: None,
        pos_embed_max_size: 6,
        dual_attention_layers: vec![0],
        qk_norm: Some("rms_norm".into()),
        ..Default::default()
    }
}

#[test]
fn samples_of_a_batch_are_independent() {
    let flex = device("flex").unwrap();
    let network = tiny().init(&flex).unwrap().init_weights(1);
    let mut rng = Rng::new(2);
    let x: Tensor<4> = rng.normal([2, 4, 8, 4], &flex);
    let hidden: Tensor<3> = rng.normal([2, 3, 6], &flex);
    let pooled: Tensor<2> = rng.normal([2, 5], &flex);
    let time = Tensor::<1>::from_floats([700.0, 12.5], &flex);
    let together = network.forward(x.clone(), time.clone(), hidden.clone(), pooled.clone());
    assert_eq!(together.dims(), [2, 4, 8, 4]);
    let alone = network.forward(
        x.narrow(0, 1, 1),
        time.narrow(0, 1, 1),
        hidden.narrow(0, 1, 1),
        pooled.narrow(0, 1, 1),
    );
    let apart = (together.narrow(0, 1, 1) - alone).abs().max();
    assert!(apart.into_data().iter::<f32>().all(|apart| apart < 1e-5));
}

/// Whatever the types of the conditions are, the network computes in that of the maps.
#[test]
fn half_precision_gives_half_precision() {
    let flex = device("flex").unwrap();
    let network = tiny().init(&flex).unwrap().init_weights(1);
    let mut rng = Rng::new(2);
    let x: Tensor<4> = rng.normal([2, 4, 8, 4], &flex);
    let condition = Conditioning {
        encoder_hidden_states: Some(rng.normal([2, 3, 6], &flex)),
        pooled_projections: Some(rng.normal([2, 5], &flex)),
        ..Default::default()
    };
    let time = Tensor::<1>::from_floats([700.0, 12.5], &flex);
    let whole = network.predict(x.clone(), time.clone(), &condition);
    let half = network.predict(x.cast(FloatDType::F16), time, &condition);
    assert_eq!(half.dtype(), DType::F16);
    let found = values(half.cast(FloatDType::F32));
    assert_close(&found, &values(whole), 0.05);
}

#[test]
fn shapes_are_checked() {
    let network = tiny().init(&device("flex").unwrap()).unwrap();
    let message = |shape: [usize; 3]| {
        let checked = network.check_shape(SampleShape::new(&shape));
        checked.unwrap_err().to_string()
    };
    assert!(network.check_shape(SampleShape::new(&[4, 12, 2])).is_ok());
    let found = message([4, 14, 2]);
    assert!(
        found.contains("sides of at most 12, for pos_embed_max_size"),
        "{found}"
    );
    assert!(message([4, 7, 8]).contains("multiples of 2"));
    assert!(message([2, 8, 8]).contains("`in_channels` is 4, expected 2"));
}

#[test]
fn directories_are_written_and_opened() {
    let flex = device("flex").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let network = AnyDenoiser::from(tiny().init(&flex).unwrap().init_weights(1));
    network.save_pretrained(dir.path()).unwrap();
    let opened = AnyDenoiser::from_pretrained(dir.path(), &flex).unwrap();
    assert!(opened.warnings().is_empty(), "{opened}");
    assert_eq!(opened.class(), "SD3Transformer2DModel");
    let mut rng = Rng::new(2);
    let x: Tensor<4> = rng.normal([1, 4, 4, 6], &flex);
    let condition = Conditioning {
        encoder_hidden_states: Some(rng.normal([1, 3, 6], &flex)),
        pooled_projections: Some(rng.normal([1, 5], &flex)),
        ..Default::default()
    };
    let time = Tensor::<1>::from_floats([500.0], &flex);
    let [a, b] = [&network, &opened.value].map(|network| {
        let y = network.predict(x.clone(), time.clone(), &condition);
        y.into_data().iter::<f32>().collect::<Vec<_>>()
    });
    assert_eq!(a, b);
}

#[test]
fn errors_name_the_field() {
    for (fields, expected) in [
        (
            r#""qk_norm": "layer_norm""#,
            "`qk_norm` is layer_norm, expected null or rms_norm",
        ),
        (
            r#""caption_projection_dim": 64"#,
            "`caption_projection_dim` is 64, expected 1152",
        ),
        (
            r#""pos_embed_max_size": null"#,
            "`pos_embed_max_size` is null",
        ),
        (r#""num_layers": 0"#, "`num_layers` is 0"),
        (
            r#""_class_name": "FluxTransformer2DModel""#,
            "expected SD3Transformer2DModel",
        ),
    ] {
        let error = Sd3TransformerConfig::from_json(&format!("{{{fields}}}")).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let loaded = Sd3TransformerConfig::from_json(r#"{"colour": "red"}"#).unwrap();
    assert_eq!(loaded.unused_fields, ["colour"]);
}
