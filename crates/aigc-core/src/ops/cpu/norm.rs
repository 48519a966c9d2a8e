//! Group and batch normalisation with the activation that follows, in one pass over the cache each way.

use super::{
    curve::{Curve, WithCurve, with_curve},
    memory::filled,
    threads::{Shared, for_each},
};
use crate::nn::Activation;
use pulp::{Arch, Simd, WithSimd};

/// Which numbers are normalised together: `units`, each of `segments` stretches of `len` numbers of one channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Units {
    units: usize,
    segments: usize,
    len: usize,
    unit_step: usize,
    segment_step: usize,
    channels: usize,
    /// Whether a unit is one channel (else its segments are).
    unit_is_channel: bool,
}

impl Units {
    /// Groups of channels within an image, of `x` `[batch, channels, len]`.
    pub(crate) fn groups([batch, channels, len]: [usize; 3], groups: usize) -> Self {
        let segments = channels / groups;
        let unit_step = segments * len;
        Self { units: batch * groups, segments, len, unit_step, segment_step: len, channels, unit_is_channel: false }
    }

    /// Channels over the batch, of `x` `[batch, channels, len]`.
    pub(crate) fn channels([batch, channels, len]: [usize; 3]) -> Self {
        let segment_step = channels * len;
        Self { units: channels, segments: batch, len, unit_step: len, segment_step, channels, unit_is_channel: true }
    }

    fn offset(&self, unit: usize, segment: usize) -> usize {
        unit * self.unit_step + segment * self.segment_step
    }

    fn channel(&self, unit: usize, segment: usize) -> usize {
        if self.unit_is_channel { unit } else { unit * self.segments % self.channels + segment }
    }

    fn count(&self) -> usize {
        self.segments * self.len
    }

    fn total(&self) -> usize {
        self.units * self.count()
    }
}

/// Sum of `values`, or of their squared distances from `centre`.
#[inline(always)]
fn sums<S: Simd>(s: S, values: &[f32], centre: Option<f32>) -> f32 {
    let (body, tail) = S::as_simd_f32s(values);
    let (fours, rest) = pulp::as_arrays::<4, _>(body);
    let mut acc = [s.splat_f32s(0.0); 4];
    let c = s.splat_f32s(centre.unwrap_or(0.0));
    match centre {
        None => {
            for four in fours {
                for (acc, x) in acc.iter_mut().zip(four) {
                    *acc = s.add_f32s(*acc, *x);
                }
            }
            for x in rest {
                acc[0] = s.add_f32s(acc[0], *x);
            }
        }
        Some(_) => {
            for four in fours {
                for (acc, x) in acc.iter_mut().zip(four) {
                    let d = s.sub_f32s(*x, c);
                    *acc = s.mul_add_e_f32s(d, d, *acc);
                }
            }
            for x in rest {
                let d = s.sub_f32s(*x, c);
                acc[0] = s.mul_add_e_f32s(d, d, acc[0]);
            }
        }
    }
    let total = s.reduce_sum_f32s(s.add_f32s(s.add_f32s(acc[0], acc[1]), s.add_f32s(acc[2], acc[3])));
    let tail = tail.iter().map(|x| centre.map_or(*x, |c| (x - c) * (x - c)));
    total + tail.sum::<f32>()
}

/// `y = f((x − mean) / √(var + ε)·gamma + beta)`: `y`, and mean and biased variance of every unit.
pub(crate) fn norm(
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    epsilon: f32,
    activation: Activation,
    units: Units,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    with_curve(activation, Norm { x, gamma, beta, epsilon, units })
}

struct Norm<'a> {
    x: &'a [f32],
    gamma: &'a [f32],
    beta: &'a [f32],
    epsilon: f32,
    units: Units,
}

impl WithCurve for Norm<'_> {
    type Output = (Vec<f32>, Vec<f32>, Vec<f32>);

    fn with<C: Curve>(self, curve: C) -> Self::Output {
        let units = self.units;
        let (mut mean, mut var) = (vec![0.0; units.units], vec![0.0; units.units]);
        let y = filled(units.total(), |y| {
            let (y, mean, var) = (Shared::new(y), Shared::new(&mut mean), Shared::new(&mut var));
            for_each(units.units, units.total() * (6 + C::COST), |unit| {
                // SAFETY: every unit has its own numbers.
                let (mean, var) = unsafe { (mean.range(unit, 1), var.range(unit, 1)) };
                Arch::new().dispatch(NormUnit { norm: &self, curve, unit, y: &y, mean, var });
            });
        });
        (y, mean, var)
    }
}

struct NormUnit<'a, C> {
    norm: &'a Norm<'a>,
    curve: C,
    unit: usize,
    y: &'a Shared<'a, f32>,
    mean: &'a mut [f32],
    var: &'a mut [f32],
}

impl<C: Curve> WithSimd for NormUnit<'_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let Norm { x, gamma, beta, epsilon, units } = *self.norm;
        let (mut sum, mut squares) = (0.0, 0.0);
        for segment in 0..units.segments {
            sum += sums(s, &x[units.offset(self.unit, segment)..][..units.len], None);
        }
        let mean = sum / units.count() as f32;
        for segment in 0..units.segments {
            squares += sums(s, &x[units.offset(self.unit, segment)..][..units.len], Some(mean));
        }
        let var = squares / units.count() as f32;
        (self.mean[0], self.var[0]) = (mean, var);
        let inv_std = (var + epsilon).sqrt().recip();
        for segment in 0..units.segments {
            let (at, channel) = (units.offset(self.unit, segment), units.channel(self.unit, segment));
            let scale = inv_std * gamma[channel];
            let (scale, shift) = (s.splat_f32s(scale), s.splat_f32s(beta[channel] - mean * scale));
            // SAFETY: every unit has its own numbers.
            let y = unsafe { self.y.range(at, units.len) };
            let ((x, x_rest), (y, y_rest)) = (S::as_simd_f32s(&x[at..at + units.len]), S::as_mut_simd_f32s(y));
            for (y, x) in y.iter_mut().zip(x) {
                *y = self.curve.value(s, s.mul_add_e_f32s(*x, scale, shift));
            }
            let last = self.curve.value(s, s.mul_add_e_f32s(s.partial_load_f32s(x_rest), scale, shift));
            s.partial_store_f32s(y_rest, last);
        }
    }
}

/// Gradients of [`norm`]: of `x`, gamma and beta, from its inputs, its mean and variance, and the gradient of `y`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn norm_grads(
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    mean: &[f32],
    var: &[f32],
    dy: &[f32],
    epsilon: f32,
    activation: Activation,
    units: Units,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    with_curve(activation, NormGrads { x, gamma, beta, mean, var, dy, epsilon, units })
}

struct NormGrads<'a> {
    x: &'a [f32],
    gamma: &'a [f32],
    beta: &'a [f32],
    mean: &'a [f32],
    var: &'a [f32],
    dy: &'a [f32],
    epsilon: f32,
    units: Units,
}

impl WithCurve for NormGrads<'_> {
    type Output = (Vec<f32>, Vec<f32>, Vec<f32>);

    fn with<C: Curve>(self, curve: C) -> Self::Output {
        let units = self.units;
        // Gradients of gamma and beta from every segment, added up in order afterwards.
        let mut parts = vec![[0.0; 2]; units.units * units.segments];
        let dx = filled(units.total(), |dx| {
            let (dx, parts) = (Shared::new(dx), Shared::new(&mut parts));
            for_each(units.units, units.total() * (10 + 2 * C::COST), |unit| {
                // SAFETY: every unit has its own numbers.
                let parts = unsafe { parts.range(unit * units.segments, units.segments) };
                Arch::new().dispatch(NormGradsUnit { norm: &self, curve, unit, dx: &dx, parts });
            });
        });
        let (mut dgamma, mut dbeta) = (vec![0.0; units.channels], vec![0.0; units.channels]);
        for unit in 0..units.units {
            for segment in 0..units.segments {
                let channel = units.channel(unit, segment);
                let [gamma, beta] = parts[unit * units.segments + segment];
                dgamma[channel] += gamma;
                dbeta[channel] += beta;
            }
        }
        (dx, dgamma, dbeta)
    }
}

struct NormGradsUnit<'a, C> {
    norm: &'a NormGrads<'a>,
    curve: C,
    unit: usize,
    dx: &'a Shared<'a, f32>,
    parts: &'a mut [[f32; 2]],
}

impl<C: Curve> WithSimd for NormGradsUnit<'_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let NormGrads { x, gamma, beta, mean, var, dy, epsilon, units } = *self.norm;
        let unit = self.unit;
        let (mean, inv_std) = (mean[unit], (var[unit] + epsilon).sqrt().recip());
        let (normed_scale, normed_shift) = (s.splat_f32s(inv_std), s.splat_f32s(-mean * inv_std));
        let (mut mean_dn, mut mean_ndn) = (0.0, 0.0);
        for segment in 0..units.segments {
            let (at, channel) = (units.offset(unit, segment), units.channel(unit, segment));
            let (scale, shift) = (s.splat_f32s(gamma[channel]), s.splat_f32s(beta[channel]));
            // SAFETY: every unit has its own numbers.
            let dz = unsafe { self.dx.range(at, units.len) };
            let ((x, x_rest), (dy, dy_rest)) =
                (S::as_simd_f32s(&x[at..at + units.len]), S::as_simd_f32s(&dy[at..at + units.len]));
            let (dz, dz_rest) = S::as_mut_simd_f32s(dz);
            let (mut sum, mut dot) = (s.splat_f32s(0.0), s.splat_f32s(0.0));
            for ((dz, x), dy) in dz.iter_mut().zip(x).zip(dy) {
                let normed = s.mul_add_e_f32s(*x, normed_scale, normed_shift);
                *dz = s.mul_f32s(*dy, self.curve.slope(s, s.mul_add_e_f32s(normed, scale, shift)));
                sum = s.add_f32s(sum, *dz);
                dot = s.mul_add_e_f32s(*dz, normed, dot);
            }
            // Lanes beyond the end have a dy of zero, so they add nothing.
            let normed = s.mul_add_e_f32s(s.partial_load_f32s(x_rest), normed_scale, normed_shift);
            let slope = self.curve.slope(s, s.mul_add_e_f32s(normed, scale, shift));
            let last = s.mul_f32s(s.partial_load_f32s(dy_rest), slope);
            s.partial_store_f32s(dz_rest, last);
            let sum = s.reduce_sum_f32s(s.add_f32s(sum, last));
            let dot = s.reduce_sum_f32s(s.mul_add_e_f32s(last, normed, dot));
            self.parts[segment] = [dot, sum];
            mean_dn += sum * gamma[channel];
            mean_ndn += dot * gamma[channel];
        }
        let count = units.count() as f32;
        // dx = (dn − mean(dn) − n·mean(n·dn)) / σ with n the normalised x and dn = gamma·dz.
        let (mean_dn, mean_ndn) = (mean_dn / count, mean_ndn / count);
        let back = s.splat_f32s(-inv_std * inv_std * mean_ndn);
        let constant = s.splat_f32s(inv_std * (mean * inv_std * mean_ndn - mean_dn));
        for segment in 0..units.segments {
            let (at, channel) = (units.offset(unit, segment), units.channel(unit, segment));
            let scale = s.splat_f32s(inv_std * gamma[channel]);
            // SAFETY: every unit has its own numbers.
            let dx = unsafe { self.dx.range(at, units.len) };
            let ((x, x_rest), (dx, dx_rest)) = (S::as_simd_f32s(&x[at..at + units.len]), S::as_mut_simd_f32s(dx));
            for (dx, x) in dx.iter_mut().zip(x) {
                *dx = s.mul_add_e_f32s(*dx, scale, s.mul_add_e_f32s(*x, back, constant));
            }
            let rest = s.mul_add_e_f32s(s.partial_load_f32s(x_rest), back, constant);
            let last = s.mul_add_e_f32s(s.partial_load_f32s(dx_rest), scale, rest);
            s.partial_store_f32s(dx_rest, last);
        }
    }
}

/// Layer normalisation over rows of `gamma.len()` numbers: `y`, and mean and biased variance of every row.
pub(crate) fn layer_norm(
    x: &[f32],
    gamma: &[f32],
    beta: Option<&[f32]>,
    epsilon: f32,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let rows = x.len() / gamma.len().max(1);
    let (mut mean, mut var) = (vec![0.0; rows], vec![0.0; rows]);
    let y = filled(x.len(), |y| {
        let (y, mean, var) = (Shared::new(y), Shared::new(&mut mean), Shared::new(&mut var));
        let per_part = rows_per_part(gamma.len());
        for_each(rows.div_ceil(per_part), x.len() * 8, |part| {
            let (first, count) = (part * per_part, per_part.min(rows - part * per_part));
            // SAFETY: parts have rows of their own.
            let (y, mean, var) = unsafe {
                (y.range(first * gamma.len(), count * gamma.len()), mean.range(first, count), var.range(first, count))
            };
            let x = &x[first * gamma.len()..][..y.len()];
            Arch::new().dispatch(LayerNorm { x, gamma, beta, epsilon, y, mean, var });
        });
    });
    (y, mean, var)
}

/// Rows that one part takes.
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
        let zeros = s.splat_f32s(0.0);
        let beta = self.beta.map(S::as_simd_f32s);
        for (row, (x, y)) in self.x.chunks_exact(len).zip(self.y.chunks_exact_mut(len)).enumerate() {
            let mean = sums(s, x, None) / len as f32;
            let var = sums(s, x, Some(mean)) / len as f32;
            (self.mean[row], self.var[row]) = (mean, var);
            let inv_std = (var + self.epsilon).sqrt().recip();
            let (scale, shift) = (s.splat_f32s(inv_std), s.splat_f32s(-mean * inv_std));
            let ((x, x_rest), (y, y_rest)) = (S::as_simd_f32s(x), S::as_mut_simd_f32s(y));
            for (i, (y, x)) in y.iter_mut().zip(x).enumerate() {
                let beta = beta.map_or(zeros, |(body, _)| body[i]);
                *y = s.mul_add_e_f32s(s.mul_add_e_f32s(*x, scale, shift), gamma[i], beta);
            }
            let beta = beta.map_or(zeros, |(_, rest)| s.partial_load_f32s(rest));
            let normed = s.mul_add_e_f32s(s.partial_load_f32s(x_rest), scale, shift);
            s.partial_store_f32s(y_rest, s.mul_add_e_f32s(normed, s.partial_load_f32s(gamma_rest), beta));
        }
    }
}

/// Gradients of [`layer_norm`]: of `x`, gamma and beta.
pub(crate) fn layer_norm_grads(
    x: &[f32],
    gamma: &[f32],
    mean: &[f32],
    var: &[f32],
    dy: &[f32],
    epsilon: f32,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let len = gamma.len();
    let rows = x.len() / len.max(1);
    let per_part = rows_per_part(len).max(rows.div_ceil(64));
    let parts = rows.div_ceil(per_part);
    let mut sums = vec![0.0; parts * 2 * len];
    let dx = filled(x.len(), |dx| {
        let (dx, sums) = (Shared::new(dx), Shared::new(&mut sums));
        for_each(parts, x.len() * 12, |part| {
            let (first, count) = (part * per_part, per_part.min(rows - part * per_part));
            // SAFETY: parts have rows and sums of their own.
            let (dx, sums) = unsafe { (dx.range(first * len, count * len), sums.range(part * 2 * len, 2 * len)) };
            let (x, dy) = (&x[first * len..][..dx.len()], &dy[first * len..][..dx.len()]);
            let (mean, var) = (&mean[first..][..count], &var[first..][..count]);
            Arch::new().dispatch(LayerNormGrads { x, gamma, mean, var, dy, epsilon, dx, sums });
        });
    });
    let (mut dgamma, mut dbeta) = (vec![0.0; len], vec![0.0; len]);
    for part in sums.chunks_exact(2 * len) {
        let (gamma, beta) = part.split_at(len);
        dgamma.iter_mut().zip(gamma).for_each(|(sum, part)| *sum += part);
        dbeta.iter_mut().zip(beta).for_each(|(sum, part)| *sum += part);
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
    /// Sums for gamma, then for beta.
    sums: &'a mut [f32],
}

impl WithSimd for LayerNormGrads<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let len = self.gamma.len();
        let (gamma, gamma_rest) = S::as_simd_f32s(self.gamma);
        let (dgamma, dbeta) = self.sums.split_at_mut(len);
        let ((dgamma, dgamma_rest), (dbeta, dbeta_rest)) = (S::as_mut_simd_f32s(dgamma), S::as_mut_simd_f32s(dbeta));
        let rows = self.x.chunks_exact(len).zip(self.dy.chunks_exact(len)).zip(self.dx.chunks_exact_mut(len));
        for (row, ((x, dy), dx)) in rows.enumerate() {
            let (mean, inv_std) = (self.mean[row], (self.var[row] + self.epsilon).sqrt().recip());
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
            let (last_dy, last_gamma) = (s.partial_load_f32s(dy_rest), s.partial_load_f32s(gamma_rest));
            let last_normed = s.mul_add_e_f32s(s.partial_load_f32s(x_rest), scale, shift);
            let last_dn = s.mul_f32s(last_dy, last_gamma);
            let sum = s.reduce_sum_f32s(s.add_f32s(sum, last_dn)) / len as f32;
            let dot = s.reduce_sum_f32s(s.mul_add_e_f32s(last_dn, last_normed, dot)) / len as f32;
            let part = s.mul_add_e_f32s(last_dy, last_normed, s.partial_load_f32s(dgamma_rest));
            s.partial_store_f32s(dgamma_rest, part);
            s.partial_store_f32s(dbeta_rest, s.add_f32s(last_dy, s.partial_load_f32s(dbeta_rest)));
            let (sum, dot) = (s.splat_f32s(-sum * inv_std), s.splat_f32s(-dot * inv_std));
            let (dx, dx_rest) = S::as_mut_simd_f32s(dx);
            for (i, ((x, dy), dx)) in x.iter().zip(dy).zip(dx).enumerate() {
                let normed = s.mul_add_e_f32s(*x, scale, shift);
                let dn = s.mul_f32s(s.mul_f32s(*dy, gamma[i]), scale);
                *dx = s.add_f32s(s.mul_add_e_f32s(normed, dot, dn), sum);
            }
            let last = s.add_f32s(s.mul_add_e_f32s(last_normed, dot, s.mul_f32s(last_dn, scale)), sum);
            s.partial_store_f32s(dx_rest, last);
        }
    }
}

/// Sum of every channel of `x` `[batch, channels, len]`.
pub(crate) fn channel_sums(x: &[f32], [batch, channels, len]: [usize; 3]) -> Vec<f32> {
    struct Sum<'a>(&'a [f32]);
    impl WithSimd for Sum<'_> {
        type Output = f32;
        #[inline(always)]
        fn with_simd<S: Simd>(self, s: S) -> f32 {
            sums(s, self.0, None)
        }
    }
    let mut totals = vec![0.0; channels];
    {
        let totals = Shared::new(&mut totals);
        let per_part = channels.div_ceil(16).max(1);
        for_each(channels.div_ceil(per_part), x.len(), |part| {
            let (first, count) = (part * per_part, per_part.min(channels - part * per_part));
            // SAFETY: parts have channels of their own.
            for (total, channel) in unsafe { totals.range(first, count) }.iter_mut().zip(first..) {
                let of = |image: usize| &x[(image * channels + channel) * len..][..len];
                *total = (0..batch).map(|image| Arch::new().dispatch(Sum(of(image)))).sum();
            }
        });
    }
    totals
}
