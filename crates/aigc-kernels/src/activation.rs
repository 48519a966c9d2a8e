//! Activations and their gradients over long slices.

use super::{
    curve::{
        Bounded, Curve, Gelu, GeluTanh, Identity, Leaky, Mish, QuickGelu, Relu, Sigmoid, Silu,
        Softplus, Tanh, WithCurve,
    },
    elu::Elu,
    memory::{check_len, filled},
    simd::arch,
    threads::{Shared, for_each},
};
use pulp::{Simd, WithSimd};

/// Elements that one part takes: two or three such slices fit a second-level cache.
const PART: usize = 32 * 1024;

/// An elementwise nonlinearity.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Activation {
    /// `x`.
    Identity,
    /// `max(0, x)`.
    Relu,
    /// `x` where positive, `slope·x` elsewhere.
    LeakyRelu(
        /// Slope of the negative side.
        f32,
    ),
    /// `x·Φ(x)` with the normal distribution function.
    Gelu,
    /// The approximation of [`Gelu`](Self::Gelu) by a hyperbolic tangent.
    GeluTanh,
    /// `x·σ(x)`.
    Silu,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + e^−x)`.
    Sigmoid,
    /// `ln(1 + e^x)`.
    Softplus,
    /// `x·σ(1.702·x)`.
    QuickGelu,
    /// `x·tanh(ln(1 + e^x))`.
    Mish,
    /// `bound·tanh(x/bound)`.
    SoftClamp(
        /// The bound, which is positive.
        f32,
    ),
    /// `x` where positive, `alpha·(eˣ − 1)` elsewhere.
    Elu(
        /// The size that negative values approach.
        f32,
    ),
}

/// `f(x)` of every element.
pub fn activate(x: &[f32], activation: Activation) -> Vec<f32> {
    with_curve(activation, Values { x })
}

/// `dy·f′(x)` of every element.
///
/// # Panics
/// If `dy` is not as long as `x`.
pub fn activate_grad(x: &[f32], dy: &[f32], activation: Activation) -> Vec<f32> {
    check_len("activate_grad: dy", dy.len(), x.len());
    with_curve(activation, Slopes { x, dy })
}

/// Does `work` with the curve of `activation`.
pub(crate) fn with_curve<W: WithCurve>(activation: Activation, work: W) -> W::Output {
    match activation {
        Activation::Identity => work.with(Identity),
        Activation::Relu => work.with(Relu),
        Activation::LeakyRelu(slope) => work.with(Leaky(slope)),
        Activation::Gelu => work.with(Gelu),
        Activation::GeluTanh => work.with(GeluTanh),
        Activation::Silu => work.with(Silu),
        Activation::Tanh => work.with(Tanh),
        Activation::Sigmoid => work.with(Sigmoid),
        Activation::Softplus => work.with(Softplus),
        Activation::QuickGelu => work.with(QuickGelu),
        Activation::Mish => work.with(Mish),
        Activation::SoftClamp(bound) => work.with(Bounded(bound)),
        Activation::Elu(alpha) => work.with(Elu(alpha)),
    }
}

struct Values<'a> {
    x: &'a [f32],
}

impl WithCurve for Values<'_> {
    type Output = Vec<f32>;

    fn with<C: Curve>(self, curve: C) -> Vec<f32> {
        unary(self.x, Value(curve), C::COST)
    }
}

struct Slopes<'a> {
    x: &'a [f32],
    dy: &'a [f32],
}

impl WithCurve for Slopes<'_> {
    type Output = Vec<f32>;

    fn with<C: Curve>(self, curve: C) -> Vec<f32> {
        binary(self.x, self.dy, Slope(curve), 2 * C::COST)
    }
}

/// One vector to one vector.
pub(crate) trait Unary: Copy + Send + Sync {
    /// `f(x)`
    fn apply<S: Simd>(self, s: S, x: S::f32s) -> S::f32s;
}

/// Two vectors to one vector.
pub(crate) trait Binary: Copy + Send + Sync {
    /// `f(a, b)`
    fn apply<S: Simd>(self, s: S, a: S::f32s, b: S::f32s) -> S::f32s;
}

#[derive(Clone, Copy)]
struct Value<C>(C);

impl<C: Curve> Unary for Value<C> {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        self.0.value(s, x)
    }
}

#[derive(Clone, Copy)]
struct Slope<C>(C);

impl<C: Curve> Binary for Slope<C> {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::f32s, dy: S::f32s) -> S::f32s {
        self.0.vjp(s, x, dy)
    }
}

/// `f` of every element of `x`.
pub(crate) fn unary<F: Unary>(x: &[f32], f: F, cost: usize) -> Vec<f32> {
    struct Work<'a, F> {
        x: &'a [f32],
        y: &'a mut [f32],
        f: F,
    }
    impl<F: Unary> WithSimd for Work<'_, F> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) {
            let ((x, x_rest), (y, y_rest)) = (S::as_simd_f32s(self.x), S::as_mut_simd_f32s(self.y));
            for (y, x) in y.iter_mut().zip(x) {
                *y = self.f.apply(s, *x);
            }
            s.partial_store_f32s(y_rest, self.f.apply(s, s.partial_load_f32s(x_rest)));
        }
    }
    let write = |at: usize, y: &mut [f32]| {
        arch().dispatch(Work {
            x: &x[at..at + y.len()],
            y,
            f,
        });
    };
    // SAFETY: `Work` gets as many elements of `x` as of `y`, and writes whole vectors and the rest.
    unsafe { parts(x.len(), cost, write) }
}

/// `f` of every pair of elements of `a` and `b`.
///
/// # Panics
/// If `b` is not as long as `a`.
pub(crate) fn binary<F: Binary>(a: &[f32], b: &[f32], f: F, cost: usize) -> Vec<f32> {
    struct Work<'a, F> {
        a: &'a [f32],
        b: &'a [f32],
        y: &'a mut [f32],
        f: F,
    }
    impl<F: Binary> WithSimd for Work<'_, F> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) {
            let ((a, a_rest), (b, b_rest)) = (S::as_simd_f32s(self.a), S::as_simd_f32s(self.b));
            let (y, y_rest) = S::as_mut_simd_f32s(self.y);
            for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
                *y = self.f.apply(s, *a, *b);
            }
            s.partial_store_f32s(
                y_rest,
                self.f
                    .apply(s, s.partial_load_f32s(a_rest), s.partial_load_f32s(b_rest)),
            );
        }
    }
    check_len("the second operand", b.len(), a.len());
    let write = |at: usize, y: &mut [f32]| {
        arch().dispatch(Work {
            a: &a[at..at + y.len()],
            b: &b[at..at + y.len()],
            y,
            f,
        });
    };
    // SAFETY: `Work` gets as many elements of `a` and `b` as of `y`, and writes whole vectors and
    // the rest.
    unsafe { parts(a.len(), cost, write) }
}

/// `len` elements, written in parts: `write` gets where a part starts, and the part.
///
/// # Safety
/// `write` reads no element of its part before it has written it, and has written all of them when
/// it returns.
pub(crate) unsafe fn parts(
    len: usize,
    cost: usize,
    write: impl Fn(usize, &mut [f32]) + Send + Sync,
) -> Vec<f32> {
    let fill = |y: &mut [f32]| {
        let y = Shared::new(y);
        for_each(len.div_ceil(PART), len * cost, |part| {
            let at = part * PART;
            // SAFETY: parts do not overlap.
            write(at, unsafe { y.range(at, PART.min(len - at)) });
        });
    };
    // SAFETY: the parts cover all elements; `write` by the caller's contract.
    unsafe { filled(len, fill) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_panics;

    #[test]
    fn activate_grad_rejects_other_lengths() {
        for len in [0, 4, 6] {
            let expected = format!("activate_grad: dy has {len} elements, expected 5");
            assert_panics(&expected, || {
                activate_grad(&[1.0; 5], &vec![1.0; len], Activation::Gelu)
            });
        }
    }
}
