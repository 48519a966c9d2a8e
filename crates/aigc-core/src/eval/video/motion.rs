//! The motion of an object before a dark background.

use super::Clips;
use crate::{Result, check::ensure_argument};
use burn::tensor::Tensor;

/// Fewest frames whose motion says something.
const FRAMES: usize = 4;

/// Smaller changes of direction, in pixels per frame, are no bounces: they may be noise.
const LEAST_BOUNCE: f64 = 0.5;

/// The motion of the object of a clip.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipMotion {
    /// Centre of mass in each frame, as column and row.
    pub centres: Vec<[f64; 2]>,
    /// Typical speed between bounces in pixels per frame: of the medians on both axes.
    pub speed: f64,
    /// Root of the mean squared deviation of the speed along each axis from its median, between
    /// bounces, in pixels per frame.
    pub deviation: f64,
    /// Number of bounces on both axes. If most steps are bounces, the object does not move along
    /// lines, and the deviation of the few steps left says nothing.
    pub bounces: usize,
}

/// The motion of what is brighter than `floor` in each clip; `None` for a clip with a frame where
/// nothing is.
///
/// A change of direction is a bounce. Steps on both sides of one are left out of the speeds, as are
/// the first and the last step of a clip, since an object turns within a step.
///
/// # Shapes
/// - clips: `[batch, channels, frames, height, width]`
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there are no clips or fewer than
/// four frames, a value is not finite, or `floor` is not from 0 to below 1.
pub fn clip_motions(clips: &Tensor<5>, floor: f64) -> Result<Vec<Option<ClipMotion>>> {
    check_floor(floor)?;
    let clips = Clips::new(clips, FRAMES)?;
    let of = |clip: &[f32]| {
        let centres = (0..clips.frames).map(|frame| clips.centre(clip, frame, floor));
        centres.collect::<Option<Vec<_>>>().map(motion)
    };
    Ok(clips.each().map(of).collect())
}

pub(super) fn check_floor(floor: f64) -> Result<()> {
    ensure_argument((0.0..1.0).contains(&floor), "floor", floor, "0 to below 1")
}

/// The motion along a track of at least four places.
fn motion(centres: Vec<[f64; 2]>) -> ClipMotion {
    let (mut bounces, mut speed, mut squares, mut count) = (0, 0.0, 0.0, 0);
    for axis in 0..2 {
        let steps: Vec<f64> = centres
            .windows(2)
            .map(|p| p[1][axis] - p[0][axis])
            .collect();
        let mut is_kept = vec![true; steps.len()];
        (is_kept[0], is_kept[steps.len() - 1]) = (false, false);
        for at in 1..steps.len() {
            let (before, after) = (steps[at - 1], steps[at]);
            if before * after < 0.0 && before.abs() + after.abs() > LEAST_BOUNCE {
                bounces += 1;
                (is_kept[at - 1], is_kept[at]) = (false, false);
            }
        }
        let kept: Vec<f64> = steps
            .iter()
            .zip(&is_kept)
            .filter(|(_, is_kept)| **is_kept)
            .map(|(step, _)| step.abs())
            .collect();
        let typical = median(match kept.is_empty() {
            true => steps.iter().map(|step| step.abs()).collect(),
            false => kept.clone(),
        });
        speed += typical * typical;
        squares += kept
            .iter()
            .map(|step| (step - typical).powi(2))
            .sum::<f64>();
        count += kept.len();
    }
    ClipMotion {
        centres,
        speed: speed.sqrt(),
        deviation: (squares / (count as f64).max(1.0)).sqrt(),
        bounces,
    }
}

/// The median of at least one value.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => 0.5 * (values[middle - 1] + values[middle]),
        _ => values[middle],
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::data::{
        Dataset, Image, ImageShape, InMemory, SampleBatch,
        moving_digits::{MovingDigits, MovingDigitsConfig},
        video::collate_clips,
    };
    use burn::tensor::Device;

    #[test]
    fn bounces_are_left_out() {
        // 1.5 pixels a step, reflected at 4.2: inside of the step from 3.5 to 3.4.
        let columns = [0.5, 2.0, 3.5, 3.4, 1.9, 0.4];
        let track = columns.map(|x| [x, 7.0]).to_vec();
        let found = motion(track.clone());
        assert_eq!((found.centres, found.bounces), (track, 1));
        assert!(
            (found.speed - 1.5).abs() < 1e-9 && found.deviation < 1e-9,
            "{}",
            found.speed
        );
        let jump = motion([0.0, 1.0, 2.0, 5.0, 6.0, 7.0].map(|y| [3.0, y]).to_vec());
        // Of six steps kept on both axes, one is 2 too long.
        assert!((jump.speed - 1.0).abs() < 1e-9);
        assert!((jump.deviation - (4.0f64 / 6.0).sqrt()).abs() < 1e-9);
    }

    #[test]
    fn speed_of_moving_digits_is_found() {
        let image = Image {
            shape: ImageShape::new(1, 5, 5),
            pixels: vec![255; 25],
            label: None,
        };
        let config = MovingDigitsConfig {
            len: 20,
            ..MovingDigitsConfig::default()
        };
        let digits = MovingDigits::new(InMemory(vec![image]), config).unwrap();
        let clips = (0..20).map(|index| digits.get(index).unwrap()).collect();
        let clips = collate_clips(clips).to_tensor(&Device::flex());
        for (index, found) in clip_motions(&clips, 0.0).unwrap().iter().enumerate() {
            let found = found.as_ref().unwrap();
            let [x, y] = digits.motions(index, 0)[0].velocity;
            assert!(
                (found.speed - x.hypot(y)).abs() < 0.05,
                "{index}: {found:?}"
            );
            assert!(found.deviation < 0.1, "{index}: {found:?}");
        }
    }

    #[test]
    fn dark_clips_have_no_motion() {
        let clips = Tensor::<5>::full([1, 2, 5, 3, 3], 0.1, &Device::flex());
        assert!(clip_motions(&clips, 0.2).unwrap()[0].is_none());
        let still = clip_motions(&clips, 0.0).unwrap();
        let still = still[0].as_ref().unwrap();
        assert_eq!((still.speed, still.deviation, still.bounces), (0.0, 0.0, 0));
        assert!(clip_motions(&clips, f64::NAN).is_err());
        assert!(clip_motions(&clips.narrow(2, 0, 3), 0.0).is_err());
    }
}
