//! Tests of the transformer.

use super::*;
use crate::models::AnyDenoiser;
use aigc_core::{
    device::device,
    rng::{InitWeights, Rng},
};

fn tiny(sizes: bool) -> PixArtTransformerConfig {
    PixArtTransformerConfig {
        num_attention_heads: 2,
        attention_head_dim: 6,
        num_layers: 2,
        cross_attention_dim: 12,
        sample_size: 8,
        use_additional_conditions: Some(sizes),
        caption_channels: Some(5),
        ..Default::default()
    }
}

/// Hidden tokens have no effect, and every number about the size has one.
#[test]
fn conditions_have_their_effects() {
    let flex = device("flex").unwrap();
    let network = tiny(true).init(&flex).unwrap().init_weights(1);
    let mut rng = Rng::new(2);
    let x: Tensor<4> = rng.normal([2, 4, 4, 8], &flex);
    let hidden: Tensor<3> = rng.normal([2, 3, 5], &flex);
    let mask = [[true, true, true], [true, false, false]];
    let predict = |hidden: Tensor<3>, sizes: [[f32; 3]; 2]| {
        let condition = Conditioning {
            encoder_hidden_states: Some(hidden),
            encoder_attention_mask: Some(Tensor::from_data(mask, &flex)),
            time_ids: Some(Tensor::from_floats(sizes, &flex)),
            ..Default::default()
        };
        let time = Tensor::from_floats([900.0, 30.0], &flex);
        let y = network.predict(x.clone(), time, &condition);
        assert_eq!(y.dims(), [2, 8, 4, 8]);
        y.into_data().iter::<f32>().collect::<Vec<_>>()
    };
    let apart = |a: &[f32], b: &[f32]| {
        let each = a.chunks(a.len() / 2).zip(b.chunks(b.len() / 2));
        let worst = each.map(|(a, b)| {
            let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs());
            apart.fold(0.0, f32::max)
        });
        worst.collect::<Vec<_>>()
    };
    let sizes = [[512.0, 512.0, 1.0], [1024.0, 768.0, 0.75]];
    let plain = predict(hidden.clone(), sizes);
    let last = Tensor::cat(
        vec![hidden.clone().narrow(1, 0, 2), rng.normal([2, 1, 5], &flex)],
        1,
    );
    let changed = apart(&plain, &predict(last, sizes));
    assert!(changed[0] > 1e-4 && changed[1] == 0.0, "{changed:?}");
    for i in 0..3 {
        let mut other = sizes;
        other[1][i] *= 1.5;
        let changed = apart(&plain, &predict(hidden.clone(), other));
        assert!(changed[0] == 0.0 && changed[1] > 1e-4, "{i}: {changed:?}");
    }
}

#[test]
fn directories_are_written_and_opened() {
    let flex = device("flex").unwrap();
    for sizes in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let network = AnyDenoiser::from(tiny(sizes).init(&flex).unwrap().init_weights(1));
        network.save_pretrained(dir.path()).unwrap();
        let opened = AnyDenoiser::from_pretrained(dir.path(), &flex).unwrap();
        assert!(opened.warnings().is_empty(), "{opened}");
        let AnyDenoiser::PixArtTransformer(network) = &opened.value else {
            panic!("{}", opened.class());
        };
        assert_eq!(network.config(), &tiny(sizes));
    }
}

/// The published files of PixArt-α have the class that DiT's older files have too.
#[test]
fn old_class_is_told_from_dit() {
    let text = r#"{"_class_name": "Transformer2DModel", "_diffusers_version": "0.22.0.dev0",
        "activation_fn": "gelu-approximate", "attention_bias": true, "attention_head_dim": 6,
        "attention_type": "default", "caption_channels": 5, "cross_attention_dim": 12,
        "double_self_attention": false, "dropout": 0.0, "in_channels": 4,
        "norm_elementwise_affine": false, "norm_eps": 1e-06, "norm_num_groups": 32,
        "norm_type": "ada_norm_single", "num_attention_heads": 2, "num_embeds_ada_norm": 1000,
        "num_layers": 1, "num_vector_embeds": null, "only_cross_attention": false,
        "out_channels": 8, "patch_size": 2, "sample_size": 128, "upcast_attention": false,
        "use_linear_projection": false}"#;
    let flex = device("flex").unwrap();
    let opened = AnyDenoiser::from_json(text, &flex).unwrap();
    assert!(opened.warnings().is_empty(), "{opened}");
    assert_eq!(opened.class(), CLASS);
    let AnyDenoiser::PixArtTransformer(network) = &opened.value else {
        panic!("{}", opened.class());
    };
    assert!(network.config().takes_sizes());
    let dit = text
        .replace("ada_norm_single", "ada_norm_zero")
        .replace("\"caption_channels\": 5", "\"caption_channels\": null")
        .replace(
            "\"cross_attention_dim\": 12",
            "\"cross_attention_dim\": null",
        );
    let opened = AnyDenoiser::from_json(&dit, &flex).unwrap();
    assert_eq!(opened.class(), "DiTTransformer2DModel");
}

#[test]
fn errors_name_the_field() {
    for (fields, expected) in [
        (
            r#""norm_type": "ada_norm_zero""#,
            "`norm_type` is \"ada_norm_zero\"",
        ),
        (
            r#""attention_type": "gated""#,
            "`attention_type` is \"gated\"",
        ),
        (r#""activation_fn": "geglu""#, "`activation_fn` is geglu"),
        (r#""attention_head_dim": 70"#, "`attention_head_dim` is 70"),
        (r#""interpolation_scale": 0"#, "`interpolation_scale` is 0"),
        (
            r#""caption_channels": 4096, "cross_attention_dim": 1024"#,
            "`cross_attention_dim` is 1024, expected 1152",
        ),
        (
            r#""cross_attention_dim": null"#,
            "`cross_attention_dim` is null",
        ),
    ] {
        let error = PixArtTransformerConfig::from_json(&format!("{{{fields}}}")).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}
