//! Convolutions of every channel on its own: one input and one output channel per group.
//!
//! There are too few sums per pixel for a product of matrices. A vector of pixels is the sum of the
//! planes, shifted by every tap; four vectors are in work at a time, so that the additions of one
//! need not wait for each other.

mod weight_grad;

use super::{
    gather::{Gather, add_bias},
    windows::{Window, fitting, windows},
};
use crate::{
    memory::{filled, volume},
    simd::arch,
    threads::{Scratch, Shared, for_each},
    tile::{Listed, Operands, Strided, fixed},
};
use pulp::{Simd, WithSimd};
use std::ops::Range;

pub(super) use weight_grad::depthwise_weight_grad;

/// Bytes of planes that are processed at a time: half of a first-level cache.
const PLANES_BYTES: usize = 16 * 1024;

/// Parts per thread, so that no thread waits long for the last one.
const PARTS: usize = 4;

/// Computes a [`Gather`] with one input and one output channel per group.
///
/// # Panics
/// If there are more.
pub(super) fn depthwise(work: &Gather) -> Vec<f32> {
    assert_eq!([work.channels, work.rows], [1, 1], "channels of a group");
    arch().dispatch(Depthwise(work))
}

struct Depthwise<'a>(&'a Gather<'a>);

impl WithSimd for Depthwise<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        let Gather {
            batch,
            groups,
            ref planes,
            ref taps,
            ref jobs,
            grid,
            output,
            ..
        } = *self.0;
        let (maps, map_len) = (volume(&[batch, groups]), volume(&output));
        let windows = windows(
            planes,
            grid,
            taps,
            fitting(planes, grid, 1, PLANES_BYTES, 1),
        );
        // The weights of a group in the order of the taps of all jobs.
        let kernel_len = self.0.weight.len() / groups;
        let elements = jobs.iter().flat_map(|job| &job.kernel);
        let elements: Vec<usize> = elements.copied().collect();
        let weights: Vec<f32> = (0..groups)
            .flat_map(|group| elements.iter().map(move |at| group * kernel_len + at))
            .map(|at| self.0.weight[at])
            .collect();
        let units = maps * windows.len();
        let per_part = units.div_ceil(PARTS * rayon::current_num_threads());
        let elements_moved = volume(&[maps, map_len]);
        let write = |y: &mut [f32]| {
            let y = Shared::new(y);
            let work = self.0.work.saturating_add(4 * elements_moved);
            for_each(units.div_ceil(per_part), work, |part| {
                simd.vectorize(Split {
                    gather: self.0,
                    simd,
                    windows: &windows,
                    weights: &weights,
                    taps: elements.len(),
                    y: &y,
                    units: part * per_part..units.min((part + 1) * per_part),
                });
            });
        };
        // SAFETY: the parts cover all windows of all maps. The pixels of all jobs of a window cover
        // its output, and `Split` writes each.
        unsafe { filled(elements_moved, write) }
    }
}

/// Some windows: those of all maps follow each other.
struct Split<'a, S> {
    gather: &'a Gather<'a>,
    simd: S,
    windows: &'a [Window],
    /// `[group, tap]`, of `taps` taps.
    weights: &'a [f32],
    taps: usize,
    y: &'a Shared<'a, f32>,
    units: Range<usize>,
}

impl<S: Simd> pulp::NullaryFnOnce for Split<'_, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            gather,
            simd,
            windows,
            weights,
            taps,
            y,
            units,
        } = self;
        let Gather {
            x,
            batch,
            groups,
            ref jobs,
            output: [height, width],
            output_stride: [step_down, step],
            ..
        } = *gather;
        let (lanes, maps) = (S::F32_LANES, batch * groups);
        let lens = windows.iter().map(|window| window.planes.channel_len());
        let lines = windows.iter().map(|window| window.size[1]);
        let mut scratch = Scratch::new([
            lens.max().unwrap_or(0) + lanes,
            lines.max().unwrap_or(0) + lanes,
        ]);
        let [planes, line] = scratch.split();
        let source_len = gather.planes.source[0] * gather.planes.source[1];
        let mut offsets: Vec<usize> = Vec::new();
        for unit in units {
            let (window, map) = (&windows[unit / maps], unit % maps);
            let group = map % groups;
            let bias = gather.bias.map_or(0.0, |bias| bias[group]);
            let [rows, columns] = window.size;
            let plane_width = window.planes.size[1];
            let map_of_x = &x[map * source_len..][..source_len];
            window
                .plan
                .fill(map_of_x, &mut planes[..window.planes.channel_len()]);
            let line = &mut line[..columns.next_multiple_of(lanes)];
            let reach = (rows - 1) * plane_width + line.len();
            let first = window.first[1] * step;
            let len = (width - first).min(columns.saturating_mul(step));
            let mut weights = &weights[group * taps..][..taps];
            for (index, job) in jobs.iter().enumerate() {
                let (of_job, rest) = weights.split_at(job.taps.len());
                weights = rest;
                offsets.clear();
                offsets.extend(job.taps.iter().map(|tap| window.taps[*tap]));
                let furthest = offsets.iter().max().map_or(0, |offset| offset + reach);
                assert!(furthest <= planes.len(), "a tap reaches beyond the planes");
                let phases = step.min(width);
                let (row_phase, phase) = (index / phases, index % phases);
                for row in 0..rows {
                    let y_row = (window.first[0] + row) * step_down + row_phase;
                    if y_row >= height {
                        break;
                    }
                    // SAFETY: the vectors of a row lie in `planes` at all offsets, by the
                    // assertion.
                    unsafe {
                        let from = planes.as_ptr().add(row * plane_width);
                        sums(simd, of_job, &offsets, from, line);
                    }
                    // SAFETY: parts have disjoint windows, and the range ends with the iteration.
                    let to = unsafe { y.range((map * height + y_row) * width + first, len) };
                    if step == 1 {
                        add_bias(simd, &line[..len], bias, to);
                    } else {
                        let to = to.iter_mut().skip(phase).step_by(step);
                        to.zip(&*line).for_each(|(to, sum)| *to = sum + bias);
                    }
                }
            }
        }
    }
}

/// `to[i] = Σ weights[tap] · from[offsets[tap] + i]`, for whole vectors.
///
/// # Safety
/// As many elements as `to` has may be read from `from` on at all offsets, of which there are as
/// many as weights.
#[inline(always)]
unsafe fn sums<S: Simd>(
    simd: S,
    weights: &[f32],
    offsets: &[usize],
    from: *const f32,
    to: &mut [f32],
) {
    let lanes = S::F32_LANES;
    let vectors = to.len() / lanes;
    let mut at = 0;
    while at < vectors {
        let count = (vectors - at).min(4);
        // SAFETY: the elements lie in `to` and, by the caller's contract, behind `from`.
        unsafe {
            let operands = Operands {
                k: offsets.len(),
                a: Strided {
                    start: weights.as_ptr(),
                    row: 0,
                    k: 1,
                },
                b: Listed {
                    start: from.add(at * lanes),
                    offsets,
                },
                c: to.as_mut_ptr().add(at * lanes),
                c_row: 0,
                add: false,
            };
            match count {
                4 => fixed::<S, _, _, 1, 4>(simd, operands),
                3 => fixed::<S, _, _, 1, 3>(simd, operands),
                2 => fixed::<S, _, _, 1, 2>(simd, operands),
                _ => fixed::<S, _, _, 1, 1>(simd, operands),
            }
        }
        at += count;
    }
}
