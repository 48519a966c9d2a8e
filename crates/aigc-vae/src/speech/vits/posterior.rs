//! The posterior of latents, given a spectrogram.

use super::{VitsConfig, wavenet::WaveNet};
use aigc_core::{
    nn::{Conv1d, Conv1dConfig},
    ops,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// A Gaussian distribution of latents, independent in every channel and frame.
#[derive(Clone, Debug)]
pub struct VitsPosterior {
    /// Means, `[batch, flow_size, frames]`; 0 in the padding.
    pub mean: Tensor<3>,
    /// Logarithms of standard deviations, `[batch, flow_size, frames]`; 0 in the padding.
    pub log_std: Tensor<3>,
    pub(super) mask: Tensor<3>,
}

impl VitsPosterior {
    /// The latents that standard normal noise stands for, all `[batch, flow_size, frames]`.
    ///
    /// # Panics
    /// If the noise has another shape than the means.
    pub fn sample(&self, noise: Tensor<3>) -> Tensor<3> {
        let (mean, log_std) = (self.mean.clone(), self.log_std.clone());
        ops::reparameterize(mean, log_std, noise) * self.mask.clone()
    }
}

/// Estimates the posterior.
#[derive(Module, Debug)]
pub(super) struct PosteriorEncoder {
    conv_pre: Conv1d,
    wavenet: WaveNet,
    conv_proj: Conv1d,
}

impl PosteriorEncoder {
    pub(super) fn new(config: &VitsConfig, device: &Device) -> Self {
        let conv = |channels| Conv1dConfig::new(channels, 1).init(device);
        let layers = config.posterior_encoder_num_wavenet_layers;
        Self {
            conv_pre: conv([config.spectrogram_bins, config.hidden_size]),
            wavenet: WaveNet::new(config, layers, device),
            conv_proj: conv([config.hidden_size, 2 * config.flow_size]),
        }
    }

    pub(super) fn forward(
        &self,
        spectrogram: Tensor<3>,
        mask: Tensor<3>,
        condition: Option<&Tensor<3>>,
    ) -> VitsPosterior {
        let x = self.conv_pre.forward(spectrogram) * mask.clone();
        let x = self.wavenet.forward(x, &mask, condition);
        let [mean, log_std] = super::coupling::halves(self.conv_proj.forward(x) * mask.clone());
        VitsPosterior {
            mean,
            log_std,
            mask,
        }
    }
}
