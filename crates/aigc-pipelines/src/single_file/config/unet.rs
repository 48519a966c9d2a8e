//! Configurations of U-nets.

use super::{Fields, HEAD_WIDTH, Sizes, is_2_base, set, template};
use crate::single_file::{
    Family,
    unet::{Level, UnetLayout},
};
use aigc_core::{Error, Result};
use aigc_diffusion::PredictionType;
use serde_json::{Value, json};

const UNET: &str = include_str!("../configs/unet.json");

/// Heads of Stable Diffusion 1's networks.
const HEADS: usize = 8;
/// Width of the sinusoidal embedding of each number in Stable Diffusion XL's size conditioning.
const SIZE_WIDTH: usize = 256;

/// One number if all are equal.
fn one_or_each(values: Vec<usize>) -> Value {
    match values.first() {
        Some(first) if values.iter().all(|value| value == first) => json!(first),
        _ => json!(values),
    }
}

/// `config.json` of a U-net.
pub(super) fn config(family: Family, prediction: PredictionType, sizes: &Sizes) -> Result<Fields> {
    let layout = UnetLayout::from_diffusers(sizes.scope());
    if let Some(problem) = layout.problem() {
        return Err(Error::unsupported(
            format!("a network with {problem}"),
            "SingleFile::config",
            "",
        ));
    }
    let levels = layout.down.len();
    let channels: Vec<usize> = (0..levels)
        .map(|l| sizes.at(&format!("down_blocks.{l}.resnets.0.conv2.weight"), 0))
        .collect::<Result<_>>()?;
    let kinds = |levels: &[Level], plain: &str, cross: &str| -> Value {
        let kind = |level: &Level| if level.depth.is_some() { cross } else { plain };
        levels.iter().map(kind).collect()
    };
    let mut fields = template(UNET);
    let linear = sizes
        .0
        .iter()
        .any(|(name, shape)| name.ends_with(".proj_in.weight") && shape.len() == 2);
    // Levels without attention have a number too; that of the last one is the middle's.
    let mut depths: Vec<usize> = layout.down.iter().filter_map(|level| level.depth).collect();
    depths.extend(layout.middle);
    if depths.iter().any(|depth| *depth != depths[0]) {
        let of = |(l, level): (usize, &Level)| {
            let other = layout.middle.filter(|_| l + 1 == levels);
            level.depth.or(other).unwrap_or(1)
        };
        depths = layout.down.iter().enumerate().map(of).collect();
    } else if depths.is_empty() {
        depths.push(1);
    }
    for (down, up) in layout.down.iter().zip(layout.up.iter().rev()) {
        if down.depth != up.depth {
            return Err(Error::unsupported(
                format!(
                    "a network with transformers of {:?} blocks on the way down and {:?} on the way up",
                    down.depth, up.depth
                ),
                "SingleFile::config",
                "give a directory of configurations",
            ));
        }
    }
    // Published configurations call the number of heads `attention_head_dim`.
    let heads = match family.is_2() || family.is_xl() {
        true => json!(
            channels
                .iter()
                .map(|c| (c / HEAD_WIDTH).max(1))
                .collect::<Vec<_>>()
        ),
        false => json!(HEADS),
    };
    let sample_size = match family {
        _ if is_2_base(family, prediction) => 64,
        Family::StableDiffusion2 | Family::LatentConsistency => 96,
        _ if family.is_xl() => 128,
        _ => 64,
    };
    let resnets: Vec<usize> = layout.down.iter().map(|level| level.resnets).collect();
    set(
        &mut fields,
        [
            ("in_channels", json!(sizes.at("conv_in.weight", 1)?)),
            ("out_channels", json!(sizes.at("conv_out.weight", 0)?)),
            ("block_out_channels", json!(channels)),
            ("layers_per_block", one_or_each(resnets)),
            ("transformer_layers_per_block", one_or_each(depths)),
            (
                "down_block_types",
                kinds(&layout.down, "DownBlock2D", "CrossAttnDownBlock2D"),
            ),
            (
                "up_block_types",
                kinds(&layout.up, "UpBlock2D", "CrossAttnUpBlock2D"),
            ),
            ("attention_head_dim", heads),
            ("use_linear_projection", json!(linear)),
            ("sample_size", json!(sample_size)),
        ],
    );
    let attention = sizes
        .0
        .iter()
        .find(|(name, _)| name.ends_with(".attn2.to_k.weight"));
    if let Some((name, _)) = attention {
        set(
            &mut fields,
            [("cross_attention_dim", json!(sizes.at(name, 1)?))],
        );
    }
    if layout.added {
        let width = sizes.at("add_embedding.linear_1.weight", 1)?;
        set(
            &mut fields,
            [
                ("addition_embed_type", json!("text_time")),
                ("addition_time_embed_dim", json!(SIZE_WIDTH)),
                ("projection_class_embeddings_input_dim", json!(width)),
            ],
        );
    }
    if layout.guided.is_some() {
        let width = sizes.at("time_embedding.cond_proj.weight", 1)?;
        set(&mut fields, [("time_cond_proj_dim", json!(width))]);
    }
    if layout.middle.is_none() {
        set(&mut fields, [("mid_block_type", json!("UNetMidBlock2D"))]);
    }
    Ok(fields)
}
