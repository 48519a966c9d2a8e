//! The computation of [`gather`](super::super::gather).

use super::{
    super::gather::Gather,
    DEPTH, GAP, Layout, PointProduct, Winograd,
    kernels::Kernels,
    padded_rows,
    points::Scheme,
    tiles::{Inputs, Outputs, Strides},
};
use crate::{
    memory::{filled, volume},
    threads::{Scratch, Shared, for_each},
    tile::{column_tiles, tallest, widest},
};
use pulp::Simd;
use std::{marker::PhantomData, ops::Range};

/// Tiles that a part transforms and multiplies together: it reads all transformed weights once.
const TILES: usize = 32;

/// Runs the algorithm with the schemes of the vertical and the horizontal axis.
#[inline(always)]
pub(super) fn run<S: Simd, P: Scheme, Q: Scheme>(simd: S, all: &Winograd) -> Vec<f32> {
    let Gather {
        batch,
        rows,
        output,
        work,
        ..
    } = *all.gather;
    let layout = Layout::new::<S, P, Q>(all);
    let jobs = all.jobs.iter();
    let kernels: Vec<Kernels> = jobs
        .map(|job| Kernels::new::<S, P, Q>(simd, all, job, layout))
        .collect();
    let [bands, columns] = all.grid();
    let units = volume(&[batch, bands]);
    // Fewer only as long as a part fills a tile of the product.
    let shared = units.div_ceil(2 * rayon::current_num_threads());
    let least = tallest::<S>().div_ceil(columns);
    let group = TILES.div_ceil(columns).min(shared.max(least));
    let write = |y: &mut [f32]| {
        let y = Shared::new(y);
        for_each(units.div_ceil(group), work, |part| {
            simd.vectorize(Split {
                all,
                schemes: PhantomData::<(P, Q)>,
                simd,
                layout,
                kernels: &kernels,
                y: &y,
                units: part * group..units.min((part + 1) * group),
            });
        });
    };
    // SAFETY: the parts cover all images and bands, and `Split` writes all pixels of a band.
    unsafe { filled(volume(&[batch, rows, output[0], output[1]]), write) }
}

/// Some bands of tiles, counted across images.
struct Split<'a, S, P> {
    all: &'a Winograd<'a>,
    schemes: PhantomData<P>,
    simd: S,
    layout: Layout,
    kernels: &'a [Kernels],
    y: &'a Shared<'a, f32>,
    units: Range<usize>,
}

impl<S: Simd, P: Scheme, Q: Scheme> pulp::NullaryFnOnce for Split<'_, S, (P, Q)> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            all,
            simd,
            layout,
            kernels,
            y,
            units,
            ..
        } = self;
        let lanes = S::F32_LANES;
        let [_, columns] = all.grid();
        let inputs = Inputs::<S, P, Q>::new(all, simd);
        let outputs = Outputs::<S, P, Q>::new(all, simd);
        let tiles = units.len() * columns;
        let padded = padded_rows::<S>(tiles);
        let mapped_len = volume(&[padded, layout.inputs]) + GAP;
        let sums_len = volume(&[padded, layout.outputs]) + GAP;
        let [pixels, planes, lines] = inputs.buffers();
        let mut scratch = Scratch::new([
            volume(&[layout.points, mapped_len]),
            volume(&[all.jobs.len(), layout.points, sums_len]),
            pixels,
            planes,
            lines,
            outputs.buffer(),
        ]);
        let [mapped, sums, pixels, planes, lines, written] = scratch.split();
        let shared = Shared::new(mapped);
        for (index, unit) in units.clone().enumerate() {
            let strides = Strides {
                start: index * columns * layout.inputs,
                point: mapped_len,
                tile: layout.inputs,
                vector: lanes,
            };
            let buffers = [&mut *pixels, &mut *planes, &mut *lines];
            // SAFETY: the scratch buffer is this thread's.
            unsafe { inputs.map(unit, buffers, layout, &shared, strides) };
        }
        let jobs = all.jobs.iter().zip(kernels);
        for ((job, kernels), sums) in jobs.zip(sums.chunks_exact_mut(layout.points * sums_len)) {
            if kernels.depth == 0 {
                sums.fill(0.0);
                continue;
            }
            for (point, sums) in sums.chunks_exact_mut(sums_len).enumerate() {
                let start = point * mapped_len + job.first_window * layout.channels;
                let mapped = &mapped[start..(point + 1) * mapped_len];
                for (first, vectors) in column_tiles(layout.outputs / lanes, widest::<S>()) {
                    let [first, width] = [first * lanes, vectors * lanes];
                    let panel = kernels.panel(point, first, width);
                    for from in (0..kernels.depth).step_by(DEPTH) {
                        let product = PointProduct {
                            tiles,
                            depth: DEPTH.min(kernels.depth - from),
                            pixels: &mapped[from..],
                            pixel_row: layout.inputs,
                            weights: &panel[from * width..],
                            width,
                            sums: &mut sums[first..],
                            sum_row: layout.outputs,
                            add: from > 0,
                        };
                        product.run(simd);
                    }
                }
            }
        }
        for (index, unit) in units.enumerate() {
            let strides = Strides {
                start: index * columns * layout.outputs,
                point: sums_len,
                tile: layout.outputs,
                vector: lanes,
            };
            // SAFETY: the parts have disjoint bands.
            unsafe { outputs.map(unit, 0..layout.outputs, written, layout, sums, strides, y) };
        }
    }
}
