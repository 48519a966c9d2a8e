//! Token ids: in configurations, on the device, and back on the host.

use aigc_core::{Error, Result};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// One token id, or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TokenIds {
    /// One.
    One(u32),
    /// Several.
    Several(Vec<u32>),
}

impl TokenIds {
    /// As a list.
    pub fn list(&self) -> Vec<u32> {
        match self {
            TokenIds::One(token) => vec![*token],
            TokenIds::Several(tokens) => tokens.clone(),
        }
    }
}

/// Fails at the first token that a vocabulary of `vocab_size` does not have; `error` builds the
/// error of `field`, its value and what was expected.
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

/// Token ids of `batch` sequences of one length on `device`, `[batch, time]`.
pub(crate) fn ids(tokens: &[u32], batch: usize, device: &Device) -> Tensor<2, Int> {
    let tokens: Vec<i32> = tokens.iter().map(|token| *token as i32).collect();
    let n = tokens.len() / batch.max(1);
    Tensor::from_data(TensorData::new(tokens, [batch, n]), device)
}

/// Values of a tensor, on the host.
pub(crate) fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .into_data()
        .try_into_vec_as()
        .expect("floats convert to floats")
}
