//! The discrete cosine transform.

use std::f64::consts::PI;

/// Types of the discrete cosine transform (Ahmed et al. 1974,
/// <https://doi.org/10.1109/T-C.1974.223784>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DctKind {
    /// `yₖ = 2·Σ xₙ·cos(π·k·(2n + 1) / 2N)`.
    #[default]
    Two,
    /// `yₖ = x₀ + 2·Σ xₙ·cos(π·(2k + 1)·n / 2N)` over `n ≥ 1`: up to a factor of `2N` the inverse
    /// of [`Two`](Self::Two).
    Three,
}

/// Scale of the discrete cosine transform.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DctNorm {
    /// The formulas of [`DctKind`] as they are.
    None,
    /// As an orthogonal matrix, whose transpose is its inverse.
    #[default]
    Ortho,
}

/// The discrete cosine transform of `values`, as `scipy.fft.dct`. Takes time in proportion to the
/// square of their number.
pub fn dct(values: &[f64], kind: DctKind, norm: DctNorm) -> Vec<f64> {
    let (len, rows) = (values.len(), 0..values.len());
    let cosines = table(len);
    rows.map(|k| {
        let products = values.iter().enumerate();
        products
            .map(|(n, value)| value * weight(&cosines, k, n, kind, norm))
            .sum()
    })
    .collect()
}

/// The first rows of the orthogonal matrix of [`DctKind::Two`], `[rows, len]`.
pub(super) fn matrix(rows: usize, len: usize) -> Vec<f64> {
    let cosines = table(len);
    (0..rows * len)
        .map(|i| weight(&cosines, i / len, i % len, DctKind::Two, DctNorm::Ortho))
        .collect()
}

/// Cosines of one period: those of the transform are `cos(π·m / 2N)`.
fn table(len: usize) -> Vec<f64> {
    let step = PI / (2 * len) as f64;
    (0..4 * len).map(|m| (step * m as f64).cos()).collect()
}

/// The weight of value `n` in coefficient `k`.
fn weight(cosines: &[f64], k: usize, n: usize, kind: DctKind, norm: DctNorm) -> f64 {
    let len = cosines.len() / 4;
    let (multiple, zero) = match kind {
        DctKind::Two => (k * (2 * n + 1), k == 0),
        DctKind::Three => (n * (2 * k + 1), n == 0),
    };
    let cosine = cosines[multiple % cosines.len()];
    match (norm, kind) {
        (DctNorm::Ortho, _) if zero => cosine * (len as f64).recip().sqrt(),
        (DctNorm::Ortho, _) => cosine * (2.0 / len as f64).sqrt(),
        (DctNorm::None, DctKind::Three) if zero => cosine,
        (DctNorm::None, _) => 2.0 * cosine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_invert_each_other() {
        let values = [0.3, -1.0, 2.5, 0.0, 4.0];
        for (norm, factor) in [(DctNorm::Ortho, 1.0), (DctNorm::None, 10.0)] {
            let coefficients = dct(&values, DctKind::Two, norm);
            let back = dct(&coefficients, DctKind::Three, norm);
            for (a, b) in back.iter().zip(values) {
                assert!((a - factor * b).abs() < 1e-12, "{norm:?}");
            }
        }
        assert!(dct(&[], DctKind::Two, DctNorm::Ortho).is_empty());
        let sum = dct(&values, DctKind::Two, DctNorm::None)[0];
        assert!((sum - 2.0 * values.iter().sum::<f64>()).abs() < 1e-12);
    }
}
