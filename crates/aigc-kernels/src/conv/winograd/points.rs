//! Transforms along one axis: correlation with fewer multiplications than outputs times weights
//! (Winograd 1980; Lavin and Gray 2015, <https://arxiv.org/abs/1509.09308>). Input and weights are
//! taken as polynomials, evaluated and multiplied at a few points, and the product is interpolated.
//! Rows are those of a column of pixels, or the pixels of a row.
//!
//! With points `aₜ`, `N = Πₛ≠ₜ (aₜ − aₛ)` and `M(x) = Πₜ (x − aₜ)`, the weight transform at point
//! `t` is `Σ aₜʲ·gⱼ / N`, the input transform the coefficients of `M(x)/(x − aₜ)` times the input
//! rows, and output row `i` is `Σₜ aₜⁱ·mₜ`.

use pulp::Simd;

/// The maximum number of points of a scheme.
pub(super) const MAX_POINTS: usize = 8;

/// The algorithm F([`OUT`](Self::OUT), [`TAPS`](Self::TAPS)), which computes `OUT` rows from
/// [`POINTS`](Self::POINTS) rows of input. Array elements beyond are zero.
pub(super) trait Scheme: Sync {
    /// Adjacent weights.
    const TAPS: usize;
    /// Output rows that are computed together.
    const OUT: usize;
    /// Multiplications, and input rows.
    const POINTS: usize = Self::OUT + Self::TAPS - 1;

    /// The weight transform.
    fn kernel<S: Simd>(s: S, taps: [S::f32s; 3]) -> [S::f32s; MAX_POINTS];
    /// The input transform.
    fn input<S: Simd>(s: S, rows: [S::f32s; MAX_POINTS]) -> [S::f32s; MAX_POINTS];
    /// The output transform.
    fn output<S: Simd>(s: S, sums: [S::f32s; MAX_POINTS]) -> [S::f32s; MAX_POINTS];
    /// The transpose of [`output`](Self::output): maps the gradient of the rows to the points.
    fn gradient<S: Simd>(s: S, rows: [S::f32s; MAX_POINTS]) -> [S::f32s; MAX_POINTS];

    /// The matrix of [`kernel`](Self::kernel), `[point][tap]`. Its transpose maps the sums at the
    /// points to the gradients of the weights.
    fn weight_factors() -> [[f32; 3]; MAX_POINTS] {
        let mut factors = [[0.0; 3]; MAX_POINTS];
        (0..Self::TAPS).for_each(|tap| {
            let unit = std::array::from_fn(|at| if at == tap { 1.0 } else { 0.0 });
            let points = Self::kernel(pulp::Scalar, unit);
            factors
                .iter_mut()
                .zip(points)
                .for_each(|(factors, point)| factors[tap] = point);
        });
        factors
    }
}

/// F(4, 2) at the points 0, 1, −1, 2 and ∞: five multiplications instead of eight.
pub(super) struct Two;

impl Scheme for Two {
    const TAPS: usize = 2;
    const OUT: usize = 4;

    #[inline(always)]
    fn kernel<S: Simd>(s: S, [a, b, _]: [S::f32s; 3]) -> [S::f32s; MAX_POINTS] {
        let times = |x, factor: f32| s.mul_f32s(x, s.splat_f32s(factor));
        let sixth = times(a, 1.0 / 6.0);
        let none = s.splat_f32s(0.0);
        [
            times(a, 0.5),
            times(s.add_f32s(a, b), -0.5),
            times(s.sub_f32s(b, a), 1.0 / 6.0),
            s.mul_add_e_f32s(b, s.splat_f32s(1.0 / 3.0), sixth),
            b,
            none,
            none,
            none,
        ]
    }

    #[inline(always)]
    fn input<S: Simd>(s: S, d: [S::f32s; MAX_POINTS]) -> [S::f32s; MAX_POINTS] {
        let (none, two, three) = (s.splat_f32s(0.0), s.splat_f32s(2.0), s.splat_f32s(3.0));
        let top = s.sub_f32s(d[3], d[1]);
        [
            s.mul_add_e_f32s(two, s.sub_f32s(d[0], d[2]), top),
            s.negate_mul_add_e_f32s(two, d[1], s.sub_f32s(d[3], d[2])),
            s.negate_mul_add_e_f32s(three, d[2], s.mul_add_e_f32s(two, d[1], d[3])),
            top,
            s.negate_mul_add_e_f32s(two, top, s.sub_f32s(d[4], d[2])),
            none,
            none,
            none,
        ]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::f32s; MAX_POINTS]) -> [S::f32s; MAX_POINTS] {
        let (near, near_odd) = (s.add_f32s(m[1], m[2]), s.sub_f32s(m[1], m[2]));
        let none = s.splat_f32s(0.0);
        [
            s.add_f32s(m[0], s.add_f32s(near, m[3])),
            s.mul_add_e_f32s(s.splat_f32s(2.0), m[3], near_odd),
            s.mul_add_e_f32s(s.splat_f32s(4.0), m[3], near),
            s.add_f32s(m[4], s.mul_add_e_f32s(s.splat_f32s(8.0), m[3], near_odd)),
            none,
            none,
            none,
            none,
        ]
    }

    #[inline(always)]
    fn gradient<S: Simd>(s: S, d: [S::f32s; MAX_POINTS]) -> [S::f32s; MAX_POINTS] {
        let with = |a, factor: f32, b| s.mul_add_e_f32s(s.splat_f32s(factor), b, a);
        let (even, odd) = (s.add_f32s(d[0], d[2]), s.add_f32s(d[1], d[3]));
        let none = s.splat_f32s(0.0);
        [
            d[0],
            s.add_f32s(even, odd),
            s.sub_f32s(even, odd),
            with(with(d[0], 4.0, d[2]), 2.0, with(d[1], 4.0, d[3])),
            d[3],
            none,
            none,
            none,
        ]
    }
}

/// F(7, 2) at the points 0, ±1, ±2, ±½ and ∞: eight multiplications instead of fourteen. Along one
/// axis, rounding errors are about twice those of [`Two`], and four times those of the direct sum.
pub(super) struct TwoBySeven;

impl Scheme for TwoBySeven {
    const TAPS: usize = 2;
    const OUT: usize = 7;

    #[inline(always)]
    fn kernel<S: Simd>(s: S, [a, b, _]: [S::f32s; 3]) -> [S::f32s; MAX_POINTS] {
        // factor·(a + point·b)
        let at = |factor: f32, point: f32| {
            let sum = s.mul_add_e_f32s(b, s.splat_f32s(point), a);
            s.mul_f32s(sum, s.splat_f32s(factor))
        };
        let (near, far, half) = (-2.0 / 9.0, 1.0 / 90.0, 32.0 / 45.0);
        [
            a,
            at(near, 1.0),
            at(near, -1.0),
            at(far, 2.0),
            at(far, -2.0),
            at(half, 0.5),
            at(half, -0.5),
            b,
        ]
    }

    #[inline(always)]
    fn input<S: Simd>(s: S, d: [S::f32s; MAX_POINTS]) -> [S::f32s; MAX_POINTS] {
        // a + f·b
        let with = |a, factor: f32, b| s.mul_add_e_f32s(s.splat_f32s(factor), b, a);
        let (near, near_odd) = (
            with(s.add_f32s(d[6], d[2]), -4.25, d[4]),
            with(s.add_f32s(d[5], d[1]), -4.25, d[3]),
        );
        let (far, far_odd) = (
            with(with(d[6], -1.25, d[4]), 0.25, d[2]),
            with(with(d[5], -1.25, d[3]), 0.25, d[1]),
        );
        let (half, half_odd) = (
            with(with(d[6], -5.0, d[4]), 4.0, d[2]),
            with(with(d[5], -5.0, d[3]), 4.0, d[1]),
        );
        [
            with(s.sub_f32s(d[0], d[6]), 5.25, s.sub_f32s(d[4], d[2])),
            s.add_f32s(near, near_odd),
            s.sub_f32s(near, near_odd),
            with(far, 2.0, far_odd),
            with(far, -2.0, far_odd),
            with(half, 0.5, half_odd),
            with(half, -0.5, half_odd),
            with(s.sub_f32s(d[7], d[1]), 5.25, s.sub_f32s(d[3], d[5])),
        ]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::f32s; MAX_POINTS]) -> [S::f32s; MAX_POINTS] {
        let with = |a, factor: f32, b| s.mul_add_e_f32s(s.splat_f32s(factor), b, a);
        // Statements instead of `map`, which may not be inlined.
        let (near, near_odd) = (s.add_f32s(m[1], m[2]), s.sub_f32s(m[1], m[2]));
        let (far, far_odd) = (s.add_f32s(m[3], m[4]), s.sub_f32s(m[3], m[4]));
        let (half, half_odd) = (s.add_f32s(m[5], m[6]), s.sub_f32s(m[5], m[6]));
        [
            s.add_f32s(s.add_f32s(m[0], near), s.add_f32s(far, half)),
            with(with(near_odd, 2.0, far_odd), 0.5, half_odd),
            with(with(near, 4.0, far), 0.25, half),
            with(with(near_odd, 8.0, far_odd), 0.125, half_odd),
            with(with(near, 16.0, far), 0.0625, half),
            with(with(near_odd, 32.0, far_odd), 0.03125, half_odd),
            s.add_f32s(m[7], with(with(near, 64.0, far), 0.015625, half)),
            s.splat_f32s(0.0),
        ]
    }

    #[inline(always)]
    fn gradient<S: Simd>(s: S, d: [S::f32s; MAX_POINTS]) -> [S::f32s; MAX_POINTS] {
        let with = |a, factor: f32, b| s.mul_add_e_f32s(s.splat_f32s(factor), b, a);
        // Sums of the even and of the odd rows times powers of `square`.
        let even = |square: f32| with(d[0], square, with(d[2], square, with(d[4], square, d[6])));
        let odd = |square: f32| with(d[1], square, with(d[3], square, d[5]));
        let (near, near_odd) = (even(1.0), odd(1.0));
        let (far, far_odd) = (even(4.0), odd(4.0));
        let (half, half_odd) = (even(0.25), odd(0.25));
        [
            d[0],
            s.add_f32s(near, near_odd),
            s.sub_f32s(near, near_odd),
            with(far, 2.0, far_odd),
            with(far, -2.0, far_odd),
            with(half, 0.5, half_odd),
            with(half, -0.5, half_odd),
            d[6],
        ]
    }
}

/// F(4, 3) at the points 0, ±√½, ±√2 and ∞: six multiplications instead of twelve. The squares of
/// the points are reciprocal, which keeps all factors near one: along both axes, rounding errors
/// are half of those at 0, ±1, ±2 and ∞, and twice those of the direct sum.
pub(super) struct Three;

/// The points of [`Three`].
const NEAR: f32 = std::f32::consts::FRAC_1_SQRT_2;
const FAR: f32 = std::f32::consts::SQRT_2;

impl Scheme for Three {
    const TAPS: usize = 3;
    const OUT: usize = 4;

    #[inline(always)]
    fn kernel<S: Simd>(s: S, [a, b, c]: [S::f32s; 3]) -> [S::f32s; MAX_POINTS] {
        let times = |x, factor: f32| s.mul_f32s(x, s.splat_f32s(factor));
        let near = s.mul_add_e_f32s(c, s.splat_f32s(-1.0 / 3.0), times(a, -2.0 / 3.0));
        let near_odd = times(b, -2.0 / 3.0 * NEAR);
        let far = s.mul_add_e_f32s(c, s.splat_f32s(1.0 / 3.0), times(a, 1.0 / 6.0));
        let far_odd = times(b, FAR / 6.0);
        let none = s.splat_f32s(0.0);
        [
            a,
            s.add_f32s(near, near_odd),
            s.sub_f32s(near, near_odd),
            s.add_f32s(far, far_odd),
            s.sub_f32s(far, far_odd),
            c,
            none,
            none,
        ]
    }

    #[inline(always)]
    fn input<S: Simd>(s: S, d: [S::f32s; MAX_POINTS]) -> [S::f32s; MAX_POINTS] {
        // a + f·b
        let with = |a, factor: f32, b| s.mul_add_e_f32s(s.splat_f32s(factor), b, a);
        let (near, near_odd) = (with(d[4], -2.0, d[2]), with(d[3], -2.0, d[1]));
        let (far, far_odd) = (with(d[4], -0.5, d[2]), with(d[3], -0.5, d[1]));
        let none = s.splat_f32s(0.0);
        [
            with(s.add_f32s(d[0], d[4]), -2.5, d[2]),
            with(near, NEAR, near_odd),
            with(near, -NEAR, near_odd),
            with(far, FAR, far_odd),
            with(far, -FAR, far_odd),
            with(s.add_f32s(d[1], d[5]), -2.5, d[3]),
            none,
            none,
        ]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::f32s; MAX_POINTS]) -> [S::f32s; MAX_POINTS] {
        let with = |a, factor: f32, b| s.mul_add_e_f32s(s.splat_f32s(factor), b, a);
        let times = |x, factor: f32| s.mul_f32s(x, s.splat_f32s(factor));
        let (near, far) = (s.add_f32s(m[1], m[2]), s.add_f32s(m[3], m[4]));
        let (near_odd, far_odd) = (s.sub_f32s(m[1], m[2]), s.sub_f32s(m[3], m[4]));
        let none = s.splat_f32s(0.0);
        [
            s.add_f32s(m[0], s.add_f32s(near, far)),
            with(times(near_odd, NEAR), FAR, far_odd),
            with(times(near, 0.5), 2.0, far),
            with(with(m[5], 0.5 * NEAR, near_odd), 2.0 * FAR, far_odd),
            none,
            none,
            none,
            none,
        ]
    }

    #[inline(always)]
    fn gradient<S: Simd>(s: S, d: [S::f32s; MAX_POINTS]) -> [S::f32s; MAX_POINTS] {
        let with = |a, factor: f32, b| s.mul_add_e_f32s(s.splat_f32s(factor), b, a);
        let (near, near_odd) = (with(d[0], 0.5, d[2]), with(d[1], 0.5, d[3]));
        let (far, far_odd) = (with(d[0], 2.0, d[2]), with(d[1], 2.0, d[3]));
        let none = s.splat_f32s(0.0);
        [
            d[0],
            with(near, NEAR, near_odd),
            with(near, -NEAR, near_odd),
            with(far, FAR, far_odd),
            with(far, -FAR, far_odd),
            d[3],
            none,
            none,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_correlation<P: Scheme>() {
        // Scalar, with values that are exact in f32.
        let s = pulp::Scalar;
        let kernel = [3.0, -2.0, 5.0];
        let rows = [1.0, 4.0, -3.0, 2.0, 7.0, -6.0, 5.0, 8.0];
        let (weights, input) = (P::kernel(s, kernel), P::input(s, rows));
        let output = P::output(
            s,
            std::array::from_fn(|point| weights[point] * input[point]),
        );
        for (row, got) in output.into_iter().take(P::OUT).enumerate() {
            let expected: f32 = (0..P::TAPS).map(|tap| kernel[tap] * rows[row + tap]).sum();
            assert!(
                (got - expected).abs() < 1e-4,
                "row {row}: {got}, expected {expected}"
            );
        }
    }

    /// The weight gradient is the correlation of the input rows with the output gradient.
    fn assert_transpose<P: Scheme>() {
        let mut dy = [2.0, -1.0, 3.0, 5.0, -4.0, 1.0, 2.0, 0.0];
        dy[P::OUT..].fill(0.0);
        let rows = [1.0, 4.0, -3.0, 2.0, 7.0, -6.0, 5.0, 8.0];
        let s = pulp::Scalar;
        let (gradient, input) = (P::gradient(s, dy), P::input(s, rows));
        // ⟨output(m), dy⟩ = ⟨m, gradient(dy)⟩ at the unit vectors m.
        for (point, got) in gradient.into_iter().enumerate().take(P::POINTS) {
            let one = std::array::from_fn(|at| if at == point { 1.0 } else { 0.0 });
            let sums = P::output(s, one);
            let expected: f32 = sums.iter().zip(dy).take(P::OUT).map(|(a, b)| a * b).sum();
            assert!(
                (got - expected).abs() < 1e-4,
                "point {point}: {got}, expected {expected}"
            );
        }
        let weights = P::weight_factors();
        for tap in 0..P::TAPS {
            let got: f32 = (0..P::POINTS)
                .map(|point| weights[point][tap] * gradient[point] * input[point])
                .sum();
            let expected: f32 = (0..P::OUT).map(|row| dy[row] * rows[row + tap]).sum();
            assert!(
                (got - expected).abs() < 1e-3,
                "tap {tap}: {got}, expected {expected}"
            );
        }
    }

    #[test]
    fn scheme_transpose_matches_weight_gradient() {
        assert_transpose::<Two>();
        assert_transpose::<TwoBySeven>();
        assert_transpose::<Three>();
    }

    #[test]
    fn scheme_matches_direct_correlation() {
        assert_correlation::<Two>();
        assert_correlation::<TwoBySeven>();
        assert_correlation::<Three>();
    }
}
