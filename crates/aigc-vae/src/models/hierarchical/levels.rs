//! The levels of encoder and decoder, one for each size of feature maps, and the groups of latents.

use super::{
    block::Block,
    distributions::{Normal, Relative},
};
use aigc_core::nn::{Conv2d, Conv2dConfig, ConvTranspose2d};
use burn::{module::Module, tensor::Tensor};

/// A convolution that divides the sides by `stride`, with overlapping windows for a stride of 2.
pub(super) fn downsample(inputs: usize, outputs: usize, stride: usize) -> Conv2dConfig {
    match stride {
        2 => Conv2dConfig::new([inputs, outputs], 4)
            .with_stride(2)
            .with_padding(1),
        _ => Conv2dConfig::new([inputs, outputs], stride).with_stride(stride),
    }
}

/// A level of the encoder.
#[derive(Module, Debug)]
pub(super) struct Down {
    pub(super) conv: Conv2d,
    pub(super) blocks: Vec<Block>,
}

impl Down {
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.conv.forward(x);
        self.blocks.iter().fold(x, |x, block| block.forward(x))
    }
}

/// A level of the decoder.
#[derive(Module, Debug)]
pub(super) struct Up {
    pub(super) groups: Vec<Group>,
    /// From the coarser level; none at the coarsest.
    pub(super) up: Option<ConvTranspose2d>,
    pub(super) side: [usize; 2],
    pub(super) latent_channels: usize,
}

/// One group of latents.
#[derive(Module, Debug)]
pub(super) struct Group {
    pub(super) prior: Block,
    pub(super) posterior: Block,
    pub(super) project: Conv2d,
    pub(super) block: Block,
}

impl Group {
    /// The prior, and what is added to the decoder's state, from the activated state.
    pub(super) fn prior(&self, activated: &Tensor<4>) -> (Normal, Tensor<4>) {
        let (latents, channels) = self.channels();
        let reduced = self.prior.reduce(activated.clone());
        let [mean, log_std, update] = self.prior.parts(reduced, [latents, latents, channels]);
        (Normal::new(mean, log_std), update)
    }

    /// The posterior, from the decoder's activated state and the encoder's activated features.
    pub(super) fn relative(&self, activated: &Tensor<4>, features: &Tensor<4>) -> Relative {
        let (latents, _) = self.channels();
        let seen = [activated.clone(), features.clone()];
        let reduced = self.posterior.reduce_pair(seen);
        let [mean, log_std] = self.posterior.parts(reduced, [latents; 2]);
        Relative::new(mean, log_std)
    }

    /// The decoder's next state, from its state, what the prior adds to it, and the latents.
    pub(super) fn next_state(
        &self,
        state: Tensor<4>,
        update: Tensor<4>,
        latent: Tensor<4>,
    ) -> Tensor<4> {
        let state = state + update + self.project.forward(latent);
        self.block.forward(state)
    }

    /// Channels of the latents and of the decoder's state.
    fn channels(&self) -> (usize, usize) {
        let [channels, latents, ..] = self.project.weight.dims();
        (latents, channels)
    }
}
