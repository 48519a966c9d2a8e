//! The networks of the published models, at their sizes; no values are needed.

use crate::single_file::{
    Family, config,
    detect::detect,
    scope::{Scope, Shapes},
    unet::UnetLayout,
};
use aigc_core::{nn::diffusers::diffusers_key, weights::stored_params};
use aigc_diffusion::{PredictionType, UNet2dConditionConfig};
use burn::tensor::Device;
use serde_json::{Value, json};
use std::path::Path;

/// The U-net's configuration of a published model.
fn published(family: Family) -> Value {
    let (down, cross) = ("DownBlock2D", "CrossAttnDownBlock2D");
    let (up, up_cross) = ("UpBlock2D", "CrossAttnUpBlock2D");
    let four = json!({
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": [cross, cross, cross, down],
        "up_block_types": [up, up_cross, up_cross, up_cross],
        "transformer_layers_per_block": 1,
    });
    let xl = json!({
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "use_linear_projection": true,
        "sample_size": 128,
    });
    let own = match family {
        Family::StableDiffusion1 => json!({
            "attention_head_dim": 8, "cross_attention_dim": 768, "sample_size": 64,
        }),
        Family::StableDiffusion1Inpainting => json!({
            "attention_head_dim": 8, "cross_attention_dim": 768, "sample_size": 64,
            "in_channels": 9,
        }),
        Family::LatentConsistency => json!({
            "attention_head_dim": 8, "cross_attention_dim": 768, "sample_size": 96,
            "time_cond_proj_dim": 256,
        }),
        Family::StableDiffusion2 => json!({
            "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024,
            "sample_size": 96, "use_linear_projection": true,
        }),
        Family::StableDiffusionXl => json!({
            "block_out_channels": [320, 640, 1280],
            "down_block_types": [down, cross, cross],
            "up_block_types": [up_cross, up_cross, up],
            "transformer_layers_per_block": [1, 2, 10],
            "attention_head_dim": [5, 10, 20],
            "cross_attention_dim": 2048,
            "projection_class_embeddings_input_dim": 2816,
        }),
        Family::StableDiffusionXlRefiner => json!({
            "block_out_channels": [384, 768, 1536, 1536],
            "down_block_types": [down, cross, cross, down],
            "up_block_types": [up, up_cross, up_cross, up],
            "transformer_layers_per_block": 4,
            "attention_head_dim": [6, 12, 24, 24],
            "cross_attention_dim": 1280,
            "projection_class_embeddings_input_dim": 2560,
        }),
        other => panic!("{other}"),
    };
    let mut all = json!({
        "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "norm_num_groups": 32,
        "norm_eps": 1e-5, "act_fn": "silu", "flip_sin_to_cos": true, "freq_shift": 0,
        "downsample_padding": 1, "mid_block_scale_factor": 1,
    });
    let parts = [Some(four), family.is_xl().then_some(xl), Some(own)];
    for part in parts.into_iter().flatten() {
        for (name, value) in part.as_object().unwrap() {
            all[name] = value.clone();
        }
    }
    all
}

/// The names and shapes of a published network under its original names; nothing is allocated.
fn original(config: &UNet2dConditionConfig) -> Shapes {
    let network = config.init(&Device::flex()).unwrap();
    let params = stored_params(&network, diffusers_key);
    let named: Shapes = params
        .into_iter()
        .map(|param| (param.name, param.shape))
        .collect();
    let layout = UnetLayout::from_diffusers(Scope::new(&named, ""));
    let mut shapes = Shapes::new();
    for layer in layout.layers() {
        for param in ["weight", "bias"] {
            if let Some(shape) = named.get(&format!("{}.{param}", layer.diffusers)) {
                let name = format!("model.diffusion_model.{}.{param}", layer.original);
                shapes.insert(name, shape.clone());
            }
        }
    }
    assert_eq!(shapes.len(), named.len(), "a layer has no original name");
    shapes
}

#[test]
fn published_networks_are_recognised_with_their_configurations() {
    for family in [
        Family::StableDiffusion1,
        Family::StableDiffusion1Inpainting,
        Family::LatentConsistency,
        Family::StableDiffusion2,
        Family::StableDiffusionXl,
        Family::StableDiffusionXlRefiner,
    ] {
        let text = published(family).to_string();
        let expected = UNet2dConditionConfig::from_json(&text)
            .unwrap()
            .into_inner();
        let shapes = original(&expected);
        let (found, prefix) = detect(Path::new("a.ckpt"), &shapes).unwrap();
        assert_eq!(found, family);
        let scope = Scope::new(&shapes, prefix);
        let layout = UnetLayout::from_original(scope);
        assert_eq!(layout.problem(), None);
        let part = layout.part(scope);
        assert!(part.missing.is_empty(), "{family}: {:?}", part.missing);
        assert_eq!(part.sources.len(), shapes.len());
        let prediction = match family {
            Family::StableDiffusion2 => PredictionType::V,
            _ => PredictionType::Epsilon,
        };
        let built = config::of_part(family, prediction, &part, &shapes).unwrap();
        let built = UNet2dConditionConfig::from_json(&built).unwrap();
        assert!(built.unused_fields.is_empty(), "{built}");
        assert_eq!(built.into_inner(), expected, "{family}");
        // Version 2 for 512×512 pixels predicts the noise.
        let built = config::of_part(family, PredictionType::Epsilon, &part, &shapes).unwrap();
        let built: Value = serde_json::from_str(&built).unwrap();
        let side = match family {
            Family::StableDiffusion2 => json!(64),
            _ => published(family)["sample_size"].clone(),
        };
        assert_eq!(built["sample_size"], side, "{family}");
    }
}

/// Some numbers of blocks that are known from the published file.
#[test]
fn published_names_are_those_of_the_file() {
    let config = UNet2dConditionConfig::from_json(&published(Family::StableDiffusion1).to_string());
    let shapes = original(&config.unwrap().into_inner());
    for (name, shape) in [
        (
            "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
            &[320, 768][..],
        ),
        ("input_blocks.4.0.skip_connection.weight", &[640, 320, 1, 1]),
        ("input_blocks.9.0.op.weight", &[1280, 1280, 3, 3]),
        ("input_blocks.11.0.out_layers.3.weight", &[1280, 1280, 3, 3]),
        ("middle_block.1.proj_in.weight", &[1280, 1280, 1, 1]),
        ("output_blocks.2.1.conv.weight", &[1280, 1280, 3, 3]),
        ("output_blocks.8.2.conv.weight", &[640, 640, 3, 3]),
        (
            "output_blocks.11.0.skip_connection.weight",
            &[320, 640, 1, 1],
        ),
        (
            "output_blocks.11.1.transformer_blocks.0.ff.net.0.proj.weight",
            &[2560, 320],
        ),
    ] {
        let found = shapes.get(&format!("model.diffusion_model.{name}"));
        assert_eq!(found.map(|shape| &shape[..]), Some(shape), "{name}");
    }
    assert_eq!(shapes.len(), 686);
}
