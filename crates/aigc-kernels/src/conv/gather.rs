//! Direct convolution: output pixels as sums over channels and taps.

use super::{
    panel::{Run, in_place as runs_in_place, pack, packed},
    planes::Planes,
};
use crate::{
    memory::{filled, volume},
    simd::arch,
    threads::{Scratch, Shared, for_each},
    tile::{Listed, Operands, Strided, row_tiles, tallest, tile, widest},
};
use pulp::{Simd, WithSimd};

/// The output pixels of one phase (position modulo the output stride), which use the same taps.
pub(super) struct Job {
    /// Index of every tap in [`Gather::taps`].
    pub taps: Vec<usize>,
    /// Kernel element of every tap.
    pub kernel: Vec<usize>,
}

/// `y[n, m, job pixel] = bias[m] + Σ_{c, tap} w[m, c, tap] · planes[n, c, pixel + tap]`.
pub(super) struct Gather<'a> {
    pub x: &'a [f32],
    pub batch: usize,
    pub channels: usize,
    pub planes: Planes,
    pub weight: &'a [f32],
    /// Strides of `weight` along rows and channels; the kernel is contiguous.
    pub weight_strides: [usize; 2],
    /// Output channels.
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

/// Terms of a sum that are processed together, so that their pixels stay in the first-level cache.
const DEPTH: usize = 192;

/// Bytes of planes that one part processes: about half of a second-level cache.
const PLANES_BYTES: usize = 512 * 1024;

/// Runs the computation with the selected instruction set.
pub(super) fn gather(work: Gather) -> Vec<f32> {
    arch().dispatch(work)
}

impl WithSimd for Gather<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        let weights: Vec<Vec<f32>> = self
            .jobs
            .iter()
            .map(|job| self.pack_weights(job, tallest::<S>()))
            .collect();
        let y_len = volume(&[self.rows, self.output[0], self.output[1]]);
        let group = self.group(S::F32_LANES, widest::<S>());
        let write = |y: &mut [f32]| {
            let y = Shared::new(y);
            let parts = self.batch.div_ceil(group);
            for_each(parts, self.work, |part| {
                simd.vectorize(Split {
                    gather: &self,
                    simd,
                    weights: &weights,
                    y: &y,
                    first: part * group,
                    group,
                });
            });
        };
        // SAFETY: the parts cover all images. The pixels of all jobs cover the output of an image,
        // and `write_out` writes each with its sum, which the product has written.
        unsafe { filled(volume(&[self.batch, y_len]), write) }
    }
}

impl Gather<'_> {
    /// Length of an image's pixels in its plane, including the padding between rows.
    fn span(&self) -> usize {
        (self.grid[0] - 1) * self.planes.size[1] + self.grid[1]
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
        let in_place = self.span().div_ceil(lanes) * sums / 2 + cut_rows * out_rows * (6 + narrow);
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
        let most = (self.batch / (2 * rayon::current_num_threads())).max(1);
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

    /// Packs `weight` into tiles of rows; the rows of a tile are interleaved along the sum over
    /// channels and taps.
    fn pack_weights(&self, job: &Job, tallest: usize) -> Vec<f32> {
        let depth = volume(&[self.channels, job.taps.len()]);
        if depth == 0 {
            return Vec::new();
        }
        let tiles: Vec<(usize, usize)> = row_tiles(self.rows, tallest).collect();
        let padded = tiles.last().map_or(0, |(first, height)| first + height);
        let len = volume(&[padded, depth]);
        let [row_stride, channel_stride] = self.weight_strides;
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
                            self.weight[row * row_stride + place]
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

/// The part of a [`Gather`] for some images.
struct Split<'a, S> {
    gather: &'a Gather<'a>,
    simd: S,
    weights: &'a [Vec<f32>],
    y: &'a Shared<'a, f32>,
    first: usize,
    group: usize,
}

impl<S: Simd> pulp::NullaryFnOnce for Split<'_, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            gather,
            simd,
            weights,
            y,
            first,
            group,
        } = self;
        let Gather {
            channels,
            ref planes,
            rows,
            output,
            ref jobs,
            ref taps,
            ..
        } = *gather;
        let images = group.min(gather.batch - first);
        let (channel_len, lanes) = (planes.channel_len(), S::F32_LANES);
        let (map_len, width) = (volume(&[channels, channel_len]), widest::<S>() * lanes);
        // Channels that are processed together.
        let chunk = (DEPTH / taps.len().max(1)).clamp(1, channels);
        let padded_rows = row_tiles(rows, tallest::<S>())
            .last()
            .map_or(0, |(first, height)| first + height);
        let y_len = rows * output[0] * output[1];
        // SAFETY: parts have disjoint images.
        let y = unsafe { y.range(first * y_len, images * y_len) };
        let mut scratch = Scratch::new([
            volume(&[images, map_len]) + width,
            volume(&[chunk, taps.len(), width]) + lanes,
            volume(&[jobs.len(), padded_rows, width]),
        ]);
        let [maps, panel, sums] = scratch.split();
        let (source_len, plan) = (planes.source[0] * planes.source[1], planes.plan());
        for (map, to) in maps
            .chunks_exact_mut(channel_len)
            .take(images * channels)
            .enumerate()
        {
            let from = (first * channels + map) * source_len;
            plan.fill(&gather.x[from..from + source_len], to);
        }
        let in_planes: Vec<usize> = (0..chunk)
            .flat_map(|c| taps.iter().map(move |tap| c * channel_len + tap))
            .collect();
        let in_place = gather.reads_in_place(lanes, widest::<S>());
        // Offsets of the terms of the sum for every job: in the planes, or in the panel.
        let tables: Vec<Vec<usize>> = jobs
            .iter()
            .map(|job| {
                let of = |channel: usize, tap: &usize| match in_place {
                    true => in_planes[channel * taps.len() + tap],
                    false => (channel * taps.len() + tap) * width,
                };
                (0..chunk)
                    .flat_map(|c| job.taps.iter().map(move |tap| of(c, tap)))
                    .collect()
            })
            .collect();
        if jobs.iter().any(|job| job.taps.is_empty()) {
            sums.fill(0.0);
        }
        let mut product = Product {
            gather,
            weights,
            tables: &tables,
            padded_rows,
            sums,
        };
        let mut runs = Vec::new();
        if in_place {
            let span = gather.span();
            let furthest = in_planes
                .iter()
                .max()
                .map_or(0, |offset| offset + span.next_multiple_of(lanes));
            for image in 0..images {
                for first in (0..span).step_by(width) {
                    let places = first..span.min(first + width);
                    for channel in (0..channels).step_by(chunk) {
                        let from = image * map_len + channel * channel_len;
                        let count = chunk.min(channels - channel);
                        // Without taps there is no offset, and nothing is read.
                        let last = furthest.saturating_sub((chunk - count) * channel_len);
                        assert!(from + last <= maps.len(), "a tap reaches beyond the planes");
                        // SAFETY: the vectors over the span lie in `maps` at all offsets of `count`
                        // channels, by the assertion.
                        unsafe {
                            let start = maps.as_ptr().add(from + first);
                            product.add(simd, channel, count, start, places.len().div_ceil(lanes));
                        }
                    }
                    runs_in_place(places, gather.grid, planes.size[1], image, &mut runs);
                    write_out(simd, &product, &runs, y);
                }
            }
        } else {
            let total = images * gather.pixels();
            for first in (0..total).step_by(width) {
                let pixels = first..total.min(first + width);
                packed(
                    pixels.clone(),
                    gather.grid,
                    planes.size[1],
                    map_len,
                    &mut runs,
                );
                for channel in (0..channels).step_by(chunk) {
                    let count = chunk.min(channels - channel);
                    let offsets = &in_planes[..count * taps.len()];
                    pack(
                        simd,
                        &maps[channel * channel_len..],
                        offsets,
                        &runs,
                        panel,
                        width,
                    );
                    // SAFETY: the panel has a row of `width`, at least `vectors` vectors, for every
                    // tap of `count` channels, as `pack` asserts.
                    unsafe {
                        product.add(
                            simd,
                            channel,
                            count,
                            panel.as_ptr(),
                            pixels.len().div_ceil(lanes),
                        )
                    };
                }
                write_out(simd, &product, &runs, y);
            }
        }
    }
}

/// The product of the weights of all jobs and one panel of pixels.
struct Product<'a> {
    gather: &'a Gather<'a>,
    weights: &'a [Vec<f32>],
    /// For every job, the offsets of the taps of a chunk of channels.
    tables: &'a [Vec<usize>],
    padded_rows: usize,
    /// `[jobs, padded_rows, width]`.
    sums: &'a mut [f32],
}

impl Product<'_> {
    /// Adds the terms of `count` channels from `channel` on. The offsets of the tables are relative
    /// to `start`.
    ///
    /// # Safety
    /// `vectors` vectors, at most [`widest`], may be read at every offset of the tables for `count`
    /// channels.
    #[inline(always)]
    unsafe fn add<S: Simd>(
        &mut self,
        simd: S,
        channel: usize,
        count: usize,
        start: *const f32,
        vectors: usize,
    ) {
        let width = widest::<S>() * S::F32_LANES;
        for (index, (job, weights)) in self.gather.jobs.iter().zip(self.weights).enumerate() {
            let (taps, depth) = (job.taps.len(), job.taps.len() * self.gather.channels);
            if taps == 0 {
                continue;
            }
            let offsets = &self.tables[index][..count * taps];
            for (row, height) in row_tiles(self.gather.rows, tallest::<S>()) {
                let weights =
                    &weights[row * depth + channel * taps * height..][..count * taps * height];
                let sums =
                    &mut self.sums[(index * self.padded_rows + row) * width..][..height * width];
                let operands = Operands {
                    k: count * taps,
                    a: Strided {
                        start: weights.as_ptr(),
                        row: 1,
                        k: height,
                    },
                    b: Listed { start, offsets },
                    c: sums.as_mut_ptr(),
                    c_row: width,
                    add: channel > 0,
                };
                // SAFETY: A is `count · taps` columns of `height` and C is `height` rows of
                // `width`: the slices above; B by the caller's contract.
                unsafe { tile(simd, height, vectors, operands) };
            }
        }
    }
}

/// Writes the pixels of `runs` from the sums to the output, plus the bias.
#[inline(always)]
fn write_out<S: Simd>(simd: S, product: &Product, runs: &[Run], y: &mut [f32]) {
    let Product {
        gather,
        ref sums,
        padded_rows,
        ..
    } = *product;
    let Gather {
        rows,
        output: [height, width],
        output_stride,
        grid,
        ..
    } = *gather;
    let panel = widest::<S>() * S::F32_LANES;
    let mut next = 0;
    while let Some(&(mut run)) = runs.get(next) {
        next += 1;
        if output_stride == [1, 1] {
            // Runs that are adjacent in the panel and in the image are merged.
            while let Some(more) = runs.get(next)
                && [more.image, more.pixel, more.to]
                    == [run.image, run.pixel + run.len, run.to + run.len]
            {
                run.len += more.len;
                next += 1;
            }
            for row in 0..rows {
                let from = &sums[row * panel + run.to..][..run.len];
                let to = &mut y[(run.image * rows + row) * height * width + run.pixel..][..run.len];
                add_bias(simd, from, gather.bias.map_or(0.0, |bias| bias[row]), to);
            }
            continue;
        }
        let (grid_row, grid_column) = (run.pixel / grid[1], run.pixel % grid[1]);
        let columns = output_stride[1].min(width);
        for (index, phase) in (0..gather.jobs.len()).step_by(columns).zip(0..) {
            let y_row = grid_row * output_stride[0] + phase;
            if y_row >= height {
                continue;
            }
            for row in 0..rows {
                let bias = gather.bias.map_or(0.0, |bias| bias[row]);
                let to = &mut y[((run.image * rows + row) * height + y_row) * width..][..width];
                let to = &mut to[grid_column * output_stride[1]..];
                let source = |column: usize| {
                    &sums[((index + column) * padded_rows + row) * panel + run.to..][..run.len]
                };
                if columns == 2 {
                    let (even, odd) = (source(0), source(1));
                    let (pairs, last) = to.as_chunks_mut::<2>();
                    for ((pair, even), odd) in pairs.iter_mut().zip(even).zip(odd) {
                        *pair = [even + bias, odd + bias];
                    }
                    if pairs.len() < run.len {
                        last[0] = even[pairs.len()] + bias;
                    }
                } else {
                    for column in 0..columns.min(to.len()) {
                        for (to, from) in to[column..]
                            .iter_mut()
                            .step_by(output_stride[1])
                            .zip(source(column))
                        {
                            *to = from + bias;
                        }
                    }
                }
            }
        }
    }
}

/// `to = from + bias`, for slices of the same length.
#[inline(always)]
fn add_bias<S: Simd>(simd: S, from: &[f32], bias: f32, to: &mut [f32]) {
    let (lanes, wide) = (S::F32_LANES, simd.splat_f32s(bias));
    let (to_body, to_rest) = S::as_mut_simd_f32s(to);
    let (from_body, from_rest) = S::as_simd_f32s(from);
    for (to, from) in to_body.iter_mut().zip(from_body) {
        *to = simd.add_f32s(*from, wide);
    }
    if !to_body.is_empty() && !to_rest.is_empty() {
        // The tail is covered by a vector that overlaps the previous one.
        let at = from.len() - lanes;
        let (from, _) = S::as_simd_f32s(&from[at..]);
        let (to, _) = S::as_mut_simd_f32s(&mut to[at..]);
        to[0] = simd.add_f32s(from[0], wide);
    } else {
        for (to, from) in to_rest.iter_mut().zip(from_rest) {
            *to = from + bias;
        }
    }
}
