//! A network that reads the pitch off spectrograms.

use super::NsfHifiGanConfig;
use aigc_core::nn::{Activation, Conv1d, Conv1dConfig};
use burn::{
    module::Module,
    tensor::{Device, Tensor, activation::sigmoid},
};

/// Kernel of the layers.
const KERNEL: usize = 5;

/// Layers before the last.
const LAYERS: usize = 3;

/// Weight of the difference of the logarithms of pitches beside that of voicing.
const PITCH_WEIGHT: f64 = 4.0;

/// Predicts pitch and voicing of the frames of a spectrogram by convolutions.
#[derive(Module, Debug)]
pub struct PitchPredictor {
    /// Layers before the last.
    pub convs: Vec<Conv1d>,
    /// To the pitch and the voicing.
    pub output: Conv1d,
    /// Natural logarithms of the lowest and the highest pitch in hertz.
    #[module(skip)]
    range: [f64; 2],
}

/// What a [`PitchPredictor`] finds.
#[derive(Clone, Debug)]
pub(super) struct Pitch {
    /// Natural logarithm of the pitch in hertz, `[batch, frames]`.
    log: Tensor<2>,
    /// Logit of there being a pitch, `[batch, frames]`.
    voicing: Tensor<2>,
    /// Highest pitch in hertz.
    highest: f32,
}

impl PitchPredictor {
    pub(super) fn new(config: &NsfHifiGanConfig, device: &Device) -> Self {
        let (bands, channels) = (config.mel_config.n_mels, config.pitch_channels);
        let conv = |layer| {
            let inputs = if layer == 0 { bands } else { channels };
            Conv1dConfig::new([inputs, channels], KERNEL)
                .with_padding(KERNEL / 2)
                .init_scaled(1.0, device)
        };
        Self {
            convs: (0..LAYERS).map(conv).collect(),
            output: Conv1dConfig::new([channels, 2], 1).init_scaled(1.0, device),
            range: [config.f_min.ln(), config.f_max.ln()],
        }
    }

    /// Pitch and voicing of frames.
    ///
    /// # Shapes
    /// - x: `[batch, mels, frames]`, normalised
    pub(super) fn forward(&self, x: Tensor<3>, activation: Activation) -> Pitch {
        let convs = self.convs.iter();
        let hidden = convs.fold(x, |x, conv| activation.forward(conv.forward(x)));
        let output = self.output.forward(hidden);
        let channel = |index| output.clone().narrow(1, index, 1).squeeze_dim::<2>(1);
        let [low, high] = self.range;
        Pitch {
            log: sigmoid(channel(0)) * (high - low) + low,
            voicing: channel(1),
            highest: high.exp() as f32,
        }
    }
}

impl Pitch {
    /// The pitch of every frame in hertz, 0 where there is none, for each sound.
    pub(super) fn values(&self) -> Vec<Vec<f32>> {
        let frames = self.log.dims()[1];
        let [log, voicing] = [&self.log, &self.voicing].map(|values| {
            let data = values.clone().detach().into_data();
            data.iter::<f32>().collect::<Vec<f32>>()
        });
        let (values, highest) = (log.iter().zip(&voicing), self.highest);
        let values: Vec<f32> = values
            .map(|(log, voicing)| {
                if *voicing > 0.0 {
                    log.exp().min(highest)
                } else {
                    0.0
                }
            })
            .collect();
        values.chunks(frames).map(<[f32]>::to_vec).collect()
    }

    /// How far the prediction is from these pitches: the cross entropy of voicing, averaged over
    /// frames, and four times the absolute difference of logarithms, averaged over frames with a
    /// pitch.
    ///
    /// # Shapes
    /// - pitch: `[batch, frames]` in hertz, 0 without a pitch
    /// - output: `[1]`
    pub(super) fn loss(self, pitch: Tensor<2>) -> Tensor<1> {
        let voiced = pitch.clone().greater_elem(0.0).float();
        let count = voiced.clone().sum().clamp_min(1.0);
        let difference = (self.log - pitch.clamp_min(1.0).log()).abs() * voiced.clone();
        // ln(1 + e^−|x|) + max(x, 0) − x·target, without overflow.
        let x = self.voicing;
        let entropy = (-x.clone().abs()).exp().log1p() + x.clone().clamp_min(0.0) - x * voiced;
        entropy.mean() + difference.sum() / count * PITCH_WEIGHT
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::{assert_close, values};

    /// Against the sums written out.
    #[test]
    fn loss_is_that_of_voicing_and_pitch() {
        let device = Device::flex();
        let pitch = Pitch {
            log: Tensor::from_floats([[100f32.ln(), 5.0, 200f32.ln()]], &device),
            voicing: Tensor::from_floats([[2.0, -1.0, 60.0]], &device),
            highest: 150.0,
        };
        assert_eq!(pitch.values()[0][1..], [0.0, 150.0]);
        let target = Tensor::from_floats([[110.0, 0.0, 200.0]], &device);
        let entropy = ((1.0 + (-2f32).exp()).ln() + (1.0 + (-1f32).exp()).ln()) / 3.0;
        let expected = entropy + 4.0 * (110f32 / 100.0).ln() / 2.0;
        assert_close(&values(pitch.loss(target)), &[expected], 1e-5);
    }
}
