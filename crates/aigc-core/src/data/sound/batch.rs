//! Sounds and batches of them.

use crate::{
    audio::Waveform,
    data::{SampleBatch, SampleShape, ValueRange, label_tensor},
};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

/// A sound of a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Sound {
    /// The samples.
    pub wave: Waveform,
    /// Number of samples before padding; the rest is silence.
    pub len: usize,
    /// Class, if the data set has classes.
    pub label: Option<u32>,
}

/// A batch of sounds on the host. Values are in `[-1, 1]`.
#[derive(Clone, Debug)]
pub struct SoundBatch {
    /// `[batch, channels, time]`
    values: Vec<f32>,
    shape: [usize; 3],
    sample_rate: u32,
    lengths: Vec<usize>,
    labels: Option<Vec<u32>>,
}

impl SoundBatch {
    /// Samples per second.
    pub fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    /// Number of samples of each sound before padding.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// All samples, `[batch, channels, time]`.
    #[cfg(feature = "eval")]
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// Number of sounds, channels and samples.
    #[cfg(feature = "eval")]
    pub(crate) fn dims(&self) -> [usize; 3] {
        self.shape
    }

    /// Where samples are no padding.
    ///
    /// # Shapes
    /// - output: `[batch, time]`
    pub fn mask(&self, device: &Device) -> Tensor<2, Bool> {
        let [batch, _, time] = self.shape;
        let inside = |len: &usize| {
            let len = *len;
            (0..time).map(move |at| at < len)
        };
        let values: Vec<bool> = self.lengths.iter().flat_map(inside).collect();
        Tensor::from_data(TensorData::new(values, [batch, time]), device)
    }

    /// Classes on `device`, `[batch]`; `None` if a sound of the batch has no class.
    pub fn label_tensor(&self, device: &Device) -> Option<Tensor<1, Int>> {
        Some(label_tensor(self.labels.as_ref()?, device))
    }
}

impl SampleBatch<3> for SoundBatch {
    fn to_tensor(&self, device: &Device) -> Tensor<3> {
        Tensor::from_data(TensorData::new(self.values.clone(), self.shape), device)
    }

    fn len(&self) -> usize {
        self.shape[0]
    }

    fn sample_shape(&self) -> SampleShape {
        SampleShape::new(&self.shape[1..])
    }

    fn value_range(&self) -> ValueRange {
        ValueRange::Symmetric
    }

    fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }
}

/// Collates sounds into a batch. Shorter ones are padded with silence at the end.
///
/// # Panics
/// If there are no sounds, or their rates or channels differ.
pub fn collate_sounds(sounds: Vec<Sound>) -> SoundBatch {
    let first = &sounds.first().expect("a batch has sounds").wave;
    let (channels, sample_rate) = (first.num_channels(), first.sample_rate());
    let time = sounds.iter().map(|sound| sound.wave.len()).max();
    let time = time.unwrap_or(0);
    let mut values = Vec::with_capacity(sounds.len() * channels * time);
    for Sound { wave, .. } in &sounds {
        let format = (wave.num_channels(), wave.sample_rate());
        assert_eq!(
            format,
            (channels, sample_rate),
            "sounds of a batch differ in channels or rate"
        );
        for channel in wave.channels() {
            values.extend_from_slice(channel);
            values.resize(values.len() + time - channel.len(), 0.0);
        }
    }
    SoundBatch {
        values,
        shape: [sounds.len(), channels, time],
        sample_rate,
        lengths: sounds.iter().map(|sound| sound.len).collect(),
        labels: sounds.iter().map(|sound| sound.label).collect(),
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    #[test]
    fn batches_are_padded_with_silence() {
        let sound = |samples: &[f32], label| Sound {
            wave: Waveform::new(vec![samples.to_vec(); 2], 8000).unwrap(),
            len: samples.len(),
            label,
        };
        let batch = collate_sounds(vec![
            sound(&[0.5, -0.5, 1.0], Some(3)),
            sound(&[0.25], Some(1)),
        ]);
        let device = Device::flex();
        let tensor = batch.to_tensor(&device);
        assert_eq!((tensor.dims(), batch.sample_rate()), ([2, 2, 3], 8000));
        let values: Vec<f32> = tensor.into_data().iter().collect();
        let left = [0.5, -0.5, 1.0];
        let right = [0.25, 0.0, 0.0];
        assert_eq!(values, [left, left, right, right].concat());
        assert_eq!(
            (batch.labels(), batch.lengths()),
            (Some(&[3, 1][..]), &[3, 1][..])
        );
        let mask: Vec<bool> = batch.mask(&device).into_data().iter().collect();
        assert_eq!(mask, [true, true, true, true, false, false]);
        assert_eq!(batch.sample_shape(), SampleShape::new(&[2, 3]));
        assert_eq!(batch.value_range(), ValueRange::Symmetric);
        let without = collate_sounds(vec![sound(&[0.0], None)]);
        assert!(without.label_tensor(&device).is_none());
    }
}
