//! Adversarial training as a user meets it.

mod custom;
mod networks;
mod objective;
mod points;
mod runs;
mod sampling;

use aigc_core::{
    CancelToken, Result,
    checkpoint::RunDir,
    data::{
        DataLoader, DataLoaderConfig, Image, ImageBatch, ImageShape, InMemory, SampleBatch,
        SampleShape, ValueRange, collate_images,
    },
    device::device,
    nn::{Activation, Dropout, DropoutConfig, Initializer, Linear, LinearConfig},
    rng::{InitWeights, Rng},
    train::{
        EmaConfig, Event, LossOutput, Objective, OptimizerConfig, ParamGroupConfig, Phase,
        StartFrom, StepContext, Trainer, TrainerConfig,
    },
};
use aigc_gan::{
    Ada, AnyDiscriminator, AnyGan, AnyGenerator, Augment, ClassConditioning, ClassLabels,
    CollapseMonitor, DcganConfig, DiffAugment, Discriminator, DiscriminatorConditioning,
    DiscriminatorNorm, Gan, GanConfig, GanLoss, GanObjective, GanObjectiveConfig, GanSampler,
    Generator, GeneratorConditioning, GradientPenalty, LeCam, MlpGanConfig, R3ganConfig,
    ResnetGanConfig,
    models::{MlpDiscriminator, MlpGenerator},
    standing_statistics,
    toy::{GaussianMixtureData, PointBatch, collate_points},
};
use aigc_tests::bits;
use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor},
};
use std::collections::BTreeSet;

fn flex() -> Device {
    device("flex").unwrap()
}

/// Images of three classes, each a bar at its own height, with some noise.
fn bars(shape: ImageShape, count: usize) -> Vec<Image> {
    let mut rng = Rng::new(9);
    let image = |k: usize| {
        let class = k % 3;
        let row = |pixel: usize| (pixel / shape.width) % shape.height;
        let lit = |pixel: usize| row(pixel) * 3 / shape.height == class;
        let pixels = (0..shape.numel()).map(|p| {
            if lit(p) {
                200 + rng.random_index(56) as u8
            } else {
                rng.random_index(56) as u8
            }
        });
        Image {
            shape,
            pixels: pixels.collect(),
            label: Some(class as u32),
        }
    };
    (0..count).map(image).collect()
}

fn batches(images: Vec<Image>, batch_size: usize) -> DataLoader<ImageBatch> {
    let config = DataLoaderConfig {
        batch_size,
        shuffle_seed: Some(1),
        num_workers: 0,
        ..DataLoaderConfig::default()
    };
    DataLoader::new(InMemory(images), collate_images, config).unwrap()
}

fn trainer(steps: usize) -> TrainerConfig {
    TrainerConfig {
        learning_rate: 1e-3,
        optimizer: OptimizerConfig::adam(0.5, 0.99),
        seed: 2,
        save_steps: 0,
        ..TrainerConfig::new(steps)
    }
}

fn run_dir() -> (RunDir, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (RunDir::create(dir.path().join("run")).unwrap(), dir)
}
