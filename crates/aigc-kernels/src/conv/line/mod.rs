//! Convolutions of single rows with about half of the multiplications: Winograd's algorithm along
//! the row.
//!
//! Neighbouring taps of a kernel of dilation `d` read pixels `d` apart, so a row is `d` rows of
//! every `d`-th pixel, each with a kernel of dilation one. Four pixels of such a row are a tile; a
//! kernel of more than three taps is a sum of kernels of four, each of which reads the tile after
//! that of the one before, so that a tile is transformed once for all of them.
//!
//! Vectors hold the values of neighbouring tiles: planes with a stride of `4·d` hold each pixel of
//! a tile in a row of its own.
//!
//! Lavin and Gray 2015, <https://arxiv.org/abs/1509.09308>.

mod part;
mod scheme;

use super::{
    gather::{Gather, PLANES_BYTES},
    planes::Planes,
    windows::{Window, fitting, windows},
};
use crate::{
    memory::{filled, volume},
    simd::{arch, vectors},
    threads::{Shared, for_each},
    tile::{row_tiles, tallest, widest},
};
use part::Split;
use pulp::{Simd, WithSimd};
use scheme::{OUT, Scheme};

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
    /// Tiles of each of the `dilation` rows.
    tiles: usize,
}

impl<'a> Line<'a> {
    /// `None` if there are groups, strides or several rows, or if there are fewer than three taps,
    /// or taps at unequal distances.
    pub(super) fn new(gather: &'a Gather<'a>) -> Option<Self> {
        let planes = &gather.planes;
        let [job] = &gather.jobs[..] else {
            return None;
        };
        let single = gather.groups == 1
            && gather.output[0] == 1
            && gather.output_stride == [1, 1]
            && planes.size[0] == 1
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
        if !even || dilation == 0 {
            return None;
        }
        let scheme = Scheme::new(taps.len());
        Some(Self {
            gather,
            dilation,
            terms: taps.len().div_ceil(scheme.taps),
            tiles: gather.output[1].div_ceil(OUT * dilation),
            scheme,
            elements: taps.into_iter().map(|(_, element)| element).collect(),
        })
    }

    /// Whether the algorithm is estimated to take less time than direct sums.
    pub(super) fn is_faster(&self) -> bool {
        let [lanes, _] = vectors();
        let Gather {
            batch,
            channels,
            rows,
            ..
        } = *self.gather;
        let points = self.scheme.points();
        // Multiplications in a cycle: one vector of 16 lanes, or two of less.
        let multiplications = (2 * lanes).min(16);
        let tile = channels.saturating_mul(rows);
        let direct = OUT * self.elements.len() * tile / multiplications;
        // The products; copies and transforms of a tile of every input and output channel.
        let products = points * self.terms * tile * 9 / 8 / multiplications;
        let by_tile = products + 10 * channels + 9 * rows;
        let tiles = self
            .dilation
            .saturating_mul(self.tiles.next_multiple_of(lanes));
        // The transform of the weights.
        let weights = 45 * self.terms * tile / batch;
        let direct = (self.dilation * self.tiles).saturating_mul(direct);
        let transformed = tiles.saturating_mul(by_tile).saturating_add(weights);
        // Only where it is clearly less: direct sums need less memory.
        transformed.saturating_add(transformed / 10) < direct
    }

    /// Runs the algorithm with the selected instruction set.
    pub(super) fn run(self) -> Vec<f32> {
        arch().dispatch(self)
    }

    /// The planes of every `dilation`-th pixel from `phase` on, one for each pixel of a tile.
    fn planes(&self, phase: usize) -> Planes {
        let planes = &self.gather.planes;
        let [row, _] = planes.phases[0];
        Planes {
            source: planes.source,
            stride: [planes.stride[0], OUT * self.dilation],
            pad: planes.pad,
            phases: (0..OUT)
                .map(|pixel| [row, pixel * self.dilation + phase])
                .collect(),
            first: planes.first,
            // A term reads the tile after that of the term before, and the one after that.
            size: [1, self.tiles + self.terms],
        }
        .checked()
    }

    /// The windows of every `dilation`-th pixel from every phase on, and the rows of a part, so
    /// that there are two parts for each thread.
    fn division(&self, panel: usize, tallest: usize) -> (Vec<Vec<Window>>, usize) {
        let grid = [1, self.tiles];
        let bytes = PLANES_BYTES * OUT / self.scheme.points();
        let mut len = fitting(&self.planes(0), grid, self.gather.channels, bytes, panel);
        let mut rows = self.gather.rows.next_multiple_of(tallest);
        let wanted = match rayon::current_num_threads() {
            1 => 1,
            threads => 2 * threads,
        };
        let units = self.gather.batch.saturating_mul(self.dilation);
        loop {
            let parts = self.tiles.div_ceil(len) * self.gather.rows.div_ceil(rows);
            if units.saturating_mul(parts) >= wanted {
                break;
            }
            if len > panel {
                len = len.div_ceil(2).next_multiple_of(panel);
            } else if rows > 4 * tallest {
                rows = rows.div_ceil(2).next_multiple_of(tallest);
            } else {
                break;
            }
        }
        let of_phase = |phase| windows(&self.planes(phase), grid, &[], len);
        ((0..self.dilation).map(of_phase).collect(), rows)
    }

    /// Transforms the weights: for every point, tiles of rows as in [`Gather`], with all terms of
    /// a channel after those of the one before.
    fn weights(&self, tallest: usize) -> Vec<f32> {
        let Gather {
            channels,
            rows,
            weight,
            weight_strides: [row_stride, channel_stride],
            ..
        } = *self.gather;
        let depth = volume(&[channels, self.terms]);
        let tiles: Vec<(usize, usize)> = row_tiles(rows, tallest).collect();
        let padded = tiles.last().map_or(0, |(first, height)| first + height);
        let point_len = volume(&[padded, depth]);
        let len = volume(&[self.scheme.points(), point_len]);
        let write = |packed: &mut [f32]| {
            let packed = Shared::new(packed);
            for_each(tiles.len(), 8 * len, |index| {
                let (first, height) = tiles[index];
                for (point, factors) in (0..self.scheme.points()).zip(&self.scheme.kernel) {
                    // SAFETY: tiles are disjoint, and the range ends with the iteration.
                    let to =
                        unsafe { packed.range(point * point_len + first * depth, height * depth) };
                    for (term, to) in to.chunks_exact_mut(height).enumerate() {
                        let elements = self.elements[term % self.terms * self.scheme.taps..].iter();
                        for (row, to) in (first..).zip(to) {
                            *to = 0.0;
                            if row < rows {
                                let at = row * row_stride + term / self.terms * channel_stride;
                                for (element, factor) in
                                    elements.clone().zip(&factors[..self.scheme.taps])
                                {
                                    *to += weight[at + element] * factor;
                                }
                            }
                        }
                    }
                }
            });
        };
        // SAFETY: the tiles cover all rows, and all points and terms are written.
        unsafe { filled(len, write) }
    }
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
    let weights = line.weights(tallest::<S>());
    let (windows, block) = line.division(widest::<S>() * S::F32_LANES, tallest::<S>());
    let (blocks, cuts) = (rows.div_ceil(block), windows[0].len());
    let write = |y: &mut [f32]| {
        let y = Shared::new(y);
        // Neighbouring parts have neighbouring windows, and write to different lines of a cache.
        for_each(batch * windows.len() * cuts * blocks, work, |part| {
            let (part, first) = (part / blocks, part % blocks * block);
            let (part, window) = (part / cuts, part % cuts);
            simd.vectorize(Split::<S, POINTS> {
                line,
                simd,
                weights: &weights,
                y: &y,
                image: part / windows.len(),
                phase: part % windows.len(),
                window: &windows[part % windows.len()][window],
                rows: first..rows.min(first + block),
            });
        });
    };
    // SAFETY: the parts cover all images, windows and output channels, and each writes the pixels
    // of its tiles.
    unsafe { filled(volume(&[batch, rows, output[1]]), write) }
}
