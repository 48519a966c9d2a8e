//! Draws from normal distributions, and their divergence from the standard normal distribution.

use super::{
    activation::{Binary, Unary, binary, parts},
    math::exp,
    memory::{check_len, filled, row_count},
    simd::arch,
    threads::{Shared, for_each},
};
use pulp::{Simd, WithSimd};

/// Approximate cost of an element in floating-point operations.
const COST: usize = 20;

/// `mean + e^log_std·noise` of every element.
///
/// # Panics
/// If `log_std` or `noise` is not as long as `mean`.
pub fn reparameterize(mean: &[f32], log_std: &[f32], noise: &[f32]) -> Vec<f32> {
    struct Work<'a>([&'a [f32]; 3], &'a mut [f32]);
    impl WithSimd for Work<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) {
            let [mean, log_std, noise] = self.0;
            let (mean, mean_rest) = S::as_simd_f32s(mean);
            let (log_std, log_std_rest) = S::as_simd_f32s(log_std);
            let (noise, noise_rest) = S::as_simd_f32s(noise);
            let (y, y_rest) = S::as_mut_simd_f32s(self.1);
            for (((y, mean), log_std), noise) in y.iter_mut().zip(mean).zip(log_std).zip(noise) {
                *y = s.mul_add_e_f32s(exp(s, *log_std), *noise, *mean);
            }
            let std = exp(s, s.partial_load_f32s(log_std_rest));
            let noise = s.partial_load_f32s(noise_rest);
            let mean = s.partial_load_f32s(mean_rest);
            s.partial_store_f32s(y_rest, s.mul_add_e_f32s(std, noise, mean));
        }
    }
    check_len("reparameterize: log_std", log_std.len(), mean.len());
    check_len("reparameterize: noise", noise.len(), mean.len());
    let write = |at: usize, y: &mut [f32]| {
        let inputs = [mean, log_std, noise].map(|input| &input[at..at + y.len()]);
        arch().dispatch(Work(inputs, y));
    };
    // SAFETY: `Work` gets as many elements of the inputs as of `y`, and writes whole vectors and
    // the rest.
    unsafe { parts(mean.len(), COST, write) }
}

/// Gradients of [`reparameterize`] with respect to `log_std` and `noise`; that of `mean` is `grad`.
///
/// # Panics
/// If `noise` or `grad` is not as long as `log_std`.
pub fn reparameterize_grads(log_std: &[f32], noise: &[f32], grad: &[f32]) -> (Vec<f32>, Vec<f32>) {
    check_len("reparameterize_grads: noise", noise.len(), log_std.len());
    check_len("reparameterize_grads: grad", grad.len(), log_std.len());
    let scaled = binary(log_std, grad, Scaled, COST);
    (binary(&scaled, noise, Product, 2), scaled)
}

/// `e^a·b`
#[derive(Clone, Copy)]
struct Scaled;

impl Binary for Scaled {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, a: S::f32s, b: S::f32s) -> S::f32s {
        s.mul_f32s(exp(s, a), b)
    }
}

/// `a·b`
#[derive(Clone, Copy)]
struct Product;

impl Binary for Product {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, a: S::f32s, b: S::f32s) -> S::f32s {
        s.mul_f32s(a, b)
    }
}

/// `x`
#[derive(Clone, Copy)]
struct Value;

impl Unary for Value {
    #[inline(always)]
    fn apply<S: Simd>(self, _: S, x: S::f32s) -> S::f32s {
        x
    }
}

/// `e^2x − 1`
#[derive(Clone, Copy)]
struct VarianceLessOne;

impl Unary for VarianceLessOne {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::f32s) -> S::f32s {
        s.sub_f32s(exp(s, s.add_f32s(x, x)), s.splat_f32s(1.0))
    }
}

/// Divergence of normal distributions from the standard normal distribution, summed over every row:
/// `Σ ½(μ² + σ² − 1) − log σ`.
///
/// `mean` and `log_std` are `[rows, n]`, the result is `[rows]`.
///
/// # Panics
/// If `mean` is not whole rows of `n`, or `log_std` is not as long as `mean`.
pub fn standard_normal_kl(mean: &[f32], log_std: &[f32], n: usize) -> Vec<f32> {
    struct Row<'a>(&'a [f32], &'a [f32]);
    impl WithSimd for Row<'_> {
        type Output = f32;
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) -> f32 {
            let (mean, mean_rest) = S::as_simd_f32s(self.0);
            let (log_std, log_std_rest) = S::as_simd_f32s(self.1);
            let (half, mut sum) = (s.splat_f32s(0.5), s.splat_f32s(0.0));
            for (mean, log_std) in mean.iter().zip(log_std) {
                let less_one = VarianceLessOne.apply(s, *log_std);
                let square = s.mul_add_e_f32s(*mean, *mean, less_one);
                sum = s.add_f32s(sum, s.sub_f32s(s.mul_f32s(half, square), *log_std));
            }
            // The elements beyond the end are 0, whose divergence is 0.
            let mean = s.partial_load_f32s(mean_rest);
            let log_std = s.partial_load_f32s(log_std_rest);
            let square = s.mul_add_e_f32s(mean, mean, VarianceLessOne.apply(s, log_std));
            sum = s.add_f32s(sum, s.sub_f32s(s.mul_f32s(half, square), log_std));
            s.reduce_sum_f32s(sum)
        }
    }
    let rows = row_count("standard_normal_kl: mean", mean.len(), n);
    check_len("standard_normal_kl: log_std", log_std.len(), mean.len());
    let per_part = (4096 / n.max(1)).max(1);
    let write = |sums: &mut [f32]| {
        let sums = Shared::new(sums);
        for_each(rows.div_ceil(per_part), mean.len() * COST, |part| {
            let (first, count) = (part * per_part, per_part.min(rows - part * per_part));
            // SAFETY: every part has its own rows.
            for (sum, row) in unsafe { sums.range(first, count) }.iter_mut().zip(first..) {
                let row = row * n..(row + 1) * n;
                *sum = arch().dispatch(Row(&mean[row.clone()], &log_std[row]));
            }
        });
    };
    // SAFETY: the parts cover all rows, and write the sum of each of theirs.
    unsafe { filled(rows, write) }
}

/// Gradients of [`standard_normal_kl`] with respect to `mean` and `log_std`: `grad[row]·μ` and
/// `grad[row]·(σ² − 1)`.
///
/// `grad` is `[rows]`, the results are `[rows, n]`.
///
/// # Panics
/// If `mean` is not whole rows of `n`, `log_std` is not as long as `mean`, or `grad` does not have
/// one element per row.
pub fn standard_normal_kl_grads(
    mean: &[f32],
    log_std: &[f32],
    grad: &[f32],
    n: usize,
) -> (Vec<f32>, Vec<f32>) {
    let rows = row_count("standard_normal_kl_grads: mean", mean.len(), n);
    check_len(
        "standard_normal_kl_grads: log_std",
        log_std.len(),
        mean.len(),
    );
    check_len("standard_normal_kl_grads: grad", grad.len(), rows);
    (
        scaled_rows(mean, grad, n, Value),
        scaled_rows(log_std, grad, n, VarianceLessOne),
    )
}

/// `grad[row]·f(x)` of every element of the rows of `n`, of which `x` has as many as `grad`
/// elements.
fn scaled_rows<F: Unary>(x: &[f32], grad: &[f32], n: usize, f: F) -> Vec<f32> {
    struct Row<'a, F> {
        x: &'a [f32],
        grad: f32,
        y: &'a mut [f32],
        f: F,
    }
    impl<F: Unary> WithSimd for Row<'_, F> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) {
            let ((x, x_rest), (y, y_rest)) = (S::as_simd_f32s(self.x), S::as_mut_simd_f32s(self.y));
            let grad = s.splat_f32s(self.grad);
            for (y, x) in y.iter_mut().zip(x) {
                *y = s.mul_f32s(grad, self.f.apply(s, *x));
            }
            let rest = self.f.apply(s, s.partial_load_f32s(x_rest));
            s.partial_store_f32s(y_rest, s.mul_f32s(grad, rest));
        }
    }
    let rows = grad.len();
    let per_part = (4096 / n.max(1)).max(1);
    let write = |y: &mut [f32]| {
        let y = Shared::new(y);
        for_each(rows.div_ceil(per_part), x.len() * COST, |part| {
            let first = part * per_part;
            for (row, grad) in (first..).zip(&grad[first..rows.min(first + per_part)]) {
                // SAFETY: rows are disjoint.
                let y = unsafe { y.range(row * n, n) };
                let (x, grad) = (&x[row * n..(row + 1) * n], *grad);
                arch().dispatch(Row { x, grad, y, f });
            }
        });
    };
    // SAFETY: the parts cover all rows. `Row` gets as many elements of `x` as of `y`, and writes
    // whole vectors and the rest.
    unsafe { filled(x.len(), write) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_panics;

    #[test]
    fn operands_of_other_lengths_are_rejected() {
        let values = [0.5; 12];
        let v = |len: usize| &values[..len];
        assert_panics("reparameterize: log_std has 3 elements, expected 4", || {
            reparameterize(v(4), v(3), v(4))
        });
        assert_panics("reparameterize: noise has 5 elements, expected 4", || {
            reparameterize(v(4), v(4), v(5))
        });
        assert_panics("reparameterize_grads: noise has 3", || {
            reparameterize_grads(v(4), v(3), v(4))
        });
        assert_panics("reparameterize_grads: grad has 3", || {
            reparameterize_grads(v(4), v(4), v(3))
        });
        assert_panics("standard_normal_kl: mean has 11 elements", || {
            standard_normal_kl(v(11), v(11), 4)
        });
        assert_panics("standard_normal_kl: log_std has 11", || {
            standard_normal_kl(v(12), v(11), 4)
        });
        assert_panics("standard_normal_kl_grads: mean has 11 elements", || {
            standard_normal_kl_grads(v(11), v(11), v(2), 4)
        });
        assert_panics("standard_normal_kl_grads: log_std has 11", || {
            standard_normal_kl_grads(v(12), v(11), v(3), 4)
        });
        assert_panics("standard_normal_kl_grads: grad has 2", || {
            standard_normal_kl_grads(v(12), v(12), v(2), 4)
        });
    }

    /// The standard normal distribution is its own, and a NaN of a row stays in the row.
    #[test]
    fn divergence_is_zero_at_the_standard_normal_distribution() {
        for n in [1, 7, 16, 37] {
            let zeros = vec![0.0; 3 * n];
            assert_eq!(standard_normal_kl(&zeros, &zeros, n), [0.0; 3]);
            let mut mean = zeros.clone();
            mean[n] = f32::NAN;
            let kl = standard_normal_kl(&mean, &zeros, n);
            assert!(kl[0] == 0.0 && kl[1].is_nan() && kl[2] == 0.0, "{kl:?}");
            // ½(1 + e² − 1) − 1 of every element.
            let ones = vec![1.0; n];
            let expected = n as f32 * (0.5 * 1f32.exp().powi(2) - 1.0);
            let kl = standard_normal_kl(&ones, &ones, n)[0];
            assert!((kl - expected).abs() < 1e-5 * expected, "{kl}, {expected}");
        }
    }
}
