//! Names of text encoders in single files: those of transformers below a prefix, and those of
//! OpenCLIP (<https://github.com/mlfoundations/open_clip>).

use super::scope::{Part, Scope, Shapes};
use aigc_core::weights::TensorSource;

/// Which library's names a text encoder has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextLayout {
    /// `CLIPTextModel` of transformers.
    Clip,
    /// OpenCLIP.
    OpenClip,
    /// `T5EncoderModel` of transformers.
    T5,
}

/// What becomes of the projection of the pooled output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Projection {
    /// The model does not have it, whatever the file has.
    Without,
    /// The model has it.
    Kept,
    /// The model has it; where the file does not, it is the identity.
    OrIdentity,
}

/// A text encoder in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TextEncoderAt {
    pub(crate) prefix: &'static str,
    pub(crate) layout: TextLayout,
}

/// Where published files have text encoders: Stable Diffusion 1, 2, XL and its refiner, 3 and Flux.
pub(crate) const PLACES: [TextEncoderAt; 8] = {
    use TextLayout::{Clip, OpenClip, T5};
    const fn at(prefix: &'static str, layout: TextLayout) -> TextEncoderAt {
        TextEncoderAt { prefix, layout }
    }
    [
        at("cond_stage_model.transformer.", Clip),
        at("cond_stage_model.model.", OpenClip),
        at("conditioner.embedders.0.transformer.", Clip),
        at("conditioner.embedders.0.model.", OpenClip),
        at("conditioner.embedders.1.model.", OpenClip),
        at("text_encoders.clip_l.transformer.", Clip),
        at("text_encoders.clip_g.transformer.", Clip),
        at("text_encoders.t5xxl.transformer.", T5),
    ]
};

impl TextEncoderAt {
    pub(crate) fn is_in(&self, shapes: &Shapes) -> bool {
        let scope = Scope::new(shapes, self.prefix);
        match self.layout {
            TextLayout::Clip => scope.any("text_model.") || scope.any("embeddings."),
            TextLayout::OpenClip => scope.any("transformer.resblocks."),
            TextLayout::T5 => scope.any("encoder.block."),
        }
    }

    pub(crate) fn is_t5(&self) -> bool {
        self.layout == TextLayout::T5
    }

    /// The text encoder under transformers' names. `layers` limits the number of layers; `None`
    /// keeps all.
    pub(crate) fn part(
        &self,
        shapes: &Shapes,
        name: &'static str,
        layers: Option<usize>,
        projection: Projection,
    ) -> Part {
        let scope = Scope::new(shapes, self.prefix);
        match self.layout {
            TextLayout::Clip => clip(scope, name, projection),
            TextLayout::OpenClip => open_clip(scope, name, layers, projection),
            TextLayout::T5 => t5(scope, name),
        }
    }

    /// Number of layers in the file.
    pub(crate) fn layers(&self, shapes: &Shapes) -> usize {
        let scope = Scope::new(shapes, self.prefix);
        match self.layout {
            TextLayout::Clip => {
                let below = if scope.any("text_model.") {
                    "text_model."
                } else {
                    ""
                };
                scope.count(|i| format!("{below}encoder.layers.{i}."))
            }
            TextLayout::OpenClip => scope.count(|i| format!("transformer.resblocks.{i}.")),
            TextLayout::T5 => scope.count(|i| format!("encoder.block.{i}.")),
        }
    }
}

/// Number of layers of Stable Diffusion 2's text encoder, which was trained on the states before
/// the last of 24. OpenCLIP's own model has all of them and the projection, files that were
/// converted from diffusers' layout have those that are used.
pub(crate) fn used_layers_of_version_2(shapes: &Shapes, place: TextEncoderAt) -> usize {
    let scope = Scope::new(shapes, place.prefix);
    let is_whole = scope.has("text_projection") || scope.has("text_projection.weight");
    match place.layers(shapes) {
        23 | 24 => 23,
        here if is_whole => here.saturating_sub(1),
        here => here,
    }
}

/// Names that files have although they are computed or used in training only.
pub(crate) fn is_inert(name: &str) -> bool {
    ["position_ids", "logit_scale", "attn_mask"]
        .iter()
        .any(|end| {
            name == *end
                || name
                    .strip_suffix(end)
                    .is_some_and(|rest| rest.ends_with('.'))
        })
}

fn clip(scope: Scope<'_>, name: &'static str, projection: Projection) -> Part {
    let below = if scope.any("text_model.") {
        "text_model."
    } else {
        ""
    };
    let mut part = Part::new(name);
    let mut take = |inner: &str| {
        part.take(
            scope,
            &format!("{below}{inner}"),
            &format!("text_model.{inner}"),
        );
    };
    take("embeddings.token_embedding.weight");
    take("embeddings.position_embedding.weight");
    let layers = scope.count(|i| format!("{below}encoder.layers.{i}."));
    for i in 0..layers {
        for layer in [
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.out_proj",
            "layer_norm1",
            "mlp.fc1",
            "mlp.fc2",
            "layer_norm2",
        ] {
            take(&format!("encoder.layers.{i}.{layer}.weight"));
            take(&format!("encoder.layers.{i}.{layer}.bias"));
        }
    }
    take("final_layer_norm.weight");
    take("final_layer_norm.bias");
    let to = "text_projection.weight";
    // A square matrix in the file justifies the size of the identity.
    let query = format!("{below}encoder.layers.0.self_attn.q_proj.weight");
    match (projection, scope.shape(&query)) {
        (Projection::Without, _) => {}
        _ if scope.has(to) => part.take(scope, to, to),
        (Projection::OrIdentity, Some([rows, columns])) if rows == columns => {
            part.identity = Some((to, *rows));
        }
        _ => part.missing.push(scope.full(to)),
    }
    part
}

fn open_clip(
    scope: Scope<'_>,
    name: &'static str,
    layers: Option<usize>,
    projection: Projection,
) -> Part {
    let mut part = Part::new(name);
    part.take(
        scope,
        "token_embedding.weight",
        "text_model.embeddings.token_embedding.weight",
    );
    part.take(
        scope,
        "positional_embedding",
        "text_model.embeddings.position_embedding.weight",
    );
    let here = scope.count(|i| format!("transformer.resblocks.{i}."));
    for i in 0..layers.map_or(here, |layers| layers.min(here)) {
        let from = format!("transformer.resblocks.{i}");
        let to = format!("text_model.encoder.layers.{i}");
        for param in ["weight", "bias"] {
            fused(&mut part, scope, &from, &to, param);
        }
        for (original, layer) in [
            ("attn.out_proj", "self_attn.out_proj"),
            ("ln_1", "layer_norm1"),
            ("mlp.c_fc", "mlp.fc1"),
            ("mlp.c_proj", "mlp.fc2"),
            ("ln_2", "layer_norm2"),
        ] {
            part.take_layer(
                scope,
                &format!("{from}.{original}"),
                &format!("{to}.{layer}"),
            );
        }
    }
    part.take_layer(scope, "ln_final", "text_model.final_layer_norm");
    if projection != Projection::Without {
        // A parameter that is multiplied from the right, or in some files a layer.
        let to = "text_projection.weight";
        if scope.has("text_projection.weight") {
            part.take(scope, "text_projection.weight", to);
        } else if scope.has("text_projection") {
            let source = TensorSource::new(to, scope.full("text_projection"));
            part.sources.push(source.transposed());
        } else {
            part.missing.push(scope.full("text_projection"));
        }
    }
    part
}

/// Queries, keys and values, which are one tensor.
fn fused(part: &mut Part, scope: Scope<'_>, from: &str, to: &str, param: &str) {
    let original = format!("{from}.attn.in_proj_{param}");
    let Some(rows) = scope.shape(&original).and_then(|shape| shape.first()) else {
        part.missing.push(scope.full(&original));
        return;
    };
    let width = rows / 3;
    for (i, name) in ["q_proj", "k_proj", "v_proj"].into_iter().enumerate() {
        let name = format!("{to}.self_attn.{name}.{param}");
        let source = TensorSource::new(name, scope.full(&original));
        part.sources.push(source.rows(i * width..(i + 1) * width));
    }
}

fn t5(scope: Scope<'_>, name: &'static str) -> Part {
    let mut part = Part::new(name);
    let shared = scope.has("shared.weight");
    for tensor in scope.names() {
        // The same tensor under another name.
        if shared && tensor == "encoder.embed_tokens.weight" {
            continue;
        }
        if tensor == "shared.weight" || tensor.starts_with("encoder.") {
            part.take(scope, tensor, tensor);
        }
    }
    part
}
