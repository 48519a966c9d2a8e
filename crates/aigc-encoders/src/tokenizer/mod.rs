//! Tokenizers of CLIP and T5.

mod clip;
mod files;
mod t5;

pub use clip::ClipTokenizer;
pub use t5::T5Tokenizer;

use aigc_core::{Result, check::ensure_argument};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

/// Limit on the number of tokens that prompts are padded or cut to.
const LONGEST: usize = 1 << 20;

/// Prompts as tokens, all of the same length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenBatch {
    /// The tokens of each prompt, with special tokens and padding.
    pub ids: Vec<Vec<u32>>,
    /// For each prompt, which tokens are no padding.
    pub attention_mask: Vec<Vec<bool>>,
    /// For each prompt, the text that was cut because the prompt was too long.
    pub cut: Vec<Option<String>>,
}

impl TokenBatch {
    /// Adds a prompt of at most `length` tokens, which `pad` extends to that length.
    fn push(&mut self, mut ids: Vec<u32>, length: usize, pad: u32, cut: Option<String>) {
        let mut mask = vec![true; ids.len()];
        ids.resize(length, pad);
        mask.resize(length, false);
        self.ids.push(ids);
        self.attention_mask.push(mask);
        self.cut.push(cut);
    }

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

/// Fails if there are no prompts.
pub(crate) fn check_prompts(prompts: &[&str]) -> Result<()> {
    let expected = "at least one prompt";
    ensure_argument(!prompts.is_empty(), "prompts", "empty", expected)
}

/// Fails unless prompts of this length have room for `special` tokens, which `names` describes.
fn check_length(max_length: usize, special: usize, names: &str) -> Result<()> {
    ensure_argument(
        (special..=LONGEST).contains(&max_length),
        "max_length",
        max_length,
        &format!("{special} ({names}) to {LONGEST}"),
    )
}
