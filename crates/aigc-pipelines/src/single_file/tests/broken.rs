//! Files that are of no known kind, incomplete, cut, or lie.

use super::File;
use crate::single_file::{
    Family, SingleFile, SingleFileOptions, config,
    scope::{Part, Shapes},
};
use aigc_diffusion::PredictionType;
use serde_json::json;

#[test]
fn unknown_and_incomplete_files_say_what_was_seen() {
    let mut file = File::new("model.diffusion_model.");
    file.add("something.else", &[1]);
    assert_eq!(file.open().report().unused, ["something.else"]);
    file.tensors
        .retain(|(name, _)| !name.contains("output_blocks.1"));
    let error = file
        .open_with(&SingleFileOptions::new())
        .unwrap_err()
        .to_string();
    assert!(error.contains("an incomplete network"), "{error}");
    assert!(error.contains("model.safetensors"), "{error}");
    file.tensors.retain(|(name, _)| name == "something.else");
    let error = file
        .open_with(&SingleFileOptions::new())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("1 tensors, such as something.else"),
        "{error}"
    );
    assert!(
        error.contains("known kinds: Stable Diffusion 1, "),
        "{error}"
    );
}

/// Any beginning of a file is an error, numbers of blocks may be anything, and sizes of zero too.
#[test]
fn truncated_and_lying_files_are_errors_or_reported() {
    let mut file = File::new("");
    file.open_clip("cond_stage_model.model.", 1);
    let bytes = file.bytes();
    let path = file.dir.path().join("cut.safetensors");
    for length in (0..bytes.len()).step_by(7) {
        std::fs::write(&path, &bytes[..length]).unwrap();
        SingleFile::open(&path).unwrap_err();
    }
    for name in [
        "input_blocks.99999999999999999999.0.in_layers.0.weight",
        "input_blocks.18446744073709551615.0.op.weight",
        "cond_stage_model.model.transformer.resblocks.4294967296.ln_1.weight",
        "first_stage_model.decoder.up.18446744073709551615.block.0.norm1.weight",
    ] {
        file.add(name, &[1]);
    }
    file.tensors
        .iter_mut()
        .for_each(|(_, shape)| shape.iter_mut().for_each(|size| *size = 0));
    file.tensors
        .retain(|(name, _)| !name.ends_with("input_blocks.0.0.weight"));
    file.add("input_blocks.0.0.weight", &[0, 4, 1 << 40]);
    let opened = file.open();
    assert_eq!(opened.report().unused.len(), 3, "{}", opened.report());
    for part in opened.parts() {
        let _ = opened.config(part);
        let reader = opened.component_reader(part).unwrap();
        for name in reader.names() {
            reader.read(name).unwrap();
        }
    }
    let empty = Part::default();
    // Sizes that overflow, of tensors without elements.
    let big = 1 << 63;
    let mut file = File {
        dir: tempfile::tempdir().unwrap(),
        metadata: json!({}),
        tensors: vec![],
    };
    for (name, shape) in [
        ("double_blocks.0.img_mod.lin.weight", [0, big]),
        ("vector_in.in_layer.weight", [big, 0]),
        ("single_blocks.0.linear1.weight", [big, 0]),
        ("single_blocks.0.linear2.weight", [big, 0]),
    ] {
        file.add(name, &shape);
    }
    let error = file.open().component_reader("transformer").unwrap_err();
    assert!(
        error.to_string().contains("single_blocks.0.linear1.weight"),
        "{error}"
    );
    file.tensors.clear();
    for (name, shape) in [
        (
            "joint_blocks.0.x_block.attn.qkv.weight",
            &[0, 1 << 40, 1 << 40][..],
        ),
        ("x_embedder.proj.weight", &[0, 4, 1 << 40, 1 << 40]),
        ("pos_embed", &[1, 0, 2]),
        ("context_embedder.weight", &[2, 0]),
        ("y_embedder.mlp.0.weight", &[0, 2]),
        ("final_layer.linear.weight", &[0, 2]),
    ] {
        file.add(name, shape);
    }
    let opened = file.open();
    opened.config("transformer").unwrap();
    let reader = opened.component_reader("transformer").unwrap();
    assert!(
        reader
            .names()
            .all(|name| reader.read(name).unwrap().is_empty())
    );
    let (family, prediction) = (Family::StableDiffusion1, PredictionType::Epsilon);
    assert!(config::of_part(family, prediction, &empty, &Shapes::new()).is_err());
}
