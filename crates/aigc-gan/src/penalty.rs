//! Gradient penalties on the discriminator, without second derivatives.
//!
//! A penalty on `‖∇ₓD(x)‖` is differentiated with respect to the weights, which takes second
//! derivatives. They are avoided as follows. Along the direction `u = ∇ₓD(x) / ‖∇ₓD(x)‖`, held
//! constant, the directional derivative of `D` equals the norm of its gradient. Its central
//! difference
//!
//! ```text
//! ‖∇ₓD(x)‖ = (D(x + h·u) − D(x − h·u)) / 2h + O(h²)
//! ```
//!
//! needs first derivatives with respect to the weights only: `∂‖∇ₓD‖/∂w = u·∂∇ₓD/∂w`, because `u`
//! has length 1 and therefore `u·∂u/∂w = 0`. This costs one backward pass to the input, then two
//! forward and backward passes.
//!
//! For a discriminator with kinks (leaky ReLU), the difference is the mean slope between `x − h·u`
//! and `x + h·u`, and its derivatives include the kinks in between. A second derivative includes no
//! kinks, because it is taken at a point. The two agree if there is no kink within `h`.

use crate::Discriminator;
use aigc_core::{Result, check, rng::Rng};
use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

/// Type of a gradient penalty: where the norm of the gradient is penalised, and how. Samples are
/// those that the discriminator receives, after augmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GradientPenaltyKind {
    /// `½·E‖∇D(x)‖²` at real samples (Mescheder et al. 2018, <https://arxiv.org/abs/1801.04406>,
    /// eq. 9).
    R1,
    /// `½·E‖∇D(G(z))‖²` at generated samples (Mescheder et al. 2018, eq. 10).
    R2,
    /// `E(‖∇D(x̂)‖ − 1)²` at random points between pairs of real and generated samples (Gulrajani
    /// et al. 2017, <https://arxiv.org/abs/1704.00028>, eq. 3).
    WganGp,
    /// `E(‖∇D(x + δ)‖ − 1)²` near real samples (Kodali et al. 2017,
    /// <https://arxiv.org/abs/1705.07215>), with `δ = α·½·std(x)·u` as in the authors' code; `α` is
    /// uniform on `[0, 1)` for each sample, and `u` for each value.
    Dragan,
}

/// A gradient penalty with its weight.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GradientPenalty {
    /// Type of the penalty.
    pub kind: GradientPenaltyKind,
    /// Weight: `γ` for R1 and R2, `λ` for the others.
    pub weight: f64,
    /// Weight at the last step, approached along half a cosine; the weight is constant if `None`.
    /// Huang et al. 2024 start with a strong penalty and weaken it.
    #[serde(default, alias = "weight_at_end")]
    pub final_weight: Option<f64>,
    /// Number of steps between evaluations of the penalty; the weight is multiplied by it (lazy
    /// regularisation: Karras et al. 2020, <https://arxiv.org/abs/1912.04958>, appendix B).
    #[serde(alias = "every")]
    pub interval: usize,
    /// Step `h` of the finite difference, divided by the square root of the number of values in a
    /// sample.
    #[serde(alias = "reach")]
    pub fd_step: f64,
}

/// Small enough for the curvature of discriminators and large enough for 32-bit floats;
/// `docs/gan.md` has the measurements.
const FD_STEP: f64 = 5e-3;

impl GradientPenalty {
    /// A penalty with this weight, evaluated at every step.
    pub const fn new(kind: GradientPenaltyKind, weight: f64) -> Self {
        Self {
            kind,
            weight,
            final_weight: None,
            interval: 1,
            fd_step: FD_STEP,
        }
    }

    /// R1 with `γ = weight`.
    pub const fn r1(weight: f64) -> Self {
        Self::new(GradientPenaltyKind::R1, weight)
    }

    /// R2 with `γ = weight`.
    pub const fn r2(weight: f64) -> Self {
        Self::new(GradientPenaltyKind::R2, weight)
    }

    /// WGAN-GP with `λ = weight`, usually 10.
    pub const fn wgan_gp(weight: f64) -> Self {
        Self::new(GradientPenaltyKind::WganGp, weight)
    }

    /// DRAGAN with `λ = weight`, usually 10.
    pub const fn dragan(weight: f64) -> Self {
        Self::new(GradientPenaltyKind::Dragan, weight)
    }

    /// Changes the weight along half a cosine, to `weight` at the last step.
    pub const fn with_final_weight(self, weight: f64) -> Self {
        Self {
            final_weight: Some(weight),
            ..self
        }
    }

    /// The weight at `step` (counted from 0) of `steps`, multiplied by the interval.
    pub fn weight_at(&self, step: usize, steps: usize) -> f64 {
        let end = self.final_weight.unwrap_or(self.weight);
        let progress = (step as f64 / steps.saturating_sub(1).max(1) as f64).min(1.0);
        let now = end + (self.weight - end) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        now * self.interval as f64
    }

    /// Evaluates the penalty only every `steps` steps, with `steps` times the weight.
    pub const fn with_interval(self, steps: usize) -> Self {
        Self {
            interval: steps,
            ..self
        }
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        check::positive("penalties.weight", self.weight)?;
        if let Some(end) = self.final_weight {
            check::non_negative("penalties.final_weight", end)?;
        }
        check::ensure(
            self.interval > 0,
            "penalties.interval",
            self.interval,
            "at least 1",
        )?;
        check::ensure(
            self.fd_step > 0.0 && self.fd_step <= 1.0,
            "penalties.fd_step",
            self.fd_step,
            "above 0, at most 1",
        )
    }

    /// Whether the penalty is evaluated at `step`.
    pub fn is_due(&self, step: usize) -> bool {
        step.is_multiple_of(self.interval)
    }

    /// The penalty without its weight ([`weight_at`](Self::weight_at)).
    ///
    /// # Shapes
    /// - real and fake: `[batch, …]`; class: `[batch]`
    /// - output: `[1]`
    ///
    /// # Panics
    /// If the batches differ in size.
    pub fn loss<C: Discriminator<D>, const D: usize>(
        &self,
        discriminator: &C,
        real: &Tensor<D>,
        fake: &Tensor<D>,
        class: Option<&Tensor<1, Int>>,
        rng: &mut Rng,
    ) -> Tensor<1> {
        let mut per_sample = [1; D];
        per_sample[0] = real.dims()[0];
        let at = match self.kind {
            GradientPenaltyKind::R1 => real.clone(),
            GradientPenaltyKind::R2 => fake.clone(),
            GradientPenaltyKind::WganGp => {
                let share: Tensor<D> = rng.uniform(per_sample, 0.0, 1.0, &real.device());
                fake.clone() + (real.clone() - fake.clone()) * share
            }
            GradientPenaltyKind::Dragan => {
                let share: Tensor<D> = rng.uniform(per_sample, 0.0, 1.0, &real.device());
                let noise = rng.uniform(real.dims(), 0.0, 0.5, &real.device()) * share;
                let values = real.shape().num_elements() as i32;
                real.clone() + noise * real.clone().reshape([values]).var(0).sqrt().reshape([1; D])
            }
        };
        let norm = gradient_norm(discriminator, at, class, self.fd_step);
        let excess = match self.kind {
            GradientPenaltyKind::R1 | GradientPenaltyKind::R2 => norm,
            GradientPenaltyKind::WganGp | GradientPenaltyKind::Dragan => norm - 1.0,
        };
        let half = if matches!(self.kind, GradientPenaltyKind::R1 | GradientPenaltyKind::R2) {
            0.5
        } else {
            1.0
        };
        (excess.clone() * excess).mean() * half
    }
}

/// The norm `‖∇ₓD(x)‖` of each sample's gradient, by central differences along the direction of the
/// gradient.
///
/// The derivatives of the result with respect to the discriminator's weights are those of the norm,
/// up to `O(h²)`. `h` is `fd_step` times the square root of the number of values in a sample.
///
/// The logit of a sample must not depend on the other samples of the batch, nor on random numbers.
///
/// # Shapes
/// - x: `[batch, …]`; class: `[batch]`
/// - output: `[batch]`
pub fn gradient_norm<C: Discriminator<D>, const D: usize>(
    discriminator: &C,
    x: Tensor<D>,
    class: Option<&Tensor<1, Int>>,
    fd_step: f64,
) -> Tensor<1> {
    let (shape, x) = (x.dims(), x.detach());
    let n = shape[0];
    let values: usize = shape[1..].iter().product();
    let point = x.clone().require_grad();
    let gradients = discriminator
        .clone()
        .no_grad()
        .forward(point.clone(), class.cloned())
        .sum()
        .backward();
    let Some(gradient) = point.grad(&gradients) else {
        // A discriminator that ignores its input has no gradient.
        return Tensor::zeros([n], &x.device());
    };
    let gradient = Tensor::<D>::from_inner(gradient).reshape([n, values]);
    let length = (gradient.clone() * gradient.clone())
        .sum_dim(1)
        .sqrt()
        .clamp_min(1e-20);
    let h = fd_step * (values as f64).sqrt();
    let step = (gradient / length * h).reshape(shape);
    let both = Tensor::cat(vec![x.clone() + step.clone(), x - step], 0);
    let class = class.map(|class| Tensor::cat(vec![class.clone(), class.clone()], 0));
    let scores = discriminator.forward(both, class);
    // Multiplied instead of divided: burn's backward pass of a division rounds the divisor to 32
    // bits.
    (scores.clone().narrow(0, 0, n) - scores.narrow(0, n, n)) * (0.5 / h)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::nn::Activation;
    use burn::{
        module::{Module, Param},
        tensor::{DType, Device, TensorData},
    };

    const HIDDEN: usize = 5;
    const POINTS: [[f64; 2]; 4] = [[0.3, -0.7], [1.1, 0.4], [-0.9, 0.2], [0.05, 1.3]];

    /// `v·a(W·x + b)`, in the precision of its parameters.
    #[derive(Module, Debug)]
    struct Small {
        w: Param<Tensor<2>>,
        b: Param<Tensor<1>>,
        v: Param<Tensor<1>>,
        #[module(skip)]
        activation: Kind,
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Kind {
        Tanh,
        Leaky,
    }

    impl Discriminator for Small {
        fn forward(&self, x: Tensor<4>, _class: Option<Tensor<1, Int>>) -> Tensor<1> {
            let s =
                x.flatten::<2>(1, 3).matmul(self.w.val().transpose()) + self.b.val().unsqueeze();
            let a = match self.activation {
                Kind::Tanh => s.tanh(),
                Kind::Leaky => Activation::LeakyRelu(0.2).forward(s),
            };
            (a * self.v.val().unsqueeze()).sum_dim(1).squeeze_dim(1)
        }
    }

    /// The parameters of a [`Small`], on the host.
    struct Numbers {
        w: [[f64; 2]; HIDDEN],
        b: [f64; HIDDEN],
        v: [f64; HIDDEN],
    }

    impl Numbers {
        fn new() -> Self {
            let mut draws = Rng::new(5)
                .normal_vec(4 * HIDDEN)
                .into_iter()
                .map(f64::from);
            let mut next = || draws.next().unwrap();
            Self {
                w: std::array::from_fn(|_| [next(), next()]),
                b: std::array::from_fn(|_| next()),
                v: std::array::from_fn(|_| next()),
            }
        }

        fn discriminator(&self, activation: Kind, dtype: DType) -> Small {
            let device = Device::flex().autodiff();
            let one = |values: &[f64]| {
                Param::from_tensor(
                    Tensor::<1>::from_data(TensorData::from(values), (&device, dtype))
                        .require_grad(),
                )
            };
            let w = TensorData::new(self.w.concat(), [HIDDEN, 2]);
            let w = Param::from_tensor(Tensor::<2>::from_data(w, (&device, dtype)).require_grad());
            Small {
                w,
                b: one(&self.b),
                v: one(&self.v),
                activation,
            }
        }

        /// Analytic values: the norm of the gradient at every point, and the derivatives of `mean
        /// f(‖∇D‖)` with respect to `W`, `b` and `v`, where `slope` is `f′`. With `q = v∘a′`, `g =
        /// Wᵀ·q`: `∂½‖g‖²/∂W = q·gᵀ + (W·g∘v∘a″)·xᵀ`, `∂/∂b = W·g∘v∘a″`, `∂/∂v = W·g∘a′`.
        fn by_hand(&self, activation: Kind, slope: impl Fn(f64) -> f64) -> (Vec<f64>, Vec<f64>) {
            let mut norms = Vec::new();
            let (mut dw, mut db, mut dv) = ([[0.0; 2]; HIDDEN], [0.0; HIDDEN], [0.0; HIDDEN]);
            for x in POINTS {
                let s: [f64; HIDDEN] =
                    std::array::from_fn(|i| self.w[i][0] * x[0] + self.w[i][1] * x[1] + self.b[i]);
                let first = |i: usize| match activation {
                    Kind::Tanh => 1.0 - s[i].tanh().powi(2),
                    Kind::Leaky => {
                        if s[i] > 0.0 {
                            1.0
                        } else {
                            0.2
                        }
                    }
                };
                let second = |i: usize| match activation {
                    Kind::Tanh => -2.0 * s[i].tanh() * (1.0 - s[i].tanh().powi(2)),
                    Kind::Leaky => 0.0,
                };
                let g: [f64; 2] = std::array::from_fn(|j| {
                    (0..HIDDEN)
                        .map(|i| self.w[i][j] * self.v[i] * first(i))
                        .sum()
                });
                let norm = g[0].hypot(g[1]);
                norms.push(norm);
                let factor = slope(norm) / norm / POINTS.len() as f64;
                for i in 0..HIDDEN {
                    let wg = self.w[i][0] * g[0] + self.w[i][1] * g[1];
                    for j in 0..2 {
                        dw[i][j] += factor
                            * (self.v[i] * first(i) * g[j] + wg * self.v[i] * second(i) * x[j]);
                    }
                    db[i] += factor * wg * self.v[i] * second(i);
                    dv[i] += factor * wg * first(i);
                }
            }
            (norms, [dw.concat(), db.to_vec(), dv.to_vec()].concat())
        }
    }

    fn points(dtype: DType) -> Tensor<4> {
        let device = Device::flex().autodiff();
        Tensor::from_data(
            TensorData::new(POINTS.concat(), [POINTS.len(), 2, 1, 1]),
            (&device, dtype),
        )
    }

    fn values<const D: usize>(x: Tensor<D>) -> Vec<f64> {
        x.into_data().iter::<f64>().collect()
    }

    /// Derivatives of `loss` with respect to `W`, `b` and `v`; zeros if it does not depend on them.
    fn derivatives(discriminator: &Small, loss: Tensor<1>) -> Vec<f64> {
        let gradients = loss.backward();
        let w = discriminator
            .w
            .val()
            .grad(&gradients)
            .map_or(vec![0.0; 2 * HIDDEN], values);
        let b = discriminator
            .b
            .val()
            .grad(&gradients)
            .map_or(vec![0.0; HIDDEN], values);
        let v = discriminator
            .v
            .val()
            .grad(&gradients)
            .map_or(vec![0.0; HIDDEN], values);
        [w, b, v].concat()
    }

    fn largest_error(got: &[f64], expected: &[f64]) -> f64 {
        let scale = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        got.iter()
            .zip(expected)
            .fold(0.0f64, |m, (a, b)| m.max((a - b).abs()))
            / scale
    }

    /// `½E‖∇D‖²` of R1 and R2, and `E(‖∇D‖ − 1)²` of WGAN-GP and DRAGAN, as functions of the norms.
    type Shape = (fn(Tensor<1>) -> Tensor<1>, fn(f64) -> f64);
    const SHAPES: [Shape; 2] = [
        (|n| (n.clone() * n).mean() * 0.5, |n| n),
        (
            |n| ((n.clone() - 1.0) * (n - 1.0)).mean(),
            |n| 2.0 * (n - 1.0),
        ),
    ];

    #[test]
    fn gradient_norm_is_second_order_in_f64() {
        let numbers = Numbers::new();
        for (penalty, slope) in SHAPES {
            let (norms, expected) = numbers.by_hand(Kind::Tanh, slope);
            let errors = [0.1, 0.05, 0.025, 1e-5].map(|fd_step| {
                let discriminator = numbers.discriminator(Kind::Tanh, DType::F64);
                let norm = gradient_norm(&discriminator, points(DType::F64), None, fd_step);
                let error = largest_error(&values(norm.clone()), &norms);
                [
                    error,
                    largest_error(&derivatives(&discriminator, penalty(norm)), &expected),
                ]
            });
            for k in 0..2 {
                let orders =
                    [errors[0][k] / errors[1][k], errors[1][k] / errors[2][k]].map(f64::log2);
                assert!(
                    orders.iter().all(|order| (order - 2.0).abs() < 0.1),
                    "{orders:?} of {errors:?}"
                );
                assert!(errors[3][k] < 1e-8, "{errors:?}");
            }
        }
    }

    /// With the default step, neither curvature nor rounding to 32 bits dominates the error.
    #[test]
    fn default_fd_step_is_accurate_in_f32() {
        let numbers = Numbers::new();
        let (penalty, slope) = SHAPES[0];
        let (_, expected) = numbers.by_hand(Kind::Tanh, slope);
        let error = |fd_step: f64| {
            let discriminator = numbers.discriminator(Kind::Tanh, DType::F32);
            let norm = gradient_norm(&discriminator, points(DType::F32), None, fd_step);
            largest_error(&derivatives(&discriminator, penalty(norm)), &expected)
        };
        // The table of `docs/gan.md`.
        for fd_step in [1e-6, 1e-5, 1e-4, 1e-3, FD_STEP, 1e-2, 1e-1, 0.3] {
            println!("| {fd_step:e} | {:.1e} |", error(fd_step));
        }
        let (small, usual, large) = (error(1e-6), error(FD_STEP), error(0.3));
        assert!(
            usual < 1e-3 && small > 10.0 * usual && large > 10.0 * usual,
            "{small} {usual} {large}"
        );
    }

    /// Between its kinks a leaky ReLU network is linear, so the difference is exact for any step.
    #[test]
    fn gradient_norm_of_leaky_relu_is_exact_between_kinks() {
        let numbers = Numbers::new();
        for (penalty, slope) in SHAPES {
            let (norms, expected) = numbers.by_hand(Kind::Leaky, slope);
            let discriminator = numbers.discriminator(Kind::Leaky, DType::F64);
            let norm = gradient_norm(&discriminator, points(DType::F64), None, 1e-3);
            assert!(largest_error(&values(norm.clone()), &norms) < 1e-10);
            assert!(largest_error(&derivatives(&discriminator, penalty(norm)), &expected) < 1e-10);
        }
    }

    /// At a kink the slope lies between the slopes of the two sides.
    #[test]
    fn gradient_norm_at_a_kink_lies_between_its_sides() {
        let device = Device::flex().autodiff();
        let mut numbers = Numbers {
            w: [[0.0; 2]; HIDDEN],
            b: [0.0; HIDDEN],
            v: [0.0; HIDDEN],
        };
        (numbers.w[0], numbers.v[0]) = ([3.0, 4.0], 2.0);
        let discriminator = numbers.discriminator(Kind::Leaky, DType::F64);
        let origin = Tensor::<4>::from_data(
            TensorData::new(vec![0.0f64; 2], [1, 2, 1, 1]),
            (&device, DType::F64),
        );
        let norm = gradient_norm(&discriminator, origin, None, FD_STEP);
        let got = values(norm.clone())[0];
        // 2·‖(3, 4)‖ times 0.2 to 1; central differences give the mean.
        assert!((got - 6.0).abs() < 1e-9, "{got}");
        assert!(
            derivatives(&discriminator, norm.sum())
                .iter()
                .all(|d| d.is_finite())
        );
    }

    #[test]
    fn gradient_norm_of_a_constant_is_zero() {
        let numbers = Numbers {
            w: [[1.0; 2]; HIDDEN],
            b: [0.0; HIDDEN],
            v: [0.0; HIDDEN],
        };
        let discriminator = numbers.discriminator(Kind::Tanh, DType::F32);
        let norm = gradient_norm(&discriminator, points(DType::F32), None, FD_STEP);
        assert_eq!(values(norm.clone()), [0.0; 4]);
        assert!(
            derivatives(&discriminator, (norm.clone() * norm).mean())
                .iter()
                .all(|d| *d == 0.0)
        );
    }

    /// Each kind at its points, for a discriminator with a known gradient: `D(x) = a·x₀`, with norm
    /// `|a|` everywhere.
    #[test]
    fn penalties_match_their_formulas() {
        let mut numbers = Numbers {
            w: [[0.0; 2]; HIDDEN],
            b: [0.0; HIDDEN],
            v: [0.0; HIDDEN],
        };
        (numbers.w[0], numbers.b[0], numbers.v[0]) = ([1.0, 0.0], 100.0, 3.0);
        let discriminator = numbers.discriminator(Kind::Leaky, DType::F32);
        let (real, fake) = (points(DType::F32), points(DType::F32) * 0.5);
        for (penalty, expected) in [
            (GradientPenalty::r1(2.0), 9.0),
            (GradientPenalty::r2(2.0), 9.0),
            (GradientPenalty::wgan_gp(10.0), 40.0),
            (GradientPenalty::dragan(10.0).with_interval(4), 160.0),
        ] {
            let got = penalty.weight_at(0, 1)
                * values(penalty.loss(&discriminator, &real, &fake, None, &mut Rng::new(1)))[0];
            assert!((got / expected - 1.0).abs() < 2e-3, "{penalty:?}: {got}");
        }
    }

    /// WGAN-GP between real and generated samples, R1 at real ones, R2 at generated ones.
    #[test]
    fn penalties_are_evaluated_at_their_points() {
        let numbers = Numbers::new();
        let norms = |at: Tensor<4>| {
            let discriminator = numbers.discriminator(Kind::Tanh, DType::F32);
            let norm = values(gradient_norm(&discriminator, at, None, FD_STEP));
            norm.iter().map(|n| n * n).sum::<f64>() / norm.len() as f64 / 2.0
        };
        let (real, fake) = (points(DType::F32), points(DType::F32) * -2.0);
        let discriminator = numbers.discriminator(Kind::Tanh, DType::F32);
        let of = |penalty: GradientPenalty| {
            values(penalty.loss(&discriminator, &real, &fake, None, &mut Rng::new(1)))[0]
        };
        assert!((of(GradientPenalty::r1(1.0)) - norms(real.clone())).abs() < 1e-6);
        assert!((of(GradientPenalty::r2(1.0)) - norms(fake.clone())).abs() < 1e-6);
        // The same random interpolation, computed separately.
        let share: Tensor<4> = Rng::new(1).uniform([4, 1, 1, 1], 0.0, 1.0, &real.device());
        let between = fake.clone() + (real.clone() - fake.clone()) * share;
        let discriminator = numbers.discriminator(Kind::Tanh, DType::F32);
        let norm = values(gradient_norm(&discriminator, between, None, FD_STEP));
        let expected = norm.iter().map(|n| (n - 1.0).powi(2)).sum::<f64>() / 4.0;
        assert!((of(GradientPenalty::wgan_gp(1.0)) - expected).abs() < 1e-5);
        let mut rng = Rng::new(1);
        let share: Tensor<4> = rng.uniform([4, 1, 1, 1], 0.0, 1.0, &real.device());
        let noise: Tensor<4> = rng.uniform([4, 2, 1, 1], 0.0, 1.0, &real.device());
        let all = POINTS.concat();
        let mean = all.iter().sum::<f64>() / 8.0;
        let std = (all.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 7.0).sqrt();
        let discriminator = numbers.discriminator(Kind::Tanh, DType::F32);
        let norm = values(gradient_norm(
            &discriminator,
            real.clone() + share * noise * (0.5 * std),
            None,
            FD_STEP,
        ));
        let expected = norm.iter().map(|n| (n - 1.0).powi(2)).sum::<f64>() / 4.0;
        assert!((of(GradientPenalty::dragan(1.0)) - expected).abs() < 1e-5);
    }

    #[test]
    fn penalty_rejects_out_of_range() {
        for (penalty, field) in [
            (GradientPenalty::r1(-1.0), "penalties.weight"),
            (GradientPenalty::r2(f64::NAN), "penalties.weight"),
            (
                GradientPenalty::r1(1.0).with_interval(0),
                "penalties.interval",
            ),
            (
                GradientPenalty {
                    fd_step: 0.0,
                    ..GradientPenalty::r1(1.0)
                },
                "penalties.fd_step",
            ),
        ] {
            assert!(penalty.validate().unwrap_err().to_string().contains(field));
        }
        assert!(
            GradientPenalty::r1(1.0)
                .with_final_weight(-1.0)
                .validate()
                .is_err()
        );
        let easing = GradientPenalty::r1(8.0).with_final_weight(2.0);
        assert_eq!(
            [0, 50, 100].map(|step| (easing.weight_at(step, 101) * 1e9).round() / 1e9),
            [8.0, 5.0, 2.0]
        );
        assert_eq!(GradientPenalty::r1(8.0).weight_at(70, 101), 8.0);
        assert!(
            GradientPenalty::r1(1.0).with_interval(16).is_due(32)
                && !GradientPenalty::r1(1.0).with_interval(16).is_due(33)
        );
    }
}
