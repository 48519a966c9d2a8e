//! The Gaussians of a mixture.

use crate::prior::CovarianceType;

/// One Gaussian of a mixture.
#[derive(Clone, Debug)]
pub(in crate::prior) struct Component {
    pub(in crate::prior) weight: f64,
    pub(in crate::prior) mean: Vec<f64>,
    /// The factor `P` of the precision, `Σ⁻¹ = PᵀP`: its diagonal for diagonal covariances, else a
    /// lower triangular matrix, row by row.
    pub(in crate::prior) factor: Vec<f64>,
    /// The log-density at the mean.
    pub(super) log_peak: f64,
}

impl Component {
    pub(super) fn new(weight: f64, mean: Vec<f64>, factor: Vec<f64>) -> Self {
        let dim = mean.len();
        let diagonal: f64 = match factor.len() == dim {
            true => factor.iter().map(|f| f.ln()).sum(),
            false => (0..dim).map(|i| factor[i * dim + i].ln()).sum(),
        };
        let log_peak = diagonal - 0.5 * dim as f64 * (2.0 * std::f64::consts::PI).ln();
        Self {
            weight,
            mean,
            factor,
            log_peak,
        }
    }

    /// A component with these variances and no correlations.
    pub(super) fn uncorrelated(
        weight: f64,
        mean: Vec<f64>,
        variances: &[f64],
        covariance: CovarianceType,
    ) -> Self {
        let dim = mean.len();
        let diagonal = variances.iter().map(|v| 1.0 / v.sqrt());
        let factor = match covariance {
            CovarianceType::Diagonal => diagonal.collect(),
            CovarianceType::Full => {
                let mut factor = vec![0.0; dim * dim];
                diagonal
                    .enumerate()
                    .for_each(|(i, f)| factor[i * dim + i] = f);
                factor
            }
        };
        Self::new(weight, mean, factor)
    }
}
