//! Convolutions and their gradients with down to a quarter (3×3) or two fifths (2×2 taps) of the
//! multiplications: Winograd's algorithm along both axes (Lavin and Gray 2015,
//! <https://arxiv.org/abs/1509.09308>).
//!
//! The smaller map is split into tiles. What a tile reads, and the kernels, are transformed to a
//! grid of [`points`]; at each point, the sum over channels is a matrix product, and the products
//! are transformed back. Vectors hold the channels of one pixel, so transforms never move values
//! between lanes; [`lanes`](super::lanes) transposes maps to such vectors and back.
//!
//! `forward` keeps all weights transformed and works through bands of tiles; `wide`, for more
//! weights than that, keeps all tiles transformed and works through the output channels.

mod forward;
mod kernels;
mod points;
mod tiles;
mod weight_grad;
mod wide;

pub(super) use weight_grad::WeightGrad;

use super::gather::{Gather, Job};
use crate::{
    memory::volume,
    simd::{arch, vectors},
    tile::{Operands, Strided, row_tiles, tallest, tile},
};
use points::{Scheme, Three, Two, TwoBySeven};
use pulp::{Simd, WithSimd};

/// Lanes of the widest vectors.
const MOST_LANES: usize = 16;

/// Elements between the values of two points, so that those of a tile do not share the sets of a
/// cache.
const GAP: usize = 16;

/// Terms of a sum that are processed together, so that a panel of an operand stays in the
/// first-level cache. The sums of these blocks are added, which also bounds rounding errors.
const DEPTH: usize = 128;

/// Transformed weights that are worth their memory: those of 640 by 640 channels and 3×3 kernels.
const MOST_WEIGHTS: usize = 16 << 20;

/// Transformed pixels of all tiles that are worth their memory, where weights are not kept.
const MOST_MAPPED: usize = 16 << 20;

/// Transformed values of a band of tiles that are worth their memory.
const MOST_VALUES: usize = 4 << 20;

/// Transformed weights that stay in a cache between the parts of a loop.
const CACHED_WEIGHTS: usize = 2 << 20;

/// Distance of two windows on a plane beyond which reading both in one pass does not pay.
const MOST_SPREAD: usize = 8;

/// Kernel elements of a job's taps on one plane, by row and column: `None` where there is no tap.
type Term = [[Option<usize>; 3]; 3];

/// The upper left pixel, on a plane, that the first tile reads.
#[derive(Clone, Copy, PartialEq)]
struct Window {
    phase: usize,
    row: usize,
    column: usize,
}

/// The terms of a [`Job`], which read consecutive windows.
struct Terms {
    first_window: usize,
    terms: Vec<Term>,
}

/// A [`Gather`] whose taps form rectangles of up to 3×3 on every plane.
pub(super) struct Winograd<'a> {
    gather: &'a Gather<'a>,
    windows: Vec<Window>,
    /// Row and column of a plane from which the windows are counted.
    origin: [usize; 2],
    jobs: Vec<Terms>,
    /// Side of the largest rectangle of taps.
    taps: usize,
    /// Height and width of a tile.
    out: [usize; 2],
    /// Whether there are too many weights to keep them all transformed.
    is_wide: bool,
}

impl<'a> Winograd<'a> {
    /// Groups the taps into rectangles. `None` if one is larger than 3×3, all are single taps, they
    /// are far from each other, or it would take much memory.
    pub(super) fn new(gather: &'a Gather<'a>) -> Option<Self> {
        let mut windows: Vec<Window> = Vec::new();
        let (mut taps, mut jobs) = (0, Vec::new());
        for job in &gather.jobs {
            let rectangles = rectangles(gather, job);
            let mut terms = Vec::new();
            for (window, elements) in &rectangles {
                let mut term = Term::default();
                for ([row, column], element) in elements {
                    let [row, column] = [row - window.row, column - window.column];
                    *term.get_mut(row)?.get_mut(column)? = Some(*element);
                    taps = taps.max(row.max(column) + 1);
                }
                terms.push(term);
            }
            let wanted: Vec<Window> = rectangles.into_iter().map(|(window, _)| window).collect();
            let known = (0..windows.len()).find(|at| windows[*at..].starts_with(&wanted));
            let first_window = known.unwrap_or_else(|| {
                windows.extend(&wanted);
                windows.len() - wanted.len()
            });
            jobs.push(Terms {
                first_window,
                terms,
            });
        }
        // With two taps, four rows take five multiplications and seven rows eight.
        let bands = |out: usize| gather.grid[0].div_ceil(out);
        let out = match taps {
            2 if 8 * bands(7) < 5 * bands(4) => [7, 4],
            2 | 3 => [4, 4],
            _ => return None,
        };
        let least = |axis: fn(&Window) -> usize| windows.iter().map(axis).min().unwrap_or(0);
        let origin = [least(|window| window.row), least(|window| window.column)];
        for window in &mut windows {
            window.row -= origin[0];
            window.column -= origin[1];
        }
        let mut all = Self {
            gather,
            windows,
            origin,
            jobs,
            taps,
            out,
            is_wide: false,
        };
        all.is_wide = all.weights(1) > MOST_WEIGHTS;
        let near = all.spread().into_iter().all(|spread| spread <= MOST_SPREAD);
        let fits = match all.is_wide {
            true => all.mapped() <= MOST_MAPPED,
            false => all.band_values() <= MOST_VALUES,
        };
        (near && fits).then_some(all)
    }

    /// The furthest row and column of a window.
    fn spread(&self) -> [usize; 2] {
        self.windows.iter().fold([0, 0], |[row, column], window| {
            [row.max(window.row), column.max(window.column)]
        })
    }

    /// Transformed pixels of all tiles.
    fn mapped(&self) -> usize {
        let ([bands, columns], [down, along]) = (self.grid(), self.points());
        let Gather {
            batch, channels, ..
        } = *self.gather;
        let windows = self.windows.len();
        volume(&[batch, bands, columns, down, along, channels, windows])
    }

    /// Elements of a kernel.
    fn kernel_len(&self) -> usize {
        let [row, channel] = self.gather.weight_strides;
        row.min(channel)
    }

    /// Transformed pixels and sums of a band of tiles.
    fn band_values(&self) -> usize {
        let ([_, columns], [down, along]) = (self.grid(), self.points());
        let Gather { channels, rows, .. } = *self.gather;
        let tile = volume(&[channels, self.windows.len()]) + volume(&[rows, self.jobs.len()]);
        volume(&[columns, down, along, tile])
    }

    /// Points of a tile along both axes.
    fn points(&self) -> [usize; 2] {
        self.out.map(|out| out + self.taps - 1)
    }

    /// The number of transformed weights, if channels are padded to a multiple of `lanes`.
    fn weights(&self, lanes: usize) -> usize {
        let [down, along] = self.points();
        let Gather { channels, rows, .. } = *self.gather;
        let [channels, rows] = [channels, rows].map(|size| size.next_multiple_of(lanes));
        let terms: usize = self.jobs.iter().map(|job| job.terms.len()).sum();
        volume(&[down, along, terms, channels, rows])
    }

    /// Rows and columns of tiles.
    fn grid(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.gather.grid[axis].div_ceil(self.out[axis]))
    }

    /// Estimated cycles per image.
    pub(super) fn cycles(&self, lanes: usize) -> usize {
        let Gather {
            batch,
            channels,
            rows,
            output,
            ref planes,
            ..
        } = *self.gather;
        let ([bands, columns], [down, _]) = (self.grid(), self.points());
        let [vectors_in, vectors_out] = [channels, rows].map(|size| size.div_ceil(lanes));
        // A vector multiplication takes half a cycle, and with what lies between two tiles of sums
        // a bit more.
        let weights = self.weights(lanes);
        let products = weights / lanes * bands * columns * 9 / 16;
        // The transforms of one line of a tile.
        let lines = self.windows.len() * vectors_in * (self.out[1] + down)
            + self.jobs.len() * vectors_out * (down + self.out[1]);
        // Vectors of pixels that are copied to planes, and from the output's tiles.
        let [_, spread] = self.spread();
        let read = (self.out[0] + self.taps - 1) * (columns * self.out[1] + spread);
        let pixels =
            vectors_in * bands * planes.phases.len() * read + vectors_out * output[0] * output[1];
        let per_weight = match weights {
            _ if self.is_wide => 8,
            weights if weights > CACHED_WEIGHTS => 20,
            _ => 6,
        };
        products
            + 14 * bands * columns * lines
            + 10 * pixels
            + per_weight * (weights / lanes) / batch
    }

    /// Whether the weight gradient is estimated to take less time than
    /// [`correlate`](super::correlate::correlate). It takes about as long as the convolution.
    pub(super) fn faster_weight_grad(&self) -> bool {
        let [lanes, _] = vectors();
        let Gather {
            channels,
            rows,
            grid,
            ref taps,
            ..
        } = *self.gather;
        let pixels = grid[0] * grid[1];
        let rows = rows.next_multiple_of(lanes);
        // The gradient keeps all weights transformed.
        if self.is_wide {
            return false;
        }
        // Fitted: a vector multiplication takes a cycle, and so does the transpose of an element.
        let direct = pixels * rows * (channels * taps.len() / lanes + 1);
        self.cycles(lanes) < direct
    }

    /// Taps per axis, and height and width of a tile.
    #[cfg(test)]
    pub(super) fn schemes(&self) -> (usize, [usize; 2]) {
        (self.taps, self.out)
    }

    /// The algorithm for many weights, however many there are.
    #[cfg(test)]
    pub(super) fn wide(self) -> Self {
        Self {
            is_wide: true,
            ..self
        }
    }

    /// Runs the algorithm with the selected instruction set.
    pub(super) fn run(self) -> Vec<f32> {
        arch().dispatch(self)
    }
}

impl WithSimd for Winograd<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        match (self.taps, self.out) {
            (2, [4, _]) => run::<S, Two, Two>(simd, &self),
            (2, _) => run::<S, TwoBySeven, Two>(simd, &self),
            _ => run::<S, Three, Three>(simd, &self),
        }
    }
}

/// Runs the algorithm with the schemes of the vertical and the horizontal axis.
#[inline(always)]
fn run<S: Simd, P: Scheme, Q: Scheme>(simd: S, all: &Winograd) -> Vec<f32> {
    match all.is_wide {
        true => wide::run::<S, P, Q>(simd, all),
        false => forward::run::<S, P, Q>(simd, all),
    }
}

/// The taps of a job on one plane: the upper left pixel, and position and kernel element of every
/// tap.
type Rectangle = (Window, Vec<([usize; 2], usize)>);

/// The taps of a job by plane.
fn rectangles(gather: &Gather, job: &Job) -> Vec<Rectangle> {
    let [height, width] = gather.planes.size;
    let mut planes: Vec<Rectangle> = Vec::new();
    for (tap, element) in job.taps.iter().zip(&job.kernel) {
        let place = gather.taps[*tap];
        let [phase, row, column] = [
            place / (height * width),
            place / width % height,
            place % width,
        ];
        let known = planes.iter().position(|(window, _)| window.phase == phase);
        let index = known.unwrap_or_else(|| {
            planes.push((Window { phase, row, column }, Vec::new()));
            planes.len() - 1
        });
        let (window, elements) = &mut planes[index];
        (window.row, window.column) = (window.row.min(row), window.column.min(column));
        elements.push(([row, column], *element));
    }
    planes
}

/// Sizes of transformed maps, in elements.
#[derive(Clone, Copy)]
struct Layout {
    points: usize,
    /// Input channels in whole vectors.
    channels: usize,
    /// Input channels of all windows.
    inputs: usize,
    /// Output channels in whole vectors.
    outputs: usize,
}

impl Layout {
    fn new<S: Simd, P: Scheme, Q: Scheme>(all: &Winograd) -> Self {
        let channels = all.gather.channels.next_multiple_of(S::F32_LANES);
        Self {
            points: P::POINTS * Q::POINTS,
            channels,
            inputs: volume(&[channels, all.windows.len()]),
            outputs: all.gather.rows.next_multiple_of(S::F32_LANES),
        }
    }
}

/// Rows of a product with one for each of `tiles` tiles: the last tile of the product may have more
/// than there are, whose sums are not read.
fn padded_rows<S: Simd>(tiles: usize) -> usize {
    let last = row_tiles(tiles, tallest::<S>()).last();
    last.map_or(0, |(first, height)| first + height)
}

/// At one point, the product of the transformed pixels of all tiles and of transformed weights.
struct PointProduct<'a> {
    tiles: usize,
    /// Input channels that are summed over.
    depth: usize,
    /// The pixels, `pixel_row` elements from one tile to the next.
    pixels: &'a [f32],
    pixel_row: usize,
    /// `depth` × `width`.
    weights: &'a [f32],
    /// Output channels, whole vectors.
    width: usize,
    /// Receives the sums, `sum_row` elements from one tile to the next.
    sums: &'a mut [f32],
    sum_row: usize,
    /// Whether the products are added to the sums.
    add: bool,
}

impl PointProduct<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            tiles,
            depth: k,
            pixels,
            pixel_row,
            weights,
            width,
            sums,
            sum_row,
            add,
        } = self;
        let weights = &weights[..k * width];
        for (row, height) in row_tiles(tiles, tallest::<S>()) {
            let a = &pixels[row * pixel_row..][..(height - 1) * pixel_row + k];
            let c = &mut sums[row * sum_row..][..(height - 1) * sum_row + width];
            let operands = Operands {
                k,
                a: Strided {
                    start: a.as_ptr(),
                    row: pixel_row,
                    k: 1,
                },
                b: Strided {
                    start: weights.as_ptr(),
                    row: 0,
                    k: width,
                },
                c: c.as_mut_ptr(),
                c_row: sum_row,
                add,
            };
            // SAFETY: the slices are `height` rows of A and C, and `k` rows of B.
            unsafe { tile(simd, height, width / S::F32_LANES, operands) };
        }
    }
}

/// Zeroes the gap after the values of every point, each with its gap of `point_len` elements.
fn clear_gaps(values: &mut [f32], point_len: usize) {
    for point in values.chunks_exact_mut(point_len) {
        point[point_len - GAP..].fill(0.0);
    }
}

/// One vector of a slice.
#[inline(always)]
fn load<S: Simd>(from: &[f32], at: usize) -> S::f32s {
    S::as_simd_f32s(&from[at..at + S::F32_LANES]).0[0]
}

/// Writes one vector of a slice.
#[inline(always)]
fn store<S: Simd>(to: &mut [f32], at: usize, value: S::f32s) {
    S::as_mut_simd_f32s(&mut to[at..at + S::F32_LANES]).0[0] = value;
}
