//! Options of the U-net with cross-attention, and their errors.

use super::*;
use crate::{DdimScheduler, DiffusionSampler, Pipeline, models::AnyDenoiser};
use aigc_core::{
    data::ImageShape,
    device::device,
    params::{ParamVisitor, visit_params},
    rng::{InitWeights, Rng},
    testing::{assert_close, values},
    weights::{WeightReader, save_weights},
};
use burn::{
    module::Param,
    tensor::{Bool, TensorData},
};

fn small() -> UNet2dConditionConfig {
    UNet2dConditionConfig {
        in_channels: 2,
        out_channels: 2,
        down_block_types: vec![
            CrossDownBlockType::CrossAttnDownBlock2D,
            CrossDownBlockType::DownBlock2D,
        ],
        up_block_types: vec![
            CrossUpBlockType::UpBlock2D,
            CrossUpBlockType::CrossAttnUpBlock2D,
        ],
        block_out_channels: vec![8, 16],
        layers_per_block: 1,
        norm_num_groups: 4,
        cross_attention_dim: 6,
        attention_head_dim: PerBlock::One(2),
        ..UNet2dConditionConfig::default()
    }
}

fn network(config: UNet2dConditionConfig) -> UNet2dConditionModel {
    let network = config.init(&device("flex").unwrap()).unwrap();
    network.init_weights(1)
}

fn random<const D: usize>(seed: u64, shape: [usize; D]) -> Tensor<D> {
    Rng::new(seed).normal(shape, &device("flex").unwrap())
}

/// Tokens for two samples.
fn condition() -> Conditioning {
    Conditioning {
        encoder_hidden_states: Some(random(7, [2, 5, 6])),
        ..Conditioning::default()
    }
}

/// The output for two samples of 8×6 pixels.
fn output(network: &UNet2dConditionModel, condition: &Conditioning) -> Vec<f32> {
    let channels = network.config().in_channels;
    let time = Tensor::from_floats([3.0, 500.0], &device("flex").unwrap());
    values(network.predict(random(5, [2, channels, 8, 6]), time, condition))
}

fn apart(a: &[f32], b: &[f32]) -> f32 {
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

/// Paths of all weights.
fn names<M: Module>(network: &M) -> Vec<String> {
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

/// How many weights have names with this part.
fn count(network: &UNet2dConditionModel, part: &str) -> usize {
    let names = names(network);
    names.iter().filter(|name| name.contains(part)).count()
}

#[test]
fn sides_may_be_odd() {
    let three = UNet2dConditionConfig {
        down_block_types: vec![CrossDownBlockType::CrossAttnDownBlock2D; 3],
        up_block_types: vec![CrossUpBlockType::CrossAttnUpBlock2D; 3],
        block_out_channels: vec![8, 8, 8],
        ..small()
    };
    let flex = device("flex").unwrap();
    for (downsample_padding, sides) in [
        (1, vec![[9, 11], [5, 8], [1, 1], [8, 6]]),
        (0, vec![[9, 11], [5, 8], [4, 4]]),
    ] {
        let network = network(UNet2dConditionConfig {
            downsample_padding,
            ..three.clone()
        });
        for [height, width] in sides {
            let shape = SampleShape::new(&[2, height, width]);
            network.check_shape(shape).unwrap();
            network.check_trainable(shape).unwrap();
            let x = random(5, [2, 2, height, width]);
            let time = Tensor::from_floats([3.0, 500.0], &flex);
            let output = network.predict(x, time, &condition());
            assert_eq!(output.dims(), [2, 2, height, width]);
        }
        let least = network.check_shape(SampleShape::new(&[2, 3, 8]));
        let refused = downsample_padding == 0;
        assert_eq!(least.is_err(), refused);
        if let Err(error) = least {
            assert!(error.to_string().contains("sides of at least 4"), "{error}");
        }
    }
}

/// Tokens that the mask hides have no effect; a mask that hides none changes nothing.
#[test]
fn masked_tokens_are_not_attended_to() {
    let network = network(small());
    let flex = device("flex").unwrap();
    let mask = |visible: [usize; 2]| {
        let seen: Vec<bool> = (0..10).map(|i| i % 5 < visible[i / 5]).collect();
        let mask = Tensor::<2, Bool>::from_data(TensorData::new(seen, [2, 5]), &flex);
        Some(mask)
    };
    let whole = condition();
    let tokens = whole.encoder_hidden_states.clone().unwrap();
    let all = Conditioning {
        encoder_attention_mask: mask([5, 5]),
        ..whole.clone()
    };
    assert_close(&output(&network, &all), &output(&network, &whole), 1e-5);
    let some = |tokens: Tensor<3>| Conditioning {
        encoder_hidden_states: Some(tokens),
        encoder_attention_mask: mask([3, 3]),
        ..Conditioning::default()
    };
    let changed = Tensor::cat(
        vec![tokens.clone().narrow(1, 0, 3), random(9, [2, 2, 6])],
        1,
    );
    let masked = output(&network, &some(tokens.clone()));
    assert_close(&output(&network, &some(changed)), &masked, 1e-6);
    let first = Conditioning {
        encoder_hidden_states: Some(tokens.narrow(1, 0, 3)),
        ..Conditioning::default()
    };
    assert_close(&output(&network, &first), &masked, 1e-5);
    assert!(apart(&masked, &output(&network, &whole)) > 1e-4);
}

/// Sines, then cosines, of 1000·w·10000^(−i / (half − 1)); an odd width ends with zeros.
#[test]
fn guidance_scale_embedding_matches_its_formula() {
    let scales = [0.0f64, 1.5, 7.5];
    let w = Tensor::from_floats(scales.map(|w| w as f32), &device("flex").unwrap());
    for width in [8, 9] {
        let found = values(guidance_scale_embedding(w.clone(), width));
        for (row, scale) in scales.iter().enumerate() {
            for i in 0..4 {
                let angle = 1000.0 * scale * 10_000f64.powf(-(i as f64) / 3.0);
                let at = |i: usize| f64::from(found[row * width + i]);
                assert!((at(i) - angle.sin()).abs() < 1e-3, "{scale} {i}");
                assert!((at(i + 4) - angle.cos()).abs() < 1e-3, "{scale} {i}");
            }
            assert!(width == 8 || found[row * width + 8] == 0.0);
        }
    }
}

#[test]
fn guidance_scale_enters_the_time_embedding() {
    let network = network(UNet2dConditionConfig {
        time_cond_proj_dim: Some(12),
        ..small()
    });
    assert_eq!(count(&network, "time_embedding.cond_proj."), 1);
    let flex = device("flex").unwrap();
    let at = |scale: f32| Conditioning {
        guidance: Some(Tensor::from_floats([scale, scale], &flex)),
        ..condition()
    };
    let (none, low, high) = (
        output(&network, &condition()),
        output(&network, &at(1.0)),
        output(&network, &at(7.0)),
    );
    assert!(apart(&none, &low) > 1e-4 && apart(&low, &high) > 1e-4);
    let embedding = guidance_scale_embedding(at(7.0).guidance.unwrap(), 12);
    let time = Tensor::from_floats([3.0, 500.0], &flex);
    let x = random(5, [2, 2, 8, 6]);
    let given = network.forward_with_timestep_cond(x, time, &condition(), Some(embedding));
    assert_eq!(values(given), high);
    // Networks without it ignore a scale.
    let plain = self::network(small());
    assert_eq!(output(&plain, &at(7.0)), output(&plain, &condition()));
}

#[test]
fn classes_and_vectors_have_an_effect() {
    let flex = device("flex").unwrap();
    let labels = |labels: [i32; 2]| Conditioning {
        class_labels: Some(Tensor::from_ints(labels, &flex)),
        ..condition()
    };
    let vectors = |seed: u64, width: usize| Conditioning {
        class_embeddings: Some(random(seed, [2, width])),
        ..condition()
    };
    use ClassEmbedType::*;
    for (class_embed_type, num_class_embeds, conditions, weights, dims) in [
        (
            None,
            Some(4),
            [labels([0, 1]), labels([3, 1])],
            1,
            (None, Some(4)),
        ),
        (
            Some(Timestep),
            None,
            [labels([0, 1]), labels([30, 1])],
            4,
            (None, Some(1000)),
        ),
        (
            Some(Projection),
            None,
            [vectors(1, 10), vectors(2, 10)],
            4,
            (Some(10), None),
        ),
        (
            Some(SimpleProjection),
            None,
            [vectors(1, 10), vectors(2, 10)],
            2,
            (Some(10), None),
        ),
        (
            Some(Identity),
            None,
            [vectors(1, 32), vectors(2, 32)],
            0,
            (Some(32), None),
        ),
    ] {
        let network = network(UNet2dConditionConfig {
            class_embed_type,
            num_class_embeds,
            projection_class_embeddings_input_dim: Some(10),
            ..small()
        });
        assert_eq!(
            count(&network, "class_embedding"),
            weights,
            "{class_embed_type:?}"
        );
        assert_eq!((network.class_embedding_dim(), network.num_classes()), dims);
        let [one, other] = conditions.map(|condition| output(&network, &condition));
        assert!(apart(&one, &other) > 1e-4, "{class_embed_type:?}");
    }
}

#[test]
fn pooled_vectors_and_sizes_have_an_effect() {
    let config = UNet2dConditionConfig {
        addition_embed_type: Some(AdditionEmbedType::TextTime),
        addition_time_embed_dim: Some(4),
        projection_class_embeddings_input_dim: Some(6 * 4 + 10),
        ..small()
    };
    assert_eq!(config.num_time_ids(10), Some(6));
    assert_eq!(config.num_time_ids(9), None);
    assert_eq!(config.num_time_ids(40), None);
    assert_eq!(small().num_time_ids(10), None);
    let network = network(config);
    let with = |pooled: u64, size: f32| Conditioning {
        pooled_projections: Some(random(pooled, [2, 10])),
        time_ids: Some(Tensor::full([2, 6], size, &device("flex").unwrap())),
        ..condition()
    };
    let base = output(&network, &with(1, 64.0));
    assert!(apart(&base, &output(&network, &with(2, 64.0))) > 1e-4);
    assert!(apart(&base, &output(&network, &with(1, 512.0))) > 1e-4);
}

#[test]
#[should_panic(expected = "width of the pooled vectors with 5 encoded numbers")]
fn too_few_time_ids_panic() {
    let config = UNet2dConditionConfig {
        addition_embed_type: Some(AdditionEmbedType::TextTime),
        addition_time_embed_dim: Some(4),
        projection_class_embeddings_input_dim: Some(6 * 4 + 10),
        ..small()
    };
    let condition = Conditioning {
        pooled_projections: Some(random(1, [2, 10])),
        time_ids: Some(random(2, [2, 5])),
        ..condition()
    };
    output(&network(config), &condition);
}

/// What a ControlNet adds to the last map and to all skips, one by one.
#[test]
fn residuals_are_added_to_every_map() {
    let network = network(small());
    let flex = device("flex").unwrap();
    let plain = output(&network, &condition());
    let shapes = [[2, 8, 8, 6], [2, 8, 8, 6], [2, 8, 4, 3], [2, 16, 4, 3]];
    let with = |changed: Option<usize>| {
        let map = |(i, shape): (usize, [usize; 4])| match changed == Some(i) {
            true => random(3, shape),
            false => Tensor::zeros(shape, &flex),
        };
        let mut maps = shapes
            .iter()
            .copied()
            .chain([[2, 16, 4, 3]])
            .enumerate()
            .map(map);
        let down = maps.by_ref().take(4).collect();
        let mid = maps.next().unwrap();
        let condition = Conditioning {
            residuals: Some(ControlResiduals { down, mid }),
            ..condition()
        };
        output(&network, &condition)
    };
    assert_eq!(with(None), plain);
    for changed in 0..5 {
        assert!(apart(&with(Some(changed)), &plain) > 1e-4, "{changed}");
    }
}

#[test]
fn transformer_layers_differ_between_blocks_and_layers() {
    let config = UNet2dConditionConfig::from_json(
        r#"{"down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "block_out_channels": [8, 8], "layers_per_block": [2, 2], "norm_num_groups": 4,
        "cross_attention_dim": [6, 6], "attention_head_dim": 2, "in_channels": 2,
        "out_channels": 2, "transformer_layers_per_block": [1, [2, 3]],
        "reverse_transformer_layers_per_block": [[1, 0, 2], 3]}"#,
    )
    .unwrap();
    assert!(
        config.unused_fields.is_empty(),
        "{:?}",
        config.unused_fields
    );
    let network = network(config.into_inner());
    let transformers = |block: &str, layer: usize| {
        let part = format!("{block}.attentions.{layer}.transformer_blocks.");
        let norms = names(&network).into_iter();
        let norms = norms.filter(|name| name.starts_with(&part) && name.ends_with("norm1.gamma"));
        norms.count()
    };
    for (block, expected) in [
        ("down_blocks.0", vec![1, 1]),
        ("down_blocks.1", vec![2, 3]),
        ("mid_block", vec![2]),
        ("up_blocks.0", vec![1, 0, 2]),
        ("up_blocks.1", vec![3, 3, 3]),
    ] {
        let found = (0..expected.len()).map(|layer| transformers(block, layer));
        assert_eq!(found.collect::<Vec<_>>(), expected, "{block}");
    }
    output(&network, &condition());
    // The same for all layers: the decoder has the encoder's in reverse.
    let config = UNet2dConditionConfig {
        down_block_types: vec![CrossDownBlockType::CrossAttnDownBlock2D; 2],
        up_block_types: vec![CrossUpBlockType::CrossAttnUpBlock2D; 2],
        transformer_layers_per_block: TransformerLayers::Blocks(vec![
            PerBlock::One(1),
            PerBlock::One(2),
        ]),
        ..small()
    };
    let network = self::network(config);
    assert_eq!(
        count(&network, "up_blocks.0.attentions.0.transformer_blocks.1."),
        20
    );
    assert_eq!(
        count(&network, "up_blocks.1.attentions.0.transformer_blocks.1."),
        0
    );
}

#[test]
fn blocks_in_the_middle_are_of_three_types() {
    for (kind, layers, attentions) in [
        (Some(CrossMidBlockType::UNetMidBlock2DCrossAttn), 2, true),
        (Some(CrossMidBlockType::UNetMidBlock2D), 1, false),
        (None, 0, false),
    ] {
        let network = network(UNet2dConditionConfig {
            mid_block_type: kind,
            ..small()
        });
        assert_eq!(count(&network, "mid_block.resnets"), 10 * layers);
        assert_eq!(count(&network, "mid_block.attentions") > 0, attentions);
        output(&network, &condition());
    }
}

/// Projections are stored as convolutions or as linear layers, whatever the configuration says.
#[test]
fn projections_open_in_either_shape() {
    let (flex, dir) = (device("flex").unwrap(), tempfile::tempdir().unwrap());
    let of = |use_linear_projection| UNet2dConditionConfig {
        use_linear_projection,
        ..small()
    };
    let path = dir.path().join("weights.safetensors");
    let key = "down_blocks.0.attentions.0.proj_in.weight";
    for linear in [true, false] {
        let saved = network(of(linear));
        save_weights(&saved, &path).unwrap();
        let reader = WeightReader::open(&path).unwrap();
        let shape = if linear { vec![8, 8] } else { vec![8, 8, 1, 1] };
        assert_eq!(reader.shape(key), Some(&shape[..]));
        let other = of(!linear).init(&flex).unwrap();
        let (other, _) = reader
            .load_into(other, aigc_core::nn::diffusers::diffusers_key)
            .unwrap();
        let [found, expected] = [&other, &saved].map(|network| output(network, &condition()));
        assert_close(&found, &expected, 1e-5);
    }
}

/// Two attentions to the tokens, and none between pixels.
#[test]
fn only_cross_attention_has_keys_of_the_tokens() {
    let network = network(UNet2dConditionConfig {
        only_cross_attention: PerBlock::Each(vec![true, false]),
        down_block_types: vec![CrossDownBlockType::CrossAttnDownBlock2D; 2],
        up_block_types: vec![CrossUpBlockType::CrossAttnUpBlock2D; 2],
        ..small()
    });
    struct Widths(Vec<(String, usize)>);
    impl ParamVisitor for Widths {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            if path.ends_with("attentions.0.transformer_blocks.0.attn1.to_k.weight") {
                let block = path.split(".attentions").next().unwrap();
                self.0.push((block.into(), param.lazy_shape()[0]));
            }
        }
    }
    let mut widths = Widths(vec![]);
    visit_params(&network, &mut widths);
    let expected = [
        ("down_blocks.0", 6),
        ("down_blocks.1", 16),
        ("mid_block", 16),
        ("up_blocks.0", 16),
        ("up_blocks.1", 6),
    ];
    let expected = expected.map(|(block, width)| (block.to_owned(), width));
    assert_eq!(widths.0, expected);
    output(&network, &condition());
}

/// An inpainting network: samplers of this crate do not make its mask.
#[test]
fn extra_input_channels_are_appended_by_the_caller() {
    let flex = device("flex").unwrap();
    let network = network(UNet2dConditionConfig {
        in_channels: 5,
        sample_size: Some(8.into()),
        ..small()
    });
    let shape = ImageShape::new(2, 8, 8);
    assert_eq!(network.extra_input_channels(), 3);
    assert_eq!(network.sample_shape(), Some(shape.into()));
    network.check_shape(shape.into()).unwrap();
    assert_eq!(output(&network, &condition()).len(), 2 * 2 * 8 * 6);
    let message = network
        .check_trainable(shape.into())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("`in_channels` is 5, expected 2"),
        "{message}"
    );
    let message = network
        .check_shape(SampleShape::new(&[3, 8, 8]))
        .unwrap_err();
    assert!(
        message.to_string().contains("`in_channels` is 5"),
        "{message}"
    );
    let sampler = DiffusionSampler::new(&network, &DdimScheduler::default(), 2, shape, &flex);
    let message = sampler.unwrap_err().to_string();
    assert!(
        message.contains("one with 3 extra input channels"),
        "{message}"
    );
    let pipeline = Pipeline::new(network, DdimScheduler::default(), shape).unwrap();
    assert_eq!(pipeline.network.extra_input_channels(), 3);
}

#[test]
fn saved_networks_open_again() {
    let (flex, dir) = (device("flex").unwrap(), tempfile::tempdir().unwrap());
    let config = UNet2dConditionConfig {
        transformer_layers_per_block: TransformerLayers::Blocks(vec![
            PerBlock::Each(vec![1]),
            PerBlock::One(2),
        ]),
        reverse_transformer_layers_per_block: Some(vec![PerBlock::One(1); 2]),
        use_linear_projection: true,
        upcast_attention: true,
        time_cond_proj_dim: Some(8),
        encoder_hid_dim: Some(9),
        class_embed_type: Some(ClassEmbedType::SimpleProjection),
        projection_class_embeddings_input_dim: Some(3),
        conv_in_kernel: 1,
        conv_out_kernel: 5,
        mid_block_type: None,
        ..small()
    };
    let saved = network(config);
    saved.save_pretrained(dir.path()).unwrap();
    let condition = Conditioning {
        encoder_hidden_states: Some(random(7, [2, 5, 9])),
        class_embeddings: Some(random(8, [2, 3])),
        guidance: Some(random(9, [2])),
        ..Conditioning::default()
    };
    assert_eq!(saved.cross_attention_dim(), Some(9));
    let expected = output(&saved, &condition);
    let opened = UNet2dConditionModel::from_pretrained(dir.path(), &flex).unwrap();
    assert!(opened.warnings().is_empty(), "{opened}");
    assert_eq!(opened.config(), saved.config());
    assert_eq!(output(&opened, &condition), expected);
    let any = AnyDenoiser::from_pretrained(dir.path(), &flex).unwrap();
    let AnyDenoiser::UNet2dCondition(any) = any.into_inner() else {
        panic!("of another class");
    };
    assert_eq!(output(&any, &condition), expected);
    let message = UNet2dConditionModel::from_pretrained_with_variant(dir.path(), "fp16", &flex)
        .unwrap_err()
        .to_string();
    assert!(message.contains("variant fp16"), "{message}");
}

/// Fields without effect are not reported, and heads have one name.
#[test]
fn idle_fields_are_accepted() {
    let config = UNet2dConditionConfig::from_json(
        r#"{"num_attention_heads": [5, 10, 20, 20], "addition_embed_type_num_heads": 64,
        "resnet_out_scale_factor": 1, "resnet_skip_time_act": false, "upcast_attention": true,
        "mid_block_only_cross_attention": null, "cross_attention_norm": null,
        "class_embeddings_concat": false, "encoder_hid_dim": 24, "of_tomorrow": 1}"#,
    )
    .unwrap();
    assert_eq!(config.unused_fields, ["of_tomorrow"]);
    assert_eq!(
        config.attention_head_dim,
        PerBlock::Each(vec![5, 10, 20, 20])
    );
    let text = config.to_json();
    assert!(text.contains("\"upcast_attention\": true"), "{text}");
    assert!(
        text.contains("\"_class_name\": \"UNet2DConditionModel\""),
        "{text}"
    );
    let again = UNet2dConditionConfig::from_json(&text).unwrap();
    assert_eq!(
        (&again.value, again.unused_fields.len()),
        (&config.value, 0)
    );
}

#[test]
fn config_rejects_values_by_name() {
    for (text, expected) in [
        (
            r#"{"attention_head_dim": [8, 8]}"#,
            "`attention_head_dim` is 2 values, expected 4",
        ),
        (
            r#"{"attention_head_dim": 7}"#,
            "`attention_head_dim` is 7, expected a divisor of 320",
        ),
        (r#"{"attention_head_dim": 0}"#, "`attention_head_dim` is 0"),
        (
            r#"{"only_cross_attention": [true]}"#,
            "`only_cross_attention` is 1 values",
        ),
        (
            r#"{"cross_attention_dim": [768, 1024]}"#,
            "`cross_attention_dim`",
        ),
        (
            r#"{"cross_attention_dim": 0}"#,
            "`cross_attention_dim` is 0",
        ),
        (
            r#"{"layers_per_block": [1, 2, 2, 2]}"#,
            "`layers_per_block`",
        ),
        (
            r#"{"transformer_layers_per_block": [1, 2]}"#,
            "`transformer_layers_per_block` is too short",
        ),
        (
            r#"{"transformer_layers_per_block": [1, [1], 1, 1]}"#,
            "`transformer_layers_per_block` is too short",
        ),
        (
            r#"{"transformer_layers_per_block": [1, [1, 2], 1, 1]}"#,
            "`reverse_transformer_layers_per_block` is null",
        ),
        (r#"{"transformer_layers_per_block": 1000000}"#, "at most 64"),
        (
            r#"{"reverse_transformer_layers_per_block": [1, 1]}"#,
            "`reverse_transformer_layers_per_block` is too short",
        ),
        (r#"{"conv_in_kernel": 2}"#, "`conv_in_kernel` is 2"),
        (r#"{"conv_out_kernel": 99}"#, "`conv_out_kernel` is 99"),
        (r#"{"time_cond_proj_dim": 2}"#, "`time_cond_proj_dim` is 2"),
        (
            r#"{"encoder_hid_dim_type": "text_proj"}"#,
            "`encoder_hid_dim` is null",
        ),
        (
            r#"{"encoder_hid_dim": 9, "encoder_hid_dim_type": "image_proj"}"#,
            "`encoder_hid_dim_type`",
        ),
        (
            r#"{"addition_embed_type": "text_image"}"#,
            "`addition_embed_type`",
        ),
        (
            r#"{"addition_embed_type": "text_time", "addition_time_embed_dim": 256}"#,
            "`projection_class_embeddings_input_dim` is null",
        ),
        (
            r#"{"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": 9}"#,
            "`addition_time_embed_dim` is null",
        ),
        (
            r#"{"addition_embed_type": "text_time", "addition_time_embed_dim": 255,
            "projection_class_embeddings_input_dim": 9}"#,
            "`addition_time_embed_dim` is 255",
        ),
        (
            r#"{"class_embed_type": "projection"}"#,
            "`projection_class_embeddings_input_dim` is null",
        ),
        (
            r#"{"class_embeddings_concat": true}"#,
            "`class_embeddings_concat` is true",
        ),
        (
            r#"{"dual_cross_attention": true}"#,
            "`dual_cross_attention` is true",
        ),
        (
            r#"{"time_embedding_type": "fourier"}"#,
            "`time_embedding_type` is \"fourier\"",
        ),
        (
            r#"{"attention_type": "gated"}"#,
            "`attention_type` is \"gated\"",
        ),
        (
            r#"{"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}"#,
            "`mid_block_type`",
        ),
        (
            r#"{"down_block_types": ["KDownBlock2D"]}"#,
            "`down_block_types`",
        ),
        (
            r#"{"down_block_types": ["DownBlock2D"]}"#,
            "`down_block_types` is 1 blocks",
        ),
        (
            r#"{"up_block_types": ["UpBlock2D"]}"#,
            "`up_block_types` is 1 blocks",
        ),
        (
            r#"{"num_class_embeds": 9999999}"#,
            "`num_class_embeds` is 9999999",
        ),
        (r#"{"block_out_channels": []}"#, "`block_out_channels` is 0"),
    ] {
        let message = UNet2dConditionConfig::from_json(text)
            .unwrap_err()
            .to_string();
        assert!(message.contains(expected), "{text}: {message}");
    }
}
