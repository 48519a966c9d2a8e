//! Directories whose parts are each in order, but do not fit each other: errors at opening.

use crate::tiny_pipelines::{copy_dir, open, picture, pixels, request, tiny};
use aigc_core::{
    Error, Result,
    device::device,
    text_to_image::TextToImage,
    weights::{WeightReader, save_tensors},
};
use aigc_diffusion::ControlNetConfig;
use aigc_encoders::tokenizer::ClipTokenizer;
use aigc_pipelines::{
    single_file::{SingleFile, SingleFileOptions},
    text_to_image::{PipelineOpenOptions, TextToImagePipeline},
};
use burn::tensor::TensorData;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// A copy of a small pipeline, and where it is from.
fn copy(name: &str) -> Option<(PathBuf, TempDir)> {
    let (from, dir) = (tiny(name)?, tempfile::tempdir().unwrap());
    copy_dir(&from, dir.path());
    Some((from, dir))
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Changes fields of a file of the copy; the others are those of the original.
fn edit((from, dir): &(PathBuf, TempDir), file: &str, fields: Value) {
    let mut all = read(&from.join(file));
    for (name, value) in fields.as_object().unwrap() {
        all[name] = value.clone();
    }
    std::fs::write(dir.path().join(file), all.to_string()).unwrap();
}

fn open_dir(dir: &Path) -> Result<TextToImagePipeline> {
    let opened = TextToImagePipeline::from_pretrained(dir, &device("flex").unwrap());
    opened.map(|opened| opened.into_inner())
}

/// The directory fails to open, and the error of its index has these texts.
fn refused(dir: &Path, texts: &[&str]) {
    let error = open_dir(dir).unwrap_err();
    assert!(matches!(error, Error::Data { .. }), "{error:?}");
    let message = error.to_string();
    for text in ["model_index.json"].iter().chain(texts) {
        assert!(message.contains(text), "{text}: {message}");
    }
}

/// A checkpoint in a single file with the network of the small pipeline and nothing else.
fn network_file(dir: &Path) -> SingleFile {
    let whole = tiny("sd15-single-file").unwrap().join("model.safetensors");
    let reader = WeightReader::open(&whole).unwrap();
    let names = reader.names();
    let of_network = names.filter(|name| name.starts_with("model.diffusion_model."));
    let tensors: BTreeMap<String, TensorData> = of_network
        .map(|name| {
            let shape = reader.shape(name).unwrap().to_vec();
            let data = TensorData::new(reader.read(name).unwrap(), shape);
            (name.to_owned(), data)
        })
        .collect();
    let path = dir.join("network.safetensors");
    save_tensors(&tensors, &path).unwrap();
    let configs = SingleFileOptions::new().with_configs(tiny("tiny-sd15").unwrap());
    SingleFile::open_with_options(path, &configs).unwrap()
}

fn open_file(file: &SingleFile, base: &Path) -> Result<TextToImagePipeline> {
    let (options, flex) = (PipelineOpenOptions::default(), device("flex").unwrap());
    let opened = TextToImagePipeline::from_single_file(file, base, &options, &flex);
    opened.map(|opened| opened.into_inner())
}

#[test]
fn tokenizers_of_other_encoders_are_refused() {
    let Some(sd) = copy("tiny-sd15") else {
        return;
    };
    let dir = sd.1.path();
    let own = || ClipTokenizer::from_pretrained(sd.0.join("tokenizer")).unwrap();
    let rows = read(&sd.0.join("text_encoder/config.json"))["vocab_size"]
        .as_u64()
        .unwrap();

    let long = own().with_max_length(78).unwrap();
    long.save_pretrained(dir.join("tokenizer")).unwrap();
    let texts = [
        "`tokenizer: model_max_length` is 78, expected at most 77",
        "text_encoder",
    ];
    refused(dir, &texts);

    let mut large = own();
    large.add_tokens(&["<new>"]).unwrap();
    large.save_pretrained(dir.join("tokenizer")).unwrap();
    let vocabulary = format!(
        "`tokenizer` is one of {} tokens, expected at most {rows}, the vocab_size of text_encoder",
        rows + 1
    );
    refused(dir, &[vocabulary.as_str()]);
    // The same with a single file, whose tokenizer comes from elsewhere.
    let other = tempfile::tempdir().unwrap();
    let error = open_file(&network_file(other.path()), dir).unwrap_err();
    assert!(matches!(error, Error::Config { .. }), "{error:?}");
    assert!(error.to_string().contains(vocabulary.as_str()), "{error}");

    // Encoders may have more tokens, and take longer prompts.
    std::fs::remove_dir_all(dir.join("tokenizer")).unwrap();
    let small = ClipTokenizer::from_words(["a cat"]).unwrap();
    let small = small.with_max_length(8).unwrap();
    small.save_pretrained(dir.join("tokenizer")).unwrap();
    let pipeline = open_dir(dir).unwrap();
    assert_eq!(pipeline.generate(&request()).unwrap().images.len(), 1);

    // A tokenizer of another kind.
    let t5 = tiny("tiny-pixart").unwrap().join("tokenizer");
    std::fs::remove_dir_all(dir.join("tokenizer")).unwrap();
    copy_dir(&t5, &dir.join("tokenizer"));
    let class = json!({ "tokenizer": ["transformers", "T5Tokenizer"] });
    edit(&sd, "model_index.json", class);
    refused(
        dir,
        &["`tokenizer` is T5Tokenizer, expected CLIPTokenizer, for text_encoder"],
    );
}

#[test]
fn vocabularies_of_t5_fit_their_encoders() {
    let Some(pixart) = copy("tiny-pixart") else {
        return;
    };
    let config = "text_encoder/config.json";
    let tokens = read(&pixart.0.join(config))["vocab_size"].as_u64().unwrap();
    edit(&pixart, config, json!({ "vocab_size": tokens - 1 }));
    let expected = format!(
        "`tokenizer` is one of {tokens} tokens, expected at most {}, the vocab_size of \
         text_encoder",
        tokens - 1
    );
    refused(pixart.1.path(), &[expected.as_str()]);
}

/// Networks that need what pipelines of their class do not give.
#[test]
fn networks_with_other_conditions_are_refused() {
    let Some(sd) = copy("tiny-sd15") else {
        return;
    };
    let classes = "`unet` is a UNet2DConditionModel that needs classes, expected";
    let sizes = "needs pooled_projections and time_ids, expected one that is conditioned on \
                 prompts alone, for StableDiffusionPipeline";
    for (fields, expected) in [
        (json!({ "num_class_embeds": 3 }), classes),
        (json!({ "class_embed_type": "timestep" }), classes),
        (json!({ "class_embed_type": "identity" }), classes),
        (
            json!({
                "class_embed_type": "projection",
                "projection_class_embeddings_input_dim": 8,
            }),
            classes,
        ),
        (
            json!({
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 68,
            }),
            sizes,
        ),
    ] {
        edit(&sd, "unet/config.json", fields);
        refused(sd.1.path(), &[expected]);
    }
}

/// The same for ControlNets, when a request is made.
#[test]
fn controlnets_with_other_conditions_are_refused() {
    let Some(from) = tiny("tiny-sd15-controlnet") else {
        return;
    };
    let flex = device("flex").unwrap();
    let request = request().with_control_image(picture(32, 32));
    for (fields, expected) in [
        (
            json!({ "num_class_embeds": 3 }),
            "`controlnet: num_class_embeds`",
        ),
        (
            json!({ "class_embed_type": "timestep" }),
            "`controlnet: class_embed_type`",
        ),
        (
            json!({
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 8,
                "projection_class_embeddings_input_dim": 68,
            }),
            "`controlnet: addition_embed_type`",
        ),
    ] {
        let mut config = read(&from.join("config.json"));
        for (name, value) in fields.as_object().unwrap() {
            config[name] = value.clone();
        }
        let config = ControlNetConfig::from_json(&config.to_string()).unwrap();
        let network = config.init(&flex).unwrap();
        let pipeline = open("tiny-sd15").unwrap().with_controlnet(network);
        let error = pipeline.generate(&request).unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// What a single file does not have comes from directories, with or without an index beside them.
#[test]
fn bases_of_single_files_need_no_index() {
    let Some((_, base)) = copy("tiny-sd15") else {
        return;
    };
    let other = tempfile::tempdir().unwrap();
    let file = network_file(other.path());
    assert_eq!(file.parts(), ["unet"]);
    let made = || {
        let pipeline = open_file(&file, base.path()).unwrap();
        pixels(&pipeline.generate(&request()).unwrap())
    };
    let expected = made();
    std::fs::remove_file(base.path().join("model_index.json")).unwrap();
    assert_eq!(made(), expected);
    for part in ["vae", "text_encoder"] {
        std::fs::remove_dir_all(base.path().join(part)).unwrap();
        let error = open_file(&file, base.path()).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
        let expected = format!("without `{part}`");
        assert!(error.to_string().contains(&expected), "{error}");
    }
}
