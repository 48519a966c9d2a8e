//! The rate and the distortion of models.

use super::{EvaluationOptions, Part, host, mean_and_error, not_empty};
use crate::Vae;
#[cfg(feature = "plot")]
use aigc_core::output::save_scatter;
use aigc_core::{
    Error, Result, check,
    data::{DataLoader, SampleBatch},
    rng::Rng,
};
use burn::tensor::Device;
use std::ops::ControlFlow;
#[cfg(feature = "plot")]
use std::path::Path;

/// Rate and distortion of a model (Alemi et al. 2018, <https://arxiv.org/abs/1711.00464>). Their
/// sum is −ELBO, an upper bound of `−E[log p(x)]`.
#[derive(Clone, Debug, PartialEq)]
pub struct RateDistortion {
    /// `E[KL(q(z|x) ‖ p(z))]`, the mean number of nats that latents tell about a sample.
    pub rate: f64,
    /// Standard error of the rate over the samples; NaN for a single sample.
    pub rate_standard_error: f64,
    /// `−E[log p(x|z)]` in nats, estimated with one latent for each sample; negative if a
    /// continuous likelihood has densities above 1.
    pub distortion: f64,
    /// Standard error of the distortion over the samples; NaN for a single sample.
    pub distortion_standard_error: f64,
    /// Rate of each group of latents, in nats; their sum is the rate.
    pub group_rates: Vec<f64>,
    /// Number of samples evaluated.
    pub num_samples: usize,
    /// Seed of the latents.
    pub seed: u64,
    /// Whether all samples of the loader were evaluated.
    pub complete: bool,
}

impl RateDistortion {
    /// `distortion + β·rate`, the loss of a β-VAE (Higgins et al. 2017); −ELBO for β = 1.
    pub fn loss(&self, beta: f64) -> f64 {
        self.distortion + beta * self.rate
    }
}

impl std::fmt::Display for RateDistortion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "rate {:.3} ± {:.3} nats, distortion {:.3} ± {:.3} nats, {} samples",
            self.rate,
            self.rate_standard_error,
            self.distortion,
            self.distortion_standard_error,
            self.num_samples
        )
    }
}

/// Computes rate and distortion of `model` over the samples of `loader`, with one latent for each
/// sample. A conditional model is evaluated with the labels of the batches, and what
/// [`EvaluationOptions::with_condition`] returns for them.
///
/// # Errors
/// [`Error::InvalidArgument`] if there are no rows per pass; [`Error::Config`] if the samples do
/// not have the shape of the model's samples or the range of its likelihood, or no condition for a
/// conditional model, or if the likelihood is the optimal Gaussian, which takes its variance from
/// the samples; [`Error::Cancelled`] if stopped before the first samples were evaluated; errors of
/// the loader.
pub fn rate_distortion<V, B, const X: usize, const Z: usize>(
    model: &V,
    loader: &DataLoader<B>,
    options: &EvaluationOptions<'_, B>,
    device: &Device,
) -> Result<RateDistortion>
where
    V: Vae<X, Z>,
    B: SampleBatch<X>,
{
    let (mut distortions, mut groups) = (Vec::new(), Vec::<Vec<f64>>::new());
    let complete = options.for_each_part(model, loader, device, |part: Part<X>| {
        let mut rng = Rng::stream(options.seed, "rate-distortion", part.first as u64);
        let output = model.forward(part.x.clone(), &part.condition, &mut rng);
        output.likelihood.check_range(part.range)?;
        output.likelihood.check_fixed()?;
        distortions.extend(host(-output.likelihood.log_prob(part.x)));
        groups.resize(output.kl.len(), Vec::new());
        for (rates, kl) in groups.iter_mut().zip(output.kl) {
            rates.extend(host(kl));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    not_empty(&distortions, "rate and distortion")?;
    let n = distortions.len();
    let of_sample = |sample: usize| -> f64 { groups.iter().map(|rates| rates[sample]).sum() };
    let rates: Vec<f64> = (0..n).map(of_sample).collect();
    let (rate, rate_standard_error) = mean_and_error(&rates);
    let (distortion, distortion_standard_error) = mean_and_error(&distortions);
    Ok(RateDistortion {
        rate,
        rate_standard_error,
        distortion,
        distortion_standard_error,
        group_rates: groups.iter().map(|rates| mean_and_error(rates).0).collect(),
        num_samples: n,
        seed: options.seed,
        complete,
    })
}

/// Rate and distortion of models that were trained with different weights β of the divergence.
#[derive(Clone, Debug, PartialEq)]
pub struct RateDistortionCurve {
    /// Weight β and result of each model, in the order of rising rates.
    points: Vec<(f64, RateDistortion)>,
}

impl RateDistortionCurve {
    /// The curve of these weights β and results.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are none; [`Error::Config`] if a β is negative or not
    /// finite.
    pub fn new(points: impl IntoIterator<Item = (f64, RateDistortion)>) -> Result<Self> {
        let mut points: Vec<_> = points.into_iter().collect();
        if points.is_empty() {
            return Err(Error::argument("points", 0, "at least 1"));
        }
        for (beta, _) in &points {
            check::non_negative("beta", *beta)?;
        }
        points.sort_by(|(_, a), (_, b)| a.rate.total_cmp(&b.rate));
        Ok(Self { points })
    }

    /// Weight β and result of each model, in the order of rising rates.
    pub fn points(&self) -> &[(f64, RateDistortion)] {
        &self.points
    }

    /// The point with the least `distortion + β·rate`: of all models, that which is best for this
    /// β. A model that is not best for its own β was not trained to the end.
    pub fn best(&self, beta: f64) -> &(f64, RateDistortion) {
        let losses = self.points.iter();
        losses
            .min_by(|(_, a), (_, b)| a.loss(beta).total_cmp(&b.loss(beta)))
            .expect("a curve has points")
    }

    /// Draws the curve to the SVG file `path`: rates to the right, distortions upwards, both in
    /// nats and to the same scale, so that the slope of an optimal curve is −β. Each model is a
    /// cross whose arms are its standard errors, but at least a hundredth of the plot.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if no point is finite; [`Error::Io`] if the file cannot be
    /// written.
    #[cfg(feature = "plot")]
    pub fn save_plot(&self, path: impl AsRef<Path>) -> Result<()> {
        const DOTS: usize = 400;
        let at = |point: &RateDistortion| [point.rate, point.distortion];
        let along = |from: [f64; 2], to: [f64; 2], dots: usize| {
            (0..=dots).map(move |dot| {
                let t = dot as f64 / dots as f64;
                [0, 1].map(|axis| (from[axis] + t * (to[axis] - from[axis])) as f32)
            })
        };
        let extent = |axis: usize| {
            let values = self.points.iter().map(|(_, point)| at(point)[axis]);
            let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
                (low.min(v), high.max(v))
            });
            high - low
        };
        let least = 0.01 * extent(0).max(extent(1)).max(1e-6);
        let line: Vec<[f32; 2]> = (self.points.windows(2))
            .flat_map(|pair| along(at(&pair[0].1), at(&pair[1].1), DOTS))
            .collect();
        let cross = |point: &RateDistortion| -> Vec<[f32; 2]> {
            let [rate, distortion] = at(point);
            // `max` also replaces the NaN of a single sample.
            let right = point.rate_standard_error.max(least);
            let up = point.distortion_standard_error.max(least);
            let horizontal = along([rate - right, distortion], [rate + right, distortion], 40);
            let vertical = along([rate, distortion - up], [rate, distortion + up], 40);
            horizontal.chain(vertical).collect()
        };
        let crosses: Vec<(String, Vec<[f32; 2]>)> = (self.points.iter())
            .map(|(beta, point)| (format!("β = {beta}"), cross(point)))
            .collect();
        let mut clouds: Vec<(&str, &[[f32; 2]])> = vec![("curve", &line)];
        clouds.extend(
            crosses
                .iter()
                .map(|(name, dots)| (name.as_str(), &dots[..])),
        );
        save_scatter(&clouds, path.as_ref())
    }
}

/// [`rate_distortion`](rate_distortion()) of each of `models`, given with the weight β of the
/// divergence that it was trained with.
///
/// # Errors
/// Those of [`rate_distortion`](rate_distortion()) and [`RateDistortionCurve::new`];
/// [`Error::Cancelled`] if stopped before the last samples of the last model.
pub fn rate_distortion_curve<'m, V, B, const X: usize, const Z: usize>(
    models: impl IntoIterator<Item = (f64, &'m V)>,
    loader: &DataLoader<B>,
    options: &EvaluationOptions<'_, B>,
    device: &Device,
) -> Result<RateDistortionCurve>
where
    V: Vae<X, Z> + 'm,
    B: SampleBatch<X>,
{
    let mut points = Vec::new();
    for (beta, model) in models {
        let point = rate_distortion(model, loader, options, device)?;
        if !point.complete {
            return Err(Error::cancelled("rate-distortion curve"));
        }
        points.push((beta, point));
    }
    RateDistortionCurve::new(points)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        LikelihoodKind,
        evaluate::testing::{LinearGaussian, NORMS, STD, along, draw, loader, log_prob},
    };
    use aigc_core::{CancelToken, data::Binarize};

    /// Means and variances of the posterior widened by `v`, and the square of the part of `x` that
    /// the mean of the likelihood at the mode does not explain.
    fn posterior(x: &[f32; 4], v: f64) -> ([(f64, f64); 3], f64) {
        let mut error: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
        let mut moments = [(0.0, 0.0); 3];
        for ((moments, norm), a) in moments.iter_mut().zip(NORMS).zip(along(x)) {
            let variance = STD * STD / (norm * norm + STD * STD);
            *moments = (norm * a / (norm * norm + STD * STD), variance * v);
            error += (a - norm * moments.0).powi(2) - a * a;
        }
        (moments, error)
    }

    /// `½ Σ (μ² + s − 1 − log s)`.
    fn rate(x: &[f32; 4], v: f64) -> f64 {
        let terms = posterior(x, v).0.map(|(m, s)| m * m + s - 1.0 - s.ln());
        0.5 * terms.iter().sum::<f64>()
    }

    /// `½ (4·log 2πσ² + E|x − W·z|² / σ²)`.
    fn distortion(x: &[f32; 4], v: f64) -> f64 {
        let (moments, error) = posterior(x, v);
        let spread: f64 = moments
            .iter()
            .zip(NORMS)
            .map(|((_, s), norm)| s * norm * norm)
            .sum();
        let constant = 4.0 * (2.0 * std::f64::consts::PI * STD * STD).ln();
        0.5 * (constant + (error + spread) / (STD * STD))
    }

    fn mean(samples: &[[f32; 4]], of: impl Fn(&[f32; 4]) -> f64) -> f64 {
        samples.iter().map(of).sum::<f64>() / samples.len() as f64
    }

    #[test]
    fn rate_and_distortion_match_closed_forms() {
        let (samples, device) = (draw(400, 1), Device::flex());
        let loader = loader(&samples, None, 64);
        for v in [1.0, 2.0] {
            let model = LinearGaussian::new(v, None);
            let options = EvaluationOptions::new().with_seed(5);
            let found = rate_distortion(&model, &loader, &options, &device).unwrap();
            let expected = mean(&samples, |x| rate(x, v));
            assert!((found.rate - expected).abs() < 1e-4, "{found} {expected}");
            assert_eq!(found.group_rates, [found.rate]);
            let expected = mean(&samples, |x| distortion(x, v));
            let difference = (found.distortion - expected).abs();
            assert!(
                difference < 5.0 * found.distortion_standard_error,
                "{found} {expected}"
            );
            assert!(found.complete && found.num_samples == 400 && found.seed == 5);
            // −ELBO exceeds −log p(x) by the divergence of the encoder from the posterior.
            let gap = 0.5 * 3.0 * (v - 1.0 - v.ln());
            let bound = mean(&samples, |x| rate(x, v) + distortion(x, v));
            assert!((bound + mean(&samples, log_prob) - gap).abs() < 1e-6);
        }
    }

    #[test]
    fn samples_of_divided_batches_have_their_rates() {
        let (samples, device) = (draw(7, 2), Device::flex());
        let model = LinearGaussian::new(1.0, None);
        let options = EvaluationOptions::new().with_max_rows(2);
        let found = rate_distortion(&model, &loader(&samples, None, 5), &options, &device);
        let expected = mean(&samples, |x| rate(x, 1.0));
        assert!((found.unwrap().rate - expected).abs() < 1e-5);
        assert_eq!(model.rows(), [2, 2, 1, 2]);
    }

    #[test]
    fn values_out_of_the_likelihoods_range_are_errors() {
        let model = LinearGaussian::new(1.0, None).with_likelihood(LikelihoodKind::Bernoulli);
        let (loader, device) = (loader(&draw(4, 9), None, 2), Device::flex());
        let grey = EvaluationOptions::new();
        let message = rate_distortion(&model, &loader, &grey, &device)
            .unwrap_err()
            .to_string();
        assert!(message.contains("`likelihood` is bernoulli"), "{message}");
        let binary = EvaluationOptions::new().with_binarize(Binarize::Threshold);
        assert!(rate_distortion(&model, &loader, &binary, &device).is_ok());
    }

    #[test]
    fn variances_of_the_samples_are_refused() {
        let model = LinearGaussian::new(1.0, None).with_likelihood(LikelihoodKind::OptimalGaussian);
        let (loader, device) = (loader(&draw(4, 9), None, 2), Device::flex());
        let message = rate_distortion(&model, &loader, &EvaluationOptions::new(), &device)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("`likelihood` is optimal_gaussian"),
            "{message}"
        );
    }

    fn point(rate: f64, distortion: f64) -> RateDistortion {
        RateDistortion {
            rate,
            rate_standard_error: 0.1,
            distortion,
            distortion_standard_error: f64::NAN,
            group_rates: vec![rate],
            num_samples: 1,
            seed: 0,
            complete: true,
        }
    }

    #[test]
    fn curve_is_sorted_and_knows_the_best_model_of_a_weight() {
        let points = [
            (4.0, point(2.0, 20.0)),
            (1.0, point(9.0, 8.0)),
            (2.0, point(6.0, 16.0)),
        ];
        let curve = RateDistortionCurve::new(points).unwrap();
        let rates: Vec<f64> = curve.points().iter().map(|(_, point)| point.rate).collect();
        assert_eq!(rates, [2.0, 6.0, 9.0]);
        // Losses 22, 22, 17 for β = 1; 40, 76, 98 for β = 10. The middle one is never best.
        assert_eq!(curve.best(1.0).0, 1.0);
        assert_eq!(curve.best(10.0).0, 4.0);
        assert_eq!(curve.best(2.0).1.loss(2.0), 24.0);
        assert!(RateDistortionCurve::new([]).is_err());
        let negative = RateDistortionCurve::new([(-1.0, point(0.0, 1.0))]);
        assert!(negative.unwrap_err().to_string().contains("`beta` is -1"));
    }

    #[test]
    fn curve_of_models_keeps_their_weights() {
        let (samples, device) = (draw(20, 3), Device::flex());
        let models = [
            (1.0, LinearGaussian::new(1.0, None)),
            (3.0, LinearGaussian::new(2.0, None)),
        ];
        let loader = loader(&samples, None, 8);
        let list = || models.iter().map(|(beta, model)| (*beta, model));
        let options = EvaluationOptions::new();
        let curve = rate_distortion_curve(list(), &loader, &options, &device).unwrap();
        // The wider encoder has the smaller rate.
        let weights: Vec<f64> = curve.points().iter().map(|(beta, _)| *beta).collect();
        assert_eq!(weights, [3.0, 1.0]);
        let cancel = CancelToken::new();
        cancel.cancel();
        let options = EvaluationOptions::new().with_cancel(cancel);
        let error = rate_distortion_curve(list(), &loader, &options, &device).unwrap_err();
        assert!(matches!(error, Error::Cancelled { .. }), "{error}");
    }

    #[cfg(feature = "plot")]
    #[test]
    fn plot_names_every_model() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curve.svg");
        let points = [(4.0, point(2.0, 20.0)), (0.5, point(9.0, 8.0))];
        RateDistortionCurve::new(points)
            .unwrap()
            .save_plot(&path)
            .unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        for name in ["β = 4", "β = 0.5", "curve"] {
            assert!(svg.contains(name), "{name} is missing");
        }
    }
}
