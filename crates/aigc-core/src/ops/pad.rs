//! Padding along time.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// What lies beyond the ends of a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaddingMode {
    /// Zeros. Also read as `constant`.
    #[default]
    #[serde(alias = "constant")]
    Zeros,
    /// The signal mirrored at its first and last sample, which are not repeated.
    Reflect,
    /// The first or the last sample. Also read as `edge`.
    #[serde(alias = "edge")]
    Replicate,
}

/// `x` with `left` samples before it and `right` samples after it.
///
/// [`PaddingMode::Reflect`] also accepts signals that are not longer than the padding, as Encodec
/// does (Défossez et al. 2022, <https://arxiv.org/abs/2210.13438>): zeros are appended until the
/// signal is one sample longer than the larger padding, the result is mirrored, and as many samples
/// are removed from its end.
///
/// # Shapes
/// - x: `[batch, channels, time]`
/// - output: `[batch, channels, left + time + right]`
///
/// # Panics
/// If `mode` is [`PaddingMode::Replicate`] and `x` is empty.
pub fn pad1d(x: Tensor<3>, [left, right]: [usize; 2], mode: PaddingMode) -> Tensor<3> {
    if left == 0 && right == 0 {
        return x;
    }
    match mode {
        PaddingMode::Zeros => {
            let parts = [zeros_like(&x, left), Some(x.clone()), zeros_like(&x, right)];
            joined(parts)
        }
        PaddingMode::Reflect => reflected(x, [left, right]),
        PaddingMode::Replicate => {
            let [batch, channels, time] = x.dims();
            assert!(time > 0, "an empty signal has no sample to be repeated");
            let repeated = |at: usize, len: usize| {
                let sample = x.clone().narrow(2, at, 1);
                (len > 0).then(|| sample.expand([batch, channels, len]))
            };
            joined([
                repeated(0, left),
                Some(x.clone()),
                repeated(time - 1, right),
            ])
        }
    }
}

fn reflected(x: Tensor<3>, [left, right]: [usize; 2]) -> Tensor<3> {
    let time = x.dims()[2];
    let missing = (left.max(right) + 1).saturating_sub(time);
    let x = joined([Some(x.clone()), zeros_like(&x, missing), None]);
    let mirrored =
        |from: usize, len: usize| (len > 0).then(|| x.clone().narrow(2, from, len).flip([2]));
    let before = mirrored(1, left);
    let after = mirrored(time + missing - 1 - right, right);
    let padded = joined([before, Some(x.clone()), after]);
    match missing {
        0 => padded,
        _ => padded.narrow(2, 0, left + time + right),
    }
}

/// Silence of `len` samples for the signals of `x`; none if `len` is 0.
fn zeros_like(x: &Tensor<3>, len: usize) -> Option<Tensor<3>> {
    let [batch, channels, _] = x.dims();
    (len > 0).then(|| Tensor::zeros([batch, channels, len], (&x.device(), x.dtype())))
}

/// What there is, one after the other. Empty parts are left out.
fn joined(parts: [Option<Tensor<3>>; 3]) -> Tensor<3> {
    let mut parts: Vec<Tensor<3>> = parts
        .into_iter()
        .flatten()
        .filter(|part| part.dims()[2] > 0)
        .collect();
    match parts.len() {
        1 => parts.remove(0),
        _ => Tensor::cat(parts, 2),
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::testing::values;
    use burn::tensor::Device;

    fn padded(x: &[f32], padding: [usize; 2], mode: PaddingMode) -> Vec<f32> {
        let x = Tensor::<1>::from_floats(x, &Device::flex());
        let time = x.dims()[0];
        values(pad1d(x.reshape([1, 1, time]), padding, mode))
    }

    #[test]
    fn ends_are_zeros_mirrored_or_repeated() {
        let x = [1.0, 2.0, 3.0, 4.0];
        for (mode, expected) in [
            (PaddingMode::Zeros, [0.0f32, 0.0, 1.0, 2.0, 3.0, 4.0, 0.0]),
            (PaddingMode::Reflect, [3.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0]),
            (PaddingMode::Replicate, [1.0, 1.0, 1.0, 2.0, 3.0, 4.0, 4.0]),
        ] {
            assert_eq!(padded(&x, [2, 1], mode), expected);
            assert_eq!(padded(&x, [2, 0], mode), expected[..6]);
            assert_eq!(padded(&x, [0, 1], mode), expected[2..]);
            assert_eq!(padded(&x, [0, 0], mode), x);
        }
    }

    /// Zeros are appended before a short signal is mirrored.
    #[test]
    fn short_signals_are_mirrored_with_zeros_appended() {
        let reflected = |x: &[f32], padding| padded(x, padding, PaddingMode::Reflect);
        assert_eq!(
            reflected(&[1.0, 2.0, 3.0], [5, 2]),
            [0.0, 0.0, 0.0, 3.0, 2.0, 1.0, 2.0, 3.0, 0.0, 0.0]
        );
        assert_eq!(
            reflected(&[1.0, 2.0], [1, 3]),
            [2.0, 1.0, 2.0, 0.0, 0.0, 0.0]
        );
        assert_eq!(reflected(&[1.0], [1, 1]), [0.0, 1.0, 0.0]);
    }

    /// Every sample gets the gradients of its copies.
    #[test]
    fn gradients_of_copies_add_up() {
        let device = Device::flex().autodiff();
        for (mode, expected) in [
            (PaddingMode::Zeros, [10.0f32, 100.0, 1000.0]),
            (PaddingMode::Reflect, [10.0, 10_101.0, 1000.0]),
            (PaddingMode::Replicate, [11.0, 100.0, 11_000.0]),
        ] {
            let x = Tensor::<3>::ones([1, 1, 3], &device).require_grad();
            let weights = Tensor::<1>::from_floats([1.0, 10.0, 100.0, 1000.0, 10_000.0], &device);
            let y = pad1d(x.clone(), [1, 1], mode) * weights.reshape([1, 1, 5]);
            let gradient = x.grad(&y.sum().backward()).unwrap();
            assert_eq!(values(gradient), expected);
        }
    }

    #[test]
    fn names_are_those_of_configurations() {
        for (name, mode) in [
            ("zeros", PaddingMode::Zeros),
            ("constant", PaddingMode::Zeros),
            ("reflect", PaddingMode::Reflect),
            ("replicate", PaddingMode::Replicate),
        ] {
            let read: PaddingMode = serde_json::from_str(&format!("{name:?}")).unwrap();
            assert_eq!(read, mode);
        }
        assert!(serde_json::from_str::<PaddingMode>(r#""circular""#).is_err());
    }
}
