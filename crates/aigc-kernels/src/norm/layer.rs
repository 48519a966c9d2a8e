//! Layer normalisation.

use super::sums::sums;
use crate::{
    memory::{check_len, filled, row_count},
    simd::arch,
    threads::{Shared, for_each},
};
use pulp::{Simd, WithSimd};

/// Layer normalisation of every row: `y = (x − mean) / √(var + ε)·gamma (+ beta)`.
///
/// `x` and `y` are `[rows, d]`, gamma and beta `[d]`. Returns `y`, and the mean and the biased
/// variance of every row.
///
/// # Panics
/// If `x` is not whole rows of `gamma.len()` elements, or `beta` is not as long as gamma.
pub fn layer_norm(
    x: &[f32],
    gamma: &[f32],
    beta: Option<&[f32]>,
    epsilon: f32,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let rows = row_count("layer_norm: x", x.len(), gamma.len());
    if let Some(beta) = beta {
        check_len("layer_norm: beta", beta.len(), gamma.len());
    }
    let (mut mean, mut var) = (vec![0.0; rows], vec![0.0; rows]);
    let write = |y: &mut [f32]| {
        let (y, mean, var) = (
            Shared::new(y),
            Shared::new(&mut mean),
            Shared::new(&mut var),
        );
        let per_part = rows_per_part(gamma.len());
        for_each(rows.div_ceil(per_part), x.len() * 8, |part| {
            let (first, count) = (part * per_part, per_part.min(rows - part * per_part));
            // SAFETY: every part has its own rows.
            let (y, mean, var) = unsafe {
                (
                    y.range(first * gamma.len(), count * gamma.len()),
                    mean.range(first, count),
                    var.range(first, count),
                )
            };
            let x = &x[first * gamma.len()..][..y.len()];
            arch().dispatch(LayerNorm {
                x,
                gamma,
                beta,
                epsilon,
                y,
                mean,
                var,
            });
        });
    };
    // SAFETY: the parts cover all rows. `LayerNorm` gets as many elements of `x` as of `y`, and
    // writes whole vectors and the rest of each row.
    let y = unsafe { filled(x.len(), write) };
    (y, mean, var)
}

/// Rows of one part.
fn rows_per_part(len: usize) -> usize {
    (8192 / len.max(1)).max(1)
}

struct LayerNorm<'a> {
    x: &'a [f32],
    gamma: &'a [f32],
    beta: Option<&'a [f32]>,
    epsilon: f32,
    y: &'a mut [f32],
    mean: &'a mut [f32],
    var: &'a mut [f32],
}

impl WithSimd for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let len = self.gamma.len();
        let (gamma, gamma_rest) = S::as_simd_f32s(self.gamma);
        // Without beta, gamma is read instead and multiplied by zero.
        let (beta, beta_rest) = S::as_simd_f32s(self.beta.unwrap_or(self.gamma));
        let shifted = s.splat_f32s(if self.beta.is_some() { 1.0 } else { 0.0 });
        for (row, (x, y)) in self
            .x
            .chunks_exact(len)
            .zip(self.y.chunks_exact_mut(len))
            .enumerate()
        {
            let mean = sums(s, x, None) / len as f32;
            let var = sums(s, x, Some(mean)) / len as f32;
            (self.mean[row], self.var[row]) = (mean, var);
            let inv_std = (var + self.epsilon).sqrt().recip();
            let (scale, shift) = (s.splat_f32s(inv_std), s.splat_f32s(-mean * inv_std));
            let ((x, x_rest), (y, y_rest)) = (S::as_simd_f32s(x), S::as_mut_simd_f32s(y));
            for (i, (y, x)) in y.iter_mut().zip(x).enumerate() {
                let beta = s.mul_f32s(beta[i], shifted);
                *y = s.mul_add_e_f32s(s.mul_add_e_f32s(*x, scale, shift), gamma[i], beta);
            }
            let beta = s.mul_f32s(s.partial_load_f32s(beta_rest), shifted);
            let normed = s.mul_add_e_f32s(s.partial_load_f32s(x_rest), scale, shift);
            s.partial_store_f32s(
                y_rest,
                s.mul_add_e_f32s(normed, s.partial_load_f32s(gamma_rest), beta),
            );
        }
    }
}

/// Gradients of [`layer_norm`] with respect to `x`, gamma and beta, from its inputs, its mean and
/// variance, and the gradient `dy` of its output.
///
/// # Panics
/// If `x` is not whole rows of `gamma.len()` elements, `dy` is not as long as `x`, or `mean` or
/// `var` does not have one element per row.
pub fn layer_norm_grads(
    x: &[f32],
    gamma: &[f32],
    mean: &[f32],
    var: &[f32],
    dy: &[f32],
    epsilon: f32,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let len = gamma.len();
    let rows = row_count("layer_norm_grads: x", x.len(), len);
    check_len("layer_norm_grads: dy", dy.len(), x.len());
    check_len("layer_norm_grads: mean", mean.len(), rows);
    check_len("layer_norm_grads: var", var.len(), rows);
    let per_part = rows_per_part(len).max(rows.div_ceil(64));
    let parts = rows.div_ceil(per_part);
    let mut sums = vec![0.0; parts * 2 * len];
    let write = |dx: &mut [f32]| {
        let (dx, sums) = (Shared::new(dx), Shared::new(&mut sums));
        for_each(parts, x.len() * 12, |part| {
            let (first, count) = (part * per_part, per_part.min(rows - part * per_part));
            // SAFETY: every part has its own rows and partial sums.
            let (dx, sums) = unsafe {
                (
                    dx.range(first * len, count * len),
                    sums.range(part * 2 * len, 2 * len),
                )
            };
            let (x, dy) = (
                &x[first * len..][..dx.len()],
                &dy[first * len..][..dx.len()],
            );
            let (mean, var) = (&mean[first..][..count], &var[first..][..count]);
            arch().dispatch(LayerNormGrads {
                x,
                gamma,
                mean,
                var,
                dy,
                epsilon,
                dx,
                sums,
            });
        });
    };
    // SAFETY: the parts cover all rows. `LayerNormGrads` gets as many elements of `x` and `dy` as
    // of `dx`, and writes whole vectors and the rest of each row.
    let dx = unsafe { filled(x.len(), write) };
    let (mut dgamma, mut dbeta) = (vec![0.0; len], vec![0.0; len]);
    for part in sums.chunks_exact((2 * len).max(1)) {
        let (gamma, beta) = part.split_at(len);
        dgamma
            .iter_mut()
            .zip(gamma)
            .for_each(|(sum, part)| *sum += part);
        dbeta
            .iter_mut()
            .zip(beta)
            .for_each(|(sum, part)| *sum += part);
    }
    (dx, dgamma, dbeta)
}

struct LayerNormGrads<'a> {
    x: &'a [f32],
    gamma: &'a [f32],
    mean: &'a [f32],
    var: &'a [f32],
    dy: &'a [f32],
    epsilon: f32,
    dx: &'a mut [f32],
    /// Partial sums of the gradients of gamma, then of beta.
    sums: &'a mut [f32],
}

impl WithSimd for LayerNormGrads<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let len = self.gamma.len();
        let (gamma, gamma_rest) = S::as_simd_f32s(self.gamma);
        let (dgamma, dbeta) = self.sums.split_at_mut(len);
        let ((dgamma, dgamma_rest), (dbeta, dbeta_rest)) =
            (S::as_mut_simd_f32s(dgamma), S::as_mut_simd_f32s(dbeta));
        let rows = self
            .x
            .chunks_exact(len)
            .zip(self.dy.chunks_exact(len))
            .zip(self.dx.chunks_exact_mut(len));
        for (row, ((x, dy), dx)) in rows.enumerate() {
            let (mean, inv_std) = (
                self.mean[row],
                (self.var[row] + self.epsilon).sqrt().recip(),
            );
            let (scale, shift) = (s.splat_f32s(inv_std), s.splat_f32s(-mean * inv_std));
            let ((x, x_rest), (dy, dy_rest)) = (S::as_simd_f32s(x), S::as_simd_f32s(dy));
            let (mut sum, mut dot) = (s.splat_f32s(0.0), s.splat_f32s(0.0));
            for (i, (x, dy)) in x.iter().zip(dy).enumerate() {
                let normed = s.mul_add_e_f32s(*x, scale, shift);
                let dn = s.mul_f32s(*dy, gamma[i]);
                sum = s.add_f32s(sum, dn);
                dot = s.mul_add_e_f32s(dn, normed, dot);
                dgamma[i] = s.mul_add_e_f32s(*dy, normed, dgamma[i]);
                dbeta[i] = s.add_f32s(dbeta[i], *dy);
            }
            let (last_dy, last_gamma) = (
                s.partial_load_f32s(dy_rest),
                s.partial_load_f32s(gamma_rest),
            );
            let last_normed = s.mul_add_e_f32s(s.partial_load_f32s(x_rest), scale, shift);
            let last_dn = s.mul_f32s(last_dy, last_gamma);
            let sum = s.reduce_sum_f32s(s.add_f32s(sum, last_dn)) / len as f32;
            let dot = s.reduce_sum_f32s(s.mul_add_e_f32s(last_dn, last_normed, dot)) / len as f32;
            let part = s.mul_add_e_f32s(last_dy, last_normed, s.partial_load_f32s(dgamma_rest));
            s.partial_store_f32s(dgamma_rest, part);
            s.partial_store_f32s(
                dbeta_rest,
                s.add_f32s(last_dy, s.partial_load_f32s(dbeta_rest)),
            );
            let (sum, dot) = (s.splat_f32s(-sum * inv_std), s.splat_f32s(-dot * inv_std));
            let (dx, dx_rest) = S::as_mut_simd_f32s(dx);
            for (i, ((x, dy), dx)) in x.iter().zip(dy).zip(dx).enumerate() {
                let normed = s.mul_add_e_f32s(*x, scale, shift);
                let dn = s.mul_f32s(s.mul_f32s(*dy, gamma[i]), scale);
                *dx = s.add_f32s(s.mul_add_e_f32s(normed, dot, dn), sum);
            }
            let last = s.add_f32s(
                s.mul_add_e_f32s(last_normed, dot, s.mul_f32s(last_dn, scale)),
                sum,
            );
            s.partial_store_f32s(dx_rest, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_panics;

    #[test]
    fn layer_norm_rejects_other_sizes() {
        let values = [0.5; 32];
        let v = |len: usize| &values[..len];
        let grads = |x: usize, mean: usize, var: usize, dy: usize| {
            layer_norm_grads(v(x), v(4), v(mean), v(var), v(dy), 1e-5).0
        };
        assert_panics("layer_norm: x has 13 elements", || {
            layer_norm(v(13), v(4), None, 1e-5)
        });
        assert_panics("layer_norm: x has 12 elements", || {
            layer_norm(v(12), &[], None, 1e-5)
        });
        assert_panics("layer_norm: beta has 5 elements, expected 4", || {
            layer_norm(v(12), v(4), Some(v(5)), 1e-5)
        });
        assert_panics("layer_norm_grads: x has 11 elements", || {
            grads(11, 3, 3, 11)
        });
        assert_panics("layer_norm_grads: mean has 2 elements, expected 3", || {
            grads(12, 2, 3, 12)
        });
        assert_panics("layer_norm_grads: var has 4 elements, expected 3", || {
            grads(12, 3, 4, 12)
        });
        assert_panics("layer_norm_grads: dy has 13 elements, expected 12", || {
            grads(12, 3, 3, 13)
        });
        assert!(layer_norm_grads(&[], &[], &[], &[], &[], 1e-5).0.is_empty());
    }
}
