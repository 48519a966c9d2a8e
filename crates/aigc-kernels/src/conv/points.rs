//! Winograd transforms: correlation along the columns of an image with fewer multiplications than
//! output rows times weights (Winograd 1980; Lavin and Gray 2015,
//! <https://arxiv.org/abs/1509.09308>). Input and weights are taken as polynomials, evaluated and
//! multiplied at a few points, and the product is interpolated.
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
    /// Vertically adjacent weights.
    const TAPS: usize;
    /// Output rows that are computed together.
    const OUT: usize;
    /// Multiplications, and input rows.
    const POINTS: usize = Self::OUT + Self::TAPS - 1;

    /// The weight transform.
    fn weights(kernel: [f32; 3]) -> [f32; MAX_POINTS];
    /// The input transform.
    fn input<S: Simd>(s: S, rows: [S::f32s; MAX_POINTS]) -> [S::f32s; MAX_POINTS];
    /// The output transform.
    fn output<S: Simd>(s: S, sums: [S::f32s; MAX_POINTS]) -> [S::f32s; MAX_POINTS];

    /// The matrix of [`output`](Self::output), `[row][point]`. Its transpose maps the gradient of
    /// the rows to the points.
    fn factors() -> [[f32; MAX_POINTS]; MAX_POINTS] {
        let mut factors = [[0.0; MAX_POINTS]; MAX_POINTS];
        (0..Self::POINTS).for_each(|point| {
            let one = std::array::from_fn(|at| if at == point { 1.0 } else { 0.0 });
            let rows = Self::output(pulp::Scalar, one);
            (0..Self::OUT).for_each(|row| factors[row][point] = rows[row]);
        });
        factors
    }

    /// The matrix of [`weights`](Self::weights), `[point][tap]`. Its transpose maps the sums at the
    /// points to the gradients of the weights.
    fn weight_factors() -> [[f32; 3]; MAX_POINTS] {
        let mut factors = [[0.0; 3]; MAX_POINTS];
        (0..Self::TAPS).for_each(|tap| {
            let points = Self::weights(std::array::from_fn(|at| if at == tap { 1.0 } else { 0.0 }));
            factors
                .iter_mut()
                .zip(points)
                .for_each(|(factors, point)| factors[tap] = point);
        });
        factors
    }
}

/// Input transform of [`Scheme::POINTS`] rows of `width`. The stride between points in `to` is
/// `stride`.
///
/// # Panics
/// If the rows, rounded up to whole vectors, do not fit the slices.
#[inline(always)]
pub(super) fn map_rows<S: Simd, P: Scheme>(
    s: S,
    rows: &[f32],
    to: &mut [f32],
    width: usize,
    stride: usize,
) {
    let lanes = S::F32_LANES;
    // The lengths bound the factors first, so that the products do not overflow.
    assert!(
        width <= rows.len()
            && rows.len() >= (P::POINTS - 1) * width + width.next_multiple_of(lanes),
        "input rows exceed their slice"
    );
    assert!(
        stride <= to.len() && to.len() >= (P::POINTS - 1) * stride + width.next_multiple_of(lanes),
        "transformed rows exceed their slice"
    );
    for at in (0..width).step_by(lanes) {
        // SAFETY: the last vector of the last row is in bounds, by the assertions. Elements written
        // beyond a row belong to the next row, which is written later, or are never read.
        unsafe {
            let mut d = [s.splat_f32s(0.0); MAX_POINTS];
            for (row, d) in d.iter_mut().take(P::POINTS).enumerate() {
                *d = rows
                    .as_ptr()
                    .add(row * width + at)
                    .cast::<S::f32s>()
                    .read_unaligned();
            }
            for (point, value) in P::input(s, d).into_iter().take(P::POINTS).enumerate() {
                to.as_mut_ptr()
                    .add(point * stride + at)
                    .cast::<S::f32s>()
                    .write_unaligned(value);
            }
        }
    }
}

/// One weight: four rows with one multiplication each.
pub(super) struct One;

impl Scheme for One {
    const TAPS: usize = 1;
    const OUT: usize = 4;

    fn weights([a, ..]: [f32; 3]) -> [f32; MAX_POINTS] {
        [a, a, a, a, 0.0, 0.0, 0.0, 0.0]
    }

    #[inline(always)]
    fn input<S: Simd>(_: S, rows: [S::f32s; MAX_POINTS]) -> [S::f32s; MAX_POINTS] {
        rows
    }

    #[inline(always)]
    fn output<S: Simd>(_: S, sums: [S::f32s; MAX_POINTS]) -> [S::f32s; MAX_POINTS] {
        sums
    }
}

/// F(4, 2) at the points 0, 1, −1, 2 and ∞: five multiplications instead of eight.
pub(super) struct Two;

impl Scheme for Two {
    const TAPS: usize = 2;
    const OUT: usize = 4;

    fn weights([a, b, _]: [f32; 3]) -> [f32; MAX_POINTS] {
        [
            a / 2.0,
            -(a + b) / 2.0,
            (b - a) / 6.0,
            a / 6.0 + b / 3.0,
            b,
            0.0,
            0.0,
            0.0,
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
}

/// F(7, 2) at the points 0, ±1, ±2, ±½ and ∞: eight multiplications instead of fourteen. Rounding
/// errors are about twice those of [`Two`], and four times those of the direct sum.
pub(super) struct TwoBySeven;

impl Scheme for TwoBySeven {
    const TAPS: usize = 2;
    const OUT: usize = 7;

    fn weights([a, b, _]: [f32; 3]) -> [f32; MAX_POINTS] {
        let (near, far, half) = (-2.0 / 9.0, 1.0 / 90.0, 32.0 / 45.0);
        [
            a,
            near * (a + b),
            near * (a - b),
            far * (a + 2.0 * b),
            far * (a - 2.0 * b),
            half * (a + 0.5 * b),
            half * (a - 0.5 * b),
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
        let [near, far, half] = [1, 3, 5].map(|point| s.add_f32s(m[point], m[point + 1]));
        let [near_odd, far_odd, half_odd] =
            [1, 3, 5].map(|point| s.sub_f32s(m[point], m[point + 1]));
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
}

/// F(4, 3) at the points 0, 1, −1, 2, −2 and ∞: six multiplications instead of twelve.
pub(super) struct Three;

impl Scheme for Three {
    const TAPS: usize = 3;
    const OUT: usize = 4;

    fn weights([a, b, c]: [f32; 3]) -> [f32; MAX_POINTS] {
        let (even, far) = (a + c, a / 24.0 + c / 6.0);
        [
            a / 4.0,
            -(even + b) / 6.0,
            (b - even) / 6.0,
            far + b / 12.0,
            far - b / 12.0,
            c,
            0.0,
            0.0,
        ]
    }

    #[inline(always)]
    fn input<S: Simd>(s: S, d: [S::f32s; MAX_POINTS]) -> [S::f32s; MAX_POINTS] {
        let (two, four, five) = (s.splat_f32s(2.0), s.splat_f32s(4.0), s.splat_f32s(5.0));
        let even = s.negate_mul_add_e_f32s(four, d[2], d[4]);
        let odd = s.negate_mul_add_e_f32s(four, d[1], d[3]);
        let far_even = s.sub_f32s(d[4], d[2]);
        let far_odd = s.mul_f32s(two, s.sub_f32s(d[3], d[1]));
        [
            s.negate_mul_add_e_f32s(five, d[2], s.mul_add_e_f32s(four, d[0], d[4])),
            s.add_f32s(even, odd),
            s.sub_f32s(even, odd),
            s.add_f32s(far_even, far_odd),
            s.sub_f32s(far_even, far_odd),
            s.negate_mul_add_e_f32s(five, d[3], s.mul_add_e_f32s(four, d[1], d[5])),
            s.splat_f32s(0.0),
            s.splat_f32s(0.0),
        ]
    }

    #[inline(always)]
    fn output<S: Simd>(s: S, m: [S::f32s; MAX_POINTS]) -> [S::f32s; MAX_POINTS] {
        let (near, far) = (s.add_f32s(m[1], m[2]), s.add_f32s(m[3], m[4]));
        let (near_odd, far_odd) = (s.sub_f32s(m[1], m[2]), s.sub_f32s(m[3], m[4]));
        let none = s.splat_f32s(0.0);
        [
            s.add_f32s(m[0], s.add_f32s(near, far)),
            s.mul_add_e_f32s(s.splat_f32s(2.0), far_odd, near_odd),
            s.mul_add_e_f32s(s.splat_f32s(4.0), far, near),
            s.add_f32s(m[5], s.mul_add_e_f32s(s.splat_f32s(8.0), far_odd, near_odd)),
            none,
            none,
            none,
            none,
        ]
    }
}

/// Output transform, in place: sums at the points, `stride` apart, to rows of pixels plus `bias`.
///
/// # Panics
/// If the sums of `vectors` vectors at every point do not fit the slice.
#[inline(always)]
pub(super) fn unmap<S: Simd, P: Scheme>(
    s: S,
    sums: &mut [f32],
    vectors: usize,
    stride: usize,
    bias: f32,
) {
    let lanes = S::F32_LANES;
    // The length bounds the factors first, so that the products do not overflow.
    assert!(
        vectors <= sums.len() / lanes
            && stride <= sums.len()
            && sums.len() >= (P::POINTS - 1) * stride + vectors * lanes,
        "sums exceed their slice"
    );
    let bias = s.splat_f32s(bias);
    for vector in 0..vectors {
        // SAFETY: the last vector of the last point is in bounds, by the assertion; there are no
        // more rows than points.
        unsafe {
            let sums = sums.as_mut_ptr().add(vector * lanes);
            let mut m = [s.splat_f32s(0.0); MAX_POINTS];
            for (point, m) in m.iter_mut().take(P::POINTS).enumerate() {
                *m = sums.add(point * stride).cast::<S::f32s>().read_unaligned();
            }
            for (row, pixels) in P::output(s, m).into_iter().take(P::OUT).enumerate() {
                sums.add(row * stride)
                    .cast::<S::f32s>()
                    .write_unaligned(s.add_f32s(pixels, bias));
            }
        }
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
        let (weights, input) = (P::weights(kernel), P::input(s, rows));
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
        let dy = [2.0, -1.0, 3.0, 5.0, -4.0, 1.0, 2.0];
        let rows = [1.0, 4.0, -3.0, 2.0, 7.0, -6.0, 5.0, 8.0];
        let (factors, input) = (P::factors(), P::input(pulp::Scalar, rows));
        let at = |point: usize| {
            (0..P::OUT)
                .map(|row| factors[row][point] * dy[row])
                .sum::<f32>()
        };
        let weights = P::weight_factors();
        for tap in 0..P::TAPS {
            let got: f32 = (0..P::POINTS)
                .map(|point| weights[point][tap] * at(point) * input[point])
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
        assert_transpose::<One>();
        assert_transpose::<Two>();
        assert_transpose::<TwoBySeven>();
        assert_transpose::<Three>();
    }

    #[test]
    fn scheme_matches_direct_correlation() {
        assert_correlation::<One>();
        assert_correlation::<Two>();
        assert_correlation::<TwoBySeven>();
        assert_correlation::<Three>();
    }
}
