//! Weight gradients: at every point, the products of the input and of the gradient of the output
//! are summed over tiles and images.

use super::{
    super::ConvSizes,
    DEPTH, GAP, Layout, Winograd, clear_gaps,
    kernels::KernelGradients,
    points::{Scheme, Three, Two, TwoBySeven},
    tiles::{Gradients, Inputs, Strides},
};
use crate::{
    memory::{filled, volume},
    simd::arch,
    threads::{Scratch, Shared, for_each},
    tile::{Operands, Strided, column_tiles, row_tiles, tallest, tile, widest},
};
use pulp::{Simd, WithSimd};
use std::marker::PhantomData;

/// Values of transformed maps that are multiplied together: 4 MiB, or as many as there are sums.
const MAPPED: usize = 1 << 20;

/// Bands of tiles that are transformed together at least, so that all threads have some.
const LEAST_UNITS: usize = 8;

/// The weight gradient of a convolution.
pub(in super::super) struct WeightGrad<'a> {
    /// The convolution.
    pub all: Winograd<'a>,
    /// The gradient of its output.
    pub dy: &'a [f32],
    pub sizes: ConvSizes,
}

impl WeightGrad<'_> {
    /// Runs the algorithm with the selected instruction set.
    pub(in super::super) fn run(self) -> Vec<f32> {
        arch().dispatch(self)
    }
}

impl WithSimd for WeightGrad<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        match (self.all.taps, self.all.out) {
            (2, [4, _]) => run::<S, Two, Two>(simd, &self),
            (2, _) => run::<S, TwoBySeven, Two>(simd, &self),
            _ => run::<S, Three, Three>(simd, &self),
        }
    }
}

#[inline(always)]
fn run<S: Simd, P: Scheme, Q: Scheme>(simd: S, of: &WeightGrad) -> Vec<f32> {
    let WeightGrad { all, dy, sizes } = of;
    let layout = Layout::new::<S, P, Q>(all);
    let (work, [bands, columns]) = (sizes.work(), all.grid());
    let units = volume(&[sizes.batch, bands]);
    let unit_len = volume(&[layout.points, columns, layout.inputs + layout.outputs]);
    let sums_len = volume(&[layout.inputs, layout.outputs]) + GAP;
    // Every group reads and writes all sums. Its size does not depend on the number of threads,
    // since it is the order of the sums.
    let group = MAPPED.max(layout.points * sums_len) / unit_len;
    let group = group.max(LEAST_UNITS).min(units);
    let places = |units: usize| {
        let tiles = volume(&[units, columns]);
        let lens = [layout.inputs, layout.outputs].map(|len| volume(&[tiles, len]) + GAP);
        (tiles, lens)
    };
    let map = |first: usize, mapped: &mut [f32]| {
        let units = group.min(units - first);
        let (tiles, lens) = places(units);
        let [input_len, gradient_len] = lens;
        let shared = Shared::new(mapped);
        for_each(units, work, |index| {
            simd.vectorize(Map {
                all,
                dy,
                schemes: PhantomData::<(P, Q)>,
                simd,
                layout,
                unit: first + index,
                first: index * columns,
                tiles,
                mapped: &shared,
                lens,
            });
        });
        let (inputs, gradients) = mapped.split_at_mut(layout.points * input_len);
        clear_gaps(inputs, input_len);
        clear_gaps(&mut gradients[..layout.points * gradient_len], gradient_len);
    };
    let (_, [input_len, gradient_len]) = places(group);
    let len = volume(&[layout.points, input_len + gradient_len]);
    // SAFETY: the parts cover all tiles, and `Map` writes the values of both maps at all points.
    let mut mapped = unsafe { filled(len, |mapped| map(0, mapped)) };
    let vectors: Vec<(usize, usize)> =
        column_tiles(layout.outputs / S::F32_LANES, widest::<S>()).collect();
    let sum = |sums: &mut [f32]| {
        for first in (0..units).step_by(group) {
            if first > 0 {
                map(first, &mut mapped);
            }
            let (tiles, [input_len, gradient_len]) = places(group.min(units - first));
            let (inputs, gradients) = mapped.split_at(layout.points * input_len);
            let sums = Shared::new(sums);
            // Parts split the sums, not their terms: every sum is accumulated by one thread in a
            // fixed order.
            for_each(layout.points * vectors.len(), work, |part| {
                let (point, (column, vectors)) =
                    (part / vectors.len(), vectors[part % vectors.len()]);
                simd.vectorize(Multiply {
                    simd,
                    layout,
                    tiles,
                    inputs: &inputs[point * input_len..][..input_len],
                    gradients: &gradients[point * gradient_len..][..gradient_len],
                    column: column * S::F32_LANES,
                    vectors,
                    sums: &sums,
                    start: point * sums_len,
                    add: first > 0,
                });
            });
        }
        clear_gaps(sums, sums_len);
    };
    // SAFETY: the first group writes the sums of all points and columns.
    let sums = unsafe { filled(volume(&[layout.points, sums_len]), sum) };
    let kernel_len = sizes.kernel[0] * sizes.kernel[1];
    let write = |dw: &mut [f32]| {
        let dw = Shared::new(dw);
        for_each(layout.outputs / S::F32_LANES, work, |vector| {
            simd.vectorize(KernelGradients {
                all,
                schemes: PhantomData::<(P, Q)>,
                simd,
                layout,
                sums: &sums,
                sums_len,
                first: vector * S::F32_LANES,
                dw: &dw,
                kernel_len,
            });
        });
    };
    let len = volume(&[sizes.channels_out, sizes.channels_in, kernel_len]);
    // SAFETY: the parts cover all output channels, and the terms all elements of a kernel.
    unsafe { filled(len, write) }
}

/// Transforms a band of tiles of both maps.
struct Map<'a, S, P> {
    all: &'a Winograd<'a>,
    dy: &'a [f32],
    schemes: PhantomData<P>,
    simd: S,
    layout: Layout,
    unit: usize,
    /// The band's first tile among `tiles`.
    first: usize,
    tiles: usize,
    /// The inputs at all points, and after them the gradients.
    mapped: &'a Shared<'a, f32>,
    /// Elements of both at a point.
    lens: [usize; 2],
}

impl<S: Simd, P: Scheme, Q: Scheme> pulp::NullaryFnOnce for Map<'_, S, (P, Q)> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            all,
            dy,
            simd,
            layout,
            unit,
            first,
            tiles,
            mapped,
            lens: [mapped_len, gradient_len],
            ..
        } = self;
        let lanes = S::F32_LANES;
        let inputs = Inputs::<S, P, Q>::new(all, simd);
        let gradients = Gradients::<S, P, Q>::new(all, simd, dy);
        let ([a, b, c], [d, e]) = (inputs.buffers(), gradients.buffers());
        let mut scratch = Scratch::new([a, b, c, d, e]);
        let [a, b, c, d, e] = scratch.split();
        // Vectors of channels are the slowest axis: the rows of a tile of the product lie in one.
        let strides = Strides {
            start: first * lanes,
            point: mapped_len,
            tile: lanes,
            vector: tiles * lanes,
        };
        // SAFETY: parts have disjoint tiles.
        unsafe { inputs.map(unit, [a, b, c], layout, mapped, strides) };
        // Tiles of columns are the slowest axis.
        for (column, vectors) in column_tiles(layout.outputs / lanes, widest::<S>()) {
            for vector in 0..vectors {
                let width = vectors * lanes;
                let strides = Strides {
                    start: layout.points * mapped_len
                        + column * lanes * tiles
                        + first * width
                        + vector * lanes,
                    point: gradient_len,
                    tile: width,
                    vector: 0,
                };
                let channel = (column + vector) * lanes;
                // SAFETY: as above.
                unsafe {
                    gradients.map(unit, channel, [&mut *d, &mut *e], layout, mapped, strides);
                }
            }
        }
    }
}

/// The products of all tiles at a point, for a tile of columns.
struct Multiply<'a, S> {
    simd: S,
    layout: Layout,
    tiles: usize,
    /// `[vector, tile, lane]`.
    inputs: &'a [f32],
    /// `[tile of columns, tile, column]`.
    gradients: &'a [f32],
    /// First column and number of vectors of the tile of columns.
    column: usize,
    vectors: usize,
    /// `[input, output]` from `start` on.
    sums: &'a Shared<'a, f32>,
    start: usize,
    add: bool,
}

impl<S: Simd> pulp::NullaryFnOnce for Multiply<'_, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            simd,
            layout,
            tiles,
            inputs,
            gradients,
            column,
            vectors,
            sums,
            start,
            add,
        } = self;
        let (lanes, width) = (S::F32_LANES, vectors * S::F32_LANES);
        for from in (0..tiles).step_by(DEPTH) {
            let k = DEPTH.min(tiles - from);
            let b = &gradients[column * tiles + from * width..][..k * width];
            for vector in 0..layout.inputs / lanes {
                for (row, height) in row_tiles(lanes, tallest::<S>()) {
                    let a = &inputs[(vector * tiles + from) * lanes + row..]
                        [..(k - 1) * lanes + height];
                    let c = start + (vector * lanes + row) * layout.outputs + column;
                    let operands = Operands {
                        k,
                        a: Strided {
                            start: a.as_ptr(),
                            row: 1,
                            k: lanes,
                        },
                        b: Strided {
                            start: b.as_ptr(),
                            row: 0,
                            k: width,
                        },
                        c: sums.pointer(c, (height - 1) * layout.outputs + width),
                        c_row: layout.outputs,
                        add: add || from > 0,
                    };
                    // SAFETY: A is `k` columns of `height` and B `k` rows of `width`, the slices
                    // above. C is in bounds, by `pointer`, and parts have disjoint points and
                    // columns.
                    unsafe { tile(simd, height, vectors, operands) };
                }
            }
        }
    }
}
