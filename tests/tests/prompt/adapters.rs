//! Low-rank adapters of files: what they change, by definition.

use crate::{
    cases::{Case, every},
    differences::apart,
};
use aigc_core::{
    device::device,
    params::{ParamVisitor, num_bytes, visit_params},
    rng::InitWeights,
    weights::{WeightDtype, WeightReader, restore_params},
};
use aigc_diffusion::{AnyDenoiser, UNet2dConditionConfig};
use aigc_encoders::clip::ClipTextModel;
use aigc_pipelines::adapters::{Component, Lora, LoraForm, LoraStack, detach};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor},
};
use serde_json::Value;
use std::{collections::BTreeMap, path::PathBuf};

const TEXT_ENCODERS: [Component; 2] = [Component::TextEncoder, Component::TextEncoder2];

fn loras(case: &Case) -> Vec<(PathBuf, Value)> {
    let loras = case.json["loras"].as_array().into_iter().flatten();
    let path = |lora: &Value| case.dir.join(lora["file"].as_str().unwrap());
    loras.map(|lora| (path(lora), lora.clone())).collect()
}

/// Whether files of a case change a part of its pipeline.
fn has_loras(case: &Case, component: Component) -> bool {
    case.text("kind") == "prompt-pipeline" && !changes(case, component).is_empty()
}

fn changes_unet(case: &Case) -> bool {
    has_loras(case, Component::Unet)
}

/// All adapters of a case, with their strengths.
fn stack(case: &Case) -> LoraStack {
    let loras = loras(case).into_iter();
    loras.fold(LoraStack::new(), |stack, (path, lora)| {
        let scale = lora["scale"].as_f64().unwrap();
        stack.with(Lora::open(path).unwrap(), scale).unwrap()
    })
}

fn unet(case: &Case, flex: &Device) -> AnyDenoiser {
    let dir = case.path("pipeline").join("unet");
    AnyDenoiser::from_pretrained(dir, flex)
        .unwrap()
        .into_inner()
}

/// All float tensors by their paths.
pub(crate) fn values<M: Module>(model: &M) -> BTreeMap<String, Vec<f32>> {
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
fn changes(case: &Case, component: Component) -> BTreeMap<String, Vec<Change>> {
    let mut all: BTreeMap<String, Vec<Change>> = BTreeMap::new();
    for (path, lora) in loras(case) {
        let reader = WeightReader::open(&path).unwrap();
        let two = case.text("cls").contains("XL");
        let kohya = match component {
            Component::Unet => "lora_unet_",
            Component::TextEncoder if two => "lora_te1_",
            Component::TextEncoder => "lora_te_",
            Component::TextEncoder2 => "lora_te2_",
            other => panic!("names of the {other} in kohya's files"),
        };
        let part = format!("{component}.");
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
                let Some(layer) = inner.or_else(|| stem.strip_prefix(&part)) else {
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
fn assert_changed<M: Module>(case: &Case, component: Component, before: &M, after: &M) {
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
    every(changes_unet, |case| {
        let flex = device("flex").unwrap();
        for (path, lora) in loras(case) {
            let form = match lora["form"].as_str().unwrap() {
                "peft" => LoraForm::Peft,
                "old" => LoraForm::Diffusers,
                "kohya" => LoraForm::Kohya,
                other => panic!("form {other}"),
            };
            assert_eq!(Lora::open(&path).unwrap().form(), form);
        }
        let (before, mut stack) = (unet(case, &flex), stack(case));
        let (after, mut originals) = stack.merge(before.clone(), Component::Unet).unwrap();
        assert_changed(case, Component::Unet, &before, &after);
        // Removed bit for bit.
        let restored = restore_params(after, &mut originals);
        assert_eq!(values(&restored), values(&before));
    });
}

#[test]
fn text_encoders_change_as_defined() {
    every(
        |case| TEXT_ENCODERS.iter().any(|part| has_loras(case, *part)),
        |case| {
            let (flex, mut stack) = (device("flex").unwrap(), stack(case));
            for component in TEXT_ENCODERS {
                if !has_loras(case, component) {
                    continue;
                }
                let dir = case.path("pipeline").join(component.name());
                let before = ClipTextModel::from_pretrained(dir, &flex)
                    .unwrap()
                    .into_inner();
                let (after, _) = stack.merge(before.clone(), component).unwrap();
                assert_changed(case, component, &before, &after);
            }
            stack.merge(unet(case, &flex), Component::Unet).unwrap();
            // Every tensor has a layer in one of the parts.
            for report in stack.finish().unwrap() {
                assert!(report.is_complete(), "{report:?}");
            }
        },
    );
}

/// Attached adapters give the weights that merged ones do, and leave no trace.
#[test]
fn attached_adapters_equal_merged_ones() {
    every(changes_unet, |case| {
        let flex = device("flex").unwrap();
        let plain = unet(case, &flex);
        let (merged, _) = stack(case).merge(plain.clone(), Component::Unet).unwrap();
        let attached = stack(case).attach(plain.clone(), Component::Unet).unwrap();
        let (merged, materialised) = (values(&merged), values(&attached.clone().materialize()));
        assert!(merged.keys().eq(materialised.keys()));
        for (path, value) in &merged {
            let worst = apart(&materialised[path], value);
            assert!(worst < 2e-5, "{path} is off by {worst:.1e}");
        }
        // A second set cannot be attached; the first is removed bit for bit.
        let twice = stack(case).attach(attached.clone(), Component::Unet);
        assert!(twice.unwrap_err().to_string().contains("detach"));
        assert_eq!(values(&detach(attached)), values(&plain));
    });
}

/// The first file of a case that changes cross-attention, and its tensors that are as wide as the
/// tokens of prompts.
fn cross_attention(case: &Case) -> Option<(PathBuf, Vec<String>)> {
    let reads_tokens = |name: &&str| {
        let is_down = name.contains("down.weight") || name.contains("lora_A");
        name.contains("attn2") && name.contains("to_k") && is_down
    };
    let files = loras(case).into_iter().map(|(path, _)| {
        let reader = WeightReader::open(&path).unwrap();
        let names = reader.names().filter(reads_tokens);
        let names: Vec<String> = names.map(str::to_owned).collect();
        (path, names)
    });
    let mut files = files.filter(|(_, names)| !names.is_empty());
    files.next()
}

/// An adapter of one network for another: all tensors that do not fit are named at once.
#[test]
fn adapters_for_other_networks_are_refused() {
    every(
        |case| changes_unet(case) && cross_attention(case).is_some(),
        |case| {
            let flex = device("flex").unwrap();
            let AnyDenoiser::UNet2dCondition(network) = unet(case, &flex) else {
                panic!("{}: no U-net with cross-attention", case.name());
            };
            let config = network.config();
            let wider = UNet2dConditionConfig {
                cross_attention_dim: 2 * config.cross_attention_dim,
                ..config.clone()
            };
            let other = AnyDenoiser::from(wider.init(&flex).unwrap().init_weights(1));
            let (path, names) = cross_attention(case).unwrap();
            let mut stack = LoraStack::new()
                .with(Lora::open(&path).unwrap(), 1.0)
                .unwrap();
            let (unchanged, originals) = stack.merge(other.clone(), Component::Unet).unwrap();
            assert!(originals.is_empty());
            assert_eq!(values(&unchanged), values(&other));
            let error = stack.finish().unwrap_err().to_string();
            for name in &names {
                assert!(error.contains(&**name), "{name} is not in: {error}");
            }
            let file = path.file_name().unwrap().to_string_lossy();
            assert!(error.contains("size mismatch") && error.contains(&*file));
            // Nothing for this part.
            let lora = Lora::open(&path).unwrap();
            let nothing = lora.merge(other, Component::TextEncoder3, 1.0).unwrap_err();
            let nothing = nothing.to_string();
            assert!(nothing.contains("applies to nothing"), "{nothing}");
            assert!(nothing.contains(&*names[0]), "{nothing}");
        },
    );
}

/// Weights in half precision stay so.
#[test]
fn adapters_merge_into_half_precision() {
    every(changes_unet, |case| {
        let flex = device("flex").unwrap();
        let dir = case.path("pipeline").join("unet");
        let config = std::fs::read_to_string(dir.join("config.json")).unwrap();
        let reader = WeightReader::from_dir(&dir, &["diffusion_pytorch_model"]).unwrap();
        let open = |dtype| {
            AnyDenoiser::from_weights(&config, &reader, dtype, &flex)
                .unwrap()
                .into_inner()
        };
        let (plain, full) = (open(WeightDtype::F16), open(WeightDtype::F32));
        let (merged, mut originals) = stack(case).merge(plain.clone(), Component::Unet).unwrap();
        assert_eq!(2 * num_bytes(&merged), num_bytes(&full));
        let (exact, _) = stack(case).merge(full, Component::Unet).unwrap();
        let (merged_values, exact) = (values(&merged), values(&exact));
        for (path, value) in &merged_values {
            let worst = apart(value, &exact[path]);
            assert!(worst < 2e-3, "{path} is off by {worst:.1e}");
        }
        let restored = restore_params(merged, &mut originals);
        assert_eq!(values(&restored), values(&plain));
    });
}
