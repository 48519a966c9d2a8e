//! Weight gradients: at every point, the products of the input and of the gradient of the output
//! are summed over tiles and images.
//!
//! The transforms are the transposes of those of the forward pass: the gradient of the output is
//! mapped to the points by the matrix that maps sums to pixels, and the sums at the points to
//! kernel elements by the matrix that maps kernels to points.

use super::{
    super::{lanes::interleave, windows::even},
    Line, Window, clearly_faster,
    part::to_points,
    scheme::{MOST_TAPS, OUT, Scheme},
    tiles::SLACK,
};
use crate::{
    memory::{filled, volume},
    simd::arch,
    threads::{Scratch, Shared, for_each},
    tile::{Listed, Operands, Strided, column_tiles, row_tiles, tallest, tile, widest},
};
use pulp::{Simd, WithSimd};

/// Terms of a sum that are processed together, so that the gradients of a tile of columns stay in
/// the first-level cache. The sums of these blocks are added.
const DEPTH: usize = 128;

/// Tiles of a window, unless a single group has more.
const TILES: usize = 128;

/// Transformed values that are multiplied together: 4 MiB.
const MAPPED: usize = 1 << 20;

/// Windows that are transformed together at least, so that several threads have some.
const LEAST_UNITS: usize = 8;

/// The weight gradient of a convolution of single rows.
pub(in super::super) struct WeightGrad<'a> {
    /// The convolution.
    pub line: Line<'a>,
    /// The gradient of its output.
    pub dy: &'a [f32],
}

impl WeightGrad<'_> {
    /// Whether the algorithm is estimated to take less time than direct sums.
    pub(in super::super) fn is_faster(&self) -> bool {
        let line = &self.line;
        let [direct, products] = line.costs();
        let [batch, channels, rows, terms, groups] = [
            line.gather.batch,
            line.gather.channels,
            line.gather.rows,
            line.terms,
            line.groups,
        ]
        .map(|size| size as f64);
        let (tiles, len) = (
            batch * groups * line.dilation as f64,
            self.window_len() as f64,
        );
        // A window reads and writes all sums once, which takes about as long as four tiles. It
        // transforms the tiles that its last terms read, as the window after it does.
        let products = products * (tiles + 4.0 * self.units() as f64);
        let inputs = 10.0 * channels * (len + terms - 1.0) / len;
        let kernels = 45.0 * terms * channels * rows;
        clearly_faster(products + tiles * (inputs + 6.0 * rows) + kernels, direct)
    }

    /// Groups of a window: its size does not depend on the number of threads, since it is the order
    /// of the sums.
    fn window_len(&self) -> usize {
        even(self.line.groups, (TILES / self.line.dilation).max(1), 1)
    }

    /// Windows of all images.
    fn units(&self) -> usize {
        volume(&[
            self.line.gather.batch,
            self.line.groups.div_ceil(self.window_len()),
        ])
    }

    /// Runs the algorithm with the selected instruction set.
    pub(in super::super) fn run(self) -> Vec<f32> {
        arch().dispatch(self)
    }
}

impl WithSimd for WeightGrad<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        match self.line.scheme.points() {
            6 => run::<S, 6>(simd, &self),
            _ => run::<S, 7>(simd, &self),
        }
    }
}

/// Sizes of transformed values.
#[derive(Clone, Copy)]
struct Layout {
    channels: usize,
    /// Output channels, padded to vectors.
    columns: usize,
    /// Values of a channel at a point: the tiles of a window and those after them that terms read.
    row_len: usize,
    /// Tiles of the longest window.
    tiles: usize,
    /// Values of the input and of the gradient at a point of a window.
    input_len: usize,
    gradient_len: usize,
}

impl Layout {
    fn new<S: Simd>(of: &WeightGrad) -> Self {
        let (line, lanes, groups) = (&of.line, S::F32_LANES, of.window_len());
        let tiles = groups * line.dilation;
        let row_len = (tiles + (line.terms - 1) * line.dilation).next_multiple_of(lanes);
        let (channels, columns) = (
            line.gather.channels,
            line.gather.rows.next_multiple_of(lanes),
        );
        Self {
            channels,
            columns,
            row_len,
            tiles,
            input_len: volume(&[channels, row_len]),
            gradient_len: volume(&[tiles, columns]),
        }
    }
}

#[inline(always)]
fn run<S: Simd, const POINTS: usize>(simd: S, of: &WeightGrad) -> Vec<f32> {
    let WeightGrad { line, dy } = of;
    let (layout, work) = (Layout::new::<S>(of), line.gather.work);
    let columns = layout.columns;
    let windows = line.windows(of.window_len());
    let (cuts, units) = (windows.len(), of.units());
    let unit_len = volume(&[POINTS, layout.input_len + layout.gradient_len]);
    let group = (MAPPED / unit_len).max(LEAST_UNITS).min(units);
    let map = |first: usize, mapped: &mut [f32]| {
        let mapped = Shared::new(mapped);
        for_each(group.min(units - first), work, |index| {
            let unit = first + index;
            simd.vectorize(Map::<S, POINTS> {
                line,
                simd,
                layout,
                dy,
                image: unit / cuts,
                window: windows[unit % cuts],
                // SAFETY: units are disjoint.
                to: unsafe { mapped.range(index * unit_len, unit_len) },
            });
        });
    };
    let rows = volume(&[layout.channels, line.terms]);
    let padded_rows = row_tiles(rows, tallest::<S>())
        .last()
        .map_or(0, |(first, height)| first + height);
    // The offset of every channel and term. The sums of padding rows are not read.
    let mut offsets: Vec<usize> = (0..rows)
        .map(|row| row / line.terms * layout.row_len + row % line.terms * line.dilation)
        .collect();
    offsets.resize(padded_rows, 0);
    let tiles: Vec<(usize, usize)> = column_tiles(columns / S::F32_LANES, widest::<S>()).collect();
    let sums_len = volume(&[padded_rows, columns]);
    // Parts split the sums, not their terms: every sum is accumulated by one thread in a fixed
    // order.
    let wanted = (2 * rayon::current_num_threads()).div_ceil(POINTS * tiles.len());
    let block = padded_rows
        .div_ceil(wanted)
        .next_multiple_of(tallest::<S>());
    let blocks = padded_rows.div_ceil(block);
    let first_group = |mapped: &mut [f32]| map(0, mapped);
    // SAFETY: the parts cover all windows of the first group, and `Map` writes all their values.
    let mut mapped = unsafe { filled(volume(&[group, unit_len]), first_group) };
    let sum = |sums: &mut [f32]| {
        let sums = Shared::new(sums);
        for first in (0..units).step_by(group) {
            if first > 0 {
                map(first, &mut mapped);
            }
            let lens: Vec<usize> = (first..units.min(first + group))
                .map(|unit| windows[unit % cuts].groups * line.dilation)
                .collect();
            for_each(POINTS * tiles.len() * blocks, work, |part| {
                let (part, row) = (part / blocks, part % blocks * block);
                let (point, (column, vectors)) = (part / tiles.len(), tiles[part % tiles.len()]);
                simd.vectorize(Multiply {
                    simd,
                    layout,
                    point,
                    points: POINTS,
                    mapped: &mapped,
                    lens: &lens,
                    offsets: &offsets[row..padded_rows.min(row + block)],
                    column: column * S::F32_LANES,
                    vectors,
                    sums: &sums,
                    start: point * sums_len + row * columns,
                    add: first > 0,
                });
            });
        }
    };
    // SAFETY: the first group writes the sums of all points, rows and columns.
    let sums = unsafe { filled(volume(&[POINTS, sums_len]), sum) };
    let kernel_len = line.elements.len();
    let write = |dw: &mut [f32]| {
        let dw = Shared::new(dw);
        for_each(columns / S::F32_LANES, 8 * sums.len(), |vector| {
            simd.vectorize(KernelGradients::<S, POINTS> {
                line,
                simd,
                sums: &sums,
                sums_len,
                columns,
                first: vector * S::F32_LANES,
                dw: &dw,
            });
        });
    };
    // SAFETY: the parts cover all output channels, and each writes the elements of all its kernels.
    unsafe {
        filled(
            volume(&[line.gather.rows, layout.channels, kernel_len]),
            write,
        )
    }
}

/// Transforms the input and the gradient of a window.
struct Map<'a, S, const POINTS: usize> {
    line: &'a Line<'a>,
    simd: S,
    layout: Layout,
    /// `[image, output channel, pixel]`.
    dy: &'a [f32],
    image: usize,
    window: Window,
    /// The input `[point, channel, tile]`, and after it the gradient
    /// `[point, tile of columns, tile, column]`.
    to: &'a mut [f32],
}

impl<S: Simd, const POINTS: usize> pulp::NullaryFnOnce for Map<'_, S, POINTS> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            line,
            simd,
            layout,
            dy,
            image,
            window,
            to,
        } = self;
        let (lanes, gather) = (S::F32_LANES, line.gather);
        let (inputs, gradients) = to.split_at_mut(POINTS * layout.input_len);
        let (read, tiles) = (line.tiles_read(window), window.groups * line.dilation);
        let used = (read - line.dilation).next_multiple_of(lanes);
        let start = window.first * OUT * line.dilation;
        let [_, out] = gather.output;
        let pixels = (OUT * tiles).min(out - start);
        let mut scratch =
            Scratch::new([OUT * read, OUT * read + SLACK * lanes, OUT * tiles * lanes]);
        let [padded, tile_rows, vectors_of_pixels] = scratch.split();
        let source_len = gather.planes.source[1];
        for channel in 0..layout.channels {
            let map = &gather.x[(image * layout.channels + channel) * source_len..][..source_len];
            line.fill(map, window, padded, tile_rows);
            let to = &mut inputs[channel * layout.row_len..];
            to_points::<S, POINTS>(simd, line, tile_rows, to, used, layout.input_len);
        }
        // Windows that are shorter than others leave some values out.
        if used < layout.row_len {
            for row in inputs.chunks_exact_mut(layout.row_len) {
                row[used..].fill(0.0);
            }
        }
        if tiles < layout.tiles {
            gradients.fill(0.0);
        }
        for (column, vectors) in column_tiles(layout.columns / lanes, widest::<S>()) {
            for vector in 0..vectors {
                let channel = (column + vector) * lanes;
                let maps = (image * gather.rows + channel) * out + start;
                let channels = lanes.min(gather.rows - channel);
                interleave::<S>(&dy[maps..], out, channels, pixels, vectors_of_pixels);
                vectors_of_pixels[pixels * lanes..].fill(0.0);
                let to = column * lanes * layout.tiles + vector * lanes;
                for tile in 0..tiles {
                    let group = tile / line.dilation * OUT * line.dilation;
                    let first = (group + tile % line.dilation) * lanes;
                    let pixels: [S::f32s; OUT] = std::array::from_fn(|pixel| {
                        let from = first + pixel * line.dilation * lanes;
                        S::as_simd_f32s(&vectors_of_pixels[from..from + lanes]).0[0]
                    });
                    for point in 0..POINTS {
                        let mut sum = simd.splat_f32s(0.0);
                        for (factors, pixel) in line.scheme.output.iter().zip(pixels) {
                            let factor = simd.splat_f32s(factors[point]);
                            sum = simd.mul_add_e_f32s(factor, pixel, sum);
                        }
                        let to = point * layout.gradient_len + to + tile * vectors * lanes;
                        S::as_mut_simd_f32s(&mut gradients[to..to + lanes]).0[0] = sum;
                    }
                }
            }
        }
    }
}

/// The products of all tiles of a group of windows at a point, for a tile of columns.
struct Multiply<'a, S> {
    simd: S,
    layout: Layout,
    point: usize,
    points: usize,
    /// As [`Map`] writes them, window by window.
    mapped: &'a [f32],
    /// Tiles of every window.
    lens: &'a [usize],
    /// Offset of every row of the product in the input of a window.
    offsets: &'a [usize],
    /// First column and number of vectors of the tile of columns.
    column: usize,
    vectors: usize,
    /// `[row, column]` from `start` on.
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
            point,
            points,
            mapped,
            lens,
            offsets,
            column,
            vectors,
            sums,
            start,
            add,
        } = self;
        let width = vectors * S::F32_LANES;
        let unit_len = points * (layout.input_len + layout.gradient_len);
        let furthest = offsets.iter().max().copied().unwrap_or(0);
        for (unit, (mapped, tiles)) in mapped.chunks_exact(unit_len).zip(lens).enumerate() {
            let (inputs, gradients) = mapped.split_at(points * layout.input_len);
            let inputs = &inputs[point * layout.input_len..][..layout.input_len];
            let gradients = &gradients[point * layout.gradient_len + column * layout.tiles..];
            assert!(
                furthest + tiles <= inputs.len(),
                "a term reaches beyond the values"
            );
            for from in (0..*tiles).step_by(DEPTH) {
                let k = DEPTH.min(tiles - from);
                let b = &gradients[from * width..][..k * width];
                for (row, height) in row_tiles(offsets.len(), tallest::<S>()) {
                    let c = start + row * layout.columns + column;
                    let operands = Operands {
                        k,
                        a: Listed {
                            start: inputs[from..].as_ptr(),
                            offsets: &offsets[row..row + height],
                        },
                        b: Strided {
                            start: b.as_ptr(),
                            row: 0,
                            k: width,
                        },
                        c: sums.pointer(c, (height - 1) * layout.columns + width),
                        c_row: layout.columns,
                        add: add || unit > 0 || from > 0,
                    };
                    // SAFETY: `k` values from `from` on lie in `inputs` at all offsets, by the
                    // assertion, and B is `k` rows of `width`, the slice above. C is in bounds, by
                    // `pointer`, and parts have disjoint points, rows and columns.
                    unsafe { tile(simd, height, vectors, operands) };
                }
            }
        }
    }
}

/// Transforms the sums of a vector of output channels to the elements of their kernels.
struct KernelGradients<'a, S, const POINTS: usize> {
    line: &'a Line<'a>,
    simd: S,
    /// `[point, row, column]`.
    sums: &'a [f32],
    sums_len: usize,
    columns: usize,
    /// The first output channel.
    first: usize,
    /// `[output, input, element]`.
    dw: &'a Shared<'a, f32>,
}

impl<S: Simd, const POINTS: usize> pulp::NullaryFnOnce for KernelGradients<'_, S, POINTS> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            line,
            simd,
            sums,
            sums_len,
            columns,
            first,
            dw,
        } = self;
        let Line {
            scheme: Scheme { taps, kernel, .. },
            elements,
            terms,
            gather,
            ..
        } = line;
        let (lanes, kernel_len) = (S::F32_LANES, elements.len());
        let mut scratch = Scratch::new([MOST_TAPS * lanes]);
        let [values] = scratch.split();
        for row in 0..gather.channels * terms {
            let elements = &elements[row % terms * taps..];
            let elements = &elements[..elements.len().min(*taps)];
            for (tap, to) in values.chunks_exact_mut(lanes).enumerate().take(*taps) {
                let mut sum = simd.splat_f32s(0.0);
                for (point, factors) in kernel.iter().enumerate().take(POINTS) {
                    let from = &sums[point * sums_len + row * columns + first..][..lanes];
                    let factor = simd.splat_f32s(factors[tap]);
                    sum = simd.mul_add_e_f32s(factor, S::as_simd_f32s(from).0[0], sum);
                }
                S::as_mut_simd_f32s(to).0[0] = sum;
            }
            for lane in 0..lanes.min(gather.rows - first) {
                let to = ((first + lane) * gather.channels + row / terms) * kernel_len;
                let to = dw.pointer(to, kernel_len);
                for (tap, element) in elements.iter().enumerate() {
                    // SAFETY: an element of the kernel, which is in bounds by `pointer`; parts have
                    // disjoint output channels.
                    unsafe { to.add(*element).write(values[tap * lanes + lane]) };
                }
            }
        }
    }
}
