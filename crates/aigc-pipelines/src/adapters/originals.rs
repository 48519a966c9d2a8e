//! Layers of networks under the names of their first publication, which files of adapters have too.
//!
//! A published layer may be several of diffusers' layers, one below the other.

use crate::single_file::{scope::Scope, unet::UnetLayout};

/// A published layer, and the layers of diffusers that it consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OriginalLayer {
    pub(crate) name: String,
    pub(crate) parts: Vec<String>,
    /// Whether the halves of its rows change places.
    pub(crate) halves_swapped: bool,
}

/// The layers of a U-net with these names.
pub(crate) fn unet(scope: Scope<'_>) -> Vec<OriginalLayer> {
    let layers = UnetLayout::from_diffusers(scope).layers().into_iter();
    let same = |layer: crate::single_file::unet::LayerNames| OriginalLayer {
        name: layer.original,
        parts: vec![layer.diffusers],
        halves_swapped: false,
    };
    layers.map(same).collect()
}

/// Published and present names of a layer, or of the parts of a layer.
type Rows<'a> = &'a [(&'a str, &'a [&'a str])];

const FLUX: Rows<'_> = &[
    ("img_in", &["x_embedder"]),
    ("txt_in", &["context_embedder"]),
    (
        "time_in.in_layer",
        &["time_text_embed.timestep_embedder.linear_1"],
    ),
    (
        "time_in.out_layer",
        &["time_text_embed.timestep_embedder.linear_2"],
    ),
    (
        "vector_in.in_layer",
        &["time_text_embed.text_embedder.linear_1"],
    ),
    (
        "vector_in.out_layer",
        &["time_text_embed.text_embedder.linear_2"],
    ),
    (
        "guidance_in.in_layer",
        &["time_text_embed.guidance_embedder.linear_1"],
    ),
    (
        "guidance_in.out_layer",
        &["time_text_embed.guidance_embedder.linear_2"],
    ),
    ("final_layer.linear", &["proj_out"]),
];

const FLUX_DOUBLE: Rows<'_> = &[
    ("img_mod.lin", &["norm1.linear"]),
    ("txt_mod.lin", &["norm1_context.linear"]),
    ("img_attn.qkv", &["attn.to_q", "attn.to_k", "attn.to_v"]),
    ("img_attn.proj", &["attn.to_out.0"]),
    (
        "txt_attn.qkv",
        &["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
    ),
    ("txt_attn.proj", &["attn.to_add_out"]),
    ("img_mlp.0", &["ff.net.0.proj"]),
    ("img_mlp.2", &["ff.net.2"]),
    ("txt_mlp.0", &["ff_context.net.0.proj"]),
    ("txt_mlp.2", &["ff_context.net.2"]),
    // Names of XLabs' adapters (<https://github.com/XLabs-AI/x-flux>).
    (
        "processor.qkv_lora1",
        &["attn.to_q", "attn.to_k", "attn.to_v"],
    ),
    ("processor.proj_lora1", &["attn.to_out.0"]),
    (
        "processor.qkv_lora2",
        &["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
    ),
    ("processor.proj_lora2", &["attn.to_add_out"]),
];

const FLUX_SINGLE: Rows<'_> = &[
    ("modulation.lin", &["norm.linear"]),
    (
        "linear1",
        &["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"],
    ),
    ("linear2", &["proj_out"]),
    (
        "processor.qkv_lora",
        &["attn.to_q", "attn.to_k", "attn.to_v"],
    ),
    ("processor.proj_lora", &["proj_out"]),
];

const SD3: Rows<'_> = &[
    ("x_embedder.proj", &["pos_embed.proj"]),
    ("context_embedder", &["context_embedder"]),
    (
        "t_embedder.mlp.0",
        &["time_text_embed.timestep_embedder.linear_1"],
    ),
    (
        "t_embedder.mlp.2",
        &["time_text_embed.timestep_embedder.linear_2"],
    ),
    (
        "y_embedder.mlp.0",
        &["time_text_embed.text_embedder.linear_1"],
    ),
    (
        "y_embedder.mlp.2",
        &["time_text_embed.text_embedder.linear_2"],
    ),
    ("final_layer.linear", &["proj_out"]),
];

const SD3_JOINT: Rows<'_> = &[
    ("x_block.adaLN_modulation.1", &["norm1.linear"]),
    ("x_block.attn.qkv", &["attn.to_q", "attn.to_k", "attn.to_v"]),
    ("x_block.attn.proj", &["attn.to_out.0"]),
    (
        "x_block.attn2.qkv",
        &["attn2.to_q", "attn2.to_k", "attn2.to_v"],
    ),
    ("x_block.attn2.proj", &["attn2.to_out.0"]),
    ("x_block.mlp.fc1", &["ff.net.0.proj"]),
    ("x_block.mlp.fc2", &["ff.net.2"]),
    (
        "context_block.attn.qkv",
        &["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
    ),
    ("context_block.attn.proj", &["attn.to_add_out"]),
    ("context_block.mlp.fc1", &["ff_context.net.0.proj"]),
    ("context_block.mlp.fc2", &["ff_context.net.2"]),
];

/// The layers of a transformer with these names, FLUX.1's or Stable Diffusion 3's.
pub(crate) fn transformer(scope: Scope<'_>) -> Vec<OriginalLayer> {
    let blocks = scope.count(|i| format!("transformer_blocks.{i}."));
    let mut all = vec![];
    if scope.any("single_transformer_blocks.") {
        let singles = scope.count(|i| format!("single_transformer_blocks.{i}."));
        extend(&mut all, "", "", FLUX);
        for i in 0..blocks {
            let names = [
                format!("double_blocks.{i}."),
                format!("transformer_blocks.{i}."),
            ];
            extend(&mut all, &names[0], &names[1], FLUX_DOUBLE);
        }
        for i in 0..singles {
            let names = [
                format!("single_blocks.{i}."),
                format!("single_transformer_blocks.{i}."),
            ];
            extend(&mut all, &names[0], &names[1], FLUX_SINGLE);
        }
    } else {
        extend(&mut all, "", "", SD3);
        for i in 0..blocks {
            let names = [
                format!("joint_blocks.{i}."),
                format!("transformer_blocks.{i}."),
            ];
            extend(&mut all, &names[0], &names[1], SD3_JOINT);
            // The last block has no output for the text, and its norm has shift and scale in the
            // other order.
            all.push(OriginalLayer {
                name: format!("joint_blocks.{i}.context_block.adaLN_modulation.1"),
                parts: vec![format!("transformer_blocks.{i}.norm1_context.linear")],
                halves_swapped: i + 1 == blocks,
            });
        }
    }
    all.push(OriginalLayer {
        name: "final_layer.adaLN_modulation.1".into(),
        parts: vec!["norm_out.linear".into()],
        halves_swapped: true,
    });
    all
}

fn extend(all: &mut Vec<OriginalLayer>, from: &str, to: &str, rows: Rows<'_>) {
    let layer = |(name, parts): &(&str, &[&str])| OriginalLayer {
        name: format!("{from}{name}"),
        parts: parts.iter().map(|part| format!("{to}{part}")).collect(),
        halves_swapped: false,
    };
    all.extend(rows.iter().map(layer));
}
