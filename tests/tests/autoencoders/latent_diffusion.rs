//! The first stage of latent diffusion.

use super::{flex, loader, tiny_kl, train};
use aigc_core::{
    data::ImageShape,
    encoder::Autoencoder,
    rng::InitWeights,
    testing::temp_run,
    train::{Event, Trainer, TrainerConfig},
};
use aigc_diffusion::{
    Clipping, DdimScheduler, DiffusionObjective, DiffusionObjectiveConfig, DiffusionSampler,
    UNet2dConfig,
};
use aigc_vae::Vae;
use burn::tensor::Tensor;

/// `AutoencoderKl` is the first stage of latent diffusion as it is: its scaling factor brings the
/// latents to unit variance.
#[test]
fn autoencoder_kl_is_the_first_stage_of_latent_diffusion() {
    let vae = tiny_kl().init(&flex()).unwrap();
    let (vae, losses) = train(vae, 64, 150);
    assert!(losses[149] < losses[0], "{losses:?}");
    let data = loader(64);
    let images = data
        .iter_once()
        .map(|batch| batch.unwrap().to_tensor(&flex()));
    let images = Tensor::cat(images.collect(), 0);

    let moments = |x: Tensor<4>| {
        let values: Vec<f64> = x.into_data().iter::<f64>().collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
        (mean, (variance / values.len() as f64).sqrt())
    };
    let (mean, std) = moments(Vae::<4, 4>::encode(&vae, images.clone()).mean);
    let vae = vae.with_latent_scaling(Some(mean), 1.0 / std).unwrap();
    let first_stage: &dyn Autoencoder = &vae;
    let latents = first_stage.encode(images.clone()).mode();
    assert_eq!(latents.dims(), [64, 2, 4, 4]);
    let (mean, std) = moments(latents.clone());
    assert!(
        mean.abs() < 1e-3 && (std - 1.0).abs() < 1e-3,
        "{mean} {std}"
    );

    let shape = ImageShape::new(2, 4, 4);
    let network = UNet2dConfig::small(shape, None).init(&flex()).unwrap();
    let network = network.init_weights(0);
    let untrained = network.clone();
    let objective = DiffusionObjective::new(DiffusionObjectiveConfig::default(), &network)
        .unwrap()
        .with_autoencoder(vae.clone(), 1.0)
        .unwrap();
    let run = temp_run().unwrap();
    let mut losses = Vec::new();
    let config = TrainerConfig {
        learning_rate: 3e-3,
        ..TrainerConfig::new(200)
    };
    let trained = Trainer::new(config)
        .with_callback(|event: &Event<'_>| {
            if let Event::Step(report) = event {
                losses.push(report.losses[0].1);
            }
        })
        .fit(objective, network, &loader(64), &run)
        .unwrap()
        .model;
    let part = |steps: &[f64]| steps.iter().sum::<f64>() / steps.len() as f64;
    let (first, last) = (part(&losses[..20]), part(&losses[180..]));
    assert!(last < 0.9 * first, "{first} {last}");

    let ddim = DdimScheduler {
        clipping: Clipping::NONE,
        ..DdimScheduler::default()
    };
    let make = |network| {
        DiffusionSampler::new(network, &ddim, 15, shape, &flex())
            .unwrap()
            .with_autoencoder(first_stage, 1.0)
            .sample(64, 0)
            .unwrap()
            .values
    };
    let made = make(&trained);
    assert_eq!(made.dims(), [64, 1, 8, 8]);
    // Nearer to reconstructions of the data than without training, pixel by pixel on average.
    let known = first_stage.decode(latents).mean_dim(0);
    let apart = |x: Tensor<4>| {
        let difference = x.mean_dim(0) - known.clone();
        difference.abs().mean().into_scalar::<f64>()
    };
    let (near, far) = (apart(made), apart(make(&untrained)));
    assert!(near < far, "{near}, untrained {far}");
}
