//! Transforms of kernels to points, and of gradients at points to kernels.

use super::{
    super::gather::Gather, GAP, Layout, MOST_LANES, Terms, Winograd, clear_gaps, load,
    points::Scheme, store,
};
use crate::{
    memory::{filled, volume},
    threads::{Shared, for_each},
    tile::{column_tiles, widest},
};
use pulp::Simd;
use std::{marker::PhantomData, ops::Range};

/// Input channels that a part transforms.
const CHANNELS: usize = 64;

/// The transformed weights of a job.
pub(super) struct Kernels {
    values: Vec<f32>,
    /// Terms times input channels.
    pub depth: usize,
    outputs: usize,
}

impl Kernels {
    /// Transforms the weights of `job`.
    pub(super) fn new<S: Simd, P: Scheme, Q: Scheme>(
        simd: S,
        all: &Winograd,
        job: &Terms,
        layout: Layout,
    ) -> Self {
        let depth = volume(&[job.terms.len(), layout.channels]);
        let (lanes, outputs) = (S::F32_LANES, layout.outputs);
        let tiles: Vec<(usize, usize)> = column_tiles(outputs / lanes, widest::<S>()).collect();
        let point_len = volume(&[outputs, depth]) + GAP;
        let write = |values: &mut [f32]| {
            let shared = Shared::new(values);
            let blocks = layout.channels.div_ceil(CHANNELS);
            for_each(
                tiles.len() * blocks,
                4 * layout.points * point_len,
                |part| {
                    let ((first, vectors), block) =
                        (tiles[part / blocks], part % blocks * CHANNELS);
                    simd.vectorize(Transform {
                        all,
                        schemes: PhantomData::<(P, Q)>,
                        simd,
                        job,
                        layout,
                        first: first * lanes,
                        width: vectors * lanes,
                        inputs: block..layout.channels.min(block + CHANNELS),
                        to: &shared,
                        start: first * lanes * depth,
                        point_len,
                    });
                },
            );
            clear_gaps(values, point_len);
        };
        // SAFETY: the parts cover all input and output channels, and each writes all points and
        // terms.
        let values = unsafe { filled(volume(&[layout.points, point_len]), write) };
        Self {
            values,
            depth,
            outputs,
        }
    }

    /// The weights at a point of `width` output channels from `first` on, `[term, input channel,
    /// output channel]`, where these are a tile of columns.
    #[inline(always)]
    pub(super) fn panel(&self, point: usize, first: usize, width: usize) -> &[f32] {
        let start = point * (self.outputs * self.depth + GAP) + first * self.depth;
        &self.values[start..start + width * self.depth]
    }
}

/// Transforms the weights of some input channels, and of `width` output channels from `first` on.
struct Transform<'a, S, P> {
    all: &'a Winograd<'a>,
    schemes: PhantomData<P>,
    simd: S,
    job: &'a Terms,
    layout: Layout,
    first: usize,
    width: usize,
    inputs: Range<usize>,
    to: &'a Shared<'a, f32>,
    /// The first element of the first point, and the stride between points.
    start: usize,
    point_len: usize,
}

impl<S: Simd, P: Scheme, Q: Scheme> pulp::NullaryFnOnce for Transform<'_, S, (P, Q)> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            all,
            simd: s,
            job,
            layout,
            first,
            width,
            inputs,
            to,
            start,
            point_len,
            ..
        } = self;
        let Gather {
            channels,
            rows,
            weight,
            weight_strides: [row_stride, channel_stride],
            ..
        } = *all.gather;
        let (lanes, zero) = (S::F32_LANES, s.splat_f32s(0.0));
        for (index, term) in job.terms.iter().enumerate() {
            for channel in inputs.clone() {
                for vector in (0..width).step_by(lanes) {
                    let row = first + vector;
                    let mut kernel = [[zero; 3]; 3];
                    let elements = term.iter().flatten();
                    for (kernel, element) in kernel.iter_mut().flatten().zip(elements) {
                        let (Some(element), true) = (element, channel < channels) else {
                            continue;
                        };
                        let mut values = [0.0; MOST_LANES];
                        for (lane, value) in
                            values.iter_mut().enumerate().take(lanes.min(rows - row))
                        {
                            let at = (row + lane) * row_stride + channel * channel_stride;
                            *value = weight[at + element];
                        }
                        *kernel = load::<S>(&values, 0);
                    }
                    let at = start + (index * layout.channels + channel) * width + vector;
                    let to = to.pointer(at, (layout.points - 1) * point_len + lanes);
                    // SAFETY: in bounds, by `pointer`; parts have disjoint channels.
                    unsafe { to_points::<S, P, Q>(s, kernel, to, point_len) };
                }
            }
        }
    }
}

/// Transforms a vector of kernels, and writes it to the points, `point_len` elements apart.
///
/// # Safety
/// A vector may be written at every point, and no other thread uses it.
#[inline(always)]
pub(super) unsafe fn to_points<S: Simd, P: Scheme, Q: Scheme>(
    s: S,
    kernel: [[S::f32s; 3]; 3],
    to: *mut f32,
    point_len: usize,
) {
    // Statements instead of `map`, which may not be inlined.
    let [a, b, c] = kernel;
    let columns = [
        P::kernel(s, [a[0], b[0], c[0]]),
        P::kernel(s, [a[1], b[1], c[1]]),
        P::kernel(s, [a[2], b[2], c[2]]),
    ];
    #[allow(clippy::needless_range_loop)] // Three arrays by one index.
    for y in 0..P::POINTS {
        let values = Q::kernel(s, [columns[0][y], columns[1][y], columns[2][y]]);
        for (x, value) in values.into_iter().take(Q::POINTS).enumerate() {
            // SAFETY: the caller's contract.
            unsafe {
                let to = to.add((y * Q::POINTS + x) * point_len);
                to.cast::<S::f32s>().write_unaligned(value);
            }
        }
    }
}

/// Transforms the sums of a vector of output channels to the gradient of their kernels.
pub(super) struct KernelGradients<'a, S, P> {
    pub all: &'a Winograd<'a>,
    pub schemes: PhantomData<P>,
    pub simd: S,
    pub layout: Layout,
    /// `[point, term, input channel, output channel]`, with `sums_len` between points.
    pub sums: &'a [f32],
    pub sums_len: usize,
    /// The first output channel.
    pub first: usize,
    /// `[output channel, input channel, element]`.
    pub dw: &'a Shared<'a, f32>,
    pub kernel_len: usize,
}

impl<S: Simd, P: Scheme, Q: Scheme> pulp::NullaryFnOnce for KernelGradients<'_, S, (P, Q)> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            all,
            simd: s,
            layout,
            sums,
            sums_len,
            first,
            dw,
            kernel_len,
            ..
        } = self;
        let (lanes, zero) = (S::F32_LANES, s.splat_f32s(0.0));
        let (down, along) = (P::weight_factors(), Q::weight_factors());
        let Gather { channels, rows, .. } = *all.gather;
        for channel in 0..channels {
            let terms = all.jobs.iter().flat_map(|job| &job.terms);
            for (index, term) in terms.enumerate() {
                let at = (index * layout.channels + channel) * layout.outputs + first;
                let mut kernel = [[zero; 3]; 3];
                for (y, down) in down.iter().take(P::POINTS).enumerate() {
                    let mut line = [zero; 3];
                    for (x, along) in along.iter().take(Q::POINTS).enumerate() {
                        let sum = load::<S>(sums, (y * Q::POINTS + x) * sums_len + at);
                        for (line, factor) in line.iter_mut().zip(along) {
                            *line = s.mul_add_e_f32s(s.splat_f32s(*factor), sum, *line);
                        }
                    }
                    for (kernel, factor) in kernel.iter_mut().zip(down) {
                        let factor = s.splat_f32s(*factor);
                        for (kernel, line) in kernel.iter_mut().zip(&line) {
                            *kernel = s.mul_add_e_f32s(factor, *line, *kernel);
                        }
                    }
                }
                let elements = term.iter().flatten();
                for (value, element) in kernel.iter().flatten().zip(elements) {
                    let Some(element) = element else { continue };
                    let mut values = [0.0; MOST_LANES];
                    store::<S>(&mut values, 0, *value);
                    for (lane, value) in values.iter().enumerate().take(lanes.min(rows - first)) {
                        let to = ((first + lane) * channels + channel) * kernel_len + element;
                        // SAFETY: parts have disjoint output channels.
                        unsafe { dw.pointer(to, 1).write(*value) };
                    }
                }
            }
        }
    }
}
