//! The functions against those of `f64`.

use super::*;
use crate::simd::arch;
use pulp::WithSimd;

/// Evaluates a pair of functions on every element. If there is only one, the second is zero.
struct Over<'a, F>(&'a [f32], F);

trait Function {
    fn of<S: Simd>(&self, s: S, x: S::f32s) -> (S::f32s, S::f32s);
}

impl<F: Function> WithSimd for Over<'_, F> {
    type Output = Vec<[f32; 2]>;
    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) -> Vec<[f32; 2]> {
        let first = |value: S::f32s| {
            let mut one = [0.0];
            s.partial_store_f32s(&mut one, value);
            one[0]
        };
        self.0
            .iter()
            .map(|x| self.1.of(s, s.splat_f32s(*x)))
            .map(|(a, b)| [first(a), first(b)])
            .collect()
    }
}

/// Largest error over `from..to`, as a share of the true value or, where `absolute`, as it is.
fn worst<F: Function>(
    [from, to]: [f64; 2],
    function: F,
    truth: impl Fn(f64) -> [f64; 2],
    absolute: bool,
) -> f64 {
    let xs: Vec<f32> = (0..200_000)
        .map(|i| (from + (to - from) * f64::from(i) / 200_000.0) as f32)
        .collect();
    let got = arch().dispatch(Over(&xs, function));
    let mut worst = 0.0f64;
    for (x, got) in xs.iter().zip(got) {
        for (got, truth) in got.iter().zip(truth(f64::from(*x))) {
            let scale = if absolute || truth == 0.0 {
                1.0
            } else {
                truth.abs()
            };
            worst = worst.max((f64::from(*got) - truth).abs() / scale);
        }
    }
    worst
}

/// The complementary error function: by its series, or by its continued fraction for large `z`
/// (Abramowitz and Stegun 7.1.6, 7.1.14).
fn erfc(z: f64) -> f64 {
    if z < 2.5 {
        let terms = (1..80).scan(z, |term, n| {
            *term *= 2.0 * z * z / f64::from(2 * n + 1);
            Some(*term)
        });
        return 1.0 - 2.0 / std::f64::consts::PI.sqrt() * (-z * z).exp() * (z + terms.sum::<f64>());
    }
    let fraction = (1..200)
        .rev()
        .fold(z, |below, n| z + f64::from(n) / 2.0 / below);
    (-z * z).exp() / (std::f64::consts::PI.sqrt() * fraction)
}

#[test]
fn functions_match_f64_within_documented_errors() {
    struct Exp;
    impl Function for Exp {
        #[inline(always)]
        fn of<S: Simd>(&self, s: S, x: S::f32s) -> (S::f32s, S::f32s) {
            (exp(s, x), s.splat_f32s(0.0))
        }
    }
    struct Exp2;
    impl Function for Exp2 {
        #[inline(always)]
        fn of<S: Simd>(&self, s: S, x: S::f32s) -> (S::f32s, S::f32s) {
            (exp2(s, x), s.splat_f32s(0.0))
        }
    }
    struct ExpM1;
    impl Function for ExpM1 {
        #[inline(always)]
        fn of<S: Simd>(&self, s: S, x: S::f32s) -> (S::f32s, S::f32s) {
            (exp_m1(s, x), tanh(s, x))
        }
    }
    struct Fraction;
    impl Function for Fraction {
        #[inline(always)]
        fn of<S: Simd>(&self, s: S, x: S::f32s) -> (S::f32s, S::f32s) {
            (log1p_of_fraction(s, x), s.splat_f32s(0.0))
        }
    }
    struct Soft;
    impl Function for Soft {
        #[inline(always)]
        fn of<S: Simd>(&self, s: S, x: S::f32s) -> (S::f32s, S::f32s) {
            (softplus(s, x), sigmoid(s, x))
        }
    }
    struct Normal;
    impl Function for Normal {
        #[inline(always)]
        fn of<S: Simd>(&self, s: S, x: S::f32s) -> (S::f32s, S::f32s) {
            normal(s, x)
        }
    }
    let seen = [
        worst([-87.0, 87.0], Exp, |x| [x.exp(), 0.0], false),
        worst([-124.9, 0.0], Exp2, |x| [x.exp2(), 0.0], false),
        worst([-1.0, 1.0], ExpM1, |x| [x.exp_m1(), x.tanh()], false),
        worst([0.0, 1.0], Fraction, |u| [u.ln_1p(), 0.0], false),
        worst(
            [-15.0, 80.0],
            Soft,
            |x| {
                [
                    x.max(0.0) + (-x.abs()).exp().ln_1p(),
                    1.0 / (1.0 + (-x).exp()),
                ]
            },
            false,
        ),
        worst(
            [-6.0, 6.0],
            Normal,
            |x| {
                let half = erfc(x.abs() / 2f64.sqrt()) / 2.0;
                [
                    if x < 0.0 { half } else { 1.0 - half },
                    (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt(),
                ]
            },
            true,
        ),
    ];
    println!("{seen:?}");
    assert!(
        seen[..2].iter().all(|error| *error < 2e-7) && seen.iter().all(|error| *error < 3e-7),
        "{seen:?}"
    );
}

/// Sizes of sine and cosine, and their common sign.
#[test]
fn half_turn_matches_sine_and_cosine() {
    struct Sizes;
    impl Function for Sizes {
        #[inline(always)]
        fn of<S: Simd>(&self, s: S, x: S::f32s) -> (S::f32s, S::f32s) {
            let (sine, cosine) = half_turn(s, x);
            (s.abs_f32s(sine), s.abs_f32s(cosine))
        }
    }
    struct Product;
    impl Function for Product {
        #[inline(always)]
        fn of<S: Simd>(&self, s: S, x: S::f32s) -> (S::f32s, S::f32s) {
            let (sine, cosine) = half_turn(s, x);
            (s.mul_f32s(sine, cosine), s.splat_f32s(0.0))
        }
    }
    for limit in [1e-3, 3.0, 100.0, 1e4] {
        let range = [-limit, limit];
        let sizes = worst(range, Sizes, |x| [x.sin().abs(), x.cos().abs()], true);
        let product = worst(range, Product, |x| [x.sin() * x.cos(), 0.0], true);
        println!("{limit}: {sizes:e}, {product:e}");
        assert!(
            sizes < 2e-7 && product < 2e-7,
            "{limit}: {sizes}, {product}"
        );
    }
}

/// What is not a number stays so, and the rest stays within bounds.
#[test]
fn half_turn_of_extreme_numbers_is_bounded() {
    struct Sine;
    impl Function for Sine {
        #[inline(always)]
        fn of<S: Simd>(&self, s: S, x: S::f32s) -> (S::f32s, S::f32s) {
            half_turn(s, x)
        }
    }
    let large = [1e5, -1e7, 1e10, -1e30, f32::MAX];
    for [sine, cosine] in arch().dispatch(Over(&large, Sine)) {
        assert!(
            sine.abs() < 1.001 && cosine.abs() < 1.001,
            "{sine}, {cosine}"
        );
    }
    let none = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    for [sine, cosine] in arch().dispatch(Over(&none, Sine)) {
        assert!(sine.is_nan() && cosine.is_nan(), "{sine}, {cosine}");
    }
    let tiny = [1e-8, -1e-20];
    let found = arch().dispatch(Over(&tiny, Sine));
    assert_eq!(found, [[1e-8, 1.0], [-1e-20, 1.0]]);
}
