//! Restoring images with a model of what images are.
//!
//! `y = A·x₀ + s·n`: an image of which something was lost, and to which noise was added. Given a noisy sample, the clean one is taken
//! for normal, `p(x₀ | x) ≈ N(x̂₀, r²·I)`; then `ln p(y | x)` has a closed form, and its gradient leads sampling from `p(x₀)` to
//! `p(x₀ | y)` (ΠGDM: Song et al. 2023, <https://openreview.net/forum?id=9_gsMA8MRKQ>, section 3). No model is trained for it.

use crate::guidance::{Guide, View};
use aigc_core::{Error, Result};
use burn::tensor::Tensor;

/// What an image has lost.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant)] // A program has one.
pub enum Degradation {
    /// Nothing: there is noise only.
    None,
    /// What is 0 in the mask, `[1 or batch, 1 or channels, height, width]` of 0 and 1.
    Masked(Tensor<4>),
    /// Detail: squares of this side have become their mean.
    Shrunk(usize),
}

impl Degradation {
    /// What it leaves of images.
    ///
    /// # Shapes
    /// - x: `[batch, channels, height, width]`
    /// - output: as x, or with sides divided by that of the squares
    ///
    /// # Errors
    /// [`Error::Config`] if a mask is of another shape, or the squares do not cover the images.
    pub fn apply(&self, x: Tensor<4>) -> Result<Tensor<4>> {
        self.fits(x.dims())?;
        let batch = x.dims()[0];
        Ok(self.left_of(x, 0..batch))
    }

    /// Of those images of the batch that a mask may be for.
    fn left_of(&self, x: Tensor<4>, images: std::ops::Range<usize>) -> Tensor<4> {
        match self {
            Degradation::None => x,
            Degradation::Masked(mask) => {
                let mask = rows(mask, images);
                x.clone() * if x.is_autodiff() { mask.autodiff() } else { mask }
            }
            Degradation::Shrunk(side) => shrink(x, *side),
        }
    }

    /// `A·Aᵀ` is this number times the identity, where anything is left.
    fn gram(&self) -> f64 {
        match self {
            Degradation::None | Degradation::Masked(_) => 1.0,
            Degradation::Shrunk(side) => 1.0 / (side * side) as f64,
        }
    }

    fn fits(&self, dims: [usize; 4]) -> Result<()> {
        let (field, value, expected, fits) = match self {
            Degradation::None => return Ok(()),
            Degradation::Masked(mask) => {
                ("mask", format!("{:?}", mask.dims()), format!("{dims:?}, or 1 for the first two"), covers(mask, dims))
            }
            Degradation::Shrunk(side) => {
                let fits = *side > 0 && dims[2..].iter().all(|d| d.is_multiple_of(*side));
                ("shrunk", side.to_string(), format!("a divisor of {}×{} pixels", dims[2], dims[3]), fits)
            }
        };
        if fits { Ok(()) } else { Err(Error::config(field, value, expected)) }
    }
}

/// Whether a mask is of a batch's shape, or one for all images or channels.
pub(crate) fn covers(mask: &Tensor<4>, dims: [usize; 4]) -> bool {
    mask.dims().into_iter().zip(dims).enumerate().all(|(axis, (m, d))| m == d || (m == 1 && axis < 2))
}

fn rows(of: &Tensor<4>, images: std::ops::Range<usize>) -> Tensor<4> {
    if of.dims()[0] == 1 { of.clone() } else { of.clone().narrow(0, images.start, images.len()) }
}

/// Means of squares.
fn shrink(x: Tensor<4>, side: usize) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let (rows, columns) = (height / side, width / side);
    let x = x.reshape([batch * channels * rows, side, width]).mean_dim(1);
    x.reshape([batch * channels * rows * columns, side]).mean_dim(1).reshape([batch, channels, rows, columns])
}

/// Leads samples to images of which `measured` is left.
#[derive(Clone, Debug)]
pub struct Posterior {
    degradation: Degradation,
    /// In `[−1, 1]`.
    measured: Tensor<4>,
    /// Of values in `[−1, 1]`.
    noise: f64,
    data: f64,
    scale: f64,
}

impl Posterior {
    /// Of what `degradation` left, and noise of this standard deviation (of values in `[0, 1]`) was added to.
    ///
    /// # Shapes
    /// - measured: as `degradation` leaves them, `[n, …]` in `[0, 1]` but for the noise
    ///
    /// # Errors
    /// [`Error::Config`] for a negative noise.
    pub fn new(degradation: Degradation, measured: &Tensor<4>, noise: f64) -> Result<Self> {
        if !(noise >= 0.0 && noise.is_finite()) {
            return Err(Error::config("noise", noise, "0 or more"));
        }
        let measured = measured.clone() * 2.0 - 1.0;
        Ok(Self { degradation, measured, noise: 2.0 * noise, data: 0.5, scale: 1.0 })
    }

    /// Standard deviation of images' values in `[−1, 1]`, 0.5 by default: how uncertain the clean sample is where there is only noise.
    ///
    /// # Errors
    /// [`Error::Config`] unless it is more than 0.
    pub fn with_data_deviation(self, deviation: f64) -> Result<Self> {
        if !(deviation > 0.0 && deviation.is_finite()) {
            return Err(Error::config("data_deviation", deviation, "more than 0"));
        }
        Ok(Self { data: deviation, ..self })
    }

    /// Leads by so many times the gradient; 1 by default.
    ///
    /// # Errors
    /// [`Error::Config`] unless it is finite and 0 or more.
    pub fn with_scale(self, scale: f64) -> Result<Self> {
        if !(scale >= 0.0 && scale.is_finite()) {
            return Err(Error::config("scale", scale, "0 or more"));
        }
        Ok(Self { scale, ..self })
    }
}

impl Guide for Posterior {
    fn log_likelihood(&self, view: &View<'_>) -> Result<Tensor<1>> {
        let x0 = view.x0();
        self.degradation.fits(x0.dims())?;
        let left = self.degradation.left_of(x0, view.images());
        let (images, all) = (view.images(), self.measured.dims());
        let dims = left.dims();
        if all[1..] != dims[1..] || (all[0] != 1 && all[0] < images.end) {
            return Err(Error::config("measured", format!("{all:?}"), format!("{dims:?}, or one for each image")));
        }
        let mut measured = rows(&self.measured, images.clone());
        if let Degradation::Masked(mask) = &self.degradation {
            measured = measured * rows(mask, images);
        }
        // r²: two normal guesses at the clean sample, that of the data and that of the noisy sample.
        let ratio = (view.call().level.sigma / view.call().level.alpha).powi(2);
        let uncertain = ratio * self.data.powi(2) / (ratio + self.data.powi(2));
        let variance = self.degradation.gram() * uncertain + self.noise.powi(2);
        // ∇ ln N(y; A·x̂₀, variance) with the variance held: (∂x̂₀/∂x)ᵀ·Aᵀ·(y − A·x̂₀) / variance.
        let pull = ((measured - left.clone().inner()) * (self.scale / variance)).autodiff();
        Ok((left * pull).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        DdimScheduler, Sampler,
        scheduler::Clipping,
        testing::{Gaussian, moments},
    };
    use aigc_core::{data::ImageShape, device::device, rng::Rng};

    fn exact() -> DdimScheduler {
        DdimScheduler { clipping: Clipping::NONE, eta: 1.0, ..DdimScheduler::default() }
    }

    fn restored(network: &Gaussian, shape: ImageShape, guide: &Posterior) -> Tensor<4> {
        let sampler = Sampler::new(network, &exact(), 200, shape, &device("flex").unwrap()).unwrap();
        sampler.at_once(500).unwrap().led_by(guide).sample(500, 1).unwrap().images
    }

    /// Of a normal prior everything is exact: what is measured is met as Bayes' rule says, what is not stays as it was.
    #[test]
    fn samples_of_a_normal_prior_are_those_of_the_posterior() {
        let flex = device("flex").unwrap();
        let (deviation, noise) = (0.4, 0.15);
        let network = Gaussian::new(0.1, deviation, &flex);
        let shape = ImageShape::new(1, 4, 4);
        // Images are in [0, 1]: the prior's mean there is 0.55, its deviation half.
        let y = Tensor::<4>::full([1, 1, 4, 4], 0.8, &flex);
        let mask = Tensor::<4>::from_floats([[[[1., 1., 1., 1.], [1., 1., 1., 1.], [0.; 4], [0.; 4]]]], &flex);
        let prior = (0.55f64, deviation / 2.0);
        let bayes = |variance: f64, y: f64| {
            let p = prior.1 * prior.1;
            ((prior.0 * variance + y * p) / (p + variance), (p * variance / (p + variance)).sqrt())
        };
        let guide =
            Posterior::new(Degradation::Masked(mask), &y, noise).unwrap().with_data_deviation(deviation).unwrap();
        let images = restored(&network, shape, &guide);
        let (known, free) = (bayes(noise * noise, 0.8), prior);
        for (row, expected) in [(0, known), (2, free)] {
            let (mean, spread) = moments(&images.clone().narrow(2, row, 2));
            assert!((mean - expected.0).abs() < 0.01, "row {row}: mean {mean}, expected {expected:?}");
            assert!((spread - expected.1).abs() < 0.01, "row {row}: deviation {spread}, expected {expected:?}");
        }
        // Means of 2×2: their prior has a quarter of the variance.
        let y = Tensor::<4>::full([1, 1, 2, 2], 0.8, &flex);
        let guide = Posterior::new(Degradation::Shrunk(2), &y, noise).unwrap().with_data_deviation(deviation).unwrap();
        let images = restored(&network, shape, &guide);
        let p = prior.1 * prior.1 / 4.0;
        let v = noise * noise;
        let expected = ((prior.0 * v + 0.8 * p) / (p + v), (p * v / (p + v)).sqrt());
        let (mean, spread) = moments(&shrink(images, 2));
        assert!((mean - expected.0).abs() < 0.01 && (spread - expected.1).abs() < 0.01, "{mean} {spread} {expected:?}");
    }

    #[test]
    fn shrinking_takes_means_and_its_gram_is_what_it_says() {
        let flex = device("flex").unwrap();
        let x = Rng::new(0).normal([2, 3, 4, 6], &flex);
        let small = Degradation::Shrunk(2).apply(x.clone()).unwrap();
        assert_eq!(small.dims(), [2, 3, 2, 3]);
        let square = x.clone().narrow(0, 1, 1).narrow(1, 2, 1).narrow(2, 2, 2).narrow(3, 4, 2);
        let expected = square.mean().into_scalar::<f32>();
        let found = small.narrow(0, 1, 1).narrow(1, 2, 1).narrow(2, 1, 1).narrow(3, 2, 1).into_scalar::<f32>();
        assert!((found - expected).abs() < 1e-6);
        // A·Aᵀ by the gradient of ½‖Aᵀ·u‖²... of one output: the squares of its weights add up to it.
        let leaf = Tensor::<4>::zeros([1, 1, 4, 4], &flex).autodiff().require_grad();
        let out = Degradation::Shrunk(2).apply(leaf.clone()).unwrap().narrow(2, 0, 1).narrow(3, 0, 1).sum();
        let weights = leaf.grad(&out.backward()).unwrap();
        let gram = f64::from((weights.clone() * weights).sum().into_scalar::<f32>());
        assert!((gram - Degradation::Shrunk(2).gram()).abs() < 1e-6);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let flex = device("flex").unwrap();
        let network = Gaussian::new(0.0, 1.0, &flex);
        let shape = ImageShape::new(1, 4, 4);
        let ones = |dims: [usize; 4]| Tensor::<4>::ones(dims, &flex);
        for (degradation, measured, expected) in [
            (Degradation::Shrunk(3), ones([1, 1, 2, 2]), "`shrunk` is 3, expected a divisor of 4×4 pixels"),
            (Degradation::Masked(ones([1, 1, 4, 3])), ones([1, 1, 4, 4]), "`mask` is [1, 1, 4, 3]"),
            (Degradation::Shrunk(2), ones([1, 1, 4, 4]), "`measured` is [1, 1, 4, 4]"),
            (Degradation::None, ones([2, 1, 4, 4]), "`measured` is [2, 1, 4, 4]"),
        ] {
            let guide = Posterior::new(degradation, &measured, 0.0).unwrap();
            let sampler = Sampler::new(&network, &exact(), 2, shape, &flex).unwrap().led_by(&guide);
            let message = sampler.sample(3, 0).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        assert!(Posterior::new(Degradation::None, &ones([1, 1, 4, 4]), -1.0).is_err());
    }
}
