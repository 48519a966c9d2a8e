//! Frames as samples of a batch: an image network sees each frame alone.

use crate::denoiser::Conditioning;
use burn::tensor::{Device, Int, Tensor};

/// The frames of all samples, one sample after the other, and how many a sample has.
///
/// # Shapes
/// - x: `[batch, channels, frames, height, width]`
/// - output: `[batch·frames, channels, height, width]`
pub(crate) fn into_batch(x: Tensor<5>) -> (Tensor<4>, usize) {
    let [batch, channels, frames, height, width] = x.dims();
    let x = x
        .swap_dims(1, 2)
        .reshape([batch * frames, channels, height, width]);
    (x, frames)
}

/// Samples of `frames` frames each.
///
/// # Shapes
/// - x: `[batch·frames, channels, height, width]`
/// - output: `[batch, channels, frames, height, width]`
///
/// # Panics
/// If the number of maps is not a multiple of `frames`.
pub(crate) fn out_of_batch(x: Tensor<4>, frames: usize) -> Tensor<5> {
    let [rows, channels, height, width] = x.dims();
    x.reshape([rows / frames, frames, channels, height, width])
        .swap_dims(1, 2)
}

/// For each frame of `batch` samples with `frames` frames, the index of its sample.
///
/// # Shapes
/// - output: `[batch·frames]`
pub(crate) fn rows(batch: usize, frames: usize, device: &Device) -> Tensor<1, Int> {
    let rows: Vec<i32> = (0..batch * frames)
        .map(|row| (row / frames) as i32)
        .collect();
    Tensor::from_ints(rows.as_slice(), device)
}

/// The times of all frames.
pub(crate) fn times(time: Tensor<1>, frames: usize) -> Tensor<1> {
    let rows = rows(time.dims()[0], frames, &time.device());
    time.select(0, rows)
}

/// The conditions of all frames, which are those of their samples. Maps of a ControlNet are of
/// frames already.
pub(crate) fn conditions(condition: &Conditioning<5>, frames: usize) -> Conditioning {
    macro_rules! each {
        ($field:ident) => {
            condition
                .$field
                .as_ref()
                .map(|x| x.clone().select(0, rows(x.dims()[0], frames, &x.device())))
        };
    }
    Conditioning {
        class_labels: each!(class_labels),
        class_embeddings: each!(class_embeddings),
        encoder_hidden_states: each!(encoder_hidden_states),
        input_ids: each!(input_ids),
        encoder_attention_mask: each!(encoder_attention_mask),
        pooled_projections: each!(pooled_projections),
        time_ids: each!(time_ids),
        guidance: each!(guidance),
        residuals: condition.residuals.clone(),
        self_cond: condition.self_cond.clone().map(|x| into_batch(x).0),
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{rng::Rng, testing::values};

    #[test]
    fn frames_go_into_the_batch_and_back() {
        let device = Device::flex();
        let x: Tensor<5> = Rng::new(1).normal([2, 3, 4, 2, 2], &device);
        let (flat, frames) = into_batch(x.clone());
        assert_eq!((flat.dims(), frames), ([8, 3, 2, 2], 4));
        let frame = x.clone().narrow(0, 1, 1).narrow(2, 2, 1);
        assert_eq!(values(flat.clone().narrow(0, 6, 1)), values(frame));
        assert_eq!(values(out_of_batch(flat, frames)), values(x));
    }

    #[test]
    fn conditions_follow_their_samples() {
        let device = Device::flex();
        let condition = Conditioning::<5> {
            class_labels: Some(Tensor::from_ints([7, 9], &device)),
            ..Conditioning::default()
        };
        let labels = conditions(&condition, 3).class_labels.unwrap();
        assert_eq!(values(labels.float()), [7.0, 7.0, 7.0, 9.0, 9.0, 9.0]);
        let time = times(Tensor::from_floats([1.0, 2.0], &device), 2);
        assert_eq!(values(time), [1.0, 1.0, 2.0, 2.0]);
    }
}
