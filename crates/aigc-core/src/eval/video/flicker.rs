//! Changes from frame to frame.

use super::Clips;
use crate::Result;
use burn::tensor::Tensor;

/// Side of the squares whose motion is searched for, in pixels.
const BLOCK: usize = 8;

/// Mean absolute difference of neighbouring frames of each clip. Motion counts as well, so it is to
/// be compared with that of real clips.
///
/// # Shapes
/// - clips: `[batch, channels, frames, height, width]`
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there are no clips or fewer than
/// two frames, or a value is not finite.
pub fn flicker(clips: &Tensor<5>) -> Result<Vec<f64>> {
    compensated_flicker(clips, 0)
}

/// [`flicker`] without motion: each square of 8×8 pixels of a frame is compared with that square of
/// the frame before, up to `search` pixels away on each axis, which is most like it. What is left
/// is noise, changes of shape and motion by parts of pixels.
///
/// # Shapes
/// - clips: `[batch, channels, frames, height, width]`
///
/// # Errors
/// As [`flicker`].
pub fn compensated_flicker(clips: &Tensor<5>, search: usize) -> Result<Vec<f64>> {
    let clips = Clips::new(clips, 2)?;
    let pixels = (clips.channels * clips.height * clips.width) as f64;
    let of = |clip: &[f32]| {
        let pairs = 0..clips.frames - 1;
        let changes = pairs.map(|frame| change(&clips, clip, frame, search) / pixels);
        changes.sum::<f64>() / (clips.frames - 1) as f64
    };
    Ok(clips.each().map(of).collect())
}

/// Sum of the absolute differences of a frame and the next.
fn change(clips: &Clips, clip: &[f32], frame: usize, search: usize) -> f64 {
    let planes: Vec<[&[f32]; 2]> = (0..clips.channels)
        .map(|channel| [frame, frame + 1].map(|frame| clips.plane(clip, channel, frame)))
        .collect();
    let mut sum = 0.0;
    for top in (0..clips.height).step_by(BLOCK) {
        for left in (0..clips.width).step_by(BLOCK) {
            let rows = top..(top + BLOCK).min(clips.height);
            let columns = left..(left + BLOCK).min(clips.width);
            let mut best = f64::INFINITY;
            // Where the square can have been, inside of the frame.
            for from_row in places(rows.clone(), clips.height, search) {
                for from_column in places(columns.clone(), clips.width, search) {
                    let mut distance = 0.0;
                    for [before, after] in &planes {
                        for (row, y) in rows.clone().enumerate() {
                            let after = &after[y * clips.width..][columns.clone()];
                            let start = (from_row + row) * clips.width + from_column;
                            let before = &before[start..start + after.len()];
                            let pairs = before.iter().zip(after);
                            distance += pairs.map(|(a, b)| f64::from((a - b).abs())).sum::<f64>();
                        }
                    }
                    best = best.min(distance);
                }
            }
            sum += best;
        }
    }
    sum
}

/// First rows, or columns, of the squares up to `search` away.
fn places(
    square: std::ops::Range<usize>,
    size: usize,
    search: usize,
) -> std::ops::RangeInclusive<usize> {
    let last = size - square.len();
    square.start.saturating_sub(search)..=square.start.saturating_add(search).min(last)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use burn::tensor::{Device, TensorData};

    /// A square of noise that moves by two pixels a frame, on black.
    fn moving() -> Tensor<5> {
        let (frames, side) = (4, 32);
        let texture = Rng::new(1).uniform_vec(16, 0.5, 1.0);
        let mut values = vec![0.0f32; frames * side * side];
        for frame in 0..frames {
            for (at, value) in texture.iter().enumerate() {
                let (y, x) = (8 + at / 4, 2 * frame + 10 + at % 4);
                values[(frame * side + y) * side + x] = *value;
            }
        }
        let dims = [1, 1, frames, side, side];
        Tensor::from_data(TensorData::new(values, dims), &Device::flex())
    }

    #[test]
    fn flicker_is_the_mean_difference() {
        let device = Device::flex();
        let still = Tensor::<5>::full([2, 3, 5, 4, 6], 0.5, &device);
        assert_eq!(flicker(&still).unwrap(), [0.0, 0.0]);
        let blink = Tensor::cat(vec![still.clone(), still.clone() * 0.5], 2);
        let found = flicker(&blink).unwrap();
        assert!((found[0] - 0.25 / 9.0).abs() < 1e-7);
    }

    #[test]
    fn motion_is_compensated() {
        let clips = moving();
        let plain = flicker(&clips).unwrap()[0];
        let compensated = compensated_flicker(&clips, 2).unwrap()[0];
        assert!(plain > 0.005 && compensated < 1e-9, "{plain} {compensated}");
        // Of noise, no motion explains much.
        let noise = Rng::new(2).uniform([1, 1, 4, 16, 16], 0.0, 1.0, &Device::flex());
        let (plain, rest) = (
            flicker(&noise).unwrap(),
            compensated_flicker(&noise, 2).unwrap(),
        );
        assert!(rest[0] > 0.7 * plain[0] && rest[0] < plain[0]);
    }

    #[test]
    fn bad_clips_are_errors() {
        let device = Device::flex();
        let error = |clips: Tensor<5>| flicker(&clips).unwrap_err().to_string();
        assert!(error(Tensor::zeros([1, 1, 1, 4, 4], &device)).contains("1 frames"));
        assert!(error(Tensor::full([1, 1, 2, 4, 4], f32::NAN, &device)).contains("NaN"));
    }
}
