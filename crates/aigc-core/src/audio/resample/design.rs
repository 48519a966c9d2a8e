//! The filters: weights as functions of time.

use super::{MAX_BETA, MAX_TAPS, SincWindow, gcd};
use crate::{Result, check::ensure_argument, dsp::bessel_i0};
use std::f64::consts::{FRAC_PI_2, PI};

/// `sin(πx)/(πx)`.
pub(super) fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    (PI * x).sin() / (PI * x)
}

/// Kaiser's window at `x`, 1 in its middle at 0, with its ends at −1 and 1.
fn kaiser(x: f64, beta: f64) -> f64 {
    bessel_i0(beta * (1.0 - x * x).max(0.0).sqrt()) / bessel_i0(beta)
}

impl SincWindow {
    /// The window at `x`, 1 in its middle at 0, with its ends at −1 and 1.
    pub(super) fn at(self, x: f64) -> f64 {
        let x = x.clamp(-1.0, 1.0);
        match self {
            Self::Hann => (FRAC_PI_2 * x).cos().powi(2),
            Self::Kaiser { beta } => kaiser(x, beta),
        }
    }
}

/// The low-pass filter of [`Resampler::Polyphase`](super::Resampler::Polyphase) between rates in
/// the ratio `up : down`: `2·zero_crossings·max(up, down) + 1` weights at the common multiple of
/// the rates, with a sum of 1. Filtering multiplies them by `up`.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if a rate or the number of zero
/// crossings is 0, there would be more than 2²⁵ weights, or `beta` is not from 0 to 100.
pub fn polyphase_taps(up: u32, down: u32, zero_crossings: usize, beta: f64) -> Result<Vec<f64>> {
    let numbers = [("up", up as usize), ("down", down as usize)];
    for (name, value) in numbers
        .into_iter()
        .chain([("zero_crossings", zero_crossings)])
    {
        ensure_argument(value > 0, name, value, "1 or more")?;
    }
    ensure_argument(
        (0.0..=MAX_BETA).contains(&beta),
        "beta",
        beta,
        &format!("0 to {MAX_BETA}"),
    )?;
    let larger = (up.max(down) / gcd(up, down)) as usize;
    ensure_argument(
        2.0 * zero_crossings as f64 * larger as f64 <= MAX_TAPS,
        "up, down, zero_crossings",
        format!("{up}, {down}, {zero_crossings}"),
        "a filter of at most 2^25 weights",
    )?;
    Ok(lowpass(larger, zero_crossings, beta))
}

/// A low-pass filter with its edge at `1/larger` of half the rate.
pub(super) fn lowpass(larger: usize, zero_crossings: usize, beta: f64) -> Vec<f64> {
    let half = (zero_crossings * larger) as f64;
    let mut taps: Vec<f64> = (0..=2 * zero_crossings * larger)
        .map(|index| {
            let at = index as f64 - half;
            sinc(at / larger as f64) * kaiser(at / half, beta)
        })
        .collect();
    let sum: f64 = taps.iter().sum();
    taps.iter_mut().for_each(|tap| *tap /= sum);
    taps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_have_their_known_values() {
        assert_eq!((sinc(0.0), SincWindow::Hann.at(0.0)), (1.0, 1.0));
        assert!((sinc(0.5) - 2.0 / PI).abs() < 1e-15);
        assert!(SincWindow::Hann.at(-1.0) < 1e-30);
        let ends = SincWindow::Kaiser { beta: 5.0 }.at(1.0);
        assert!((ends - 1.0 / 27.239_871_823_604_442).abs() < 1e-15);
    }

    #[test]
    fn taps_are_symmetrical_and_sum_to_one() {
        let taps = polyphase_taps(320, 294, 10, 5.0).unwrap();
        assert_eq!(taps.len(), 2 * 10 * 160 + 1);
        assert!((taps.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let reversed: Vec<f64> = taps.iter().rev().copied().collect();
        assert!(
            taps.iter()
                .zip(&reversed)
                .all(|(a, b)| (a - b).abs() < 1e-15)
        );
        assert!(polyphase_taps(0, 1, 10, 5.0).is_err());
        for (zero_crossings, beta) in [(0, 5.0), (usize::MAX, 5.0), (10, -1.0), (10, f64::NAN)] {
            assert!(polyphase_taps(1, 1, zero_crossings, beta).is_err());
        }
        let error = polyphase_taps(u32::MAX, 1, 10, 5.0).unwrap_err();
        assert!(error.to_string().contains("2^25 weights"), "{error}");
    }
}
