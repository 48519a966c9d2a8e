//! Training steps of GANs.

use super::{Tensors, close};
use aigc_core::{
    checkpoint::RunDir,
    data::{
        DataLoader, DataLoaderConfig, Image, ImageBatch, ImageShape, InMemory, SampleShape,
        collate_images,
    },
    device::device,
    train::{Event, OptimizerConfig, Trainer, TrainerConfig},
    weights::{RenamedField, load_weights_with_mapping, save_weights},
};
use aigc_gan::{
    AnyDiscriminator, AnyGenerator, Gan, GanConfig, GanObjective, GanObjectiveConfig, Generator,
};
use burn::{
    module::Module,
    tensor::{Int, Tensor, TensorData},
};
use safetensors::SafeTensors;
use std::{cell::RefCell, collections::VecDeque, path::Path};

/// Fixtures have the former name.
const DISCRIMINATOR: RenamedField = RenamedField {
    name: "discriminator",
    former: "critic",
};

thread_local! {
    /// Noise of the following steps.
    static NOISE: RefCell<VecDeque<Vec<f32>>> = const { RefCell::new(VecDeque::new()) };
}

/// A generator that gets the fixture's noise; an enum, so that weights keep their names.
#[derive(Module, Debug)]
enum Given {
    Noise(AnyGenerator),
}

impl Given {
    fn inner(&self) -> &AnyGenerator {
        let Given::Noise(generator) = self;
        generator
    }
}

impl Generator for Given {
    fn generate(&self, z: Tensor<2>, class: Option<Tensor<1, Int>>) -> Tensor<4> {
        let noise = NOISE
            .with_borrow_mut(VecDeque::pop_front)
            .expect("one forward pass of the generator per step");
        let z = Tensor::from_data(TensorData::new(noise, z.dims()), &z.device());
        self.inner().generate(z, class)
    }

    fn latent_dim(&self) -> usize {
        self.inner().latent_dim()
    }

    fn sample_shape(&self) -> SampleShape {
        self.inner().sample_shape()
    }

    fn num_classes(&self) -> Option<usize> {
        self.inner().num_classes()
    }
}

/// Trainer, networks, losses and penalties make the same steps as PyTorch in f64 with second
/// derivatives.
pub(super) fn steps(case: &Path, json: &serde_json::Value) {
    let name = case.display();
    let device = device("flex").unwrap();
    let tensors = Tensors(std::fs::read(case.join("tensors.safetensors")).unwrap());
    let config: GanConfig = serde_json::from_value(json["model"].clone()).unwrap();
    let objective: GanObjectiveConfig = serde_json::from_value(json["objective"].clone()).unwrap();
    let (penalised, compares) = (
        !objective.penalties.is_empty(),
        objective.loss.is_relativistic(),
    );
    let gan = config.init(&device).unwrap();
    let gan: Gan<Given, AnyDiscriminator> = Gan {
        generator: Given::Noise(gan.generator),
        discriminator: gan.discriminator,
    };
    let folder = tempfile::tempdir().unwrap();
    let before = folder.path().join("before.safetensors");
    tensors.save_under("before.", &before);
    let gan = load_weights_with_mapping(gan, &before, &[DISCRIMINATOR]).unwrap();

    let losses = tensors.floats("losses");
    let steps = losses.len() / 2;
    let shape: ImageShape = serde_json::from_value(json["model"]["shape"].clone()).unwrap();
    let (pixels, labels, noise) = (tensors.bytes("x"), tensors.bytes("y"), tensors.floats("z"));
    let images = pixels.chunks_exact(shape.numel()).zip(&labels);
    let images = images.map(|(p, y)| Image {
        shape,
        pixels: p.to_vec(),
        label: Some(u32::from(*y)),
    });
    let loader = DataLoaderConfig {
        batch_size: labels.len() / steps,
        shuffle_seed: None,
        num_workers: 0,
        ..DataLoaderConfig::default()
    };
    let loader = DataLoader::new(InMemory(images.collect()), collate_images, loader).unwrap();
    NOISE.set(
        noise
            .chunks_exact(noise.len() / steps)
            .map(<[f32]>::to_vec)
            .collect(),
    );

    let trainer = TrainerConfig {
        optimizer: OptimizerConfig::adam(0.5, 0.99),
        learning_rate: json["learning_rate"].as_f64().unwrap(),
        ..TrainerConfig::new(steps)
    };
    let mut seen = Vec::new();
    let run = RunDir::create(folder.path().join("run")).unwrap();
    let trained = Trainer::new(trainer)
        .with_callback(|event: &Event<'_>| {
            if let Event::Step(report) = event {
                let loss = |name: &str| report.losses.iter().find(|(n, _)| n == name).unwrap().1;
                seen.extend([loss("discriminator.loss"), loss("generator.loss")]);
            }
        })
        .fit(
            GanObjective::<_, _, ImageBatch>::new(objective, &gan).unwrap(),
            gan,
            &loader,
            &run,
        )
        .unwrap();
    assert!(
        NOISE.with_borrow(VecDeque::is_empty),
        "{name}: noise was left"
    );
    // The finite difference is exact to about h², and 32 bits leave it six digits.
    let tolerance = if penalised { 4e-4 } else { 5e-5 };
    for (index, (got, expected)) in seen.iter().zip(&losses).enumerate() {
        close(
            *got,
            *expected,
            tolerance,
            &format!("{name}: loss {} of step {}", index % 2, index / 2),
        );
    }
    assert_eq!(seen.len(), losses.len());
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
        // Differences of scores do not depend on their bias: Adam moves it by the signs of rounding
        // errors.
        if compares && tensor == "critic.head.score.bias" {
            continue;
        }
        let (got, expected) = (
            ours.floats(&tensor.replacen("critic.", "discriminator.", 1)),
            tensors.floats(&format!("after.{tensor}")),
        );
        assert_eq!(got.len(), expected.len());
        for (g, e) in got.iter().zip(&expected) {
            close(f64::from(*g), *e, tolerance, &format!("{name}: {tensor}"));
        }
        compared += 1;
    }
    assert!(compared >= 10, "{name}: only {compared} tensors");
}
