//! Configurations of transformers.

use super::{Fields, HEAD_WIDTH, Sizes, set, template};
use aigc_core::{Error, Result};
use serde_json::{Value, json};

const SD3_TRANSFORMER: &str = include_str!("../configs/sd3_transformer.json");
const FLUX_TRANSFORMER: &str = include_str!("../configs/flux_transformer.json");

/// `config.json` of Stable Diffusion 3's transformer.
pub(super) fn sd3(sizes: &Sizes) -> Result<Fields> {
    let mut fields = template(SD3_TRANSFORMER);
    let patches = "pos_embed.proj.weight";
    let (width, patch) = (sizes.at(patches, 0)?, sizes.at(patches, 2)?);
    let positions = sizes.at("pos_embed.pos_embed", 1)?;
    let layers = sizes.scope().count(|i| format!("transformer_blocks.{i}."));
    let dual: Vec<usize> = (0..layers)
        .filter(|i| sizes.scope().any(&format!("transformer_blocks.{i}.attn2.")))
        .collect();
    let normalised = "transformer_blocks.0.attn.norm_q.weight";
    let head_width = sizes.at(normalised, 0).unwrap_or(HEAD_WIDTH);
    set(
        &mut fields,
        [
            ("in_channels", json!(sizes.at(patches, 1)?)),
            ("patch_size", json!(patch)),
            ("num_layers", json!(layers)),
            ("attention_head_dim", json!(head_width)),
            ("num_attention_heads", json!(width / head_width.max(1))),
            (
                "joint_attention_dim",
                json!(sizes.at("context_embedder.weight", 1)?),
            ),
            (
                "caption_projection_dim",
                json!(sizes.at("context_embedder.weight", 0)?),
            ),
            (
                "pooled_projection_dim",
                json!(sizes.at("time_text_embed.text_embedder.linear_1.weight", 1)?),
            ),
            (
                "out_channels",
                json!(sizes.at("proj_out.weight", 0)? / patch.saturating_mul(patch).max(1)),
            ),
            ("pos_embed_max_size", json!(positions.isqrt())),
            ("dual_attention_layers", json!(dual)),
            (
                "qk_norm",
                if sizes.has(normalised) {
                    json!("rms_norm")
                } else {
                    Value::Null
                },
            ),
        ],
    );
    Ok(fields)
}

/// `config.json` of FLUX.1's transformer.
pub(super) fn flux(sizes: &Sizes) -> Result<Fields> {
    let mut fields = template(FLUX_TRANSFORMER);
    let head_width = sizes.at("transformer_blocks.0.attn.norm_q.weight", 0)?;
    if fields["attention_head_dim"] != json!(head_width) {
        return Err(Error::unsupported(
            format!("a transformer with heads of width {head_width}, not 128,"),
            "SingleFile::config",
            "the axes of its rotations are unknown; give a directory of configurations",
        ));
    }
    let scope = sizes.scope();
    let count = |blocks: &str| scope.count(|i| format!("{blocks}.{i}."));
    set(
        &mut fields,
        [
            ("in_channels", json!(sizes.at("x_embedder.weight", 1)?)),
            ("num_layers", json!(count("transformer_blocks"))),
            (
                "num_single_layers",
                json!(count("single_transformer_blocks")),
            ),
            (
                "num_attention_heads",
                json!(sizes.at("x_embedder.weight", 0)? / head_width),
            ),
            (
                "joint_attention_dim",
                json!(sizes.at("context_embedder.weight", 1)?),
            ),
            (
                "pooled_projection_dim",
                json!(sizes.at("time_text_embed.text_embedder.linear_1.weight", 1)?),
            ),
            (
                "guidance_embeds",
                json!(scope.any("time_text_embed.guidance_embedder.")),
            ),
        ],
    );
    Ok(fields)
}
