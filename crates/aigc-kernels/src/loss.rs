//! Cross-entropy losses of logits, per row, and their gradients.

use super::{
    math::{exp, sigmoid, softplus},
    memory::{filled, volume},
    simd::arch,
    threads::{Shared, for_each},
};
use pulp::{Simd, WithSimd};

/// Binary cross-entropy of logits `l` and targets `t`: `Σ softplus(l) − t·l` over every row.
///
/// `logits` and `targets` are `[rows, n]`, the result is `[rows]`.
///
/// # Panics
/// If the slices differ in length or are not whole rows of `n`.
pub fn binary_cross_entropy(logits: &[f32], targets: &[f32], n: usize) -> Vec<f32> {
    struct Row<'a>(&'a [f32], &'a [f32]);
    impl WithSimd for Row<'_> {
        type Output = f32;
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) -> f32 {
            let ((l, l_rest), (t, t_rest)) = (S::as_simd_f32s(self.0), S::as_simd_f32s(self.1));
            let mut sum = s.splat_f32s(0.0);
            for (l, t) in l.iter().zip(t) {
                sum = s.add_f32s(sum, s.negate_mul_add_e_f32s(*l, *t, softplus(s, *l)));
            }
            let mut total = s.reduce_sum_f32s(sum);
            for (l, t) in l_rest.iter().zip(t_rest) {
                total += l.max(0.0) + (-l.abs()).exp().ln_1p() - l * t;
            }
            total
        }
    }
    let rows = logits.len() / n.max(1);
    assert!(
        targets.len() == logits.len() && rows * n == logits.len(),
        "binary cross-entropy of {} logits and {} targets in rows of {n}",
        logits.len(),
        targets.len()
    );
    let per_part = (4096 / n.max(1)).max(1);
    filled(rows, |sums| {
        let sums = Shared::new(sums);
        for_each(rows.div_ceil(per_part), logits.len() * 25, |part| {
            let (first, count) = (part * per_part, per_part.min(rows - part * per_part));
            // SAFETY: every part has its own rows.
            for (sum, row) in unsafe { sums.range(first, count) }.iter_mut().zip(first..) {
                let row = row * n..(row + 1) * n;
                *sum = arch().dispatch(Row(&logits[row.clone()], &targets[row]));
            }
        });
    })
}

/// Gradient of [`binary_cross_entropy`] with respect to the logits: `grad[row]·(σ(l) − t)`.
///
/// `grad` is `[rows]`, the result `[rows, n]`.
///
/// # Panics
/// If the lengths of the slices do not fit each other.
pub fn binary_cross_entropy_grad(
    logits: &[f32],
    targets: &[f32],
    grad: &[f32],
    n: usize,
) -> Vec<f32> {
    struct Row<'a>(&'a [f32], &'a [f32], f32, &'a mut [f32]);
    impl WithSimd for Row<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) {
            let ((l, l_rest), (t, t_rest)) = (S::as_simd_f32s(self.0), S::as_simd_f32s(self.1));
            let (dl, dl_rest) = S::as_mut_simd_f32s(self.3);
            let grad = s.splat_f32s(self.2);
            for ((dl, l), t) in dl.iter_mut().zip(l).zip(t) {
                *dl = s.mul_f32s(grad, s.sub_f32s(sigmoid(s, *l), *t));
            }
            let (l, t) = (s.partial_load_f32s(l_rest), s.partial_load_f32s(t_rest));
            s.partial_store_f32s(dl_rest, s.mul_f32s(grad, s.sub_f32s(sigmoid(s, l), t)));
        }
    }
    let rows = logits.len() / n.max(1);
    assert!(
        targets.len() == logits.len() && grad.len() == rows && rows * n == logits.len(),
        "binary cross-entropy of {} logits and {} targets in rows of {n}, {} gradients",
        logits.len(),
        targets.len(),
        grad.len()
    );
    let per_part = (4096 / n.max(1)).max(1);
    filled(logits.len(), |dl| {
        let dl = Shared::new(dl);
        for_each(rows.div_ceil(per_part), logits.len() * 20, |part| {
            let first = part * per_part;
            for (row, grad) in (first..).zip(&grad[first..rows.min(first + per_part)]) {
                // SAFETY: rows are disjoint.
                let dl = unsafe { dl.range(row * n, n) };
                let row = row * n..(row + 1) * n;
                arch().dispatch(Row(&logits[row.clone()], &targets[row], *grad, dl));
            }
        });
    })
}

/// `ln Σ e^l` of a row, shifted by the maximum.
struct LogSumExp<'a>(&'a [f32]);

impl WithSimd for LogSumExp<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) -> f32 {
        let (body, rest) = S::as_simd_f32s(self.0);
        let mut top = s.splat_f32s(f32::NEG_INFINITY);
        for x in body {
            top = s.max_f32s(top, *x);
        }
        let top = rest
            .iter()
            .fold(s.reduce_max_f32s(top), |top, x| top.max(*x));
        let (shift, mut sum) = (s.splat_f32s(top), s.splat_f32s(0.0));
        for x in body {
            sum = s.add_f32s(sum, exp(s, s.sub_f32s(*x, shift)));
        }
        let sum = s.reduce_sum_f32s(sum) + rest.iter().map(|x| (x - top).exp()).sum::<f32>();
        top + sum.ln()
    }
}

/// Cross-entropy of every row: `−ln softmax(logits)[target]`.
///
/// `logits` is `[rows, n]`; `targets` and the result are `[rows]`.
///
/// # Panics
/// If there is not one target per row, or a target is not below `n`.
pub fn cross_entropy(logits: &[f32], targets: &[usize], n: usize) -> Vec<f32> {
    assert!(
        volume(&[targets.len(), n]) == logits.len(),
        "cross-entropy of {} logits in rows of {n} and {} targets",
        logits.len(),
        targets.len()
    );
    let per_part = (4096 / n.max(1)).max(1);
    filled(targets.len(), |losses| {
        let losses = Shared::new(losses);
        for_each(
            targets.len().div_ceil(per_part),
            logits.len() * 20,
            |part| {
                let (first, count) = (
                    part * per_part,
                    per_part.min(targets.len() - part * per_part),
                );
                // SAFETY: every part has its own rows.
                for (loss, row) in unsafe { losses.range(first, count) }
                    .iter_mut()
                    .zip(first..)
                {
                    let logits = &logits[row * n..][..n];
                    *loss = arch().dispatch(LogSumExp(logits)) - logits[targets[row]];
                }
            },
        );
    })
}

/// Gradient of [`cross_entropy`] with respect to the logits:
/// `grad[row]·(softmax(logits) − one_hot(target))`.
///
/// `logits` and the result are `[rows, n]`; `targets` and `grad` are `[rows]`.
///
/// # Panics
/// If there is not one target and one gradient per row, or a target is not below `n`.
pub fn cross_entropy_grad(logits: &[f32], targets: &[usize], grad: &[f32], n: usize) -> Vec<f32> {
    assert!(
        volume(&[targets.len(), n]) == logits.len() && grad.len() == targets.len(),
        "cross-entropy of {} logits in rows of {n}, {} targets and {} gradients",
        logits.len(),
        targets.len(),
        grad.len()
    );
    struct Row<'a>(&'a [f32], f32, f32, &'a mut [f32]);
    impl WithSimd for Row<'_> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) {
            let ((l, l_rest), (dl, dl_rest)) =
                (S::as_simd_f32s(self.0), S::as_mut_simd_f32s(self.3));
            let (log_sum, grad) = (s.splat_f32s(self.1), s.splat_f32s(self.2));
            for (dl, l) in dl.iter_mut().zip(l) {
                *dl = s.mul_f32s(grad, exp(s, s.sub_f32s(*l, log_sum)));
            }
            for (dl, l) in dl_rest.iter_mut().zip(l_rest) {
                *dl = self.2 * (l - self.1).exp();
            }
        }
    }
    let per_part = (4096 / n.max(1)).max(1);
    filled(logits.len(), |dl| {
        let dl = Shared::new(dl);
        for_each(
            targets.len().div_ceil(per_part),
            logits.len() * 40,
            |part| {
                for row in part * per_part..targets.len().min((part + 1) * per_part) {
                    let logits = &logits[row * n..][..n];
                    // SAFETY: rows are disjoint.
                    let dl = unsafe { dl.range(row * n, n) };
                    let log_sum = arch().dispatch(LogSumExp(logits));
                    arch().dispatch(Row(logits, log_sum, grad[row], dl));
                    dl[targets[row]] -= grad[row];
                }
            },
        );
    })
}
