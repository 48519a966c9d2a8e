//! The trait of vocoders that are trained.

use super::{HifiGan, UnivNet};
use aigc_core::{Result, audio::Vocoder, rng::Rng};
use burn::{
    module::{Module, ModuleDisplay},
    tensor::Tensor,
};

/// What a [`VocoderGenerator`] makes in training.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Waveforms, `[batch, time]`.
    pub wave: Tensor<2>,
    /// Losses of the generator's own, `[1]` each, which are added to those of the waveforms, with
    /// the names of their metrics.
    pub losses: Vec<(&'static str, Tensor<1>)>,
}

impl From<Tensor<2>> for Generated {
    /// Waveforms without losses of their own.
    fn from(wave: Tensor<2>) -> Self {
        Self {
            wave,
            losses: Vec::new(),
        }
    }
}

/// A vocoder that [`VocoderObjective`](super::VocoderObjective) trains.
pub trait VocoderGenerator: Vocoder + Module + ModuleDisplay {
    /// The waveforms of log-mel spectrograms in training. A generator with random inputs draws them
    /// from `rng`, so that they differ from step to step; one that predicts more than a waveform
    /// computes losses of its own from the targets. By default there are neither, and the waveforms
    /// are those of [`vocode`](Vocoder::vocode).
    ///
    /// # Shapes
    /// - log_mel: `[batch, mels, frames]`
    /// - target: `[batch, time]`, the sounds of the spectrograms
    ///
    /// # Errors
    /// As [`vocode`](Vocoder::vocode).
    fn generate(&self, log_mel: Tensor<3>, target: &Tensor<2>, rng: &mut Rng) -> Result<Generated> {
        let _ = (target, rng);
        self.vocode(log_mel).map(Generated::from)
    }
}

impl VocoderGenerator for HifiGan {}

impl VocoderGenerator for UnivNet {
    /// With new noise (Jang et al. 2021, <https://arxiv.org/abs/2106.07889>, §2.1).
    fn generate(&self, log_mel: Tensor<3>, _: &Tensor<2>, rng: &mut Rng) -> Result<Generated> {
        self.vocode_with_noise(log_mel, rng).map(Generated::from)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::vocoder::UnivNetConfig;
    use aigc_core::{rng::InitWeights, testing::values};
    use burn::tensor::Device;

    /// In training the noise follows the random numbers, and the weights have gradients.
    #[test]
    fn noise_of_univnet_is_drawn_in_training() {
        let device = Device::flex().autodiff();
        let config = UnivNetConfig {
            model_in_channels: 4,
            kernel_predictor_hidden_channels: 4,
            model_hidden_channels: 4,
            num_mel_bins: 12,
            resblock_kernel_sizes: vec![3; 2],
            resblock_stride_sizes: vec![5, 2],
            resblock_dilation_sizes: vec![vec![1, 2]; 2],
            weight_norm: true,
            ..UnivNetConfig::default()
        };
        let vocoder = config.init(&device).unwrap().init_weights(1);
        let log_mel: Tensor<3> = Rng::new(2).normal([2, 12, 5], &device);
        let target = Tensor::zeros([2, 50], &device);
        let wave = |seed| {
            let mut rng = Rng::new(seed);
            vocoder
                .generate(log_mel.clone(), &target, &mut rng)
                .unwrap()
                .wave
        };
        let generated = |seed| values(wave(seed));
        assert_eq!(generated(3), generated(3));
        assert_ne!(generated(3), generated(4));
        let fixed = || values(vocoder.vocode(log_mel.clone()).unwrap());
        assert_eq!(fixed(), fixed());

        let wave = wave(3);
        let gradients = (wave.clone() * wave).sum().backward();
        let gradient = vocoder.conv_pre.weight.val().grad(&gradients).unwrap();
        assert!(values(gradient.abs().sum())[0] > 0.0);
    }
}
