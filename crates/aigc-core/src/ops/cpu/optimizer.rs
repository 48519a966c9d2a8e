//! An optimizer's step in one pass over memory.

use super::threads::{Shared, for_each};
use crate::ops::AdamStep;
use pulp::{Arch, Simd, WithSimd};

/// Elements that one part takes.
const PART: usize = 16 * 1024;

/// One step of Adam, in place.
pub(crate) fn adam(param: &mut [f32], grad: &[f32], moment_1: &mut [f32], moment_2: &mut [f32], step: AdamStep) {
    let len = param.len();
    assert!(grad.len() == len && moment_1.len() == len && moment_2.len() == len, "moments of the parameter's size");
    let (param, moment_1, moment_2) = (Shared::new(param), Shared::new(moment_1), Shared::new(moment_2));
    for_each(len.div_ceil(PART), len * 12, |part| {
        let at = part * PART;
        let count = PART.min(len - at);
        // SAFETY: parts do not overlap.
        let (param, moment_1, moment_2) =
            unsafe { (param.range(at, count), moment_1.range(at, count), moment_2.range(at, count)) };
        Arch::new().dispatch(Adam { param, grad: &grad[at..at + count], moment_1, moment_2, step });
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
        let AdamStep { learning_rate, beta_1, beta_2, epsilon, time, weight_decay, decoupled_decay } = self.step;
        let splat = |value: f64| s.splat_f32s(value as f32);
        let (keep_1, add_1, keep_2, add_2) = (splat(beta_1), splat(1.0 - beta_1), splat(beta_2), splat(1.0 - beta_2));
        let (correction_1, correction_2) = (1.0 - beta_1.powi(time), (1.0 - beta_2.powi(time)).sqrt());
        let (rate, spread) = (splat(-learning_rate / correction_1), splat(1.0 / correction_2));
        let (epsilon, decay, shrink) =
            (splat(epsilon), splat(weight_decay), splat(1.0 - learning_rate * decoupled_decay));
        let one = |p: S::f32s, g: S::f32s, m: S::f32s, v: S::f32s| {
            let g = s.mul_add_e_f32s(p, decay, g);
            let m = s.mul_add_e_f32s(m, keep_1, s.mul_f32s(g, add_1));
            let v = s.mul_add_e_f32s(v, keep_2, s.mul_f32s(s.mul_f32s(g, g), add_2));
            let deviation = s.mul_add_e_f32s(s.sqrt_f32s(v), spread, epsilon);
            let p = s.mul_add_e_f32s(s.div_f32s(m, deviation), rate, s.mul_f32s(p, shrink));
            (p, m, v)
        };
        let (p, p_rest) = S::as_mut_simd_f32s(self.param);
        let (g, g_rest) = S::as_simd_f32s(self.grad);
        let (m, m_rest) = S::as_mut_simd_f32s(self.moment_1);
        let (v, v_rest) = S::as_mut_simd_f32s(self.moment_2);
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            (*p, *m, *v) = one(*p, *g, *m, *v);
        }
        let load = |rest: &[f32]| s.partial_load_f32s(rest);
        let (p, m, v) = one(load(p_rest), load(g_rest), load(m_rest), load(v_rest));
        s.partial_store_f32s(p_rest, p);
        s.partial_store_f32s(m_rest, m);
        s.partial_store_f32s(v_rest, v);
    }
}
