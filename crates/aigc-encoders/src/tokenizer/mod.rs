//! Tokenizers of CLIP and T5.

mod clip;
mod t5;

pub use clip::ClipTokenizer;
pub use t5::T5Tokenizer;

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

/// Prompts as tokens, all of the same length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBatch {
    /// The tokens of each prompt, with special tokens and padding.
    pub ids: Vec<Vec<u32>>,
    /// For each prompt, which tokens are no padding.
    pub attention_mask: Vec<Vec<bool>>,
    /// For each prompt, the text that was cut because the prompt was too long.
    pub cut: Vec<Option<String>>,
}

impl TokenBatch {
    /// Number of prompts.
    pub fn batch_size(&self) -> usize {
        self.ids.len()
    }

    /// Number of tokens of every prompt.
    pub fn seq_len(&self) -> usize {
        self.ids.first().map_or(0, Vec::len)
    }

    /// The tokens, `[batch, tokens]`.
    pub fn input_ids(&self, device: &Device) -> Tensor<2, Int> {
        let ids: Vec<i32> = self.ids.iter().flatten().map(|id| *id as i32).collect();
        Tensor::from_data(
            TensorData::new(ids, [self.batch_size(), self.seq_len()]),
            device,
        )
    }

    /// Which tokens are no padding, `[batch, tokens]`.
    pub fn mask(&self, device: &Device) -> Tensor<2, Bool> {
        let mask: Vec<bool> = self.attention_mask.iter().flatten().copied().collect();
        Tensor::from_data(
            TensorData::new(mask, [self.batch_size(), self.seq_len()]),
            device,
        )
    }
}
