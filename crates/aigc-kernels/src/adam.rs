//! The Adam update in one pass over memory.

use super::{
    memory::check_len,
    simd::arch,
    threads::{Shared, for_each},
};
use pulp::{Simd, WithSimd};

/// Hyperparameters of one Adam step (Kingma and Ba 2015, <https://arxiv.org/abs/1412.6980>).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// Learning rate.
    pub learning_rate: f64,
    /// Exponential decay rate of the first moment.
    pub beta_1: f64,
    /// Exponential decay rate of the second moment.
    pub beta_2: f64,
    /// Added to the square root of the second moment.
    pub epsilon: f64,
    /// Number of this step, counted from 1, for the bias correction.
    pub step: i32,
    /// L2 penalty: `weight_decay·param` is added to the gradient.
    pub weight_decay: f64,
    /// Decoupled weight decay, which bypasses the moments (AdamW).
    pub decoupled_decay: f64,
}

/// Elements per work item.
const PART: usize = 16 * 1024;

/// One Adam step: updates `param`, `moment_1` and `moment_2` in place.
///
/// With `g = grad + weight_decay·param`: `m = β₁·m + (1 − β₁)·g`, `v = β₂·v + (1 − β₂)·g²`, and
/// `param = param·(1 − lr·decoupled_decay) − lr·m̂ / (√v̂ + ε)` with the bias-corrected `m̂` and
/// `v̂`.
///
/// # Panics
/// If `grad`, `moment_1` or `moment_2` is not as long as `param`.
pub fn adam(
    param: &mut [f32],
    grad: &[f32],
    moment_1: &mut [f32],
    moment_2: &mut [f32],
    step: AdamStep,
) {
    let len = param.len();
    check_len("adam: grad", grad.len(), len);
    check_len("adam: moment_1", moment_1.len(), len);
    check_len("adam: moment_2", moment_2.len(), len);
    let (param, moment_1, moment_2) = (
        Shared::new(param),
        Shared::new(moment_1),
        Shared::new(moment_2),
    );
    for_each(len.div_ceil(PART), len * 12, |part| {
        let at = part * PART;
        let count = PART.min(len - at);
        // SAFETY: work items are disjoint ranges.
        let (param, moment_1, moment_2) = unsafe {
            (
                param.range(at, count),
                moment_1.range(at, count),
                moment_2.range(at, count),
            )
        };
        arch().dispatch(Adam {
            param,
            grad: &grad[at..at + count],
            moment_1,
            moment_2,
            step,
        });
    });
}

struct Adam<'a> {
    param: &'a mut [f32],
    grad: &'a [f32],
    moment_1: &'a mut [f32],
    moment_2: &'a mut [f32],
    step: AdamStep,
}

impl WithSimd for Adam<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let factors = Factors::new(s, self.step);
        let (p, p_rest) = S::as_mut_simd_f32s(self.param);
        let (g, g_rest) = S::as_simd_f32s(self.grad);
        let (m, m_rest) = S::as_mut_simd_f32s(self.moment_1);
        let (v, v_rest) = S::as_mut_simd_f32s(self.moment_2);
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            (*p, *m, *v) = factors.apply(s, *p, *g, *m, *v);
        }
        let (p, g) = (s.partial_load_f32s(p_rest), s.partial_load_f32s(g_rest));
        let (m, v) = (s.partial_load_f32s(m_rest), s.partial_load_f32s(v_rest));
        let (p, m, v) = factors.apply(s, p, g, m, v);
        s.partial_store_f32s(p_rest, p);
        s.partial_store_f32s(m_rest, m);
        s.partial_store_f32s(v_rest, v);
    }
}

/// The step's constants, broadcast to all vector lanes. (A closure that captures them would not be
/// compiled for the selected instruction set.)
struct Factors<S: Simd> {
    keep: [S::f32s; 2],
    add: [S::f32s; 2],
    /// Minus the learning rate over the first moment's bias correction.
    rate: S::f32s,
    /// One over the square root of the second moment's bias correction.
    spread: S::f32s,
    epsilon: S::f32s,
    decay: S::f32s,
    shrink: S::f32s,
}

impl<S: Simd> Factors<S> {
    #[inline(always)]
    fn new(s: S, step: AdamStep) -> Self {
        let AdamStep {
            learning_rate,
            beta_1,
            beta_2,
            epsilon,
            step: number,
            weight_decay,
            decoupled_decay,
        } = step;
        let (correction_1, correction_2) = (
            1.0 - beta_1.powi(number),
            (1.0 - beta_2.powi(number)).sqrt(),
        );
        Self {
            keep: [s.splat_f32s(beta_1 as f32), s.splat_f32s(beta_2 as f32)],
            add: [
                s.splat_f32s((1.0 - beta_1) as f32),
                s.splat_f32s((1.0 - beta_2) as f32),
            ],
            rate: s.splat_f32s((-learning_rate / correction_1) as f32),
            spread: s.splat_f32s((1.0 / correction_2) as f32),
            epsilon: s.splat_f32s(epsilon as f32),
            decay: s.splat_f32s(weight_decay as f32),
            shrink: s.splat_f32s((1.0 - learning_rate * decoupled_decay) as f32),
        }
    }

    /// Returns the updated parameter, first and second moment.
    #[inline(always)]
    fn apply(
        &self,
        s: S,
        p: S::f32s,
        g: S::f32s,
        m: S::f32s,
        v: S::f32s,
    ) -> (S::f32s, S::f32s, S::f32s) {
        let g = s.mul_add_e_f32s(p, self.decay, g);
        let m = s.mul_add_e_f32s(m, self.keep[0], s.mul_f32s(g, self.add[0]));
        let v = s.mul_add_e_f32s(v, self.keep[1], s.mul_f32s(s.mul_f32s(g, g), self.add[1]));
        let deviation = s.mul_add_e_f32s(s.sqrt_f32s(v), self.spread, self.epsilon);
        let p = s.mul_add_e_f32s(
            s.div_f32s(m, deviation),
            self.rate,
            s.mul_f32s(p, self.shrink),
        );
        (p, m, v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_panics;

    #[test]
    fn adam_rejects_other_lengths() {
        let step = AdamStep {
            learning_rate: 1e-3,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            step: 1,
            weight_decay: 0.0,
            decoupled_decay: 0.0,
        };
        for (index, name) in ["grad", "moment_1", "moment_2"].into_iter().enumerate() {
            for len in [0, 7, 9] {
                let mut lens = [8; 3];
                lens[index] = len;
                let [grad, mut moment_1, mut moment_2] = lens.map(|len| vec![0.0; len]);
                let expected = format!("adam: {name} has {len} elements, expected 8");
                assert_panics(&expected, || {
                    adam(&mut [0.0; 8], &grad, &mut moment_1, &mut moment_2, step)
                });
            }
        }
    }
}
