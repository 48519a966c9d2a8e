//! Restoring images with a diffusion model as the prior.
//!
//! `y = A·x₀ + s·n`: a linear measurement of an image, with noise. Given a noisy sample, the clean
//! one is approximated as normal, `p(x₀ | x) ≈ N(x̂₀, V)`; its covariance is
//! known from the network's Jacobian, `V = σ²/α · ∂x̂₀/∂x`. Then
//!
//! ```text
//! ∇ ln p(y | x) = (∂x̂₀/∂x)ᵀ·Aᵀ·(s²·I + A·V·Aᵀ)⁻¹·(y − A·x̂₀)
//! ```
//!
//! guides sampling from `p(x₀)` to `p(x₀ | y)` (moment matching posterior sampling: Rozet et al.
//! 2024, <https://arxiv.org/abs/2405.13712>, section 4.2), with a few steps of conjugate gradients
//! for the inverse. No model is trained for it.

use crate::{
    guidance::{Guide, GuideContext},
    prediction::NoiseLevel,
};
use aigc_core::{Error, Result, check::ensure_argument, data::ValueRange, ops};
use burn::tensor::Tensor;
use std::ops::Range;

/// The linear operator `A` of a measurement.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant)] // A program has one.
pub enum Degradation {
    /// The identity: there is noise only.
    Identity,
    /// Pixels are missing where the mask, `[1 or batch, 1 or channels, height, width]`, is 0; it is
    /// 1 elsewhere.
    Inpaint(Tensor<4>),
    /// Squares of this side are averaged.
    Downsample(usize),
}

impl Degradation {
    /// The measurement of images, without noise.
    ///
    /// # Shapes
    /// - x: `[batch, channels, height, width]`
    /// - output: as x, or with sides divided by that of the squares
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a mask is of another shape, or the squares do not cover the
    /// images.
    pub fn apply(&self, x: Tensor<4>) -> Result<Tensor<4>> {
        self.fits(x.dims())?;
        let batch = x.dims()[0];
        Ok(self.measure(x, 0..batch))
    }

    /// `A·x`, for these images of the batch.
    fn measure(&self, x: Tensor<4>, images: Range<usize>) -> Tensor<4> {
        match self {
            Degradation::Identity => x,
            Degradation::Inpaint(mask) => x * rows(mask, images),
            Degradation::Downsample(side) => shrink(x, *side),
        }
    }

    /// `Aᵀ·u`, for measurements `u` of these images.
    fn transposed(&self, u: Tensor<4>, images: Range<usize>) -> Tensor<4> {
        match self {
            Degradation::Identity | Degradation::Inpaint(_) => self.measure(u, images),
            Degradation::Downsample(side) => {
                ops::upsample_nearest2d(u, *side) / (side * side) as f64
            }
        }
    }

    /// Checks a part of the images, which ends before image `end`.
    fn fits_part(&self, dims: [usize; 4], end: usize) -> Result<()> {
        match self {
            Degradation::Inpaint(mask) if mask.dims()[0] > 1 => {
                let [rows, _, _, _] = mask.dims();
                self.fits([rows.max(end), dims[1], dims[2], dims[3]])
            }
            _ => self.fits(dims),
        }
    }

    fn fits(&self, dims: [usize; 4]) -> Result<()> {
        let (field, value, expected, fits) = match self {
            Degradation::Identity => return Ok(()),
            Degradation::Inpaint(mask) => (
                "mask",
                format!("{:?}", mask.dims()),
                format!("{dims:?}, or 1 for the first two"),
                covers(mask, dims),
            ),
            Degradation::Downsample(side) => {
                let fits = *side > 0 && dims[2..].iter().all(|d| d.is_multiple_of(*side));
                (
                    "downsample",
                    side.to_string(),
                    format!("a divisor of {}×{} pixels", dims[2], dims[3]),
                    fits,
                )
            }
        };
        if fits {
            Ok(())
        } else {
            Err(Error::argument(field, value, expected))
        }
    }
}

/// Whether a mask is of a batch's shape, or one for all images or channels.
pub(crate) fn covers(mask: &Tensor<4>, dims: [usize; 4]) -> bool {
    mask.dims()
        .into_iter()
        .zip(dims)
        .enumerate()
        .all(|(axis, (m, d))| m == d || (m == 1 && axis < 2))
}

fn rows(of: &Tensor<4>, images: Range<usize>) -> Tensor<4> {
    if of.dims()[0] == 1 {
        of.clone()
    } else {
        of.clone().narrow(0, images.start, images.len())
    }
}

/// Means of squares.
fn shrink(x: Tensor<4>, side: usize) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let (rows, columns) = (height / side, width / side);
    let x = x
        .reshape([batch * channels * rows, side, width])
        .mean_dim(1);
    x.reshape([batch * channels * rows * columns, side])
        .mean_dim(1)
        .reshape([batch, channels, rows, columns])
}

/// Guides samples to images with a given measurement.
#[derive(Clone, Debug)]
pub struct MomentMatchingGuidance {
    degradation: Degradation,
    /// In `[−1, 1]`.
    measured: Tensor<4>,
    /// Of values in `[−1, 1]`.
    noise: f64,
    scale: f64,
    iterations: usize,
}

/// Steps of conjugate gradients.
const ITERATIONS: usize = 2;

/// Fails unless an argument is finite and at least 0.
fn non_negative(argument: &str, value: f64) -> Result<()> {
    ensure_argument(
        value >= 0.0 && value.is_finite(),
        argument,
        value,
        "a finite number, 0 or above",
    )
}

impl MomentMatchingGuidance {
    /// A guide to images that `degradation` and noise of this standard deviation (of values in
    /// `[0, 1]`) turned into `measured`.
    ///
    /// # Shapes
    /// - measured: as `degradation` gives them, `[n, …]` in `[0, 1]` but for the noise
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless the noise is finite and 0 or more.
    pub fn new(degradation: Degradation, measured: &Tensor<4>, noise: f64) -> Result<Self> {
        non_negative("noise", noise)?;
        Ok(Self {
            degradation,
            measured: ValueRange::Unit.normalize(measured.clone()),
            noise: 2.0 * noise,
            scale: 1.0,
            iterations: ITERATIONS,
        })
    }

    /// Inverts by this number of steps of conjugate gradients, 2 by default; each goes once through
    /// the network and back.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for 0.
    pub fn with_iterations(self, iterations: usize) -> Result<Self> {
        if iterations == 0 {
            return Err(Error::argument("iterations", iterations, "at least 1"));
        }
        Ok(Self { iterations, ..self })
    }

    /// Multiplies the gradient by `scale`; 1 by default.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless it is finite and 0 or more.
    pub fn with_scale(self, scale: f64) -> Result<Self> {
        non_negative("scale", scale)?;
        Ok(Self { scale, ..self })
    }
}

impl Guide for MomentMatchingGuidance {
    fn score(&self, view: &GuideContext<'_>) -> Result<Tensor<4>> {
        let (x0, images) = (view.x0(), view.images());
        if view.is_latent() {
            return Err(Error::argument(
                "guide",
                "moment matching",
                "none with an autoencoder; the measurement is of images",
            ));
        }
        self.degradation.fits_part(x0.dims(), images.end)?;
        // Images are within ±1, whatever a network predicts from pure noise.
        let predicted = self
            .degradation
            .measure(x0.clamp(-1.0, 1.0), images.clone());
        let (all, dims) = (self.measured.dims(), predicted.dims());
        if all[1..] != dims[1..] || (all[0] != 1 && all[0] < images.end) {
            return Err(Error::argument(
                "measured",
                format!("{all:?}"),
                format!("{dims:?}, or one for each image"),
            ));
        }
        let mut measured = rows(&self.measured, images.clone());
        if let Degradation::Inpaint(mask) = &self.degradation {
            measured = measured * rows(mask, images.clone());
        }
        let NoiseLevel { alpha, sigma } = view.call().network_level;
        let noise = self.noise.powi(2);
        let back = |u: Tensor<4>| view.vjp(&self.degradation.transposed(u, images.clone()));
        let mut residual = measured - predicted;
        let mut direction = residual.clone();
        let mut length = dot(&residual, &residual);
        let mut score = view.x().zeros_like();
        for _ in 0..self.iterations {
            let pulled = back(direction.clone());
            let image = self
                .degradation
                .measure(pulled.clone() * (sigma * sigma / alpha), images.clone())
                + direction.clone() * noise;
            // A network's Jacobian is not exactly a covariance: a step with negative curvature is
            // left out.
            let curvature = dot(&direction, &image);
            let turned = curvature.clone().lower_equal_elem(1e-12);
            let step =
                (length.clone() / curvature.mask_fill(turned.clone(), 1.0)).mask_fill(turned, 0.0);
            score = score + pulled * step.clone();
            residual = residual - image * step;
            let shorter = dot(&residual, &residual);
            direction = residual.clone() + direction * (shorter.clone() / length.clamp_min(1e-20));
            length = shorter;
        }
        Ok(score * self.scale)
    }
}

/// Inner products of samples, `[batch, 1, 1, 1]`.
fn dot(a: &Tensor<4>, b: &Tensor<4>) -> Tensor<4> {
    let batch = a.dims()[0];
    (a.clone() * b.clone())
        .flatten::<2>(1, 3)
        .sum_dim(1)
        .reshape([batch, 1, 1, 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DdimScheduler, DiffusionSampler, scheduler::Clipping, testing::Gaussian};
    use aigc_core::{data::ImageShape, device::device, rng::Rng, testing::moments};

    fn exact() -> DdimScheduler {
        DdimScheduler {
            clipping: Clipping::NONE,
            eta: 1.0,
            ..DdimScheduler::default()
        }
    }

    fn restored(
        network: &Gaussian,
        shape: ImageShape,
        guide: &MomentMatchingGuidance,
    ) -> Tensor<4> {
        let sampler =
            DiffusionSampler::new(network, &exact(), 200, shape, &device("flex").unwrap()).unwrap();
        sampler
            .with_batch_size(500)
            .with_guide(guide)
            .sample(500, 1)
            .unwrap()
            .values
    }

    /// With a normal prior everything is exact: measured pixels have the posterior's mean and
    /// spread, the others the prior's.
    #[test]
    fn normal_prior_gives_the_exact_posterior() {
        let flex = device("flex").unwrap();
        let (deviation, noise) = (0.4, 0.15);
        let network = Gaussian::new(0.1, deviation, &flex);
        let shape = ImageShape::new(1, 4, 4);
        // Images are in [0, 1]: the prior's mean there is 0.55, its deviation half.
        let y = Tensor::<4>::full([1, 1, 4, 4], 0.8, &flex);
        let mask = Tensor::<4>::from_floats(
            [[[[1., 1., 1., 1.], [1., 1., 1., 1.], [0.; 4], [0.; 4]]]],
            &flex,
        );
        let prior = (0.55f64, deviation / 2.0);
        let bayes = |variance: f64, y: f64| {
            let p = prior.1 * prior.1;
            (
                (prior.0 * variance + y * p) / (p + variance),
                (p * variance / (p + variance)).sqrt(),
            )
        };
        let guide = MomentMatchingGuidance::new(Degradation::Inpaint(mask), &y, noise).unwrap();
        let images = restored(&network, shape, &guide);
        let (known, free) = (bayes(noise * noise, 0.8), prior);
        for (row, expected) in [(0, known), (2, free)] {
            let (mean, spread) = moments(&images.clone().narrow(2, row, 2));
            assert!(
                (mean - expected.0).abs() < 0.01,
                "row {row}: mean {mean}, expected {expected:?}"
            );
            assert!(
                (spread - expected.1).abs() < 0.01,
                "row {row}: deviation {spread}, expected {expected:?}"
            );
        }
        // Means of 2×2: their prior has a quarter of the variance.
        let y = Tensor::<4>::full([1, 1, 2, 2], 0.8, &flex);
        let guide = MomentMatchingGuidance::new(Degradation::Downsample(2), &y, noise).unwrap();
        let images = restored(&network, shape, &guide);
        let p = prior.1 * prior.1 / 4.0;
        let v = noise * noise;
        let expected = ((prior.0 * v + 0.8 * p) / (p + v), (p * v / (p + v)).sqrt());
        let (mean, spread) = moments(&shrink(images, 2));
        assert!(
            (mean - expected.0).abs() < 0.01 && (spread - expected.1).abs() < 0.01,
            "{mean} {spread} {expected:?}"
        );
    }

    #[test]
    fn downsampling_averages_pixels() {
        let flex = device("flex").unwrap();
        let x = Rng::new(0).normal([2, 3, 4, 6], &flex);
        let small = Degradation::Downsample(2).apply(x.clone()).unwrap();
        assert_eq!(small.dims(), [2, 3, 2, 3]);
        let square = x
            .clone()
            .narrow(0, 1, 1)
            .narrow(1, 2, 1)
            .narrow(2, 2, 2)
            .narrow(3, 4, 2);
        let expected = square.mean().into_scalar::<f32>();
        let found = small
            .narrow(0, 1, 1)
            .narrow(1, 2, 1)
            .narrow(2, 1, 1)
            .narrow(3, 2, 1)
            .into_scalar::<f32>();
        assert!((found - expected).abs() < 1e-6);
    }

    /// `⟨A·x, u⟩ = ⟨x, Aᵀ·u⟩`.
    #[test]
    fn transposes_are_adjoint() {
        let flex = device("flex").unwrap();
        let mut rng = Rng::new(1);
        let mask = rng
            .uniform([1, 1, 4, 6], 0.0, 1.0, &flex)
            .greater_elem(0.5)
            .float();
        for degradation in [
            Degradation::Identity,
            Degradation::Inpaint(mask),
            Degradation::Downsample(2),
        ] {
            let x = rng.normal([2, 3, 4, 6], &flex);
            let left = degradation.apply(x.clone()).unwrap();
            let u = rng.normal(left.dims(), &flex);
            let (a, b) = (
                dot(&left, &u),
                dot(&x, &degradation.transposed(u.clone(), 0..2)),
            );
            assert!(
                (a - b).abs().max().into_scalar::<f32>() < 1e-4,
                "{degradation:?}"
            );
        }
    }

    /// Neighbouring pixels of these images are correlated, so that a measurement of one informs the
    /// other, by the network's Jacobian, at every step.
    #[test]
    fn measurement_spreads_to_correlated_pixels() {
        use crate::{NoiseLevel, PredictionType, guidance::Answer, plan::ModelCall};
        use std::cell::OnceCell;
        let flex = device("flex").unwrap();
        // x₀ ~ N(0, C) of two values with correlation 0.9; x = αx₀ + σε, x̂₀ = αC(α²C + σ²)⁻¹x.
        let (level, c) = (
            NoiseLevel::variance_preserving(0.5),
            [[1.0, 0.9], [0.9, 1.0]],
        );
        let (a2, s2) = (level.alpha.powi(2), level.sigma.powi(2));
        // C = U·diag(1.9, 0.1)·Uᵀ with U the sum and the difference.
        let gain = |variance: f64| level.alpha * variance / (a2 * variance + s2);
        let (sum, difference) = (gain(c[0][0] + c[0][1]), gain(c[0][0] - c[0][1]));
        let (same, other) = (0.5 * (sum + difference), 0.5 * (sum - difference));
        let ask = |x: &Tensor<4>| -> Answer {
            let swapped = x.clone().flip([3]);
            let x0 = x.clone() * same + swapped * other;
            (x0.clone(), x0)
        };
        let x = Tensor::<4>::from_floats([[[[0.3, -0.2]]]], &flex);
        let call = ModelCall::new(
            0.0,
            level,
            PredictionType::Sample.coefficients(level).unwrap(),
            vec![],
        );
        let view = GuideContext {
            x: &x,
            call: &call,
            images: 0..1,
            latent: false,
            ask: &ask,
            ask_live: &ask,
            answer: OnceCell::new(),
        };
        let mask = Tensor::<4>::from_floats([[[[1.0, 0.0]]]], &flex);
        // In [0, 1]: 0.7 is 0.4, and noise of 0.1 is 0.2.
        let guide = MomentMatchingGuidance::new(
            Degradation::Inpaint(mask),
            &Tensor::full([1, 1, 1, 2], 0.7, &flex),
            0.1,
        )
        .unwrap();
        let score: Vec<f64> = guide
            .score(&view)
            .unwrap()
            .into_data()
            .iter::<f64>()
            .collect();
        let x0 = same * 0.3 - other * 0.2;
        let inverse = 1.0 / (0.2f64.powi(2) + s2 / level.alpha * same);
        let pull = (0.4 - x0) * inverse;
        for (found, expected) in score.iter().zip([same * pull, other * pull]) {
            assert!(
                (found - expected).abs() < 1e-5,
                "{score:?}, expected {expected}"
            );
        }
        assert!(
            guide
                .score(&GuideContext {
                    latent: true,
                    answer: OnceCell::new(),
                    ..view
                })
                .is_err()
        );
    }

    /// Masks and measurements of one row for each image, whatever the batch size; and a flow,
    /// whose first samples are all noise.
    #[test]
    fn measurements_are_per_image() {
        let flex = device("flex").unwrap();
        let network = Gaussian::new(0.1, 0.4, &flex);
        let mut rng = Rng::new(6);
        let mask = rng
            .uniform([5, 1, 4, 4], 0.0, 1.0, &flex)
            .greater_elem(0.5)
            .float();
        let y = rng.uniform([5, 1, 4, 4], 0.2, 0.8, &flex);
        let guide =
            MomentMatchingGuidance::new(Degradation::Inpaint(mask.clone()), &y, 0.01).unwrap();
        let make = |batch_size: usize| {
            let sampler =
                DiffusionSampler::new(&network, &exact(), 30, ImageShape::new(1, 4, 4), &flex)
                    .unwrap();
            sampler
                .with_batch_size(batch_size)
                .with_guide(&guide)
                .sample(5, 0)
                .unwrap()
                .values
        };
        let all = make(5);
        for batch_size in [1, 2] {
            assert!(
                (make(batch_size) - all.clone())
                    .abs()
                    .max()
                    .into_scalar::<f32>()
                    < 1e-4
            );
        }
        let off = ((all - y.clone()) * mask).abs().max().into_scalar::<f32>();
        assert!(off < 0.1, "{off}");
        let flow = crate::FlowEulerScheduler::default();
        let sampler = DiffusionSampler::new(&network, &flow, 4, ImageShape::new(1, 4, 4), &flex)
            .unwrap()
            .with_guide(&guide);
        let made = sampler.sample(5, 0).unwrap().values.into_data();
        assert!(made.iter::<f32>().all(|value| value.is_finite()));
    }

    #[test]
    fn mismatched_measurements_are_errors() {
        let flex = device("flex").unwrap();
        let network = Gaussian::new(0.0, 1.0, &flex);
        let shape = ImageShape::new(1, 4, 4);
        let ones = |dims: [usize; 4]| Tensor::<4>::ones(dims, &flex);
        for (degradation, measured, expected) in [
            (
                Degradation::Downsample(3),
                ones([1, 1, 2, 2]),
                "`downsample` is 3, expected a divisor of 4×4 pixels",
            ),
            (
                Degradation::Inpaint(ones([1, 1, 4, 3])),
                ones([1, 1, 4, 4]),
                "`mask` is [1, 1, 4, 3]",
            ),
            // As many batch elements as are sampled at once, and fewer than images.
            (
                Degradation::Inpaint(ones([2, 1, 4, 4])),
                ones([1, 1, 4, 4]),
                "`mask` is [2, 1, 4, 4], expected [3, 1, 4, 4]",
            ),
            (
                Degradation::Downsample(2),
                ones([1, 1, 4, 4]),
                "`measured` is [1, 1, 4, 4]",
            ),
            (
                Degradation::Identity,
                ones([2, 1, 4, 4]),
                "`measured` is [2, 1, 4, 4]",
            ),
        ] {
            let guide = MomentMatchingGuidance::new(degradation, &measured, 0.0).unwrap();
            let sampler = DiffusionSampler::new(&network, &exact(), 2, shape, &flex)
                .unwrap()
                .with_guide(&guide);
            let sampler = sampler.with_batch_size(2);
            let message = sampler.sample(3, 0).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let ok = || {
            MomentMatchingGuidance::new(Degradation::Identity, &ones([1, 1, 4, 4]), 0.0).unwrap()
        };
        for (wrong, field) in [
            (
                MomentMatchingGuidance::new(Degradation::Identity, &ones([1, 1, 4, 4]), -1.0),
                "`noise`",
            ),
            (ok().with_iterations(0), "`iterations`"),
            (ok().with_scale(-1.0), "`scale`"),
        ] {
            let message = wrong.unwrap_err().to_string();
            assert!(message.contains(field), "{message}");
        }
    }
}
