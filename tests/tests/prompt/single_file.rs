//! Checkpoints in a single file against the directories with the same weights.

use crate::cases::{Case, every};
use aigc_core::{
    device::device,
    params::num_bytes,
    weights::{WeightDtype, WeightReader},
};
use aigc_diffusion::AnyDenoiser;
use aigc_pipelines::{
    single_file::{Family, SingleFile, SingleFileOptions},
    text_to_image::{PipelineOpenOptions, TextToImagePipeline},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Fields of configurations that follow from the shapes of tensors, and what they are without
/// their field.
const DERIVED: [(&str, &str); 21] = [
    ("in_channels", "null"),
    ("out_channels", "null"),
    ("block_out_channels", "null"),
    ("layers_per_block", "null"),
    ("down_block_types", "null"),
    ("up_block_types", "null"),
    ("cross_attention_dim", "null"),
    ("use_linear_projection", "false"),
    ("addition_embed_type", "null"),
    ("projection_class_embeddings_input_dim", "null"),
    ("time_cond_proj_dim", "null"),
    ("latent_channels", "null"),
    ("use_quant_conv", "true"),
    ("use_post_quant_conv", "true"),
    ("scaling_factor", "null"),
    ("hidden_size", "null"),
    ("intermediate_size", "null"),
    ("num_hidden_layers", "null"),
    ("vocab_size", "null"),
    ("hidden_act", "null"),
    ("max_position_embeddings", "null"),
];

fn is_single_file(case: &Case) -> bool {
    case.text("kind") == "prompt-pipeline" && !case.text("single_file").is_empty()
}

fn open(case: &Case) -> SingleFile {
    let options = SingleFileOptions::new().with_configs(case.path("pipeline"));
    SingleFile::open_with_options(case.path("single_file"), &options).unwrap()
}

/// The tensors of a part's directory by the present names.
fn of_directory(dir: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let stems = ["diffusion_pytorch_model", "model"];
    let reader = WeightReader::from_dir(dir, &stems).unwrap();
    let mut tensors = BTreeMap::new();
    for name in reader
        .names()
        .filter(|name| !name.ends_with("position_ids"))
    {
        let mut new = name.to_owned();
        for (old, now) in [
            (".query.", ".to_q."),
            (".key.", ".to_k."),
            (".value.", ".to_v."),
            (".proj_attn.", ".to_out.0."),
        ] {
            new = new.replace(old, now);
        }
        let clip = new.starts_with("encoder.layers.")
            || new.starts_with("embeddings.")
            || new.starts_with("final_layer_norm.");
        if clip {
            new = format!("text_model.{new}");
        }
        let shape = reader.shape(name).unwrap().to_vec();
        tensors.insert(new, (shape, reader.read(name).unwrap()));
    }
    tensors
}

/// The number as half precision has it, for comparison.
fn half(value: f32) -> f32 {
    if value.abs() < 6.103_515_6e-5 {
        // Multiples of 2⁻²⁴.
        return (value * 16_777_216.0).round_ties_even() / 16_777_216.0;
    }
    let bits = value.to_bits();
    let odd = (bits >> 13) & 1;
    f32::from_bits((bits + 0xfff + odd) & !0x1fff)
}

#[test]
fn converted_tensors_are_those_of_the_directory() {
    every(is_single_file, |case| {
        let file = open(case);
        let expected = match case.text("cls") {
            "StableDiffusionXLPipeline" => Family::StableDiffusionXl,
            _ => Family::StableDiffusion1,
        };
        assert_eq!(file.family(), expected);
        let report = file.report();
        assert!(report.warnings().is_empty(), "{report}");
        assert_eq!(report.precision(), ["F16"]);
        assert_eq!(file.parts(), expected.parts());
        for part in file.parts() {
            let reader = file.component_reader(part).unwrap();
            let directory = of_directory(&case.path("pipeline").join(part));
            let names: Vec<&str> = reader.names().collect();
            let expected: Vec<&str> = directory.keys().map(String::as_str).collect();
            assert_eq!(names, expected, "{part}");
            for (name, (shape, values)) in &directory {
                assert_eq!(reader.shape(name).unwrap(), shape, "{part}: {name}");
                let found = reader.read(name).unwrap();
                let same = found.iter().zip(values).all(|(a, b)| *a == half(*b));
                assert!(same, "{part}: {name}");
            }
        }
    });
}

/// Configurations that are built in have the sizes of the file.
#[test]
fn sizes_of_configurations_follow_from_the_file() {
    every(is_single_file, |case| {
        let file = SingleFile::open(case.path("single_file")).unwrap();
        let given = open(case);
        let parse = |text: String| serde_json::from_str::<Value>(&text).unwrap();
        for part in file.parts() {
            let (built, directory) = (
                parse(file.config(part).unwrap()),
                parse(given.config(part).unwrap()),
            );
            for (field, default) in DERIVED {
                let default: Value = serde_json::from_str(default).unwrap();
                let of = |config: &Value| match config.get(field) {
                    None => default.clone(),
                    Some(value) => value.clone(),
                };
                assert_eq!(of(&built), of(&directory), "{part}: {field}");
            }
        }
        let index = parse(file.config("model_index").unwrap());
        assert_eq!(index["_class_name"], case.text("cls"));
        let scheduler = parse(file.config("scheduler").unwrap());
        assert_eq!(scheduler["prediction_type"], "epsilon");
    });
}

#[test]
fn networks_load_from_single_files() {
    every(is_single_file, |case| {
        let (file, flex) = (open(case), device("flex").unwrap());
        let config = file.config("unet").unwrap();
        let reader = file.component_reader("unet").unwrap();
        let network = AnyDenoiser::from_weights(&config, &reader, WeightDtype::F32, &flex).unwrap();
        assert!(network.unused_tensors.is_empty(), "{network}");
        // The file's half precision stays.
        let half = AnyDenoiser::from_weights(&config, &reader, WeightDtype::Stored, &flex).unwrap();
        assert_eq!(2 * num_bytes(&half.value), num_bytes(&network.value));
    });
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/prompt")
        .join(name)
}

/// A checkpoint as `tests/reference/checkpoint.py` writes it: a pickle of PyTorch Lightning's with
/// the state of its callbacks, plain and averaged weights.
#[test]
fn checkpoints_of_lightning_open_with_and_without_averages() {
    let plain = SingleFile::open(fixture("checkpoint.ckpt")).unwrap();
    assert_eq!(plain.family(), Family::StableDiffusion1);
    let report = plain.report();
    assert_eq!(
        (report.averaged, report.uses_averaged),
        (report.parts[0].tensors + 2, false)
    );
    assert_eq!(report.missing_parts, ["vae", "text_encoder"]);
    assert!(report.unused.is_empty(), "{report}");
    let options = SingleFileOptions::new().with_averaged_weights();
    let averaged = SingleFile::open_with_options(fixture("checkpoint.ckpt"), &options).unwrap();
    let (plain, averaged) = (
        plain.component_reader("unet").unwrap(),
        averaged.component_reader("unet").unwrap(),
    );
    assert!(plain.names().eq(averaged.names()) && plain.names().count() > 100);
    // The averages are the weights plus a half.
    for name in plain.names() {
        let (a, b) = (plain.read(name).unwrap(), averaged.read(name).unwrap());
        assert!(a.iter().zip(&b).all(|(a, b)| a + 0.5 == *b), "{name}");
    }
}

/// A part that neither the file nor the directory has is named when the pipeline is opened.
#[test]
fn missing_text_encoders_are_named_at_opening() {
    let file = SingleFile::open(fixture("checkpoint.ckpt")).unwrap();
    let (empty, flex) = (tempfile::tempdir().unwrap(), device("flex").unwrap());
    let open = |options: PipelineOpenOptions| {
        let opened = TextToImagePipeline::from_single_file(&file, empty.path(), &options, &flex);
        opened.expect_err("parts are missing").to_string()
    };
    let message = open(PipelineOpenOptions::default());
    for part in [
        "without `text_encoder`",
        "the file has unet",
        "PipelineOpenOptions::without",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let message = open(PipelineOpenOptions::default().without("text_encoder"));
    assert!(message.contains("without `vae`"), "{message}");
    assert!(!message.contains("PipelineOpenOptions"), "{message}");
}
