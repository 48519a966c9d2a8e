//! A sound in memory.

use crate::{Error, Result, check::ensure_argument};
use burn::tensor::{Device, Tensor, TensorData};

/// A sound: channels of equal length, and the number of samples per second.
///
/// Channels are in the order of WAV files: left, right; with more, centre, low frequencies and
/// those behind the listener follow.
#[derive(Clone, Debug, PartialEq)]
pub struct Waveform {
    channels: Vec<Vec<f32>>,
    sample_rate: u32,
}

impl Waveform {
    /// A sound of `channels` with `sample_rate` samples per second.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no channels, their lengths differ, or the rate is 0.
    pub fn new(channels: Vec<Vec<f32>>, sample_rate: u32) -> Result<Self> {
        ensure_argument(
            sample_rate > 0,
            "sample_rate",
            sample_rate,
            "at least 1 sample per second",
        )?;
        let len = match channels.first() {
            Some(channel) => channel.len(),
            None => return Err(Error::argument("channels", 0, "at least one channel")),
        };
        if let Some(index) = channels.iter().position(|channel| channel.len() != len) {
            return Err(Error::argument(
                format!("channels[{index}]"),
                format!("{} samples long", channels[index].len()),
                format!("{len} samples, the length of the first channel"),
            ));
        }
        Ok(Self {
            channels,
            sample_rate,
        })
    }

    /// A sound of one channel.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the rate is 0.
    pub fn mono(samples: Vec<f32>, sample_rate: u32) -> Result<Self> {
        Self::new(vec![samples], sample_rate)
    }

    /// `len` samples of silence.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn silence(channels: usize, len: usize, sample_rate: u32) -> Result<Self> {
        Self::new(vec![vec![0.0; len]; channels], sample_rate)
    }

    /// The sound that a tensor holds.
    ///
    /// # Shapes
    /// - samples: `[channels, time]`
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn from_tensor(samples: Tensor<2>, sample_rate: u32) -> Result<Self> {
        let [channels, len] = samples.dims();
        let data = samples.into_data();
        let mut values = data.iter::<f32>();
        let channels = (0..channels)
            .map(|_| values.by_ref().take(len).collect())
            .collect();
        Self::new(channels, sample_rate)
    }

    /// The samples as a tensor.
    ///
    /// # Shapes
    /// - output: `[channels, time]`
    pub fn to_tensor(&self, device: &Device) -> Tensor<2> {
        let shape = [self.num_channels(), self.len()];
        Tensor::from_data(TensorData::new(self.channels.concat(), shape), device)
    }

    /// Samples per second.
    pub fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    /// Number of channels, at least one.
    pub fn num_channels(&self) -> usize {
        self.channels.len()
    }

    /// Number of samples of a channel.
    pub fn len(&self) -> usize {
        self.channels[0].len()
    }

    /// Whether the channels have no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        self.len() as f64 / f64::from(self.sample_rate)
    }

    /// The samples of a channel.
    ///
    /// # Panics
    /// If `index` is not below [`num_channels`](Self::num_channels).
    pub fn channel(&self, index: usize) -> &[f32] {
        &self.channels[index]
    }

    /// The samples of all channels.
    pub fn channels(&self) -> &[Vec<f32>] {
        &self.channels
    }

    /// The samples of all channels, without a copy.
    pub fn into_channels(self) -> Vec<Vec<f32>> {
        self.channels
    }

    /// The same rate, and channels made of those of this sound; all must have one length.
    pub(super) fn with_channels(&self, channels: Vec<Vec<f32>>) -> Self {
        debug_assert!(!channels.is_empty());
        Self {
            channels,
            sample_rate: self.sample_rate,
        }
    }

    /// Applies a function to every sample.
    pub(super) fn map(&self, function: impl Fn(f32) -> f32) -> Self {
        let apply = |channel: &Vec<f32>| channel.iter().map(|x| function(*x)).collect();
        self.with_channels(self.channels.iter().map(apply).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_must_fit() {
        let message = |result: Result<Waveform>| result.unwrap_err().to_string();
        assert!(message(Waveform::new(vec![], 8000)).contains("`channels` is 0"));
        assert!(message(Waveform::mono(vec![0.0], 0)).contains("`sample_rate` is 0"));
        let unequal = vec![vec![0.0; 3], vec![0.0; 2]];
        let error = message(Waveform::new(unequal, 8000));
        assert!(error.contains("`channels[1]` is 2 samples long"), "{error}");
        assert!(Waveform::silence(0, 4, 8000).is_err());
        let silence = Waveform::silence(2, 4, 8).unwrap();
        assert_eq!(
            (silence.num_channels(), silence.len(), silence.seconds()),
            (2, 4, 0.5)
        );
        assert!(Waveform::mono(vec![], 1).unwrap().is_empty());
    }

    #[test]
    fn tensors_hold_the_same_samples() {
        let device = crate::device::device("flex").unwrap();
        let wave = Waveform::new(vec![vec![1.0, -2.0, 0.5], vec![0.25, 4.0, -8.0]], 16_000);
        let wave = wave.unwrap();
        let tensor = wave.to_tensor(&device);
        assert_eq!(tensor.dims(), [2, 3]);
        assert_eq!(Waveform::from_tensor(tensor, 16_000).unwrap(), wave);
    }
}
