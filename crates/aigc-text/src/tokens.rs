//! Token ids in configurations, on the device and on the host.

use aigc_core::{Error, Result};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// One token id, or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TokenIds {
    /// A single token id.
    One(u32),
    /// A list of token ids.
    Several(Vec<u32>),
}

impl TokenIds {
    /// The token ids as a list.
    pub fn list(&self) -> Vec<u32> {
        match self {
            TokenIds::One(token) => vec![*token],
            TokenIds::Several(tokens) => tokens.clone(),
        }
    }
}

/// Fails for the first token outside a vocabulary of `vocab_size`; `error` builds the error from
/// the token and the expected range.
pub(crate) fn in_vocabulary(
    mut tokens: impl Iterator<Item = u32>,
    vocab_size: usize,
    error: impl FnOnce(u32, String) -> Error,
) -> Result<()> {
    match tokens.find(|token| *token as usize >= vocab_size) {
        Some(token) => Err(error(
            token,
            format!("below {vocab_size}, the model's vocab_size"),
        )),
        None => Ok(()),
    }
}

/// Token ids of `batch` sequences of the same length on `device`, `[batch, time]`.
pub(crate) fn ids(tokens: &[u32], batch: usize, device: &Device) -> Tensor<2, Int> {
    let tokens: Vec<i32> = tokens.iter().map(|token| *token as i32).collect();
    let n = tokens.len() / batch.max(1);
    Tensor::from_data(TensorData::new(tokens, [batch, n]), device)
}

/// The values of a tensor on the host.
pub(crate) fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .into_data()
        .try_into_vec_as()
        .expect("floats convert to floats")
}
