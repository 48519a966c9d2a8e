//! Exponential, logarithm, error function, sine and cosine on vector registers.
//!
//! The polynomials are least-squares fits at Chebyshev nodes. The errors in the documentation are
//! the largest of `f32` against `f64` over the whole range, as the tests measure them.

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

/// Sine and cosine of `x`, up to a sign that both have in common, with an absolute error of 2e-7
/// for `|x|` up to 1e4. Their squares and their product do not depend on the sign, because their
/// period is half a turn.
///
/// Beyond 1e4 the error grows as the digits of `x` do; finite results stay within ±1.
#[inline(always)]
pub(crate) fn half_turn<S: Simd>(s: S, x: S::f32s) -> (S::f32s, S::f32s) {
    // x = n·π + r with |r| ≤ π/2. Adding 1.5·2²³ rounds to an integer.
    let magic = s.splat_f32s(12_582_912.0);
    let shifted = s.mul_add_e_f32s(x, s.splat_f32s(std::f32::consts::FRAC_1_PI), magic);
    let n = s.sub_f32s(shifted, magic);
    // π in three parts (Cody and Waite 1980), of 8, 11 and all digits: the products of the first
    // two with n below 2¹³ are exact, even without fused multiplication.
    let r = s.mul_add_e_f32s(n, s.splat_f32s(-3.140_625), x);
    let r = s.mul_add_e_f32s(n, s.splat_f32s(-9.675_026e-4), r);
    let rest = s.mul_add_e_f32s(n, s.splat_f32s(-1.509_958e-7), r);
    // For very large x the rest is not small, and the polynomials would be unbounded.
    let r = s.max_f32s(s.splat_f32s(-1.6), s.min_f32s(s.splat_f32s(1.6), rest));
    let r = or_nan(s, rest, r);
    let square = s.mul_f32s(r, r);
    let sine = polynomial(
        s,
        [
            -1.666_665_7e-1,
            8.333_009e-3,
            -1.980_606_5e-4,
            2.598_973_7e-6,
        ],
        square,
    );
    let cosine = polynomial(
        s,
        [
            1.0,
            -0.5,
            4.166_665_7e-2,
            -1.388_856e-3,
            2.476_872_6e-5,
            -2.618_301_4e-7,
        ],
        square,
    );
    (s.mul_add_e_f32s(s.mul_f32s(r, square), sine, r), cosine)
}

#[cfg(test)]
mod tests;
