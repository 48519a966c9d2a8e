//! Training of the network.

use super::MagnitudeVocoder;
use crate::vocoder::checks::check_waves;
use aigc_core::{
    Result,
    audio::Vocoder,
    check::{ensure, non_negative},
    data::SampleBatch,
    dsp::MelSpectrogram,
    train::{LossOutput, Objective, StepContext},
};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;

/// Lower bound of squared magnitudes before the logarithm; the default of
/// [`StftLoss`](aigc_core::dsp::StftLoss).
pub(super) const LEAST_POWER: f64 = 1e-7;

/// Least sum of squared differences under a root, whose slope at 0 is infinite.
const LEAST_SQUARES: f64 = 1e-16;

/// Weights of the losses of a [`MagnitudeObjective`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MagnitudeLossConfig {
    /// Weight of the mean absolute difference of the logarithms of magnitudes.
    pub log_weight: f64,
    /// Weight of the spectral convergence: the norm of the differences of magnitudes over that of
    /// the targets.
    pub convergence_weight: f64,
}

impl Default for MagnitudeLossConfig {
    fn default() -> Self {
        Self {
            log_weight: 1.0,
            convergence_weight: 1.0,
        }
    }
}

impl MagnitudeLossConfig {
    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        non_negative("convergence_weight", self.convergence_weight)?;
        non_negative("log_weight", self.log_weight)?;
        let has_terms = self.log_weight + self.convergence_weight > 0.0;
        let expected = "above 0, or another `convergence_weight`";
        ensure(has_terms, "log_weight", self.log_weight, expected)
    }
}

/// Trains a [`MagnitudeVocoder`] on batches `B` of waveforms with one channel, `[batch, 1, time]`
/// in `[−1, 1]`: its magnitudes are to be those of the waveforms, whose spectrograms it reads. The
/// two terms are those of the loss of spectra at one resolution (Arık et al. 2018,
/// <https://arxiv.org/abs/1808.06719>, §3). Magnitudes below 3.2e-4 are taken to be that.
///
/// Metrics: `log_magnitude`, `convergence`.
#[derive(Debug)]
pub struct MagnitudeObjective<B> {
    config: MagnitudeLossConfig,
    mel: MelSpectrogram,
    batch: PhantomData<fn(B)>,
}

impl<B: SampleBatch<3>> MagnitudeObjective<B> {
    /// The objective with these weights for `vocoder`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for weights out of range.
    pub fn new(config: MagnitudeLossConfig, vocoder: &MagnitudeVocoder) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            config,
            mel: vocoder.mel_config().init()?,
            batch: PhantomData,
        })
    }
}

impl<B: SampleBatch<3>> Objective for MagnitudeObjective<B> {
    type Model = MagnitudeVocoder;
    type Batch = B;

    fn losses(
        &mut self,
        model: &MagnitudeVocoder,
        batch: &B,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        let stft = self.mel.stft();
        let waves = check_waves(batch, &context.device)?;
        stft.frames(waves.dims()[1])?;
        let target = stft.magnitude(waves.clone(), LEAST_POWER);
        let log = model.log_magnitudes(self.mel.log_mel_tensor(waves))?;

        let least = LEAST_POWER.ln() / 2.0;
        let difference = log.clone().clamp_min(least) - target.clone().log();
        let log_magnitude = difference.abs().mean();
        let norm = |x: Tensor<3>| x.powi_scalar(2).sum().clamp_min(LEAST_SQUARES).sqrt();
        let convergence = norm(model.exp(log) - target.clone()) / norm(target);
        let loss = log_magnitude.clone() * self.config.log_weight
            + convergence.clone() * self.config.convergence_weight;
        Ok(LossOutput::new(loss)
            .with_metric("log_magnitude", log_magnitude.detach())
            .with_metric("convergence", convergence.detach()))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::vocoder::MagnitudeVocoderConfig;
    use aigc_core::{
        audio::Waveform,
        data::sound::{Sound, SoundBatch, collate_sounds},
        dsp::MelConfig,
        nn::Conv1dConfig,
        rng::{InitWeights, Rng},
        testing::values,
        train::LossOutput,
    };
    use burn::{module::Param, tensor::Device};

    fn vocoder(device: &Device) -> MagnitudeVocoder {
        let config = MagnitudeVocoderConfig {
            mel_config: MelConfig::hifi_gan(8000, 128, 30, 12),
            dim: 8,
            intermediate_dim: 16,
            num_layers: 2,
            ..MagnitudeVocoderConfig::speech_8khz()
        };
        config.init(device).unwrap().init_weights(1)
    }

    /// Two sounds of noise that swells.
    fn batch() -> SoundBatch {
        let sound = |seed| {
            let noise = Rng::new(seed).normal_vec(1200);
            let samples = noise.iter().enumerate();
            let samples = samples
                .map(|(i, x)| x * 0.2 * (i as f32 / 1200.0))
                .collect();
            Sound {
                wave: Waveform::mono(samples, 8000).unwrap(),
                len: 1200,
                label: None,
            }
        };
        collate_sounds(vec![sound(1), sound(2)])
    }

    fn losses(
        config: MagnitudeLossConfig,
        vocoder: &MagnitudeVocoder,
        device: &Device,
    ) -> LossOutput {
        let mut objective = MagnitudeObjective::new(config, vocoder).unwrap();
        let mut context = StepContext::new(0, 1, device.clone(), Rng::new(0));
        objective.losses(vocoder, &batch(), &mut context).unwrap()
    }

    fn metric(output: &LossOutput, name: &str) -> f32 {
        let mut metrics = output.metrics.iter();
        let (_, value) = metrics.find(|(found, _)| *found == name).unwrap();
        values(value.clone())[0]
    }

    /// Against the magnitudes of the sounds, one by one on the host.
    #[test]
    fn terms_are_distances_of_magnitudes() {
        let device = Device::flex();
        let mut vocoder = vocoder(&device);
        // Some magnitudes below the floor, and some above the greatest.
        let conv = Conv1dConfig::new([8, 65], 1).init(&device).init_weights(2);
        let bias = Rng::new(3).normal::<1>([65], &device) * 6.0;
        vocoder.conv_post = conv;
        vocoder.conv_post.bias = Some(Param::from_tensor(bias));
        let waves = batch().normalized(&device).reshape([2, 1200]);
        let mel = vocoder.mel_config().init().unwrap();
        let found = vocoder
            .magnitudes(mel.log_mel_tensor(waves.clone()))
            .unwrap();
        let found = values(found);
        let found_logs = values(
            vocoder
                .log_magnitudes(mel.log_mel_tensor(waves.clone()))
                .unwrap(),
        );
        let least = LEAST_POWER.sqrt();
        let (mut logs, mut squares, mut norm, mut at) = (0.0, 0.0, 0.0, 0);
        for clip in 0..2 {
            let samples = values(waves.clone().narrow(0, clip, 1));
            let spectra = mel.stft().forward(&samples).unwrap();
            for expected in spectra.magnitude().transposed() {
                let (found, expected) = (f64::from(found[at]), expected.max(least));
                let log = f64::from(found_logs[at]).max(least.ln());
                logs += (log - expected.ln()).abs();
                squares += (found - expected).powi(2);
                norm += expected * expected;
                at += 1;
            }
        }
        assert_eq!(at, found.len());
        let (low, high) = (least as f32, 128.0);
        assert!(found.iter().any(|x| *x < low) && found.contains(&high));
        let (log, convergence) = ((logs / at as f64) as f32, (squares / norm).sqrt() as f32);
        let output = losses(MagnitudeLossConfig::default(), &vocoder, &device);
        assert!((metric(&output, "log_magnitude") - log).abs() < 1e-4 * log);
        assert!((metric(&output, "convergence") - convergence).abs() < 1e-4 * convergence);
        let weights = MagnitudeLossConfig {
            log_weight: 2.0,
            convergence_weight: 0.5,
        };
        let weighted = values(losses(weights, &vocoder, &device).loss)[0];
        assert!((weighted - 2.0 * log - 0.5 * convergence).abs() < 1e-4);
    }

    /// Silence, of which a new network predicts the floor exactly, has finite gradients.
    #[test]
    fn gradients_of_silence_are_finite() {
        let device = Device::flex().autodiff();
        let vocoder = vocoder(&device);
        let silence = Sound {
            wave: Waveform::mono(vec![0.0; 1200], 8000).unwrap(),
            len: 1200,
            label: None,
        };
        let mut objective = MagnitudeObjective::new(Default::default(), &vocoder).unwrap();
        let mut context = StepContext::new(0, 1, device.clone(), Rng::new(0));
        let batch = collate_sounds(vec![silence]);
        let output = objective.losses(&vocoder, &batch, &mut context).unwrap();
        let gradients = output.loss.backward();
        for conv in [&vocoder.conv_pre, &vocoder.conv_post] {
            let gradient = values(conv.weight.val().grad(&gradients).unwrap());
            assert!(gradient.iter().all(|value| value.is_finite()));
        }
    }

    /// All layers have gradients, also where a logarithm is far too large.
    #[test]
    fn training_reaches_all_weights() {
        let device = Device::flex().autodiff();
        let mut vocoder = vocoder(&device);
        // Not zeros, which no gradient passes.
        vocoder.conv_post = Conv1dConfig::new([8, 65], 1).init(&device).init_weights(2);
        for factor in [0.0, 100.0] {
            let bias = Tensor::<1>::full([65], factor, &device);
            vocoder.conv_post.bias = Some(Param::from_tensor(bias));
            let output = losses(MagnitudeLossConfig::default(), &vocoder, &device);
            let gradients = output.loss.backward();
            let reached = |weight: Tensor<1>| {
                let size = values(weight.abs().sum())[0];
                assert!(size > 0.0 && size.is_finite(), "{factor}: {size}");
            };
            let convs = vocoder.blocks.iter().map(|block| &block.dwconv);
            for conv in convs.chain([&vocoder.conv_pre, &vocoder.conv_post]) {
                reached(conv.weight.val().grad(&gradients).unwrap().flatten(0, 2));
            }
            for block in &vocoder.blocks {
                reached(block.gamma.val().grad(&gradients).unwrap());
                for linear in [&block.pwconv1, &block.pwconv2] {
                    reached(linear.weight.val().grad(&gradients).unwrap().flatten(0, 1));
                }
            }
            assert!(vocoder.mean.val().grad(&gradients).is_none());
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let device = Device::flex();
        let vocoder = vocoder(&device);
        for (field, log_weight, convergence_weight) in [
            ("log_weight", 0.0, 0.0),
            ("log_weight", -1.0, 1.0),
            ("convergence_weight", 1.0, f64::NAN),
        ] {
            let config = MagnitudeLossConfig {
                log_weight,
                convergence_weight,
            };
            let error = MagnitudeObjective::<SoundBatch>::new(config, &vocoder).unwrap_err();
            assert!(error.to_string().contains(field), "{field}: {error}");
        }
        let short = Sound {
            wave: Waveform::mono(vec![0.1; 20], 8000).unwrap(),
            len: 20,
            label: None,
        };
        let mut objective = MagnitudeObjective::new(Default::default(), &vocoder).unwrap();
        let mut context = StepContext::new(0, 1, device.clone(), Rng::new(0));
        let batch = collate_sounds(vec![short]);
        let error = objective
            .losses(&vocoder, &batch, &mut context)
            .unwrap_err();
        assert!(error.to_string().contains("20"), "{error}");
    }
}
