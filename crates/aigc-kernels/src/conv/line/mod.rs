//! Convolutions of single rows with about half of the multiplications: Winograd's algorithm along
//! the row.
//!
//! Neighbouring taps of a kernel of dilation `d` read pixels `d` apart, so four pixels `d` apart
//! are a tile. Tiles are counted by their first pixels: a group of `d` neighbouring ones, then the
//! group `4·d` further on. A kernel of more than three taps is a sum of kernels of four, each of
//! which reads the tile `d` after that of the one before, so that a tile is transformed once for
//! all of them.
//!
//! Vectors hold the values of neighbouring tiles: [`tiles`] copies each pixel of a tile to a row of
//! its own.
//!
//! Lavin and Gray 2015, <https://arxiv.org/abs/1509.09308>.

mod part;
mod scheme;
mod tiles;
mod weight_grad;
mod weights;

pub(super) use weight_grad::WeightGrad as LineWeightGrad;

use super::{
    gather::{Gather, PLANES_BYTES},
    windows::even,
};
use crate::{
    memory::{filled, volume},
    simd::{arch, vectors},
    threads::{Shared, for_each},
    tile::{tallest, widest},
};
use part::Split;
use pulp::{Simd, WithSimd};
use scheme::{OUT, Scheme};

/// The longest dilation: the tiles of a group are processed together, and the terms of its last
/// tiles read as many tiles again.
const MOST_DILATION: usize = 64;

/// Transformed weights that are worth their memory.
const MOST_WEIGHTS: usize = 16 << 20;

/// A [`Gather`] of single rows.
pub(super) struct Line<'a> {
    gather: &'a Gather<'a>,
    scheme: Scheme,
    /// Distance of the pixels that neighbouring taps read.
    dilation: usize,
    /// The kernel elements in the order of the pixels that they read.
    elements: Vec<usize>,
    /// Kernels of `scheme.taps` taps.
    terms: usize,
    /// Groups of `dilation` neighbouring tiles.
    groups: usize,
}

/// Neighbouring groups of tiles.
#[derive(Clone, Copy)]
struct Window {
    /// The first group.
    first: usize,
    /// The number of groups.
    groups: usize,
}

impl<'a> Line<'a> {
    /// `None` if there are groups, strides or several rows, or fewer than three taps, or taps at
    /// unequal or long distances, or more padding than taps, or if it would take much memory.
    pub(super) fn new(gather: &'a Gather<'a>) -> Option<Self> {
        let planes = &gather.planes;
        let [job] = &gather.jobs[..] else {
            return None;
        };
        let single = gather.groups == 1
            && gather.output[0] == 1
            && gather.output_stride == [1, 1]
            && [planes.source[0], planes.size[0]] == [1, 1]
            && planes.pad[0] == 0
            && planes.stride[1] == 1
            && planes.phases.len() == 1;
        if !single || job.taps.len() < 3 {
            return None;
        }
        let places = job.taps.iter().map(|tap| gather.taps[*tap]);
        let mut taps: Vec<(usize, usize)> = places.zip(job.kernel.iter().copied()).collect();
        taps.sort_unstable();
        let dilation = taps[1].0 - taps[0].0;
        let mut places = taps.iter().enumerate();
        let even = places.all(|(index, (place, _))| *place == index * dilation);
        if !even || !(1..=MOST_DILATION).contains(&dilation) {
            return None;
        }
        let scheme = Scheme::new(taps.len());
        let terms = taps.len().div_ceil(scheme.taps);
        let weights = [scheme.points(), terms, gather.channels, gather.rows];
        if weights.into_iter().fold(1, usize::saturating_mul) > MOST_WEIGHTS {
            return None;
        }
        Some(Self {
            gather,
            dilation,
            terms,
            groups: gather.output[1].div_ceil(OUT * dilation),
            scheme,
            elements: taps.into_iter().map(|(_, element)| element).collect(),
        })
    }

    /// Whether the algorithm is estimated to take less time than direct sums.
    pub(super) fn is_faster(&self) -> bool {
        let [direct, products] = self.costs();
        let [batch, channels, rows] =
            [self.gather.batch, self.gather.channels, self.gather.rows].map(|size| size as f64);
        let [lanes, _] = vectors();
        let tiles = (self.groups * self.dilation).next_multiple_of(lanes) as f64;
        // Copies and transforms of a tile of every input and output channel, and of the weights.
        let tile = products + 10.0 * channels + 9.0 * rows;
        let weights = 14.0 * self.terms as f64 * channels * rows;
        clearly_faster(batch * tiles * tile + weights, direct)
    }

    /// Estimated cycles of direct sums, and those of the products of one tile.
    fn costs(&self) -> [f64; 2] {
        let [lanes, _] = vectors();
        let Gather {
            batch,
            channels,
            rows,
            output: [_, out],
            ..
        } = *self.gather;
        // Multiplications in a cycle: one vector of 16 lanes, or two of less.
        let pair = channels as f64 * rows as f64 / (2 * lanes).min(16) as f64;
        let taps = self.elements.len() as f64 * pair;
        let points = (self.scheme.points() * self.terms) as f64 * pair;
        [batch as f64 * out as f64 * taps, points * 9.0 / 8.0]
    }

    /// Runs the algorithm with the selected instruction set.
    pub(super) fn run(self) -> Vec<f32> {
        arch().dispatch(self)
    }

    /// Cuts the tiles into windows of `len` groups.
    fn windows(&self, len: usize) -> Vec<Window> {
        let window = |first: usize| Window {
            first,
            groups: len.min(self.groups - first),
        };
        (0..self.groups).step_by(len).map(window).collect()
    }

    /// The windows, and the output channels of a part, so that there are two parts for each thread.
    /// All windows but the last have about a multiple of `panel` tiles.
    fn division(&self, panel: usize, tallest: usize) -> (Vec<Window>, usize) {
        // Of the last panel of a unit, at most a sixteenth is not used.
        let unit = (1..=panel)
            .find(|groups| {
                let tiles = groups * self.dilation;
                tiles >= panel && 16 * (tiles.next_multiple_of(panel) - tiles) <= tiles
            })
            .unwrap_or(panel);
        // The values at all points fit half of a second-level cache, unless the shortest window has
        // more.
        let bytes = volume(&[4, self.scheme.points(), self.gather.channels, self.dilation]);
        let most = (PLANES_BYTES / bytes).saturating_sub(self.terms);
        let mut len = even(self.groups, most.max(2 * self.terms).max(unit), unit);
        let mut rows = self.gather.rows.next_multiple_of(tallest);
        let wanted = match rayon::current_num_threads() {
            1 => 1,
            threads => 2 * threads,
        };
        loop {
            let parts = self.groups.div_ceil(len) * self.gather.rows.div_ceil(rows);
            if self.gather.batch.saturating_mul(parts) >= wanted {
                break;
            }
            if len > unit {
                len = len.div_ceil(2).next_multiple_of(unit);
            } else if rows > 4 * tallest {
                rows = rows.div_ceil(2).next_multiple_of(tallest);
            } else {
                break;
            }
        }
        (self.windows(len), rows)
    }
}

/// Whether estimated cycles are clearly less than those of direct sums, which need less memory.
fn clearly_faster(cycles: f64, direct: f64) -> bool {
    1.1 * cycles < direct
}

impl WithSimd for Line<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        match self.scheme.points() {
            6 => run::<S, 6>(simd, &self),
            _ => run::<S, 7>(simd, &self),
        }
    }
}

/// Runs the algorithm with a scheme of `POINTS` points.
#[inline(always)]
fn run<S: Simd, const POINTS: usize>(simd: S, line: &Line) -> Vec<f32> {
    let Gather {
        batch,
        rows,
        output,
        work,
        ..
    } = *line.gather;
    let weights = line.weights(simd);
    let (windows, block) = line.division(widest::<S>() * S::F32_LANES, tallest::<S>());
    let (blocks, cuts) = (rows.div_ceil(block), windows.len());
    let write = |y: &mut [f32]| {
        let y = Shared::new(y);
        for_each(batch * cuts * blocks, work, |part| {
            let (part, first) = (part / blocks, part % blocks * block);
            simd.vectorize(Split::<S, POINTS> {
                line,
                simd,
                weights: &weights,
                y: &y,
                image: part / cuts,
                window: windows[part % cuts],
                rows: first..rows.min(first + block),
            });
        });
    };
    // SAFETY: the parts cover all images, windows and output channels, and each writes the pixels
    // of its tiles.
    unsafe { filled(volume(&[batch, rows, output[1]]), write) }
}
