//! Direct convolution: output pixels as sums over channels and taps.
//!
//! The work is divided into parts by groups, images, windows of pixels and output channels; see
//! [`division`]. Every sum is one part's, with the same order of its terms in any division.

mod division;
mod output;
mod part;

use super::{depthwise::depthwise, planes::Planes};
use crate::{
    memory::{filled, volume},
    simd::arch,
    threads::{Shared, for_each},
    tile::{row_tiles, tallest},
};
use division::Division;
pub(super) use output::add_bias;
use part::Split;
use pulp::{Simd, WithSimd};

/// The output pixels of one phase (position modulo the output stride), which use the same taps.
pub(super) struct Job {
    /// Index of every tap in [`Gather::taps`].
    pub taps: Vec<usize>,
    /// Kernel element of every tap.
    pub kernel: Vec<usize>,
}

/// `y[n, g, m, job pixel] = bias[g, m] + Σ_{c, tap} w[g, m, c, tap] · planes[n, g, c, pixel + tap]`
pub(super) struct Gather<'a> {
    pub x: &'a [f32],
    pub batch: usize,
    pub groups: usize,
    /// Channels of a group.
    pub channels: usize,
    pub planes: Planes,
    pub weight: &'a [f32],
    /// Strides of `weight` along rows and channels; the kernel is contiguous.
    pub weight_strides: [usize; 2],
    /// Output channels of a group.
    pub rows: usize,
    pub bias: Option<&'a [f32]>,
    /// Offset of every tap in the planes of a channel.
    pub taps: Vec<usize>,
    /// One job per phase of `output_stride`, row by row.
    pub jobs: Vec<Job>,
    /// Height and width of a job's pixels. Some phases may have one row or column less.
    pub grid: [usize; 2],
    /// Height and width of the output.
    pub output: [usize; 2],
    /// Distance in the output between neighbouring pixels of a job.
    pub output_stride: [usize; 2],
    /// Approximate floating-point operations.
    pub work: usize,
}

/// Bytes of planes that one part processes: about half of a second-level cache.
pub(super) const PLANES_BYTES: usize = 512 * 1024;

/// Runs the computation with the selected instruction set.
pub(super) fn gather(work: Gather) -> Vec<f32> {
    match [work.channels, work.rows] {
        [1, 1] => depthwise(&work),
        _ => arch().dispatch(work),
    }
}

impl WithSimd for Gather<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        let weights: Vec<Vec<f32>> = (0..self.groups)
            .flat_map(|group| self.jobs.iter().map(move |job| (group, job)))
            .map(|(group, job)| self.pack_weights(group, job, tallest::<S>()))
            .collect();
        let y_len = volume(&[self.groups, self.rows, self.output[0], self.output[1]]);
        let division = Division::new::<S>(&self);
        let write = |y: &mut [f32]| {
            let y = Shared::new(y);
            for_each(division.parts(&self), self.work, |index| {
                simd.vectorize(Split {
                    gather: &self,
                    simd,
                    weights: &weights,
                    y: &y,
                    part: division.part(&self, index),
                    in_place: division.in_place,
                });
            });
        };
        // SAFETY: the parts cover all images, pixels of the grid and output channels. The pixels of
        // all jobs cover the output of an image, and a part writes each of its own with its sum,
        // which the product has written.
        unsafe { filled(volume(&[self.batch, y_len]), write) }
    }
}

impl Gather<'_> {
    /// Length of an image's pixels in its plane, including the padding between rows.
    fn span(&self) -> usize {
        (self.grid[0] - 1) * self.planes.size[1] + self.grid[1]
    }

    /// An image, counted across the groups of all images.
    fn image(&self, image: usize, group: usize) -> usize {
        image * self.groups + group
    }

    fn pixels(&self) -> usize {
        self.grid[0] * self.grid[1]
    }

    /// Whether computing the padding between rows costs less than packing the rows.
    fn reads_in_place(&self, lanes: usize, widest: usize) -> bool {
        let [in_place, packed] = self.costs(lanes, widest);
        in_place <= packed
    }

    /// Estimated cycles per image of a large batch, with panels of `widest` vectors.
    pub(super) fn cycles(&self, lanes: usize, widest: usize) -> usize {
        self.costs(lanes, widest).into_iter().min().unwrap_or(0)
    }

    /// Estimated cycles with pixels read in place, and with packed pixels.
    fn costs(&self, lanes: usize, widest: usize) -> [usize; 2] {
        let [height, width] = self.grid;
        let sums: usize = self
            .jobs
            .iter()
            .map(|job| job.taps.len() * self.channels * self.rows)
            .sum();
        let out_rows = self.jobs.len() * self.rows;
        // A vector multiplication takes half a cycle, a vector copy two or three. Panel boundaries
        // split some rows. Results narrower than a vector are written one by one.
        let cut_rows = height + self.pixels() / (lanes * widest);
        let narrow = if width < lanes { width } else { 0 };
        // Rows without padding between them are read and written as one.
        let gapless = self.planes.size[1] == width && self.output_stride == [1, 1];
        let writes = match gapless {
            true => (cut_rows - height + 1) * 6,
            false => cut_rows * (6 + narrow),
        };
        let in_place = self.span().div_ceil(lanes) * sums / 2 + writes * out_rows;
        let copies = self.taps.len() * self.channels * cut_rows * width.div_ceil(lanes);
        let packed = self.pixels() * sums / (2 * lanes)
            + copies * 5 / 2
            + self.pixels() * out_rows * 2 / lanes;
        // Writing the planes, row by row.
        let planes = self.channels
            * self.planes.phases.len()
            * self.planes.size[0]
            * (4 + self.planes.size[1] / 4);
        [in_place + planes, packed + planes]
    }

    /// Images per part: as few as keep the cost of the last, narrower panel of pixels low.
    fn group(&self, lanes: usize, widest: usize) -> usize {
        let parts = self.batch.saturating_mul(self.groups) / (2 * rayon::current_num_threads());
        let most = parts.clamp(1, self.batch);
        let bytes = 4 * self.channels * self.planes.channel_len();
        let fits = (PLANES_BYTES / bytes.max(1)).clamp(1, most);
        if self.reads_in_place(lanes, widest) {
            return (512 / self.pixels()).clamp(1, fits);
        }
        let waste = |group: &usize| {
            let used = group * self.pixels();
            let narrow = if used.is_multiple_of(lanes * widest) {
                0
            } else {
                lanes
            };
            (used.next_multiple_of(lanes) - used + narrow) * 100 / used
        };
        (1..=fits).min_by_key(waste).unwrap_or(1)
    }

    /// Packs the weights of a group into tiles of rows; the rows of a tile are interleaved along
    /// the sum over channels and taps.
    fn pack_weights(&self, group: usize, job: &Job, tallest: usize) -> Vec<f32> {
        let depth = volume(&[self.channels, job.taps.len()]);
        if depth == 0 {
            return Vec::new();
        }
        let tiles: Vec<(usize, usize)> = row_tiles(self.rows, tallest).collect();
        let padded = tiles.last().map_or(0, |(first, height)| first + height);
        let len = volume(&[padded, depth]);
        let [row_stride, channel_stride] = self.weight_strides;
        let weight = &self.weight[group * (self.weight.len() / self.groups)..];
        let places: Vec<usize> = (0..self.channels)
            .flat_map(|c| job.kernel.iter().map(move |tap| c * channel_stride + tap))
            .collect();
        let write = |packed: &mut [f32]| {
            let packed = Shared::new(packed);
            for_each(tiles.len(), 4 * len, |index| {
                let (first, height) = tiles[index];
                // SAFETY: tiles are disjoint.
                let packed = unsafe { packed.range(first * depth, height * depth) };
                for (to, place) in packed.chunks_exact_mut(height).zip(&places) {
                    for (row, to) in (first..).zip(to) {
                        *to = if row < self.rows {
                            weight[row * row_stride + place]
                        } else {
                            0.0
                        };
                    }
                }
            });
        };
        // SAFETY: the tiles cover all rows, and each writes `depth` columns of its height: one for
        // every one of the places.
        unsafe { filled(len, write) }
    }
}
