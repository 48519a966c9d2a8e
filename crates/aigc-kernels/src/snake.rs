//! Snake, an activation with a learned period, and its gradients.

use super::{
    activation::parts,
    math::half_turn,
    memory::{check_len, filled, volume},
    simd::arch,
    threads::{Shared, for_each},
};
use pulp::{Simd, WithSimd};

/// Approximate cost of an element in floating-point operations.
const COST: usize = 20;

/// Elements of a row whose shares of the gradients of α and β one sum has. The sums are added up in
/// double precision.
const SPAN: usize = 1024;

/// Elements that one part takes in the backward pass.
const PART: usize = 32 * 1024;

/// `x + sin²(α·x) / (β + ε)` of every element, with an α and a β for every channel.
///
/// `x` is `[batch, channels, time]`, `alpha` and `beta` are `[channels]`.
///
/// # Panics
/// If the lengths do not fit the shape.
pub fn snake(
    x: &[f32],
    alpha: &[f32],
    beta: &[f32],
    epsilon: f32,
    shape @ [_, channels, time]: [usize; 3],
) -> Vec<f32> {
    check_len("snake: x", x.len(), volume(&shape));
    check_len("snake: alpha", alpha.len(), channels);
    check_len("snake: beta", beta.len(), channels);
    let write = |at: usize, y: &mut [f32]| {
        arch().dispatch(Values {
            x: &x[at..at + y.len()],
            alpha,
            beta,
            epsilon,
            at,
            time,
            y,
        });
    };
    // SAFETY: `Values` gets as many elements of `x` as of `y`, and writes whole vectors and the
    // rest of every piece of a row.
    unsafe { parts(x.len(), COST, write) }
}

/// Elements from `at` on, which may be parts of several rows.
struct Values<'a> {
    x: &'a [f32],
    alpha: &'a [f32],
    beta: &'a [f32],
    epsilon: f32,
    at: usize,
    time: usize,
    y: &'a mut [f32],
}

impl WithSimd for Values<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let mut done = 0;
        while done < self.x.len() {
            let at = self.at + done;
            let len = (self.time - at % self.time).min(self.x.len() - done);
            let channel = at / self.time % self.alpha.len();
            let alpha = s.splat_f32s(self.alpha[channel]);
            let scale = s.splat_f32s((self.beta[channel] + self.epsilon).recip());
            let (x, x_rest) = S::as_simd_f32s(&self.x[done..done + len]);
            let (y, y_rest) = S::as_mut_simd_f32s(&mut self.y[done..done + len]);
            for (y, x) in y.iter_mut().zip(x) {
                *y = value(s, *x, alpha, scale);
            }
            let rest = value(s, s.partial_load_f32s(x_rest), alpha, scale);
            s.partial_store_f32s(y_rest, rest);
            done += len;
        }
    }
}

/// `x + sin²(α·x)·scale`
#[inline(always)]
fn value<S: Simd>(s: S, x: S::f32s, alpha: S::f32s, scale: S::f32s) -> S::f32s {
    let (sine, _) = half_turn(s, s.mul_f32s(x, alpha));
    s.mul_add_e_f32s(s.mul_f32s(sine, sine), scale, x)
}

/// Gradients of [`snake`] with respect to `x`, α and β, from its inputs and the gradient `dy` of
/// its output: `dy·(1 + α/(β + ε)·sin 2αx)`, and the sums over batch and time of
/// `dy·x·sin(2αx)/(β + ε)` and `−dy·sin²(αx)/(β + ε)²`.
///
/// # Panics
/// If the lengths do not fit the shape.
pub fn snake_grads(
    x: &[f32],
    alpha: &[f32],
    beta: &[f32],
    dy: &[f32],
    epsilon: f32,
    shape @ [batch, channels, time]: [usize; 3],
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    check_len("snake_grads: x", x.len(), volume(&shape));
    check_len("snake_grads: alpha", alpha.len(), channels);
    check_len("snake_grads: beta", beta.len(), channels);
    check_len("snake_grads: dy", dy.len(), x.len());
    // A unit is a span of a row; a part takes several if they are short. Nothing depends on the
    // number of threads.
    let spans = time.div_ceil(SPAN);
    let units = batch * channels * spans;
    let per_part = PART / time.clamp(1, SPAN);
    let scales: Vec<f32> = beta.iter().map(|beta| (beta + epsilon).recip()).collect();
    let mut sums = vec![0.0; 2 * units];
    let write = |dx: &mut [f32]| {
        let (dx, sums) = (Shared::new(dx), Shared::new(&mut sums));
        for_each(units.div_ceil(per_part), 2 * COST * x.len(), |part| {
            for unit in part * per_part..units.min((part + 1) * per_part) {
                let (row, first) = (unit / spans, unit % spans * SPAN);
                let (at, len, channel) =
                    (row * time + first, SPAN.min(time - first), row % channels);
                // SAFETY: every unit has its own elements and sums.
                let (dx, sums) = unsafe { (dx.range(at, len), sums.range(2 * unit, 2)) };
                sums.copy_from_slice(&arch().dispatch(Slopes {
                    x: &x[at..at + len],
                    dy: &dy[at..at + len],
                    alpha: alpha[channel],
                    scale: scales[channel],
                    dx,
                }));
            }
        });
    };
    // SAFETY: the units cover all elements. `Slopes` gets as many elements of `x` and `dy` as of
    // `dx`, and writes whole vectors and the rest.
    let dx = unsafe { filled(x.len(), write) };
    let mut totals = vec![[0.0f64; 2]; channels];
    for (unit, sums) in sums.chunks_exact(2).enumerate() {
        let total = &mut totals[unit / spans % channels];
        total[0] += f64::from(sums[0]);
        total[1] += f64::from(sums[1]);
    }
    let (dalpha, dbeta) = totals
        .iter()
        .zip(scales)
        .map(|([waves, squares], scale)| {
            let scale = f64::from(scale);
            ((waves * scale) as f32, (-squares * scale * scale) as f32)
        })
        .unzip();
    (dx, dalpha, dbeta)
}

/// A span of a row. The output is the sums of `dy·x·sin 2αx` and of `dy·sin²(αx)`.
struct Slopes<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    alpha: f32,
    /// `1 / (β + ε)`
    scale: f32,
    dx: &'a mut [f32],
}

impl WithSimd for Slopes<'_> {
    type Output = [f32; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) -> [f32; 2] {
        let ((x, x_rest), (dy, dy_rest)) = (S::as_simd_f32s(self.x), S::as_simd_f32s(self.dy));
        let (dx, dx_rest) = S::as_mut_simd_f32s(self.dx);
        let alpha = s.splat_f32s(self.alpha);
        let steep = s.splat_f32s(self.alpha * self.scale);
        let mut sums = [s.splat_f32s(0.0); 2];
        for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
            *dx = slope(s, *x, *dy, [alpha, steep], &mut sums);
        }
        // The elements beyond the end have a gradient of zero.
        let (x, dy) = (s.partial_load_f32s(x_rest), s.partial_load_f32s(dy_rest));
        s.partial_store_f32s(dx_rest, slope(s, x, dy, [alpha, steep], &mut sums));
        [s.reduce_sum_f32s(sums[0]), s.reduce_sum_f32s(sums[1])]
    }
}

/// `dy·(1 + steep·sin 2αx)`; adds `dy·x·sin 2αx` and `dy·sin²(αx)` to the sums.
#[inline(always)]
fn slope<S: Simd>(
    s: S,
    x: S::f32s,
    dy: S::f32s,
    [alpha, steep]: [S::f32s; 2],
    sums: &mut [S::f32s; 2],
) -> S::f32s {
    let (sine, cosine) = half_turn(s, s.mul_f32s(x, alpha));
    let wave = s.mul_f32s(s.add_f32s(sine, sine), cosine);
    let pull = s.mul_f32s(dy, wave);
    sums[0] = s.mul_add_e_f32s(pull, x, sums[0]);
    sums[1] = s.mul_add_e_f32s(dy, s.mul_f32s(sine, sine), sums[1]);
    s.mul_add_e_f32s(pull, steep, dy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Rng, assert_panics};

    const EPSILON: f32 = 1e-9;

    /// Rows shorter than a vector, as long as a span, and longer; the sums are those of `f64`.
    #[test]
    fn snake_matches_its_formula() {
        let mut rng = Rng::new(1);
        for shape in [
            [1, 1, 1],
            [3, 5, 3],
            [2, 3, 37],
            [2, 2, SPAN],
            [1, 2, 2 * SPAN + 5],
            [1, 1, 3 * PART + 7],
            [900, 3, 17],
        ] {
            let [_, channels, time] = shape;
            let len = shape.iter().product();
            let (x, dy) = (rng.normals(len), rng.normals(len));
            let positive = |values: Vec<f32>| values.iter().map(|v| v.exp()).collect::<Vec<_>>();
            let (alpha, beta) = (
                positive(rng.normals(channels)),
                positive(rng.normals(channels)),
            );
            let y = snake(&x, &alpha, &beta, EPSILON, shape);
            let (dx, dalpha, dbeta) = snake_grads(&x, &alpha, &beta, &dy, EPSILON, shape);
            let mut sums = vec![[0.0f64; 2]; channels];
            for (at, (x, dy)) in x.iter().zip(&dy).enumerate() {
                let channel = at / time % channels;
                let [a, b, x, dy] =
                    [alpha[channel], beta[channel] + EPSILON, *x, *dy].map(f64::from);
                let (sine, wave) = ((a * x).sin(), (2.0 * a * x).sin());
                let (value, slope) = (x + sine * sine / b, dy * (1.0 + a / b * wave));
                // The argument is rounded to f32.
                let allowed = 1e-6 * (1.0 + (1.0 + a * x.abs()) * (1.0 + a) / b);
                for (found, expected) in [(y[at], value), (dx[at], slope)] {
                    assert!(
                        (f64::from(found) - expected).abs() <= allowed * (1.0 + dy.abs()),
                        "{shape:?} at {at}: {found}, expected {expected}"
                    );
                }
                sums[channel][0] += dy * x * wave / b;
                sums[channel][1] -= dy * sine * sine / (b * b);
            }
            for channel in 0..channels {
                let scale = 1.0 + 1.0 / f64::from(beta[channel]).powi(2);
                let allowed =
                    1e-5 * (1.0 + f64::from(alpha[channel])) * scale * (len as f64).sqrt();
                for (found, expected) in [dalpha[channel], dbeta[channel]]
                    .into_iter()
                    .zip(sums[channel])
                {
                    assert!(
                        (f64::from(found) - expected).abs() <= allowed,
                        "{shape:?} of channel {channel}: {found}, expected {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn empty_axes_have_no_gradients() {
        for shape @ [_, channels, _] in [[0, 3, 4], [2, 0, 4], [2, 3, 0]] {
            let ones = vec![1.0; channels];
            assert!(snake(&[], &ones, &ones, EPSILON, shape).is_empty());
            let (dx, dalpha, dbeta) = snake_grads(&[], &ones, &ones, &[], EPSILON, shape);
            assert!(dx.is_empty());
            assert!([dalpha, dbeta].iter().flatten().all(|sum| *sum == 0.0));
        }
    }

    #[test]
    fn operands_of_other_lengths_are_rejected() {
        let values = [0.5; 12];
        let v = |len: usize| &values[..len];
        assert_panics("snake: x has 11 elements, expected 12", || {
            snake(v(11), v(3), v(3), EPSILON, [2, 3, 2])
        });
        assert_panics("snake: alpha has 2 elements, expected 3", || {
            snake(v(12), v(2), v(3), EPSILON, [2, 3, 2])
        });
        assert_panics("snake: beta has 4", || {
            snake(v(12), v(3), v(4), EPSILON, [2, 3, 2])
        });
        assert_panics("snake_grads: dy has 11", || {
            snake_grads(v(12), v(3), v(3), v(11), EPSILON, [2, 3, 2])
        });
        assert_panics("overflow", || {
            snake(&[], v(3), v(3), EPSILON, [usize::MAX, 3, 0])
        });
    }
}
