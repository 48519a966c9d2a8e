//! Expectation maximisation of Gaussian mixtures, in `f64` on the host.
//!
//! The points are divided in fixed ranges, which the processors share. Sums are taken range by
//! range, so that the result does not depend on the number of processors.
//!
//! | file | content |
//! |---|---|
//! | `points` | the points |
//! | `component` | the Gaussians |
//! | `start` | the first components, by k-means |
//! | `expectation` | the responsibilities of components for points |
//! | `maximisation` | components from responsibilities |
//! | `precision` | factors of inverse covariance matrices |
//! | `tiles` | loops over points, for vector instructions |

mod component;
mod expectation;
mod maximisation;
mod points;
mod precision;
mod start;
#[cfg(test)]
mod tests;
mod tiles;

pub(super) use component::Component;
pub(super) use points::Points;

use super::CovarianceType;
use aigc_core::{Result, check, rng::Rng};
use expectation::{Responsibilities, counts, expectation, mean_log_likelihood};
use maximisation::{EMPTY, maximisation};
use serde::{Deserialize, Serialize};
use start::initial_components;

/// Configuration of expectation maximisation (Dempster et al. 1977). Fields have the names of those
/// of scikit-learn's `GaussianMixture`, where it has them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EmConfig {
    /// Limit on the number of iterations.
    pub max_iter: usize,
    /// Iterations end when the mean log-likelihood of the points rises by less than this, in nats.
    pub tol: f64,
    /// Number of starts; the one that ends with the highest log-likelihood is kept.
    pub n_init: usize,
    /// Lower bound on the variance in every direction, in the square of the units of the points. It
    /// is a constraint and not added to the covariances, so that the log-likelihood never falls.
    /// 1e-30 or above.
    pub min_variance: f64,
    /// Seed of the starts.
    pub seed: u64,
}

impl Default for EmConfig {
    fn default() -> Self {
        Self {
            max_iter: 100,
            tol: 1e-3,
            n_init: 1,
            min_variance: 1e-6,
            seed: 0,
        }
    }
}

impl EmConfig {
    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        check::sizes(&[
            ("max_iter", self.max_iter, 1 << 20),
            ("n_init", self.n_init, 1 << 10),
        ])?;
        check::non_negative("tol", self.tol)?;
        check::ensure(
            self.min_variance >= MIN_VARIANCE && self.min_variance.is_finite(),
            "min_variance",
            self.min_variance,
            "a finite number, 1e-30 or above",
        )
    }
}

/// Least bound on variances. The inverse of smaller ones overflows in 32 bits.
const MIN_VARIANCE: f64 = 1e-30;

/// A fitted mixture.
#[derive(Clone, Debug)]
pub(super) struct Fitted {
    pub(super) components: Vec<Component>,
    /// Mean log-likelihood of the points in nats before each iteration and after the last.
    pub(super) log_likelihoods: Vec<f64>,
    pub(super) converged: bool,
}

/// Fits a mixture of `count` components.
pub(super) fn fit(
    points: &Points,
    count: usize,
    covariance: CovarianceType,
    config: &EmConfig,
) -> Fitted {
    let start = |index: usize| {
        let mut rng = Rng::stream(config.seed, "mixture", index as u64);
        fit_once(points, count, covariance, config, &mut rng)
    };
    let last = |fitted: &Fitted| fitted.log_likelihoods.last().copied();
    (1..config.n_init)
        .map(start)
        .fold(start(0), |best, other| match last(&other) > last(&best) {
            true => other,
            false => best,
        })
}

fn fit_once(
    points: &Points,
    count: usize,
    covariance: CovarianceType,
    config: &EmConfig,
    rng: &mut Rng,
) -> Fitted {
    let floor = config.min_variance;
    let variances = points.variances(floor);
    let mut revived = vec![false; count];
    let mut fitted = Fitted {
        components: Vec::new(),
        log_likelihoods: Vec::new(),
        converged: false,
    };
    let mut components = initial_components(points, count, covariance, floor, rng);
    let mut was_revived = false;
    for iteration in 0..=config.max_iter {
        let parts = expectation(points, &components, covariance);
        let found = mean_log_likelihood(points, &parts);
        let before = fitted.log_likelihoods.last().copied();
        // Near the maximum, rounding errors are larger than the steps.
        if before.is_some_and(|before| found < before) {
            fitted.converged = true;
            break;
        }
        fitted.log_likelihoods.push(found);
        fitted.components.clone_from(&components);
        if iteration == config.max_iter {
            break;
        }
        let empty = revive(
            points,
            &mut components,
            covariance,
            &parts,
            &variances,
            &revived,
        );
        if let Some(k) = empty {
            (revived[k], was_revived) = (true, true);
            continue;
        }
        let settled = before.is_some_and(|before| found - before < config.tol);
        if settled && !was_revived {
            fitted.converged = true;
            break;
        }
        was_revived = false;
        components = maximisation(points, &components, covariance, &parts, floor);
    }
    fitted
}

/// Moves one empty component to the point of the least density, with the weight of one point and
/// the variances of all points, if that raises the log-likelihood for certain: the other weights
/// shrink by `1 − 1/n`, which costs at most one nat for all points together. Returns its index.
fn revive(
    points: &Points,
    components: &mut [Component],
    covariance: CovarianceType,
    parts: &[Responsibilities],
    variances: &[f64],
    revived: &[bool],
) -> Option<usize> {
    let counts = counts(parts, components.len());
    let k = (0..components.len()).find(|k| counts[*k] < EMPTY && !revived[*k])?;
    let worst = parts.iter().map(|part| part.worst);
    let (log_density, index) = worst.min_by(|a, b| a.0.total_cmp(&b.0))?;
    let n = points.count() as f64;
    let mean = points.row(index).to_vec();
    let component = Component::uncorrelated(1.0 / n, mean, variances, covariance);
    if component.log_peak - n.ln() - 1.0 - 1e-6 <= log_density {
        return None;
    }
    for other in components.iter_mut() {
        other.weight *= 1.0 - 1.0 / n;
    }
    components[k] = component;
    Some(k)
}
