//! A step of DCGAN (Radford et al. 2016, <https://arxiv.org/abs/1511.06434>) on 28×28 images: one of the critic, one of
//! the generator. Batch 64, Adam at 2e-4 with β = (0.5, 0.999), the non-saturating loss.

use crate::{Clock, clock::train, vae::images};
use aigc_core::{
    data::{ImageBatch, ImageShape},
    nn::{Activation, BatchNorm, BatchNormConfig, Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig},
    ops::binary_cross_entropy,
    train::{Losses, Objective, OptimizerConfig, StepContext, TrainerConfig, Turn},
};
use anyhow::Result;
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

const BATCH: usize = 64;
const LATENT: usize = 64;

#[derive(Module, Debug)]
struct Generator {
    layers: Vec<ConvTranspose2d>,
    norms: Vec<BatchNorm>,
}

impl Generator {
    fn forward(&self, z: Tensor<2>) -> Tensor<4> {
        let mut x = z.reshape([BATCH, LATENT, 1, 1]);
        for (layer, norm) in self.layers.iter().zip(&self.norms) {
            x = norm.forward_activated(layer.forward(x), Activation::Relu);
        }
        Activation::Tanh.forward(self.layers[2].forward(x))
    }
}

#[derive(Module, Debug)]
struct Critic {
    layers: Vec<Conv2d>,
    norm: BatchNorm,
}

impl Critic {
    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let leaky = Activation::LeakyRelu(0.2);
        let x = leaky.forward(self.layers[0].forward(x));
        let x = self.norm.forward_activated(self.layers[1].forward(x), leaky);
        self.layers[2].forward(x).flatten(1, 3)
    }
}

#[derive(Module, Debug)]
struct Gan {
    generator: Generator,
    critic: Critic,
}

fn init(device: &Device) -> Gan {
    let up = |channels, kernel, stride, padding, bias| {
        let config = ConvTranspose2dConfig::new(channels, kernel).with_stride(stride).with_padding(padding);
        config.with_bias(bias).init(device)
    };
    let down = |channels, kernel, stride, padding, bias| {
        let config = Conv2dConfig::new(channels, kernel).with_stride(stride).with_padding(padding);
        config.with_bias(bias).init(device)
    };
    let norm = |channels| BatchNormConfig::new(channels).init(device);
    Gan {
        generator: Generator {
            layers: vec![up([LATENT, 128], 7, 1, 0, false), up([128, 64], 4, 2, 1, false), up([64, 1], 4, 2, 1, true)],
            norms: vec![norm(128), norm(64)],
        },
        critic: Critic {
            layers: vec![down([1, 64], 4, 2, 1, true), down([64, 128], 4, 2, 1, false), down([128, 1], 7, 1, 0, true)],
            norm: norm(128),
        },
    }
}

/// Keeps the generator's images from the critic's turn for its own, as the textbook loop does.
#[derive(Default)]
struct Adversarial {
    fake: Option<Tensor<4>>,
}

impl Objective for Adversarial {
    type Model = Gan;
    type Batch = ImageBatch;

    fn turns(&self) -> Vec<Turn> {
        vec![Turn::new("critic").of("critic"), Turn::new("generator").of("generator").on_same_batch()]
    }

    fn losses(&mut self, gan: &Gan, batch: &ImageBatch, context: &mut StepContext) -> aigc_core::Result<Losses> {
        let loss = |logits: Tensor<2>, real: bool| {
            let targets = if real { logits.ones_like() } else { logits.zeros_like() };
            binary_cross_entropy(logits, targets).mean()
        };
        if context.turn == 0 {
            let fake = gan.generator.forward(context.rng.normal([BATCH, LATENT], &context.device));
            let real = gan.critic.forward(batch.images(&context.device) * 2.0 - 1.0);
            let total = loss(real, true) + loss(gan.critic.forward(fake.clone().detach()), false);
            self.fake = Some(fake);
            return Ok(Losses::new(total));
        }
        let fake = self.fake.take().expect("the critic's turn comes first");
        // The critic is only looked through: nobody wants its gradients now.
        let critic = gan.critic.clone().no_grad();
        Ok(Losses::new(loss(critic.forward(fake), true)))
    }
}

pub(crate) fn run(device: &Device, clock: Clock) -> Result<()> {
    let config =
        TrainerConfig { learning_rate: 2e-4, optimizer: OptimizerConfig::adam(0.5, 0.999), ..TrainerConfig::new(0) };
    train(Adversarial::default(), init(device), &images(ImageShape::new(1, 28, 28), BATCH)?, config, clock)
}
