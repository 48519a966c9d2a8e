//! What a user's program does: custom model, custom objective, the trainer, sampling, loading
//! again.

use aigc_core::{
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig, InMemory, collate_images},
    device::device,
    train::{Event, Trainer, TrainerConfig},
    weights::load_weights,
};
use aigc_vae::VaeSampler;
use outside::{TinyVae, TwoDraws, halves};

#[test]
fn custom_model_and_objective_train_sample_and_load() {
    let device = device("flex").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::create(folder.path().join("run")).unwrap();
    let config = DataLoaderConfig {
        batch_size: 16,
        ..DataLoaderConfig::default()
    };
    let batches = DataLoader::new(InMemory(halves()), collate_images, config).unwrap();
    let mut losses = Vec::new();
    let trained = Trainer::new(TrainerConfig {
        learning_rate: 1e-2,
        ..TrainerConfig::new(600)
    })
    .with_callback(|event: &Event<'_>| {
        if let Event::Step(report) = event {
            losses.push(report.losses[0].1);
        }
    })
    .fit(TwoDraws, TinyVae::new(&device), &batches, &run)
    .unwrap();
    // Two patterns cost log 2 = 0.69 nats beyond the noise of grey pixels (16 values at 0.02: 1.56
    // nats).
    let last = losses[losses.len() - 50..].iter().sum::<f64>() / 50.0;
    assert!(losses[0] > 9.0 && last < 4.0, "{} → {last}", losses[0]);

    let x = batches
        .iter_once()
        .next()
        .unwrap()
        .unwrap()
        .to_tensor(&device);
    let sampler = VaeSampler::new(&trained.model, &device);
    let difference = (sampler.reconstruct(x.clone()).unwrap() - x)
        .abs()
        .mean()
        .into_scalar::<f32>();
    assert!(difference < 0.1, "{difference}");
    let drawn = sampler.sample(5, 1).unwrap().values;
    assert_eq!(drawn.dims(), [5, 1, 4, 4]);

    let loaded = load_weights(
        TinyVae::new(&device),
        &run.final_dir().join("model.safetensors"),
    )
    .unwrap();
    let again = VaeSampler::new(&loaded, &device)
        .sample(5, 1)
        .unwrap()
        .values;
    assert_eq!(drawn.into_data(), again.into_data());
}
