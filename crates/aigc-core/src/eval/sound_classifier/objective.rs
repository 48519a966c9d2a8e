//! Training of the classifier.

use super::SoundClassifier;
use crate::{
    Error, Result,
    check::{ensure, fraction, non_negative},
    data::{SampleBatch, label_tensor, sound::SoundBatch},
    ops::cross_entropy,
    rng::Rng,
    train::{LossOutput, Objective, StepContext},
};
use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// Random changes of sounds in training, after which a sound keeps its class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SoundAugmentation {
    /// Longest delay, as a part of the length; what moves beyond the end is lost.
    pub shift: f64,
    /// Loudness: a factor from `1/gain` to `gain`.
    pub gain: f64,
    /// Least and largest standard deviation of added noise.
    pub noise: [f64; 2],
}

impl Default for SoundAugmentation {
    /// Delays up to a fifth, factors up to 2, noise from 1e-4 to 1e-2.
    fn default() -> Self {
        Self {
            shift: 0.2,
            gain: 2.0,
            noise: [1e-4, 1e-2],
        }
    }
}

impl SoundAugmentation {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] if one is out of range.
    pub fn validate(&self) -> Result<()> {
        fraction("shift", self.shift)?;
        ensure(
            self.gain >= 1.0 && self.gain.is_finite(),
            "gain",
            self.gain,
            "a finite number, 1 or above",
        )?;
        let [least, most] = self.noise;
        non_negative("noise", least)?;
        non_negative("noise", most)?;
        ensure(
            least <= most && (least > 0.0 || most == 0.0),
            "noise",
            format!("{least} to {most}"),
            "the smaller one first, both above 0 or both 0",
        )
    }

    /// Changed sounds on `device`.
    ///
    /// # Shapes
    /// - output: `[batch, channels, time]`
    fn apply(&self, sounds: &SoundBatch, rng: &mut Rng, device: &Device) -> Tensor<3> {
        let (values, dims) = (sounds.values(), sounds.dims());
        let [batch, channels, time] = dims;
        let draws: Vec<f64> = rng
            .uniform_vec(3 * batch, 0.0, 1.0)
            .into_iter()
            .map(f64::from)
            .collect();
        let noise = rng.normal_vec(batch * channels * time);
        let mut out = vec![0.0f32; values.len()];
        let span = channels * time;
        for (sound, draw) in draws.chunks_exact(3).enumerate() {
            let delay = ((draw[0] * self.shift * time as f64) as usize).min(time);
            let gain = self.gain.powf(2.0 * draw[1] - 1.0) as f32;
            let [least, most] = self.noise;
            let deviation = match most > 0.0 {
                true => (least * (most / least).powf(draw[2])) as f32,
                false => 0.0,
            };
            for channel in 0..channels {
                let start = sound * span + channel * time;
                for at in 0..time {
                    let sample = match at >= delay {
                        true => values[start + at - delay],
                        false => 0.0,
                    };
                    out[start + at] = gain * sample + deviation * noise[start + at];
                }
            }
        }
        Tensor::from_data(TensorData::new(out, dims), device)
    }
}

/// Cross-entropy of the classes of sounds, with the share of right ones as `accuracy`.
#[derive(Clone, Debug, Default)]
pub struct SoundClassifierObjective {
    augmentation: Option<SoundAugmentation>,
}

impl SoundClassifierObjective {
    /// Sounds as they are.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes sounds at random.
    ///
    /// # Errors
    /// As [`SoundAugmentation::validate`].
    pub fn with_augmentation(self, augmentation: SoundAugmentation) -> Result<Self> {
        augmentation.validate()?;
        Ok(Self {
            augmentation: Some(augmentation),
        })
    }
}

impl Objective for SoundClassifierObjective {
    type Model = SoundClassifier;
    type Batch = SoundBatch;

    /// # Errors
    /// [`Error::InvalidArgument`] if a sound has no class or one that the network does not have, or
    /// the sounds have another sample rate.
    fn losses(
        &mut self,
        model: &SoundClassifier,
        batch: &SoundBatch,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        model.check_rate(batch)?;
        let num_classes = model.config.num_classes;
        let Some(labels) = batch.labels() else {
            return Err(Error::argument(
                "labels",
                "missing",
                "a class for every sound",
            ));
        };
        if let Some(label) = labels.iter().find(|label| **label as usize >= num_classes) {
            let expected = format!("below {num_classes}, the number of classes");
            return Err(Error::argument("labels", label, expected));
        }
        let device = &context.device;
        let waves = match &self.augmentation {
            Some(augmentation) => augmentation.apply(batch, &mut context.rng, device),
            None => batch.to_tensor(device),
        };
        let output = model.classify(waves)?;
        let predictions = output.predictions();
        let right = predictions
            .iter()
            .zip(labels)
            .filter(|(a, b)| a == b)
            .count();
        let accuracy = right as f32 / labels.len() as f32;
        let loss = cross_entropy(output.logits, label_tensor(labels, device)).mean();
        let accuracy = Tensor::<1>::from_floats([accuracy], device);
        Ok(LossOutput::new(loss).with_metric("accuracy", accuracy))
    }
}
