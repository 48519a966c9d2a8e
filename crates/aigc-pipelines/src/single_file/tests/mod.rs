//! Files of all families, at the sizes of the published models where no values are needed, and
//! files that are broken or lie.

mod broken;
mod published;

use super::{
    Family, SingleFile, SingleFileOptions,
    scope::Shapes,
    text::{PLACES, used_layers_of_version_2},
};
use aigc_diffusion::PredictionType;
use serde_json::{Value, json};
use std::path::PathBuf;
use tempfile::TempDir;

/// A safetensors file; the values of each tensor count up from 0.
struct File {
    dir: TempDir,
    metadata: Value,
    tensors: Vec<(String, Vec<usize>)>,
}

impl File {
    /// With a network of one size and one residual block, and without attention.
    fn new(prefix: &str) -> Self {
        let mut file = Self {
            dir: tempfile::tempdir().unwrap(),
            metadata: json!({}),
            tensors: vec![],
        };
        for name in [
            "input_blocks.1.0.in_layers.0.weight",
            "output_blocks.0.0.in_layers.0.weight",
            "output_blocks.1.0.in_layers.0.weight",
        ] {
            file.add(&format!("{prefix}{name}"), &[2]);
        }
        file.add(&format!("{prefix}input_blocks.0.0.weight"), &[2, 4, 1, 1]);
        file
    }

    fn add(&mut self, name: &str, shape: &[usize]) {
        self.tensors.push((name.into(), shape.to_vec()));
    }

    fn open_clip(&mut self, prefix: &str, layers: usize) {
        self.add(&format!("{prefix}token_embedding.weight"), &[5, 4]);
        self.add(&format!("{prefix}positional_embedding"), &[7, 4]);
        self.add(&format!("{prefix}text_projection"), &[4, 3]);
        self.add(&format!("{prefix}logit_scale"), &[]);
        for i in 0..layers {
            let block = format!("{prefix}transformer.resblocks.{i}");
            self.add(&format!("{block}.attn.in_proj_weight"), &[12, 4]);
            self.add(&format!("{block}.attn.in_proj_bias"), &[12]);
            for (name, rows, columns) in [
                ("attn.out_proj", 4, 4),
                ("mlp.c_fc", 16, 4),
                ("mlp.c_proj", 4, 16),
            ] {
                self.add(&format!("{block}.{name}.weight"), &[rows, columns]);
                self.add(&format!("{block}.{name}.bias"), &[rows]);
            }
            for name in ["ln_1", "ln_2"] {
                self.add(&format!("{block}.{name}.weight"), &[4]);
                self.add(&format!("{block}.{name}.bias"), &[4]);
            }
        }
        self.add(&format!("{prefix}ln_final.weight"), &[4]);
        self.add(&format!("{prefix}ln_final.bias"), &[4]);
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("model.safetensors")
    }

    fn bytes(&self) -> Vec<u8> {
        let (mut header, mut data) = (json!({"__metadata__": self.metadata}), vec![]);
        for (name, shape) in &self.tensors {
            let start = data.len();
            let values = 0..shape.iter().product::<usize>();
            data.extend(values.flat_map(|value| (value as f32).to_le_bytes()));
            header[name] =
                json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        }
        let header = header.to_string();
        [
            &(header.len() as u64).to_le_bytes()[..],
            header.as_bytes(),
            &data,
        ]
        .concat()
    }

    fn open_with(&self, options: &SingleFileOptions) -> aigc_core::Result<SingleFile> {
        std::fs::write(self.path(), self.bytes()).unwrap();
        SingleFile::open_with_options(self.path(), options)
    }

    fn open(&self) -> SingleFile {
        self.open_with(&SingleFileOptions::new()).unwrap()
    }
}

/// Version 2's text encoder: fused projections are divided, the last layer and the projection left
/// out; what the network predicts is assumed unless something says it.
#[test]
fn text_encoders_of_version_2_end_before_their_last_layer() {
    let mut file = File::new("model.diffusion_model.");
    file.open_clip("cond_stage_model.model.", 3);
    let opened = file.open();
    assert_eq!(opened.family(), Family::StableDiffusion2);
    assert!(opened.report().unused.is_empty(), "{}", opened.report());
    let reader = opened.component_reader("text_encoder").unwrap();
    assert_eq!(
        reader
            .names()
            .filter(|name| name.contains("layer_norm1"))
            .count(),
        4
    );
    assert!(!reader.contains("text_projection.weight"));
    let key = "text_model.encoder.layers.1.self_attn.k_proj";
    assert_eq!(
        reader.read(&format!("{key}.bias")).unwrap(),
        [4.0, 5.0, 6.0, 7.0]
    );
    assert_eq!(reader.read(&format!("{key}.weight")).unwrap()[0], 16.0);
    let config: Value = serde_json::from_str(&opened.config("text_encoder").unwrap()).unwrap();
    let fields = [
        "num_hidden_layers",
        "hidden_size",
        "intermediate_size",
        "vocab_size",
    ];
    assert_eq!(
        fields.map(|field| config[field].as_u64()),
        [2, 4, 16, 5].map(Some)
    );
    assert_eq!(config["hidden_act"], "gelu");

    let prediction = |opened: &SingleFile| {
        let scheduler: Value = serde_json::from_str(&opened.config("scheduler").unwrap()).unwrap();
        let named = scheduler["prediction_type"].as_str().unwrap().to_owned();
        let assumed = opened
            .report()
            .assumptions
            .iter()
            .any(|line| line.contains("predicts v"));
        (named, assumed)
    };
    assert_eq!(prediction(&opened), ("v_prediction".into(), true));
    let options = SingleFileOptions::new().with_prediction_type(PredictionType::Epsilon);
    assert_eq!(
        prediction(&file.open_with(&options).unwrap()),
        ("epsilon".into(), false)
    );
    file.metadata = json!({"modelspec.prediction_type": "epsilon"});
    assert_eq!(prediction(&file.open()), ("epsilon".into(), false));
    file.metadata = json!({"modelspec.prediction_type": "v"});
    assert_eq!(prediction(&file.open()), ("v_prediction".into(), false));
    // Configurations of a directory say how many layers there are.
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("text_encoder")).unwrap();
    let config = dir.path().join("text_encoder/config.json");
    std::fs::write(config, r#"{"num_hidden_layers": 3}"#).unwrap();
    let opened = file
        .open_with(&SingleFileOptions::new().with_configs(dir.path()))
        .unwrap();
    let reader = opened.component_reader("text_encoder").unwrap();
    assert_eq!(
        reader
            .names()
            .filter(|name| name.contains("layer_norm1"))
            .count(),
        6
    );
}

/// Files that were converted from diffusers' layout have the layers that are used, and no
/// projection.
#[test]
fn converted_text_encoders_of_version_2_keep_their_layers() {
    let mut file = File::new("model.diffusion_model.");
    file.open_clip("cond_stage_model.model.", 3);
    file.tensors
        .retain(|(name, _)| !name.ends_with("text_projection"));
    let opened = file.open();
    let config: Value = serde_json::from_str(&opened.config("text_encoder").unwrap()).unwrap();
    assert_eq!(config["num_hidden_layers"], 3);
    let mut shapes = Shapes::new();
    for layer in 0..24 {
        let name = format!("cond_stage_model.model.transformer.resblocks.{layer}.ln_1.bias");
        shapes.insert(name, vec![1]);
        let used = used_layers_of_version_2(&shapes, PLACES[1]);
        assert_eq!(used, (layer + 1).min(23));
    }
}

/// What the network predicts: by an option, by the configurations that were given, by the data
/// beside the tensors.
#[test]
fn predictions_have_an_order() {
    let mut file = File::new("model.diffusion_model.");
    file.open_clip("cond_stage_model.model.", 2);
    let of = |opened: &SingleFile| {
        let scheduler: Value = serde_json::from_str(&opened.config("scheduler").unwrap()).unwrap();
        let report = opened.report();
        assert_eq!(scheduler["prediction_type"], json!(report.prediction_type));
        let assumed = report
            .assumptions
            .iter()
            .any(|line| line.contains("predicts v"));
        (report.prediction_type, assumed)
    };
    for (metadata, prediction) in [
        (
            json!({"modelspec.architecture": "stable-diffusion-v2-512"}),
            PredictionType::Epsilon,
        ),
        (
            json!({"modelspec.architecture": "stable-diffusion-v2-768-v"}),
            PredictionType::V,
        ),
        (json!({"global_step": "875000"}), PredictionType::Epsilon),
    ] {
        file.metadata = metadata;
        assert_eq!(of(&file.open()), (prediction, false));
    }
    file.metadata = json!({"global_step": "110000"});
    assert_eq!(of(&file.open()), (PredictionType::V, true));

    let dir = tempfile::tempdir().unwrap();
    for (name, config) in [
        (
            "scheduler/scheduler_config.json",
            r#"{"prediction_type": "epsilon", "x": 7}"#,
        ),
        ("text_encoder/config.json", "{}"),
    ] {
        let path = dir.path().join(name);
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(path, config).unwrap();
    }
    let options = SingleFileOptions::new().with_configs(dir.path());
    let given = file.open_with(&options).unwrap();
    assert_eq!(of(&given), (PredictionType::Epsilon, false));
    let options = options.with_prediction_type(PredictionType::V);
    let given = file.open_with(&options).unwrap();
    assert_eq!(of(&given), (PredictionType::V, false));
    let scheduler: Value = serde_json::from_str(&given.config("scheduler").unwrap()).unwrap();
    assert_eq!(scheduler["x"], 7);
    let path = dir.path().join("scheduler/scheduler_config.json");
    std::fs::write(&path, r#"{"prediction_type": "noise"}"#).unwrap();
    let options = SingleFileOptions::new().with_configs(dir.path());
    let error = file.open_with(&options).unwrap_err().to_string();
    assert!(error.contains("`prediction_type` is \"noise\""), "{error}");
    let error = SingleFile::open(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("TextToImagePipeline::from_pretrained"),
        "{error}"
    );
}

/// The projection of OpenCLIP's models is multiplied from the other side.
#[test]
fn refiners_have_the_second_text_encoder_alone() {
    let mut file = File::new("model.diffusion_model.");
    file.add("model.diffusion_model.label_emb.0.0.weight", &[2, 6]);
    file.open_clip("conditioner.embedders.0.model.", 2);
    let opened = file.open();
    assert_eq!(opened.family(), Family::StableDiffusionXlRefiner);
    assert_eq!(opened.parts(), ["unet", "text_encoder_2"]);
    assert_eq!(opened.report().missing_parts, ["vae"]);
    let reader = opened.component_reader("text_encoder_2").unwrap();
    assert_eq!(reader.shape("text_projection.weight"), Some(&[3, 4][..]));
    assert_eq!(
        reader.read("text_projection.weight").unwrap()[..4],
        [0.0, 3.0, 6.0, 9.0]
    );
    assert!(reader.contains("text_model.encoder.layers.1.mlp.fc2.bias"));
    let index: Value = serde_json::from_str(&opened.config("model_index").unwrap()).unwrap();
    assert_eq!(index["text_encoder"], json!([null, null]));
    assert_eq!(index["text_encoder_2"][1], "CLIPTextModelWithProjection");
    let error = opened.component_reader("vae").unwrap_err().to_string();
    assert!(
        error.contains("`part` is vae, expected one of unet, text_encoder_2"),
        "{error}"
    );
}

/// Stable Diffusion 3's files leave out a projection that is the identity.
#[test]
fn the_first_text_encoder_of_version_3_has_an_identity() {
    let mut file = File {
        dir: tempfile::tempdir().unwrap(),
        metadata: json!({}),
        tensors: vec![],
    };
    file.add(
        "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight",
        &[6, 2],
    );
    let clip = "text_encoders.clip_l.transformer.text_model";
    file.add(
        &format!("{clip}.embeddings.token_embedding.weight"),
        &[5, 2],
    );
    file.add(
        &format!("{clip}.encoder.layers.0.self_attn.q_proj.weight"),
        &[2, 2],
    );
    let t5 = "text_encoders.t5xxl.transformer";
    file.add(&format!("{t5}.shared.weight"), &[5, 2]);
    file.add(&format!("{t5}.encoder.embed_tokens.weight"), &[5, 2]);
    file.add(
        &format!("{t5}.encoder.block.0.layer.0.SelfAttention.q.weight"),
        &[2, 2],
    );
    let opened = file.open();
    assert_eq!(opened.family(), Family::StableDiffusion3);
    assert_eq!(
        opened.parts(),
        ["transformer", "text_encoder", "text_encoder_3"]
    );
    assert!(opened.report().unused.is_empty(), "{}", opened.report());
    let reader = opened.component_reader("text_encoder").unwrap();
    assert_eq!(
        reader.read("text_projection.weight").unwrap(),
        [1.0, 0.0, 0.0, 1.0]
    );
    // What a pipeline needs from elsewhere, and what it does without.
    assert_eq!(opened.report().missing_parts, ["vae", "text_encoder_2"]);
    let mut without = file.tensors.clone();
    without.retain(|(name, _)| !name.starts_with("text_encoders."));
    let alone = File {
        dir: tempfile::tempdir().unwrap(),
        metadata: json!({}),
        tensors: without,
    };
    let lines = alone.open().report().warnings().join("\n");
    for line in [
        "takes from a directory: vae, text_encoder, text_encoder_2\n",
        "can do without: text_encoder_3\n",
    ] {
        assert!(lines.contains(line), "{lines}");
    }
    let reader = opened.component_reader("text_encoder_3").unwrap();
    assert_eq!(reader.names().count(), 2);
    // Layers that the file should have.
    let missing = &opened.report().parts[1].missing;
    assert!(
        missing.contains(&format!("{clip}.final_layer_norm.bias")),
        "{missing:?}"
    );
    assert!(
        opened
            .report()
            .to_string()
            .contains("tensors missing for text_encoder: ")
    );
}

#[test]
fn averaged_weights_are_a_choice() {
    let mut file = File::new("model.diffusion_model.");
    let options = SingleFileOptions::new().with_averaged_weights();
    let error = file.open_with(&options).unwrap_err().to_string();
    assert!(error.contains("averages of 0 of 4 tensors"), "{error}");
    for (name, shape) in file.tensors.clone() {
        let inner = name.strip_prefix("model.").unwrap().replace('.', "");
        file.add(&format!("model_ema.{inner}"), &shape);
    }
    file.add("model_ema.decay", &[]);
    let opened = file.open_with(&options).unwrap();
    assert_eq!(
        (opened.report().averaged, opened.report().uses_averaged),
        (5, true)
    );
    assert!(opened.report().unused.is_empty());
    assert!(
        file.open()
            .report()
            .to_string()
            .contains("averaged weights are not used")
    );
}
