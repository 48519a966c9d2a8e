//! Tests of the transformer.

use super::*;
use aigc_core::{
    rng::{InitWeights, Rng},
    testing::values,
};

fn tiny() -> LtxVideoTransformer3dConfig {
    LtxVideoTransformer3dConfig {
        in_channels: 3,
        out_channels: None,
        num_attention_heads: 2,
        attention_head_dim: 10,
        cross_attention_dim: 20,
        num_layers: 1,
        caption_channels: 5,
        ..LtxVideoTransformer3dConfig::default()
    }
}

fn inputs(mask: Option<[[bool; 3]; 2]>) -> LtxVideoInputs {
    let device = Device::flex();
    LtxVideoInputs {
        encoder_hidden_states: Rng::new(3).normal([2, 3, 5], &device),
        encoder_attention_mask: mask.map(|mask| Tensor::from_data(mask, &device)),
        num_frames: 2,
        height: 3,
        width: 1,
        rope_interpolation_scale: Some([0.32, 32.0, 32.0]),
    }
}

/// Time, mask and places have effects, each on its sample alone.
#[test]
fn conditions_have_their_effects() {
    let device = Device::flex();
    let network = tiny().init(&device).unwrap().init_weights(1);
    let x: Tensor<3> = Rng::new(2).normal([2, 6, 3], &device);
    let run = |time: [f32; 2], inputs: &LtxVideoInputs| {
        let y = network.forward(x.clone(), Tensor::from_floats(time, &device), inputs);
        assert_eq!(y.dims(), x.dims());
        values(y)
    };
    let plain = run([900.0, 30.0], &inputs(None));
    let changed = |other: Vec<f32>| {
        let half = plain.len() / 2;
        let pairs: Vec<f32> = plain
            .iter()
            .zip(&other)
            .map(|(a, b)| (a - b).abs())
            .collect();
        let most = |part: &[f32]| part.iter().copied().fold(0.0, f32::max);
        [most(&pairs[..half]), most(&pairs[half..])]
    };
    let [first, second] = changed(run([900.0, 300.0], &inputs(None)));
    assert!(first == 0.0 && second > 1e-5, "{first} {second}");
    let mask = [[true; 3], [true, false, true]];
    let [first, second] = changed(run([900.0, 30.0], &inputs(Some(mask))));
    assert!(first < 1e-5 && second > 1e-5, "{first} {second}");
    // A mask that hides nothing, and one that hides everything.
    for mask in [[true; 3], [false; 3]] {
        let worst = changed(run([900.0, 30.0], &inputs(Some([[true; 3], mask]))));
        assert!(worst.iter().all(|x| *x < 1e-5), "{worst:?}");
    }
    let counted = LtxVideoInputs {
        rope_interpolation_scale: None,
        ..inputs(None)
    };
    let [first, second] = changed(run([900.0, 30.0], &counted));
    assert!(first > 1e-6 && second > 1e-6, "{first} {second}");
}

#[test]
fn directories_are_written_and_opened() {
    let device = Device::flex();
    for bias in [true, false] {
        let config = LtxVideoTransformer3dConfig {
            attention_bias: bias,
            attention_out_bias: !bias,
            ..tiny()
        };
        let network = config.init(&device).unwrap().init_weights(1);
        let dir = tempfile::tempdir().unwrap();
        network.save_pretrained(dir.path()).unwrap();
        let opened = LtxVideoTransformer3dModel::from_pretrained(dir.path(), &device).unwrap();
        assert!(opened.warnings().is_empty(), "{opened}");
        assert_eq!(opened.config(), &config);
        let run = |network: &LtxVideoTransformer3dModel| {
            let x = Tensor::ones([2, 6, 3], &device);
            let time = Tensor::from_floats([500.0, 3.0], &device);
            values(network.forward(x, time, &inputs(None)))
        };
        assert_eq!(run(&opened), run(&network));
    }
}

#[test]
fn errors_name_the_field() {
    for (fields, expected) in [
        (r#""qk_norm": "layer_norm""#, "`qk_norm` is \"layer_norm\""),
        (
            r#""norm_elementwise_affine": true"#,
            "`norm_elementwise_affine` is true",
        ),
        (
            r#""cross_attention_dim": 64"#,
            "`cross_attention_dim` is 64, expected 2048",
        ),
        (r#""activation_fn": "relu""#, "`activation_fn` is relu"),
        (r#""attention_head_dim": 0"#, "`attention_head_dim` is 0"),
        (r#""norm_eps": 0"#, "`norm_eps` is 0"),
    ] {
        let error = LtxVideoTransformer3dConfig::from_json(&format!("{{{fields}}}"));
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let read = LtxVideoTransformer3dConfig::from_json(&tiny().to_json()).unwrap();
    assert_eq!(read, Loaded::new(tiny()));
}

/// A pixel of latents is a token, frames before rows before columns.
#[test]
fn latents_are_tokens() {
    let device = Device::flex();
    let network = tiny().init(&device).unwrap().init_weights(1);
    let latents: Tensor<5> = Rng::new(2).normal([2, 3, 2, 3, 1], &device);
    let time = Tensor::from_floats([900.0, 30.0], &device);
    let inputs = LtxVideoInputs {
        rope_interpolation_scale: None,
        ..inputs(Some([[true; 3], [true, false, true]]))
    };
    let condition = Conditioning {
        encoder_hidden_states: Some(inputs.encoder_hidden_states.clone()),
        encoder_attention_mask: inputs.encoder_attention_mask.clone(),
        ..Conditioning::default()
    };
    let found = network.predict(latents.clone(), time.clone(), &condition);
    assert_eq!(found.dims(), [2, 3, 2, 3, 1]);
    // Token 4 is the second pixel of the second frame.
    let tokens = latents.reshape([2, 3, 6]).swap_dims(1, 2);
    let expected = network.forward(tokens, time, &inputs);
    assert_eq!(
        values(found.narrow(2, 1, 1).narrow(3, 1, 1)),
        values(expected.narrow(1, 4, 1))
    );

    let message = |shape: &[usize], config: LtxVideoTransformer3dConfig| {
        let error = config.check_shape(SampleShape::new(shape)).unwrap_err();
        error.to_string()
    };
    assert!(message(&[3, 8, 8], tiny()).contains("`shape`"));
    assert!(message(&[4, 2, 8, 8], tiny()).contains("`in_channels` is 3"));
    let patches = LtxVideoTransformer3dConfig {
        patch_size: 2,
        ..tiny()
    };
    assert!(message(&[3, 2, 8, 8], patches).contains("`patch_size` is 2"));
}
