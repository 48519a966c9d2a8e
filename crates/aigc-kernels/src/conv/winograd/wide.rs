//! The computation of [`gather`](super::super::gather) with weights that are too many to be kept
//! transformed. All tiles of pixels are transformed first. Then every part computes some output
//! channels of all tiles: it transforms the weights of some input channels at a time, which stay in
//! the caches, and adds their products to the sums at the points.

use super::{
    super::{gather::Gather, lanes::interleave},
    GAP, Layout, PointProduct, Term, Winograd, load, padded_rows,
    points::Scheme,
    tiles::{Inputs, Outputs, Strides},
};
use crate::{
    memory::{filled, volume},
    threads::{Scratch, Shared, for_each},
    tile::{column_tiles, widest},
};
use pulp::Simd;
use std::{marker::PhantomData, ops::Range};

/// Input channels whose weights are transformed together.
const CHANNELS: usize = 64;

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
    let [bands, columns] = all.grid();
    let units = volume(&[batch, bands]);
    let tiles = units * columns;
    let padded = padded_rows::<S>(tiles);
    let mapped_len = volume(&[padded, layout.inputs]) + GAP;
    let mut mapped = vec![0.0; volume(&[layout.points, mapped_len])];
    let shared = Shared::new(&mut mapped);
    for_each(units, work / 64, |unit| {
        simd.vectorize(Map {
            all,
            schemes: PhantomData::<(P, Q)>,
            simd,
            layout,
            mapped: &shared,
            mapped_len,
            unit,
        });
    });
    let blocks: Vec<(usize, usize)> =
        column_tiles(layout.outputs / S::F32_LANES, widest::<S>()).collect();
    let write = |y: &mut [f32]| {
        let y = Shared::new(y);
        for_each(blocks.len(), work, |part| {
            let (first, vectors) = blocks[part];
            let first = first * S::F32_LANES;
            simd.vectorize(Block {
                all,
                schemes: PhantomData::<(P, Q)>,
                simd,
                layout,
                mapped: &mapped,
                mapped_len,
                padded,
                channels: first..first + vectors * S::F32_LANES,
                y: &y,
            });
        });
    };
    // SAFETY: the parts cover all output channels, and `Block` writes all their pixels.
    unsafe { filled(volume(&[batch, rows, output[0], output[1]]), write) }
}

/// Transforms the pixels of a band of tiles.
struct Map<'a, S, P> {
    all: &'a Winograd<'a>,
    schemes: PhantomData<P>,
    simd: S,
    layout: Layout,
    mapped: &'a Shared<'a, f32>,
    mapped_len: usize,
    unit: usize,
}

impl<S: Simd, P: Scheme, Q: Scheme> pulp::NullaryFnOnce for Map<'_, S, (P, Q)> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            all,
            simd,
            layout,
            mapped,
            mapped_len,
            unit,
            ..
        } = self;
        let [_, columns] = all.grid();
        let inputs = Inputs::<S, P, Q>::new(all, simd);
        let mut scratch = Scratch::new(inputs.buffers());
        let strides = Strides {
            start: unit * columns * layout.inputs,
            point: mapped_len,
            tile: layout.inputs,
            vector: S::F32_LANES,
        };
        // SAFETY: parts have disjoint bands.
        unsafe { inputs.map(unit, scratch.split(), layout, mapped, strides) };
    }
}

/// Computes some output channels of all tiles.
struct Block<'a, S, P> {
    all: &'a Winograd<'a>,
    schemes: PhantomData<P>,
    simd: S,
    layout: Layout,
    mapped: &'a [f32],
    mapped_len: usize,
    /// Rows of the products.
    padded: usize,
    channels: Range<usize>,
    y: &'a Shared<'a, f32>,
}

impl<S: Simd, P: Scheme, Q: Scheme> pulp::NullaryFnOnce for Block<'_, S, (P, Q)> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            all,
            simd,
            layout,
            mapped,
            mapped_len,
            padded,
            channels,
            y,
            ..
        } = self;
        let (lanes, width) = (S::F32_LANES, channels.len());
        let Gather { batch, .. } = *all.gather;
        let [bands, columns] = all.grid();
        let (units, tiles) = (batch * bands, batch * bands * columns);
        let outputs = Outputs::<S, P, Q>::new(all, simd);
        let step = CHANNELS.min(layout.channels);
        let (weights_len, sums_len) = (step * width + GAP, padded * width + GAP);
        let mut scratch = Scratch::new([
            volume(&[layout.points, weights_len]),
            volume(&[all.jobs.len(), layout.points, sums_len]),
            volume(&[step, all.kernel_len(), lanes]),
            outputs.buffer(),
        ]);
        let [weights, sums, elements, written] = scratch.split();
        for (job, sums) in all
            .jobs
            .iter()
            .zip(sums.chunks_exact_mut(layout.points * sums_len))
        {
            if job.terms.is_empty() {
                sums.fill(0.0);
            }
            for (index, term) in job.terms.iter().enumerate() {
                for from in (0..layout.channels).step_by(step) {
                    let inputs = from..layout.channels.min(from + step);
                    for vector in (0..width).step_by(lanes) {
                        let row = channels.start + vector;
                        let to = [&mut weights[vector..], &mut *elements];
                        transform::<S, P, Q>(
                            simd,
                            all,
                            term,
                            row,
                            inputs.clone(),
                            to,
                            width,
                            weights_len,
                        );
                    }
                    let window = (job.first_window + index) * layout.channels + from;
                    for point in 0..layout.points {
                        let mapped = &mapped[point * mapped_len + window..(point + 1) * mapped_len];
                        let product = PointProduct {
                            tiles,
                            depth: inputs.len(),
                            pixels: mapped,
                            pixel_row: layout.inputs,
                            weights: &weights[point * weights_len..],
                            width,
                            sums: &mut sums[point * sums_len..][..padded * width],
                            sum_row: width,
                            add: index > 0 || from > 0,
                        };
                        product.run(simd);
                    }
                }
            }
        }
        for unit in 0..units {
            let strides = Strides {
                start: unit * columns * width,
                point: sums_len,
                tile: width,
                vector: lanes,
            };
            // SAFETY: the parts have disjoint output channels.
            unsafe { outputs.map(unit, channels.clone(), written, layout, sums, strides, y) };
        }
    }
}

/// Transforms the weights of a term of a vector of output channels from `row` on and of the input
/// channels `inputs`. They are written to the first buffer, `width` elements apart, with
/// `point_len` between points; the second buffer holds them in between.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn transform<S: Simd, P: Scheme, Q: Scheme>(
    s: S,
    all: &Winograd,
    term: &Term,
    row: usize,
    inputs: Range<usize>,
    [to, elements]: [&mut [f32]; 2],
    width: usize,
    point_len: usize,
) {
    let Gather {
        channels,
        rows,
        weight,
        weight_strides: [row_stride, channel_stride],
        ..
    } = *all.gather;
    let (lanes, kernel_len) = (S::F32_LANES, all.kernel_len());
    // Padded channels have weights of zero.
    let count = inputs.end.min(channels).saturating_sub(inputs.start);
    let maps = lanes.min(rows - row);
    let elements = &mut elements[..inputs.len() * kernel_len * lanes];
    elements[count * kernel_len * lanes..].fill(0.0);
    // Gradients with one input channel have both strides equal.
    if channel_stride == kernel_len && row_stride >= count * kernel_len {
        let from = &weight[row * row_stride + inputs.start * kernel_len..];
        interleave::<S>(from, row_stride, maps, count * kernel_len, elements);
    } else {
        for channel in 0..count {
            let from = &weight[row * row_stride + (inputs.start + channel) * channel_stride..];
            let to = &mut elements[channel * kernel_len * lanes..];
            interleave::<S>(from, row_stride, maps, kernel_len, to);
        }
    }
    for (channel, elements) in elements.chunks_exact(kernel_len * lanes).enumerate() {
        let mut kernel = [[s.splat_f32s(0.0); 3]; 3];
        let places = term.iter().flatten();
        for (kernel, element) in kernel.iter_mut().flatten().zip(places) {
            if let Some(element) = element {
                *kernel = load::<S>(elements, element * lanes);
            }
        }
        let to = &mut to[channel * width..];
        let last = (P::POINTS * Q::POINTS - 1) * point_len + lanes;
        assert!(
            to.len() >= last,
            "the weights at the points end beyond their buffer"
        );
        // SAFETY: inside the slice, by the assertion.
        unsafe { super::kernels::to_points::<S, P, Q>(s, kernel, to.as_mut_ptr(), point_len) };
    }
}
