//! Maximum mean discrepancy of the latents from the prior (Zhao et al. 2017, InfoVAE,
//! <https://arxiv.org/abs/1706.02262>; Tolstikhin et al. 2018, WAE-MMD,
//! <https://arxiv.org/abs/1711.01558>).

use aigc_core::{Error, Result, check};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Most scales of a kernel.
const MAX_SCALES: usize = 64;

/// The terms of InfoVAE: the loss is `−E_q[log p(x|z)] + (1 − α)·KL + (α + λ − 1)·MMD²`, where
/// `MMD²` compares the latents of a batch, `q(z)`, with as many draws from the prior `p(z)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mmd {
    /// `α`, at most 1: the weight of the mutual information of samples and latents. With 1, the
    /// loss has no divergence.
    pub alpha: f64,
    /// `λ`, at least `1 − α`.
    pub lambda: f64,
    /// The kernel.
    #[serde(default)]
    pub kernel: MmdKernel,
    /// The scales `s` of the kernel, relative to the mean squared distance of two draws from a
    /// standard normal prior; the kernel is the sum over the scales.
    #[serde(default = "default_scales")]
    pub scales: Vec<f64>,
    /// Whether the estimate of `MMD²` is unbiased: means over pairs of different samples, which may
    /// be negative. The biased estimate includes every sample paired with itself; it is at least 0,
    /// and too large by an amount inversely proportional to the batch size.
    #[serde(default = "yes")]
    pub unbiased: bool,
}

/// Kernel `k(x, y)` of latents of `d` dimensions, a function of `r² = ‖x − y‖² / 2d`, which has the
/// mean 1 for two draws from a standard normal prior.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MmdKernel {
    /// `Σ s / (s + r²)`: unlike [`Rbf`](Self::Rbf), with gradients for latents far from the prior.
    #[default]
    InverseMultiquadratic,
    /// `Σ exp(−r²/s)`, also called Gaussian kernel.
    Rbf,
}

/// The scales of the program of Tolstikhin et al. 2018.
fn default_scales() -> Vec<f64> {
    vec![0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
}

fn yes() -> bool {
    true
}

impl Mmd {
    /// The terms with these weights, the inverse multiquadratic kernel with scales from 0.1 to 10,
    /// and the unbiased estimate.
    pub fn new(alpha: f64, lambda: f64) -> Self {
        Self {
            alpha,
            lambda,
            kernel: MmdKernel::default(),
            scales: default_scales(),
            unbiased: true,
        }
    }

    /// The terms of a Wasserstein autoencoder: `λ·MMD²` in place of the divergence.
    pub fn wae(lambda: f64) -> Self {
        Self::new(1.0, lambda)
    }

    /// The weight of the divergence, `1 − α`.
    pub(super) fn kl_weight(&self) -> f64 {
        1.0 - self.alpha
    }

    /// The weight of `MMD²`, `α + λ − 1`.
    pub(super) fn weight(&self) -> f64 {
        self.alpha + self.lambda - 1.0
    }

    /// Fails unless `α ≤ 1`, `λ ≥ 1 − α`, and there are 1 to 64 scales, all finite and above 0.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        check::ensure(
            self.alpha <= 1.0 && self.alpha.is_finite(),
            "mmd.alpha",
            self.alpha,
            "a finite number, 1 or below",
        )?;
        check::ensure(
            self.lambda.is_finite() && self.weight() >= 0.0,
            "mmd.lambda",
            self.lambda,
            &format!("a finite number, {} or above", self.kl_weight()),
        )?;
        check::in_range("mmd.scales.len()", self.scales.len(), 1..=MAX_SCALES)?;
        (self.scales.iter()).try_for_each(|scale| check::positive("mmd.scales", *scale))
    }

    /// Fails if the unbiased estimate does not exist for `batch` samples.
    pub(super) fn check_batch(&self, batch: usize) -> Result<()> {
        if self.unbiased && batch < 2 {
            let expected = "at least 2, for the unbiased estimate of the mean discrepancy";
            return Err(Error::config("batch_size", batch, expected));
        }
        Ok(())
    }

    /// The estimate of `MMD²` between the distributions that `z` and `prior` are drawn from,
    /// `E k(z, z′) + E k(p, p′) − 2·E k(z, p)`.
    ///
    /// # Shapes
    /// - z: `[n, d]`, prior: `[m, d]`; `n` and `m` at least 2 for the unbiased estimate
    /// - output: `[1]`
    ///
    /// # Panics
    /// If the numbers of dimensions differ.
    pub fn estimate(&self, z: Tensor<2>, prior: Tensor<2>) -> Tensor<1> {
        assert_eq!(
            z.dims()[1],
            prior.dims()[1],
            "numbers of dimensions of latents and of draws from the prior"
        );
        self.within(z.clone()) + self.within(prior.clone()) - self.between(z, prior) * 2.0
    }

    /// The mean of `k(x, x′)` over pairs of a batch; pairs of different samples if unbiased.
    fn within(&self, x: Tensor<2>) -> Tensor<1> {
        let n = x.dims()[0] as f64;
        let mean = self.between(x.clone(), x);
        if !self.unbiased {
            return mean;
        }
        // A sample paired with itself has 1 for every scale.
        let own = self.scales.len() as f64;
        (mean * n - own) / (n - 1.0)
    }

    /// The mean of `k(x, y)` over all pairs.
    fn between(&self, x: Tensor<2>, y: Tensor<2>) -> Tensor<1> {
        let d = x.dims()[1] as f64;
        let squares = |x: &Tensor<2>| (x.clone() * x.clone()).sum_dim(1);
        let sums = squares(&x) + squares(&y).transpose();
        // ‖x‖² + ‖y‖² − 2·x·y is slightly negative for equal samples, in f32.
        let distance = (sums - x.matmul(y.transpose()) * 2.0).clamp_min(0.0) / (2.0 * d);
        let kernel = |scale: f64| match self.kernel {
            MmdKernel::InverseMultiquadratic => (distance.clone() / scale + 1.0).recip(),
            MmdKernel::Rbf => (-distance.clone() / scale).exp(),
        };
        let kernels = self.scales.iter().map(|scale| kernel(*scale));
        let sum = kernels.reduce(|sum, kernel| sum + kernel);
        sum.map_or_else(|| Tensor::zeros([1], &distance.device()), Tensor::mean)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::rng::Rng;
    use burn::tensor::Device;
    use serde_json::{from_value, json};

    fn value(x: Tensor<1>) -> f64 {
        f64::from(x.into_scalar::<f32>())
    }

    fn rbf(unbiased: bool) -> Mmd {
        Mmd {
            kernel: MmdKernel::Rbf,
            scales: vec![0.5, 2.0],
            unbiased,
            ..Mmd::new(0.0, 1.0)
        }
    }

    /// Sums over pairs, in f64.
    fn by_hand(mmd: &Mmd, z: &[[f32; 2]], prior: &[[f32; 2]]) -> f64 {
        let kernel = |a: &[f32; 2], b: &[f32; 2]| -> f64 {
            let square: f64 = (a.iter().zip(b))
                .map(|(a, b)| f64::from(a - b).powi(2))
                .sum();
            let r2 = square / 4.0;
            let term = |s: &f64| match mmd.kernel {
                MmdKernel::InverseMultiquadratic => s / (s + r2),
                MmdKernel::Rbf => (-r2 / s).exp(),
            };
            mmd.scales.iter().map(term).sum()
        };
        let mean = |x: &[[f32; 2]], y: &[[f32; 2]], same: bool| {
            let (mut sum, mut count) = (0.0, 0.0);
            for (i, a) in x.iter().enumerate() {
                for (j, b) in y.iter().enumerate() {
                    if !(same && mmd.unbiased && i == j) {
                        sum += kernel(a, b);
                        count += 1.0;
                    }
                }
            }
            sum / count
        };
        mean(z, z, true) + mean(prior, prior, true) - 2.0 * mean(z, prior, false)
    }

    #[test]
    fn estimate_is_the_mean_over_pairs() {
        let device = Device::flex();
        let z = [[0.5, 1.0], [-0.3, 2.0], [0.0, 0.0]];
        let prior = [[1.5, -1.0], [0.2, 0.3], [-2.0, 0.1], [0.9, 0.9]];
        for unbiased in [false, true] {
            let imq = Mmd {
                unbiased,
                ..Mmd::new(0.0, 1.0)
            };
            for mmd in [imq, rbf(unbiased)] {
                let found = mmd.estimate(
                    Tensor::from_floats(z, &device),
                    Tensor::from_floats(prior, &device),
                );
                let expected = by_hand(&mmd, &z, &prior);
                assert!((value(found) - expected).abs() < 3e-6, "{mmd:?}");
            }
        }
    }

    /// For `d` dimensions, latents from `N(μ, I)` and a standard normal prior, `MMD²` of the kernel
    /// `exp(−a·‖x − y‖²)` is `2·(1 + 4a)^(−d/2)·(1 − exp(−a·‖μ‖²/(1 + 4a)))`. Means of 300
    /// estimates are within five standard errors of it. The biased estimate is too large by
    /// `2·(k(x, x) − E k(x, x′))/n`.
    #[test]
    fn estimates_have_the_mean_of_the_closed_form() {
        let device = Device::flex();
        let (n, d, shift, repeats) = (24, 3, 0.7f64, 300);
        let mut rng = Rng::new(8);
        let terms = |f: &dyn Fn(f64) -> f64| -> f64 {
            let sharpness = |s: &f64| 1.0 / (2.0 * d as f64 * s);
            rbf(true).scales.iter().map(|s| f(sharpness(s))).sum()
        };
        let spread = |a: f64| (1.0 + 4.0 * a).powf(-0.5 * d as f64);
        let square = d as f64 * shift * shift;
        let truth = terms(&|a| 2.0 * spread(a) * (1.0 - (-a * square / (1.0 + 4.0 * a)).exp()));
        let excess = 2.0 * terms(&|a| 1.0 - spread(a)) / n as f64;
        for (unbiased, expected) in [(true, truth), (false, truth + excess)] {
            let estimates: Vec<f64> = (0..repeats)
                .map(|_| {
                    let z = rng.normal([n, d], &device) + shift;
                    value(rbf(unbiased).estimate(z, rng.normal([n, d], &device)))
                })
                .collect();
            let mean = estimates.iter().sum::<f64>() / repeats as f64;
            let variance =
                (estimates.iter()).map(|e| (e - mean).powi(2)).sum::<f64>() / (repeats - 1) as f64;
            let error = (variance / repeats as f64).sqrt();
            assert!(
                (mean - expected).abs() < 5.0 * error,
                "{mean} {expected} {error}"
            );
        }
    }

    /// Gradient descent on the estimate moves latents towards the prior.
    #[test]
    fn gradient_leads_to_the_prior() {
        let device = Device::flex().autodiff();
        let mut rng = Rng::new(9);
        let prior = rng.normal([64, 2], &device);
        for kernel in [MmdKernel::InverseMultiquadratic, MmdKernel::Rbf] {
            let mmd = Mmd {
                kernel,
                ..Mmd::wae(1.0)
            };
            let z = (rng.normal([64, 2], &device) + 1.0).detach().require_grad();
            let gradients = mmd.estimate(z.clone(), prior.clone()).backward();
            let gradient = z.grad(&gradients).unwrap();
            assert!(value(gradient.mean()) > 0.0, "{kernel:?}");
        }
    }

    #[test]
    fn values_out_of_range_are_refused_by_field() {
        let scales = |scales| Mmd {
            scales,
            ..Mmd::wae(1.0)
        };
        for (mmd, expected) in [
            (Mmd::new(1.5, 1.0), "`mmd.alpha` is 1.5"),
            (Mmd::new(f64::NEG_INFINITY, 1.0), "`mmd.alpha` is -inf"),
            (
                Mmd::new(0.25, 0.5),
                "`mmd.lambda` is 0.5, expected a finite number, 0.75",
            ),
            (Mmd::wae(f64::NAN), "`mmd.lambda` is NaN"),
            (scales(vec![]), "`mmd.scales.len()` is 0"),
            (scales(vec![1.0, 0.0]), "`mmd.scales` is 0"),
        ] {
            let message = mmd.validate().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        Mmd::new(-3.0, 4.0).validate().unwrap();
        assert!(Mmd::wae(1.0).check_batch(1).is_err() && rbf(false).check_batch(1).is_ok());
        let read: Mmd = from_value(json!({"alpha": 1.0, "lambda": 10.0})).unwrap();
        assert_eq!(read, Mmd::wae(10.0));
    }
}
