//! Group and batch normalisation.

use super::sums::sums;
use crate::{
    Activation,
    activation::with_curve,
    curve::{Curve, WithCurve},
    memory::{check_len, filled, volume},
    simd::arch,
    threads::{Scratch, Shared, for_each},
};
use pulp::{Simd, WithSimd};

/// The units of `x` `[batch, channels, positions]` over which mean and variance are taken.
///
/// Any sizes are allowed here: [`norm`] and [`norm_grads`] check them.
#[derive(Clone, Copy, Debug)]
pub enum Units {
    /// Groups of channels of one batch element (group normalisation). A unit is contiguous.
    Groups {
        /// `[batch, channels, positions]`.
        shape: [usize; 3],
        /// Channels per group.
        channels: usize,
    },
    /// Channels over the whole batch (batch normalisation). A unit is gathered into a buffer.
    Channels {
        /// `[batch, channels, positions]`.
        shape: [usize; 3],
    },
}

impl Units {
    /// Group normalisation with `groups` groups.
    ///
    /// # Panics
    /// If `groups` does not divide the channels.
    pub fn groups(shape: [usize; 3], groups: usize) -> Self {
        assert!(
            groups > 0 && shape[1].is_multiple_of(groups),
            "{groups} groups do not divide {} channels",
            shape[1]
        );
        Self::Groups {
            shape,
            channels: shape[1] / groups,
        }
    }

    fn shape(&self) -> [usize; 3] {
        let (Units::Groups { shape, .. } | Units::Channels { shape }) = *self;
        shape
    }

    /// Number of units.
    fn number(&self) -> usize {
        match *self {
            Units::Groups {
                shape: [batch, all, _],
                channels,
            } => batch * all / channels,
            Units::Channels {
                shape: [_, channels, _],
            } => channels,
        }
    }

    /// Length and number of the parts of a unit; a part shares one gamma and beta.
    fn parts(&self) -> [usize; 2] {
        match *self {
            Units::Groups {
                shape: [.., len],
                channels,
            } => [len, channels],
            Units::Channels {
                shape: [batch, _, len],
            } => [batch * len, 1],
        }
    }

    /// The channel of part `part` of unit `unit`.
    fn channel(&self, unit: usize, part: usize) -> usize {
        match *self {
            Units::Groups {
                shape: [_, all, _],
                channels,
            } => unit * channels % all + part,
            Units::Channels { .. } => unit,
        }
    }

    fn total(&self) -> usize {
        volume(&self.shape())
    }

    /// # Panics
    /// If the units do not cover `x`, because the size of a group does not divide the channels or
    /// channels have no positions, or if `x`, gamma or beta does not have the shape.
    fn check(&self, function: &str, x: &[f32], gamma: &[f32], beta: &[f32]) {
        let shape @ [_, all, len] = self.shape();
        match *self {
            Units::Groups { channels, .. } => assert!(
                channels > 0 && all.is_multiple_of(channels),
                "{function}: groups have {channels} channels, expected a divisor of {all}"
            ),
            Units::Channels { .. } => assert!(
                len > 0,
                "{function}: the shape is {shape:?}, expected at least one position"
            ),
        }
        check_len(format_args!("{function}: x"), x.len(), self.total());
        check_len(format_args!("{function}: gamma"), gamma.len(), all);
        check_len(format_args!("{function}: beta"), beta.len(), all);
    }

    /// The elements of `unit`: a slice of `x` if they are contiguous, else gathered into `copy`.
    fn read<'a>(&self, x: &'a [f32], unit: usize, copy: &'a mut [f32]) -> &'a [f32] {
        match *self {
            Units::Groups {
                shape: [.., len],
                channels,
            } => &x[unit * channels * len..][..channels * len],
            Units::Channels {
                shape: [_, channels, len],
            } => {
                for (image, to) in copy.chunks_exact_mut(len).enumerate() {
                    to.copy_from_slice(&x[(image * channels + unit) * len..][..len]);
                }
                copy
            }
        }
    }

    /// Length of the buffer that [`read`](Self::read) needs; 0 if units are contiguous.
    fn copy_len(&self) -> usize {
        match *self {
            Units::Groups { .. } => 0,
            Units::Channels {
                shape: [batch, _, len],
            } => batch * len,
        }
    }

    /// Scatters a gathered unit into `y`; contiguous units are already in place.
    ///
    /// # Safety
    /// No other thread writes the unit.
    unsafe fn write(&self, copy: &[f32], unit: usize, y: &Shared<f32>) {
        if let Units::Channels {
            shape: [_, channels, len],
        } = *self
        {
            for (image, from) in copy.chunks_exact(len).enumerate() {
                // SAFETY: the caller's contract.
                unsafe { y.range((image * channels + unit) * len, len) }.copy_from_slice(from);
            }
        }
    }
}
/// Group or batch normalisation with an activation `f`:
/// `y = f((x − mean) / √(var + ε)·gamma + beta)`.
///
/// `x` and `y` are `[batch, channels, positions]`, gamma and beta `[channels]`. Returns `y`, and
/// the mean and the biased variance of every unit.
///
/// # Panics
/// If the size of a group does not divide the channels, batch normalisation has no positions, or
/// `x`, `gamma` or `beta` does not fit the shape of `units`.
pub fn norm(
    x: &[f32],
    gamma: &[f32],
    beta: &[f32],
    epsilon: f32,
    activation: Activation,
    units: Units,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    units.check("norm", x, gamma, beta);
    with_curve(
        activation,
        Norm {
            x,
            gamma,
            beta,
            epsilon,
            units,
        },
    )
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
        let (mut mean, mut var) = (vec![0.0; units.number()], vec![0.0; units.number()]);
        let write = |y: &mut [f32]| {
            let (y, mean, var) = (
                Shared::new(y),
                Shared::new(&mut mean),
                Shared::new(&mut var),
            );
            for_each(units.number(), units.total() * (6 + C::COST), |unit| {
                // SAFETY: units are disjoint.
                let (mean, var) = unsafe { (mean.range(unit, 1), var.range(unit, 1)) };
                arch().dispatch(NormUnit {
                    norm: &self,
                    curve,
                    unit,
                    y: &y,
                    mean,
                    var,
                });
            });
        };
        // SAFETY: the units cover `y`, as `check` ensures, and each writes all of its elements.
        let y = unsafe { filled(units.total(), write) };
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
        let Norm {
            x,
            gamma,
            beta,
            epsilon,
            units,
        } = *self.norm;
        let [len, parts] = units.parts();
        let mut scratch = Scratch::new([units.copy_len(); 2]);
        let [x_copy, y_copy] = scratch.split();
        let x = units.read(x, self.unit, x_copy);
        let y = match units {
            // SAFETY: units are disjoint.
            Units::Groups { .. } => unsafe { self.y.range(self.unit * x.len(), x.len()) },
            Units::Channels { .. } => &mut *y_copy,
        };
        let mean = sums(s, x, None) / x.len() as f32;
        let var = sums(s, x, Some(mean)) / x.len() as f32;
        (self.mean[0], self.var[0]) = (mean, var);
        let inv_std = (var + epsilon).sqrt().recip();
        for part in 0..parts {
            let channel = units.channel(self.unit, part);
            let scale = inv_std * gamma[channel];
            let (scale, shift) = (
                s.splat_f32s(scale),
                s.splat_f32s(beta[channel] - mean * scale),
            );
            let (x, x_rest) = S::as_simd_f32s(&x[part * len..][..len]);
            let (y, y_rest) = S::as_mut_simd_f32s(&mut y[part * len..][..len]);
            for (y, x) in y.iter_mut().zip(x) {
                *y = self.curve.value(s, s.mul_add_e_f32s(*x, scale, shift));
            }
            if !y_rest.is_empty() {
                let last = self.curve.value(
                    s,
                    s.mul_add_e_f32s(s.partial_load_f32s(x_rest), scale, shift),
                );
                s.partial_store_f32s(y_rest, last);
            }
        }
        // SAFETY: units are disjoint.
        unsafe { units.write(y_copy, self.unit, self.y) };
    }
}

/// Gradients of [`norm`] with respect to `x`, gamma and beta, from its inputs, its mean and
/// variance, and the gradient `dy` of its output.
///
/// # Panics
/// As [`norm`], or if `dy` is not as long as `x`, or `mean` or `var` does not have one element per
/// unit.
#[allow(clippy::too_many_arguments)]
pub fn norm_grads(
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
    units.check("norm_grads", x, gamma, beta);
    check_len("norm_grads: mean", mean.len(), units.number());
    check_len("norm_grads: var", var.len(), units.number());
    check_len("norm_grads: dy", dy.len(), x.len());
    with_curve(
        activation,
        NormGrads {
            x,
            gamma,
            beta,
            mean,
            var,
            dy,
            epsilon,
            units,
        },
    )
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
        let [_, parts] = units.parts();
        // Gradients of gamma and beta per part, summed in order afterwards.
        let mut sums = vec![[0.0; 2]; units.number() * parts];
        let write = |dx: &mut [f32]| {
            let (dx, sums) = (Shared::new(dx), Shared::new(&mut sums));
            for_each(units.number(), units.total() * (10 + 2 * C::COST), |unit| {
                // SAFETY: units are disjoint.
                let sums = unsafe { sums.range(unit * parts, parts) };
                arch().dispatch(NormGradsUnit {
                    norm: &self,
                    curve,
                    unit,
                    dx: &dx,
                    sums,
                });
            });
        };
        // SAFETY: the units cover `dx`, as `check` ensures, and each writes all of its elements
        // before it reads them.
        let dx = unsafe { filled(units.total(), write) };
        let [_, channels, _] = units.shape();
        let (mut dgamma, mut dbeta) = (vec![0.0; channels], vec![0.0; channels]);
        for (index, [gamma, beta]) in sums.into_iter().enumerate() {
            let channel = units.channel(index / parts, index % parts);
            dgamma[channel] += gamma;
            dbeta[channel] += beta;
        }
        (dx, dgamma, dbeta)
    }
}

struct NormGradsUnit<'a, C> {
    norm: &'a NormGrads<'a>,
    curve: C,
    unit: usize,
    dx: &'a Shared<'a, f32>,
    sums: &'a mut [[f32; 2]],
}

impl<C: Curve> WithSimd for NormGradsUnit<'_, C> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let NormGrads {
            x,
            gamma,
            beta,
            mean,
            var,
            dy,
            epsilon,
            units,
        } = *self.norm;
        let unit = self.unit;
        let [len, parts] = units.parts();
        let mut scratch = Scratch::new([units.copy_len(); 3]);
        let [x_copy, dy_copy, dx_copy] = scratch.split();
        let (x, dy) = (units.read(x, unit, x_copy), units.read(dy, unit, dy_copy));
        let dx = match units {
            // SAFETY: units are disjoint.
            Units::Groups { .. } => unsafe { self.dx.range(unit * x.len(), x.len()) },
            Units::Channels { .. } => &mut *dx_copy,
        };
        let (mean, inv_std) = (mean[unit], (var[unit] + epsilon).sqrt().recip());
        let (normed_scale, normed_shift) = (s.splat_f32s(inv_std), s.splat_f32s(-mean * inv_std));
        let (mut mean_dn, mut mean_ndn) = (0.0, 0.0);
        for part in 0..parts {
            let channel = units.channel(unit, part);
            let (scale, shift) = (s.splat_f32s(gamma[channel]), s.splat_f32s(beta[channel]));
            let at = part * len..(part + 1) * len;
            let ((x, x_rest), (dy, dy_rest)) = (
                S::as_simd_f32s(&x[at.clone()]),
                S::as_simd_f32s(&dy[at.clone()]),
            );
            let (dz, dz_rest) = S::as_mut_simd_f32s(&mut dx[at]);
            let (mut sum, mut dot) = (s.splat_f32s(0.0), s.splat_f32s(0.0));
            for ((dz, x), dy) in dz.iter_mut().zip(x).zip(dy) {
                let normed = s.mul_add_e_f32s(*x, normed_scale, normed_shift);
                *dz = self
                    .curve
                    .vjp(s, s.mul_add_e_f32s(normed, scale, shift), *dy);
                sum = s.add_f32s(sum, *dz);
                dot = s.mul_add_e_f32s(*dz, normed, dot);
            }
            if !dz_rest.is_empty() {
                // In lanes beyond the end dy is zero, so they do not contribute.
                let normed =
                    s.mul_add_e_f32s(s.partial_load_f32s(x_rest), normed_scale, normed_shift);
                let (z, dy) = (
                    s.mul_add_e_f32s(normed, scale, shift),
                    s.partial_load_f32s(dy_rest),
                );
                let last = self.curve.vjp(s, z, dy);
                s.partial_store_f32s(dz_rest, last);
                sum = s.add_f32s(sum, last);
                dot = s.mul_add_e_f32s(last, normed, dot);
            }
            let (sum, dot) = (s.reduce_sum_f32s(sum), s.reduce_sum_f32s(dot));
            self.sums[part] = [dot, sum];
            mean_dn += sum * gamma[channel];
            mean_ndn += dot * gamma[channel];
        }
        let count = x.len() as f32;
        // dx = (dn − mean(dn) − n·mean(n·dn)) / σ, with n the normalised x and dn = gamma·dz.
        let (mean_dn, mean_ndn) = (mean_dn / count, mean_ndn / count);
        let back = s.splat_f32s(-inv_std * inv_std * mean_ndn);
        let constant = s.splat_f32s(inv_std * (mean * inv_std * mean_ndn - mean_dn));
        for part in 0..parts {
            let scale = s.splat_f32s(inv_std * gamma[units.channel(unit, part)]);
            let (x, x_rest) = S::as_simd_f32s(&x[part * len..][..len]);
            let (dx, dx_rest) = S::as_mut_simd_f32s(&mut dx[part * len..][..len]);
            for (dx, x) in dx.iter_mut().zip(x) {
                *dx = s.mul_add_e_f32s(*dx, scale, s.mul_add_e_f32s(*x, back, constant));
            }
            if !dx_rest.is_empty() {
                let rest = s.mul_add_e_f32s(s.partial_load_f32s(x_rest), back, constant);
                let last = s.mul_add_e_f32s(s.partial_load_f32s(dx_rest), scale, rest);
                s.partial_store_f32s(dx_rest, last);
            }
        }
        // SAFETY: units are disjoint.
        unsafe { units.write(dx_copy, unit, self.dx) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_panics;

    /// The lengths of `x`, gamma, beta, mean, variance and `dy`.
    fn grads([x, gamma, beta, mean, var, dy]: [usize; 6], units: Units) -> [Vec<f32>; 3] {
        let values = [0.5; 32];
        let v = |len: usize| &values[..len];
        let (dx, dgamma, dbeta) = norm_grads(
            v(x),
            v(gamma),
            v(beta),
            v(mean),
            v(var),
            v(dy),
            1e-5,
            Activation::Silu,
            units,
        );
        [dx, dgamma, dbeta]
    }

    #[test]
    fn norm_rejects_other_sizes() {
        let (shape, values) = ([2, 4, 3], [0.5; 32]);
        let v = |len: usize| &values[..len];
        let units = |channels: usize| Units::Groups { shape, channels };
        let forward = |x: usize, gamma: usize, beta: usize, units: Units| {
            norm(v(x), v(gamma), v(beta), 1e-5, Activation::Relu, units).0
        };
        for channels in [0, 3, 8] {
            let expected = format!("groups have {channels} channels, expected a divisor of 4");
            assert_panics(&expected, || forward(24, 4, 4, units(channels)));
            assert_panics(&expected, || grads([24, 4, 4, 4, 4, 24], units(channels)));
        }
        for units in [units(2), Units::Channels { shape }] {
            assert_panics("norm: x has 23 elements, expected 24", || {
                forward(23, 4, 4, units)
            });
            assert_panics("norm: gamma has 3 elements, expected 4", || {
                forward(24, 3, 4, units)
            });
            assert_panics("norm: beta has 5 elements, expected 4", || {
                forward(24, 4, 5, units)
            });
        }
        // Two groups of two batch elements, and four channels.
        for (units, number) in [(units(2), 4), (Units::Channels { shape }, 4)] {
            let lens = [24, 4, 4, number, number, 24];
            assert_eq!(grads(lens, units)[0].len(), 24);
            for (index, name) in ["x", "gamma", "beta", "mean", "var", "dy"]
                .iter()
                .enumerate()
            {
                let mut other = lens;
                other[index] += 1;
                let expected = format!("norm_grads: {name} has {} elements", other[index]);
                assert_panics(&expected, || grads(other, units));
            }
        }
        let empty = Units::Channels { shape: [2, 4, 0] };
        assert_panics("the shape is [2, 4, 0]", || forward(0, 4, 4, empty));
        let large = Units::Channels {
            shape: [usize::MAX, 4, 3],
        };
        assert_panics("overflow", || forward(24, 4, 4, large));
        assert_panics("do not divide", || Units::groups(shape, 3));
    }
}
