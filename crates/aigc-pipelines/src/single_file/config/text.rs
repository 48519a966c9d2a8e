//! Configurations of text encoders.

use super::{Fields, HEAD_WIDTH, Sizes, set, template};
use crate::single_file::Family;
use aigc_core::Result;
use serde_json::json;

const CLIP: &str = include_str!("../configs/clip.json");
const T5: &str = include_str!("../configs/t5.json");

/// `config.json` of a text encoder of CLIP's.
pub(super) fn clip(family: Family, name: &str, sizes: &Sizes) -> Result<Fields> {
    let mut fields = template(CLIP);
    let embeddings = "text_model.embeddings";
    let tokens = format!("{embeddings}.token_embedding.weight");
    let width = sizes.at(&tokens, 1)?;
    let layers = sizes
        .scope()
        .count(|i| format!("text_model.encoder.layers.{i}."));
    let positions = sizes.at(&format!("{embeddings}.position_embedding.weight"), 0)?;
    let inner = sizes.at("text_model.encoder.layers.0.mlp.fc1.weight", 0)?;
    set(
        &mut fields,
        [
            ("vocab_size", json!(sizes.at(&tokens, 0)?)),
            ("hidden_size", json!(width)),
            ("num_hidden_layers", json!(layers)),
            ("num_attention_heads", json!((width / HEAD_WIDTH).max(1))),
            ("intermediate_size", json!(inner)),
            ("max_position_embeddings", json!(positions)),
        ],
    );
    // OpenCLIP's models, which Stable Diffusion 2 and the second encoders of later ones are.
    if family.is_2() || name == "text_encoder_2" {
        set(&mut fields, [("hidden_act", json!("gelu"))]);
    }
    if family.is_projected(name) {
        let to = sizes.at("text_projection.weight", 0).unwrap_or(width);
        set(
            &mut fields,
            [
                ("architectures", json!(["CLIPTextModelWithProjection"])),
                ("projection_dim", json!(to)),
            ],
        );
    }
    Ok(fields)
}

/// `config.json` of T5's encoder.
pub(super) fn t5(sizes: &Sizes) -> Result<Fields> {
    let mut fields = template(T5);
    let tokens = ["shared.weight", "encoder.embed_tokens.weight"];
    let tokens = if sizes.has(tokens[0]) {
        tokens[0]
    } else {
        tokens[1]
    };
    let attention = "encoder.block.0.layer.0.SelfAttention";
    let feed = "encoder.block.0.layer.1.DenseReluDense";
    let bias = format!("{attention}.relative_attention_bias.weight");
    let (buckets, heads) = (sizes.at(&bias, 0)?, sizes.at(&bias, 1)?);
    let gated = sizes.has(&format!("{feed}.wi_0.weight"));
    let layers = sizes.scope().count(|i| format!("encoder.block.{i}."));
    set(
        &mut fields,
        [
            ("vocab_size", json!(sizes.at(tokens, 0)?)),
            ("d_model", json!(sizes.at(tokens, 1)?)),
            ("num_layers", json!(layers)),
            ("num_heads", json!(heads)),
            ("relative_attention_num_buckets", json!(buckets)),
            (
                "d_kv",
                json!(sizes.at(&format!("{attention}.q.weight"), 0)? / heads.max(1)),
            ),
            ("d_ff", json!(sizes.at(&format!("{feed}.wo.weight"), 1)?)),
        ],
    );
    if !gated {
        set(
            &mut fields,
            [
                ("feed_forward_proj", json!("relu")),
                ("dense_act_fn", json!("relu")),
                ("is_gated_act", json!(false)),
            ],
        );
    }
    Ok(fields)
}
