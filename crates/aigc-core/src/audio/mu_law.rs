//! The mu-law of models that predict samples as classes (van den Oord et al. 2016,
//! <https://arxiv.org/abs/1609.03499>): `sign(x)·ln(1 + µ|x|)/ln(1 + µ)`, in even steps.
//!
//! The bytes of telephony are another, piecewise linear approximation of the same curve.

use crate::{Error, Result, check::ensure_argument};

/// The curve of mu-law: quiet samples get more of the range.
///
/// Samples beyond `[-1, 1]` are clipped; the results lie in `[-1, 1]`.
///
/// # Errors
/// [`Error::InvalidArgument`] if `mu` is 0 or a sample is not finite.
pub fn mu_law_compress(samples: &[f32], mu: u32) -> Result<Vec<f32>> {
    check(samples, mu)?;
    let curve = |x: &f32| compress(*x, f64::from(mu)) as f32;
    Ok(samples.iter().map(curve).collect())
}

/// The inverse of [`mu_law_compress`].
///
/// # Errors
/// As for [`mu_law_compress`].
pub fn mu_law_expand(samples: &[f32], mu: u32) -> Result<Vec<f32>> {
    check(samples, mu)?;
    let curve = |x: &f32| expand(f64::from(x.clamp(-1.0, 1.0)), f64::from(mu)) as f32;
    Ok(samples.iter().map(curve).collect())
}

/// Samples as codes from 0 to `mu`, 255 for eight bits. Samples beyond `[-1, 1]` are clipped.
///
/// # Errors
/// As for [`mu_law_compress`].
pub fn mu_law_encode(samples: &[f32], mu: u32) -> Result<Vec<u32>> {
    check(samples, mu)?;
    let top = f64::from(mu);
    // Not negative, so that the cast rounds to the nearest code.
    let code = |x: &f32| ((compress(*x, top) + 1.0) / 2.0 * top + 0.5) as u32;
    Ok(samples.iter().map(code).collect())
}

/// The samples of codes from 0 to `mu`.
///
/// # Errors
/// [`Error::InvalidArgument`] if `mu` is 0 or a code is above it.
pub fn mu_law_decode(codes: &[u32], mu: u32) -> Result<Vec<f32>> {
    check(&[], mu)?;
    if let Some((index, code)) = codes.iter().enumerate().find(|(_, code)| **code > mu) {
        let name = format!("codes[{index}]");
        return Err(Error::argument(name, code, format!("0 to {mu}")));
    }
    let top = f64::from(mu);
    let sample = |code: &u32| expand(f64::from(*code) / top * 2.0 - 1.0, top) as f32;
    Ok(codes.iter().map(sample).collect())
}

fn check(samples: &[f32], mu: u32) -> Result<()> {
    ensure_argument(mu > 0, "mu", mu, "1 or more, as 255")?;
    match samples.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(Error::argument(
            format!("samples[{at}]"),
            samples[at],
            "a finite number",
        )),
        None => Ok(()),
    }
}

fn compress(x: f32, mu: f64) -> f64 {
    let x = f64::from(x.clamp(-1.0, 1.0));
    (mu * x.abs()).ln_1p().copysign(x) / mu.ln_1p()
}

fn expand(y: f64, mu: f64) -> f64 {
    ((y.abs() * mu.ln_1p()).exp_m1() / mu).copysign(y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_return() {
        for mu in [1, 31, 255, 65_535] {
            let codes: Vec<u32> = (0..=mu).collect();
            let samples = mu_law_decode(&codes, mu).unwrap();
            assert_eq!(mu_law_encode(&samples, mu).unwrap(), codes, "{mu}");
            assert_eq!((samples[0], samples[mu as usize]), (-1.0, 1.0));
        }
        assert_eq!(
            mu_law_encode(&[-3.0, 0.0, 3.0], 255).unwrap(),
            [0, 128, 255]
        );
    }

    #[test]
    fn bad_values_are_errors() {
        let error = mu_law_decode(&[0, 256], 255).unwrap_err().to_string();
        assert!(
            error.contains("`codes[1]` is 256, expected 0 to 255"),
            "{error}"
        );
        let error = mu_law_encode(&[0.0, f32::NAN], 255)
            .unwrap_err()
            .to_string();
        assert!(error.contains("`samples[1]` is NaN"), "{error}");
        assert!(mu_law_expand(&[], 0).is_err());
    }
}
