//! GANs.

use crate::{Shaped, gradients, shaped};
use aigc_core::{
    data::ImageShape,
    rng::{InitWeights, Rng},
};
use aigc_gan::{
    Ada, Augment, ClassConditioning, DcganConfig, DiffAugment, Discriminator,
    DiscriminatorConditioning, DiscriminatorNorm, GanConfig, GanLoss, Generator,
    GeneratorConditioning, GradientPenalty, MlpGanConfig, R3ganConfig, ResnetGanConfig,
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use std::collections::BTreeMap;

/// A small GAN of every kind, of 8×8 images, with different kinds of class conditioning.
pub fn gans() -> [(&'static str, GanConfig); 4] {
    let shape = ImageShape::new(1, 8, 8);
    let classes = |generator, discriminator| {
        Some(ClassConditioning {
            num_classes: 3,
            generator,
            discriminator,
        })
    };
    let (concat, norm) = (
        GeneratorConditioning::Concat,
        GeneratorConditioning::ConditionalBatchNorm,
    );
    let mlp = MlpGanConfig {
        hidden: vec![16],
        num_fourier_frequencies: 2,
        norm: true,
        latent_dim: 5,
        ..MlpGanConfig::new(shape)
    };
    let dcgan = DcganConfig {
        channels: vec![4, 6],
        norm: DiscriminatorNorm::Spectral,
        classes: classes(norm, DiscriminatorConditioning::Projection),
        ..DcganConfig::new(shape)
    };
    let resnet = ResnetGanConfig {
        channels: 16,
        levels: 2,
        attention_resolution: Some(4),
        classes: classes(norm, DiscriminatorConditioning::Auxiliary),
        ..ResnetGanConfig::new(shape)
    };
    let r3gan = R3ganConfig {
        channels: vec![8, 4],
        group_width: 4,
        classes: classes(concat, DiscriminatorConditioning::Concat),
        ..R3ganConfig::new(shape)
    };
    [
        ("mlp", GanConfig::Mlp(mlp)),
        ("dcgan", GanConfig::Dcgan(dcgan)),
        ("resnet", GanConfig::Resnet(resnet)),
        ("r3gan", GanConfig::R3gan(r3gan)),
    ]
}

/// The outputs of a generator, and of a discriminator after augmentation, and the gradients of both
/// networks for the relativistic pairing loss with R1 and R2.
///
/// # Panics
/// If the networks cannot be created.
pub fn gan_step(config: &GanConfig, device: &Device) -> ([Shaped; 2], BTreeMap<String, Shaped>) {
    let device = device.clone().autodiff();
    let gan = config
        .init(&device)
        .expect("a valid GAN")
        .init_weights(3)
        .train();
    let mut rng = Rng::new(1);
    let real = rng.normal([6, 1, 8, 8], &device) * 0.5;
    let class = Some(Tensor::<1, Int>::from_data([0, 1, 2, 2, 1, 0], &device));
    let z = rng.normal([6, gan.generator.latent_dim()], &device);
    let generated = gan.generator.generate(z, class.clone());
    let ada = Ada {
        flips_and_rotations: false,
        ..Ada::default()
    };
    let [real, fake] = [real, generated.clone()].map(|x| {
        let x = Augment::DiffAugment(DiffAugment::default()).apply(x, 0.0, &mut Rng::new(4));
        Augment::Adaptive(ada).apply(x, 0.7, &mut Rng::new(5))
    });
    let of_fake = gan
        .discriminator
        .forward_with_classes(fake.clone(), class.clone());
    let score = of_fake.logits.clone();
    let of_real = gan.discriminator.forward(real.clone(), class.clone());
    let mut loss = GanLoss::RelativisticPairing.discriminator_loss(of_real, score.clone(), 0.0);
    for penalty in [GradientPenalty::r1(1.0), GradientPenalty::r2(1.0)] {
        loss = loss + penalty.loss(&gan.discriminator, &real, &fake, class.as_ref(), &mut rng);
    }
    if let Some(classes) = of_fake.class_logits {
        loss = loss + classes.tanh().mean();
    }
    ([shaped(generated), shaped(score)], gradients(&gan, loss))
}
