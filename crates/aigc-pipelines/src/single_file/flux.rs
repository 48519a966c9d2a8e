//! Names of FLUX.1's transformer in its first publication (Black Forest Labs 2024,
//! <https://github.com/black-forest-labs/flux>), and their names in diffusers.

use super::{
    fused::{take_qkv, take_rows, take_swapped},
    scope::{Part, Scope},
};

/// Layers outside of the blocks.
const LAYERS: [(&str, &str); 7] = [
    ("img_in", "x_embedder"),
    ("txt_in", "context_embedder"),
    (
        "time_in.in_layer",
        "time_text_embed.timestep_embedder.linear_1",
    ),
    (
        "time_in.out_layer",
        "time_text_embed.timestep_embedder.linear_2",
    ),
    (
        "vector_in.in_layer",
        "time_text_embed.text_embedder.linear_1",
    ),
    (
        "vector_in.out_layer",
        "time_text_embed.text_embedder.linear_2",
    ),
    ("final_layer.linear", "proj_out"),
];

/// Layers of a network that receives the guidance scale.
const GUIDANCE: [(&str, &str); 2] = [
    (
        "guidance_in.in_layer",
        "time_text_embed.guidance_embedder.linear_1",
    ),
    (
        "guidance_in.out_layer",
        "time_text_embed.guidance_embedder.linear_2",
    ),
];

/// One of the two streams of a block with weights for the image and for the prompt.
struct Stream {
    original: &'static str,
    qkv: [&'static str; 3],
    norms: [&'static str; 2],
    layers: [(&'static str, &'static str); 4],
}

const STREAMS: [Stream; 2] = [
    Stream {
        original: "img",
        qkv: ["to_q", "to_k", "to_v"],
        norms: ["norm_q", "norm_k"],
        layers: [
            ("mod.lin", "norm1.linear"),
            ("attn.proj", "attn.to_out.0"),
            ("mlp.0", "ff.net.0.proj"),
            ("mlp.2", "ff.net.2"),
        ],
    },
    Stream {
        original: "txt",
        qkv: ["add_q_proj", "add_k_proj", "add_v_proj"],
        norms: ["norm_added_q", "norm_added_k"],
        layers: [
            ("mod.lin", "norm1_context.linear"),
            ("attn.proj", "attn.to_add_out"),
            ("mlp.0", "ff_context.net.0.proj"),
            ("mlp.2", "ff_context.net.2"),
        ],
    },
];

/// The transformer of a published file, below the prefix of its names.
pub(crate) fn part(scope: Scope<'_>) -> Part {
    let mut part = Part::new("transformer");
    for (original, name) in LAYERS {
        part.take_layer(scope, original, name);
    }
    if scope.any("guidance_in.") {
        for (original, name) in GUIDANCE {
            part.take_layer(scope, original, name);
        }
    }
    for i in 0..scope.count(|i| format!("double_blocks.{i}.")) {
        let to = format!("transformer_blocks.{i}");
        for stream in &STREAMS {
            let from = format!("double_blocks.{i}.{}", stream.original);
            for (original, name) in stream.layers {
                part.take_layer(
                    scope,
                    &format!("{from}_{original}"),
                    &format!("{to}.{name}"),
                );
            }
            let names = stream.qkv.map(|name| format!("{to}.attn.{name}"));
            take_qkv(&mut part, scope, &format!("{from}_attn.qkv"), names);
            let norms = format!("{from}_attn.norm");
            take_norms(
                &mut part,
                scope,
                &norms,
                &format!("{to}.attn"),
                stream.norms,
            );
        }
    }
    for i in 0..scope.count(|i| format!("single_blocks.{i}.")) {
        let (from, to) = (
            format!("single_blocks.{i}"),
            format!("single_transformer_blocks.{i}"),
        );
        part.take_layer(
            scope,
            &format!("{from}.modulation.lin"),
            &format!("{to}.norm.linear"),
        );
        part.take_layer(scope, &format!("{from}.linear2"), &format!("{to}.proj_out"));
        // Queries, keys and values, then the first half of the feed-forward layer.
        let size = |name: &str, axis: usize| {
            let shape = scope.shape(&format!("{from}.{name}.weight"));
            shape
                .and_then(|shape| shape.get(axis))
                .copied()
                .unwrap_or(0)
        };
        let width = size("linear2", 0);
        let inner = size("linear1", 0).saturating_sub(width.saturating_mul(3));
        let rows = [
            ("attn.to_q", width),
            ("attn.to_k", width),
            ("attn.to_v", width),
            ("proj_mlp", inner),
        ]
        .map(|(name, rows)| (format!("{to}.{name}"), rows));
        take_rows(&mut part, scope, &format!("{from}.linear1"), &rows);
        let norms = format!("{from}.norm");
        take_norms(
            &mut part,
            scope,
            &norms,
            &format!("{to}.attn"),
            STREAMS[0].norms,
        );
    }
    take_swapped(
        &mut part,
        scope,
        "final_layer.adaLN_modulation.1",
        "norm_out.linear",
    );
    part
}

/// The norms of queries and keys.
fn take_norms(part: &mut Part, scope: Scope<'_>, from: &str, to: &str, names: [&str; 2]) {
    for (original, name) in ["query_norm", "key_norm"].into_iter().zip(names) {
        part.take(
            scope,
            &format!("{from}.{original}.scale"),
            &format!("{to}.{name}.weight"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{super::scope::Shapes, *};
    use aigc_core::weights::TensorSource;

    fn shapes(width: usize) -> Shapes {
        let block = [
            ("single_blocks.0.modulation.lin", 3 * width, width),
            ("single_blocks.0.linear1", 7 * width, width),
            ("single_blocks.0.linear2", width, 5 * width),
            ("double_blocks.0.txt_attn.qkv", 3 * width, width),
            ("final_layer.adaLN_modulation.1", 2 * width, width),
        ];
        let layers = block.into_iter().flat_map(|(name, rows, columns)| {
            [
                (format!("model.{name}.weight"), vec![rows, columns]),
                (format!("model.{name}.bias"), vec![rows]),
            ]
        });
        layers.collect()
    }

    #[test]
    fn fused_layers_are_divided() {
        let shapes = shapes(8);
        let part = part(Scope::new(&shapes, "model."));
        let source = |name: &str| part.sources.iter().find(|source| source.name == name);
        let expected =
            |name: &str, source: &str| TensorSource::new(name, format!("model.{source}"));
        for (name, original, rows) in [
            (
                "single_transformer_blocks.0.attn.to_k.weight",
                "single_blocks.0.linear1.weight",
                8..16,
            ),
            (
                "single_transformer_blocks.0.proj_mlp.bias",
                "single_blocks.0.linear1.bias",
                24..56,
            ),
            (
                "transformer_blocks.0.attn.add_v_proj.bias",
                "double_blocks.0.txt_attn.qkv.bias",
                16..24,
            ),
        ] {
            assert_eq!(source(name), Some(&expected(name, original).rows(rows)));
        }
        let name = "norm_out.linear.weight";
        let original = "final_layer.adaLN_modulation.1.weight";
        assert_eq!(
            source(name),
            Some(&expected(name, original).halves_swapped())
        );
        // What the file lacks is named as in the file.
        assert!(
            part.missing
                .contains(&"model.double_blocks.0.img_attn.qkv.weight".into())
        );
        assert!(!part.missing.iter().any(|name| name.contains("guidance_in")));
    }
}
