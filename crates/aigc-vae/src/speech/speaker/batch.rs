//! Batches of speech.

use aigc_core::dsp::MelConfig;
use burn::tensor::{Device, Tensor, TensorData};

/// A recording as a spectrogram, and its transcript as symbols.
#[derive(Clone, Debug, PartialEq)]
pub struct SpeechItem {
    /// Ids of the symbols.
    pub ids: Vec<u32>,
    /// Log-mel spectrogram, `[mels, frames]`, frames fastest.
    pub log_mel: Vec<f32>,
    /// Configuration of the spectrogram.
    pub mel: MelConfig,
    /// Index of the speaker.
    pub speaker: usize,
}

/// Recordings of different lengths with their transcripts.
#[derive(Clone, Debug, PartialEq)]
pub struct SpeechBatch {
    items: Vec<SpeechItem>,
}

impl SpeechBatch {
    /// Collates items into a batch, for a [`DataLoader`](aigc_core::data::DataLoader).
    ///
    /// # Panics
    /// If there are no items, their spectrograms are of different configurations or have no mels,
    /// or a spectrogram does not have whole frames.
    pub fn collate(items: Vec<SpeechItem>) -> Self {
        let mel = items.first().expect("a batch of speech has items").mel;
        assert!(mel.n_mels > 0, "a batch of speech has no mels");
        for item in &items {
            assert_eq!(
                item.mel, mel,
                "the mels of a batch are of one configuration"
            );
            assert!(
                item.log_mel.len().is_multiple_of(mel.n_mels),
                "{} values of {} mels",
                item.log_mel.len(),
                mel.n_mels
            );
        }
        Self { items }
    }

    /// The items.
    pub fn items(&self) -> &[SpeechItem] {
        &self.items
    }

    /// Frames of each item.
    pub fn frames(&self) -> Vec<usize> {
        let items = self.items.iter();
        items
            .map(|item| item.log_mel.len() / item.mel.n_mels)
            .collect()
    }

    /// Index of the speaker of each item.
    pub fn speakers(&self) -> Vec<usize> {
        self.items.iter().map(|item| item.speaker).collect()
    }

    /// Ids of the symbols of each item.
    pub fn ids(&self) -> Vec<Vec<u32>> {
        self.items.iter().map(|item| item.ids.clone()).collect()
    }

    /// The spectrograms, with zeros behind the shorter ones.
    ///
    /// # Shapes
    /// - output: `[batch, mels, frames]`
    pub fn log_mel(&self, device: &Device) -> Tensor<3> {
        let frames = self.frames();
        let most = frames.iter().copied().max().unwrap_or(0);
        let mels = self.items.first().map_or(0, |item| item.mel.n_mels);
        let mut values = Vec::with_capacity(self.items.len() * mels * most);
        for (item, frames) in self.items.iter().zip(&frames) {
            for mel in 0..mels {
                values.extend_from_slice(&item.log_mel[mel * frames..(mel + 1) * frames]);
                values.resize(values.len() + most - frames, 0.0);
            }
        }
        let shape = [self.items.len(), mels, most];
        Tensor::from_data(TensorData::new(values, shape), device)
    }
}
