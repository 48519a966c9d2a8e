//! Which latent dimensions a model uses.

use super::{EvaluationOptions, Part, first_likelihood, host, not_empty};
use crate::{DiagonalGaussian, Posterior, Vae};
use aigc_core::{
    Error, Result, check,
    data::{DataLoader, SampleBatch},
    rng::Rng,
};
use burn::tensor::Device;
use std::ops::ControlFlow;

/// Result of [`active_units`](active_units()).
#[derive(Clone, Debug, PartialEq)]
pub struct ActiveUnits {
    /// Variance over the samples of the posterior's mean, for each latent dimension.
    pub variances: Vec<f64>,
    /// Mean divergence of the posterior from the prior, `KL(q(z|x) ‖ p(z))`, in nats; estimated
    /// with one latent for each sample if the model has no closed form ([`Vae::forward`]).
    pub kl: f64,
    /// Number of samples evaluated.
    pub num_samples: usize,
    /// Whether all samples of the loader were evaluated.
    pub complete: bool,
}

impl ActiveUnits {
    /// The variance above which a dimension is active.
    pub const THRESHOLD: f64 = 0.01;

    /// The latent dimensions with a variance above [`THRESHOLD`](Self::THRESHOLD).
    pub fn active(&self) -> Vec<usize> {
        self.units(|variance| variance > Self::THRESHOLD)
    }

    /// The latent dimensions without such a variance. If all are inactive, the posterior has
    /// collapsed: the decoder ignores the latents.
    pub fn inactive(&self) -> Vec<usize> {
        self.units(|variance| variance <= Self::THRESHOLD)
    }

    fn units(&self, of: impl Fn(f64) -> bool) -> Vec<usize> {
        let variances = self.variances.iter().enumerate();
        variances
            .filter(|(_, v)| of(**v))
            .map(|(unit, _)| unit)
            .collect()
    }
}

impl std::fmt::Display for ActiveUnits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} of {} latent dimensions active, KL {:.3} nats, {} samples",
            self.active().len(),
            self.variances.len(),
            self.kl,
            self.num_samples
        )
    }
}

/// Computes the variance of the posterior's mean in each latent dimension, `Cov_x(E_q[z|x])`, over
/// the samples of `loader`. A dimension with a variance above 0.01 is active (Burda et al. 2016,
/// <https://arxiv.org/abs/1509.00519>, §5.2).
///
/// Of posteriors that are not Gaussian, the [mode](Posterior::mode) is used. A conditional model is
/// evaluated with the labels of the batches, and what [`EvaluationOptions::with_condition`] returns
/// for them; what the posterior tells about the condition counts as well.
///
/// # Errors
/// [`Error::InvalidArgument`] if there are no rows per pass, or fewer than two samples;
/// [`Error::Config`] if the samples do not have the shape of the model's samples or the range of
/// its likelihood, or no condition for a conditional model; [`Error::Cancelled`] if stopped before
/// the first samples were evaluated; errors of the loader.
pub fn active_units<V, B, const X: usize, const Z: usize>(
    model: &V,
    loader: &DataLoader<B>,
    options: &EvaluationOptions<'_, B>,
    device: &Device,
) -> Result<ActiveUnits>
where
    V: Vae<X, Z>,
    B: SampleBatch<X>,
{
    let latent = model.latent_dim();
    let mut moments = vec![Moments::default(); latent];
    let mut divergences: Vec<f64> = Vec::new();
    let complete = options.for_each_part(model, loader, device, |part: Part<X>| {
        let count = part.x.dims()[0];
        let mut rng = Rng::stream(options.seed, "active-units", part.first as u64);
        // A hierarchical model's divergences are those of the latents drawn in the pass.
        let output = model.forward(part.x, &part.condition, &mut rng);
        output.likelihood.check_range(part.range)?;
        for means in host(output.posterior.mode()).chunks_exact(latent) {
            for (moments, mean) in moments.iter_mut().zip(means) {
                moments.add(*mean);
            }
        }
        let start = divergences.len();
        divergences.resize(start + count, 0.0);
        for kl in output.kl {
            let sums = divergences[start..].iter_mut().zip(host(kl));
            sums.for_each(|(sum, kl)| *sum += kl);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    not_empty(&divergences, "active units")?;
    let n = divergences.len();
    if n < 2 {
        return Err(Error::argument("samples", n, "at least 2"));
    }
    Ok(ActiveUnits {
        variances: moments.iter().map(Moments::variance).collect(),
        kl: divergences.iter().sum::<f64>() / n as f64,
        num_samples: n,
        complete,
    })
}

/// Mean and variance, updated value by value (Welford 1962).
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let before = value - self.mean;
        self.mean += before / self.count;
        self.squares += before * (value - self.mean);
    }

    /// The unbiased variance.
    fn variance(&self) -> f64 {
        self.squares / (self.count - 1.0)
    }
}

/// Result of [`posterior_collapse`](posterior_collapse()).
#[derive(Clone, Debug, PartialEq)]
pub struct PosteriorCollapse {
    /// Mean divergence from the standard normal distribution in each latent dimension, in nats.
    pub kl: Vec<f64>,
    /// Fraction of the samples whose divergence is below `epsilon`, for each latent dimension.
    pub collapsed_fractions: Vec<f64>,
    /// Divergence below which the posterior of a sample counts as the prior, in nats.
    pub epsilon: f64,
    /// Number of samples evaluated.
    pub num_samples: usize,
    /// Whether all samples of the loader were evaluated.
    pub complete: bool,
}

impl PosteriorCollapse {
    /// The (ε, δ)-collapsed latent dimensions: their divergence is below ε for a fraction of at
    /// least `1 − δ` of the samples.
    pub fn collapsed(&self, delta: f64) -> Vec<usize> {
        let fractions = self.collapsed_fractions.iter().enumerate();
        let collapsed = fractions.filter(|(_, fraction)| **fraction >= 1.0 - delta);
        collapsed.map(|(unit, _)| unit).collect()
    }
}

/// Computes in which latent dimensions the posterior is nearly the standard normal prior, and for
/// how many samples of `loader` (Lucas et al. 2019, <https://arxiv.org/abs/1911.02469>).
///
/// # Errors
/// Those of [`active_units`](active_units()), but for one sample; [`Error::Config`] if `epsilon` is
/// not above 0.
pub fn posterior_collapse<V, B, const X: usize, const Z: usize>(
    model: &V,
    loader: &DataLoader<B>,
    epsilon: f64,
    options: &EvaluationOptions<'_, B>,
    device: &Device,
) -> Result<PosteriorCollapse>
where
    V: Vae<X, Z, Posterior = DiagonalGaussian<Z>>,
    B: SampleBatch<X>,
{
    check::positive("epsilon", epsilon)?;
    let latent = model.latent_dim();
    let mut sums = vec![(0.0, 0usize); latent];
    let mut num_samples = 0;
    let complete = options.for_each_part(model, loader, device, |part: Part<X>| {
        num_samples += part.x.dims()[0];
        let posterior = model.encode_with(part.x.clone(), &part.condition);
        if part.first == 0 {
            first_likelihood(model, &posterior, &part)?;
        }
        let DiagonalGaussian { mean, logvar } = posterior;
        let (mean, logvar) = (host(mean), host(logvar));
        let samples = mean.chunks_exact(latent).zip(logvar.chunks_exact(latent));
        for (mean, logvar) in samples {
            for ((sum, below), (m, l)) in sums.iter_mut().zip(mean.iter().zip(logvar)) {
                // `σ² − 1 − log σ²` without cancellation near σ = 1.
                let kl = 0.5 * (m * m + l.exp_m1() - l);
                *sum += kl;
                *below += usize::from(kl < epsilon);
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if num_samples == 0 {
        return Err(Error::cancelled("posterior collapse"));
    }
    let n = num_samples as f64;
    Ok(PosteriorCollapse {
        kl: sums.iter().map(|(sum, _)| sum / n).collect(),
        collapsed_fractions: sums.iter().map(|(_, below)| *below as f64 / n).collect(),
        epsilon,
        num_samples,
        complete,
    })
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        LikelihoodKind,
        evaluate::testing::{LinearGaussian, NORMS, STD, draw, loader},
    };

    #[test]
    fn moments_match_direct_sums_far_from_zero() {
        let values = [1.0, 4.0, -2.0, 0.5].map(|value| value + 1e9);
        let mut moments = Moments::default();
        values.iter().for_each(|value| moments.add(*value));
        // Mean 0.875, squares 18.1875.
        assert!((moments.mean - 1e9 - 0.875).abs() < 1e-6);
        assert!((moments.variance() - 18.1875 / 3.0).abs() < 1e-5);
    }

    /// The mean of the posterior has the variance `c² / (c² + σ²)` for a loading of norm `c`.
    #[test]
    fn variances_match_closed_form_and_dead_units_are_found() {
        let (n, device) = (2000, Device::flex());
        let model = LinearGaussian::new(1.0, None);
        let loader = loader(&draw(n, 1), None, 128);
        let options = EvaluationOptions::new().with_max_rows(100);
        let found = active_units(&model, &loader, &options, &device).unwrap();
        for (variance, norm) in found.variances.iter().zip(NORMS) {
            let expected = norm * norm / (norm * norm + STD * STD);
            // The standard deviation of a normal variance's estimate is √(2/n) of it.
            let error = 5.0 * expected * (2.0 / n as f64).sqrt();
            assert!(
                (variance - expected).abs() <= error,
                "{variance} {expected}"
            );
        }
        assert_eq!((found.active(), found.inactive()), (vec![0, 1], vec![2]));
        assert_eq!((found.num_samples, found.complete), (n, true));
        // The mean of `½ (μ² + s − 1 − log s)` is `−½ log s`.
        let kl: f64 = (NORMS.iter())
            .map(|norm| 0.5 * ((norm * norm + STD * STD) / (STD * STD)).ln())
            .sum();
        assert!((found.kl - kl).abs() < 0.1, "{found} {kl}");
        let text = found.to_string();
        assert!(
            text.starts_with("2 of 3 latent dimensions active"),
            "{text}"
        );
    }

    #[test]
    fn collapsed_dimensions_are_those_without_divergence() {
        let (samples, device) = (draw(300, 2), Device::flex());
        let model = LinearGaussian::new(1.0, None);
        let options = EvaluationOptions::new();
        let loader = loader(&samples, None, 64);
        let found = posterior_collapse(&model, &loader, 0.01, &options, &device).unwrap();
        assert_eq!(found.collapsed(0.01), [2]);
        assert_eq!(found.collapsed_fractions[2], 1.0);
        assert!(found.kl[2].abs() < 1e-9);
        // The least divergence in the first dimension is that at a mean of 0, 0.45 nats.
        assert_eq!(found.collapsed_fractions[0], 0.0);
        let units = active_units(&model, &loader, &options, &device).unwrap();
        assert!((found.kl.iter().sum::<f64>() - units.kl).abs() < 1e-5);
        // All samples are below an epsilon of 100 nats.
        let all = posterior_collapse(&model, &loader, 100.0, &options, &device).unwrap();
        assert_eq!(all.collapsed(0.0), [0, 1, 2]);
        let error = posterior_collapse(&model, &loader, 0.0, &options, &device).unwrap_err();
        assert!(error.to_string().contains("`epsilon` is 0"), "{error}");
    }

    /// Statistics of the posterior say nothing about samples that the model is not of.
    #[test]
    fn values_out_of_the_likelihoods_range_are_errors() {
        let (loader, device) = (loader(&draw(3, 9), None, 2), Device::flex());
        let model = LinearGaussian::new(1.0, None).with_likelihood(LikelihoodKind::Bernoulli);
        let options = EvaluationOptions::new();
        let units = active_units(&model, &loader, &options, &device).unwrap_err();
        let collapse = posterior_collapse(&model, &loader, 0.01, &options, &device).unwrap_err();
        for error in [units, collapse] {
            let message = error.to_string();
            assert!(message.contains("`likelihood` is bernoulli"), "{message}");
        }
    }

    #[test]
    fn a_single_sample_has_no_variance() {
        let model = LinearGaussian::new(1.0, None);
        let loader = loader(&draw(1, 3), None, 4);
        let options = EvaluationOptions::new();
        let error = active_units(&model, &loader, &options, &Device::flex()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`samples` is 1, expected at least 2"),
            "{error}"
        );
    }
}
