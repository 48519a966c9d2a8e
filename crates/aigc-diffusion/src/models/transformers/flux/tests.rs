//! Tests of the transformer.

use super::{
    super::{latent_image_ids, text_ids},
    *,
};
use crate::models::AnyDenoiser;
use aigc_core::{
    device::device,
    rng::{InitWeights, Rng},
};

fn tiny(guidance_embeds: bool) -> FluxTransformerConfig {
    FluxTransformerConfig {
        in_channels: 12,
        num_layers: 1,
        num_single_layers: 2,
        attention_head_dim: 8,
        num_attention_heads: 2,
        joint_attention_dim: 6,
        pooled_projection_dim: 5,
        guidance_embeds,
        axes_dims_rope: [2, 4, 2],
        ..Default::default()
    }
}

fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter().collect()
}

/// A map gives what its tokens give, and the guidance scale has an effect.
#[test]
fn maps_are_packed() {
    let flex = device("flex").unwrap();
    let network = tiny(true).init(&flex).unwrap().init_weights(1);
    let mut rng = Rng::new(2);
    let x: Tensor<4> = rng.normal([2, 3, 4, 6], &flex);
    let condition = |guidance: f32| Conditioning {
        encoder_hidden_states: Some(Rng::new(3).normal([2, 3, 6], &flex)),
        pooled_projections: Some(Rng::new(4).normal([2, 5], &flex)),
        guidance: Some(Tensor::from_floats([guidance, 1.0], &flex)),
        ..Default::default()
    };
    let time = Tensor::<1>::from_floats([750.0, 20.0], &flex);
    let found = network.predict(x.clone(), time.clone(), &condition(3.5));
    assert_eq!(found.dims(), [2, 3, 4, 6]);
    let given = condition(3.5);
    let inputs = FluxInputs {
        encoder_hidden_states: given.encoder_hidden_states.unwrap(),
        pooled_projections: given.pooled_projections.unwrap(),
        img_ids: latent_image_ids(2, 3, &flex),
        txt_ids: text_ids(3, &flex),
        guidance: given.guidance,
    };
    let tokens = network.forward(pack_latents(x.clone()), time.clone() / 1000.0, &inputs);
    assert_eq!(
        numbers(unpack_latents(tokens, [2, 3])),
        numbers(found.clone())
    );
    let other = network.predict(x, time, &condition(7.0));
    let apart = numbers((found - other).abs().sum_dims(&[1, 2, 3]));
    assert!(apart[0] > 1e-4 && apart[1] < 1e-6, "{apart:?}");
}

/// A network for 3 channels that is conditioned on 6 more gives 3.
#[test]
fn further_channels_condition_the_image() {
    let flex = device("flex").unwrap();
    let config = FluxTransformerConfig {
        in_channels: 36,
        out_channels: Some(12),
        ..tiny(false)
    };
    let network = config.init(&flex).unwrap().init_weights(1);
    let mut rng = Rng::new(2);
    let condition = Conditioning {
        encoder_hidden_states: Some(rng.normal([1, 3, 6], &flex)),
        pooled_projections: Some(rng.normal([1, 5], &flex)),
        ..Default::default()
    };
    assert_eq!(network.extra_input_channels(), 6);
    assert!(network.check_shape(SampleShape::new(&[3, 4, 4])).is_ok());
    assert!(
        network
            .check_trainable(SampleShape::new(&[3, 4, 4]))
            .is_err()
    );
    let x: Tensor<4> = rng.normal([1, 9, 4, 4], &flex);
    let time = Tensor::<1>::from_floats([750.0], &flex);
    assert_eq!(network.predict(x, time, &condition).dims(), [1, 3, 4, 4]);
}

#[test]
fn directories_are_written_and_opened() {
    let flex = device("flex").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let network = AnyDenoiser::from(tiny(true).init(&flex).unwrap().init_weights(1));
    network.save_pretrained(dir.path()).unwrap();
    let opened = AnyDenoiser::from_pretrained(dir.path(), &flex).unwrap();
    assert!(opened.warnings().is_empty(), "{opened}");
    let AnyDenoiser::FluxTransformer(network) = &opened.value else {
        panic!("{}", opened.class());
    };
    assert_eq!(network.config(), &tiny(true));
}

#[test]
fn shapes_and_fields_are_checked() {
    let network = tiny(false).init(&device("flex").unwrap()).unwrap();
    let message = |shape: [usize; 3]| {
        let checked = network.check_shape(SampleShape::new(&shape));
        checked.unwrap_err().to_string()
    };
    assert!(network.check_shape(SampleShape::new(&[3, 4, 6])).is_ok());
    assert!(message([3, 5, 6]).contains("multiples of 2"));
    assert!(message([4, 4, 6]).contains("`in_channels` is 12, expected 16"));
    for (fields, expected) in [
        (r#""patch_size": 2"#, "`patch_size` is 2, expected 1"),
        (
            r#""axes_dims_rope": [16, 56, 58]"#,
            "`axes_dims_rope` is [16, 56, 58]",
        ),
        (
            r#""axes_dims_rope": [15, 57, 56]"#,
            "`axes_dims_rope` is [15, 57, 56]",
        ),
        (
            r#""axes_dims_rope": [64, 64]"#,
            "`axes_dims_rope` is [64,64]",
        ),
        (r#""guidance_embeds": 1"#, "`guidance_embeds` is 1"),
        (
            r#""num_single_layers": 100000"#,
            "`num_single_layers` is 100000",
        ),
    ] {
        let error = FluxTransformerConfig::from_json(&format!("{{{fields}}}")).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}
