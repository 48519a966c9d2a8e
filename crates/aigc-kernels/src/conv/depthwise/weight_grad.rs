//! Weight gradients of convolutions of every channel on its own.

use super::{
    super::{
        ConvSizes,
        planes::Planes,
        windows::{Window, fitting, windows},
    },
    PARTS, PLANES_BYTES,
};
use crate::{
    memory::{filled, volume},
    simd::arch,
    threads::{Scratch, Shared, for_each},
};
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// Taps whose sums are accumulated together.
const TAPS: usize = 4;

/// `dw[c, tap] = Σ_{n, pixel} dy[n, c, pixel] · planes[n, c, pixel + tap]`.
///
/// # Panics
/// If a group has more than one channel.
pub(in super::super) fn depthwise_weight_grad(
    x: &[f32],
    dy: &[f32],
    planes: &Planes,
    sizes: ConvSizes,
) -> Vec<f32> {
    let channels = [sizes.channels_in, sizes.channels_out];
    assert_eq!(channels, [sizes.groups; 2], "channels and groups");
    arch().dispatch(WeightGrad {
        x,
        dy,
        planes,
        sizes,
    })
}

struct WeightGrad<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    planes: &'a Planes,
    sizes: ConvSizes,
}

impl WithSimd for WeightGrad<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        let ConvSizes {
            batch,
            groups,
            output,
            dilation,
            ..
        } = self.sizes;
        let taps = self.sizes.taps();
        let taps: Vec<usize> = taps
            .map(|[r, c]| self.planes.tap(r * dilation[0], c * dilation[1]))
            .collect();
        let cut = fitting(self.planes, output, 1, PLANES_BYTES, 1);
        let windows = windows(self.planes, output, &taps, cut);
        let per_part = groups.div_ceil(PARTS * rayon::current_num_threads());
        let work = self.sizes.work() + 4 * volume(&[batch, groups, output[0], output[1]]);
        let write = |dw: &mut [f32]| {
            let dw = Shared::new(dw);
            for_each(groups.div_ceil(per_part), work, |part| {
                simd.vectorize(Split {
                    of: &self,
                    simd,
                    windows: &windows,
                    taps: taps.len(),
                    dw: &dw,
                    channels: part * per_part..groups.min((part + 1) * per_part),
                });
            });
        };
        // SAFETY: the parts cover all channels, and each writes all taps of its own.
        unsafe { filled(volume(&[groups, taps.len()]), write) }
    }
}

/// The gradients of some channels.
struct Split<'a, S> {
    of: &'a WeightGrad<'a>,
    simd: S,
    windows: &'a [Window],
    taps: usize,
    dw: &'a Shared<'a, f32>,
    channels: Range<usize>,
}

impl<S: Simd> pulp::NullaryFnOnce for Split<'_, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            of,
            simd,
            windows,
            taps,
            dw,
            channels,
        } = self;
        let WeightGrad {
            x,
            dy,
            planes,
            sizes,
        } = *of;
        let (lanes, groups, width) = (S::F32_LANES, sizes.groups, sizes.output[1]);
        let [source_len, map_len] = [planes.source, sizes.output].map(|[rows, row]| rows * row);
        let lens = windows.iter().map(|window| window.planes.channel_len());
        let spans = windows.iter().map(Window::span);
        let mut scratch = Scratch::new([
            lens.max().unwrap_or(0) + lanes,
            spans.max().unwrap_or(0) + lanes,
        ]);
        let [maps, grads] = scratch.split();
        let mut sums = vec![0.0f64; taps.next_multiple_of(TAPS)];
        for channel in channels {
            sums.fill(0.0);
            for map in (0..sizes.batch).map(|image| image * groups + channel) {
                for window in windows {
                    let planes_len = window.planes.channel_len();
                    let map_of_x = &x[map * source_len..][..source_len];
                    window.plan.fill(map_of_x, &mut maps[..planes_len]);
                    // Vectors reach beyond the planes, where the gradient is zero.
                    maps[planes_len..planes_len + lanes].fill(0.0);
                    let grads = &mut grads[..window.span().next_multiple_of(lanes)];
                    // The gradient in rows as long as those of the planes.
                    grads.fill(0.0);
                    let rows = grads.chunks_mut(window.planes.size[1]);
                    for (row, to) in rows.enumerate().take(window.size[0]) {
                        let from = map * map_len + (window.first[0] + row) * width;
                        let from = &dy[from + window.first[1]..][..window.size[1]];
                        to[..window.size[1]].copy_from_slice(from);
                    }
                    for (sums, taps) in sums.chunks_exact_mut(TAPS).zip(window.taps.chunks(TAPS)) {
                        // Where there are fewer taps, the sums of the first are not used.
                        let mut four = [taps[0]; TAPS];
                        four[..taps.len()].copy_from_slice(taps);
                        let more = dots(simd, grads, maps, four);
                        for (sum, more) in sums.iter_mut().zip(more) {
                            *sum += f64::from(more);
                        }
                    }
                }
            }
            // SAFETY: parts have disjoint channels, and the range ends with the iteration.
            let to = unsafe { dw.range(channel * taps, taps) };
            to.iter_mut()
                .zip(&sums)
                .for_each(|(to, sum)| *to = *sum as f32);
        }
    }
}

/// The inner products of `grads`, whole vectors, with the planes at four offsets.
///
/// # Panics
/// If `planes` is too short.
#[inline(always)]
fn dots<S: Simd>(simd: S, grads: &[f32], planes: &[f32], offsets: [usize; TAPS]) -> [f32; TAPS] {
    let len = grads.len();
    let (grads, _) = S::as_simd_f32s(grads);
    let (a, _) = S::as_simd_f32s(&planes[offsets[0]..][..len]);
    let (b, _) = S::as_simd_f32s(&planes[offsets[1]..][..len]);
    let (c, _) = S::as_simd_f32s(&planes[offsets[2]..][..len]);
    let (d, _) = S::as_simd_f32s(&planes[offsets[3]..][..len]);
    let mut sums = [simd.splat_f32s(0.0); TAPS];
    for ((((grad, a), b), c), d) in grads.iter().zip(a).zip(b).zip(c).zip(d) {
        sums[0] = simd.mul_add_e_f32s(*grad, *a, sums[0]);
        sums[1] = simd.mul_add_e_f32s(*grad, *b, sums[1]);
        sums[2] = simd.mul_add_e_f32s(*grad, *c, sums[2]);
        sums[3] = simd.mul_add_e_f32s(*grad, *d, sums[3]);
    }
    let [a, b, c, d] = sums;
    [
        simd.reduce_sum_f32s(a),
        simd.reduce_sum_f32s(b),
        simd.reduce_sum_f32s(c),
        simd.reduce_sum_f32s(d),
    ]
}
