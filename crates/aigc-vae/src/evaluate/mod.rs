//! Evaluation of trained models on a data set.
//!
//! | item | what it estimates |
//! |---|---|
//! | [`log_likelihood()`] | `log p(x)` by importance sampling |
//! | [`rate_distortion`], [`rate_distortion_curve()`] | the two terms of the bound, over models |
//! | [`active_units()`] | the latent dimensions that depend on the samples |
//! | [`posterior_collapse()`] | the latent dimensions whose posterior is the prior |
//!
//! All means are over samples in 64 bits, read in one pass in the order of the data set. Pass
//! models without autodiff ([`Module::valid`](burn::module::Module::valid)): they need less memory.

mod active_units;
mod log_likelihood;
mod rate_distortion;

pub use active_units::{ActiveUnits, PosteriorCollapse, active_units, posterior_collapse};
pub use log_likelihood::{LogLikelihood, LogLikelihoodOptions, log_likelihood};
pub use rate_distortion::{
    RateDistortion, RateDistortionCurve, rate_distortion, rate_distortion_curve,
};

use crate::{
    Condition, Likelihood, Posterior, Vae, check_batch,
    condition::{BatchCondition, condition_method},
};
use aigc_core::{
    CancelToken, Error, Result,
    data::{Binarize, DataLoader, ImageBatch, SampleBatch, ValueRange},
    sampling::{BatchProgress, SamplingOptions},
};
use burn::tensor::{Device, Tensor};
use std::{fmt, ops::ControlFlow};

/// Options that all evaluations have; `B` is the type of the batches.
pub struct EvaluationOptions<'a, B = ImageBatch> {
    /// Seed of the latents and of binary images.
    pub seed: u64,
    /// Whether the samples are binarised, with the draws of
    /// [`Binarized`](aigc_core::data::Binarized) outside training.
    pub binarize: Binarize,
    /// The rows per pass, cancellation and progress.
    passes: SamplingOptions<'a, BatchProgress>,
    condition: BatchCondition<B>,
}

impl<B> Clone for EvaluationOptions<'_, B> {
    fn clone(&self) -> Self {
        Self {
            seed: self.seed,
            binarize: self.binarize,
            passes: self.passes.clone(),
            condition: self.condition.clone(),
        }
    }
}

impl<B> fmt::Debug for EvaluationOptions<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EvaluationOptions")
            .field("seed", &self.seed)
            .field("binarize", &self.binarize)
            .field("passes", &self.passes)
            .field("condition", &self.condition)
            .finish()
    }
}

impl<B> Default for EvaluationOptions<'_, B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, B> EvaluationOptions<'a, B> {
    /// Seed 0, samples as they are, at most 1,024 rows per pass.
    pub fn new() -> Self {
        Self {
            seed: 0,
            binarize: Binarize::None,
            passes: SamplingOptions::new(1024),
            condition: BatchCondition::default(),
        }
    }

    /// Sets the seed.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets whether the samples are binarised.
    pub fn with_binarize(mut self, binarize: Binarize) -> Self {
        self.binarize = binarize;
        self
    }

    /// Sets the largest number of rows in a pass of the network: samples, times the latents drawn
    /// for each. It limits the memory; batches of the loader that are larger are divided.
    pub fn with_max_rows(mut self, max_rows: usize) -> Self {
        self.passes.batch_size = max_rows;
        self
    }

    condition_method!();

    /// Stops between two passes once `cancel` is cancelled.
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.passes.cancel = cancel;
        self
    }

    /// Calls `callback` after each pass with the number of samples evaluated to the end;
    /// `ControlFlow::Break` stops the evaluation.
    pub fn with_callback(
        mut self,
        callback: impl FnMut(&BatchProgress) -> ControlFlow<()> + 'a,
    ) -> Self {
        self.passes = self.passes.on_progress(callback);
        self
    }

    /// Largest number of rows in a pass.
    fn max_rows(&self) -> usize {
        self.passes.batch_size
    }

    /// Reports the number of samples evaluated; returns whether to continue.
    fn report(&self, done: usize, total: usize) -> ControlFlow<()> {
        self.passes.report(&BatchProgress { done, total })
    }

    /// Calls `evaluate` with the samples of the loader, at most [`max_rows`](Self::max_rows) at a
    /// time, until it or the callback stops; returns whether all samples were evaluated.
    fn for_each_part<V, const X: usize, const Z: usize>(
        &self,
        model: &V,
        loader: &DataLoader<B>,
        device: &Device,
        mut evaluate: impl FnMut(Part<X>) -> Result<ControlFlow<()>>,
    ) -> Result<bool>
    where
        V: Vae<X, Z>,
        B: SampleBatch<X>,
    {
        if self.max_rows() == 0 {
            return Err(Error::argument("max_rows", 0, "at least 1"));
        }
        let (total, mut done) = (loader.num_items(), 0);
        for batch in loader.iter_once() {
            let batch = batch?;
            check_batch(model, &batch)?;
            let condition = self.condition.of(model.condition_kind(), &batch, device)?;
            let x = self
                .binarize
                .apply(batch.to_tensor(device), done, self.seed);
            let range = match self.binarize {
                Binarize::None => batch.value_range(),
                _ => ValueRange::Unit,
            };
            let count = x.dims()[0];
            for start in (0..count).step_by(self.max_rows()) {
                if self.passes.cancel.is_cancelled() {
                    return Ok(false);
                }
                let length = self.max_rows().min(count - start);
                let part = Part {
                    first: done,
                    total,
                    x: x.clone().narrow(0, start, length),
                    condition: condition.narrow(start, length),
                    range,
                };
                if evaluate(part)?.is_break() {
                    return Ok(false);
                }
                done += length;
                if self.report(done, total).is_break() {
                    return Ok(done == total);
                }
            }
        }
        Ok(true)
    }
}

/// Samples that are evaluated together.
struct Part<const X: usize> {
    /// Index of the first sample in the data set.
    first: usize,
    /// Number of samples in the data set.
    total: usize,
    /// The samples, `[samples, …]`.
    x: Tensor<X>,
    /// Their conditions.
    condition: Condition,
    /// The range of their values.
    range: ValueRange,
}

/// The likelihood of the first sample of a part, at the mode of its posterior: that of a small
/// pass. Fails unless it is one of values in the range of the samples.
fn first_likelihood<V, const X: usize, const Z: usize>(
    model: &V,
    posterior: &V::Posterior,
    part: &Part<X>,
) -> Result<Likelihood<X>>
where
    V: Vae<X, Z>,
{
    let first = posterior.mode().narrow(0, 0, 1);
    let likelihood = model.decode_with(first, &part.condition.narrow(0, 1));
    likelihood.check_range(part.range)?;
    Ok(likelihood)
}

/// Mean of independent values and its standard error, which is NaN for fewer than two values.
fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0) / n).sqrt())
}

/// The values of a tensor in 64 bits, last axis fastest.
fn host<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    x.into_data().iter::<f64>().collect()
}

/// Fails if an evaluation was stopped before the first sample.
fn not_empty<T>(values: &[T], operation: &str) -> Result<()> {
    match values.is_empty() {
        true => Err(Error::cancelled(operation)),
        false => Ok(()),
    }
}

#[cfg(all(test, feature = "flex"))]
mod testing {
    //! A model whose likelihood and posterior are known in closed form.

    use crate::{Condition, ConditionKind, DiagonalGaussian, Likelihood, LikelihoodKind, Vae};
    use aigc_core::{
        data::{DataLoader, DataLoaderConfig, InMemory, SampleBatch, SampleShape},
        rng::Rng,
    };
    use burn::{
        module::{Module, Param},
        tensor::{Device, Tensor, TensorData},
    };
    use std::{
        f64::consts::PI,
        sync::{Arc, Mutex},
    };

    /// Number of values of a sample.
    pub(super) const VALUES: usize = 4;
    /// Norms of the loadings; the last latent dimension has no effect.
    pub(super) const NORMS: [f64; 3] = [1.5, 0.8, 0.0];
    /// Standard deviation of a value, given the latents.
    pub(super) const STD: f64 = 0.7;
    const DIRECTIONS: [[f64; VALUES]; 3] = [
        [0.5, 0.5, 0.5, 0.5],
        [0.5, 0.5, -0.5, -0.5],
        [0.5, -0.5, 0.5, -0.5],
    ];

    /// Probabilistic principal components (Tipping and Bishop 1999), `x = W·z + shift + σ·ε`. The
    /// loadings are orthogonal, so the posterior has independent dimensions. `shift` is the class.
    #[derive(Module, Debug)]
    pub(super) struct LinearGaussian {
        /// `Wᵀ`, `[latents, values]`.
        loadings: Param<Tensor<2>>,
        /// Variance of the encoder's distribution over that of the posterior.
        widening: f64,
        num_classes: Option<usize>,
        #[module(skip)]
        likelihood: LikelihoodKind,
        /// Rows of each pass of the decoder.
        #[module(skip)]
        rows: Arc<Mutex<Vec<usize>>>,
    }

    impl LinearGaussian {
        pub(super) fn new(widening: f64, num_classes: Option<usize>) -> Self {
            let loadings = NORMS.iter().zip(DIRECTIONS);
            let loadings: Vec<f32> = loadings
                .flat_map(|(norm, direction)| direction.map(|value| (norm * value) as f32))
                .collect();
            let loadings = TensorData::new(loadings, [NORMS.len(), VALUES]);
            let loadings = Tensor::from_data(loadings, &Device::flex());
            Self {
                loadings: Param::from_tensor(loadings).no_grad(),
                widening,
                num_classes,
                likelihood: LikelihoodKind::Gaussian(STD),
                rows: Arc::default(),
            }
        }

        /// The same means with another likelihood.
        pub(super) fn with_likelihood(mut self, likelihood: LikelihoodKind) -> Self {
            self.likelihood = likelihood;
            self
        }

        /// Rows of each pass of the decoder so far.
        pub(super) fn rows(&self) -> Vec<usize> {
            self.rows.lock().unwrap().clone()
        }

        fn shift(&self, condition: &Condition) -> Option<Tensor<2>> {
            let classes = condition.class_labels.clone()?;
            Some(classes.float().unsqueeze_dim(1))
        }
    }

    impl Vae<2, 2> for LinearGaussian {
        type Posterior = DiagonalGaussian;

        fn encode(&self, x: Tensor<2>) -> DiagonalGaussian {
            let row = |value: fn(f64) -> f64| {
                let values: Vec<f32> = NORMS.iter().map(|norm| value(*norm) as f32).collect();
                let values = TensorData::new(values, [1, NORMS.len()]);
                Tensor::<2>::from_data(values, &Device::flex())
            };
            let mean = x.matmul(self.loadings.val().transpose());
            let mean = mean * row(|norm| 1.0 / (norm * norm + STD * STD));
            let logvar = row(|norm| (STD * STD / (norm * norm + STD * STD)).ln());
            DiagonalGaussian {
                logvar: (logvar + self.widening.ln()).expand(mean.dims()),
                mean,
            }
        }

        fn decode(&self, z: Tensor<2>) -> Likelihood<2> {
            self.decode_with(z, &Condition::none())
        }

        fn encode_with(&self, x: Tensor<2>, condition: &Condition) -> DiagonalGaussian {
            match self.shift(condition) {
                Some(shift) => self.encode(x - shift),
                None => self.encode(x),
            }
        }

        fn decode_with(&self, z: Tensor<2>, condition: &Condition) -> Likelihood<2> {
            self.rows.lock().unwrap().push(z.dims()[0]);
            let mean = z.matmul(self.loadings.val());
            let mean = match self.shift(condition) {
                Some(shift) => mean + shift,
                None => mean,
            };
            Likelihood::new(self.likelihood, mean)
        }

        fn latent_shape(&self) -> SampleShape {
            SampleShape::new(&[NORMS.len()])
        }

        fn sample_shape(&self) -> SampleShape {
            SampleShape::new(&[VALUES])
        }

        fn condition_kind(&self) -> ConditionKind {
            ConditionKind {
                num_classes: self.num_classes,
                ..ConditionKind::default()
            }
        }
    }

    /// Lengths of a sample along the loadings' directions.
    pub(super) fn along(x: &[f32; VALUES]) -> [f64; 3] {
        DIRECTIONS.map(|direction| {
            let terms = x.iter().zip(direction);
            terms.map(|(x, u)| f64::from(*x) * u).sum()
        })
    }

    /// `log p(x)`: a normal density with covariance `W·Wᵀ + σ²·I`.
    pub(super) fn log_prob(x: &[f32; VALUES]) -> f64 {
        let square: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
        let variances = NORMS.map(|norm| norm * norm + STD * STD);
        let inside: f64 = along(x).iter().map(|a| a * a).sum();
        let scaled: f64 = along(x).iter().zip(variances).map(|(a, v)| a * a / v).sum();
        let quadratic = scaled + (square - inside) / (STD * STD);
        let log_det: f64 = variances.iter().map(|v| v.ln()).sum();
        let log_det = log_det + (VALUES - NORMS.len()) as f64 * (STD * STD).ln();
        -0.5 * (VALUES as f64 * (2.0 * PI).ln() + log_det + quadratic)
    }

    /// Samples of the model.
    pub(super) fn draw(n: usize, seed: u64) -> Vec<[f32; VALUES]> {
        let mut rng = Rng::new(seed);
        let sample = |_| {
            let (z, noise) = (rng.normal_vec(NORMS.len()), rng.normal_vec(VALUES));
            std::array::from_fn(|value| {
                let terms = z.iter().zip(NORMS).zip(DIRECTIONS);
                let mean: f64 = terms
                    .map(|((z, norm), direction)| f64::from(*z) * norm * direction[value])
                    .sum();
                (mean + STD * f64::from(noise[value])) as f32
            })
        };
        (0..n).map(sample).collect()
    }

    /// Samples, and their classes if they have any.
    pub(super) struct Values(Vec<([f32; VALUES], u32)>, Option<Vec<u32>>);

    impl SampleBatch<2> for Values {
        fn to_tensor(&self, device: &Device) -> Tensor<2> {
            let values: Vec<f32> = self.0.iter().flat_map(|(x, _)| *x).collect();
            Tensor::from_data(TensorData::new(values, [self.0.len(), VALUES]), device)
        }

        fn len(&self) -> usize {
            self.0.len()
        }

        fn sample_shape(&self) -> SampleShape {
            SampleShape::new(&[VALUES])
        }

        fn labels(&self) -> Option<&[u32]> {
            self.1.as_deref()
        }
    }

    /// A loader of samples without classes, or with the classes `classes`.
    pub(super) fn loader(
        samples: &[[f32; VALUES]],
        classes: Option<&[u32]>,
        batch_size: usize,
    ) -> DataLoader<Values> {
        let class = |index: usize| classes.map_or(0, |classes| classes[index]);
        let items = samples.iter().enumerate();
        let items: Vec<_> = items.map(|(index, x)| (*x, class(index))).collect();
        let labelled = classes.is_some();
        let collate = move |items: Vec<([f32; VALUES], u32)>| {
            let labels = items.iter().map(|(_, class)| *class).collect();
            Values(items, labelled.then_some(labels))
        };
        let config = DataLoaderConfig {
            batch_size,
            num_workers: 0,
            ..DataLoaderConfig::default()
        };
        DataLoader::new(InMemory(items), collate, config).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_has_its_standard_error() {
        let (mean, error) = mean_and_error(&[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(mean, 2.5);
        assert!((error - (5.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
        assert!(mean_and_error(&[1.0]).1.is_nan());
    }
}
