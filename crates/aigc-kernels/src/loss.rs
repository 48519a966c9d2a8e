//! Cross-entropy losses of logits, per row, and their gradients.

use super::{
    math::{exp, sigmoid, softplus},
    memory::{check_len, filled, row_count, volume},
    simd::arch,
    threads::{Shared, for_each},
};
use pulp::{Simd, WithSimd};

/// Binary cross-entropy of logits `l` and targets `t`: `Σ softplus(l) − t·l` over every row.
///
/// `logits` and `targets` are `[rows, n]`, the result is `[rows]`.
///
/// # Panics
/// If `logits` is not whole rows of `n`, or `targets` is not as long as `logits`.
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
    let rows = row_count("binary_cross_entropy: logits", logits.len(), n);
    check_len("binary_cross_entropy: targets", targets.len(), logits.len());
    let per_part = (4096 / n.max(1)).max(1);
    let write = |sums: &mut [f32]| {
        let sums = Shared::new(sums);
        for_each(rows.div_ceil(per_part), logits.len() * 25, |part| {
            let (first, count) = (part * per_part, per_part.min(rows - part * per_part));
            // SAFETY: every part has its own rows.
            for (sum, row) in unsafe { sums.range(first, count) }.iter_mut().zip(first..) {
                let row = row * n..(row + 1) * n;
                *sum = arch().dispatch(Row(&logits[row.clone()], &targets[row]));
            }
        });
    };
    // SAFETY: the parts cover all rows, and write the sum of each of theirs.
    unsafe { filled(rows, write) }
}

/// Gradient of [`binary_cross_entropy`] with respect to the logits: `grad[row]·(σ(l) − t)`.
///
/// `grad` is `[rows]`, the result `[rows, n]`.
///
/// # Panics
/// If `logits` is not whole rows of `n`, `targets` is not as long as `logits`, or `grad` does not
/// have one element per row.
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
    let rows = row_count("binary_cross_entropy_grad: logits", logits.len(), n);
    check_len(
        "binary_cross_entropy_grad: targets",
        targets.len(),
        logits.len(),
    );
    check_len("binary_cross_entropy_grad: grad", grad.len(), rows);
    let per_part = (4096 / n.max(1)).max(1);
    let write = |dl: &mut [f32]| {
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
    };
    // SAFETY: the parts cover all rows. `Row` gets as many logits and targets as elements of `dl`,
    // and writes whole vectors and the rest.
    unsafe { filled(logits.len(), write) }
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
/// If `logits` does not have one row of `n` per target, or a target is not below `n`.
pub fn cross_entropy(logits: &[f32], targets: &[usize], n: usize) -> Vec<f32> {
    check_len(
        "cross_entropy: logits",
        logits.len(),
        volume(&[targets.len(), n]),
    );
    check_targets("cross_entropy", targets, n);
    let per_part = (4096 / n.max(1)).max(1);
    let write = |losses: &mut [f32]| {
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
    };
    // SAFETY: the parts cover all rows, and write the loss of each of theirs.
    unsafe { filled(targets.len(), write) }
}

/// # Panics
/// If a target is not below `n`.
#[track_caller]
fn check_targets(function: &str, targets: &[usize], n: usize) {
    if let Some(row) = targets.iter().position(|target| *target >= n) {
        panic!(
            "{function}: the target of row {row} is {}, expected below {n}",
            targets[row]
        );
    }
}

/// Gradient of [`cross_entropy`] with respect to the logits:
/// `grad[row]·(softmax(logits) − one_hot(target))`.
///
/// `logits` and the result are `[rows, n]`; `targets` and `grad` are `[rows]`.
///
/// # Panics
/// If `logits` does not have one row of `n` per target, `grad` does not have one element per
/// target, or a target is not below `n`.
pub fn cross_entropy_grad(logits: &[f32], targets: &[usize], grad: &[f32], n: usize) -> Vec<f32> {
    check_len(
        "cross_entropy_grad: logits",
        logits.len(),
        volume(&[targets.len(), n]),
    );
    check_len("cross_entropy_grad: grad", grad.len(), targets.len());
    check_targets("cross_entropy_grad", targets, n);
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
    let write = |dl: &mut [f32]| {
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
    };
    // SAFETY: the parts cover all rows. `Row` gets as many logits as elements of `dl`, and writes
    // whole vectors and the rest before the element of the target is read.
    unsafe { filled(logits.len(), write) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_panics;

    #[test]
    fn losses_reject_other_lengths_and_targets() {
        let values = [0.5; 13];
        let v = |len: usize| &values[..len];
        assert_panics("binary_cross_entropy: logits has 11 elements", || {
            binary_cross_entropy(v(11), v(11), 4)
        });
        assert_panics("binary_cross_entropy: logits has 12 elements", || {
            binary_cross_entropy(v(12), v(12), 0)
        });
        assert_panics("binary_cross_entropy: targets has 13 elements", || {
            binary_cross_entropy(v(12), v(13), 4)
        });
        assert_panics("binary_cross_entropy_grad: logits has 11 elements", || {
            binary_cross_entropy_grad(v(11), v(11), v(2), 4)
        });
        assert_panics("binary_cross_entropy_grad: targets has 11 elements", || {
            binary_cross_entropy_grad(v(12), v(11), v(3), 4)
        });
        assert_panics("binary_cross_entropy_grad: grad has 2 elements", || {
            binary_cross_entropy_grad(v(12), v(12), v(2), 4)
        });
        assert_panics("cross_entropy: logits has 13 elements, expected 12", || {
            cross_entropy(v(13), &[0, 1, 2], 4)
        });
        assert_panics("the target of row 1 is 4, expected below 4", || {
            cross_entropy(v(12), &[0, 4, 2], 4)
        });
        assert_panics("the target of row 0 is 0, expected below 0", || {
            cross_entropy(&[], &[0], 0)
        });
        assert_panics("overflow", || cross_entropy(&[], &[0, 0], usize::MAX));
        assert_panics("cross_entropy_grad: logits has 11 elements", || {
            cross_entropy_grad(v(11), &[0, 1, 2], v(3), 4)
        });
        assert_panics(
            "cross_entropy_grad: grad has 4 elements, expected 3",
            || cross_entropy_grad(v(12), &[0, 1, 2], v(4), 4),
        );
        assert_panics("cross_entropy_grad: the target of row 2 is 9", || {
            cross_entropy_grad(v(12), &[0, 1, 9], v(3), 4)
        });
    }
}
