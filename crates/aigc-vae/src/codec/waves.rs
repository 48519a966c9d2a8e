//! The convolutional encoder and decoder of DAC (Kumar et al. 2023,
//! <https://arxiv.org/abs/2306.06546>), which Oobleck shares.

use aigc_core::nn::{
    Conv1d, Conv1dConfig, ConvTranspose1d, ConvTranspose1dConfig, Snake, SnakeConfig,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// Dilations of the residual units of a block.
const DILATIONS: [usize; 3] = [1, 3, 9];
/// Length of the kernels.
const KERNEL: usize = 7;

/// Settings that all layers of a network share.
#[derive(Clone, Copy)]
pub(super) struct WaveStyle<'a> {
    pub(super) weight_norm: bool,
    /// Whether activations have logarithms of a frequency and of a divisor, in place of a
    /// frequency.
    pub(super) log_beta: bool,
    pub(super) device: &'a Device,
}

impl WaveStyle<'_> {
    fn snake(&self, channels: usize) -> Snake {
        SnakeConfig::new(channels)
            .with_beta(self.log_beta)
            .with_log_scale(self.log_beta)
            .init(self.device)
    }

    /// A convolution that keeps the length.
    pub(super) fn conv(&self, channels: [usize; 2], kernel: usize, dilation: usize) -> Conv1d {
        self.conv_config(channels, kernel, dilation)
            .init(self.device)
    }

    fn conv_config(&self, channels: [usize; 2], kernel: usize, dilation: usize) -> Conv1dConfig {
        Conv1dConfig::new(channels, kernel)
            .with_dilation(dilation)
            .with_padding((kernel - 1) * dilation / 2)
            .with_weight_norm(self.weight_norm)
    }
}

/// Two convolutions with a shortcut.
#[derive(Module, Debug)]
struct ResidualUnit {
    snake1: Snake,
    conv1: Conv1d,
    snake2: Snake,
    conv2: Conv1d,
}

impl ResidualUnit {
    fn new(style: WaveStyle<'_>, channels: usize, dilation: usize) -> Self {
        Self {
            snake1: style.snake(channels),
            conv1: style.conv([channels; 2], KERNEL, dilation),
            snake2: style.snake(channels),
            conv2: style.conv([channels; 2], 1, 1),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let y = self.conv1.forward(self.snake1.forward(x.clone()));
        x + self.conv2.forward(self.snake2.forward(y))
    }

    fn fold(self) -> Self {
        Self {
            conv1: self.conv1.fold(),
            conv2: self.conv2.fold(),
            ..self
        }
    }
}

/// Residual units, and a convolution to a lower rate.
#[derive(Module, Debug)]
struct DownBlock {
    res_unit1: ResidualUnit,
    res_unit2: ResidualUnit,
    res_unit3: ResidualUnit,
    snake1: Snake,
    conv1: Conv1d,
}

impl DownBlock {
    fn new(style: WaveStyle<'_>, channels: [usize; 2], ratio: usize) -> Self {
        let [res_unit1, res_unit2, res_unit3] =
            DILATIONS.map(|dilation| ResidualUnit::new(style, channels[0], dilation));
        Self {
            res_unit1,
            res_unit2,
            res_unit3,
            snake1: style.snake(channels[0]),
            conv1: style
                .conv_config(channels, 2 * ratio, 1)
                .with_stride(ratio)
                .with_padding(ratio.div_ceil(2))
                .init(style.device),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let units = [&self.res_unit1, &self.res_unit2, &self.res_unit3];
        let x = units.into_iter().fold(x, |x, unit| unit.forward(x));
        self.conv1.forward(self.snake1.forward(x))
    }

    fn fold(self) -> Self {
        Self {
            res_unit1: self.res_unit1.fold(),
            res_unit2: self.res_unit2.fold(),
            res_unit3: self.res_unit3.fold(),
            conv1: self.conv1.fold(),
            ..self
        }
    }
}

/// A transposed convolution to a higher rate, and residual units.
#[derive(Module, Debug)]
struct UpBlock {
    snake1: Snake,
    conv_t1: ConvTranspose1d,
    res_unit1: ResidualUnit,
    res_unit2: ResidualUnit,
    res_unit3: ResidualUnit,
}

impl UpBlock {
    fn new(style: WaveStyle<'_>, channels: [usize; 2], ratio: usize) -> Self {
        let [res_unit1, res_unit2, res_unit3] =
            DILATIONS.map(|dilation| ResidualUnit::new(style, channels[1], dilation));
        Self {
            snake1: style.snake(channels[0]),
            conv_t1: ConvTranspose1dConfig::new(channels, 2 * ratio)
                .with_stride(ratio)
                .with_padding(ratio.div_ceil(2))
                .with_weight_norm(style.weight_norm)
                .init(style.device),
            res_unit1,
            res_unit2,
            res_unit3,
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = self.conv_t1.forward(self.snake1.forward(x));
        let units = [&self.res_unit1, &self.res_unit2, &self.res_unit3];
        units.into_iter().fold(x, |x, unit| unit.forward(x))
    }

    fn fold(self) -> Self {
        Self {
            conv_t1: self.conv_t1.fold(),
            res_unit1: self.res_unit1.fold(),
            res_unit2: self.res_unit2.fold(),
            res_unit3: self.res_unit3.fold(),
            ..self
        }
    }
}

/// From samples to latents.
#[derive(Module, Debug)]
pub(super) struct WaveEncoder {
    conv1: Conv1d,
    block: Vec<DownBlock>,
    snake1: Snake,
    conv2: Conv1d,
}

impl WaveEncoder {
    /// `widths` are the channels at each rate, one more than there are ratios; `ends` those of the
    /// sound and of the latents.
    pub(super) fn new(
        style: WaveStyle<'_>,
        ends: [usize; 2],
        widths: &[usize],
        ratios: &[usize],
    ) -> Self {
        let last = widths[widths.len() - 1];
        let pairs = widths.windows(2).zip(ratios);
        let block = pairs.map(|(pair, ratio)| DownBlock::new(style, [pair[0], pair[1]], *ratio));
        Self {
            conv1: style.conv([ends[0], widths[0]], KERNEL, 1),
            block: block.collect(),
            snake1: style.snake(last),
            conv2: style.conv([last, ends[1]], 3, 1),
        }
    }

    /// # Shapes
    /// - wave: `[batch, channels, time]`, at least [`least_samples`]
    /// - output: `[batch, latent_channels, frames]`
    pub(super) fn forward(&self, wave: Tensor<3>) -> Tensor<3> {
        let x = self.conv1.forward(wave);
        let x = self.block.iter().fold(x, |x, block| block.forward(x));
        self.conv2.forward(self.snake1.forward(x))
    }

    pub(super) fn fold(self) -> Self {
        Self {
            conv1: self.conv1.fold(),
            block: self.block.into_iter().map(DownBlock::fold).collect(),
            conv2: self.conv2.fold(),
            ..self
        }
    }
}

/// From latents to samples.
#[derive(Module, Debug)]
pub(super) struct WaveDecoder {
    conv1: Conv1d,
    block: Vec<UpBlock>,
    snake1: Snake,
    conv2: Conv1d,
}

impl WaveDecoder {
    /// `widths` are the channels at each rate, one more than there are ratios; `ends` those of the
    /// latents and of the sound. `bias` is that of the last layer.
    pub(super) fn new(
        style: WaveStyle<'_>,
        ends: [usize; 2],
        widths: &[usize],
        ratios: &[usize],
        bias: bool,
    ) -> Self {
        let last = widths[widths.len() - 1];
        let pairs = widths.windows(2).zip(ratios);
        let block = pairs.map(|(pair, ratio)| UpBlock::new(style, [pair[0], pair[1]], *ratio));
        Self {
            conv1: style.conv([ends[0], widths[0]], KERNEL, 1),
            block: block.collect(),
            snake1: style.snake(last),
            conv2: style
                .conv_config([last, ends[1]], KERNEL, 1)
                .with_bias(bias)
                .init(style.device),
        }
    }

    /// # Shapes
    /// - latents: `[batch, latent_channels, frames]`
    /// - output: `[batch, channels, time]`
    pub(super) fn forward(&self, latents: Tensor<3>) -> Tensor<3> {
        let x = self.conv1.forward(latents);
        let x = self.block.iter().fold(x, |x, block| block.forward(x));
        self.conv2.forward(self.snake1.forward(x))
    }

    pub(super) fn fold(self) -> Self {
        Self {
            conv1: self.conv1.fold(),
            block: self.block.into_iter().map(UpBlock::fold).collect(),
            conv2: self.conv2.fold(),
            ..self
        }
    }
}

/// Frames of a sound of `time` samples; `None` if it is too short for one.
pub(super) fn frames(time: usize, ratios: &[usize]) -> Option<usize> {
    ratios.iter().try_fold(time, |time, ratio| {
        let padded = time + 2 * ratio.div_ceil(2);
        Some(padded.checked_sub(2 * ratio)? / ratio + 1)
    })
}

/// Samples that the decoder makes of `frames` frames, at least 1, for the ratios of the encoder.
pub(super) fn decoded_samples(frames: usize, ratios: &[usize]) -> usize {
    let ratios = ratios.iter().rev();
    ratios.fold(frames, |time, ratio| {
        (time + 1) * ratio - 2 * ratio.div_ceil(2)
    })
}

/// Samples of the shortest sound with a frame.
pub(super) fn least_samples(ratios: &[usize]) -> usize {
    let before = |frames: usize, ratio: &usize| {
        let padded = (frames - 1) * ratio + 2 * ratio;
        padded.saturating_sub(2 * ratio.div_ceil(2)).max(1)
    };
    ratios.iter().rev().fold(1, before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_samples_have_a_frame() {
        for ratios in [&[2, 4, 8, 8][..], &[3, 2, 2], &[5], &[2, 3, 5, 7]] {
            let least = least_samples(ratios);
            assert_eq!(frames(least, ratios), Some(1), "{ratios:?}");
            assert!(
                frames(least - 1, ratios).is_none_or(|frames| frames == 0),
                "{ratios:?}"
            );
            let hop: usize = ratios.iter().product();
            assert!(frames(100 * hop, ratios).is_some_and(|found| found.abs_diff(100) <= 1));
        }
        assert_eq!(frames(217, &[3, 2, 2]), Some(18));
    }

    /// Even ratios keep multiples of the hop; an odd one loses a sample.
    #[test]
    fn decoded_lengths_follow_the_ratios() {
        assert_eq!(decoded_samples(5, &[2, 4, 8]), 5 * 64);
        assert_eq!(decoded_samples(8, &[2, 3]), 2 * (3 * 8 - 1));
    }
}
