//! Windows of frames, for videos with more frames than a network has positions.

use aigc_core::Result;
use burn::tensor::{Device, Tensor, TensorData};
use std::ops::Range;

/// Windows of `length` frames that cover all frames; neighbours share `overlap` frames, the last
/// two perhaps more. One window if there are no more frames.
///
/// # Panics
/// If windows do not advance: the overlap is as long as they are.
pub(super) fn windows(frames: usize, length: usize, overlap: usize) -> Vec<Range<usize>> {
    if frames <= length {
        return std::iter::once(0..frames).collect();
    }
    assert!(
        overlap < length,
        "windows of {length} frames share {overlap}"
    );
    let last = frames - length;
    let starts = (0..last).step_by(length - overlap).chain([last]);
    starts.map(|start| start..start + length).collect()
}

/// The predictions for all frames: where windows overlap, the mean of their predictions. A
/// prediction has more weight the farther its frame is from the ends of the window.
///
/// # Shapes
/// - predict: from a window to `[batch, channels, frames of the window, height, width]`
/// - output: `[batch, channels, frames, height, width]`
///
/// # Errors
/// Those of `predict`.
pub(super) fn averaged(
    frames: usize,
    windows: &[Range<usize>],
    predict: impl Fn(Range<usize>) -> Result<Tensor<5>>,
) -> Result<Tensor<5>> {
    if let [window] = windows {
        return predict(window.clone());
    }
    let mut totals = vec![0.0f32; frames];
    for window in windows {
        for frame in window.clone() {
            totals[frame] += weight(window, frame);
        }
    }
    let mut sum: Option<Tensor<5>> = None;
    for window in windows {
        let output = predict(window.clone())?;
        let shares = window
            .clone()
            .map(|frame| weight(window, frame) / totals[frame]);
        let shares = along_frames(shares.collect(), &output.device());
        let part = placed(output * shares, window, frames);
        sum = Some(match sum {
            Some(sum) => sum + part,
            None => part,
        });
    }
    Ok(sum.expect("at least one window"))
}

/// One at the ends of a window, more inside.
fn weight(window: &Range<usize>, frame: usize) -> f32 {
    (frame - window.start + 1).min(window.end - frame) as f32
}

fn along_frames(values: Vec<f32>, device: &Device) -> Tensor<5> {
    let shape = [1, 1, values.len(), 1, 1];
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Frames of a window among zeros.
fn placed(x: Tensor<5>, window: &Range<usize>, frames: usize) -> Tensor<5> {
    let zeros = |count: usize| {
        let mut shape = x.dims();
        shape[2] = count;
        Tensor::<5>::zeros(shape, (&x.device(), x.dtype()))
    };
    let mut parts = vec![];
    if window.start > 0 {
        parts.push(zeros(window.start));
    }
    let after = (window.end < frames).then(|| zeros(frames - window.end));
    parts.push(x);
    parts.extend(after);
    Tensor::cat(parts, 2)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        rng::Rng,
        testing::{assert_close, values},
    };

    #[test]
    fn windows_cover_all_frames() {
        let one = windows(5, 8, 2);
        assert_eq!((one.len(), &one[0]), (1, &(0..5)));
        assert_eq!(windows(10, 4, 2), [0..4, 2..6, 4..8, 6..10]);
        assert_eq!(windows(9, 4, 1), [0..4, 3..7, 5..9]);
        assert_eq!(windows(5, 4, 0), [0..4, 1..5]);
    }

    /// Where windows overlap, predictions are weighted by the distance to the ends of their window.
    #[test]
    fn predictions_are_weighted_by_the_distance_to_the_ends() {
        let device = Device::flex();
        let all = [0..4, 2..6];
        let mean = averaged(6, &all, |window| {
            let value = f32::from(u8::from(window.start > 0));
            Ok(Tensor::<5>::full(
                [1, 1, window.len(), 1, 1],
                value,
                &device,
            ))
        });
        // Frame 2 is the last but one of the first window, and the first of the second window.
        let expected = [0.0, 0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0, 1.0];
        assert_close(&values(mean.unwrap()), &expected, 1e-6);
    }

    /// Predictions that agree stay as they are.
    #[test]
    fn the_mean_of_equals_is_the_same() {
        let device = Device::flex();
        let x: Tensor<5> = Rng::new(1).normal([2, 1, 9, 2, 2], &device);
        let all = windows(9, 4, 2);
        let mean = averaged(9, &all, |window| {
            Ok(x.clone().narrow(2, window.start, window.len()))
        });
        assert_close(&values(mean.unwrap()), &values(x), 1e-6);
    }
}
