//! Penalties on the critic's slope, without second derivatives.
//!
//! A penalty on `‖∇ₓD(x)‖` is trained by differentiating it in the weights, a second derivative.
//! Along the direction `u = ∇ₓD(x) / ‖∇ₓD(x)‖`, held constant, the slope is the norm of the
//! gradient, and
//!
//! ```text
//! ‖∇ₓD(x)‖ = (D(x + h·u) − D(x − h·u)) / 2h + O(h²)
//! ```
//!
//! has first derivatives in the weights only: `∂‖∇ₓD‖/∂w = u·∂∇ₓD/∂w`, because `u` has length 1 and
//! so `u·∂u/∂w = 0`. It costs one backward pass to the input, then two forward and backward passes.
//!
//! Of a critic with kinks (leaky ReLU) this is the slope between `x − h·u` and `x + h·u`, and its
//! derivatives see the kinks in between; a second derivative sees none, because it is taken at
//! points. Where no kink lies within reach the two agree.

use crate::Discriminator;
use aigc_core::{Error, Result, rng::Rng};
use burn::tensor::{Int, Tensor};
use serde::{Deserialize, Serialize};

/// Which slope is penalised, and how. Samples are those that the critic sees, after augmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GradientPenaltyKind {
    /// `½·E‖∇D(x)‖²` at real samples (Mescheder et al. 2018, <https://arxiv.org/abs/1801.04406>,
    /// eq. 9).
    R1,
    /// `½·E‖∇D(G(z))‖²` at generated ones (eq. 10 there).
    R2,
    /// `E(‖∇D(x̂)‖ − 1)²` at random points between pairs of real and generated samples (Gulrajani
    /// et al. 2017,
    /// <https://arxiv.org/abs/1704.00028>, eq. 3).
    WganGp,
    /// `E(‖∇D(x + δ)‖ − 1)²` around real samples (Kodali et al. 2017,
    /// <https://arxiv.org/abs/1705.07215>), with the authors' code's `δ = α·½·std(x)·u`, `α`
    /// uniform for each sample and `u` for each value.
    Dragan,
}

/// A penalty with its weight.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GradientPenalty {
    /// Which.
    pub kind: GradientPenaltyKind,
    /// Factor: `γ` of R1 and R2, `λ` of the others.
    pub weight: f64,
    /// Factor at the last step, reached along half a cosine, if it is to change (as Huang et al.
    /// 2024 do: a game that is held firmly at first can be sharper in the end).
    #[serde(default)]
    pub final_weight: Option<f64>,
    /// Made every so many steps with so many times the weight (lazy regularisation: Karras et al.
    /// 2020,
    /// <https://arxiv.org/abs/1912.04958>, appendix B).
    pub interval: usize,
    /// How far from a sample its slope is measured, per root of the number of values in a sample.
    pub fd_step: f64,
}

/// Small enough for the curvature of critics, large enough for 32-bit floats; `docs/gan.md` shows
/// the sweep.
const REACH: f64 = 5e-3;

impl GradientPenalty {
    /// `kind` with this weight, at every step.
    pub const fn new(kind: GradientPenaltyKind, weight: f64) -> Self {
        Self {
            kind,
            weight,
            final_weight: None,
            interval: 1,
            fd_step: REACH,
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

    /// Changes to the factor `weight` until the last step.
    pub const fn with_final_weight(self, weight: f64) -> Self {
        Self {
            final_weight: Some(weight),
            ..self
        }
    }

    /// The factor at `step`, counted from 0, of `steps`, for all the steps that it stands for.
    pub fn weight_at(&self, step: usize, steps: usize) -> f64 {
        let end = self.final_weight.unwrap_or(self.weight);
        let progress = (step as f64 / steps.saturating_sub(1).max(1) as f64).min(1.0);
        let now = end + (self.weight - end) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        now * self.interval as f64
    }

    /// Only every `steps` steps, with `steps` times the weight.
    pub const fn with_interval(self, steps: usize) -> Self {
        Self {
            interval: steps,
            ..self
        }
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        if !(self.weight > 0.0 && self.weight.is_finite()) {
            return Err(Error::config(
                "penalties.weight",
                self.weight,
                "a finite number above 0",
            ));
        }
        if let Some(end) = self
            .final_weight
            .filter(|end| !(*end >= 0.0 && end.is_finite()))
        {
            return Err(Error::config(
                "penalties.final_weight",
                end,
                "a finite number from 0 on",
            ));
        }
        if self.interval == 0 {
            return Err(Error::config(
                "penalties.every",
                self.interval,
                "at least 1",
            ));
        }
        if !(self.fd_step > 0.0 && self.fd_step <= 1.0) {
            return Err(Error::config(
                "penalties.reach",
                self.fd_step,
                "above 0, at most 1",
            ));
        }
        Ok(())
    }

    /// Whether it is made at `step`.
    pub fn is_due(&self, step: usize) -> bool {
        step.is_multiple_of(self.interval)
    }

    /// The penalty, `[1]`, before its weight ([`weight_at`](Self::weight_at)).
    ///
    /// # Shapes
    /// - real and fake: `[batch, channels, height, width]`; class: `[batch]`
    ///
    /// # Panics
    /// If the batches differ in size.
    pub fn loss<C: Discriminator>(
        &self,
        critic: &C,
        real: &Tensor<4>,
        fake: &Tensor<4>,
        class: Option<&Tensor<1, Int>>,
        rng: &mut Rng,
    ) -> Tensor<1> {
        let at = match self.kind {
            GradientPenaltyKind::R1 => real.clone(),
            GradientPenaltyKind::R2 => fake.clone(),
            GradientPenaltyKind::WganGp => {
                let share: Tensor<4> =
                    rng.uniform([real.dims()[0], 1, 1, 1], 0.0, 1.0, &real.device());
                fake.clone() + (real.clone() - fake.clone()) * share
            }
            GradientPenaltyKind::Dragan => {
                let share: Tensor<4> =
                    rng.uniform([real.dims()[0], 1, 1, 1], 0.0, 1.0, &real.device());
                let noise = rng.uniform(real.dims(), 0.0, 0.5, &real.device()) * share;
                let values = real.shape().num_elements() as i32;
                real.clone()
                    + noise
                        * real
                            .clone()
                            .reshape([values])
                            .var(0)
                            .sqrt()
                            .reshape([1, 1, 1, 1])
            }
        };
        let norm = gradient_norm(critic, at, class, self.fd_step);
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

/// `‖∇ₓD(x)‖` of each sample by central differences along the gradient's own direction, `[batch]`;
/// its derivatives in the critic's weights are those of the norm up to `O(h²)`. `h` is `reach`
/// times the root of the number of values in a sample.
///
/// The score of a sample must depend on nothing else: neither on the others of its batch nor on
/// chance.
///
/// # Shapes
/// - x: `[batch, channels, height, width]`; class: `[batch]`
pub fn gradient_norm<C: Discriminator>(
    critic: &C,
    x: Tensor<4>,
    class: Option<&Tensor<1, Int>>,
    reach: f64,
) -> Tensor<1> {
    let (shape, x) = (x.dims(), x.detach());
    let [n, channels, height, width] = shape;
    let values = channels * height * width;
    let point = x.clone().require_grad();
    let gradients = critic
        .clone()
        .no_grad()
        .score(point.clone(), class.cloned())
        .sum()
        .backward();
    let Some(gradient) = point.grad(&gradients) else {
        // A critic that does not look at its input has no slope.
        return Tensor::zeros([n], &x.device());
    };
    let gradient = Tensor::<4>::from_inner(gradient).reshape([n, values]);
    let length = (gradient.clone() * gradient.clone())
        .sum_dim(1)
        .sqrt()
        .clamp_min(1e-20);
    let h = reach * (values as f64).sqrt();
    let step = (gradient / length * h).reshape(shape);
    let both = Tensor::cat(vec![x.clone() + step.clone(), x - step], 0);
    let class = class.map(|class| Tensor::cat(vec![class.clone(), class.clone()], 0));
    let scores = critic.score(both, class);
    // Not divided: burn's backward pass of a division rounds the divisor to 32 bits.
    (scores.clone().narrow(0, 0, n) - scores.narrow(0, n, n)) * (0.5 / h)
}

/// LeCam regularisation: keeps each side's scores near the running mean of the other's (Tseng et
/// al. 2021,
/// <https://arxiv.org/abs/2104.03310>, eq. 5).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeCam {
    /// Factor `λ`.
    pub weight: f64,
    /// Share of the old running mean that a step keeps.
    pub decay: f64,
}

impl Default for LeCam {
    fn default() -> Self {
        Self {
            weight: 0.3,
            decay: 0.99,
        }
    }
}

/// Running means of the critic's scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Anchors {
    real: f64,
    fake: f64,
    begun: bool,
}

impl LeCam {
    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        if !(self.weight > 0.0 && self.weight.is_finite()) {
            return Err(Error::config(
                "lecam.weight",
                self.weight,
                "a finite number above 0",
            ));
        }
        if !(0.0..1.0).contains(&self.decay) {
            return Err(Error::config(
                "lecam.decay",
                self.decay,
                "from 0 to below 1",
            ));
        }
        Ok(())
    }

    /// `λ·(E(D(x) − α_F)² + E(D(G) − α_R)²)`, `[1]`, with the running means `α` of generated and
    /// real scores.
    pub(crate) fn measure(
        &self,
        real: &Tensor<1>,
        fake: &Tensor<1>,
        anchors: &mut Anchors,
    ) -> Tensor<1> {
        let means = Tensor::cat(vec![real.clone().mean(), fake.clone().mean()], 0)
            .detach()
            .into_data();
        let means: Vec<f64> = means.iter::<f64>().collect();
        let keep = if anchors.begun { self.decay } else { 0.0 };
        *anchors = Anchors {
            real: keep * anchors.real + (1.0 - keep) * means[0],
            fake: keep * anchors.fake + (1.0 - keep) * means[1],
            begun: true,
        };
        let square = |x: Tensor<1>| (x.clone() * x).mean();
        (square(real.clone() - anchors.fake) + square(fake.clone() - anchors.real)) * self.weight
    }
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

    /// `v·a(W·x + b)`, in whichever precision its numbers have.
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
        fn score(&self, x: Tensor<4>, _class: Option<Tensor<1, Int>>) -> Tensor<1> {
            let s =
                x.flatten::<2>(1, 3).matmul(self.w.val().transpose()) + self.b.val().unsqueeze();
            let a = match self.activation {
                Kind::Tanh => s.tanh(),
                Kind::Leaky => Activation::LeakyRelu(0.2).forward(s),
            };
            (a * self.v.val().unsqueeze()).sum_dim(1).squeeze_dim(1)
        }
    }

    /// The numbers of a [`Small`], on the host.
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

        fn critic(&self, activation: Kind, dtype: DType) -> Small {
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

        /// By hand: the norm of the slope at every point, and the derivatives of `mean f(‖∇D‖)` in
        /// `W`, `b` and `v`, where `slope` is `f′`. With `q = v∘a′`, `g = Wᵀ·q`:
        /// `∂½‖g‖²/∂W = q·gᵀ + (W·g∘v∘a″)·xᵀ`, `∂/∂b = W·g∘v∘a″`, `∂/∂v = W·g∘a′`.
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

    /// Derivatives of `loss` in `W`, `b` and `v`, zeros where it does not depend on them.
    fn derivatives(critic: &Small, loss: Tensor<1>) -> Vec<f64> {
        let gradients = loss.backward();
        let w = critic
            .w
            .val()
            .grad(&gradients)
            .map_or(vec![0.0; 2 * HIDDEN], values);
        let b = critic
            .b
            .val()
            .grad(&gradients)
            .map_or(vec![0.0; HIDDEN], values);
        let v = critic
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

    /// `½E‖∇D‖²` of R1 and R2, and `E(‖∇D‖ − 1)²` of WGAN-GP and DRAGAN, by their norms.
    type Shape = (fn(Tensor<1>) -> Tensor<1>, fn(f64) -> f64);
    const SHAPES: [Shape; 2] = [
        (|n| (n.clone() * n).mean() * 0.5, |n| n),
        (
            |n| ((n.clone() - 1.0) * (n - 1.0)).mean(),
            |n| 2.0 * (n - 1.0),
        ),
    ];

    #[test]
    fn in_f64_it_is_the_double_gradient_to_second_order() {
        let numbers = Numbers::new();
        for (penalty, slope) in SHAPES {
            let (norms, expected) = numbers.by_hand(Kind::Tanh, slope);
            let errors = [0.1, 0.05, 0.025, 1e-5].map(|reach| {
                let critic = numbers.critic(Kind::Tanh, DType::F64);
                let norm = gradient_norm(&critic, points(DType::F64), None, reach);
                let error = largest_error(&values(norm.clone()), &norms);
                [
                    error,
                    largest_error(&derivatives(&critic, penalty(norm)), &expected),
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

    /// The default reach is where neither curvature nor the 32 bits of a float hurt.
    #[test]
    fn in_f32_the_default_reach_is_a_good_one() {
        let numbers = Numbers::new();
        let (penalty, slope) = SHAPES[0];
        let (_, expected) = numbers.by_hand(Kind::Tanh, slope);
        let error = |reach: f64| {
            let critic = numbers.critic(Kind::Tanh, DType::F32);
            let norm = gradient_norm(&critic, points(DType::F32), None, reach);
            largest_error(&derivatives(&critic, penalty(norm)), &expected)
        };
        // The table of `docs/gan.md`.
        for reach in [1e-6, 1e-5, 1e-4, 1e-3, REACH, 1e-2, 1e-1, 0.3] {
            println!("| {reach:e} | {:.1e} |", error(reach));
        }
        let (small, usual, large) = (error(1e-6), error(REACH), error(0.3));
        assert!(
            usual < 1e-3 && small > 10.0 * usual && large > 10.0 * usual,
            "{small} {usual} {large}"
        );
    }

    /// Between its kinks a leaky ReLU network is linear, and the difference exact at any reach.
    #[test]
    fn leaky_relu_is_exact_between_its_kinks() {
        let numbers = Numbers::new();
        for (penalty, slope) in SHAPES {
            let (norms, expected) = numbers.by_hand(Kind::Leaky, slope);
            let critic = numbers.critic(Kind::Leaky, DType::F64);
            let norm = gradient_norm(&critic, points(DType::F64), None, 1e-3);
            assert!(largest_error(&values(norm.clone()), &norms) < 1e-10);
            assert!(largest_error(&derivatives(&critic, penalty(norm)), &expected) < 1e-10);
        }
    }

    /// On a kink the slope lies between those of its two sides.
    #[test]
    fn at_a_kink_the_slope_is_between_its_sides() {
        let device = Device::flex().autodiff();
        let mut numbers = Numbers {
            w: [[0.0; 2]; HIDDEN],
            b: [0.0; HIDDEN],
            v: [0.0; HIDDEN],
        };
        (numbers.w[0], numbers.v[0]) = ([3.0, 4.0], 2.0);
        let critic = numbers.critic(Kind::Leaky, DType::F64);
        let origin = Tensor::<4>::from_data(
            TensorData::new(vec![0.0f64; 2], [1, 2, 1, 1]),
            (&device, DType::F64),
        );
        let norm = gradient_norm(&critic, origin, None, REACH);
        let got = values(norm.clone())[0];
        // 2·‖(3, 4)‖ times 0.2 to 1; central differences give the middle.
        assert!((got - 6.0).abs() < 1e-9, "{got}");
        assert!(
            derivatives(&critic, norm.sum())
                .iter()
                .all(|d| d.is_finite())
        );
    }

    #[test]
    fn a_flat_critic_costs_nothing_and_breaks_nothing() {
        let numbers = Numbers {
            w: [[1.0; 2]; HIDDEN],
            b: [0.0; HIDDEN],
            v: [0.0; HIDDEN],
        };
        let critic = numbers.critic(Kind::Tanh, DType::F32);
        let norm = gradient_norm(&critic, points(DType::F32), None, REACH);
        assert_eq!(values(norm.clone()), [0.0; 4]);
        assert!(
            derivatives(&critic, (norm.clone() * norm).mean())
                .iter()
                .all(|d| *d == 0.0)
        );
    }

    /// Each kind at its own points, on a critic whose slope is known: `D(x) = a·x₀`, of norm `|a|`
    /// everywhere.
    #[test]
    fn kinds_are_their_formulas() {
        let mut numbers = Numbers {
            w: [[0.0; 2]; HIDDEN],
            b: [0.0; HIDDEN],
            v: [0.0; HIDDEN],
        };
        (numbers.w[0], numbers.b[0], numbers.v[0]) = ([1.0, 0.0], 100.0, 3.0);
        let critic = numbers.critic(Kind::Leaky, DType::F32);
        let (real, fake) = (points(DType::F32), points(DType::F32) * 0.5);
        for (penalty, expected) in [
            (GradientPenalty::r1(2.0), 9.0),
            (GradientPenalty::r2(2.0), 9.0),
            (GradientPenalty::wgan_gp(10.0), 40.0),
            (GradientPenalty::dragan(10.0).with_interval(4), 160.0),
        ] {
            let got = penalty.weight_at(0, 1)
                * values(penalty.loss(&critic, &real, &fake, None, &mut Rng::new(1)))[0];
            assert!((got / expected - 1.0).abs() < 2e-3, "{penalty:?}: {got}");
        }
    }

    /// WGAN-GP looks between the two, R1 at the real, R2 at the generated.
    #[test]
    fn kinds_look_where_they_should() {
        let numbers = Numbers::new();
        let norms = |at: Tensor<4>| {
            let critic = numbers.critic(Kind::Tanh, DType::F32);
            let norm = values(gradient_norm(&critic, at, None, REACH));
            norm.iter().map(|n| n * n).sum::<f64>() / norm.len() as f64 / 2.0
        };
        let (real, fake) = (points(DType::F32), points(DType::F32) * -2.0);
        let critic = numbers.critic(Kind::Tanh, DType::F32);
        let of = |penalty: GradientPenalty| {
            values(penalty.loss(&critic, &real, &fake, None, &mut Rng::new(1)))[0]
        };
        assert!((of(GradientPenalty::r1(1.0)) - norms(real.clone())).abs() < 1e-6);
        assert!((of(GradientPenalty::r2(1.0)) - norms(fake.clone())).abs() < 1e-6);
        // The same draw of shares, by hand.
        let share: Tensor<4> = Rng::new(1).uniform([4, 1, 1, 1], 0.0, 1.0, &real.device());
        let between = fake.clone() + (real.clone() - fake.clone()) * share;
        let critic = numbers.critic(Kind::Tanh, DType::F32);
        let norm = values(gradient_norm(&critic, between, None, REACH));
        let expected = norm.iter().map(|n| (n - 1.0).powi(2)).sum::<f64>() / 4.0;
        assert!((of(GradientPenalty::wgan_gp(1.0)) - expected).abs() < 1e-5);
        let mut rng = Rng::new(1);
        let share: Tensor<4> = rng.uniform([4, 1, 1, 1], 0.0, 1.0, &real.device());
        let noise: Tensor<4> = rng.uniform([4, 2, 1, 1], 0.0, 1.0, &real.device());
        let all = POINTS.concat();
        let mean = all.iter().sum::<f64>() / 8.0;
        let std = (all.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 7.0).sqrt();
        let critic = numbers.critic(Kind::Tanh, DType::F32);
        let norm = values(gradient_norm(
            &critic,
            real.clone() + share * noise * (0.5 * std),
            None,
            REACH,
        ));
        let expected = norm.iter().map(|n| (n - 1.0).powi(2)).sum::<f64>() / 4.0;
        assert!((of(GradientPenalty::dragan(1.0)) - expected).abs() < 1e-5);
    }

    #[test]
    fn lecam_is_its_formula() {
        let device = Device::flex();
        let lecam = LeCam {
            weight: 0.5,
            decay: 0.9,
        };
        let mut anchors = Anchors::default();
        let scores = |x: f32| Tensor::<1>::from_floats([x, x + 1.0], &device);
        // At first the anchors are the means themselves: 0.5 and −1.5.
        let first = values(lecam.measure(&scores(0.0), &scores(-2.0), &mut anchors))[0];
        let square = |a: f64, b: f64| (a * a + b * b) / 2.0;
        assert!(
            (first - 0.5 * (square(1.5, 2.5) + square(2.5, 1.5))).abs() < 1e-5,
            "{first}"
        );
        let second = values(lecam.measure(&scores(1.0), &scores(0.0), &mut anchors))[0];
        let (real, fake) = (0.9 * 0.5 + 0.1 * 1.5, -0.9 * 1.5 + 0.1 * 0.5);
        let expected = 0.5 * (square(1.0 - fake, 2.0 - fake) + square(-real, 1.0 - real));
        assert!((second - expected).abs() < 1e-5, "{second} {expected}");
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (penalty, field) in [
            (GradientPenalty::r1(-1.0), "penalties.weight"),
            (GradientPenalty::r2(f64::NAN), "penalties.weight"),
            (GradientPenalty::r1(1.0).with_interval(0), "penalties.every"),
            (
                GradientPenalty {
                    fd_step: 0.0,
                    ..GradientPenalty::r1(1.0)
                },
                "penalties.reach",
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
            LeCam {
                decay: 1.0,
                ..LeCam::default()
            }
            .validate()
            .is_err()
        );
        assert!(
            GradientPenalty::r1(1.0).with_interval(16).is_due(32)
                && !GradientPenalty::r1(1.0).with_interval(16).is_due(33)
        );
    }
}
