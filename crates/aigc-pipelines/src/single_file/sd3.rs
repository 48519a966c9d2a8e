//! Names of the transformer of Stable Diffusion 3 and 3.5 in its first publication (Esser et al.
//! 2024, <https://github.com/Stability-AI/sd3.5>), and their names in diffusers.

use super::{
    fused::{take_qkv, take_swapped},
    scope::{Part, Scope},
};

/// Layers outside of the blocks.
const LAYERS: [(&str, &str); 7] = [
    ("x_embedder.proj", "pos_embed.proj"),
    ("context_embedder", "context_embedder"),
    (
        "t_embedder.mlp.0",
        "time_text_embed.timestep_embedder.linear_1",
    ),
    (
        "t_embedder.mlp.2",
        "time_text_embed.timestep_embedder.linear_2",
    ),
    ("y_embedder.mlp.0", "time_text_embed.text_embedder.linear_1"),
    ("y_embedder.mlp.2", "time_text_embed.text_embedder.linear_2"),
    ("final_layer.linear", "proj_out"),
];

/// Queries, keys and values of the image and of the prompt, and the norms of the first two.
const OWN: [&str; 3] = ["to_q", "to_k", "to_v"];
const ADDED: [&str; 3] = ["add_q_proj", "add_k_proj", "add_v_proj"];
const OWN_NORMS: [&str; 2] = ["norm_q", "norm_k"];
const ADDED_NORMS: [&str; 2] = ["norm_added_q", "norm_added_k"];

/// The transformer of a published file, below the prefix of its names.
pub(crate) fn part(scope: Scope<'_>) -> Part {
    let mut part = Part::new("transformer");
    part.take(scope, "pos_embed", "pos_embed.pos_embed");
    for (original, name) in LAYERS {
        part.take_layer(scope, original, name);
    }
    for i in 0..scope.count(|i| format!("joint_blocks.{i}.")) {
        let (image, text) = (
            format!("joint_blocks.{i}.x_block"),
            format!("joint_blocks.{i}.context_block"),
        );
        let to = format!("transformer_blocks.{i}");
        let attn = format!("{to}.attn");
        take_attention(
            &mut part,
            scope,
            &format!("{image}.attn"),
            &attn,
            OWN,
            OWN_NORMS,
        );
        take_attention(
            &mut part,
            scope,
            &format!("{text}.attn"),
            &attn,
            ADDED,
            ADDED_NORMS,
        );
        let mut layers = vec![
            (format!("{image}.attn.proj"), "attn.to_out.0"),
            (format!("{image}.adaLN_modulation.1"), "norm1.linear"),
            (format!("{image}.mlp.fc1"), "ff.net.0.proj"),
            (format!("{image}.mlp.fc2"), "ff.net.2"),
        ];
        // Attention of the image's tokens to each other once more, in some blocks.
        let second = format!("{image}.attn2");
        if scope.any(&format!("{second}.")) {
            let name = format!("{to}.attn2");
            take_attention(&mut part, scope, &second, &name, OWN, OWN_NORMS);
            layers.push((format!("{second}.proj"), "attn2.to_out.0"));
        }
        // The tokens of the prompt end in the last block.
        let modulation = format!("{text}.adaLN_modulation.1");
        if scope.any(&format!("{text}.mlp.")) {
            layers.extend([
                (modulation, "norm1_context.linear"),
                (format!("{text}.attn.proj"), "attn.to_add_out"),
                (format!("{text}.mlp.fc1"), "ff_context.net.0.proj"),
                (format!("{text}.mlp.fc2"), "ff_context.net.2"),
            ]);
        } else {
            let name = format!("{to}.norm1_context.linear");
            take_swapped(&mut part, scope, &modulation, &name);
        }
        for (original, name) in layers {
            part.take_layer(scope, &original, &format!("{to}.{name}"));
        }
    }
    take_swapped(
        &mut part,
        scope,
        "final_layer.adaLN_modulation.1",
        "norm_out.linear",
    );
    part
}

/// Queries, keys and values, and the norms of queries and keys, which Stable Diffusion 3.5 has.
fn take_attention(
    part: &mut Part,
    scope: Scope<'_>,
    from: &str,
    to: &str,
    names: [&str; 3],
    norms: [&str; 2],
) {
    let names = names.map(|name| format!("{to}.{name}"));
    take_qkv(part, scope, &format!("{from}.qkv"), names);
    if scope.any(&format!("{from}.ln_q.")) {
        for (original, name) in ["ln_q", "ln_k"].into_iter().zip(norms) {
            let (from, to) = (format!("{from}.{original}"), format!("{to}.{name}"));
            part.take(scope, &format!("{from}.weight"), &format!("{to}.weight"));
        }
    }
}
