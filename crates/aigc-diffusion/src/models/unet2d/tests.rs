//! Outputs, embeddings and configurations of the U-net.

use super::*;
use crate::models::AnyDenoiser;
use aigc_core::{
    data::ImageShape,
    device::device,
    params::{ParamVisitor, visit_params},
    rng::InitWeights,
};
use burn::module::Param;

fn small() -> UNet2dConfig {
    UNet2dConfig {
        in_channels: 1,
        out_channels: 1,
        down_block_types: vec![DownBlockType::DownBlock2D, DownBlockType::AttnDownBlock2D],
        up_block_types: vec![UpBlockType::AttnUpBlock2D, UpBlockType::UpBlock2D],
        block_out_channels: vec![8, 16],
        layers_per_block: 1,
        norm_num_groups: 4,
        ..UNet2dConfig::default()
    }
}

#[test]
fn output_keeps_shape_and_depends_on_time_and_class() {
    let flex = device("flex").unwrap();
    for resnet_time_scale_shift in [TimeScaleShift::Default, TimeScaleShift::ScaleShift] {
        for downsample_padding in [0, 1] {
            let config = UNet2dConfig {
                resnet_time_scale_shift,
                downsample_padding,
                num_class_embeds: Some(3),
                attn_norm_num_groups: Some(4),
                ..small()
            };
            let network = config.init(&flex).unwrap().init_weights(1);
            let x = Tensor::<4>::ones([3, 1, 12, 8], &flex);
            let at = |time: [f32; 3], class: [i32; 3]| {
                network.forward(
                    x.clone(),
                    Tensor::from_floats(time, &flex),
                    Some(Tensor::from_ints(class, &flex)),
                )
            };
            let out = at([5.0, 5.0, 900.0], [0, 1, 0]);
            assert_eq!(out.dims(), [3, 1, 12, 8]);
            let difference = |i: usize| {
                let other = out.clone().narrow(0, i, 1) - out.clone().narrow(0, 0, 1);
                other.abs().max().into_scalar::<f32>()
            };
            assert!(
                difference(1) > 1e-4 && difference(2) > 1e-4,
                "{} {}",
                difference(1),
                difference(2)
            );
        }
    }
}

fn names(network: &UNet2dModel) -> Vec<String> {
    struct Names(Vec<String>);
    impl ParamVisitor for Names {
        fn visit<const D: usize>(&mut self, path: &str, _: &Param<Tensor<D>>) {
            self.0.push(path.into());
        }
    }
    let mut names = Names(vec![]);
    visit_params(network, &mut names);
    names.0
}

/// The largest difference between the outputs for two images that are alike.
fn change(network: &UNet2dModel, times: [f32; 2], classes: Option<[i32; 2]>) -> f32 {
    let flex = device("flex").unwrap();
    let x = Tensor::<4>::ones([2, 1, 12, 8], &flex);
    let classes = classes.map(|classes| Tensor::from_ints(classes, &flex));
    let out = network.forward(x, Tensor::from_floats(times, &flex), classes);
    (out.clone().narrow(0, 0, 1) - out.narrow(0, 1, 1))
        .abs()
        .max()
        .into_scalar()
}

#[test]
fn class_numbers_are_encoded_as_times() {
    let flex = device("flex").unwrap();
    let config = UNet2dConfig::from_json(
        r#"{"class_embed_type": "timestep", "block_out_channels": [8],
        "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"],
        "in_channels": 1, "out_channels": 1, "norm_num_groups": 4}"#,
    )
    .unwrap();
    assert!(config.unused_fields.is_empty());
    let network = config.init(&flex).unwrap().init_weights(1);
    assert_eq!(network.num_classes(), Some(1000));
    let keys = names(&network);
    assert!(
        keys.iter()
            .any(|key| key == "class_embedding.linear_2.weight")
    );
    assert!(change(&network, [5.0; 2], Some([3, 3])) < 1e-6);
    assert!(change(&network, [5.0; 2], Some([3, 40])) > 1e-4);
}

/// It has no weights for classes, whatever `num_class_embeds` is, and its vectors have an effect.
#[test]
fn identity_class_embeddings_are_given() {
    let flex = device("flex").unwrap();
    for (num_class_embeds, time_embedding_dim, width) in [(None, None, 32), (Some(3), Some(12), 12)]
    {
        let config = UNet2dConfig {
            class_embed_type: Some(ClassEmbedType::Identity),
            num_class_embeds,
            time_embedding_dim,
            ..small()
        };
        let network = config.init(&flex).unwrap().init_weights(1);
        assert_eq!(network.class_embedding_dim(), Some(width));
        assert_eq!((network.num_classes(), network.null_class()), (None, None));
        let keys = names(&network);
        assert!(!keys.iter().any(|key| key.starts_with("class_embedding")));
        let plain = UNet2dConfig {
            class_embed_type: None,
            num_class_embeds: None,
            ..config.clone()
        };
        let plain = plain.init(&flex).unwrap().init_weights(1);
        assert_eq!(names(&plain), keys);

        let x = Tensor::<4>::ones([2, 1, 12, 8], &flex);
        let time = Tensor::<1>::from_floats([5.0, 90.0], &flex);
        let values = |of: Tensor<4>| of.into_data().iter::<f32>().collect::<Vec<_>>();
        let at = |value: f32| {
            let condition = Conditioning {
                class_embeddings: Some(Tensor::full([2, width], value, &flex)),
                ..Conditioning::default()
            };
            values(network.predict(x.clone(), time.clone(), &condition))
        };
        let (zeros, ones) = (at(0.0), at(1.0));
        assert_eq!(zeros, values(plain.forward(x.clone(), time.clone(), None)));
        assert!(zeros.iter().zip(&ones).any(|(a, b)| (a - b).abs() > 1e-4));

        let text = AnyDenoiser::from(network).to_json();
        assert!(text.contains(r#""class_embed_type": "identity""#), "{text}");
        let opened = UNet2dConfig::from_json(&text).unwrap();
        assert_eq!((&opened.value, opened.unused_fields.len()), (&config, 0));
    }
}

fn predict_with(class_embeddings: Option<[usize; 2]>) {
    let flex = device("flex").unwrap();
    let config = UNet2dConfig {
        class_embed_type: Some(ClassEmbedType::Identity),
        ..small()
    };
    let condition = Conditioning {
        class_labels: Some(Tensor::from_ints([0, 1], &flex)),
        class_embeddings: class_embeddings.map(|shape| Tensor::ones(shape, &flex)),
        ..Conditioning::default()
    };
    let x = Tensor::<4>::ones([2, 1, 12, 8], &flex);
    let time = Tensor::from_floats([5.0, 90.0], &flex);
    config.init(&flex).unwrap().predict(x, time, &condition);
}

#[test]
#[should_panic(expected = "a network with identity embeddings needs class embeddings")]
fn missing_class_embeddings_panic() {
    predict_with(None);
}

/// They are not broadcast.
#[test]
#[should_panic(expected = "shape of the class embeddings")]
fn narrow_class_embeddings_panic() {
    predict_with(Some([2, 1]));
}

/// `[sin, cos]` of `2π·w·ln t`, whatever `flip_sin_to_cos` is: diffusers does not pass it on.
#[test]
fn fourier_embedding_matches_its_formula() {
    let flex = device("flex").unwrap();
    assert!(UNet2dConfig::default().flip_sin_to_cos);
    for flip_sin_to_cos in [true, false] {
        let config = UNet2dConfig {
            time_embedding_type: TimeEmbeddingType::Fourier,
            class_embed_type: Some(ClassEmbedType::Timestep),
            flip_sin_to_cos,
            ..small()
        };
        let network = config.init(&flex).unwrap().init_weights(1);
        let values = |tensor: Tensor<2>| tensor.into_data().iter::<f32>().collect::<Vec<_>>();
        let found = values(network.encode(Tensor::from_floats([3.0], &flex)));
        let weights = values(network.time_proj.as_ref().unwrap().weight().unsqueeze());
        assert_eq!((found.len(), weights.len()), (16, 8));
        for (i, weight) in weights.iter().enumerate() {
            let angle = std::f32::consts::TAU * weight * 3f32.ln();
            assert!((found[i] - angle.sin()).abs() < 1e-3);
            assert!((found[i + 8] - angle.cos()).abs() < 1e-3);
        }
        assert!(change(&network, [0.5, 80.0], Some([3, 3])) > 1e-4);
        assert!(change(&network, [0.5; 2], Some([3, 40])) > 1e-4);
    }
}

/// Fourier embeddings take the logarithm of the time.
#[test]
fn fourier_embedding_rejects_times_of_zero() {
    let flex = device("flex").unwrap();
    let network = |time_embedding_type| {
        let config = UNet2dConfig {
            time_embedding_type,
            ..small()
        };
        config.init(&flex).unwrap()
    };
    let fourier = network(TimeEmbeddingType::Fourier);
    fourier.check_min_time(1e-2).unwrap();
    for min in [0.0, f64::NEG_INFINITY] {
        let message = fourier.check_min_time(min).unwrap_err().to_string();
        assert!(
            message.contains("`time_embedding_type` is fourier"),
            "{message}"
        );
        network(TimeEmbeddingType::Positional)
            .check_min_time(min)
            .unwrap();
    }
}

#[test]
fn with_null_class_adds_one_class_after_the_others() {
    let flex = device("flex").unwrap();
    let shape = ImageShape::new(1, 8, 8);
    let once = UNet2dConfig::small(shape, Some(3)).with_null_class();
    assert_eq!((once.num_class_embeds, once.null_class), (Some(4), Some(3)));
    assert_eq!(once.clone().with_null_class(), once);
    once.init(&flex).unwrap();
    for classes in [None, Some(0)] {
        let config = UNet2dConfig::small(shape, classes).with_null_class();
        let message = config.init(&flex).unwrap_err().to_string();
        assert!(message.contains("`null_class` is 0"), "{message}");
    }
}

/// With scale_shift the attention in the middle has no norm, unless it is requested.
#[test]
fn scale_shift_attention_has_no_norm_by_default() {
    let flex = device("flex").unwrap();
    let norms = |attn_norm_num_groups, resnet_time_scale_shift| {
        let config = UNet2dConfig {
            attn_norm_num_groups,
            resnet_time_scale_shift,
            ..small()
        };
        let keys = names(&config.init(&flex).unwrap());
        let norm = |key: &&String| key.starts_with("mid_block.attentions.0.group_norm");
        keys.iter().filter(norm).count()
    };
    assert_eq!(norms(None, TimeScaleShift::ScaleShift), 0);
    assert_eq!(norms(Some(4), TimeScaleShift::ScaleShift), 2);
    assert_eq!(norms(None, TimeScaleShift::Default), 2);
}

#[test]
fn activations_are_known_by_their_names() {
    let flex = device("flex").unwrap();
    let output = |act_fn: &str| -> Vec<f32> {
        let config = UNet2dConfig {
            act_fn: act_fn.into(),
            ..small()
        };
        let network = config.init(&flex).unwrap().init_weights(1);
        let x = Tensor::<4>::ones([1, 1, 12, 8], &flex);
        let time = Tensor::<1>::from_floats([5.0], &flex);
        network.forward(x, time, None).into_data().iter().collect()
    };
    let outputs = ["silu", "gelu", "relu", "mish", "quick_gelu"].map(&output);
    for (i, one) in outputs.iter().enumerate() {
        assert!(outputs[..i].iter().all(|other| other != one), "{i}");
    }
    assert_eq!(output("swish"), outputs[0]);
}

#[test]
fn small_networks_fit_their_images() {
    let flex = device("flex").unwrap();
    for (height, width, levels) in [
        (28, 28, 3),
        (8, 8, 2),
        (32, 16, 3),
        (5, 7, 1),
        (1, 1, 1),
        (12, 9, 1),
    ] {
        let config = UNet2dConfig::small(ImageShape::new(2, height, width), Some(3));
        assert_eq!(config.block_out_channels.len(), levels, "{height}×{width}");
        let network = config.init(&flex).unwrap().init_weights(0);
        let x = Tensor::<4>::ones([1, 2, height, width], &flex);
        let class = Some(Tensor::from_ints([2], &flex));
        assert_eq!(
            network
                .forward(x, Tensor::from_floats([3.0], &flex), class)
                .dims(),
            [1, 2, height, width]
        );
    }
}

#[test]
fn config_rejects_values_by_name() {
    let flex = device("flex").unwrap();
    for (config, expected) in [
        (
            UNet2dConfig {
                block_out_channels: vec![],
                ..small()
            },
            "`block_out_channels` is 0",
        ),
        (
            UNet2dConfig {
                block_out_channels: vec![8],
                ..small()
            },
            "`down_block_types` is 2 blocks",
        ),
        (
            UNet2dConfig {
                norm_num_groups: 3,
                ..small()
            },
            "`norm_num_groups` is 3, expected a divisor of 8",
        ),
        (
            UNet2dConfig {
                attention_head_dim: Some(0),
                ..small()
            },
            "`attention_head_dim` is 0",
        ),
        (
            UNet2dConfig {
                layers_per_block: 0,
                ..small()
            },
            "`layers_per_block` is 0",
        ),
        (
            UNet2dConfig {
                act_fn: "magic".into(),
                ..small()
            },
            "`act_fn` is magic",
        ),
        (
            UNet2dConfig {
                dropout: 1.0,
                ..small()
            },
            "`dropout` is 1",
        ),
        (
            UNet2dConfig {
                downsample_padding: 2,
                ..small()
            },
            "`downsample_padding` is 2",
        ),
        (
            UNet2dConfig {
                num_class_embeds: Some(3),
                null_class: Some(1),
                ..small()
            },
            "`null_class` is 1",
        ),
        (
            UNet2dConfig {
                class_embed_type: Some(ClassEmbedType::Identity),
                num_class_embeds: Some(3),
                null_class: Some(2),
                ..small()
            },
            "`null_class` is 2, expected none",
        ),
        (
            UNet2dConfig {
                block_out_channels: vec![usize::MAX, 1],
                ..small()
            },
            "`block_out_channels` is 18446744073709551615",
        ),
        (
            UNet2dConfig {
                block_out_channels: vec![0, 8],
                ..small()
            },
            "`block_out_channels` is 0, expected 1 to",
        ),
        (
            UNet2dConfig {
                time_embedding_dim: Some(1 << 17),
                ..small()
            },
            "`time_embedding_dim` is 131072",
        ),
    ] {
        let message = config.init(&flex).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    for (text, expected) in [
        (r#"{"class_embed_type": "simple"}"#, "`class_embed_type`"),
        (
            r#"{"down_block_types": ["SkipDownBlock2D"]}"#,
            "`down_block_types`",
        ),
        (r#"{"in_channels": -1}"#, "`in_channels` is -1"),
        (
            r#"{"_class_name": "DiTTransformer2DModel"}"#,
            "`_class_name` is \"DiTTransformer2DModel\"",
        ),
    ] {
        let message = UNet2dConfig::from_json(text).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    let config =
        UNet2dConfig::from_json(r#"{"of_tomorrow": 1, "_class_name": "UNet2DModel"}"#).unwrap();
    assert_eq!(config.unused_fields, ["of_tomorrow"]);
}
