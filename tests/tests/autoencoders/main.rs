//! Autoencoders in diffusers' layout: against diffusers' numbers (out of `AIGC_FIXTURES`), files,
//! training, and as the first stage of latent diffusion; exact resume of models of several parts.

mod files;
mod latent_diffusion;
mod reference;
mod resume;
mod training;

use aigc_core::{
    data::{DataLoader, DataLoaderConfig, ImageBatch, InMemory, collate_images, digits},
    device::device,
    testing::temp_run,
    train::{Event, Trainer, TrainerConfig},
};
use aigc_vae::{AutoencoderKlConfig, Vae, VaeObjective, VqModelConfig};
use burn::tensor::Device;

fn flex() -> Device {
    device("flex").unwrap()
}

fn tiny_kl() -> AutoencoderKlConfig {
    AutoencoderKlConfig {
        block_out_channels: vec![8, 16],
        norm_num_groups: 4,
        latent_channels: 2,
        ..AutoencoderKlConfig::new(digits::SHAPE)
    }
}

fn tiny_vq() -> VqModelConfig {
    VqModelConfig {
        block_out_channels: vec![8, 16],
        norm_num_groups: 4,
        num_vq_embeddings: 16,
        ..VqModelConfig::new(digits::SHAPE)
    }
}

/// Batches of 16 of the first `count` digits.
fn loader(count: usize) -> DataLoader<ImageBatch> {
    let images = InMemory(digits::train_test_split().0.0[..count].to_vec());
    let config = DataLoaderConfig {
        batch_size: 16,
        ..DataLoaderConfig::default()
    };
    DataLoader::new(images, collate_images, config).unwrap()
}

/// The trained model, and the loss of every step.
fn train<V: Vae<4, 4> + 'static>(model: V, count: usize, steps: usize) -> (V, Vec<f64>) {
    let run = temp_run().unwrap();
    let mut losses = Vec::new();
    let config = TrainerConfig {
        learning_rate: 3e-3,
        ..TrainerConfig::new(steps)
    };
    let objective = VaeObjective::<V, ImageBatch, 4, 4>::new(Default::default()).unwrap();
    let trained = Trainer::new(config)
        .with_callback(|event: &Event<'_>| {
            if let Event::Step(report) = event {
                losses.push(report.losses[0].1);
            }
        })
        .fit(objective, model, &loader(count), &run)
        .unwrap();
    (trained.model, losses)
}
