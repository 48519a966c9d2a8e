//! Low-rank adapters and textual inversion: what files change, by definition.

use crate::cases::{Case, every};
use aigc_core::{
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig, ImageBatch, InMemory, collate_images, digits},
    device::device,
    params::{ParamVisitor, visit_params},
    rng::{InitWeights, Rng},
    train::{Trainer, TrainerConfig},
    weights::{WeightDtype, WeightReader, restore_params},
};
use aigc_diffusion::{
    AnyDenoiser, Conditioning, Denoiser, DiffusionObjective, DiffusionObjectiveConfig,
    UNet2dConditionConfig, UNet2dConditionModel,
    models::{CrossDownBlockType, CrossUpBlockType, PerBlock},
};
use aigc_encoders::{clip::ClipTextModel, tokenizer::ClipTokenizer};
use aigc_pipelines::adapters::{
    Component, Lora, LoraConfig, LoraForm, LoraStack, LoraWriter, TextualInversion, detach,
    expand_prompt,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor},
};
use serde_json::Value;
use std::{collections::BTreeMap, path::PathBuf};

fn has_loras(case: &Case) -> bool {
    case.text("kind") == "prompt-pipeline" && case.json["loras"].is_array()
}

fn loras(case: &Case) -> Vec<(PathBuf, Value)> {
    let loras = case.json["loras"].as_array().unwrap();
    let path = |lora: &Value| case.dir.join(lora["file"].as_str().unwrap());
    loras
        .iter()
        .map(|lora| (path(lora), lora.clone()))
        .collect()
}

fn unet(case: &Case, flex: &Device) -> AnyDenoiser {
    let dir = case.path("pipeline").join("unet");
    AnyDenoiser::from_pretrained(dir, flex)
        .unwrap()
        .into_inner()
}

/// All float tensors by their paths.
fn values<M: Module>(model: &M) -> BTreeMap<String, Vec<f32>> {
    struct Collect(BTreeMap<String, Vec<f32>>);
    impl ParamVisitor for Collect {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            let values = param.val().into_data().iter::<f32>().collect();
            self.0.insert(path.into(), values);
        }
    }
    let mut all = Collect(BTreeMap::new());
    visit_params(model, &mut all);
    all.0
}

/// Numbers of axes by paths.
struct Ranks(BTreeMap<String, usize>);

impl ParamVisitor for Ranks {
    fn visit<const D: usize>(&mut self, path: &str, _: &Param<Tensor<D>>) {
        self.0.insert(path.into(), D);
    }
}

/// What a file says of one layer.
struct Change {
    down: Vec<f32>,
    up: Vec<f32>,
    rank: usize,
    scale: f64,
}

/// Factors and scale of every layer of a part that a file changes, by the layer's name: the part
/// after the prefix, with underscores for dots.
fn changes(case: &Case, component: &str) -> BTreeMap<String, Vec<Change>> {
    let mut all: BTreeMap<String, Vec<Change>> = BTreeMap::new();
    for (path, lora) in loras(case) {
        let reader = WeightReader::open(&path).unwrap();
        let two = case.text("cls").contains("XL");
        let kohya = match component {
            "unet" => "lora_unet_",
            "text_encoder" if two => "lora_te1_",
            "text_encoder" => "lora_te_",
            _ => "lora_te2_",
        };
        for (down, up) in [
            (".lora_A.weight", ".lora_B.weight"),
            (".lora.down.weight", ".lora.up.weight"),
            (".lora_down.weight", ".lora_up.weight"),
        ] {
            for name in reader.names() {
                let Some(stem) = name.strip_suffix(down) else {
                    continue;
                };
                let inner = stem.strip_prefix(kohya);
                let dotted = || stem.strip_prefix(&format!("{component}."));
                let Some(layer) = inner.or_else(dotted) else {
                    continue;
                };
                let rank = reader.shape(name).unwrap()[0];
                let alpha = format!("{stem}.alpha");
                let alpha = match reader.contains(&alpha) {
                    true => f64::from(reader.read(&alpha).unwrap()[0]),
                    false => rank as f64,
                };
                let scale = lora["scale"].as_f64().unwrap() * alpha / rank as f64;
                let change = Change {
                    down: reader.read(name).unwrap(),
                    up: reader.read(&format!("{stem}{up}")).unwrap(),
                    rank,
                    scale,
                };
                all.entry(layer.replace('.', "_")).or_default().push(change);
            }
        }
    }
    all
}

/// Fails unless the weights of exactly the layers that the files name have changed, by
/// `scale · alpha / rank · up · down`.
fn assert_changed<M: Module>(case: &Case, component: &str, before: &M, after: &M) {
    let mut ranks = Ranks(BTreeMap::new());
    visit_params(before, &mut ranks);
    let Ranks(ranks) = ranks;
    let (before, after) = (values(before), values(after));
    let mut changes = changes(case, component);
    assert!(!changes.is_empty(), "{component}");
    assert!(before.keys().eq(after.keys()));
    for (path, old) in &before {
        let new = &after[path];
        let layer = path.strip_suffix(".weight").unwrap_or("").replace('.', "_");
        let Some(factors) = changes.remove(&layer) else {
            assert_eq!(old, new, "{path} changed");
            continue;
        };
        let rows = factors[0].up.len() / factors[0].rank;
        let columns = old.len() / rows;
        // Linear weights are `[in, out]` in memory.
        let linear = ranks[path] == 2;
        for row in 0..rows {
            for column in 0..columns {
                let at = if linear {
                    column * rows + row
                } else {
                    row * columns + column
                };
                let mut expected = f64::from(old[at]);
                for Change {
                    down,
                    up,
                    rank,
                    scale,
                } in &factors
                {
                    let product: f64 = (0..*rank)
                        .map(|k| {
                            f64::from(up[row * rank + k]) * f64::from(down[k * columns + column])
                        })
                        .sum();
                    expected += scale * product;
                }
                let off = (f64::from(new[at]) - expected).abs();
                assert!(
                    off < 1e-5 * expected.abs().max(1.0),
                    "{path} is off by {off:.1e}"
                );
            }
        }
    }
    assert!(changes.is_empty(), "no layers for {:?}", changes.keys());
}

#[test]
fn unets_change_as_defined() {
    every(has_loras, |case| {
        let flex = device("flex").unwrap();
        let before = unet(case, &flex);
        let mut stack = LoraStack::new();
        for (path, lora) in loras(case) {
            let opened = Lora::open(&path).unwrap();
            let form = match lora["form"].as_str().unwrap() {
                "peft" => LoraForm::Peft,
                "old" => LoraForm::Diffusers,
                _ => LoraForm::Kohya,
            };
            assert_eq!(opened.form(), form);
            stack = stack.with(opened, lora["scale"].as_f64().unwrap()).unwrap();
        }
        let (after, mut originals) = stack.merge(before.clone(), Component::Unet).unwrap();
        assert_changed(case, "unet", &before, &after);
        let reports = stack.finish().unwrap();
        assert!(reports.iter().all(|report| !report.applied.is_empty()));
        // Removed bit for bit.
        let restored = restore_params(after, &mut originals);
        assert_eq!(values(&restored), values(&before));
    });
}

#[test]
fn text_encoders_change_as_defined() {
    every(
        |case| has_loras(case) && !case.name().contains("diffusers-old"),
        |case| {
            let flex = device("flex").unwrap();
            let mut stack = LoraStack::new();
            for (path, lora) in loras(case) {
                let scale = lora["scale"].as_f64().unwrap();
                stack = stack.with(Lora::open(&path).unwrap(), scale).unwrap();
            }
            let mut parts = vec![(Component::TextEncoder, "text_encoder")];
            if case.text("cls").contains("XL") {
                parts.push((Component::TextEncoder2, "text_encoder_2"));
            }
            for (component, name) in parts {
                let dir = case.path("pipeline").join(name);
                let before = ClipTextModel::from_pretrained(dir, &flex)
                    .unwrap()
                    .into_inner();
                let (after, _) = stack.merge(before.clone(), component).unwrap();
                assert_changed(case, name, &before, &after);
            }
            let (network, _) = stack.merge(unet(case, &flex), Component::Unet).unwrap();
            drop(network);
            // Every tensor has a layer in one of the parts.
            for report in stack.finish().unwrap() {
                assert!(report.is_complete(), "{report:?}");
            }
        },
    );
}

fn has_inversions(case: &Case) -> bool {
    case.text("kind") == "prompt-pipeline" && case.json["textual_inversions"].is_array()
}

/// Prompts become the same tokens, and the same states.
#[test]
fn textual_inversions_extend_tokenizer_and_text_encoder() {
    every(has_inversions, |case| {
        let flex = device("flex").unwrap();
        let dir = case.path("pipeline");
        let mut tokenizer = ClipTokenizer::from_pretrained(dir.join("tokenizer")).unwrap();
        let model = ClipTextModel::from_pretrained(dir.join("text_encoder"), &flex).unwrap();
        let mut model = model.into_inner();
        for inversion in case.json["textual_inversions"].as_array().unwrap() {
            let opened = TextualInversion::open(case.dir.join(inversion["file"].as_str().unwrap()));
            let opened = opened
                .unwrap()
                .with_token(inversion["token"].as_str().unwrap());
            let width = model.config().hidden_size;
            assert!(opened.fits(Component::TextEncoder, width));
            assert!(!opened.fits(Component::TextEncoder, width + 1));
            model = opened
                .add_to(Component::TextEncoder, &mut tokenizer, model)
                .unwrap();
            // The token cannot be added twice.
            let again = opened.add_to(Component::TextEncoder, &mut tokenizer, model.clone());
            assert!(again.is_err());
        }
        for (k, (prompt, embeds)) in [
            ("prompt", "prompt_embeds"),
            ("negative_prompt", "negative_prompt_embeds"),
        ]
        .into_iter()
        .enumerate()
        {
            let prompt = case.json["arguments"][prompt].as_str().unwrap();
            let prompt = expand_prompt(prompt, &tokenizer);
            let batch = tokenizer.encode_padded(&[&prompt]).unwrap();
            let (_, ids) = case.values(&format!("ids.text_encoder.{k}"));
            let found: Vec<f64> = batch.ids[0].iter().map(|id| f64::from(*id)).collect();
            assert_eq!(found, ids, "{}", case.name());
            let output = model.forward(batch.input_ids(&flex), None);
            case.assert_close(embeds, &output.last_hidden_state, 1e-4);
        }
    });
}

/// An embedding for another model: both widths are named, and the tokenizer is unchanged.
#[test]
fn inversions_for_other_models_are_refused() {
    every(
        |case| case.name() == "sd15-textual-inversion-three",
        |case| {
            let flex = device("flex").unwrap();
            let dir = case.dir.join("../tiny-sdxl");
            let mut tokenizer = ClipTokenizer::from_pretrained(dir.join("tokenizer_2")).unwrap();
            let model = ClipTextModel::from_pretrained(dir.join("text_encoder_2"), &flex).unwrap();
            let width = model.config().hidden_size;
            let inversion = TextualInversion::open(case.dir.join("embedding.safetensors")).unwrap();
            let size = tokenizer.vocab_size();
            let component = Component::TextEncoder2;
            let error = inversion
                .add_to(component, &mut tokenizer, model.into_inner())
                .unwrap_err();
            let error = error.to_string();
            assert!(error.contains("have the width 32"), "{error}");
            assert!(
                error.contains(&format!("have the width {width}")),
                "{error}"
            );
            assert!(error.contains("embedding.safetensors"), "{error}");
            assert_eq!(tokenizer.vocab_size(), size);
        },
    );
}

/// Attached adapters give the weights that merged ones do, and leave no trace.
#[test]
fn attached_adapters_equal_merged_ones() {
    every(has_loras, |case| {
        let flex = device("flex").unwrap();
        let plain = unet(case, &flex);
        let stack = || {
            loras(case)
                .into_iter()
                .fold(LoraStack::new(), |stack, (path, lora)| {
                    let scale = lora["scale"].as_f64().unwrap();
                    stack.with(Lora::open(path).unwrap(), scale).unwrap()
                })
        };
        let (merged, _) = stack().merge(plain.clone(), Component::Unet).unwrap();
        let attached = stack().attach(plain.clone(), Component::Unet).unwrap();
        let (merged, materialised) = (values(&merged), values(&attached.clone().materialize()));
        for (path, value) in &merged {
            let other = &materialised[path];
            let apart = value.iter().zip(other).map(|(a, b)| (a - b).abs());
            let worst = apart.fold(0f32, f32::max);
            assert!(worst < 2e-5, "{path} is off by {worst:.1e}");
        }
        // A second set cannot be attached; the first is removed bit for bit.
        let twice = stack().attach(attached.clone(), Component::Unet);
        assert!(twice.unwrap_err().to_string().contains("detach"));
        assert_eq!(values(&detach(attached)), values(&plain));
    });
}

/// An adapter of one network for another: all tensors that do not fit are named at once.
#[test]
fn adapters_for_other_networks_are_refused() {
    every(
        |case| has_loras(case) && case.text("cls").contains("XL"),
        |case| {
            let flex = device("flex").unwrap();
            let dir = case.dir.join("../tiny-sd15/unet");
            let other = AnyDenoiser::from_pretrained(dir, &flex)
                .unwrap()
                .into_inner();
            let (path, _) = loras(case).remove(0);
            let mut stack = LoraStack::new()
                .with(Lora::open(&path).unwrap(), 1.0)
                .unwrap();
            let (unchanged, originals) = stack.merge(other.clone(), Component::Unet).unwrap();
            assert!(originals.is_empty());
            assert_eq!(values(&unchanged), values(&other));
            let error = stack.finish().unwrap_err().to_string();
            let reader = WeightReader::open(&path).unwrap();
            for name in reader
                .names()
                .filter(|name| name.contains("attn2_to_k.lora_down"))
            {
                assert!(error.contains(name), "{name} is not in: {error}");
            }
            assert!(error.contains("size mismatch") && error.contains("lora.safetensors"));
            // Nothing for this part.
            let lora = Lora::open(&path).unwrap();
            let nothing = lora.merge(other, Component::TextEncoder3, 1.0).unwrap_err();
            let nothing = nothing.to_string();
            assert!(nothing.contains("applies to nothing"), "{nothing}");
            assert!(nothing.contains("lora_te2_text_model"), "{nothing}");
        },
    );
}

/// Weights in half precision stay so.
#[test]
fn adapters_merge_into_half_precision() {
    every(
        |case| has_loras(case) && case.name().ends_with("lora-kohya"),
        |case| {
            let flex = device("flex").unwrap();
            let dir = case.path("pipeline").join("unet");
            let config = std::fs::read_to_string(dir.join("config.json")).unwrap();
            let reader = WeightReader::from_dir(&dir, &["diffusion_pytorch_model"]).unwrap();
            let half = |dtype| AnyDenoiser::from_weights(&config, &reader, dtype, &flex).unwrap();
            let plain = half(WeightDtype::F16).into_inner();
            let (path, lora) = loras(case).remove(0);
            let scale = lora["scale"].as_f64().unwrap();
            let open = || Lora::open(&path).unwrap();
            let (merged, mut originals, _) =
                open().merge(plain.clone(), Component::Unet, scale).unwrap();
            let full = half(WeightDtype::F32).into_inner();
            let (exact, _, _) = open().merge(full, Component::Unet, scale).unwrap();
            let (merged_values, exact) = (values(&merged), values(&exact));
            for (path, value) in &merged_values {
                let apart = value
                    .iter()
                    .zip(&exact[path])
                    .map(|(a, b)| (a - b).abs() / b.abs().max(1.0));
                let worst = apart.fold(0f32, f32::max);
                assert!(worst < 2e-3, "{path} is off by {worst:.1e}");
            }
            assert_eq!(
                values(&restore_params(merged, &mut originals)),
                values(&plain)
            );
        },
    );
}

/// A small network in the shape of Stable Diffusion's.
fn small(seed: u64) -> UNet2dConditionModel {
    let config = UNet2dConditionConfig {
        in_channels: 1,
        out_channels: 1,
        down_block_types: vec![
            CrossDownBlockType::CrossAttnDownBlock2D,
            CrossDownBlockType::DownBlock2D,
        ],
        up_block_types: vec![
            CrossUpBlockType::UpBlock2D,
            CrossUpBlockType::CrossAttnUpBlock2D,
        ],
        block_out_channels: vec![8, 16],
        layers_per_block: 1,
        norm_num_groups: 4,
        cross_attention_dim: 6,
        attention_head_dim: PerBlock::One(2),
        ..UNet2dConditionConfig::default()
    };
    config
        .init(&device("flex").unwrap())
        .unwrap()
        .init_weights(seed)
}

fn trained_adapters(network: UNet2dConditionModel, steps: usize) -> UNet2dConditionModel {
    let images = InMemory(digits::train_test_split().0.0[..32].to_vec());
    let config = DataLoaderConfig {
        batch_size: 8,
        ..DataLoaderConfig::default()
    };
    let batches = DataLoader::new(images, collate_images, config).unwrap();
    // Tokens that differ, so that queries matter.
    let states = |batch: &ImageBatch, device: &Device| {
        Ok(Rng::new(5)
            .normal([1, 3, 6], device)
            .expand([batch.len(), 3, 6]))
    };
    let objective = DiffusionObjective::new(DiffusionObjectiveConfig::default(), &network)
        .unwrap()
        .with_encoder_hidden_states(states, None);
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::create(folder.path().join("run")).unwrap();
    let config = TrainerConfig {
        learning_rate: 0.02,
        ..TrainerConfig::new(steps)
    };
    let trainer = Trainer::new(config);
    trainer
        .fit(objective, network, &batches, &run)
        .unwrap()
        .model
}

/// Adapters alone are trained; written in every form, they change the plain network as they do
/// when attached.
#[test]
fn trained_adapters_are_written_and_opened() {
    let plain = small(3);
    let config = LoraConfig {
        rank: 2,
        alpha: 3.0,
        targets: ["to_q", "to_v", "to_out.0", "conv1"].map(Into::into).into(),
    };
    let fresh = config.attach(plain.clone()).unwrap().init_weights(4);
    let before = values(&fresh);
    let flex = device("flex").unwrap();
    let output = |network: &UNet2dConditionModel| -> Vec<f32> {
        let mut rng = Rng::new(1);
        let (x, tokens) = (
            rng.normal([2, 1, 8, 8], &flex),
            rng.normal([2, 3, 6], &flex),
        );
        let condition = Conditioning {
            encoder_hidden_states: Some(tokens),
            ..Conditioning::default()
        };
        let time = Tensor::from_floats([500.0, 20.0], &flex);
        let output = network.predict(x, time, &condition);
        output.into_data().iter::<f32>().collect()
    };
    assert_eq!(output(&fresh), output(&plain));
    let trained = trained_adapters(fresh, 6).valid();
    let after = values(&trained);
    for (path, value) in &after {
        let changes = path.ends_with(".lora.a") || path.ends_with(".lora.b");
        assert_eq!(before[path] != *value, changes, "{path}");
    }
    let expected = output(&trained);
    let apart = |a: &[f32], b: &[f32]| {
        let pairs = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        pairs.fold(0f32, f32::max)
    };
    assert!(apart(&expected, &output(&plain)) > 1e-4);
    let writer = LoraWriter::new().with(&trained, Component::Unet).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for form in [LoraForm::Peft, LoraForm::Diffusers, LoraForm::Kohya] {
        writer.save(folder.path(), form).unwrap();
        let path = folder.path().join("pytorch_lora_weights.safetensors");
        let reader = WeightReader::open(&path).unwrap();
        let query = match form {
            LoraForm::Kohya => {
                "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.alpha"
            }
            LoraForm::Peft => {
                "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight"
            }
            _ => "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora.up.weight",
        };
        assert!(reader.contains(query), "{query}");
        let lora = Lora::open(folder.path()).unwrap();
        assert_eq!(lora.form(), form);
        let (merged, _, report) = lora.merge(plain.clone(), Component::Unet, 1.0).unwrap();
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(report.applied.len(), 2 * report.layers.len());
        let off = apart(&output(&merged), &expected);
        assert!(off < 1e-5, "{form:?} is off by {off:.1e}");
        let attached = Lora::open(&path)
            .unwrap()
            .attach(plain.clone(), Component::Unet, 1.0);
        let off = apart(&output(&attached.unwrap().0), &expected);
        assert!(off < 1e-5, "{form:?} is off by {off:.1e}");
    }
    // What is not attached cannot be written, and what is attached not attached again.
    let nothing = LoraWriter::new().with(&plain, Component::Unet).unwrap_err();
    assert!(
        nothing.to_string().contains("without attached adapters"),
        "{nothing}"
    );
    let twice = config.attach(trained).unwrap_err();
    assert!(twice.to_string().contains("attached adapters"), "{twice}");
    let unknown = LoraConfig {
        targets: vec!["c_attn".into()],
        ..config
    };
    let unknown = unknown.attach(plain).unwrap_err().to_string();
    assert!(
        unknown.contains("`targets` is c_attn") && unknown.contains("to_q"),
        "{unknown}"
    );
}

/// An inversion as `tests/reference/checkpoint.py` writes it: WebUI's pickle, whose token is the
/// name of the file.
#[test]
fn pickled_inversions_open() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/prompt/style.pt");
    let inversion = TextualInversion::open(path).unwrap();
    assert_eq!(inversion.tokens(), ["style", "style_1", "style_2"]);
    assert!(inversion.fits(Component::TextEncoder, 4));
}
