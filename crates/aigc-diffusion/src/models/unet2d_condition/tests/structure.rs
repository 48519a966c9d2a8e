//! Options of the network's structure, its shapes and its files.

use super::*;
use crate::{DdimScheduler, DiffusionSampler, Pipeline, models::AnyDenoiser};
use aigc_core::{
    data::ImageShape,
    weights::{WeightReader, save_weights},
};

#[test]
fn sides_may_be_odd() {
    let three = UNet2dConditionConfig {
        down_block_types: vec![CrossDownBlockType::CrossAttnDownBlock2D; 3],
        up_block_types: vec![CrossUpBlockType::CrossAttnUpBlock2D; 3],
        block_out_channels: vec![8, 8, 8],
        ..small()
    };
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
            let output = network.predict(x, time(), &condition());
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
