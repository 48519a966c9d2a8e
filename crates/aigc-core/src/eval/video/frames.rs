//! Frames of clips as images.

use super::{Clips, motion::check_floor};
use crate::{Result, check::ensure_argument};
use burn::tensor::{Tensor, TensorData};

/// All frames of clips as images, clip by clip.
///
/// # Shapes
/// - clips: `[batch, channels, frames, height, width]`
/// - output: `[batch·frames, channels, height, width]`
pub fn frames(clips: Tensor<5>) -> Tensor<4> {
    let [batch, channels, frames, height, width] = clips.dims();
    clips
        .swap_dims(1, 2)
        .reshape([batch * frames, channels, height, width])
}

/// The differences of neighbouring frames as images in `[0, 1]`: half of the difference, plus a
/// half. Their features show motion, which single frames do not.
///
/// # Shapes
/// - clips: `[batch, channels, frames, height, width]` in `[0, 1]`
/// - output: `[batch·(frames − 1), channels, height, width]`
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there are fewer than two frames.
pub fn frame_differences(clips: Tensor<5>) -> Result<Tensor<4>> {
    let count = clips.dims()[2];
    ensure_argument(
        count > 1,
        "clips",
        format!("{count} frames"),
        "at least 2 frames",
    )?;
    let before = clips.clone().narrow(2, 0, count - 1);
    let after = clips.narrow(2, 1, count - 1);
    Ok(frames((after - before) * 0.5 + 0.5))
}

/// Squares of `size` pixels around the centre of mass of what is brighter than `floor` in each
/// frame, clip by clip: what classifiers of centred objects read, wherever the object moves. They
/// are black outside of the frame; of a frame without anything bright, the middle is cut out.
///
/// # Shapes
/// - clips: `[batch, channels, frames, height, width]`
/// - output: `[batch·frames, channels, size, size]`
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there are no clips, a value is not
/// finite, `floor` is not from 0 to below 1, or `size` is not from 1 to 4,096.
pub fn centred_frames(clips: &Tensor<5>, size: usize, floor: f64) -> Result<Tensor<4>> {
    check_floor(floor)?;
    let fits = (1..=4096).contains(&size);
    ensure_argument(fits, "size", size, "1 to 4096 pixels")?;
    let device = clips.device();
    let clips = Clips::new(clips, 1)?;
    let middle = [clips.width, clips.height].map(|side| (side as f64 - 1.0) / 2.0);
    let (mut values, mut count) = (vec![], 0);
    for clip in clips.each() {
        for frame in 0..clips.frames {
            let centre = clips.centre(clip, frame, floor).unwrap_or(middle);
            let [left, top] = centre.map(|at| (at - (size as f64 - 1.0) / 2.0).round() as isize);
            for channel in 0..clips.channels {
                let plane = clips.plane(clip, channel, frame);
                for y in top..top + size as isize {
                    for x in left..left + size as isize {
                        let inside = (0..clips.height as isize).contains(&y)
                            && (0..clips.width as isize).contains(&x);
                        values.push(match inside {
                            true => plane[y as usize * clips.width + x as usize],
                            false => 0.0,
                        });
                    }
                }
            }
            count += 1;
        }
    }
    let dims = [count, clips.channels, size, size];
    Ok(Tensor::from_data(TensorData::new(values, dims), &device))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::testing::values;
    use burn::tensor::Device;

    fn clips() -> Tensor<5> {
        let values: Vec<f32> = (0..2 * 2 * 3).map(|value| value as f32 / 16.0).collect();
        Tensor::from_data(TensorData::new(values, [2, 2, 3, 1, 1]), &Device::flex())
    }

    #[test]
    fn frames_keep_their_channels() {
        let found = frames(clips());
        assert_eq!(found.dims(), [6, 2, 1, 1]);
        let found: Vec<f32> = values(found).iter().map(|value| value * 16.0).collect();
        assert_eq!(
            found,
            [0.0, 3.0, 1.0, 4.0, 2.0, 5.0, 6.0, 9.0, 7.0, 10.0, 8.0, 11.0]
        );
        let differences = frame_differences(clips()).unwrap();
        assert_eq!(values(differences), [0.5 + 0.5 / 16.0; 8]);
        assert!(frame_differences(clips().narrow(2, 0, 1)).is_err());
    }

    #[test]
    fn objects_are_centred() {
        let device = Device::flex();
        let dot = Tensor::<5>::full([1, 1, 1, 1, 1], 0.5, &device);
        let dark = Tensor::<5>::zeros([1, 1, 1, 5, 6], &device);
        let at = |y: usize, x: usize| {
            dark.clone()
                .slice_assign([0..1, 0..1, 0..1, y..y + 1, x..x + 1], dot.clone())
        };
        let clips = Tensor::cat(vec![at(0, 0), at(3, 5), dark.clone()], 2);
        let found = centred_frames(&clips, 3, 0.1).unwrap();
        assert_eq!(found.dims(), [3, 1, 3, 3]);
        let middle = [0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(values(found), [middle, middle, [0.0; 9]].concat());
        assert!(centred_frames(&clips, 0, 0.1).is_err());
        assert!(centred_frames(&clips, 3, 1.0).is_err());
    }
}
