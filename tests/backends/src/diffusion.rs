//! Diffusion models.

use crate::{Shaped, gradients, shaped};
use aigc_core::{
    data::{ClassLabels, Image, ImageShape, collate_images},
    rng::{InitWeights, Rng},
    train::{Objective, StepContext},
};
use aigc_diffusion::{
    AnyDenoiser, AnyScheduler, ClassifierFreeGuidance, DdimScheduler, DdpmScheduler, Degradation,
    DiffusionObjective, DiffusionObjectiveConfig, DiffusionSampler, DitConfig,
    DpmMultistepScheduler, MomentMatchingGuidance, PredictionType, UNet2dConfig,
};
use burn::{module::Module, tensor::Device};
use std::collections::BTreeMap;

/// A small diffusion network of every trainable kind, of 8×8 images and three classes.
///
/// # Panics
/// If a network cannot be created.
pub fn denoisers(device: &Device) -> [(&'static str, AnyDenoiser); 2] {
    let shape = ImageShape::new(1, 8, 8);
    let unet = UNet2dConfig {
        block_out_channels: vec![8, 16],
        ..UNet2dConfig::small(shape, Some(3)).with_null_class()
    };
    let dit = DitConfig {
        num_attention_heads: 2,
        attention_head_dim: 8,
        in_channels: 1,
        num_layers: 2,
        sample_size: 8,
        patch_size: 2,
        num_embeds_ada_norm: 3,
        ..DitConfig::default()
    };
    let unet: AnyDenoiser = unet.init(device).expect("a valid network").into();
    let dit: AnyDenoiser = dit.init(device).expect("a valid network").into();
    [("unet", unet.init_weights(5)), ("dit", dit.init_weights(5))]
}

/// Guided samples of one seed with a stochastic and with a deterministic scheduler, restored
/// images, and the gradients of one training step, of network `index` of [`denoisers`].
///
/// # Panics
/// If there is no such network.
pub fn diffusion_step(index: usize, device: &Device) -> ([Shaped; 3], BTreeMap<String, Shaped>) {
    let (_, network) = denoisers(device)
        .into_iter()
        .nth(index)
        .expect("an index of a denoiser");
    let shape = ImageShape::new(1, 8, 8);
    let guided = |scheduler: &AnyScheduler| {
        let sampler = DiffusionSampler::new(&network, scheduler, 6, shape, device).expect("a plan");
        let sampler = sampler
            .with_classes(ClassLabels::PerSample(vec![0, 1, 2]))
            .with_guidance(ClassifierFreeGuidance::new(2.0));
        shaped(sampler.sample(3, 9).expect("images").values)
    };
    // The untrained network as a predictor of the clean sample gives images that are not saturated.
    let clean = DpmMultistepScheduler {
        prediction_type: PredictionType::Sample,
        ..DpmMultistepScheduler::default()
    };
    let ddim = DdimScheduler {
        eta: 1.0,
        ..DdimScheduler::default()
    };
    let measured = Rng::new(2).uniform([2, 1, 4, 4], 0.0, 1.0, device);
    let guide =
        MomentMatchingGuidance::new(Degradation::Downsample(2), &measured, 0.1).expect("a guide");
    let sampler = DiffusionSampler::new(&network, &ddim, 6, shape, device).expect("a plan");
    let restored = sampler
        .unconditional()
        .with_guide(&guide)
        .sample(2, 3)
        .expect("images")
        .values;
    let outputs = [
        guided(&DdpmScheduler::default().into()),
        guided(&clean.into()),
        shaped(restored),
    ];
    let live = device.clone().autodiff();
    let network = network.train();
    let image = |k: u32| Image {
        shape,
        pixels: (0..64).map(|i| ((i * (k + 3)) % 256) as u8).collect(),
        label: Some(k),
    };
    let batch = collate_images((0..3).map(image).collect());
    let config = DiffusionObjectiveConfig {
        conditioning_dropout: 0.3,
        ..DiffusionObjectiveConfig::default()
    };
    let mut objective = DiffusionObjective::new(config, &network).expect("a valid objective");
    let mut context = StepContext::new(0, 1, live, Rng::new(4));
    let loss = objective
        .losses(&network, &batch, &mut context)
        .expect("a loss")
        .loss;
    (outputs, gradients(&network, loss))
}
