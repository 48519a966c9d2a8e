//! The exponential linear unit on vector registers.

use super::{
    curve::Curve,
    math::{exp, exp_m1},
};
use pulp::Simd;

/// `x` where positive, `alpha·(eˣ − 1)` elsewhere.
#[derive(Clone, Copy)]
pub(crate) struct Elu(pub f32);

impl Curve for Elu {
    const COST: usize = 20;
    #[inline(always)]
    fn value<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        let negative = s.less_than_f32s(x, s.splat_f32s(0.0));
        let below = s.mul_f32s(s.splat_f32s(self.0), exp_m1(s, x));
        s.select_f32s(negative, below, x)
    }
    #[inline(always)]
    fn slope<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        // At zero the derivative is that of the negative side, as in PyTorch.
        let positive = s.greater_than_f32s(x, s.splat_f32s(0.0));
        let below = s.mul_f32s(s.splat_f32s(self.0), exp(s, x));
        s.select_f32s(positive, s.splat_f32s(1.0), below)
    }
}

#[cfg(test)]
mod tests {
    use crate::activation::{Activation, activate, activate_grad};

    const X: [f32; 7] = [-1e30, -90.0, -2.0, -1e-6, 0.0, 3.0, 1e30];

    fn assert_near(found: &[f32], expected: impl Fn(f64) -> f64) {
        for (x, found) in X.iter().zip(found) {
            let expected = expected(f64::from(*x));
            let error = (f64::from(*found) - expected).abs();
            assert!(
                error <= 4e-7 * expected.abs() + 1e-37,
                "{found} of {x}, expected {expected}"
            );
        }
    }

    #[test]
    fn elu_matches_its_formula() {
        for alpha in [1.0f32, 0.3, 2.0] {
            let (elu, scale) = (Activation::Elu(alpha), f64::from(alpha));
            assert_near(&activate(&X, elu), |x| match x > 0.0 {
                true => x,
                false => scale * x.exp_m1(),
            });
            let slopes = activate_grad(&X, &[1.0; 7], elu);
            assert_near(&slopes, |x| match x > 0.0 {
                true => 1.0,
                false => scale * x.exp(),
            });
        }
    }

    #[test]
    fn elu_of_infinities_and_nan() {
        let x = [f32::NEG_INFINITY, f32::INFINITY, f32::NAN];
        let y = activate(&x, Activation::Elu(1.0));
        assert!(
            y[0] == -1.0 && y[1] == f32::INFINITY && y[2].is_nan(),
            "{y:?}"
        );
        let slopes = activate_grad(&x, &[1.0; 3], Activation::Elu(1.0));
        assert!(
            slopes[0] == 0.0 && slopes[1] == 1.0 && slopes[2].is_nan(),
            "{slopes:?}"
        );
    }
}
