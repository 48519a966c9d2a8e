//! Layers and functions that all networks for speech use.

use aigc_core::{
    Error, Result,
    nn::{Initializer, LayerNorm},
    ops,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor, TensorData},
};

/// A table of embeddings.
#[derive(Module, Debug)]
pub(super) struct Embedding {
    /// Weight, `[count, width]`.
    pub(super) weight: Param<Tensor<2>>,
}

impl Embedding {
    pub(super) fn new([count, width]: [usize; 2], std: f64, device: &Device) -> Self {
        let initializer = Initializer::Normal { mean: 0.0, std };
        Self {
            weight: initializer.param([count, width], count, width, device),
        }
    }

    /// The embeddings of `indices` `[batch, tokens]`, `[batch, tokens, width]`.
    pub(super) fn forward(&self, indices: Tensor<2, Int>) -> Tensor<3> {
        ops::embedding(self.weight.val(), indices)
    }

    /// The embeddings of `indices` as conditions of convolutions, `[indices, width, 1]`.
    fn conditions(&self, indices: &[usize], device: &Device) -> Tensor<3> {
        let data: Vec<i32> = indices.iter().map(|index| *index as i32).collect();
        let data = TensorData::new(data, [indices.len(), 1]);
        self.forward(Tensor::from_data(data, device))
            .swap_dims(1, 2)
    }
}

/// The conditions of speakers, `[speakers, width, 1]`; none for a model without a table.
///
/// # Errors
/// [`Error::InvalidArgument`] naming a speaker that is not below `known`.
pub(super) fn speaker_conditions(
    table: Option<&Embedding>,
    known: usize,
    speakers: &[usize],
    device: &Device,
) -> Result<Option<Tensor<3>>> {
    if let Some(unknown) = speakers.iter().find(|speaker| **speaker >= known) {
        let expected = format!("below {known}");
        return Err(Error::argument("speaker", unknown, expected));
    }
    Ok(table.map(|table| table.conditions(speakers, device)))
}

/// A layer norm over the channels of `x` `[batch, channels, time]`.
pub(super) fn norm_channels(norm: &LayerNorm, x: Tensor<3>) -> Tensor<3> {
    norm.forward(x.swap_dims(1, 2)).swap_dims(1, 2)
}

/// Ones for the first `lengths[i]` of `len` positions of row `i`, zeros for the others,
/// `[batch, 1, len]`.
pub(super) fn length_mask(lengths: &[usize], len: usize, device: &Device) -> Tensor<3> {
    let row = |length: &usize| {
        let length = *length;
        (0..len).map(move |at| if at < length { 1f32 } else { 0.0 })
    };
    let values: Vec<f32> = lengths.iter().flat_map(row).collect();
    Tensor::from_data(TensorData::new(values, [lengths.len(), 1, len]), device)
}

/// The vectors of tokens, each repeated as often as its duration says; zeros behind them.
///
/// # Shapes
/// - x: `[batch, channels, tokens]`
/// - output: `[batch, channels, frames]`
pub(super) fn repeat(x: Tensor<3>, durations: &[Vec<usize>], frames: usize) -> Tensor<3> {
    let ([batch, channels, tokens], device) = (x.dims(), x.device());
    let (mut rows, mut lengths) = (
        Vec::with_capacity(batch * frames),
        Vec::with_capacity(batch),
    );
    for (item, durations) in durations.iter().enumerate() {
        let start = rows.len();
        for (token, duration) in durations.iter().enumerate() {
            rows.extend(std::iter::repeat_n(
                (item * tokens + token) as i32,
                *duration,
            ));
        }
        lengths.push(rows.len() - start);
        rows.resize(start + frames, (item * tokens) as i32);
    }
    let count = rows.len();
    let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &device);
    let vectors = x.swap_dims(1, 2).reshape([batch * tokens, channels]);
    let repeated = vectors.select(0, rows).reshape([batch, frames, channels]);
    let mask = length_mask(&lengths, frames, &device);
    repeated.swap_dims(1, 2) * mask
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::values;

    #[test]
    fn vectors_are_repeated_and_padded() {
        let device = Device::flex();
        let x = Tensor::<3>::from_floats([[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]], &device);
        let frames = repeat(x, &[vec![2, 0, 1], vec![1, 3, 0]], 4);
        assert_eq!(frames.dims(), [2, 1, 4]);
        assert_eq!(values(frames), [1.0, 1.0, 3.0, 0.0, 4.0, 5.0, 5.0, 5.0]);
        let mask = length_mask(&[1, 3], 3, &device);
        assert_eq!(values(mask), [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn gradients_of_repeated_vectors_add_up() {
        let device = Device::flex().autodiff();
        let x = Tensor::<3>::ones([1, 1, 3], &device).require_grad();
        let y = repeat(x.clone(), &[vec![2, 0, 1]], 4);
        let gradient = x.grad(&y.sum().backward()).unwrap();
        assert_eq!(values(gradient), [2.0, 0.0, 1.0]);
    }
}
