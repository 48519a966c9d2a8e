//! Exponential, logarithm and error function on vector registers.
//!
//! The polynomials are least-squares fits at Chebyshev nodes. The errors in the documentation are
//! the largest of `f32` against `f64` over the whole range, as the test below measures them.

use pulp::Simd;

/// `c[0] + c[1]·x + c[2]·x² + …`
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, c: [f32; N], x: S::f32s) -> S::f32s {
    let mut sum = s.splat_f32s(c[N - 1]);
    for i in (0..N - 1).rev() {
        sum = s.mul_add_e_f32s(sum, x, s.splat_f32s(c[i]));
    }
    sum
}

/// `exp` is infinite above this limit, and zero below its negative.
const LIMIT: f32 = 87.3;

/// Range reduction `x = n·ln 2 + r` with `|r| ≤ ln 2 / 2`: returns `2ⁿ` and `eʳ − 1`.
#[inline(always)]
fn split_exp<S: Simd>(s: S, x: S::f32s) -> (S::f32s, S::f32s) {
    // The operand that may be NaN comes second: x86 returns the second operand in that case.
    let x = s.max_f32s(s.splat_f32s(-LIMIT), s.min_f32s(s.splat_f32s(LIMIT), x));
    // Adding 1.5·2²³ rounds to an integer, which is left in the low bits.
    let magic = s.splat_f32s(12_582_912.0);
    let shifted = s.mul_add_e_f32s(x, s.splat_f32s(std::f32::consts::LOG2_E), magic);
    let n = s.sub_f32s(shifted, magic);
    // ln 2 in two parts, the first short enough that its product with n is exact (Cody and Waite
    // 1980).
    let r = s.mul_add_e_f32s(n, s.splat_f32s(-0.693_359_4), x);
    let r = s.mul_add_e_f32s(n, s.splat_f32s(2.121_944_4e-4), r);
    let q = polynomial(
        s,
        [
            0.5,
            1.666_657_7e-1,
            4.166_646_5e-2,
            8.363_176e-3,
            1.393_364_4e-3,
        ],
        r,
    );
    let less_one = s.mul_add_e_f32s(s.mul_f32s(r, r), q, r);
    let exponent = s.wrapping_dyn_shl_u32s(s.transmute_u32s_f32s(shifted), s.splat_u32s(23));
    let power =
        s.transmute_f32s_u32s(s.add_u32s(exponent, s.transmute_u32s_f32s(s.splat_f32s(1.0))));
    (power, less_one)
}

/// `x` where it is NaN, else `y`.
#[inline(always)]
fn or_nan<S: Simd>(s: S, x: S::f32s, y: S::f32s) -> S::f32s {
    // Vector minimum and maximum propagate NaN; the scalar ones do not.
    if S::F32_LANES == 1 {
        s.select_f32s(s.equal_f32s(x, x), y, x)
    } else {
        y
    }
}

/// `eˣ` with a relative error of 2e-7: 0 below −87.3, infinite above 87.3.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    let (power, less_one) = split_exp(s, x);
    let y = s.mul_add_e_f32s(power, less_one, power);
    let y = s.select_f32s(
        s.less_than_f32s(x, s.splat_f32s(-LIMIT)),
        s.splat_f32s(0.0),
        y,
    );
    let y = s.select_f32s(
        s.greater_than_f32s(x, s.splat_f32s(LIMIT)),
        s.splat_f32s(f32::INFINITY),
        y,
    );
    or_nan(s, x, y)
}

/// `2ˣ` for `x` at most 0, with a relative error of 2e-7: 0 below −125.
#[inline(always)]
pub(crate) fn exp2<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    let magic = s.splat_f32s(12_582_912.0);
    let shifted = s.add_f32s(x, magic);
    let r = s.sub_f32s(x, s.sub_f32s(shifted, magic));
    #[allow(clippy::approx_constant)] // Fitted: ln 2 would be less precise.
    let c = [
        1.0,
        6.931_47e-1,
        2.402_224_3e-1,
        5.550_733_6e-2,
        9.671_513e-3,
        1.326_472_7e-3,
    ];
    let y = s.transmute_u32s_f32s(polynomial(s, c, r));
    let exponent = s.wrapping_dyn_shl_u32s(s.transmute_u32s_f32s(shifted), s.splat_u32s(23));
    let y = s.transmute_f32s_u32s(s.add_u32s(y, exponent));
    // Far below, −∞ included, the exponent has overflowed. NaN stays NaN.
    let is_low = s.less_than_f32s(x, s.splat_f32s(-125.0));
    s.select_f32s(is_low, s.splat_f32s(0.0), y)
}

/// `eˣ − 1` with a relative error of 2e-7, around zero too.
#[inline(always)]
pub(crate) fn exp_m1<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    let (power, less_one) = split_exp(s, x);
    s.mul_add_e_f32s(power, less_one, s.sub_f32s(power, s.splat_f32s(1.0)))
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    let one = s.splat_f32s(1.0);
    s.div_f32s(one, s.add_f32s(one, exp(s, s.neg_f32s(x))))
}

/// Hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    // tanh(±10) is ±1 in f32, and the limit keeps the quotient finite.
    let near = s.max_f32s(s.splat_f32s(-10.0), s.min_f32s(s.splat_f32s(10.0), x));
    let e = exp_m1(s, s.add_f32s(near, near));
    or_nan(s, x, s.div_f32s(e, s.add_f32s(e, s.splat_f32s(2.0))))
}

/// `ln(1 + u)` for `u` in [0, 1] with a relative error of 3e-7.
#[inline(always)]
fn log1p_of_fraction<S: Simd>(s: S, u: S::f32s) -> S::f32s {
    let c = [
        1.0,
        -4.999_99e-1,
        3.333_000_4e-1,
        -2.495_456e-1,
        1.967_811_7e-1,
        -1.531_186_3e-1,
        1.061_426_5e-1,
        -5.706_42e-2,
        1.990_716e-2,
        -3.256_378_5e-3,
    ];
    s.mul_f32s(u, polynomial(s, c, u))
}

/// `ln(1 + eˣ)`, without overflow: `max(x, 0) + ln(1 + e^−|x|)`.
#[inline(always)]
pub(crate) fn softplus<S: Simd>(s: S, x: S::f32s) -> S::f32s {
    let rest = log1p_of_fraction(s, exp(s, s.neg_f32s(s.abs_f32s(x))));
    or_nan(s, x, s.add_f32s(s.max_f32s(s.splat_f32s(0.0), x), rest))
}

/// Distribution function `Φ(x)` and density `φ(x)` of the normal distribution, with an absolute
/// error of 3e-7.
#[inline(always)]
pub(crate) fn normal<S: Simd>(s: S, x: S::f32s) -> (S::f32s, S::f32s) {
    let one = s.splat_f32s(1.0);
    // erfc(z) = e^−z²·P(t), t = 1 / (1 + z/2), for z = |x| / √2.
    let z = s.mul_f32s(s.abs_f32s(x), s.splat_f32s(std::f32::consts::FRAC_1_SQRT_2));
    let t = s.div_f32s(one, s.mul_add_e_f32s(z, s.splat_f32s(0.5), one));
    let c = [
        -7.029_234e-5,
        2.837_677_4e-1,
        2.656_596_2e-1,
        3.340_284_3e-1,
        -9.682_562e-2,
        5.961_339e-1,
        -5.435_174e-1,
        1.792_514_5e-1,
        -1.842_780_2e-2,
    ];
    let bell = exp(s, s.neg_f32s(s.mul_f32s(z, z)));
    let tail = s.mul_f32s(s.mul_f32s(s.splat_f32s(0.5), bell), polynomial(s, c, t));
    let negative = s.less_than_f32s(x, s.splat_f32s(0.0));
    let below = s.select_f32s(negative, tail, s.sub_f32s(one, tail));
    // 1 / √(2π)
    (below, s.mul_f32s(bell, s.splat_f32s(0.398_942_3)))
}

#[cfg(test)]
mod tests {
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
            return 1.0
                - 2.0 / std::f64::consts::PI.sqrt() * (-z * z).exp() * (z + terms.sum::<f64>());
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
}
