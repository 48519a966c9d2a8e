//! Losses from logits, row by row.

use super::{
    math::{exp, sigmoid, softplus},
    memory::filled,
    simd::arch,
    threads::{Shared, for_each},
};
use pulp::{Simd, WithSimd};

/// `Σ softplus(l) − t·l` over rows of `n`.
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
    assert_eq!(
        targets.len(),
        logits.len(),
        "targets of a binary cross-entropy"
    );
    let per_part = (4096 / n.max(1)).max(1);
    filled(rows, |sums| {
        let sums = Shared::new(sums);
        for_each(rows.div_ceil(per_part), logits.len() * 25, |part| {
            let (first, count) = (part * per_part, per_part.min(rows - part * per_part));
            // SAFETY: parts have rows of their own.
            for (sum, row) in unsafe { sums.range(first, count) }.iter_mut().zip(first..) {
                let row = row * n..(row + 1) * n;
                *sum = arch().dispatch(Row(&logits[row.clone()], &targets[row]));
            }
        });
    })
}

/// `grad[row]·(σ(l) − t)`.
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
        "sizes of a loss"
    );
    let per_part = (4096 / n.max(1)).max(1);
    filled(logits.len(), |dl| {
        let dl = Shared::new(dl);
        for_each(rows.div_ceil(per_part), logits.len() * 20, |part| {
            let first = part * per_part;
            for (row, grad) in (first..).zip(&grad[first..rows.min(first + per_part)]) {
                // SAFETY: rows do not overlap.
                let dl = unsafe { dl.range(row * n, n) };
                let row = row * n..(row + 1) * n;
                arch().dispatch(Row(&logits[row.clone()], &targets[row], *grad, dl));
            }
        });
    })
}

/// `ln Σ e^l` of a row.
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

/// `−ln softmax(logits)[target]` of rows of `n`.
///
/// # Panics
/// If there is not one target per row, or one is not below `n`.
pub fn cross_entropy(logits: &[f32], targets: &[usize], n: usize) -> Vec<f32> {
    assert_eq!(
        targets.len() * n,
        logits.len(),
        "targets of a cross-entropy"
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
                // SAFETY: parts have rows of their own.
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

/// `grad[row]·(softmax(logits) − one_hot(target))` of rows of `n`.
///
/// # Panics
/// If there is not one target and one gradient per row, or a target is not below `n`.
pub fn cross_entropy_grad(logits: &[f32], targets: &[usize], grad: &[f32], n: usize) -> Vec<f32> {
    assert!(
        targets.len() * n == logits.len() && grad.len() == targets.len(),
        "targets of a cross-entropy"
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
                    // SAFETY: rows do not overlap.
                    let dl = unsafe { dl.range(row * n, n) };
                    let log_sum = arch().dispatch(LogSumExp(logits));
                    arch().dispatch(Row(logits, log_sum, grad[row], dl));
                    dl[targets[row]] -= grad[row];
                }
            },
        );
    })
}
