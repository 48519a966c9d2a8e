//! Mixtures of Gaussians.

use super::{
    MAX_DIM, Prior,
    em::{self, Component, EmConfig, Points},
};
use crate::math::log_sum_exp;
use aigc_core::{
    Result,
    check::{self, ensure, ensure_argument},
    nn::Initializer,
    rng::Rng,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData, activation::log_softmax},
};
use serde::{Deserialize, Serialize};

/// Shape of the covariance matrices of a mixture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CovarianceType {
    /// Independent dimensions.
    #[default]
    #[serde(alias = "diag")]
    Diagonal,
    /// Any covariances; `dim²/2` weights for each component.
    Full,
}

/// Configuration to create or fit a [`GaussianMixture`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GaussianMixtureConfig {
    /// Number of components.
    pub n_components: usize,
    /// Shape of the covariance matrices.
    pub covariance_type: CovarianceType,
}

/// A mixture fitted to latents, with a report.
#[derive(Clone, Debug)]
pub struct MixtureFit {
    /// The mixture.
    pub prior: GaussianMixture,
    /// Log-likelihood before the first iteration, then after each iteration, averaged over the
    /// latents, in nats. It never falls; the last value is that of the mixture.
    pub log_likelihoods: Vec<f64>,
    /// Whether the iterations ended because the log-likelihood no longer rose.
    pub converged: bool,
}

impl GaussianMixtureConfig {
    /// A mixture with diagonal covariances.
    pub fn new(n_components: usize) -> Self {
        Self {
            n_components,
            covariance_type: CovarianceType::Diagonal,
        }
    }

    /// Sets the shape of the covariance matrices.
    pub fn with_covariance_type(mut self, covariance_type: CovarianceType) -> Self {
        self.covariance_type = covariance_type;
        self
    }

    /// Creates a mixture on `device`, to be trained with a model: equal weights, means drawn from
    /// the standard normal distribution, covariances of the identity.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, dim: usize, device: &Device) -> Result<GaussianMixture> {
        self.validate(dim)?;
        let (k, d) = (self.n_components, dim);
        let spread = Initializer::Normal {
            mean: 0.0,
            std: 1.0,
        };
        let lower = || Initializer::ZEROS.param([k, d, d], d, d, device);
        Ok(GaussianMixture {
            weight_logits: Initializer::ZEROS.param([k], k, k, device),
            mean: spread.param([k, d], d, d, device),
            log_scale: Initializer::ZEROS.param([k, d], d, d, device),
            lower: (self.covariance_type == CovarianceType::Full).then(lower),
            dim,
        })
    }

    /// Fits a mixture to latents by expectation maximisation, in double precision on all
    /// processors: ex-post density estimation (Ghosh et al. 2020,
    /// <https://arxiv.org/abs/1903.12436>). The start is k-means with centres by k-means++. A
    /// component that loses all its points moves once to the latent of the lowest density, if that
    /// raises the log-likelihood; else it ends with a weight of 0.
    ///
    /// ```
    /// # use aigc_core::{device::device, rng::Rng};
    /// # use aigc_vae::{EmConfig, GaussianMixtureConfig, Prior};
    /// # fn main() -> aigc_core::Result<()> {
    /// // In practice the latents of a data set, from `encode_latents`.
    /// let mut rng = Rng::new(0);
    /// let latents: Vec<Vec<f32>> = (0..500).map(|_| rng.normal_vec(4)).collect();
    /// let config = GaussianMixtureConfig::new(3);
    /// let fit = config.fit(&latents, &EmConfig::default(), &device("flex")?)?;
    /// assert_eq!(fit.prior.dim(), 4);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range;
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) if there are fewer latents
    /// than components, or they differ in length or are not finite.
    pub fn fit(&self, latents: &[Vec<f32>], em: &EmConfig, device: &Device) -> Result<MixtureFit> {
        em.validate()?;
        let points = Points::new(latents)?;
        self.validate(points.dim())?;
        ensure_argument(
            points.count() >= self.n_components,
            "latents",
            points.count(),
            &format!("at least {}, the number of components", self.n_components),
        )?;
        let fitted = em::fit(&points, self.n_components, self.covariance_type, em);
        let device = device.clone().without_autodiff();
        Ok(MixtureFit {
            prior: self.mixture_of(&fitted.components, points.dim(), &device),
            log_likelihoods: fitted.log_likelihoods,
            converged: fitted.converged,
        })
    }

    fn validate(&self, dim: usize) -> Result<()> {
        const MAX_WEIGHTS: u128 = 1 << 26;
        check::sizes(&[
            ("n_components", self.n_components, 1 << 14),
            ("dim", dim, MAX_DIM),
        ])?;
        let per_component = match self.covariance_type {
            CovarianceType::Diagonal => dim as u128,
            CovarianceType::Full => (dim as u128).pow(2),
        };
        ensure(
            self.n_components as u128 * per_component <= MAX_WEIGHTS,
            "n_components",
            self.n_components,
            &format!(
                "at most {} for {dim} dimensions",
                MAX_WEIGHTS / per_component
            ),
        )
    }

    /// The mixture of fitted components.
    fn mixture_of(&self, components: &[Component], dim: usize, device: &Device) -> GaussianMixture {
        /// Weight of an empty component, so that logits are finite.
        const LEAST: f64 = 1e-30;
        let k = components.len();
        let logits = components.iter().map(|c| c.weight.max(LEAST).ln());
        let means = components.iter().flat_map(|c| c.mean.iter().copied());
        // `P = diag(1/scale)·(I + lower)`.
        let stride = match self.covariance_type {
            CovarianceType::Diagonal => 1,
            CovarianceType::Full => dim + 1,
        };
        let diagonals = components
            .iter()
            .flat_map(|c| c.factor.iter().step_by(stride));
        let lower = || {
            let rows = components
                .iter()
                .flat_map(|c| c.factor.chunks_exact(dim).enumerate());
            let values = rows.flat_map(|(i, row)| {
                let entry = move |(j, x): (usize, &f64)| if j < i { x / row[i] } else { 0.0 };
                row.iter().enumerate().map(entry)
            });
            parameter(values, [k, dim, dim], device)
        };
        GaussianMixture {
            weight_logits: parameter(logits, [k], device),
            mean: parameter(means, [k, dim], device),
            log_scale: parameter(diagonals.map(|factor| -factor.ln()), [k, dim], device),
            lower: (self.covariance_type == CovarianceType::Full).then(lower),
            dim,
        }
    }
}

/// A parameter with these values.
fn parameter<const D: usize>(
    values: impl Iterator<Item = f64>,
    shape: [usize; D],
    device: &Device,
) -> Param<Tensor<D>> {
    let values: Vec<f32> = values.map(|x| x as f32).collect();
    Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
}

/// A mixture of Gaussians, learned with a model (Jiang et al. 2017,
/// <https://arxiv.org/abs/1611.05148>, use one as prior) or [fitted](GaussianMixtureConfig::fit) to
/// the latents of a trained one.
///
/// The gradient of the density of a batch takes memory for `batch·n_components·dim` numbers.
/// Without gradients, the components are divided, so that fewer numbers are in memory at once.
#[derive(Module, Debug)]
pub struct GaussianMixture {
    /// Logits of the weights, `[n_components]`.
    pub weight_logits: Param<Tensor<1>>,
    /// Means, `[n_components, dim]`.
    pub mean: Param<Tensor<2>>,
    /// Logarithms of standard deviations, `[n_components, dim]`; with full covariances, those of a
    /// dimension given the dimensions before it.
    pub log_scale: Param<Tensor<2>>,
    /// With full covariances, minus the coefficients of the regression of a dimension on those
    /// before it, `[n_components, dim, dim]`: the lower triangle, without diagonal, of the matrix
    /// `L` with `Σ⁻¹ = (I + L)ᵀ·diag(e^−2·log_scale)·(I + L)`. Elsewhere the tensor is not used.
    pub lower: Option<Param<Tensor<3>>>,
    dim: usize,
}

impl GaussianMixture {
    /// A mixture with these components and diagonal covariances.
    ///
    /// # Shapes
    /// - log_weights: `[n_components]`; mean and log_scale: `[n_components, dim]`
    pub(super) fn diagonal(components: Gaussians) -> Self {
        let dim = components.mean.dims()[1];
        Self {
            weight_logits: Param::from_tensor(components.log_weights),
            mean: Param::from_tensor(components.mean),
            log_scale: Param::from_tensor(components.log_scale),
            lower: None,
            dim,
        }
    }

    /// Number of components.
    pub fn n_components(&self) -> usize {
        self.mean.dims()[0]
    }

    fn gaussians(&self) -> Gaussians {
        Gaussians {
            log_weights: log_softmax(self.weight_logits.val(), 0),
            mean: self.mean.val(),
            log_scale: self.log_scale.val(),
            lower: self.lower.as_ref().map(|lower| lower.val().tril(-1)),
        }
    }
}

impl Prior for GaussianMixture {
    fn dim(&self) -> usize {
        self.dim
    }

    fn log_prob(&self, z: Tensor<2>) -> Tensor<1> {
        self.gaussians().log_prob(z)
    }

    /// The temperature is that of each component; their weights are the same at any temperature.
    fn sample(&self, n: usize, temperature: f64, rng: &mut Rng, device: &Device) -> Tensor<2> {
        self.gaussians().sample(n, temperature, rng, device)
    }
}

/// Gaussians with weights.
#[derive(Clone, Debug)]
pub(super) struct Gaussians {
    /// Logarithms of the weights, `[components]`.
    pub(super) log_weights: Tensor<1>,
    /// `[components, dim]`.
    pub(super) mean: Tensor<2>,
    /// `[components, dim]`.
    pub(super) log_scale: Tensor<2>,
    /// Strictly lower triangular, `[components, dim, dim]`; see [`GaussianMixture::lower`].
    pub(super) lower: Option<Tensor<3>>,
}

impl Gaussians {
    /// `log Σ_k w_k·N_k(z)`, `[batch]`, of latents `[batch, dim]`.
    pub(super) fn log_prob(self, z: Tensor<2>) -> Tensor<1> {
        /// Most differences of latents from means in one part; 64 MiB.
        const DIFFERENCES: usize = 1 << 24;
        self.log_prob_in_parts(z, DIFFERENCES)
    }

    /// [`log_prob`](Self::log_prob) with at most this many differences of latents from means in
    /// memory at once, or those of one component. `(z − μ)²` is not expanded into matrix products:
    /// where components are narrow and far apart, the difference of its terms has no digits left.
    fn log_prob_in_parts(self, z: Tensor<2>, differences: usize) -> Tensor<1> {
        let components = self.mean.dims()[0];
        let [batch, dim] = z.dims();
        let count = (differences / (batch * dim).max(1)).max(1);
        let terms = match count >= components {
            true => self.log_joint(z),
            false => {
                let parts = (0..components).step_by(count).map(|start| {
                    let part = self.narrow(start, count.min(components - start));
                    part.log_joint(z.clone())
                });
                Tensor::cat(parts.collect(), 1)
            }
        };
        log_sum_exp(terms, 1).squeeze_dim(1)
    }

    /// The components `start..start + count`.
    fn narrow(&self, start: usize, count: usize) -> Self {
        let lower = self.lower.clone();
        Self {
            log_weights: self.log_weights.clone().narrow(0, start, count),
            mean: self.mean.clone().narrow(0, start, count),
            log_scale: self.log_scale.clone().narrow(0, start, count),
            lower: lower.map(|lower| lower.narrow(0, start, count)),
        }
    }

    /// `log w_k·N_k(z)`, `[batch, components]`.
    fn log_joint(self, z: Tensor<2>) -> Tensor<2> {
        let dim = self.mean.dims()[1] as f64;
        // [batch, components, dim]
        let difference = z.unsqueeze_dim::<3>(1) - self.mean.unsqueeze_dim::<3>(0);
        let residual = match self.lower {
            None => difference,
            Some(lower) => {
                let by_component = difference.swap_dims(0, 1);
                let predicted = by_component.clone().matmul(lower.swap_dims(1, 2));
                (by_component + predicted).swap_dims(0, 1)
            }
        };
        let inverse_scale = (-self.log_scale.clone()).exp().unsqueeze_dim::<3>(0);
        let squares = (residual * inverse_scale).square().sum_dim(2);
        let at_mean = self.log_weights
            - self.log_scale.sum_dim(1).squeeze_dim::<1>(1)
            - 0.5 * dim * (2.0 * std::f64::consts::PI).ln();
        squares.squeeze_dim::<2>(2) * -0.5 + at_mean.unsqueeze::<2>()
    }

    /// `n` samples, `[n, dim]`, with the standard deviations times `temperature`. With diagonal
    /// covariances, they have the gradients of means and standard deviations.
    pub(super) fn sample(
        self,
        n: usize,
        temperature: f64,
        rng: &mut Rng,
        device: &Device,
    ) -> Tensor<2> {
        match self.lower {
            Some(_) => self.sample_on_host(n, temperature, rng, device),
            None => on_device(self.sample_diagonal(n, temperature, rng), device),
        }
    }

    /// Components are drawn as the largest sum of a logarithm of a weight and Gumbel noise
    /// (Maddison et al. 2014, <https://arxiv.org/abs/1411.0030>).
    fn sample_diagonal(self, n: usize, temperature: f64, rng: &mut Rng) -> Tensor<2> {
        /// Least uniform number, so that the noise is finite.
        const LEAST: f32 = 1e-30;
        let [components, dim] = self.mean.dims();
        let device = self.mean.device();
        // A number that is rounded to 1 has an exponential variate of 0.
        let uniform: Tensor<2> = rng.uniform([n, components], LEAST, 1.0, &device);
        let gumbel = -(-uniform.log()).clamp_min(LEAST).log();
        let log_weights = self.log_weights.detach().unsqueeze::<2>();
        let chosen = (gumbel + log_weights).argmax(1).squeeze_dim::<1>(1);
        let noise: Tensor<2> = rng.normal([n, dim], &device);
        let scale = self.log_scale.exp().select(0, chosen.clone());
        self.mean.select(0, chosen) + scale * noise * temperature
    }

    /// Samples without gradients, computed on the host: the dimensions of a component follow one
    /// after the other.
    fn sample_on_host(
        self,
        n: usize,
        temperature: f64,
        rng: &mut Rng,
        device: &Device,
    ) -> Tensor<2> {
        fn host<const D: usize>(x: Tensor<D>) -> Vec<f64> {
            x.into_data().iter::<f64>().collect()
        }
        let dim = self.mean.dims()[1];
        let weights: Vec<f64> = host(self.log_weights).into_iter().map(f64::exp).collect();
        let (means, scales) = (host(self.mean), host(self.log_scale.exp()));
        let lower = self.lower.map(host);
        let total: f64 = weights.iter().sum();
        let draws = rng.uniform_vec(n, 0.0, 1.0);
        let noise = rng.normal_vec(n * dim);
        let mut values = Vec::with_capacity(n * dim);
        // Differences from the mean.
        let mut deviation = vec![0.0; dim];
        for (draw, noise) in draws.into_iter().zip(noise.chunks_exact(dim)) {
            let mut left = f64::from(draw) * total;
            let chosen = weights.iter().position(|weight| {
                left -= weight;
                left < 0.0
            });
            // Beyond the last weight by rounding.
            let k = chosen.unwrap_or(0);
            for (i, noise) in noise.iter().enumerate() {
                let at = k * dim + i;
                let predicted = lower.as_ref().map_or(0.0, |lower| {
                    let row = &lower[at * dim..at * dim + i];
                    let terms = row.iter().zip(&deviation).map(|(l, d)| l * d);
                    terms.sum::<f64>()
                });
                deviation[i] = temperature * scales[at] * f64::from(*noise) - predicted;
                values.push((means[at] + deviation[i]) as f32);
            }
        }
        Tensor::from_data(TensorData::new(values, [n, dim]), device)
    }
}

/// `x` with autodiff if `device` has it, and without if not.
fn on_device(x: Tensor<2>, device: &Device) -> Tensor<2> {
    match (x.is_autodiff(), device.is_autodiff()) {
        (true, false) => x.inner(),
        (false, true) => x.autodiff(),
        _ => x,
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        rng::InitWeights,
        testing::{assert_close, values},
    };

    fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    /// Two components in the plane; `y` of the second is `−0.5·x` plus noise, around its mean.
    fn mixture() -> GaussianMixture {
        let mut lower = vec![0.0; 8];
        lower[6] = 0.5;
        // Not part of the lower triangle: without effect.
        lower[5] = 9.0;
        GaussianMixture {
            weight_logits: Param::from_tensor(tensor(&[0.0, 1.0], [2])),
            mean: Param::from_tensor(tensor(&[0.0, 1.0, -2.0, 0.5], [2, 2])),
            log_scale: Param::from_tensor(tensor(&[0.0, -0.5, 0.3, -1.0], [2, 2])),
            lower: Some(Param::from_tensor(tensor(&lower, [2, 2, 2]))),
            dim: 2,
        }
    }

    fn density_by_hand(x: f64, y: f64) -> f64 {
        let normal = |x: f64, mean: f64, log_std: f64| {
            let scaled = (x - mean) / log_std.exp();
            (-0.5 * scaled * scaled).exp() / (log_std.exp() * (2.0 * std::f64::consts::PI).sqrt())
        };
        let second = 1.0 / (1.0 + (-1.0f64).exp());
        (1.0 - second) * normal(x, 0.0, 0.0) * normal(y, 1.0, -0.5)
            + second * normal(x, -2.0, 0.3) * normal(y, 0.5 - 0.5 * (x + 2.0), -1.0)
    }

    #[test]
    fn log_prob_is_the_density_of_the_mixture() {
        let points = [0.3, 0.8, -2.5, 1.4, 1.0, -30.0];
        let found = values(mixture().log_prob(tensor(&points, [3, 2])));
        for (found, point) in found.iter().zip(points.chunks(2)) {
            let (x, y) = (f64::from(point[0]), f64::from(point[1]));
            let expected = density_by_hand(x, y);
            // The density of the last point is below the range of `f64`.
            if expected > 0.0 {
                let error = (f64::from(*found) - expected.ln()).abs();
                assert!(error < 1e-3, "{found} {}", expected.ln());
            }
            assert!(found.is_finite());
        }
    }

    /// The density and its gradients are the same for any number of parts.
    #[test]
    fn parts_of_the_components_have_the_density_of_all() {
        let z: Tensor<2> = Rng::new(4).normal([4, 3], &Device::flex().autodiff());
        for covariance_type in [CovarianceType::Diagonal, CovarianceType::Full] {
            let config = GaussianMixtureConfig::new(5).with_covariance_type(covariance_type);
            let mut prior = config.init(3, &Device::flex()).unwrap().init_weights(1);
            prior.lower = prior.lower.map(|lower| lower.map(|lower| lower + 0.3));
            let prior = prior.train();
            let of_parts = |differences: usize| {
                let log_prob = prior.gaussians().log_prob_in_parts(z.clone(), differences);
                let gradients = log_prob.clone().sum().backward();
                let gradient = prior.mean.val().grad(&gradients).unwrap();
                (values(log_prob), values(gradient))
            };
            let (expected, expected_gradient) = of_parts(usize::MAX);
            // One component after the other, and parts of two, two and one.
            for differences in [1, 2 * 4 * 3] {
                let (found, gradient) = of_parts(differences);
                assert_close(&found, &expected, 1e-5);
                assert_close(&gradient, &expected_gradient, 1e-5);
            }
        }
    }

    /// Integrals of `1`, `x`, `y`, `x·y` over the density and means over samples.
    #[test]
    fn samples_follow_the_density() {
        let n = 40_000;
        let device = Device::flex();
        let samples = values(mixture().sample(n, 1.0, &mut Rng::new(1), &device));
        let second = 1.0 / (1.0 + (-1.0f64).exp());
        let first = 1.0 - second;
        let variance = 0.6f64.exp();
        // E[x], E[y] and E[xy], by the law of total expectation.
        let expected = [
            second * -2.0,
            first + second * 0.5,
            second * (-2.0 * 0.5 - 0.5 * variance),
        ];
        let statistics = |point: &[f32]| {
            let (x, y) = (f64::from(point[0]), f64::from(point[1]));
            [x, y, x * y]
        };
        for (index, expected) in expected.into_iter().enumerate() {
            let drawn: Vec<f64> = samples.chunks(2).map(|p| statistics(p)[index]).collect();
            let mean = drawn.iter().sum::<f64>() / n as f64;
            let squares = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
            let error = 5.0 * (squares / n as f64).sqrt();
            assert!(
                (mean - expected).abs() < error,
                "{index}: {mean} {expected}"
            );
        }
    }

    /// Means and frequencies of the components, and the gradients of what they are made of.
    #[test]
    fn diagonal_samples_follow_the_density_and_have_gradients() {
        let n = 40_000;
        let device = Device::flex().autodiff();
        let diagonal = GaussianMixture {
            log_scale: Param::from_tensor(tensor(&[-3.0, -3.0, -2.0, -2.0], [2, 2])),
            lower: None,
            ..mixture()
        };
        let prior = diagonal.clone().train();
        let drawn = prior.sample(n, 1.0, &mut Rng::new(1), &device);
        let samples = values(drawn.clone());
        // The components are far apart in `x`: 0 and −2.
        let second: Vec<f64> = (samples.chunks(2))
            .filter(|point| point[0] < -1.0)
            .map(|point| f64::from(point[1]))
            .collect();
        let weight = 1.0 / (1.0 + (-1.0f64).exp());
        let share = second.len() as f64 / n as f64;
        let error = 5.0 * (weight * (1.0 - weight) / n as f64).sqrt();
        assert!((share - weight).abs() < error, "{share} {weight}");
        let count = second.len() as f64;
        let mean = second.iter().sum::<f64>() / count;
        let variance = second.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / count;
        let std = (-2.0f64).exp();
        assert!((mean - 0.5).abs() < 5.0 * std / count.sqrt(), "{mean}");
        assert!((variance.sqrt() / std - 1.0).abs() < 0.03, "{variance}");
        let gradients = drawn.sum().backward();
        // Each sample has the gradient 1 of the mean of its component.
        let mean = values(prior.mean.val().grad(&gradients).unwrap());
        let counts = [n as f32 - count as f32, count as f32];
        assert_eq!(mean, [counts[0], counts[0], counts[1], counts[1]]);
        let scale = values(prior.log_scale.val().grad(&gradients).unwrap());
        assert!(
            scale.iter().all(|g| g.is_finite() && *g != 0.0),
            "{scale:?}"
        );
        let again = diagonal.sample(n, 1.0, &mut Rng::new(1), &Device::flex());
        assert_close(&values(again), &samples, 1e-6);
    }

    /// With the same random numbers, the distance to the mean of the component is proportional to
    /// the temperature.
    #[test]
    fn temperature_scales_each_component() {
        let device = Device::flex();
        let at = |temperature| values(mixture().sample(50, temperature, &mut Rng::new(1), &device));
        let (means, half, full) = (at(0.0), at(0.5), at(1.0));
        for mean in means.chunks(2) {
            assert!(mean == [0.0, 1.0] || mean == [-2.0, 0.5], "{mean:?}");
        }
        let middle: Vec<f32> = means
            .iter()
            .zip(&full)
            .map(|(a, b)| 0.5 * (a + b))
            .collect();
        assert_close(&half, &middle, 1e-5);
    }

    /// The fitted mixture as a module has the log-likelihood that the fit reports.
    #[test]
    fn fitted_mixture_has_the_reported_log_likelihood() {
        let device = Device::flex();
        let samples = values(mixture().sample(1500, 1.0, &mut Rng::new(2), &device));
        let latents: Vec<Vec<f32>> = samples.chunks(2).map(<[f32]>::to_vec).collect();
        for covariance_type in [CovarianceType::Diagonal, CovarianceType::Full] {
            let config = GaussianMixtureConfig::new(2).with_covariance_type(covariance_type);
            let em = EmConfig::default();
            let fit = config.fit(&latents, &em, &device).unwrap();
            assert_eq!((fit.prior.dim(), fit.prior.n_components()), (2, 2));
            let rises = fit
                .log_likelihoods
                .windows(2)
                .all(|pair| pair[1] >= pair[0]);
            assert!(rises, "{:?}", fit.log_likelihoods);
            let log_prob = values(fit.prior.log_prob(tensor(&samples, [1500, 2])));
            let mean = log_prob.iter().map(|l| f64::from(*l)).sum::<f64>() / 1500.0;
            let reported = *fit.log_likelihoods.last().unwrap();
            assert!((mean - reported).abs() < 1e-4, "{mean} {reported}");
        }
        let few = GaussianMixtureConfig::new(3).fit(&latents[..2], &EmConfig::default(), &device);
        let message = few.unwrap_err().to_string();
        assert!(message.contains("at least 3"), "{message}");
    }

    /// With the density's own parameters, the likelihood has no slope in expectation; with others,
    /// a step along the gradient raises it.
    #[test]
    fn gradient_raises_the_likelihood() {
        let device = Device::flex();
        let z = mixture().sample(500, 1.0, &mut Rng::new(3), &device);
        let config = GaussianMixtureConfig::new(3).with_covariance_type(CovarianceType::Full);
        let prior = config.init(2, &device).unwrap().init_weights(1).train();
        let before = prior.log_prob(z.clone().autodiff()).mean();
        let gradients = before.backward();
        let step = |param: Param<Tensor<2>>| {
            let gradient = param.val().grad(&gradients).unwrap();
            param.map(|value| Tensor::from_inner(value.inner() + gradient * 0.01))
        };
        let lower = prior.lower.clone().unwrap();
        let slope = values(lower.val().grad(&gradients).unwrap());
        // Only the lower triangle has a gradient.
        for (index, slope) in slope.iter().enumerate() {
            assert_eq!(*slope != 0.0, index % 4 == 2, "{slope:?}");
        }
        let moved = GaussianMixture {
            mean: step(prior.mean.clone()),
            log_scale: step(prior.log_scale.clone()),
            ..prior.clone()
        };
        let after = moved.log_prob(z.autodiff()).mean();
        let (before, after) = (values(before)[0], values(after)[0]);
        assert!(after > before, "{before} {after}");
    }

    #[test]
    fn sizes_out_of_range_are_rejected_by_name() {
        let device = Device::flex();
        let message = |config: GaussianMixtureConfig, dim| {
            let mixture = config.init(dim, &device).map(|mixture| mixture.dim());
            mixture.unwrap_err().to_string()
        };
        let config = GaussianMixtureConfig::new;
        assert!(message(config(0), 2).contains("`n_components` is 0"));
        assert!(message(config(2), 0).contains("`dim` is 0"));
        let full = config(100).with_covariance_type(CovarianceType::Full);
        assert!(message(full, 4096).contains("at most 4 for 4096 dimensions"));
    }
}
