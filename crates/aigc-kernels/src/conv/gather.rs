//! Output pixels as sums over channels and taps.

use super::{
    panel::{Run, in_place as runs_in_place, pack, packed},
    planes::Planes,
};
use crate::{
    memory::filled,
    simd::arch,
    threads::{Scratch, Shared, for_each},
    tile::{Listed, Operands, Strided, WIDEST, row_tiles, tallest, tile},
};
use pulp::{Simd, WithSimd};

/// Output pixels of one phase of the output's step, which look at the same taps.
pub(super) struct Job {
    /// Which of [`Gather::taps`] each tap is.
    pub taps: Vec<usize>,
    /// Which `kernel` element each tap multiplies.
    pub kernel: Vec<usize>,
}

/// `y[n, m, job pixel] = bias[m] + Σ_{c, tap} w[m, c, tap] · planes[n, c, pixel + tap]`.
pub(super) struct Gather<'a> {
    pub x: &'a [f32],
    pub batch: usize,
    pub channels: usize,
    pub planes: Planes,
    pub weight: &'a [f32],
    /// Steps in `weight` from row to row and from channel to channel; along the kernel it is one.
    pub weight_steps: [usize; 2],
    pub rows: usize,
    pub bias: Option<&'a [f32]>,
    /// Offset of each tap in a channel's planes.
    pub taps: Vec<usize>,
    /// One per phase of `output_step`, row by row: the pixels at that phase.
    pub jobs: Vec<Job>,
    /// Height and width of a job's pixels; some phases may have a row or a column less.
    pub grid: [usize; 2],
    /// Height and width of the output, and the step between neighbouring pixels of a job.
    pub output: [usize; 2],
    pub output_step: [usize; 2],
    /// Floating-point operations in all, roughly.
    pub work: usize,
}

/// Length of a sum that is worked on at once, so that its pixels stay in the first-level cache.
const DEPTH: usize = 192;

/// Bytes of planes that one part works on: about half of a second-level cache.
const PLANES_BYTES: usize = 512 * 1024;

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
        let y_len = self.rows * self.output[0] * self.output[1];
        let group = self.group(S::F32_LANES);
        filled(self.batch * y_len, |y| {
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
        })
    }
}

impl Gather<'_> {
    /// Places of an image's pixels in its plane, with the padding between rows.
    fn span(&self) -> usize {
        (self.grid[0] - 1) * self.planes.size[1] + self.grid[1]
    }

    fn pixels(&self) -> usize {
        self.grid[0] * self.grid[1]
    }

    /// Whether computing the padding between rows costs less than copying the rows together.
    fn reads_in_place(&self, lanes: usize) -> bool {
        let [in_place, packed] = self.costs(lanes);
        in_place <= packed
    }

    /// Roughly how many cycles an image of a large batch takes.
    pub(super) fn cycles(&self, lanes: usize) -> usize {
        self.costs(lanes).into_iter().min().unwrap_or(0)
    }

    /// The cycles of reading pixels in place, and of copying them together.
    fn costs(&self, lanes: usize) -> [usize; 2] {
        let [height, width] = self.grid;
        let sums: usize = self
            .jobs
            .iter()
            .map(|job| job.taps.len() * self.channels * self.rows)
            .sum();
        let out_rows = self.jobs.len() * self.rows;
        // A multiplication by a vector takes half a cycle, a vector's copy two or three. Rows are
        // cut by panels, here and there. Results narrower than a vector leave one by one.
        let cut_rows = height + self.pixels() / (lanes * WIDEST);
        let narrow = if width < lanes { width } else { 0 };
        let in_place = self.span().div_ceil(lanes) * sums / 2 + cut_rows * out_rows * (6 + narrow);
        let copies = self.taps.len() * self.channels * cut_rows * width.div_ceil(lanes);
        let packed = self.pixels() * sums / (2 * lanes)
            + copies * 5 / 2
            + self.pixels() * out_rows * 2 / lanes;
        // Planes are written row by row.
        let planes = self.channels
            * self.planes.phases.len()
            * self.planes.size[0]
            * (4 + self.planes.size[1] / 4);
        [in_place + planes, packed + planes]
    }

    /// How many images one part takes: few, but so many that the last, narrower panel of pixels
    /// costs little.
    fn group(&self, lanes: usize) -> usize {
        let most = (self.batch / (2 * rayon::current_num_threads())).max(1);
        let bytes = 4 * self.channels * self.planes.channel_len();
        let fits = (PLANES_BYTES / bytes.max(1)).clamp(1, most);
        if self.reads_in_place(lanes) {
            return (512 / self.pixels()).clamp(1, fits);
        }
        let waste = |group: &usize| {
            let used = group * self.pixels();
            let narrow = if used.is_multiple_of(lanes * WIDEST) {
                0
            } else {
                lanes
            };
            (used.next_multiple_of(lanes) - used + narrow) * 100 / used
        };
        (1..=fits).min_by_key(waste).unwrap_or(1)
    }

    /// `weight` as tiles of rows, each with its rows interleaved along the sum over channels and
    /// taps.
    fn pack_weights(&self, job: &Job, tallest: usize) -> Vec<f32> {
        let depth = self.channels * job.taps.len();
        if depth == 0 {
            return Vec::new();
        }
        let tiles: Vec<(usize, usize)> = row_tiles(self.rows, tallest).collect();
        let len = tiles.last().map_or(0, |(first, height)| first + height) * depth;
        let [row_step, channel_step] = self.weight_steps;
        let places: Vec<usize> = (0..self.channels)
            .flat_map(|c| job.kernel.iter().map(move |tap| c * channel_step + tap))
            .collect();
        filled(len, |packed| {
            let packed = Shared::new(packed);
            for_each(tiles.len(), 4 * len, |index| {
                let (first, height) = tiles[index];
                // SAFETY: tiles do not overlap.
                let packed = unsafe { packed.range(first * depth, height * depth) };
                for (to, place) in packed.chunks_exact_mut(height).zip(&places) {
                    for (row, to) in (first..).zip(to) {
                        *to = if row < self.rows {
                            self.weight[row * row_step + place]
                        } else {
                            0.0
                        };
                    }
                }
            });
        })
    }
}

/// Some images of a [`Gather`].
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
        let (map_len, width) = (channels * channel_len, WIDEST * lanes);
        // Channels that are worked on at once.
        let chunk = (DEPTH / taps.len().max(1)).clamp(1, channels);
        let padded_rows = row_tiles(rows, tallest::<S>())
            .last()
            .map_or(0, |(first, height)| first + height);
        let y_len = rows * output[0] * output[1];
        // SAFETY: every part has its own images.
        let y = unsafe { y.range(first * y_len, images * y_len) };
        let mut scratch = Scratch::new([
            images * map_len + width,
            chunk * taps.len() * width + lanes,
            jobs.len() * padded_rows * width,
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
        let in_place = gather.reads_in_place(lanes);
        // Where the sum's terms lie, for every job: in the planes, or in the panel.
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
                        let last = furthest - (chunk - count) * channel_len;
                        assert!(from + last <= maps.len(), "planes end too early");
                        // SAFETY: offsets of `count` channels, and vectors over the span, end
                        // within `maps`, by the assertion.
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
                    // SAFETY: `pack` has held `count` channels' rows of `width` against the panel.
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

/// All jobs' weights times one panel of pixels.
struct Product<'a> {
    gather: &'a Gather<'a>,
    weights: &'a [Vec<f32>],
    /// Of every job: where the taps of a chunk of channels lie.
    tables: &'a [Vec<usize>],
    padded_rows: usize,
    /// `[jobs, padded_rows, width]`.
    sums: &'a mut [f32],
}

impl Product<'_> {
    /// Adds the terms of `count` channels from `channel` on, whose pixels the tables find from
    /// `start` on.
    ///
    /// # Safety
    /// `vectors` vectors at every offset of the tables, as far as `count` channels go, may be read.
    #[inline(always)]
    unsafe fn add<S: Simd>(
        &mut self,
        simd: S,
        channel: usize,
        count: usize,
        start: *const f32,
        vectors: usize,
    ) {
        let width = WIDEST * S::F32_LANES;
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
                // SAFETY: A and C are the slices above, B is the caller's promise.
                unsafe { tile(simd, height, vectors, operands) };
            }
        }
    }
}

/// Copies the pixels of `runs` from the sums to where they belong, plus the bias.
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
        output_step,
        grid,
        ..
    } = *gather;
    let panel = WIDEST * S::F32_LANES;
    let mut next = 0;
    while let Some(&(mut run)) = runs.get(next) {
        next += 1;
        if output_step == [1, 1] {
            // Runs that go on where the last one ended, in the panel and in the image, are one.
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
        let columns = output_step[1].min(width);
        for (index, phase) in (0..gather.jobs.len()).step_by(columns).zip(0..) {
            let y_row = grid_row * output_step[0] + phase;
            if y_row >= height {
                continue;
            }
            for row in 0..rows {
                let bias = gather.bias.map_or(0.0, |bias| bias[row]);
                let to = &mut y[((run.image * rows + row) * height + y_row) * width..][..width];
                let to = &mut to[grid_column * output_step[1]..];
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
                            .step_by(output_step[1])
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

/// `to = from + bias`, both of one length.
#[inline(always)]
fn add_bias<S: Simd>(simd: S, from: &[f32], bias: f32, to: &mut [f32]) {
    let (lanes, wide) = (S::F32_LANES, simd.splat_f32s(bias));
    let (to_body, to_rest) = S::as_mut_simd_f32s(to);
    let (from_body, from_rest) = S::as_simd_f32s(from);
    for (to, from) in to_body.iter_mut().zip(from_body) {
        *to = simd.add_f32s(*from, wide);
    }
    if !to_body.is_empty() && !to_rest.is_empty() {
        // The last vector once more, as far to the right as it goes.
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
