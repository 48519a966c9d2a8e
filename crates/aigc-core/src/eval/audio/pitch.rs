//! The pitch of a sound beside that of another.

use super::pairs;
use crate::{Result, dsp::PitchTracker};
use burn::tensor::Tensor;

/// Difference of pitches, relative to the target's, above which a pitch is wrong.
const GROSS: f32 = 0.2;

/// The error of the pitch of each clip: the share of frames in which one sound has a pitch and the
/// other has none, or the pitches differ by more than 20 % (F0 frame error, Chu and Alwan 2009,
/// <https://doi.org/10.1109/ICASSP.2009.4960497>). Of every clip the first channel is taken.
///
/// # Shapes
/// - estimates and targets: `[batch, channels, time]`
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the shapes differ, there is nothing
/// to measure, or a value is not finite.
pub fn pitch_frame_error(
    tracker: &PitchTracker,
    estimates: &Tensor<3>,
    targets: &Tensor<3>,
) -> Result<Vec<f64>> {
    let (estimates, targets) = pairs(estimates, targets)?;
    let pairs = estimates.iter().zip(&targets);
    let error = |(estimate, target): (&Vec<Vec<f32>>, &Vec<Vec<f32>>)| {
        let frames = (target[0].len() / tracker.config().hop_length).max(1);
        let [found, expected] = [estimate, target].map(|clip| tracker.track(&clip[0], frames));
        let pairs = found.iter().zip(&expected);
        let wrong = pairs.filter(|(found, expected)| {
            let voiced = (**found > 0.0, **expected > 0.0);
            match voiced {
                (true, true) => (*found / *expected - 1.0).abs() > GROSS,
                (found, expected) => found != expected,
            }
        });
        wrong.count() as f64 / frames as f64
    };
    Ok(pairs.map(error).collect())
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::dsp::PitchConfig;
    use burn::tensor::Device;

    /// Half a second of a tone, and half of one or of silence.
    fn clip(first: f64, second: f64) -> Tensor<3> {
        let sample = |t: usize| {
            let hertz = if t < 4000 { first } else { second };
            (std::f64::consts::TAU * hertz * t as f64 / 8000.0).sin() as f32
        };
        let samples: Vec<f32> = (0..8000).map(sample).collect();
        Tensor::<1>::from_floats(samples.as_slice(), &Device::flex()).reshape([1, 1, 8000])
    }

    #[test]
    fn frames_with_another_pitch_or_none_count() {
        let tracker = PitchConfig::new(8000, 64).init().unwrap();
        let target = clip(120.0, 200.0);
        let error =
            |estimate: &Tensor<3>| pitch_frame_error(&tracker, estimate, &target).unwrap()[0];
        assert_eq!(error(&target), 0.0);
        // Within a fifth of the target's, but for frames across the change.
        assert!(error(&clip(130.0, 190.0)) < 0.03);
        for other in [clip(120.0, 0.0), clip(120.0, 300.0)] {
            assert!((error(&other) - 0.5).abs() < 0.03, "{}", error(&other));
        }
        let short = target.clone().narrow(2, 0, 4000);
        assert!(pitch_frame_error(&tracker, &short, &target).is_err());
    }
}
