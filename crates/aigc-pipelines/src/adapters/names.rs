//! The names that files of adapters have for the layers of a model.
//!
//! A table is built from the layers of the model, and names of the file are looked up in it. So a
//! name whose dots became underscores is never taken apart.

use super::{
    Component,
    layers::{Layer, ModelLayers},
    originals::{self, OriginalLayer},
};
use crate::single_file::scope::Scope;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

/// A layer, or some of its outputs, that a name in a file stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Index of the layer.
    pub(crate) layer: usize,
    /// The rows of the file's layer that are this layer's; `None`: all.
    pub(crate) rows: Option<Range<usize>>,
    /// Whether the halves of the rows change places.
    pub(crate) halves_swapped: bool,
}

/// Which names a stem was built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Naming {
    /// Those of diffusers and transformers.
    Library,
    /// Those of the first publication.
    Original,
}

/// What the names in files stand for.
pub(crate) type Table = BTreeMap<String, (Naming, Vec<Place>)>;

/// Names in files, without the endings of the factors, for the layers of a model.
pub(crate) fn table(component: Component, model: &ModelLayers) -> Table {
    let mut table = Table::new();
    // Names that stand for different layers are of no use, and do not occur.
    let mut ambiguous = BTreeSet::new();
    let mut add = |stem: String, naming: Naming, places: Vec<Place>| match table.get(&stem) {
        Some((_, others)) if *others != places => drop(ambiguous.insert(stem)),
        Some(_) => {}
        None => drop(table.insert(stem, (naming, places))),
    };
    for (layer, Layer { name, .. }) in model.layers.iter().enumerate() {
        for stem in library_stems(component, name) {
            let whole = Place {
                layer,
                rows: None,
                halves_swapped: false,
            };
            add(stem, Naming::Library, vec![whole]);
        }
    }
    for (name, places) in originals(component, model) {
        for stem in original_stems(component, &name) {
            add(stem, Naming::Original, places.clone());
        }
    }
    for stem in ambiguous {
        table.remove(&stem);
    }
    table
}

/// A name with underscores for dots, after the prefix of a part.
fn underscored(prefix: &str, name: &str) -> String {
    format!("{prefix}{}", name.replace('.', "_"))
}

/// Names of a layer in files with the names of diffusers and transformers.
fn library_stems(component: Component, name: &str) -> Vec<String> {
    let mut names = vec![name.to_owned()];
    if component.is_text_encoder() {
        // transformers' directories have the names of CLIP's models with and without this field.
        match name.strip_prefix("text_model.") {
            Some(inner) => names.push(inner.into()),
            None => names.push(format!("text_model.{name}")),
        }
    }
    let part = component.name();
    let dotted: &[&str] = match component {
        // Names without a part are those of the network, or of one text encoder.
        Component::Unet | Component::Transformer | Component::TextEncoder => {
            &["", "base_model.model."]
        }
        _ => &[],
    };
    let more: &[&str] = match component {
        Component::TextEncoder => &["text_encoders.clip_l.transformer."],
        Component::TextEncoder2 => &[
            "text_encoders.clip_g.transformer.",
            "text_encoders.t5xxl.transformer.",
        ],
        Component::TextEncoder3 => &["text_encoders.t5xxl.transformer."],
        _ => &[],
    };
    let kohya: &[&str] = match component {
        // LyCORIS' own name for any network.
        Component::Unet => &["lora_unet_", "lycoris_"],
        Component::Transformer => &["lora_transformer_", "lora_unet_", "lycoris_"],
        Component::TextEncoder => &["lora_te_", "lora_te1_"],
        // T5 is the second encoder of FLUX.1 and the third of Stable Diffusion 3.
        Component::TextEncoder2 => &["lora_te2_", "lora_te3_"],
        Component::TextEncoder3 => &["lora_te3_"],
    };
    let mut stems = vec![];
    for name in &names {
        for variant in [Some(name.clone()), processor(name)].into_iter().flatten() {
            stems.push(format!("{part}.{variant}"));
            stems.push(format!("{part}.base_model.model.{variant}"));
            stems.extend(dotted.iter().map(|prefix| format!("{prefix}{variant}")));
        }
        stems.extend(more.iter().map(|prefix| format!("{prefix}{name}")));
        stems.extend(kohya.iter().map(|prefix| underscored(prefix, name)));
    }
    stems
}

/// The name of a projection of attention in older versions of diffusers, where it belongs to an
/// attention processor.
fn processor(name: &str) -> Option<String> {
    for (now, then) in [
        (".to_q", ".processor.to_q_lora"),
        (".to_k", ".processor.to_k_lora"),
        (".to_v", ".processor.to_v_lora"),
        (".to_out.0", ".processor.to_out_lora"),
        (".q_proj", ".to_q_lora"),
        (".k_proj", ".to_k_lora"),
        (".v_proj", ".to_v_lora"),
        (".out_proj", ".to_out_lora"),
    ] {
        if let Some(attention) = name.strip_suffix(now) {
            return Some(format!("{attention}{then}"));
        }
    }
    None
}

/// Names of a layer in files with the names of the first publication.
fn original_stems(component: Component, name: &str) -> Vec<String> {
    let mut stems = vec![
        underscored("lora_unet_", name),
        format!("diffusion_model.{name}"),
        format!("model.diffusion_model.{name}"),
        format!("unet.{name}"),
    ];
    if component == Component::Transformer {
        stems.push(name.to_owned());
        stems.push(format!("transformer.{name}"));
        stems.push(underscored("lora_transformer_", name));
    }
    stems
}

/// Names of the first publication, and the layers that they stand for.
fn originals(component: Component, model: &ModelLayers) -> Vec<(String, Vec<Place>)> {
    let index: BTreeMap<&str, usize> = model
        .layers
        .iter()
        .enumerate()
        .map(|(index, layer)| (&layer.name[..], index))
        .collect();
    let scope = Scope::new(&model.names, "");
    let layers = match component {
        Component::Unet => originals::unet(scope),
        Component::Transformer => originals::transformer(scope),
        _ => vec![],
    };
    // A layer of which a part is missing has rows in unknown places.
    let places = |layer: OriginalLayer| {
        let whole = layer.parts.len() == 1;
        let mut start = 0;
        let mut places = vec![];
        for part in &layer.parts {
            let layer_index = *index.get(&part[..])?;
            let end = start + model.layers[layer_index].rows;
            places.push(Place {
                layer: layer_index,
                rows: (!whole).then_some(start..end),
                halves_swapped: layer.halves_swapped,
            });
            start = end;
        }
        Some((layer.name, places))
    };
    layers.into_iter().filter_map(places).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::layers::LayerKind;
    use burn::module::ParamId;

    fn model(names: &[(&str, usize)]) -> ModelLayers {
        let mut model = ModelLayers::default();
        for (name, rows) in names {
            model.names.insert(format!("{name}.weight"), vec![]);
            model.layers.push(Layer {
                name: name.to_string(),
                id: ParamId::new(),
                kind: LayerKind::Linear,
                rows: *rows,
                columns: vec![2],
            });
        }
        model
    }

    fn found(table: &Table, stem: &str) -> Vec<(usize, Option<Range<usize>>)> {
        let (_, places) = table
            .get(stem)
            .unwrap_or_else(|| panic!("{stem} is unknown"));
        places.iter().map(|p| (p.layer, p.rows.clone())).collect()
    }

    #[test]
    fn layers_of_a_unet_have_the_names_of_all_forms() {
        let query = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
        let out = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0";
        let model = model(&[
            (query, 4),
            (out, 4),
            ("down_blocks.0.resnets.0.time_emb_proj", 4),
            ("time_embedding.linear_1", 4),
        ]);
        let table = table(Component::Unet, &model);
        let attention = "down_blocks.0.attentions.0.transformer_blocks.0.attn1";
        for stem in [
            format!("unet.{query}"),
            query.to_owned(),
            format!("base_model.model.{query}"),
            format!("unet.{attention}.processor.to_q_lora"),
            format!("{attention}.processor.to_q_lora"),
            format!("lora_unet_{}", query.replace('.', "_")),
            format!("lycoris_{}", query.replace('.', "_")),
            "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q".to_owned(),
            "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q".to_owned(),
        ] {
            assert_eq!(found(&table, &stem), [(0, None)], "{stem}");
        }
        for (stem, layer) in [
            (
                "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_out_0",
                1,
            ),
            ("lora_unet_input_blocks_1_0_emb_layers_1", 2),
            ("lora_unet_time_embed_0", 3),
        ] {
            assert_eq!(found(&table, stem), [(layer, None)]);
        }
        assert!(!table.contains_key(&format!("text_encoder.{query}")));
    }

    #[test]
    fn text_encoders_have_names_with_and_without_their_first_field() {
        let query = "encoder.layers.0.self_attn.q_proj";
        for name in [query.to_owned(), format!("text_model.{query}")] {
            let table = table(Component::TextEncoder, &model(&[(&name, 4)]));
            for stem in [
                "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
                "text_encoder.encoder.layers.0.self_attn.q_proj",
                "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora",
                "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
                "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
            ] {
                assert_eq!(found(&table, stem), [(0, None)], "{stem}");
            }
            assert!(!table.contains_key("lora_te2_text_model_encoder_layers_0_self_attn_q_proj"));
        }
        let second = table(Component::TextEncoder2, &model(&[(query, 4)]));
        let stem = "lora_te2_text_model_encoder_layers_0_self_attn_q_proj";
        assert_eq!(found(&second, stem), [(0, None)]);
        assert!(!second.contains_key(query));
    }

    #[test]
    fn fused_layers_are_rows_of_several() {
        let model = model(&[
            ("transformer_blocks.0.attn.to_q", 4),
            ("transformer_blocks.0.attn.to_k", 4),
            ("transformer_blocks.0.attn.to_v", 4),
            ("single_transformer_blocks.0.attn.to_q", 4),
            ("single_transformer_blocks.0.attn.to_k", 4),
            ("single_transformer_blocks.0.attn.to_v", 4),
            ("single_transformer_blocks.0.proj_mlp", 16),
            ("norm_out.linear", 8),
        ]);
        let table = table(Component::Transformer, &model);
        let qkv = [(0, Some(0..4)), (1, Some(4..8)), (2, Some(8..12))];
        assert_eq!(found(&table, "lora_unet_double_blocks_0_img_attn_qkv"), qkv);
        assert_eq!(
            found(&table, "diffusion_model.double_blocks.0.img_attn.qkv"),
            qkv
        );
        let single = found(&table, "lora_unet_single_blocks_0_linear1");
        assert_eq!((single.len(), single[3].clone()), (4, (6, Some(12..28))));
        assert_eq!(found(&table, "double_blocks.0.processor.qkv_lora1"), qkv);
        assert_eq!(found(&table, "single_blocks.0.processor.qkv_lora").len(), 3);
        let name = "lora_transformer_single_transformer_blocks_0_proj_mlp";
        assert_eq!(found(&table, name), [(6, None)]);
        let (_, places) = &table["lora_unet_final_layer_adaLN_modulation_1"];
        assert!(places[0].halves_swapped);
    }

    /// Two layers whose names become one with underscores.
    #[test]
    fn ambiguous_names_are_left_out() {
        let table = table(Component::Unet, &model(&[("a.b", 4), ("a_b", 4)]));
        assert!(!table.contains_key("lora_unet_a_b"));
        assert!(table.contains_key("unet.a.b") && table.contains_key("unet.a_b"));
    }
}
