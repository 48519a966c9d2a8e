//! The log-likelihood of samples by importance sampling.

use super::{EvaluationOptions, Part, first_likelihood, host, mean_and_error, not_empty};
use crate::Vae;
use aigc_core::{
    Error, Result,
    data::{DataLoader, ImageBatch, SampleBatch},
    rng::Rng,
};
use burn::tensor::Device;
use std::{f64::consts::LN_2, fmt, ops::ControlFlow};

/// Options of [`log_likelihood`](log_likelihood()); `B` is the type of the batches.
pub struct LogLikelihoodOptions<'a, B = ImageBatch> {
    /// Number of latents drawn for each sample, `k`.
    pub importance_samples: usize,
    /// Seed, binarisation, rows per pass, conditions, cancellation and progress.
    pub evaluation: EvaluationOptions<'a, B>,
}

impl<B> Clone for LogLikelihoodOptions<'_, B> {
    fn clone(&self) -> Self {
        Self {
            importance_samples: self.importance_samples,
            evaluation: self.evaluation.clone(),
        }
    }
}

impl<B> fmt::Debug for LogLikelihoodOptions<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLikelihoodOptions")
            .field("importance_samples", &self.importance_samples)
            .field("evaluation", &self.evaluation)
            .finish()
    }
}

impl<B> Default for LogLikelihoodOptions<'_, B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, B> LogLikelihoodOptions<'a, B> {
    /// 5,000 latents for each sample, as in Burda et al. 2016, and the options of
    /// [`EvaluationOptions::new`].
    pub fn new() -> Self {
        Self {
            importance_samples: 5000,
            evaluation: EvaluationOptions::new(),
        }
    }

    /// Sets the number of latents drawn for each sample.
    pub fn with_importance_samples(mut self, importance_samples: usize) -> Self {
        self.importance_samples = importance_samples;
        self
    }

    /// Sets the options that all evaluations have.
    pub fn with_evaluation(mut self, evaluation: EvaluationOptions<'a, B>) -> Self {
        self.evaluation = evaluation;
        self
    }
}

/// Result of [`log_likelihood`](log_likelihood()).
#[derive(Clone, Debug, PartialEq)]
pub struct LogLikelihood {
    /// Mean of the estimates of `log p(x)` over the samples, in nats.
    pub mean: f64,
    /// Standard error of the mean over the samples, in nats; NaN for a single sample.
    pub standard_error: f64,
    /// `−mean / (values of a sample · ln 2)`. For a density over values in `[0, 1]`, such as that
    /// of a Gaussian likelihood, add 8 to compare with models of 256 levels.
    pub bits_per_dim: f64,
    /// Mean over the samples of the effective number of importance samples (Kong 1992), `(Σ w)² /
    /// Σ w²`. A number close to 1 means that one of the latents has all the weight, and that the
    /// estimates are far below `log p(x)`. Of a deterministic posterior it is always 1, and says
    /// nothing.
    pub mean_effective_sample_size: f64,
    /// Smallest effective number of importance samples.
    pub min_effective_sample_size: f64,
    /// Number of latents drawn for each sample, `k`; 1 if the posterior is deterministic.
    pub importance_samples: usize,
    /// Seed of the latents.
    pub seed: u64,
    /// Whether all samples of the loader were evaluated.
    pub complete: bool,
    /// The estimate for each evaluated sample in the order of the data set, in nats.
    pub values: Vec<f64>,
    /// Effective number of importance samples for each evaluated sample.
    pub effective_sample_sizes: Vec<f64>,
}

impl std::fmt::Display for LogLikelihood {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "log p(x) {:.3} ± {:.3} nats, {:.4} bits per dimension; {} samples, {} latents each, \
             of which {:.1} effective (least {:.1})",
            self.mean,
            self.standard_error,
            self.bits_per_dim,
            self.values.len(),
            self.importance_samples,
            self.mean_effective_sample_size,
            self.min_effective_sample_size,
        )
    }
}

/// Estimates `log p(x)` of every sample of `loader` from `k` latents of its posterior, by `log 1/k
/// Σ w` with the importance weights `w = p(x|z)·p(z) / q(z|x)` ([`Vae::log_weights`]; Burda et al.
/// 2016, <https://arxiv.org/abs/1509.00519>, eq. 8).
///
/// The estimate for `k = 1` is the ELBO with one draw. In the mean it is a lower bound of
/// `log p(x)` for every `k`, rises with `k`, and converges to `log p(x)`; its distance is about
/// `(k/n − 1) / 2k` for an effective number `n` of importance samples.
///
/// Weights are summed in 64 bits in one pass, so the memory does not grow with `k`. The results are
/// the same for the same seed, batch size of the loader and largest number of rows. A conditional
/// model is evaluated with the labels of the batches, and what
/// [`EvaluationOptions::with_condition`] returns for them.
///
/// The latents of a [deterministic posterior](Vae::has_deterministic_posterior) are the same in
/// every draw: they are decoded once, and the estimate is `log p(x|z) + log p(z)`, a lower bound of
/// `log p(x)` for discrete latents.
///
/// # Errors
/// [`Error::InvalidArgument`] if there are no importance samples or no rows per pass;
/// [`Error::Config`] if the samples do not have the shape of the model's samples or the range of
/// its likelihood, or no condition for a conditional model, or if the likelihood is the optimal
/// Gaussian, which takes its variance from the samples; [`Error::Cancelled`] if stopped before the
/// first samples were evaluated; errors of the loader.
pub fn log_likelihood<V, B, const X: usize, const Z: usize>(
    model: &V,
    loader: &DataLoader<B>,
    options: &LogLikelihoodOptions<'_, B>,
    device: &Device,
) -> Result<LogLikelihood>
where
    V: Vae<X, Z>,
    B: SampleBatch<X>,
{
    let (k, evaluation) = (options.importance_samples, &options.evaluation);
    if k == 0 {
        return Err(Error::argument("importance_samples", k, "at least 1"));
    }
    let k = match model.has_deterministic_posterior() {
        true => 1,
        false => k,
    };
    let (mut values, mut sizes) = (Vec::new(), Vec::new());
    let complete = evaluation.for_each_part(model, loader, device, |part: Part<X>| {
        let count = part.x.dims()[0];
        let mut rng = Rng::stream(evaluation.seed, "log-likelihood", part.first as u64);
        let posterior = model.encode_with(part.x.clone(), &part.condition);
        if part.first == 0 {
            first_likelihood(model, &posterior, &part)?.check_fixed()?;
        }
        let mut sums = vec![WeightSum::default(); count];
        let mut drawn = 0;
        while drawn < k {
            let chunk = (evaluation.max_rows() / count).min(k - drawn);
            let (x, condition) = (part.x.clone(), &part.condition);
            let weights = host(model.log_weights(&posterior, x, condition, chunk, &mut rng));
            for (sum, weights) in sums.iter_mut().zip(weights.chunks_exact(chunk)) {
                weights.iter().for_each(|weight| sum.add(*weight));
            }
            drawn += chunk;
            if drawn < k && evaluation.report(part.first, part.total).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        values.extend(sums.iter().map(|sum| sum.log_mean(k)));
        sizes.extend(sums.iter().map(WeightSum::effective_sample_size));
        Ok(ControlFlow::Continue(()))
    })?;
    not_empty(&values, "log-likelihood")?;
    let (mean, standard_error) = mean_and_error(&values);
    Ok(LogLikelihood {
        mean,
        standard_error,
        bits_per_dim: -mean / (model.sample_shape().numel() as f64 * LN_2),
        mean_effective_sample_size: sizes.iter().sum::<f64>() / sizes.len() as f64,
        min_effective_sample_size: sizes.iter().copied().fold(f64::INFINITY, f64::min),
        importance_samples: k,
        seed: evaluation.seed,
        complete,
        values,
        effective_sample_sizes: sizes,
    })
}

/// Sums of weights that are given by their logarithms, without overflow. A NaN among the weights
/// makes the sums NaN.
#[derive(Clone, Copy, Debug)]
struct WeightSum {
    /// The largest logarithm.
    max: f64,
    /// `Σ w / e^max`.
    sum: f64,
    /// `Σ (w / e^max)²`.
    squares: f64,
}

impl Default for WeightSum {
    fn default() -> Self {
        Self {
            max: f64::NEG_INFINITY,
            sum: 0.0,
            squares: 0.0,
        }
    }
}

impl WeightSum {
    fn add(&mut self, log_weight: f64) {
        if log_weight == f64::NEG_INFINITY {
            return;
        }
        if log_weight > self.max {
            let scale = (self.max - log_weight).exp();
            self.sum *= scale;
            self.squares *= scale * scale;
            self.max = log_weight;
        }
        let weight = (log_weight - self.max).exp();
        self.sum += weight;
        self.squares += weight * weight;
    }

    /// The logarithm of the mean of `k` weights.
    fn log_mean(&self, k: usize) -> f64 {
        self.max + self.sum.ln() - (k as f64).ln()
    }

    fn effective_sample_size(&self) -> f64 {
        if self.sum == 0.0 {
            return 0.0;
        }
        self.sum * self.sum / self.squares
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        Condition, ConditionKind, Likelihood, LikelihoodKind, VqVaeConfig,
        evaluate::testing::{LinearGaussian, NORMS, STD, Values, draw, loader, log_prob},
    };
    use aigc_core::{
        CancelToken,
        data::{Binarize, ImageShape, SampleShape},
        encoder::Deterministic,
    };
    use burn::{
        module::Module,
        tensor::{Tensor, TensorData},
    };

    /// Variance of `p(z|x) / q(z)` for an encoder with variances `v` times those of the posterior.
    fn variance_of_ratio(v: f64) -> f64 {
        (v / (2.0 * v - 1.0).sqrt()).powi(NORMS.len() as i32) - 1.0
    }

    fn options<'a>(k: usize) -> LogLikelihoodOptions<'a, Values> {
        LogLikelihoodOptions::new().with_importance_samples(k)
    }

    #[test]
    fn weight_sum_matches_direct_sums_and_does_not_overflow() {
        let logs = [-3.0, f64::NEG_INFINITY, 2.0, 0.5, -1.0];
        for shift in [0.0, 2000.0, -2000.0] {
            let mut sum = WeightSum::default();
            logs.iter().for_each(|log| sum.add(log + shift));
            let direct = |power: i32| logs.iter().map(|log| log.exp().powi(power)).sum::<f64>();
            assert!((sum.log_mean(5) - shift - (direct(1) / 5.0).ln()).abs() < 1e-9);
            let size = direct(1).powi(2) / direct(2);
            assert!((sum.effective_sample_size() - size).abs() < 1e-9);
        }
        let mut none = WeightSum::default();
        none.add(f64::NEG_INFINITY);
        assert_eq!(none.log_mean(1), f64::NEG_INFINITY);
        assert_eq!(none.effective_sample_size(), 0.0);
        none.add(f64::NAN);
        assert!(none.log_mean(2).is_nan());
    }

    /// Under the exact posterior all weights are `p(x)`.
    #[test]
    fn exact_posterior_gives_the_log_likelihood_with_any_number_of_latents() {
        let (model, samples) = (LinearGaussian::new(1.0, None), draw(10, 1));
        let loader = loader(&samples, None, 4);
        for k in [1, 3] {
            let found = log_likelihood(&model, &loader, &options(k), &Device::flex()).unwrap();
            for (value, x) in found.values.iter().zip(&samples) {
                assert!(
                    (value - log_prob(x)).abs() < 1e-4,
                    "{value} {}",
                    log_prob(x)
                );
            }
            for size in &found.effective_sample_sizes {
                assert!((size - k as f64).abs() < 1e-3, "{size}");
            }
            let bits = -found.mean / (4.0 * LN_2);
            assert!((found.bits_per_dim - bits).abs() < 1e-12);
            assert!(found.complete && found.values.len() == 10);
        }
    }

    /// The mean over samples is within five standard deviations of the closed form, after its known
    /// bias of `−variance / 2k`.
    #[test]
    fn estimate_matches_closed_form_of_principal_components() {
        let (v, k, n) = (2.0, 500, 200);
        let (model, samples) = (LinearGaussian::new(v, None), draw(n, 2));
        let loader = loader(&samples, None, 64);
        let found = log_likelihood(&model, &loader, &options(k), &Device::flex()).unwrap();
        let exact = samples.iter().map(log_prob).sum::<f64>() / n as f64;
        let variance = variance_of_ratio(v);
        let deviation = (variance / (k * n) as f64).sqrt();
        let bias = -0.5 * variance / k as f64;
        let difference = found.mean - exact - bias;
        assert!(
            difference.abs() < 5.0 * deviation + 1e-4,
            "{found}: {exact}"
        );
        let share = found.mean_effective_sample_size / k as f64;
        assert!((share - 1.0 / (1.0 + variance)).abs() < 0.02, "{found}");
        assert!(found.min_effective_sample_size < found.mean_effective_sample_size);
    }

    /// ELBO ≤ estimate with k latents ≤ `log p(x)`, rising with k. The terms of the ELBO deviate by
    /// `√(3/2)·(v − 1)`.
    #[test]
    fn estimate_rises_from_elbo_to_log_likelihood() {
        let (v, n) = (2.0f64, 1000);
        let (model, samples) = (LinearGaussian::new(v, None), draw(n, 3));
        let loader = loader(&samples, None, 100);
        let exact = samples.iter().map(log_prob).sum::<f64>() / n as f64;
        let elbo = exact - 0.5 * NORMS.len() as f64 * (v - 1.0 - v.ln());
        let [one, four, hundred] = [1, 4, 100].map(|k| {
            let found = log_likelihood(&model, &loader, &options(k), &Device::flex());
            found.unwrap().mean
        });
        let error = 5.0 * 1.5f64.sqrt() * (v - 1.0) / (n as f64).sqrt();
        assert!((one - elbo).abs() < error, "{one} {elbo}");
        assert!(one < four && four < hundred, "{one} {four} {hundred}");
        let margin = 5.0 * (variance_of_ratio(v) / (100 * n) as f64).sqrt();
        assert!(hundred < exact + margin, "{hundred} {exact}");
    }

    #[test]
    fn passes_have_at_most_max_rows() {
        let samples = draw(10, 4);
        for (max_rows, expected) in [
            // One row to look at the likelihood. Then batches of 4, 4 and 2 samples: two latents
            // for each, or four.
            (9, vec![1, 8, 8, 4, 8, 8, 4, 8, 2]),
            (100, vec![1, 20, 20, 10]),
            // Parts of 3, 1, 3, 1 and 2 samples.
            (
                3,
                [[1].as_slice(), &[3; 5], &[3, 2], &[3; 5], &[3, 2], &[2; 5]].concat(),
            ),
        ] {
            let model = LinearGaussian::new(2.0, None);
            let evaluation = EvaluationOptions::new().with_max_rows(max_rows);
            let options = options(5).with_evaluation(evaluation);
            let loader = loader(&samples, None, 4);
            log_likelihood(&model, &loader, &options, &Device::flex()).unwrap();
            assert_eq!(model.rows(), expected, "{max_rows}");
        }
    }

    /// Samples shifted by their class have the likelihood of the samples without the shift, whether
    /// batches are divided or not.
    #[test]
    fn conditional_model_is_evaluated_with_its_labels() {
        let samples = draw(7, 5);
        let classes: [u32; 7] = [0, 3, 1, 2, 0, 1, 3];
        let shifted: Vec<_> = (samples.iter().zip(classes))
            .map(|(x, class)| x.map(|x| x + class as f32))
            .collect();
        let model = LinearGaussian::new(1.0, Some(4));
        for max_rows in [2, 100] {
            let evaluation = EvaluationOptions::new().with_max_rows(max_rows);
            let options = options(3).with_evaluation(evaluation);
            let loader = loader(&shifted, Some(&classes), 5);
            let found = log_likelihood(&model, &loader, &options, &Device::flex()).unwrap();
            for (value, x) in found.values.iter().zip(&samples) {
                assert!(
                    (value - log_prob(x)).abs() < 1e-4,
                    "{value} {}",
                    log_prob(x)
                );
            }
        }
        let unlabelled = loader(&shifted, None, 5);
        let error = log_likelihood(&model, &unlabelled, &options(1), &Device::flex());
        let message = error.unwrap_err().to_string();
        assert!(message.contains("`labels` is missing"), "{message}");
        let unknown = loader(&shifted, Some(&[0, 3, 1, 2, 4, 1, 3]), 5);
        let error = log_likelihood(&model, &unknown, &options(1), &Device::flex());
        let message = error.unwrap_err().to_string();
        assert!(
            message.contains("`labels` is 4, expected below 4"),
            "{message}"
        );
    }

    /// A principal-component model whose samples are shifted by the sum of the condition's vector.
    #[derive(Module, Debug)]
    struct Shifted {
        model: LinearGaussian,
    }

    impl Shifted {
        fn shift(condition: &Condition) -> Tensor<2> {
            let vectors = condition.vectors.clone().expect("vectors of the batch");
            vectors.sum_dim(1)
        }
    }

    impl Vae<2, 2> for Shifted {
        type Posterior = crate::DiagonalGaussian;

        fn encode(&self, _: Tensor<2>) -> Self::Posterior {
            unreachable!("the condition is passed on")
        }

        fn decode(&self, _: Tensor<2>) -> Likelihood<2> {
            unreachable!("the condition is passed on")
        }

        fn latent_shape(&self) -> SampleShape {
            self.model.latent_shape()
        }

        fn sample_shape(&self) -> SampleShape {
            self.model.sample_shape()
        }

        fn condition_kind(&self) -> ConditionKind {
            ConditionKind {
                vector_dim: Some(2),
                ..ConditionKind::default()
            }
        }

        fn encode_with(&self, x: Tensor<2>, condition: &Condition) -> Self::Posterior {
            self.model.encode(x - Self::shift(condition))
        }

        fn decode_with(&self, z: Tensor<2>, condition: &Condition) -> Likelihood<2> {
            let mean = self.model.decode(z).mean() + Self::shift(condition);
            Likelihood::new(LikelihoodKind::Gaussian(STD), mean)
        }
    }

    /// Batches are conditioned on what the function returns for them, also in parts.
    #[test]
    fn conditions_of_batches_are_those_of_the_function() {
        let samples = draw(7, 5);
        // The sum of the vector is the least value of the sample.
        let least = |x: &[f32; 4]| x.iter().copied().fold(f32::INFINITY, f32::min);
        let vectors = move |batch: &Values, device: &Device| {
            let x: Tensor<2> = batch.to_tensor(device);
            let least = x.min_dim(1);
            Ok(Condition::vectors(Tensor::cat(
                vec![least.clone() * 0.25, least * 0.75],
                1,
            )))
        };
        let model = Shifted {
            model: LinearGaussian::new(1.0, None),
        };
        let device = Device::flex();
        for max_rows in [2, 100] {
            let evaluation = EvaluationOptions::new()
                .with_max_rows(max_rows)
                .with_condition(vectors);
            let options = options(3).with_evaluation(evaluation);
            let found = log_likelihood(&model, &loader(&samples, None, 5), &options, &device);
            for (value, x) in found.unwrap().values.iter().zip(&samples) {
                let shifted = x.map(|value| value - least(x));
                let expected = log_prob(&shifted);
                assert!((value - expected).abs() < 1e-3, "{value} {expected}");
            }
        }
        let error = log_likelihood(&model, &loader(&samples, None, 5), &options(1), &device);
        let message = error.unwrap_err().to_string();
        assert!(
            message.contains("`vectors` is missing, expected of width 2: call `with_condition`"),
            "{message}"
        );
    }

    /// The latents are the first values of a sample, without uncertainty.
    #[derive(Module, Debug)]
    struct FirstValues {
        model: LinearGaussian,
    }

    impl Vae<2, 2> for FirstValues {
        type Posterior = Deterministic<2>;

        fn encode(&self, x: Tensor<2>) -> Deterministic<2> {
            Deterministic(x.narrow(1, 0, NORMS.len()))
        }

        fn decode(&self, z: Tensor<2>) -> Likelihood<2> {
            self.model.decode(z)
        }

        fn latent_shape(&self) -> SampleShape {
            self.model.latent_shape()
        }

        fn sample_shape(&self) -> SampleShape {
            self.model.sample_shape()
        }

        fn has_deterministic_posterior(&self) -> bool {
            true
        }
    }

    /// A deterministic posterior is decoded once, whatever the number of importance samples.
    #[test]
    fn deterministic_latents_are_decoded_once() {
        let (samples, device) = (draw(10, 4), Device::flex());
        let model = FirstValues {
            model: LinearGaussian::new(1.0, None),
        };
        let loader = loader(&samples, None, 4);
        let found = log_likelihood(&model, &loader, &options(5000), &device).unwrap();
        // One row to look at the likelihood.
        assert_eq!(model.model.rows(), [1, 4, 4, 2]);
        assert_eq!(found.importance_samples, 1);
        assert!(found.effective_sample_sizes.iter().all(|size| *size == 1.0));
        let x = TensorData::new(samples.concat(), [10, 4]);
        let x = Tensor::<2>::from_data(x, &device);
        let z = model.encode(x.clone()).0;
        let log_p = model.decode(z.clone()).log_prob(x);
        let expected = host(log_p + model.prior_log_prob(z, &Condition::none()));
        for (value, expected) in found.values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-4, "{value} {expected}");
        }
        let quantised = VqVaeConfig::new(ImageShape::new(1, 8, 8)).init(&device);
        assert!(quantised.unwrap().has_deterministic_posterior());
        assert!(!model.model.has_deterministic_posterior());
    }

    #[test]
    fn samples_are_binarised_before_they_are_evaluated() {
        let samples = draw(9, 6);
        let threshold = |x: f32| if x >= 0.5 { 1.0 } else { 0.0 };
        let binary: Vec<_> = samples.iter().map(|x| x.map(threshold)).collect();
        let model = LinearGaussian::new(2.0, None);
        let evaluation = EvaluationOptions::new().with_binarize(Binarize::Threshold);
        let options = options(2).with_evaluation(evaluation);
        let values = |samples: &[[f32; 4]], options: &LogLikelihoodOptions<'_, Values>| {
            let loader = loader(samples, None, 4);
            let found = log_likelihood(&model, &loader, options, &Device::flex());
            found.unwrap().values
        };
        assert_eq!(
            values(&samples, &options),
            values(&binary, &self::options(2))
        );
    }

    #[test]
    fn stopped_evaluation_keeps_the_samples_evaluated_so_far() {
        let (model, device) = (LinearGaussian::new(2.0, None), Device::flex());
        let loader = loader(&draw(10, 7), None, 4);
        let mut reports = Vec::new();
        let all = log_likelihood(
            &model,
            &loader,
            &options(5).with_evaluation(EvaluationOptions::new().with_max_rows(12).with_callback(
                |progress| {
                    reports.push((progress.done, progress.total));
                    ControlFlow::Continue(())
                },
            )),
            &device,
        )
        .unwrap();
        let counts: Vec<usize> = reports.iter().map(|report| report.0).collect();
        assert_eq!(counts, [0, 4, 4, 8, 10]);
        assert!(reports.iter().all(|report| report.1 == 10));
        let stopping = EvaluationOptions::new()
            .with_max_rows(12)
            .with_callback(|progress| match progress.done {
                4.. => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            });
        let options = options(5).with_evaluation(stopping);
        let part = log_likelihood(&model, &loader, &options, &device).unwrap();
        assert!(all.complete && !part.complete);
        assert_eq!(part.values, all.values[..4]);
        let cancel = CancelToken::new();
        cancel.cancel();
        let cancelled = EvaluationOptions::new().with_cancel(cancel);
        let options = self::options(5).with_evaluation(cancelled);
        let error = log_likelihood(&model, &loader, &options, &device).unwrap_err();
        assert!(matches!(error, Error::Cancelled { .. }), "{error}");
    }

    #[test]
    fn likelihoods_that_do_not_fit_the_samples_are_errors() {
        let (loader, device) = (loader(&draw(3, 9), None, 2), Device::flex());
        let message = |kind| {
            let model = LinearGaussian::new(1.0, None).with_likelihood(kind);
            let error = log_likelihood(&model, &loader, &options(2), &device);
            error.unwrap_err().to_string()
        };
        let bernoulli = message(LikelihoodKind::Bernoulli);
        assert!(
            bernoulli.contains("`likelihood` is bernoulli"),
            "{bernoulli}"
        );
        let optimal = message(LikelihoodKind::OptimalGaussian);
        assert!(
            optimal.contains("`likelihood` is optimal_gaussian"),
            "{optimal}"
        );
    }

    #[test]
    fn invalid_options_are_errors() {
        let (model, device) = (LinearGaussian::new(1.0, None), Device::flex());
        let loader = loader(&draw(2, 8), None, 2);
        let message = |options: LogLikelihoodOptions<'_, Values>| {
            let error = log_likelihood(&model, &loader, &options, &device);
            error.unwrap_err().to_string()
        };
        assert!(message(options(0)).contains("`importance_samples` is 0, expected at least 1"));
        let no_rows = EvaluationOptions::new().with_max_rows(0);
        let found = message(options(1).with_evaluation(no_rows));
        assert!(found.contains("`max_rows` is 0, expected at least 1"));
    }
}
