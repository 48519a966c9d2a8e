//! Files of all families, at the sizes of the published models where no values are needed, and
//! files that are broken or lie.

use super::{
    Family, SingleFile, SingleFileOptions, config,
    family::detect,
    scope::{Part, Scope, Shapes},
    unet::UnetLayout,
};
use aigc_core::{nn::diffusers::diffusers_key, weights::stored_params};
use aigc_diffusion::{PredictionType, UNet2dConditionConfig};
use burn::tensor::Device;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The U-net's configuration of a published model.
fn published(family: Family) -> Value {
    let (down, cross) = ("DownBlock2D", "CrossAttnDownBlock2D");
    let (up, up_cross) = ("UpBlock2D", "CrossAttnUpBlock2D");
    let four = json!({
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": [cross, cross, cross, down],
        "up_block_types": [up, up_cross, up_cross, up_cross],
        "transformer_layers_per_block": 1,
    });
    let xl = json!({
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "use_linear_projection": true,
        "sample_size": 128,
    });
    let own = match family {
        Family::StableDiffusion1 => json!({
            "attention_head_dim": 8, "cross_attention_dim": 768, "sample_size": 64,
        }),
        Family::StableDiffusion1Inpainting => json!({
            "attention_head_dim": 8, "cross_attention_dim": 768, "sample_size": 64,
            "in_channels": 9,
        }),
        Family::LatentConsistency => json!({
            "attention_head_dim": 8, "cross_attention_dim": 768, "sample_size": 96,
            "time_cond_proj_dim": 256,
        }),
        Family::StableDiffusion2 => json!({
            "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024,
            "sample_size": 96, "use_linear_projection": true,
        }),
        Family::StableDiffusionXl => json!({
            "block_out_channels": [320, 640, 1280],
            "down_block_types": [down, cross, cross],
            "up_block_types": [up_cross, up_cross, up],
            "transformer_layers_per_block": [1, 2, 10],
            "attention_head_dim": [5, 10, 20],
            "cross_attention_dim": 2048,
            "projection_class_embeddings_input_dim": 2816,
        }),
        Family::StableDiffusionXlRefiner => json!({
            "block_out_channels": [384, 768, 1536, 1536],
            "down_block_types": [down, cross, cross, down],
            "up_block_types": [up, up_cross, up_cross, up],
            "transformer_layers_per_block": 4,
            "attention_head_dim": [6, 12, 24, 24],
            "cross_attention_dim": 1280,
            "projection_class_embeddings_input_dim": 2560,
        }),
        other => panic!("{other}"),
    };
    let mut all = json!({
        "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "norm_num_groups": 32,
        "norm_eps": 1e-5, "act_fn": "silu", "flip_sin_to_cos": true, "freq_shift": 0,
        "downsample_padding": 1, "mid_block_scale_factor": 1,
    });
    let parts = [Some(four), family.is_xl().then_some(xl), Some(own)];
    for part in parts.into_iter().flatten() {
        for (name, value) in part.as_object().unwrap() {
            all[name] = value.clone();
        }
    }
    all
}

/// The names and shapes of a published network under its original names; nothing is allocated.
fn original(config: &UNet2dConditionConfig) -> Shapes {
    let network = config.init(&Device::flex()).unwrap();
    let params = stored_params(&network, diffusers_key);
    let named: Shapes = params
        .into_iter()
        .map(|param| (param.name, param.shape))
        .collect();
    let layout = UnetLayout::from_diffusers(Scope::new(&named, ""));
    let mut shapes = Shapes::new();
    for layer in layout.layers() {
        for param in ["weight", "bias"] {
            if let Some(shape) = named.get(&format!("{}.{param}", layer.diffusers)) {
                let name = format!("model.diffusion_model.{}.{param}", layer.original);
                shapes.insert(name, shape.clone());
            }
        }
    }
    assert_eq!(shapes.len(), named.len(), "a layer has no original name");
    shapes
}

#[test]
fn published_networks_are_recognised_with_their_configurations() {
    for family in [
        Family::StableDiffusion1,
        Family::StableDiffusion1Inpainting,
        Family::LatentConsistency,
        Family::StableDiffusion2,
        Family::StableDiffusionXl,
        Family::StableDiffusionXlRefiner,
    ] {
        let text = published(family).to_string();
        let expected = UNet2dConditionConfig::from_json(&text)
            .unwrap()
            .into_inner();
        let shapes = original(&expected);
        let (found, prefix) = detect(Path::new("a.ckpt"), &shapes).unwrap();
        assert_eq!(found, family);
        let scope = Scope::new(&shapes, prefix);
        let layout = UnetLayout::from_original(scope);
        assert_eq!(layout.problem(), None);
        let part = layout.part(scope);
        assert!(part.missing.is_empty(), "{family}: {:?}", part.missing);
        assert_eq!(part.sources.len(), shapes.len());
        let built = config::of_part(family, &part, &shapes).unwrap();
        let built = UNet2dConditionConfig::from_json(&built).unwrap();
        assert!(built.unused_fields.is_empty(), "{built}");
        assert_eq!(built.into_inner(), expected, "{family}");
    }
}

/// Some numbers of blocks that are known from the published file.
#[test]
fn published_names_are_those_of_the_file() {
    let config = UNet2dConditionConfig::from_json(&published(Family::StableDiffusion1).to_string());
    let shapes = original(&config.unwrap().into_inner());
    for (name, shape) in [
        (
            "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
            &[320, 768][..],
        ),
        ("input_blocks.4.0.skip_connection.weight", &[640, 320, 1, 1]),
        ("input_blocks.9.0.op.weight", &[1280, 1280, 3, 3]),
        ("input_blocks.11.0.out_layers.3.weight", &[1280, 1280, 3, 3]),
        ("middle_block.1.proj_in.weight", &[1280, 1280, 1, 1]),
        ("output_blocks.2.1.conv.weight", &[1280, 1280, 3, 3]),
        ("output_blocks.8.2.conv.weight", &[640, 640, 3, 3]),
        (
            "output_blocks.11.0.skip_connection.weight",
            &[320, 640, 1, 1],
        ),
        (
            "output_blocks.11.1.transformer_blocks.0.ff.net.0.proj.weight",
            &[2560, 320],
        ),
    ] {
        let found = shapes.get(&format!("model.diffusion_model.{name}"));
        assert_eq!(found.map(|shape| &shape[..]), Some(shape), "{name}");
    }
    assert_eq!(shapes.len(), 686);
}

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
    assert!(config::of_part(Family::StableDiffusion1, &empty, &Shapes::new()).is_err());
}
