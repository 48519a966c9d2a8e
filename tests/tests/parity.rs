//! Other implementations' numbers, from directories of fixtures: `tests/fixtures` and, if set, the
//! one that `AIGC_FIXTURES` names.
//!
//! Every case of a kind known here must pass; kinds not supported yet are listed.

#[path = "parity/gan.rs"]
mod gan;
#[path = "parity/nets.rs"]
mod nets;
#[path = "parity/schedulers.rs"]
mod schedulers;
#[path = "parity/text.rs"]
mod text;

use aigc_core::{
    Result,
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig, Image, ImageBatch, ImageShape, InMemory, collate_images},
    device::device,
    train::{Event, LossOutput, Objective, OptimizerConfig, StepContext, Trainer, TrainerConfig},
    weights::{load_weights, save_weights},
};
use aigc_tests::{folder_from, own_fixtures};
use aigc_vae::{AnyVae, Vae, VaeConfig, elbo};
use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Device, Tensor, TensorData},
};
use safetensors::SafeTensors;
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

/// Directories with a `case.json`, at any depth.
fn cases(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        if folder.join("case.json").is_file() {
            found.push(folder);
            continue;
        }
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                open.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn every_supported_fixture_passes() {
    let folders = std::iter::once(own_fixtures()).chain(folder_from("AIGC_FIXTURES"));
    let (mut passed, mut failed, mut unsupported) = (0, vec![], BTreeMap::<String, usize>::new());
    for case in folders.flat_map(|folder| cases(&folder)) {
        let text = std::fs::read_to_string(case.join("case.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let kind = json["kind"]
            .as_str()
            .or(json["case"].as_str())
            .unwrap_or("without a kind")
            .to_string();
        let check = || match kind.as_str() {
            "vae-steps" => vae_steps(&case, &json),
            "gan-steps" => gan::steps(&case, &json),
            "UNet2DModel" | "UNet2DConditionModel" | "DiTTransformer2DModel" => {
                nets::call(&case, &kind)
            }
            "pipeline" => nets::pipeline(&case, &json),
            "scheduler" => schedulers::steps(&case, &json),
            "gpt2_forward" => text::forward(&case, &json),
            "gpt2-files" => text::files(&case),
            "gpt2-lora" => text::lora(&case),
            "generate" => text::generate(&case, &json),
            "logits_processor" => text::processor(&case, &json),
            _ => *unsupported.entry(kind.clone()).or_default() += 1,
        };
        // All that fail are named, not only the first.
        match catch_unwind(AssertUnwindSafe(check)) {
            Ok(()) => passed += 1,
            Err(_) => failed.push(case),
        }
    }
    passed -= unsupported.values().sum::<usize>();
    if let Some(folder) = folder_from("AIGC_FIXTURES") {
        assert!(
            !cases(&folder).is_empty(),
            "no cases in {}",
            folder.display()
        );
    }
    println!("{passed} cases passed; kinds not supported yet: {unsupported:?}");
    assert!(
        failed.is_empty(),
        "{} cases failed: {failed:?}",
        failed.len()
    );
    assert!(passed >= 120, "the repository's own fixtures are missing");
}

/// Float tensors of a fixture by name.
struct Tensors(Vec<u8>);

impl Tensors {
    /// Those of a case.
    fn open(case: &Path) -> Self {
        Self(std::fs::read(case.join("tensors.safetensors")).unwrap())
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let data = tensors
            .tensor(name)
            .unwrap_or_else(|_| panic!("no `{name}`"))
            .data()
            .to_vec();
        data.chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    }

    fn doubles(&self, name: &str) -> Vec<f64> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = tensors
            .tensor(name)
            .unwrap_or_else(|_| panic!("no `{name}`"));
        assert_eq!(tensor.dtype(), safetensors::Dtype::F64, "{name}");
        tensor
            .data()
            .as_chunks()
            .0
            .iter()
            .map(|b| f64::from_le_bytes(*b))
            .collect()
    }

    fn integers(&self, name: &str) -> Vec<i64> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = tensors
            .tensor(name)
            .unwrap_or_else(|_| panic!("no `{name}`"));
        assert_eq!(tensor.dtype(), safetensors::Dtype::I64, "{name}");
        tensor
            .data()
            .as_chunks()
            .0
            .iter()
            .map(|b| i64::from_le_bytes(*b))
            .collect()
    }

    fn shape<const D: usize>(&self, name: &str) -> [usize; D] {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        tensors
            .tensor(name)
            .unwrap_or_else(|_| panic!("no `{name}`"))
            .shape()
            .try_into()
            .unwrap()
    }

    fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.0)
            .unwrap()
            .tensor(name)
            .is_ok()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.0)
            .unwrap()
            .tensor(name)
            .unwrap()
            .data()
            .to_vec()
    }

    /// The tensors under `prefix`, as a file of their own.
    fn save_under(&self, prefix: &str, path: &Path) {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let inside = tensors
            .iter()
            .filter_map(|(name, view)| Some((name.strip_prefix(prefix)?.to_string(), view)));
        safetensors::serialize_to_file(inside.collect::<Vec<_>>(), None, path).unwrap();
    }
}

/// The ELBO with the fixture's noise.
struct StoredNoise {
    noise: Vec<f32>,
}

impl Objective for StoredNoise {
    type Model = AnyVae;
    type Batch = ImageBatch;

    fn losses(
        &mut self,
        model: &AnyVae,
        batch: &ImageBatch,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        let x = batch.to_tensor(&context.device);
        let posterior = model.encode(x.clone());
        let [batch, latent] = posterior.mean.dims();
        let noise = self.noise[context.step * batch * latent..][..batch * latent].to_vec();
        let noise = Tensor::from_data(TensorData::new(noise, [batch, latent]), &context.device);
        let z = posterior.mean.clone() + (posterior.logvar.clone() * 0.5).exp() * noise;
        Ok(LossOutput::new(
            elbo(x, &posterior, &model.decode(z)).loss(1.0),
        ))
    }
}

/// The trainer, the model, the ELBO and the optimizer make the same steps as PyTorch.
fn vae_steps(case: &Path, json: &serde_json::Value) {
    let name = case.display();
    let device = device("flex").unwrap();
    let tensors = Tensors(std::fs::read(case.join("tensors.safetensors")).unwrap());
    let config: VaeConfig = serde_json::from_value(json["model"].clone()).unwrap();
    let model = config.init(&device).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let before = folder.path().join("before.safetensors");
    tensors.save_under("before.", &before);
    let model = load_weights(model, &before).unwrap();

    let (losses, norms) = (tensors.floats("losses"), tensors.floats("grad_norms"));
    let shape: ImageShape = serde_json::from_value(json["model"]["shape"].clone()).unwrap();
    let pixels = tensors.bytes("x");
    let batch_size = pixels.len() / shape.numel() / losses.len();
    let images = pixels.chunks_exact(shape.numel()).map(|p| Image {
        shape,
        pixels: p.to_vec(),
        label: None,
    });
    let loader_config = DataLoaderConfig {
        batch_size,
        shuffle_seed: None,
        num_workers: 1,
        ..DataLoaderConfig::default()
    };
    let loader =
        DataLoader::new(InMemory(images.collect()), collate_images, loader_config).unwrap();

    let optimizer = match json["optimizer"].as_str().unwrap() {
        "adam" => OptimizerConfig::adam(0.9, 0.999),
        "adamw-clip" => OptimizerConfig::adam_w(0.8, 0.99, 0.1),
        "sgd" => OptimizerConfig::sgd(),
        other => panic!("{name}: optimizer {other}"),
    };
    let trainer_config = TrainerConfig {
        optimizer,
        learning_rate: json["learning_rate"].as_f64().unwrap(),
        // A limit beyond reach, so that the norm is computed at every step.
        max_grad_norm: Some(json["clip_norm"].as_f64().unwrap_or(1e9)),
        ..TrainerConfig::new(losses.len())
    };
    let mut seen = Vec::new();
    let run = RunDir::create(folder.path().join("run")).unwrap();
    let trained = Trainer::new(trainer_config)
        .with_callback(|event: &Event<'_>| {
            if let Event::Step(report) = event {
                seen.push((report.losses[0].1, report.grad_norm.unwrap()));
            }
        })
        .fit(
            StoredNoise {
                noise: tensors.floats("noise"),
            },
            model,
            &loader,
            &run,
        )
        .unwrap();
    for (step, (loss, norm)) in seen.iter().enumerate() {
        close(
            *loss,
            losses[step],
            2e-5,
            &format!("{name}: loss of step {step}"),
        );
        close(
            *norm,
            norms[step],
            1e-4,
            &format!("{name}: gradient norm of step {step}"),
        );
    }
    let after = folder.path().join("after.safetensors");
    save_weights(&trained.model, &after).unwrap();
    let ours = Tensors(std::fs::read(after).unwrap());
    let stored = SafeTensors::deserialize(&tensors.0).unwrap();
    let mut compared = 0;
    for tensor in stored
        .names()
        .iter()
        .filter_map(|n| n.strip_prefix("after."))
    {
        let (got, expected) = (
            ours.floats(tensor),
            tensors.floats(&format!("after.{tensor}")),
        );
        assert_eq!(got.len(), expected.len());
        for (g, e) in got.iter().zip(&expected) {
            close(f64::from(*g), *e, 2e-5, &format!("{name}: {tensor}"));
        }
        compared += 1;
    }
    assert!(compared >= 10, "{name}: only {compared} tensors");
}

fn close(got: f64, expected: f32, tolerance: f64, what: &str) {
    let expected = f64::from(expected);
    assert!(
        (got - expected).abs() <= tolerance * expected.abs().max(1.0),
        "{what}: {got}, expected {expected}"
    );
}

/// A parity test that could not fail would prove nothing: one wrong weight must show.
#[test]
fn altered_weight_fails_parity() {
    struct Nudge(bool);
    impl ModuleMapper for Nudge {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if std::mem::replace(&mut self.0, false) {
                param.map(|t| t + 1e-2)
            } else {
                param
            }
        }
    }
    let device: Device = device("flex").unwrap();
    let case = own_fixtures().join("vae/mlp-sgd");
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(case.join("case.json")).unwrap()).unwrap();
    let spoilt = tempfile::tempdir().unwrap();
    let config: VaeConfig = serde_json::from_value(json["model"].clone()).unwrap();
    let tensors = Tensors(std::fs::read(case.join("tensors.safetensors")).unwrap());
    let path = spoilt.path().join("w.safetensors");
    tensors.save_under("before.", &path);
    let model = load_weights(config.init(&device).unwrap(), &path)
        .unwrap()
        .map(&mut Nudge(true));
    save_weights(&model, &path).unwrap();
    let altered = std::fs::read(&path).unwrap();
    // The fixture with these weights in place of its own.
    let (old, new) = (
        SafeTensors::deserialize(&tensors.0).unwrap(),
        SafeTensors::deserialize(&altered).unwrap(),
    );
    let merged = old.iter().map(|(name, view)| {
        let view = name
            .strip_prefix("before.")
            .and_then(|n| new.tensor(n).ok())
            .unwrap_or(view);
        (name.to_string(), view)
    });
    safetensors::serialize_to_file(merged, None, &spoilt.path().join("tensors.safetensors"))
        .unwrap();
    vae_steps(&case, &json);
    let failed = std::panic::catch_unwind(|| vae_steps(spoilt.path(), &json)).unwrap_err();
    let message = failed.downcast_ref::<String>().unwrap();
    assert!(message.contains("loss of step 0"), "{message}");
}
