//! Adapters of low rank: what they change, what moves when they are trained, and what becomes of
//! them in files.

use aigc_core::{
    CancelToken, Error,
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig},
    device::device,
    ops::Quantization,
    params::{ParamMapper, ParamVisitor, map_params, visit_params},
    rng::{InitWeights, Rng},
    train::{EmaConfig, Event, OptimizerConfig, StartFrom, StopReason, Trainer, TrainerConfig},
};
use aigc_tests::bits;
use aigc_text::{
    CausalLm, CausalLmObjective, GenerationConfig, Gpt2, Gpt2Config, LoraConfig, PretrainedModel,
    TextGenerator, TokenBatch, TokenDataset, next_token_loss,
};
use burn::{
    module::{Module, Param},
    tensor::{Gradients, Int, Tensor, TensorData},
};
use std::collections::{BTreeMap, BTreeSet};

/// Without dropout, which would draw from a generator that the tests of a process share.
fn model(seed: u64) -> Gpt2 {
    let config = Gpt2Config {
        vocab_size: 40,
        n_positions: 16,
        n_embd: 16,
        n_layer: 2,
        n_head: 2,
        initializer_range: 0.2,
        resid_pdrop: 0.0,
        embd_pdrop: 0.0,
        attn_pdrop: 0.0,
        bos_token_id: None,
        eos_token_id: None,
        ..Gpt2Config::default()
    };
    config
        .init(&device("flex").unwrap())
        .unwrap()
        .init_weights(seed)
}

fn config(rank: usize, targets: &[&str]) -> LoraConfig {
    LoraConfig {
        rank,
        alpha: 6.0,
        targets: targets.iter().map(ToString::to_string).collect(),
    }
}

const EVERY: &[&str] = &["c_attn", "c_proj", "c_fc"];

/// As after some training: no `B` is zero.
fn adapted(seed: u64, config: LoraConfig) -> Gpt2 {
    struct Stir(Rng);
    impl ParamMapper for Stir {
        fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Self(rng) = self;
            if path.ends_with("lora.b") {
                param.map(|b| rng.normal(b.dims(), &b.device()) * 0.2)
            } else {
                param
            }
        }
    }
    map_params(
        model(seed).with_lora(config).unwrap().init_weights(seed),
        &mut Stir(Rng::new(seed)),
    )
}

fn tokens(seed: u64) -> Tensor<2, Int> {
    let mut rng = Rng::new(seed);
    let ids: Vec<i32> = (0..24).map(|_| rng.random_index(40) as i32).collect();
    Tensor::from_data(TensorData::new(ids, [2, 12]), &device("flex").unwrap())
}

fn logits(model: &Gpt2) -> Vec<f32> {
    model.forward(tokens(9)).into_data().iter().collect()
}

fn furthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

/// Paths of what would be trained, and how many numbers that is.
fn trained(model: &Gpt2) -> (BTreeSet<String>, usize) {
    #[derive(Default)]
    struct TrainOutput(BTreeSet<String>, usize);
    impl ParamVisitor for TrainOutput {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            if param.val().is_require_grad() {
                self.0.insert(path.into());
                self.1 += param.val().shape().num_elements();
            }
        }
    }
    let mut trained = TrainOutput::default();
    visit_params(&model.clone().train(), &mut trained);
    (trained.0, trained.1)
}

#[test]
fn fresh_adapters_keep_logits_and_alone_are_trained() {
    let plain = model(1);
    // Sides of c_attn, attn.c_proj, c_fc and mlp.c_proj.
    let sides = [(16, 48), (16, 16), (16, 64), (64, 16)];
    let per_layer =
        |some: &[usize]| -> usize { some.iter().map(|i| sides[*i].0 + sides[*i].1).sum() };
    for (targets, some) in [
        (&["c_attn"][..], &[0][..]),
        (&["c_proj"], &[1, 3]),
        (&["attn.c_proj", "c_fc"], &[1, 2]),
        (EVERY, &[0, 1, 2, 3]),
    ] {
        for rank in [1, 4, 16] {
            let lora = plain
                .clone()
                .with_lora(config(rank, targets))
                .unwrap()
                .init_weights(1);
            assert_eq!(logits(&lora), logits(&plain), "{targets:?}");
            let (paths, n) = trained(&lora);
            assert_eq!(n, 2 * rank * per_layer(some), "{targets:?} of rank {rank}");
            assert_eq!(paths.len(), 2 * 2 * some.len());
            assert!(
                paths.iter().all(|path| path.contains(".weight.lora.")),
                "{paths:?}"
            );
            assert_eq!(lora.num_params(), plain.num_params() + n);
        }
    }
    // A layer of one block.
    let one = plain
        .clone()
        .with_lora(config(2, &["h.1.attn.c_attn"]))
        .unwrap();
    assert_eq!(trained(&one).0.len(), 2);
    // `A` depends on the seed and on nothing else.
    let drawn = |seed| {
        bits(
            &plain
                .clone()
                .with_lora(config(2, EVERY))
                .unwrap()
                .init_weights(seed),
        )
    };
    let a = "transformer.h.1.mlp.c_fc.weight.lora.a";
    assert_eq!(drawn(3), drawn(3));
    assert_ne!(drawn(3)[a], drawn(4)[a]);
    let bound = drawn(3)[a]
        .iter()
        .map(|bits| f32::from_bits(*bits).abs())
        .fold(0.0, f32::max);
    assert!(bound <= 0.25 && bound > 0.2, "uniform on ±1/√16: {bound}");
}

#[test]
fn merged_adapters_match_logits() {
    let (plain, lora) = (model(2), adapted(2, config(3, EVERY)));
    let expected = logits(&lora);
    assert!(
        furthest(&expected, &logits(&plain)) > 0.1,
        "the adapters do something"
    );
    let merged = lora.clone().merge_lora();
    let error = furthest(&logits(&merged), &expected);
    println!("merged: {error:.1e}");
    assert!(error < 1e-5, "{error}");
    // It is a model like any other: trained as a whole, saved, adapted again.
    assert!(merged.lora().is_none());
    assert_eq!(trained(&merged), trained(&plain));
    assert_eq!(
        trained(&lora.clone().train().merge_lora().valid()),
        trained(&plain)
    );
    let folder = tempfile::tempdir().unwrap();
    merged.save_pretrained(folder.path()).unwrap();
    let again = Gpt2::from_pretrained(folder.path(), &device("flex").unwrap()).unwrap();
    assert_eq!(bits(&*again), bits(&merged));
    assert_eq!(
        logits(&merged.clone().with_lora(config(2, EVERY)).unwrap()),
        logits(&merged)
    );
    // Without adapters there is nothing to do.
    assert_eq!(bits(&plain.clone().merge_lora()), bits(&plain));
    // Few bits: merged first.
    let packed = lora.clone().quantize(Quantization::Int8);
    assert!(packed.lora().is_none());
    assert_eq!(
        logits(&packed),
        logits(&merged.clone().quantize(Quantization::Int8))
    );
    // Through a cache, token by token.
    let go_on = |model: &Gpt2| {
        let config = GenerationConfig {
            max_new_tokens: Some(10),
            ..GenerationConfig::default()
        };
        TextGenerator::new(model, config)
            .unwrap()
            .generate(&[vec![3, 1, 4]])
            .unwrap()[0]
            .tokens
            .clone()
    };
    assert_eq!(go_on(&lora), go_on(&merged));
    assert_ne!(go_on(&lora), go_on(&plain));
}

/// Gradients by path.
struct Slopes<'a>(&'a Gradients, BTreeMap<String, Tensor<2>>);

impl ParamVisitor for Slopes<'_> {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        let gradient = param.val().grad(self.0).filter(|_| D == 2);
        self.1
            .extend(gradient.map(|gradient| (path.into(), gradient.reshape([0, -1]))));
    }
}

fn gradients(model: Gpt2) -> BTreeMap<String, Tensor<2>> {
    let batch = TokenBatch::collate(vec![
        vec![3, 1, 4, 1, 5, 9, 2, 6],
        vec![27, 18, 28, 18, 28, 4, 5, 9],
    ]);
    let model = model.train();
    let gradients = next_token_loss(&model, &batch, &model.devices()[0])
        .unwrap()
        .backward();
    let mut slopes = Slopes(&gradients, BTreeMap::new());
    visit_params(&model, &mut slopes);
    slopes.1
}

/// With `G` the gradient of `W + s·A·B`, that of `A` is `s·G·Bᵀ`, that of `B` is `s·Aᵀ·G`.
#[test]
fn lora_gradients_match_product_rule() {
    let lora = adapted(4, config(3, EVERY));
    let (found, whole) = (
        gradients(lora.clone()),
        gradients(lora.clone().merge_lora()),
    );
    assert_eq!(found.len(), 2 * 8);
    let values = bits(&lora);
    let mut worst = 0f32;
    for (path, a) in found
        .iter()
        .filter_map(|(path, a)| Some((path.strip_suffix(".lora.a")?, a)))
    {
        let (g, b) = (whole[path].clone(), &found[&format!("{path}.lora.b")]);
        let factor = |name: &str, shape: [usize; 2]| {
            let values: Vec<f32> = values[&format!("{path}.lora.{name}")]
                .iter()
                .map(|b| f32::from_bits(*b))
                .collect();
            Tensor::<2>::from_data(TensorData::new(values, shape), &g.device())
        };
        let (scale, [from, to]) = (6.0 / 3.0, g.dims());
        let of_a = g.clone().matmul(factor("b", [3, to]).transpose()) * scale;
        let of_b = factor("a", [from, 3]).transpose().matmul(g.clone()) * scale;
        for (found, expected) in [(a, of_a), (b, of_b)] {
            assert_eq!(found.dims(), expected.dims());
            let largest = expected.clone().abs().max().into_scalar::<f32>();
            assert!(largest > 1e-4);
            worst =
                worst.max((found.clone() - expected).abs().max().into_scalar::<f32>() / largest);
        }
    }
    println!("gradients: {worst:.1e}");
    assert!(worst < 1e-4, "{worst}");
}

/// Trains for twelve steps, stopping after each of `stops` and starting again.
fn train(network: &Gpt2, stops: &[usize]) -> (Gpt2, BTreeMap<String, Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    RunDir::create(&path).unwrap();
    let mut rng = Rng::new(8);
    let text: Vec<u32> = (0..300)
        .map(|i| {
            if i % 3 == 0 {
                rng.random_index(40) as u32
            } else {
                (i * 7 % 40) as u32
            }
        })
        .collect();
    let config = TrainerConfig {
        seed: 5,
        learning_rate: 1e-2,
        optimizer: OptimizerConfig::adam_w(0.9, 0.99, 0.1),
        max_grad_norm: Some(1.0),
        gradient_accumulation_steps: 2,
        ema: Some(EmaConfig::new(0.9)),
        ..TrainerConfig::new(12)
    };
    let mut model = None;
    for (attempt, stop) in stops.iter().chain([&usize::MAX]).enumerate() {
        let flag = CancelToken::new();
        let raise = flag.clone();
        let windows = TokenDataset::new(text.clone(), 8, 1).unwrap();
        let loading = DataLoaderConfig {
            batch_size: 4,
            shuffle_seed: Some(2),
            ..DataLoaderConfig::default()
        };
        let trained = Trainer::new(config.clone())
            .with_start(if attempt == 0 {
                StartFrom::Fresh
            } else {
                StartFrom::Resume
            })
            .with_cancel(flag)
            .with_callback(move |event: &Event<'_>| {
                if let Event::Step(report) = event
                    && report.step == *stop
                {
                    raise.cancel();
                }
            })
            .fit(
                CausalLmObjective::new(),
                network.clone(),
                &DataLoader::new(windows, TokenBatch::collate, loading).unwrap(),
                &RunDir::open(&path).unwrap(),
            )
            .unwrap();
        assert_eq!(
            trained.stop_reason,
            if *stop < 12 {
                StopReason::Interrupted
            } else {
                StopReason::Completed
            }
        );
        model = Some(trained.model);
    }
    let run = RunDir::open(&path).unwrap();
    let checkpoint = run.latest_checkpoint().unwrap();
    let mut files = BTreeMap::new();
    for name in ["state.json", "model.safetensors", "ema.safetensors"] {
        files.insert(
            name.to_string(),
            std::fs::read(checkpoint.path(name)).unwrap(),
        );
    }
    files.insert(
        "final".into(),
        std::fs::read(run.final_dir().join("model.safetensors")).unwrap(),
    );
    (model.unwrap(), files)
}

#[test]
fn lora_training_moves_adapters_alone_and_resumes_exactly() {
    let fresh = model(6).with_lora(config(2, EVERY)).unwrap();
    let (whole, files) = train(&fresh, &[]);
    let (before, after) = (bits(&fresh.clone().init_weights(5)), bits(&whole));
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        after.keys().collect::<Vec<_>>()
    );
    for (path, values) in &after {
        assert_eq!(*values != before[path], path.contains(".lora."), "{path}");
    }
    assert!(whole.lora().is_some());
    for stops in [&[6][..], &[1, 11], &[3, 4, 9]] {
        let (resumed, resumed_files) = train(&fresh, stops);
        for (name, bytes) in &files {
            assert!(
                *bytes == resumed_files[name],
                "{name} differs after stops at {stops:?}"
            );
        }
        assert_eq!(bits(&resumed), after);
    }
}

#[test]
fn saved_adapters_round_trip() {
    let lora = adapted(7, config(3, &["c_attn", "mlp.c_proj"]));
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    lora.save_lora(&one).unwrap();
    let again = model(7).load_lora(&one).unwrap();
    assert_eq!(bits(&again), bits(&lora));
    assert_eq!(
        (again.lora(), trained(&again)),
        (lora.lora(), trained(&lora))
    );
    assert_eq!(logits(&again), logits(&lora));
    again.save_lora(&two).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        assert_eq!(
            std::fs::read(one.join(name)).unwrap(),
            std::fs::read(two.join(name)).unwrap(),
            "{name}"
        );
    }
    // They are small: a header, and the factors.
    let size = std::fs::metadata(one.join("adapter_model.safetensors"))
        .unwrap()
        .len() as usize;
    assert!(size < 4 * trained(&lora).1 + 2048, "{size}");
}

#[test]
fn lora_errors_name_field_and_value() {
    let wrong = |config: LoraConfig| model(8).with_lora(config).unwrap_err();
    let table = [
        (
            LoraConfig {
                rank: 0,
                ..LoraConfig::default()
            },
            "`rank` is 0",
        ),
        (
            config(17, &["c_attn"]),
            "`rank` is 17, expected 1 to 16, the smaller side of transformer.h.0.attn.c_attn",
        ),
        (
            LoraConfig {
                alpha: 0.0,
                ..LoraConfig::default()
            },
            "`alpha`",
        ),
        (
            LoraConfig {
                alpha: f64::NAN,
                ..LoraConfig::default()
            },
            "`alpha`",
        ),
        (config(2, &[]), "`targets`"),
        (config(2, &["c_attn", "q_proj"]), "`targets` is q_proj"),
        (config(2, &["attn"]), "`targets` is attn"),
        (config(2, &["proj"]), "`targets` is proj"),
        (config(2, &["wte"]), "`targets` is wte"),
        (config(2, &[""]), "`targets`"),
    ];
    for (config, says) in table {
        let error = wrong(config);
        assert!(matches!(error, Error::Config { .. }), "{error:?}");
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
    let lora = adapted(8, config(2, EVERY));
    assert!(
        lora.clone()
            .with_lora(config(2, EVERY))
            .unwrap_err()
            .to_string()
            .contains("adapters already")
    );
    let packed = model(8).quantize(Quantization::Int8);
    assert!(
        packed
            .with_lora(config(2, EVERY))
            .unwrap_err()
            .to_string()
            .contains("quantised")
    );
    let folder = tempfile::tempdir().unwrap();
    assert!(
        lora.save_pretrained(folder.path())
            .unwrap_err()
            .to_string()
            .contains("merge")
    );
    assert!(
        model(8)
            .save_lora(folder.path())
            .unwrap_err()
            .to_string()
            .contains("without adapters")
    );
    assert!(matches!(
        model(8).load_lora(folder.path()),
        Err(Error::Io { .. })
    ));
    // Files that are of something else.
    lora.save_lora(folder.path()).unwrap();
    let path = folder.path().join("adapter_config.json");
    let good: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let load = |changes: serde_json::Value| {
        let mut fields = good.as_object().unwrap().clone();
        fields.extend(changes.as_object().unwrap().clone());
        std::fs::write(&path, serde_json::to_vec(&fields).unwrap()).unwrap();
        model(8).load_lora(folder.path())
    };
    for (changes, says) in [
        (serde_json::json!({ "peft_type": "IA3" }), "peft_type"),
        (serde_json::json!({ "bias": "all" }), "bias"),
        (serde_json::json!({ "use_dora": true }), "use_dora"),
        (serde_json::json!({ "use_rslora": true }), "use_rslora"),
        (
            serde_json::json!({ "rank_pattern": { "c_attn": 4 } }),
            "rank_pattern",
        ),
        (
            serde_json::json!({ "layers_to_transform": [1] }),
            "layers_to_transform",
        ),
        (serde_json::json!({ "of_the_future": 1 }), "of_the_future"),
        (
            serde_json::json!({ "init_lora_weights": "pissa" }),
            "init_lora_weights",
        ),
        (
            serde_json::json!({ "target_modules": ".*attn" }),
            "target_modules",
        ),
        (
            serde_json::json!({ "target_modules": ["q_proj"] }),
            "q_proj",
        ),
        (serde_json::json!({ "r": "two" }), "`r`"),
        (serde_json::json!({ "r": 64 }), "rank"),
    ] {
        let error = load(changes).unwrap_err().to_string();
        assert!(
            error.contains(says) && error.contains("adapter_config.json"),
            "{says}: {error}"
        );
    }
    let idle = serde_json::json!({ "lora_dropout": 0.1, "use_dora": false, "loftq_config": {}, "of_the_future": null });
    assert_eq!(bits(&load(idle).unwrap()), bits(&lora));
    // All that does not fit is named at once.
    let name =
        |layer: usize, rest: &str| format!("base_model.model.transformer.h.{layer}.{rest}.weight");
    let error =
        load(serde_json::json!({ "r": 3, "target_modules": ["c_attn", "c_proj"] })).unwrap_err();
    assert!(matches!(error, Error::Weights { .. }), "{error:?}");
    for part in [
        format!(
            "{} ([2, 16], expected [3, 16])",
            name(0, "attn.c_attn.lora_A")
        ),
        format!(
            "{} ([16, 2], expected [16, 3])",
            name(1, "mlp.c_proj.lora_B")
        ),
        format!("unexpected keys: {}", name(0, "mlp.c_fc.lora_A")),
    ] {
        assert!(error.to_string().contains(&part), "{part}: {error}");
    }
    let fewer = tempfile::tempdir().unwrap();
    adapted(8, config(2, &["c_fc"]))
        .save_lora(fewer.path())
        .unwrap();
    load(serde_json::json!({})).unwrap();
    std::fs::copy(&path, fewer.path().join("adapter_config.json")).unwrap();
    let error = model(8).load_lora(fewer.path()).unwrap_err().to_string();
    assert!(
        error.contains(&format!("missing keys: {}", name(0, "attn.c_attn.lora_A"))),
        "{error}"
    );
}
