//! Windows.

use crate::{Result, check::ensure};
use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;

/// Limit on the parameter of a Kaiser window: far above any in use, and far below an overflow.
const MAX_BETA: f64 = 500.0;

/// A window of the short-time Fourier transform.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Window {
    /// `½ − ½·cos`.
    #[default]
    Hann,
    /// `0.54 − 0.46·cos`.
    Hamming,
    /// `0.42 − 0.5·cos + 0.08·cos` of twice the angle.
    Blackman,
    /// A triangle that begins at 0.
    Bartlett,
    /// Kaiser's window, `I₀(β·√(1 − r²)) / I₀(β)` (Kaiser and Schafer 1980,
    /// <https://doi.org/10.1109/TASSP.1980.1163349>).
    Kaiser {
        /// Side lobes fall and the main lobe widens with it; from 0 to 500.
        beta: f64,
    },
    /// Ones.
    Rectangular,
}

impl Window {
    /// Checks the parameter.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if `beta` is not from 0 to 500.
    pub fn validate(&self) -> Result<()> {
        match self {
            Window::Kaiser { beta } => ensure(
                (0.0..=MAX_BETA).contains(beta),
                "beta",
                beta,
                &format!("0 to {MAX_BETA}"),
            ),
            _ => Ok(()),
        }
    }

    /// One period of the window, for spectra: the symmetric window of `len + 1` values without its
    /// last one. `scipy.signal.get_window` gives this one by default.
    pub fn periodic(self, len: usize) -> Vec<f64> {
        self.values(len, len)
    }

    /// The window that reads the same backwards, for the design of filters.
    pub fn symmetric(self, len: usize) -> Vec<f64> {
        self.values(len, len.saturating_sub(1))
    }

    /// `len` values of a window that ends `span` samples after its first one.
    fn values(self, len: usize, span: usize) -> Vec<f64> {
        if len <= 1 {
            return vec![1.0; len];
        }
        let span = span as f64;
        let bessel_beta = match self {
            Window::Kaiser { beta } => bessel_i0(beta),
            _ => 1.0,
        };
        let value = |i: usize| {
            let place = i as f64 / span;
            let cosine = |times: f64| (TAU * times * place).cos();
            match self {
                Window::Hann => 0.5 - 0.5 * cosine(1.0),
                Window::Hamming => 0.54 - 0.46 * cosine(1.0),
                Window::Blackman => 0.42 - 0.5 * cosine(1.0) + 0.08 * cosine(2.0),
                Window::Bartlett => 1.0 - (2.0 * place - 1.0).abs(),
                Window::Kaiser { beta } => {
                    let inside = 1.0 - (2.0 * place - 1.0).powi(2);
                    bessel_i0(beta * inside.max(0.0).sqrt()) / bessel_beta
                }
                Window::Rectangular => 1.0,
            }
        };
        (0..len).map(value).collect()
    }
}

/// The modified Bessel function of the first kind, `I₀(x)`, by its power series.
pub(crate) fn bessel_i0(x: f64) -> f64 {
    let (mut sum, mut term, mut k) = (1.0, 1.0, 1.0);
    while term > sum * 1e-17 {
        term *= (x / (2.0 * k)).powi(2);
        sum += term;
        k += 1.0;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Window; 6] = [
        Window::Hann,
        Window::Hamming,
        Window::Blackman,
        Window::Bartlett,
        Window::Kaiser { beta: 8.0 },
        Window::Rectangular,
    ];

    #[test]
    fn windows_are_symmetric_with_a_peak_of_one() {
        for window in ALL {
            for len in [3, 25] {
                let values = window.symmetric(len);
                for (a, b) in values.iter().zip(values.iter().rev()) {
                    assert!((a - b).abs() < 1e-12, "{window:?}");
                }
                assert!((values[len / 2] - 1.0).abs() < 1e-12, "{window:?}");
                assert_eq!(
                    window.periodic(len - 1)[..],
                    values[..len - 1],
                    "{window:?}"
                );
            }
            assert_eq!(window.periodic(0), Vec::<f64>::new());
            assert_eq!(window.symmetric(1), [1.0]);
        }
    }

    #[test]
    fn bessel_has_its_known_values() {
        assert_eq!(bessel_i0(0.0), 1.0);
        assert!((bessel_i0(1.0) - 1.266_065_877_752_008_4).abs() < 1e-14);
        assert!((bessel_i0(5.0) - 27.239_871_823_604_442).abs() < 1e-13);
        assert!((bessel_i0(10.0) / 2_815.716_628_466_254 - 1.0).abs() < 1e-13);
        assert!(bessel_i0(MAX_BETA).is_finite());
    }

    #[test]
    fn invalid_parameters_are_errors() {
        for beta in [-1.0, 501.0, f64::NAN] {
            assert!(Window::Kaiser { beta }.validate().is_err());
        }
        assert!(ALL.iter().all(|window| window.validate().is_ok()));
        let json = r#"{"kaiser":{"beta":8.0}}"#;
        let window: Window = serde_json::from_str(json).unwrap();
        assert_eq!(window, Window::Kaiser { beta: 8.0 });
        assert_eq!(serde_json::to_string(&Window::Hann).unwrap(), r#""hann""#);
    }
}
