//! Tests of the transformer.

use super::*;
use aigc_core::{
    rng::{InitWeights, Rng},
    testing::values,
};

fn tiny() -> WanTransformer3dConfig {
    WanTransformer3dConfig {
        num_attention_heads: 2,
        attention_head_dim: 6,
        in_channels: 3,
        out_channels: Some(3),
        text_dim: 5,
        freq_dim: 8,
        ffn_dim: 10,
        num_layers: 1,
        rope_max_seq_len: 4,
        ..WanTransformer3dConfig::default()
    }
}

/// A number for each channel of each pixel returns to its place.
#[test]
fn patches_return_to_their_places() {
    let device = Device::flex();
    let (patches, patch) = ([2, 1, 3], [2, 3, 1]);
    let mut tokens = vec![];
    for f in 0..2 {
        for c in 0..3 {
            for (pf, pr) in (0..2).flat_map(|pf| (0..3).map(move |pr| (pf, pr))) {
                for channel in 0..2 {
                    tokens.push((1000 * channel + 100 * (2 * f + pf) + 10 * pr + c) as f32);
                }
            }
        }
    }
    let tokens = Tensor::<1>::from_floats(&tokens[..], &device).reshape([1, 6, 12]);
    let video = unpatched(tokens, patches, patch);
    assert_eq!(video.dims(), [1, 2, 4, 3, 3]);
    let mut expected = vec![];
    for channel in 0..2 {
        for frame in 0..4 {
            for row in 0..3 {
                for column in 0..3 {
                    expected.push((1000 * channel + 100 * frame + 10 * row + column) as f32);
                }
            }
        }
    }
    assert_eq!(values(video), expected);
}

/// Time, prompt and the places of frames have effects; samples have none on each other.
#[test]
fn conditions_have_their_effects() {
    let device = Device::flex();
    let network = tiny().init(&device).unwrap().init_weights(1);
    let mut rng = Rng::new(2);
    let x: Tensor<5> = rng.normal([2, 3, 2, 4, 6], &device);
    let text: Tensor<3> = rng.normal([2, 3, 5], &device);
    let run = |x: &Tensor<5>, time: [f32; 2], text: &Tensor<3>| {
        let time = Tensor::from_floats(time, &device);
        let condition = Conditioning {
            encoder_hidden_states: Some(text.clone()),
            ..Conditioning::default()
        };
        let y = network.predict(x.clone(), time, &condition);
        assert_eq!(y.dims(), x.dims());
        values(y)
    };
    let plain = run(&x, [900.0, 30.0], &text);
    let changed = |other: Vec<f32>| {
        let half = plain.len() / 2;
        let apart = |range: std::ops::Range<usize>| {
            let pairs = plain[range.clone()].iter().zip(&other[range]);
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        [apart(0..half), apart(half..2 * half)]
    };
    let second = |x: Tensor<5>| {
        Tensor::cat(
            vec![x.clone().narrow(0, 0, 1), x.narrow(0, 1, 1).flip([2])],
            0,
        )
    };
    let other_text = Tensor::cat(
        vec![
            text.clone().narrow(0, 0, 1),
            text.clone().narrow(0, 1, 1) * 2.0,
        ],
        0,
    );
    let flipped = changed(values(second({
        let values = run(&second(x.clone()), [900.0, 30.0], &text);
        Tensor::<1>::from_floats(&values[..], &device).reshape([2, 3, 2, 4, 6])
    })));
    for (what, [first, second]) in [
        ("time", changed(run(&x, [900.0, 300.0], &text))),
        ("text", changed(run(&x, [900.0, 30.0], &other_text))),
        // Frames in the other order, and back: without positions the same.
        ("order", flipped),
    ] {
        assert!(first == 0.0 && second > 1e-5, "{what}: {first} {second}");
    }
}

#[test]
fn directories_are_written_and_opened() {
    let device = Device::flex();
    for cross_attn_norm in [true, false] {
        let config = WanTransformer3dConfig {
            cross_attn_norm,
            patch_size: [2, 2, 1],
            ..tiny()
        };
        let network = config.init(&device).unwrap().init_weights(1);
        let dir = tempfile::tempdir().unwrap();
        network.save_pretrained(dir.path()).unwrap();
        let opened = WanTransformer3dModel::from_pretrained(dir.path(), &device).unwrap();
        assert!(opened.warnings().is_empty(), "{opened}");
        assert_eq!(opened.config(), &config);
        let run = |network: &WanTransformer3dModel| {
            let x = Tensor::ones([1, 3, 4, 2, 3], &device);
            let time = Tensor::from_floats([500.0], &device);
            values(network.forward(x, time, Tensor::ones([1, 2, 5], &device)))
        };
        assert_eq!(run(&opened), run(&network));
    }
}

#[test]
fn shapes_and_fields_are_checked() {
    let network = tiny().init(&Device::flex()).unwrap();
    let check = |dims: &[usize]| network.check_shape(SampleShape::new(dims));
    check(&[3, 4, 8, 8]).unwrap();
    for (dims, expected) in [
        (&[3, 8, 8][..], "`shape`"),
        (&[4, 4, 8, 8][..], "`out_channels` is 3"),
        (&[3, 5, 8, 8][..], "at most 4 patches"),
        (&[3, 4, 7, 8][..], "multiples of [1, 2, 2]"),
    ] {
        let message = check(dims).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    for (fields, expected) in [
        (r#""image_dim": 1280"#, "`image_dim` is 1280"),
        (r#""added_kv_proj_dim": 8"#, "`added_kv_proj_dim` is 8"),
        (r#""qk_norm": null"#, "`qk_norm` is null"),
        (r#""attention_head_dim": 7"#, "`attention_head_dim` is 7"),
        (r#""freq_dim": 7"#, "`freq_dim` is 7"),
        (r#""patch_size": [1, 0, 2]"#, "`patch_size` is 0"),
        (r#""eps": 0"#, "`eps` is 0"),
        (r#""num_layers": 0"#, "`num_layers` is 0"),
    ] {
        let error = WanTransformer3dConfig::from_json(&format!("{{{fields}}}")).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let read = WanTransformer3dConfig::from_json(&tiny().to_json()).unwrap();
    assert_eq!(read, Loaded::new(tiny()));
}
