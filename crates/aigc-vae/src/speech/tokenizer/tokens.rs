//! The symbols of texts.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

/// What to do about characters that a voice does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownCharacters {
    /// Stop with an error that names them.
    #[default]
    Fail,
    /// Go on as transformers does: leave them out where texts are normalised, and put the unknown
    /// symbol in their place otherwise. [`VitsTokens::unknown`] lists them.
    Replace,
}

/// The symbols of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VitsTokens {
    /// Ids of the symbols.
    pub ids: Vec<u32>,
    /// Characters that the voice does not know, each once, in order.
    pub unknown: Vec<char>,
}

/// The symbols of several texts, padded to the longest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VitsTokenBatch {
    /// Ids of the symbols of each text, all of one length.
    pub ids: Vec<Vec<u32>>,
    /// Number of symbols of each text.
    pub lengths: Vec<usize>,
    /// Characters that the voice does not know, each once, in order.
    pub unknown: Vec<char>,
}

impl VitsTokenBatch {
    /// The ids, and true for those that are not padding; both `[batch, tokens]`.
    pub fn to_tensors(&self, device: &Device) -> (Tensor<2, Int>, Tensor<2, Bool>) {
        let shape = [self.ids.len(), self.ids.first().map_or(0, Vec::len)];
        let ids: Vec<i32> = self.ids.iter().flatten().map(|id| *id as i32).collect();
        let row = |length: &usize| {
            let length = *length;
            (0..shape[1]).map(move |at| at < length)
        };
        let mask: Vec<bool> = self.lengths.iter().flat_map(row).collect();
        (
            Tensor::from_data(TensorData::new(ids, shape), device),
            Tensor::from_data(TensorData::new(mask, shape), device),
        )
    }
}
