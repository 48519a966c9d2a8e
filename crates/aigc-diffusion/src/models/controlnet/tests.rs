//! ControlNets from U-nets, their strength and their errors.

use super::*;
use crate::{
    Denoiser,
    models::{
        attention::PromptTokens,
        unet2d_condition::testing::{condition, network, random, small, time},
    },
};
use aigc_core::{
    device::device,
    rng::InitWeights,
    testing::{assert_close, values},
};
use burn::module::Param;

fn config() -> ControlNetConfig {
    ControlNetConfig {
        conditioning_embedding_out_channels: vec![4, 8],
        ..ControlNetConfig::from_unet(&small())
    }
}

/// A network whose last convolutions are not zero.
fn trained(config: &ControlNetConfig) -> ControlNetModel {
    let network = config.init(&device("flex").unwrap()).unwrap();
    let mut network = network.init_weights(2);
    let random = |conv: &mut Conv2d, seed| {
        let shape = conv.weight.dims();
        conv.weight = Param::from_tensor(self::random(seed, shape));
    };
    for (seed, conv) in network.controlnet_down_blocks.iter_mut().enumerate() {
        random(conv, seed as u64);
    }
    random(&mut network.controlnet_mid_block, 50);
    random(&mut network.controlnet_cond_embedding.conv_out, 51);
    network
}

fn image() -> Tensor<4> {
    random(6, [2, 3, 16, 12])
}

fn residuals(network: &ControlNetModel, scale: f64, guess_mode: bool) -> Vec<Vec<f32>> {
    let x = random(5, [2, 2, 8, 6]);
    let all = network.forward(x, time(), image(), &condition(), scale, guess_mode);
    all.down.into_iter().chain([all.mid]).map(values).collect()
}

/// A new ControlNet does not change its U-net; once its last convolutions are not zero, it does.
#[test]
fn new_controlnet_adds_nothing() {
    let (unet, flex) = (network(small()), device("flex").unwrap());
    let new = config().init_from_unet(&unet, &flex).unwrap();
    let new = new.init_weights(3);
    assert!(
        residuals(&new, 1.0, false)
            .concat()
            .iter()
            .all(|x| *x == 0.0)
    );
    let output = |residuals: Option<ControlResiduals>| {
        let condition = Conditioning {
            residuals,
            ..condition()
        };
        values(unet.predict(random(5, [2, 2, 8, 6]), time(), &condition))
    };
    let of = |network: &ControlNetModel| {
        let x = random(5, [2, 2, 8, 6]);
        network.forward(x, time(), image(), &condition(), 1.0, false)
    };
    let plain = output(None);
    assert_eq!(output(Some(of(&new))), plain);
    assert_ne!(output(Some(of(&trained(&config())))), plain);
}

/// With last convolutions that copy, its maps are those of the U-net's encoder.
#[test]
fn controlnet_begins_with_the_encoder_of_its_unet() {
    let (unet, flex) = (network(small()), device("flex").unwrap());
    let mut network = config().init_from_unet(&unet, &flex).unwrap();
    network = network.init_weights(3);
    let convolutions = network.controlnet_down_blocks.iter_mut();
    for conv in convolutions.chain([&mut network.controlnet_mid_block]) {
        let [channels, ..] = conv.weight.dims();
        let copy = Tensor::<2>::eye(channels, &flex);
        conv.weight = Param::from_tensor(copy.reshape([channels, channels, 1, 1]));
    }
    let tokens = condition().encoder_hidden_states.unwrap();
    let embedder = Embedder {
        config: unet.config(),
        time: &unet.time_embedding,
        class: None,
        addition: None,
        activation: Activation::Silu,
        dtype: burn::tensor::DType::F32,
    };
    let embedding = embedder.embed(time(), &condition(), None);
    let tokens = PromptTokens::new(tokens, None);
    let conditions = Conditions {
        time: &embedding,
        tokens: Some(blocks::Tokens {
            all: &tokens,
            visible: &tokens,
        }),
    };
    let x = unet.conv_in.forward(random(5, [2, 2, 8, 6]));
    let (last, mut expected) = blocks::down(x, conditions, &unet.down_blocks, &NoHook);
    let middle = unet.mid_block.as_ref().unwrap();
    expected.push(middle.forward(last, conditions, &NoHook));
    let found = residuals(&network, 1.0, false);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_close(found, &values(expected), 1e-5);
    }
}

/// A tenth at first, the whole at last, in equal ratios; both are scaled.
#[test]
fn guess_mode_weakens_the_first_maps() {
    let network = trained(&config());
    let (full, half) = (
        residuals(&network, 1.0, false),
        residuals(&network, 0.5, false),
    );
    let guessed = residuals(&network, 0.5, true);
    let last = full.len() - 1;
    for (i, ((full, half), guessed)) in full.iter().zip(&half).zip(&guessed).enumerate() {
        let scaled = |factor: f32| full.iter().map(|x| x * factor).collect::<Vec<_>>();
        assert_close(half, &scaled(0.5), 1e-5);
        let factor = 0.5 * 10f32.powf(i as f32 / last as f32 - 1.0);
        assert_close(guessed, &scaled(factor), 1e-5);
    }
}

#[test]
fn pooled_conditions_are_means_without_guess_mode() {
    let maps = residuals(&trained(&config()), 0.7, false);
    let pooled = trained(&ControlNetConfig {
        global_pool_conditions: true,
        ..config()
    });
    let means = residuals(&pooled, 0.7, true);
    for (map, mean) in maps.iter().zip(&means) {
        let pixels = map.len() / mean.len();
        assert!(pixels > 1);
        let expected = map.chunks_exact(pixels).map(|map| map.iter().sum::<f32>());
        let expected: Vec<f32> = expected.map(|sum| sum / pixels as f32).collect();
        assert_close(mean, &expected, 1e-4);
    }
}

#[test]
fn channels_of_the_image_may_be_reversed() {
    let network = trained(&config());
    let reversed = trained(&ControlNetConfig {
        controlnet_conditioning_channel_order: ChannelOrder::Bgr,
        ..config()
    });
    let of = |network: &ControlNetModel, image: Tensor<4>| {
        let x = random(5, [2, 2, 8, 6]);
        values(
            network
                .forward(x, time(), image, &condition(), 1.0, false)
                .mid,
        )
    };
    let expected = of(&network, image());
    assert_eq!(of(&reversed, image().flip([1])), expected);
    assert_ne!(of(&reversed, image()), expected);
}

#[test]
fn residuals_add_up_and_pass_unconditional_samples_by() {
    let network = trained(&config());
    let x = random(5, [2, 2, 8, 6]);
    let one = network.forward(x, time(), image(), &condition(), 1.0, false);
    let sum = ControlResiduals::sum([one.clone(), one.clone().map(|x| x * 2.0)]).unwrap();
    for (sum, one) in sum.down.into_iter().zip(&one.down) {
        assert_close(&values(sum), &values(one.clone() * 3.0), 1e-5);
    }
    assert_close(&values(sum.mid), &values(one.mid.clone() * 3.0), 1e-5);
    assert!(ControlResiduals::sum([]).is_none());
    let after = one.clone().after_zeros(1).mid;
    assert_eq!(after.dims(), [3, 16, 4, 3]);
    assert!(
        values(after.clone().narrow(0, 0, 1))
            .iter()
            .all(|x| *x == 0.0)
    );
    assert_eq!(values(after.narrow(0, 1, 2)), values(one.mid));
}

/// Hidden states of the encoder and the tokens that they are mapped to give the same.
#[test]
fn tokens_may_be_given_before_or_after_their_projection() {
    let network = trained(&ControlNetConfig {
        encoder_hid_dim: Some(9),
        ..config()
    });
    let of = |tokens: Tensor<3>| {
        let condition = Conditioning {
            encoder_hidden_states: Some(tokens),
            ..Conditioning::default()
        };
        let x = random(5, [2, 2, 8, 6]);
        values(
            network
                .forward(x, time(), image(), &condition, 1.0, false)
                .mid,
        )
    };
    let states = random(7, [2, 5, 9]);
    let tokens = network
        .encoder_hid_proj
        .as_ref()
        .unwrap()
        .forward(states.clone());
    assert_eq!(of(states), of(tokens));
}

#[test]
fn saved_controlnets_open_again() {
    let (flex, dir) = (device("flex").unwrap(), tempfile::tempdir().unwrap());
    let network = trained(&config());
    network.save_pretrained(dir.path()).unwrap();
    let opened = ControlNetModel::from_pretrained(dir.path(), &flex).unwrap();
    assert!(opened.warnings().is_empty(), "{opened}");
    assert_eq!(opened.config(), network.config());
    assert_eq!(
        residuals(&opened, 1.0, true),
        residuals(&network, 1.0, true)
    );
    assert_eq!(opened.config().conditioning_factor(), 2);
}

#[test]
fn config_errors_name_the_field() {
    let flex = device("flex").unwrap();
    for (text, expected) in [
        (
            r#"{"conditioning_channels": 0}"#,
            "`conditioning_channels` is 0",
        ),
        (
            r#"{"conditioning_embedding_out_channels": []}"#,
            "`conditioning_embedding_out_channels` is 0",
        ),
        (
            r#"{"conditioning_embedding_out_channels": [16, 99999]}"#,
            "`conditioning_embedding_out_channels` is 99999",
        ),
        (
            r#"{"controlnet_conditioning_channel_order": "brg"}"#,
            "`controlnet_conditioning_channel_order`",
        ),
        (r#"{"mid_block_type": null}"#, "`mid_block_type`"),
        (
            r#"{"class_embed_type": "simple_projection",
            "projection_class_embeddings_input_dim": 8}"#,
            "`class_embed_type` is simple_projection",
        ),
        (
            r#"{"_class_name": "UNet2DConditionModel"}"#,
            "`_class_name`",
        ),
        (
            r#"{"block_out_channels": [320]}"#,
            "`down_block_types` is 4 blocks",
        ),
    ] {
        let message = ControlNetConfig::from_json(text).unwrap_err().to_string();
        assert!(message.contains(expected), "{text}: {message}");
    }
    let other = ControlNetConfig {
        cross_attention_dim: 8,
        ..config()
    };
    let message = other
        .init_from_unet(&network(small()), &flex)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("`cross_attention_dim` is 8, expected 6, the U-net's"),
        "{message}"
    );
    let none = UNet2dConditionConfig {
        mid_block_type: None,
        ..small()
    };
    let none = none.init(&flex).unwrap();
    let message = config()
        .init_from_unet(&none, &flex)
        .unwrap_err()
        .to_string();
    assert!(message.contains("`mid_block_type` is null"), "{message}");
    // What a ControlNet's configuration has no field for.
    for (unet, expected) in [
        (
            UNet2dConditionConfig {
                conv_in_kernel: 1,
                ..small()
            },
            "`conv_in_kernel` is 1, expected 3",
        ),
        (
            UNet2dConditionConfig {
                time_embedding_dim: Some(20),
                ..small()
            },
            "`time_embedding_dim` is 20, expected 32",
        ),
    ] {
        let error = config().init_from_unet(&network(unet), &flex).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let published = ControlNetConfig::from_json(
        r#"{"_class_name": "ControlNetModel", "attention_head_dim": 8, "cross_attention_dim": 768,
        "num_attention_heads": null, "upcast_attention": false, "class_embed_type": null,
        "addition_embed_type_num_heads": 64}"#,
    )
    .unwrap();
    assert!(published.unused_fields.is_empty());
    assert_eq!(published.conditioning_factor(), 8);
    let again = ControlNetConfig::from_json(&published.to_json()).unwrap();
    assert_eq!(again.value, published.value);
}
