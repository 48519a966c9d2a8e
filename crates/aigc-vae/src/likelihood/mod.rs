//! Likelihoods of samples: the distribution `p(x|z)` that a decoder outputs.
//!
//! | file | distributions |
//! |---|---|
//! | `bernoulli` | black and white pixels |
//! | `continuous_bernoulli` | values in `[0, 1]` |
//! | `gaussian` | normal distributions with a fixed, learned or optimal standard deviation |
//! | `logistic_mixture` | 256 levels per channel, as mixtures of logistic distributions |

mod bernoulli;
mod continuous_bernoulli;
mod gaussian;
mod logistic_mixture;

pub use logistic_mixture::LogisticMixture;

use aigc_core::{Error, Result, check, data::ValueRange, nn::Activation, rng::Rng};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Least standard deviation of a Gaussian; the inverse of its square is far below the largest
/// 32-bit number.
const MIN_STD: f64 = 1e-6;

/// Type of the distribution that a decoder outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LikelihoodKind {
    /// Independent Bernoulli distributions; each output is the logit of a white pixel. For values
    /// in `[0, 1]`.
    #[default]
    Bernoulli,
    /// Independent continuous Bernoulli distributions, which are densities over `[0, 1]`; each
    /// output is a logit (Loaiza-Ganem and Cunningham 2019, <https://arxiv.org/abs/1907.06845>).
    ContinuousBernoulli,
    /// Independent normal distributions with this standard deviation; each output is a mean.
    Gaussian(
        /// Standard deviation, 1e-6 or above, in the units of the data, `[0, 1]` for images.
        f64,
    ),
    /// Independent normal distributions; the decoder outputs the mean of every value, then the
    /// logarithm of the standard deviation of every value. The logarithm is clamped softly to
    /// `[−6, 4]`: standard deviations are from 0.0025 to 55, in the units of the data.
    LearnedGaussian,
    /// Independent normal distributions with one standard deviation for all values; each output is
    /// a mean. The standard deviation is the one under which the batch is most probable, which is
    /// the root mean squared error, and at least 0.0025 (σ-VAE, Rybkin et al. 2021,
    /// <https://arxiv.org/abs/2006.13202>).
    OptimalGaussian,
    /// Discretised mixtures of logistic distributions, for values in `[0, 1]` with 256 levels. The
    /// value of a channel is distributed around a mean that is linear in the values of the channels
    /// before it (PixelCNN++, Salimans et al. 2017, <https://arxiv.org/abs/1701.05517>, §2.1–2.2).
    LogisticMixture {
        /// Number of logistic distributions in a mixture, 1 to 100; the paper has 10.
        components: usize,
    },
}

impl LikelihoodKind {
    /// Number of output channels that a decoder needs for samples with `channels` channels.
    ///
    /// - learned Gaussian: `2·channels`;
    /// - mixture of logistics: `components·(channels + 1)·(channels + 2)/2`: 3 per component for
    ///   one channel, 10 for three;
    /// - others: `channels`.
    pub fn outputs(&self, channels: usize) -> usize {
        match *self {
            LikelihoodKind::Bernoulli
            | LikelihoodKind::ContinuousBernoulli
            | LikelihoodKind::Gaussian(_)
            | LikelihoodKind::OptimalGaussian => channels,
            LikelihoodKind::LearnedGaussian => channels.saturating_mul(2),
            LikelihoodKind::LogisticMixture { components } => {
                components.saturating_mul(logistic_mixture::outputs_per_component(channels))
            }
        }
    }

    /// Fails unless the standard deviation is finite and at least 1e-6, and the number of
    /// components is from 1 to 100.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field of `likelihood`.
    pub fn validate(&self) -> Result<()> {
        match *self {
            LikelihoodKind::Gaussian(std) => check::ensure(
                std >= MIN_STD && std.is_finite(),
                "likelihood.gaussian",
                std,
                "a finite number, 1e-6 or above",
            ),
            LikelihoodKind::LogisticMixture { components } => check::in_range(
                "likelihood.logistic_mixture.components",
                components,
                1..=logistic_mixture::MAX_COMPONENTS,
            ),
            LikelihoodKind::Bernoulli
            | LikelihoodKind::ContinuousBernoulli
            | LikelihoodKind::LearnedGaussian
            | LikelihoodKind::OptimalGaussian => Ok(()),
        }
    }
}

/// Fails unless `range` is the one that the distribution named `likelihood` is over.
fn check_unit(likelihood: &str, range: ValueRange) -> Result<()> {
    let values = match range {
        ValueRange::Unit => return Ok(()),
        ValueRange::Symmetric => "in [−1, 1]",
        ValueRange::Unbounded => "not bounded",
    };
    let expected = format!("a Gaussian: the values of the data are {values}, not in [0, 1]");
    Err(Error::config("likelihood", likelihood, expected))
}

/// The likelihood `p(x|z)` of a batch. `X` is the rank of a batch of samples. Given `z`, values are
/// independent, except the channels of a [`LogisticMixture`].
///
/// # Shapes
/// All tensors are `[batch, channels, …]`, in the shape of the samples.
// A batch has one; its size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Likelihood<const X: usize = 4> {
    /// Each pixel is white with probability `1 / (1 + e^−logit)`. The value of a grey pixel counts
    /// as its probability of being white, as is usual for MNIST.
    Bernoulli {
        /// Logits of white.
        logits: Tensor<X>,
    },
    /// Each value has a continuous Bernoulli distribution with parameter `λ = 1 / (1 + e^−logit)`.
    ContinuousBernoulli {
        /// Logits of `λ`.
        logits: Tensor<X>,
    },
    /// Each value is normally distributed around its mean.
    Gaussian {
        /// Means of the values.
        mean: Tensor<X>,
        /// Standard deviation, in the units of the data, `[0, 1]` for images.
        std: f64,
    },
    /// Each value is normally distributed with its own mean and standard deviation.
    LearnedGaussian {
        /// Means of the values.
        mean: Tensor<X>,
        /// Logarithms of the standard deviations.
        log_std: Tensor<X>,
    },
    /// Each value is normally distributed around its mean; the standard deviation is the one under
    /// which the samples given to [`log_prob`](Likelihood::log_prob) are most probable.
    OptimalGaussian {
        /// Means of the values.
        mean: Tensor<X>,
    },
    /// Each value has one of 256 levels, with the probabilities of a mixture of logistic
    /// distributions.
    LogisticMixture(Box<LogisticMixture<X>>),
}

impl<const X: usize> Likelihood<X> {
    /// The likelihood of type `kind` for the `output` of a decoder.
    ///
    /// # Shapes
    /// - output: `[batch, kind.outputs(channels), …]`. Of a learned Gaussian, first the means, then
    ///   the logarithms of the standard deviations; see [`LogisticMixture::new`] for the mixture.
    ///
    /// # Panics
    /// If the number of channels of `output` is not [`LikelihoodKind::outputs`] of any number of
    /// channels.
    pub fn new(kind: LikelihoodKind, output: Tensor<X>) -> Self {
        match kind {
            LikelihoodKind::Bernoulli => Likelihood::Bernoulli { logits: output },
            LikelihoodKind::ContinuousBernoulli => {
                Likelihood::ContinuousBernoulli { logits: output }
            }
            LikelihoodKind::Gaussian(std) => Likelihood::Gaussian { mean: output, std },
            LikelihoodKind::LearnedGaussian => {
                let (mean, log_std) = gaussian::split(output);
                Likelihood::LearnedGaussian { mean, log_std }
            }
            LikelihoodKind::OptimalGaussian => Likelihood::OptimalGaussian { mean: output },
            LikelihoodKind::LogisticMixture { components } => {
                Likelihood::LogisticMixture(Box::new(LogisticMixture::new(components, output)))
            }
        }
    }

    /// The log-likelihood `log p(x|z)` in nats. It is the logarithm of a probability for Bernoulli
    /// and the mixture of logistics, and of a density for the others.
    ///
    /// - Bernoulli: `Σ x·l − log(1 + eˡ)` for logits `l`, computed without overflow;
    /// - continuous Bernoulli: `Σ x·l − log(1 + eˡ) + log C(l)`, with `C` the normalising constant;
    /// - Gaussian: `−½ Σ (log 2πσ² + (x − μ)² / σ²)`; of the optimal Gaussian, `σ²` is the mean of
    ///   `(x − μ)²` over all values of the batch, so that the result for a sample depends on the
    ///   others. It is constant for the gradient, which is the same as through `σ`, because the
    ///   derivative with respect to `σ` is 0 there.
    /// - mixture of logistics: see [`LogisticMixture::log_prob`].
    ///
    /// # Shapes
    /// - x: `[batch, …]`; in `[0, 1]`, except for Gaussians
    /// - output: `[batch]`
    pub fn log_prob(&self, x: Tensor<X>) -> Tensor<1> {
        match self {
            Likelihood::Bernoulli { logits } => bernoulli::log_prob(logits.clone(), x),
            Likelihood::ContinuousBernoulli { logits } => {
                continuous_bernoulli::log_prob(logits.clone(), x)
            }
            Likelihood::Gaussian { mean, std } => gaussian::log_prob(mean.clone(), *std, x),
            Likelihood::LearnedGaussian { mean, log_std } => {
                gaussian::learned_log_prob(mean.clone(), log_std.clone(), x)
            }
            Likelihood::OptimalGaussian { mean } => gaussian::optimal_log_prob(mean.clone(), x),
            Likelihood::LogisticMixture(mixture) => mixture.log_prob(x),
        }
    }

    /// The mean of the distribution, `[batch, …]`; in `[0, 1]`, except for Gaussians. That of a
    /// mixture of logistics is [approximate](LogisticMixture::mean).
    pub fn mean(&self) -> Tensor<X> {
        match self {
            Likelihood::Bernoulli { logits } => bernoulli::mean(logits.clone()),
            Likelihood::ContinuousBernoulli { logits } => {
                continuous_bernoulli::mean(logits.clone())
            }
            Likelihood::Gaussian { mean, .. }
            | Likelihood::LearnedGaussian { mean, .. }
            | Likelihood::OptimalGaussian { mean } => mean.clone(),
            Likelihood::LogisticMixture(mixture) => mixture.mean(),
        }
    }

    /// The most probable sample, `[batch, …]`; for Bernoulli and continuous Bernoulli, pixels are
    /// black or white. That of a mixture of logistics is [approximate](LogisticMixture::mode).
    pub fn mode(&self) -> Tensor<X> {
        match self {
            // The density of a continuous Bernoulli distribution rises or falls everywhere.
            Likelihood::Bernoulli { logits } | Likelihood::ContinuousBernoulli { logits } => {
                bernoulli::mode(logits.clone())
            }
            Likelihood::Gaussian { mean, .. }
            | Likelihood::LearnedGaussian { mean, .. }
            | Likelihood::OptimalGaussian { mean } => mean.clone(),
            Likelihood::LogisticMixture(mixture) => mixture.mode(),
        }
    }

    /// Draws a sample, `[batch, …]`. The optimal Gaussian returns its mean, because its standard
    /// deviation is not known without data; [`fitted`](Self::fitted) gives a distribution with a
    /// known one.
    pub fn sample(&self, rng: &mut Rng) -> Tensor<X> {
        match self {
            Likelihood::Bernoulli { logits } => bernoulli::sample(logits.clone(), rng),
            Likelihood::ContinuousBernoulli { logits } => {
                continuous_bernoulli::sample(logits.clone(), rng)
            }
            Likelihood::Gaussian { mean, std } => {
                mean.clone() + rng.normal(mean.dims(), &mean.device()) * *std
            }
            Likelihood::LearnedGaussian { mean, log_std } => {
                mean.clone() + rng.normal(mean.dims(), &mean.device()) * log_std.clone().exp()
            }
            Likelihood::OptimalGaussian { mean } => mean.clone(),
            Likelihood::LogisticMixture(mixture) => mixture.sample(rng),
        }
    }

    /// The distribution with what it takes from the samples `x` fixed: an optimal Gaussian becomes
    /// a Gaussian with the standard deviation for `x`; others are unchanged.
    ///
    /// # Shapes
    /// - x: `[batch, …]`, the samples that the likelihood is of
    pub fn fitted(self, x: Tensor<X>) -> Self {
        match self {
            Likelihood::OptimalGaussian { mean } => {
                let log_std = gaussian::optimal_log_std(mean.clone(), x);
                let log_std = log_std.reshape::<X, _>([1; X]).expand(mean.dims());
                Likelihood::LearnedGaussian { mean, log_std }
            }
            other => other,
        }
    }

    /// Fails if the distribution is over `[0, 1]` and the data are not.
    ///
    /// # Errors
    /// [`Error::Config`] naming `likelihood`.
    pub fn check_range(&self, range: ValueRange) -> Result<()> {
        match self {
            Likelihood::Bernoulli { .. } => check_unit("bernoulli", range),
            Likelihood::ContinuousBernoulli { .. } => check_unit("continuous_bernoulli", range),
            Likelihood::LogisticMixture(_) => check_unit("logistic_mixture", range),
            Likelihood::Gaussian { .. }
            | Likelihood::LearnedGaussian { .. }
            | Likelihood::OptimalGaussian { .. } => Ok(()),
        }
    }

    /// Fails for the optimal Gaussian, which takes its standard deviation from the samples: its
    /// value is no bound of `log p(x)`.
    pub(crate) fn check_fixed(&self) -> Result<()> {
        match self {
            Likelihood::OptimalGaussian { .. } => {
                let expected = "a likelihood that does not depend on the samples";
                Err(Error::config("likelihood", "optimal_gaussian", expected))
            }
            _ => Ok(()),
        }
    }
}

/// Sums over all axes but the first.
///
/// # Shapes
/// - output: `[batch]`
fn sum_values<const D: usize>(terms: Tensor<D>) -> Tensor<1> {
    terms.flatten::<2>(1, D - 1).sum_dim(1).squeeze_dim(1)
}

/// `ln(1 + eˣ)`.
fn softplus<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Activation::Softplus.forward(x)
}

/// Clamps to `[min, max]` with a gradient everywhere (Chua et al. 2018,
/// <https://arxiv.org/abs/1805.12114>, app. A.1). From `min + 3` to `max − 3`, it is close to the
/// identity. Values may lie below `min` by `ln(1 + e^−(max − min))`.
fn soft_clamp<const D: usize>(x: Tensor<D>, [min, max]: [f64; 2]) -> Tensor<D> {
    let above = softplus(x - min) + min;
    -softplus(-above + max) + max
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::values;
    use burn::tensor::Device;
    use serde_json::{from_value, json, to_value};

    const KINDS: [LikelihoodKind; 6] = [
        LikelihoodKind::Bernoulli,
        LikelihoodKind::ContinuousBernoulli,
        LikelihoodKind::Gaussian(0.1),
        LikelihoodKind::LearnedGaussian,
        LikelihoodKind::OptimalGaussian,
        LikelihoodKind::LogisticMixture { components: 2 },
    ];

    #[test]
    fn kinds_are_read_and_written_as_json() {
        let files = [
            json!("bernoulli"),
            json!("continuous_bernoulli"),
            json!({"gaussian": 0.1}),
            json!("learned_gaussian"),
            json!("optimal_gaussian"),
            json!({"logistic_mixture": {"components": 2}}),
        ];
        for (kind, file) in KINDS.into_iter().zip(files) {
            assert_eq!(to_value(kind).unwrap(), file);
            assert_eq!(from_value::<LikelihoodKind>(file).unwrap(), kind);
        }
    }

    #[test]
    fn kinds_out_of_range_are_refused_by_field() {
        let mixture = |components| LikelihoodKind::LogisticMixture { components };
        for (kind, expected) in [
            (LikelihoodKind::Gaussian(0.0), "`likelihood.gaussian` is 0"),
            (
                LikelihoodKind::Gaussian(1e-7),
                "expected a finite number, 1e-6",
            ),
            (LikelihoodKind::Gaussian(f64::NAN), "`likelihood.gaussian`"),
            (mixture(0), "`likelihood.logistic_mixture.components` is 0"),
            (mixture(101), "expected 1 to 100"),
        ] {
            let message = kind.validate().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        for kind in KINDS {
            kind.validate().unwrap();
        }
    }

    #[test]
    fn distributions_over_the_unit_interval_refuse_other_ranges() {
        let device = Device::flex();
        for kind in KINDS {
            let output = Tensor::<2>::zeros([1, kind.outputs(1)], &device);
            let likelihood = Likelihood::new(kind, output);
            let gaussian = matches!(
                kind,
                LikelihoodKind::Gaussian(_)
                    | LikelihoodKind::LearnedGaussian
                    | LikelihoodKind::OptimalGaussian
            );
            for (range, fits) in [
                (ValueRange::Unit, true),
                (ValueRange::Symmetric, gaussian),
                (ValueRange::Unbounded, gaussian),
            ] {
                let found = likelihood.check_range(range).is_ok();
                assert_eq!(found, fits, "{kind:?} {range:?}");
            }
        }
        let bernoulli = Likelihood::new(
            LikelihoodKind::Bernoulli,
            Tensor::<2>::zeros([1, 1], &device),
        );
        let refused = bernoulli.check_range(ValueRange::Symmetric).unwrap_err();
        let message = refused.to_string();
        assert!(
            message.contains("`likelihood` is bernoulli") && message.contains("in [−1, 1]"),
            "{message}"
        );
    }

    /// All results have the shape of the samples, for points, sound, images and video.
    #[test]
    fn results_have_the_shape_of_the_samples() {
        fn check<const X: usize>(shape: [usize; X]) {
            let device = Device::flex();
            for kind in KINDS {
                let mut outputs = shape;
                outputs[1] = kind.outputs(shape[1]);
                let mut rng = Rng::new(4);
                let likelihood = Likelihood::new(kind, rng.normal(outputs, &device));
                let x = likelihood.sample(&mut rng);
                for result in [x.clone(), likelihood.mean(), likelihood.mode()] {
                    assert_eq!(result.dims(), shape, "{kind:?}");
                }
                let log_prob = values(likelihood.log_prob(x));
                assert_eq!(log_prob.len(), shape[0], "{kind:?}");
                assert!(log_prob.iter().all(|p| p.is_finite()), "{kind:?}");
            }
        }
        check([2, 3]);
        check([2, 1, 5]);
        check([2, 3, 4, 5]);
        check([1, 2, 2, 3, 4]);
    }

    #[test]
    fn soft_clamp_is_monotone_and_bounded() {
        let device = Device::flex();
        let x = [-1e30f32, -50.0, -3.0, 0.0, 1.0, 2.0, 50.0, 1e30];
        let clamped = values(soft_clamp(
            Tensor::<1>::from_floats(x, &device),
            [-6.0, 4.0],
        ));
        assert!(clamped.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!((clamped[0] + 6.0).abs() < 1e-4 && (clamped[7] - 4.0).abs() < 1e-6);
        // The upper bend at 1 is ln(1 + e^−3).
        for (x, clamped) in x.iter().zip(&clamped).filter(|(x, _)| x.abs() < 1.5) {
            assert!((x - clamped).abs() < 0.06, "{x} {clamped}");
        }
    }
}
