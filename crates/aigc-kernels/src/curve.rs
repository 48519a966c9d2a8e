//! Activation functions and their derivatives on vector registers.

use super::math::{exp, normal, sigmoid, softplus, tanh};
use pulp::Simd;

/// A function of one variable and its derivative.
pub(crate) trait Curve: Copy + Send + Sync {
    /// Approximate cost of one element in floating-point operations.
    const COST: usize;
    /// `f(x)`
    fn value<S: Simd>(self, s: S, x: S::f32s) -> S::f32s;
    /// `f′(x)`
    fn slope<S: Simd>(self, s: S, x: S::f32s) -> S::f32s;
    /// `dy·f′(x)`
    #[inline(always)]
    fn vjp<S: Simd>(self, s: S, x: S::f32s, dy: S::f32s) -> S::f32s {
        s.mul_f32s(dy, self.slope(s, x))
    }
}

/// `x`.
#[derive(Clone, Copy)]
pub(crate) struct Identity;
/// `max(0, x)`. Computed by selection instead of multiplication, so that `∞·0` gives no NaN.
#[derive(Clone, Copy)]
pub(crate) struct Relu;
/// `x` where positive, `slope·x` elsewhere.
#[derive(Clone, Copy)]
pub(crate) struct Leaky(pub f32);
#[derive(Clone, Copy)]
pub(crate) struct Gelu;
#[derive(Clone, Copy)]
pub(crate) struct GeluTanh;
#[derive(Clone, Copy)]
pub(crate) struct Silu;
#[derive(Clone, Copy)]
pub(crate) struct Tanh;
#[derive(Clone, Copy)]
pub(crate) struct Sigmoid;
#[derive(Clone, Copy)]
pub(crate) struct Softplus;
#[derive(Clone, Copy)]
pub(crate) struct QuickGelu;
#[derive(Clone, Copy)]
pub(crate) struct Mish;
/// `bound·tanh(x/bound)`.
#[derive(Clone, Copy)]
pub(crate) struct Bounded(pub f32);

impl Curve for Identity {
    const COST: usize = 1;
    #[inline(always)]
    fn value<S: Simd>(self, _: S, x: S::f32s) -> S::f32s {
        x
    }
    #[inline(always)]
    fn slope<S: Simd>(self, s: S, _: S::f32s) -> S::f32s {
        s.splat_f32s(1.0)
    }
}

impl Curve for Relu {
    const COST: usize = 2;
    #[inline(always)]
    fn value<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        let zero = s.splat_f32s(0.0);
        s.select_f32s(s.less_than_f32s(x, zero), zero, x)
    }
    #[inline(always)]
    fn slope<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        self.vjp(s, x, s.splat_f32s(1.0))
    }
    #[inline(always)]
    fn vjp<S: Simd>(self, s: S, x: S::f32s, dy: S::f32s) -> S::f32s {
        let zero = s.splat_f32s(0.0);
        s.select_f32s(s.greater_than_f32s(x, zero), dy, zero)
    }
}

impl Curve for Leaky {
    const COST: usize = 2;
    #[inline(always)]
    fn value<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        let negative = s.less_than_f32s(x, s.splat_f32s(0.0));
        s.select_f32s(negative, s.mul_f32s(x, s.splat_f32s(self.0)), x)
    }
    #[inline(always)]
    fn slope<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        // At zero the derivative is that of the negative side, as in PyTorch.
        let positive = s.greater_than_f32s(x, s.splat_f32s(0.0));
        s.select_f32s(positive, s.splat_f32s(1.0), s.splat_f32s(self.0))
    }
}

impl Curve for Gelu {
    const COST: usize = 30;
    #[inline(always)]
    fn value<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        s.mul_f32s(x, normal(s, x).0)
    }
    #[inline(always)]
    fn slope<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        let (below, density) = normal(s, x);
        s.mul_add_e_f32s(x, density, below)
    }
}

/// `√(2/π)` and the coefficient of `x³` (Hendrycks and Gimpel 2016, section 2).
const GELU: [f32; 2] = [0.797_884_6, 0.044_715];

impl Curve for GeluTanh {
    const COST: usize = 25;
    #[inline(always)]
    fn value<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        let one = s.splat_f32s(1.0);
        let cubic = s.mul_add_e_f32s(s.mul_f32s(x, x), s.splat_f32s(GELU[1]), one);
        let t = tanh(s, s.mul_f32s(s.mul_f32s(x, s.splat_f32s(GELU[0])), cubic));
        s.mul_f32s(s.mul_f32s(x, s.splat_f32s(0.5)), s.add_f32s(one, t))
    }
    #[inline(always)]
    fn slope<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        let (one, half, scale) = (s.splat_f32s(1.0), s.splat_f32s(0.5), s.splat_f32s(GELU[0]));
        let square = s.mul_f32s(x, x);
        let cubic = s.mul_add_e_f32s(square, s.splat_f32s(GELU[1]), one);
        let t = tanh(s, s.mul_f32s(s.mul_f32s(x, scale), cubic));
        let inner = s.mul_f32s(
            scale,
            s.mul_add_e_f32s(square, s.splat_f32s(3.0 * GELU[1]), one),
        );
        let steep = s.mul_f32s(s.sub_f32s(one, s.mul_f32s(t, t)), inner);
        s.mul_f32s(half, s.add_f32s(s.mul_add_e_f32s(x, steep, t), one))
    }
}

impl Curve for Silu {
    const COST: usize = 20;
    #[inline(always)]
    fn value<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        let one = s.splat_f32s(1.0);
        s.div_f32s(x, s.add_f32s(one, exp(s, s.neg_f32s(x))))
    }
    #[inline(always)]
    fn slope<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        // σ·(1 + x·(1 − σ))
        let (one, y) = (s.splat_f32s(1.0), sigmoid(s, x));
        s.mul_f32s(y, s.mul_add_e_f32s(x, s.sub_f32s(one, y), one))
    }
}

impl Curve for Tanh {
    const COST: usize = 20;
    #[inline(always)]
    fn value<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        tanh(s, x)
    }
    #[inline(always)]
    fn slope<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        let y = tanh(s, x);
        s.sub_f32s(s.splat_f32s(1.0), s.mul_f32s(y, y))
    }
}

impl Curve for Bounded {
    const COST: usize = Tanh::COST + 2;
    #[inline(always)]
    fn value<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        let bound = s.splat_f32s(self.0);
        s.mul_f32s(bound, Tanh.value(s, s.div_f32s(x, bound)))
    }
    #[inline(always)]
    fn slope<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        Tanh.slope(s, s.div_f32s(x, s.splat_f32s(self.0)))
    }
}

impl Curve for Sigmoid {
    const COST: usize = 20;
    #[inline(always)]
    fn value<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        sigmoid(s, x)
    }
    #[inline(always)]
    fn slope<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        let y = sigmoid(s, x);
        s.mul_f32s(y, s.sub_f32s(s.splat_f32s(1.0), y))
    }
}

impl Curve for Softplus {
    const COST: usize = 25;
    #[inline(always)]
    fn value<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        softplus(s, x)
    }
    #[inline(always)]
    fn slope<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        sigmoid(s, x)
    }
}

/// The factor of the sigmoid's argument (Hendrycks and Gimpel 2016, section 2).
const QUICK_GELU: f32 = 1.702;

impl Curve for QuickGelu {
    const COST: usize = 20;
    #[inline(always)]
    fn value<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        s.mul_f32s(x, sigmoid(s, s.mul_f32s(x, s.splat_f32s(QUICK_GELU))))
    }
    #[inline(always)]
    fn slope<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        // σ(u)·(1 + u·(1 − σ(u))) with u = 1.702·x
        let one = s.splat_f32s(1.0);
        let u = s.mul_f32s(x, s.splat_f32s(QUICK_GELU));
        let y = sigmoid(s, u);
        s.mul_f32s(y, s.mul_add_e_f32s(u, s.sub_f32s(one, y), one))
    }
}

impl Curve for Mish {
    const COST: usize = 45;
    #[inline(always)]
    fn value<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        s.mul_f32s(x, tanh(s, softplus(s, x)))
    }
    #[inline(always)]
    fn slope<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        // t + x·σ(x)·(1 − t²) with t = tanh(ln(1 + eˣ))
        let t = tanh(s, softplus(s, x));
        let steep = s.sub_f32s(s.splat_f32s(1.0), s.mul_f32s(t, t));
        s.mul_add_e_f32s(s.mul_f32s(x, sigmoid(s, x)), steep, t)
    }
}

/// Work that is compiled once per curve.
pub(crate) trait WithCurve {
    /// The result.
    type Output;
    /// Runs the work with `curve`.
    fn with<C: Curve>(self, curve: C) -> Self::Output;
}
