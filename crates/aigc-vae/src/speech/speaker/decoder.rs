//! The velocity of spectrograms on the way from noise to speech.

use super::SpeakerConfig;
use crate::speech::layers::norm_channels;
use aigc_core::nn::{
    Activation, Conv1d, Conv1dConfig, Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
};

/// Times from 0 to 1 are multiplied by this number before sines and cosines are taken of them.
const TIME_SCALE: f64 = 1000.0;

/// The longest period of these sines, as in transformers.
const MAX_PERIOD: f64 = 10_000.0;

/// Dilated convolutions along time, in residual blocks that depend on the time of the flow.
#[derive(Module, Debug)]
pub(super) struct MelDecoder {
    conv_in: Conv1d,
    time_in: Linear,
    time_out: Linear,
    speaker: Option<Linear>,
    blocks: Vec<Block>,
    norm_out: LayerNorm,
    conv_out: Conv1d,
}

impl MelDecoder {
    pub(super) fn new(config: &SpeakerConfig, device: &Device) -> Self {
        let (channels, mels) = (config.decoder_channels, config.mel.n_mels);
        let linear = |inputs: usize| LinearConfig::new(inputs, channels).init(device);
        let dilations = config.decoder_dilations.iter();
        Self {
            conv_in: Conv1dConfig::new([2 * mels, channels], 1).init(device),
            time_in: linear(channels),
            time_out: linear(channels),
            speaker: (config.num_speakers > 1).then(|| linear(config.hidden_size)),
            blocks: dilations
                .map(|dilation| Block::new(config, *dilation, device))
                .collect(),
            norm_out: LayerNormConfig::new(channels).init(device),
            conv_out: Conv1dConfig::new([channels, mels], 1)
                .with_initializer(Initializer::ZEROS)
                .init(device),
        }
    }

    /// # Shapes
    /// - x, mean and output: `[batch, mels, frames]`, mask: `[batch, 1, frames]`
    /// - time: `[batch, 1]`, from 0 for noise to 1 for speech
    /// - speaker: `[batch or 1, hidden, 1]`
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        mean: &Tensor<3>,
        mask: &Tensor<3>,
        time: Tensor<2>,
        speaker: Option<&Tensor<3>>,
    ) -> Tensor<3> {
        let silu = |x: Tensor<2>| Activation::Silu.forward(x);
        let waves = waves(time, self.time_in.weight.dims()[0]);
        let mut condition = self.time_out.forward(silu(self.time_in.forward(waves)));
        if let (Some(layer), Some(speaker)) = (&self.speaker, speaker) {
            condition = condition + layer.forward(speaker.clone().squeeze_dim::<2>(2));
        }
        let condition = silu(condition);
        let x = Tensor::cat(vec![x, mean.clone()], 1);
        let mut x = self.conv_in.forward(x) * mask.clone();
        for block in &self.blocks {
            x = block.forward(x, mask, &condition);
        }
        let x = Activation::Silu.forward(norm_channels(&self.norm_out, x));
        self.conv_out.forward(x) * mask.clone()
    }
}

/// Sines and cosines of times `[batch, 1]`, `[batch, channels]`.
fn waves(time: Tensor<2>, channels: usize) -> Tensor<2> {
    let half = channels / 2;
    let frequency =
        |index: usize| (TIME_SCALE * MAX_PERIOD.powf(-(index as f64) / half as f64)) as f32;
    let frequencies: Vec<f32> = (0..half).map(frequency).collect();
    let frequencies = TensorData::new(frequencies, [1, half]);
    let angles = time
        .clone()
        .matmul(Tensor::from_data(frequencies, &time.device()));
    Tensor::cat(vec![angles.clone().sin(), angles.cos()], 1)
}

#[derive(Module, Debug)]
struct Block {
    norm: LayerNorm,
    /// Scale and shift behind the norm.
    modulation: Linear,
    conv_dilated: Conv1d,
    conv_pointwise: Conv1d,
}

impl Block {
    fn new(config: &SpeakerConfig, dilation: usize, device: &Device) -> Self {
        let (channels, kernel) = (config.decoder_channels, config.decoder_kernel_size);
        Self {
            norm: LayerNormConfig::new(channels).init(device),
            modulation: LinearConfig::new(channels, 2 * channels).init(device),
            conv_dilated: Conv1dConfig::new([channels, channels], kernel)
                .with_dilation(dilation)
                .with_padding((kernel - 1) / 2 * dilation)
                .init(device),
            // A new block is the identity.
            conv_pointwise: Conv1dConfig::new([channels, channels], 1)
                .with_initializer(Initializer::ZEROS)
                .init(device),
        }
    }

    fn forward(&self, x: Tensor<3>, mask: &Tensor<3>, condition: &Tensor<2>) -> Tensor<3> {
        let [batch, channels, _] = x.dims();
        let parts: [Tensor<2>; 2] = self.modulation.forward_parts(condition.clone());
        let [scale, shift] = parts.map(|part| part.reshape([batch, channels, 1]));
        let y = norm_channels(&self.norm, x.clone()) * (scale + 1.0) + shift;
        let y = self
            .conv_dilated
            .forward(Activation::Silu.forward(y) * mask.clone());
        let y = self.conv_pointwise.forward(Activation::Silu.forward(y));
        (x + y) * mask.clone()
    }
}
