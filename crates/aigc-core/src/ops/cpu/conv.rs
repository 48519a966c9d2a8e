//! Convolutions as matrix products whose right side is never stored whole.
//!
//! Forward, input gradient and transposed convolution are one computation, [`gather`]: every output pixel is a sum over
//! channels and taps of a constant offset into padded planes. Panels of a few dozen pixels are copied side by side
//! (im2col, a panel at a time, in cache) and multiplied by packed weights. The weight gradient, [`correlate`], multiplies
//! the same panels by the transposed output gradient. Blocking after Goto and van de Geijn 2008, "Anatomy of
//! high-performance matrix multiplication"; panels of indirect pixels after Dukhan 2019, <https://arxiv.org/abs/1907.02129>.

use super::{
    memory::filled,
    planes::{Planes, Run, runs},
    threads::{Scratch, Shared, for_each},
    tile::{Operands, WIDEST, row_tiles, tallest, tile},
};
use pulp::{Arch, Simd, WithSimd};

/// Sizes of a convolution without groups, from the side of the larger map (`x` of a convolution, the output of a
/// transposed one).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ConvSizes {
    pub batch: usize,
    /// Channels of the larger map.
    pub channels_in: usize,
    /// Channels of the smaller map.
    pub channels_out: usize,
    /// Height and width of the larger map.
    pub input: [usize; 2],
    /// Height and width of the smaller map.
    pub output: [usize; 2],
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub padding: [usize; 2],
    pub dilation: [usize; 2],
}

impl ConvSizes {
    fn taps(&self) -> impl Iterator<Item = [usize; 2]> {
        let [_, width] = self.kernel;
        (0..self.kernel[0] * width).map(move |tap| [tap / width, tap % width])
    }

    fn work(&self) -> usize {
        let per_pixel = 2 * self.channels_in * self.channels_out * self.kernel[0] * self.kernel[1];
        self.batch * self.output[0] * self.output[1] * per_pixel
    }

    /// Planes of the larger map, for taps that walk it with the stride.
    fn input_planes(&self) -> Planes {
        let mut phases: Vec<[usize; 2]> = self
            .taps()
            .map(|[r, c]| [r * self.dilation[0] % self.stride[0], c * self.dilation[1] % self.stride[1]])
            .collect();
        phases.sort_unstable();
        phases.dedup();
        let size = [0, 1].map(|i| self.output[i] + (self.kernel[i] - 1) * self.dilation[i] / self.stride[i]);
        Planes { source: self.input, step: self.stride, pad: self.padding.map(usize::cast_signed), phases, size }
    }
}

/// Some output pixels that look at the same taps.
struct Job {
    /// Offset of each tap in a channel's planes.
    taps: Vec<usize>,
    /// Which `kernel` element each tap is.
    kernel: Vec<usize>,
    /// Height and width of its pixels.
    grid: [usize; 2],
}

/// `y[n, m, job pixel] = bias[m] + Σ_{c, tap} w[m, c, tap] · planes[n, c, pixel + tap]`.
struct Gather<'a> {
    x: &'a [f32],
    batch: usize,
    channels: usize,
    planes: Planes,
    weight: &'a [f32],
    /// Steps in `weight` from row to row and from channel to channel; along the kernel it is one.
    weight_steps: [usize; 2],
    rows: usize,
    bias: Option<&'a [f32]>,
    jobs: Vec<Job>,
    /// Height and width of the output, and the step between neighbouring pixels of a job.
    output: [usize; 2],
    output_step: [usize; 2],
    work: usize,
}

/// `y = conv(x, weight) + bias`, with `weight` `[channels_out, channels_in, kernel…]`.
pub(crate) fn conv2d(x: &[f32], weight: &[f32], bias: Option<&[f32]>, sizes: ConvSizes) -> Vec<f32> {
    let planes = sizes.input_planes();
    let taps = sizes.taps().map(|[r, c]| planes.tap(r * sizes.dilation[0], c * sizes.dilation[1])).collect();
    let kernel_len = sizes.kernel[0] * sizes.kernel[1];
    gather(Gather {
        x,
        batch: sizes.batch,
        channels: sizes.channels_in,
        planes,
        weight,
        weight_steps: [sizes.channels_in * kernel_len, kernel_len],
        rows: sizes.channels_out,
        bias,
        jobs: vec![Job { taps, kernel: (0..kernel_len).collect(), grid: sizes.output }],
        output: sizes.output,
        output_step: [1, 1],
        work: sizes.work(),
    })
}

/// The transpose of [`conv2d`] as a linear map, applied to `dy`, plus `bias`: the input gradient of a convolution, and
/// the transposed convolution.
pub(crate) fn conv2d_transposed(dy: &[f32], weight: &[f32], bias: Option<&[f32]>, sizes: ConvSizes) -> Vec<f32> {
    let ConvSizes { kernel, stride, padding, dilation, .. } = sizes;
    // Input pixel i of phase r (i = r + stride·t) gets from output pixel o through tap k where o·stride − padding +
    // k·dilation = i, so for taps with (r + padding − k·dilation) divisible, o = t + that quotient.
    let axis_taps = |axis: usize, phase: usize| -> Vec<(usize, isize)> {
        let reach = |k: usize| (phase + padding[axis]) as isize - (k * dilation[axis]) as isize;
        let divisible = |k: &usize| reach(*k).rem_euclid(stride[axis] as isize) == 0;
        (0..kernel[axis]).filter(divisible).map(|k| (k, reach(k).div_euclid(stride[axis] as isize))).collect()
    };
    let phases = |axis: usize| 0..stride[axis].min(sizes.input[axis]);
    let grid_len = |axis: usize, phase: usize| (sizes.input[axis] - phase).div_ceil(stride[axis]);
    let extent = |axis: usize| {
        let reached = phases(axis).flat_map(|phase| {
            axis_taps(axis, phase).into_iter().map(move |(_, o)| (o, o + grid_len(axis, phase) as isize))
        });
        reached.fold((0, 1), |(low, high), (first, end)| (low.min(first), high.max(end)))
    };
    let (rows, columns) = (extent(0), extent(1));
    let planes = Planes {
        source: sizes.output,
        step: [1, 1],
        pad: [-rows.0, -columns.0],
        phases: vec![[0, 0]],
        size: [(rows.1 - rows.0).cast_unsigned(), (columns.1 - columns.0).cast_unsigned()],
    };
    let mut jobs = Vec::new();
    for row in phases(0) {
        for column in phases(1) {
            let (mut taps, mut indices) = (Vec::new(), Vec::new());
            for (kr, or) in axis_taps(0, row) {
                for (kc, oc) in axis_taps(1, column) {
                    taps.push(planes.tap((or - rows.0).cast_unsigned(), (oc - columns.0).cast_unsigned()));
                    indices.push(kr * kernel[1] + kc);
                }
            }
            let grid = [grid_len(0, row), grid_len(1, column)];
            jobs.push(Job { taps, kernel: indices, grid });
        }
    }
    let kernel_len = kernel[0] * kernel[1];
    gather(Gather {
        x: dy,
        batch: sizes.batch,
        channels: sizes.channels_out,
        planes,
        weight,
        weight_steps: [kernel_len, sizes.channels_in * kernel_len],
        rows: sizes.channels_in,
        bias,
        jobs,
        output: sizes.input,
        output_step: stride,
        work: sizes.work(),
    })
}

/// Length of a sum that is worked on at once, so that its panel stays in the first-level cache.
const DEPTH: usize = 192;

/// Bytes of planes that one part works on: about half of a second-level cache.
const PLANES_BYTES: usize = 512 * 1024;

fn gather(work: Gather) -> Vec<f32> {
    Arch::new().dispatch(work)
}

impl WithSimd for Gather<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        let weights: Vec<Vec<f32>> = self.jobs.iter().map(|job| self.pack_weights(job, tallest::<S>())).collect();
        let y_len = self.rows * self.output[0] * self.output[1];
        let group = self.group(S::F32_LANES);
        filled(self.batch * y_len, |y| {
            let y = Shared::new(y);
            let parts = self.batch.div_ceil(group);
            for_each(parts, self.work, |part| {
                simd.vectorize(Part { gather: &self, simd, weights: &weights, y: &y, first: part * group, group });
            });
        })
    }
}

impl Gather<'_> {
    /// How many images one part takes: few, but so many that the last, narrower panel of pixels costs little.
    fn group(&self, lanes: usize) -> usize {
        let most = (self.batch / (2 * rayon::current_num_threads())).max(1);
        let bytes = 4 * self.channels * self.planes.channel_len();
        let fits = (PLANES_BYTES / bytes.max(1)).clamp(1, most);
        let pixels = self.jobs.first().map_or(1, |job| job.grid[0] * job.grid[1]).max(1);
        // Waste in thousandths, so that what hardly differs counts as equal and the smallest group wins.
        let waste = |group: &usize| {
            let used = group * pixels;
            (used.next_multiple_of(lanes) - used) * 100 / used
                + (!used.is_multiple_of(lanes * WIDEST)) as usize * 100 * lanes / used
        };
        (1..=fits).min_by_key(waste).unwrap_or(1)
    }

    /// `weight` as tiles of rows, each with its rows interleaved along the sum over channels and taps.
    fn pack_weights(&self, job: &Job, tallest: usize) -> Vec<f32> {
        let depth = self.channels * job.taps.len();
        if depth == 0 {
            return Vec::new();
        }
        let tiles: Vec<(usize, usize)> = row_tiles(self.rows, tallest).collect();
        let len = tiles.last().map_or(0, |(first, height)| first + height) * depth;
        let [row_step, channel_step] = self.weight_steps;
        filled(len, |packed| {
            let packed = Shared::new(packed);
            for_each(tiles.len(), 4 * len, |index| {
                let (first, height) = tiles[index];
                // SAFETY: tiles do not overlap.
                let packed = unsafe { packed.range(first * depth, height * depth) };
                for row in 0..height {
                    let to = packed[row..].iter_mut().step_by(height);
                    if first + row >= self.rows {
                        to.for_each(|to| *to = 0.0);
                        continue;
                    }
                    let from = (0..self.channels).flat_map(|channel| {
                        let at = (first + row) * row_step + channel * channel_step;
                        job.kernel.iter().map(move |tap| self.weight[at + tap])
                    });
                    to.zip(from).for_each(|(to, from)| *to = from);
                }
            });
        })
    }
}

/// Some images of a [`Gather`].
struct Part<'a, S> {
    gather: &'a Gather<'a>,
    simd: S,
    weights: &'a [Vec<f32>],
    y: &'a Shared<'a, f32>,
    first: usize,
    group: usize,
}

impl<S: Simd> pulp::NullaryFnOnce for Part<'_, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { gather, simd, weights, y, first, group } = self;
        let Gather { channels, ref planes, rows, output, output_step, ref jobs, .. } = *gather;
        let images = group.min(gather.batch - first);
        let (channel_len, lanes) = (planes.channel_len(), S::F32_LANES);
        let map_len = channels * channel_len;
        let width = WIDEST * lanes;
        let depth = jobs.iter().map(|job| job.taps.len()).max().unwrap_or(0) * channels;
        let padded_rows = row_tiles(rows, tallest::<S>()).last().map_or(0, |(first, height)| first + height);
        let output_len = output[0] * output[1];
        let y_len = rows * output_len;
        let stepped = output_step != [1, 1];
        // SAFETY: every part has its own images.
        let y = unsafe { y.range(first * y_len, images * y_len) };
        let job_lens: Vec<usize> = jobs.iter().map(|job| job.grid[0] * job.grid[1]).collect();
        let lens = [
            images * map_len + width,
            depth.min(DEPTH) * width + width,
            padded_rows * width,
            if stepped { images * rows * job_lens.iter().sum::<usize>() } else { 0 },
        ];
        let mut scratch = Scratch::new(lens);
        let [maps, panel, sums, phases] = scratch.split();
        {
            let source_len = planes.source[0] * planes.source[1];
            for (map, to) in maps.chunks_exact_mut(channel_len).take(images * channels).enumerate() {
                let from = (first * channels + map) * source_len;
                planes.fill(&gather.x[from..from + source_len], to);
            }
            let mut pixels_of_panel = Vec::new();
            let mut offsets = Vec::with_capacity(depth);
            let mut phase_at = 0;
            for ((job, weights), job_len) in jobs.iter().zip(weights).zip(&job_lens) {
                offsets.clear();
                offsets.extend((0..channels).flat_map(|c| job.taps.iter().map(move |tap| c * channel_len + tap)));
                let depth = offsets.len();
                // One job's output: the images themselves, or planes to be woven together later.
                let (out, row_len) = if stepped {
                    let len = images * rows * job_len;
                    phase_at += len;
                    (&mut phases[phase_at - len..phase_at], *job_len)
                } else {
                    (&mut *y, output_len)
                };
                let total = images * job_len;
                for panel_at in (0..total).step_by(width) {
                    let pixels = panel_at..total.min(panel_at + width);
                    let vectors = pixels.len().div_ceil(lanes);
                    runs(pixels.clone(), job.grid, planes.size[1], map_len, &mut pixels_of_panel);
                    if depth == 0 {
                        sums.fill(0.0);
                    }
                    for k in (0..depth).step_by(DEPTH) {
                        let chunk = &offsets[k..depth.min(k + DEPTH)];
                        pack(simd, maps, chunk, &pixels_of_panel, panel, width);
                        for (row, height) in row_tiles(rows, tallest::<S>()) {
                            let operands = Operands {
                                k: chunk.len(),
                                a: weights[row * depth + k * height..][..chunk.len() * height].as_ptr(),
                                a_row: 1,
                                a_k: height,
                                b: panel.as_ptr(),
                                b_k: width,
                                c: sums[row * width..][..height * width].as_mut_ptr(),
                                c_row: width,
                                add: k > 0,
                            };
                            // SAFETY: A is `height` interleaved rows, B `chunk` rows of `width`, C `height` rows of
                            // `width`, and no slice is shorter.
                            unsafe { tile(simd, height, vectors, operands) };
                        }
                    }
                    // Runs that end where the image does are the only ones that matter here.
                    let mut at = pixels.start;
                    while at < pixels.end {
                        let (image, pixel) = (at / job_len, at % job_len);
                        let len = (job_len - pixel).min(pixels.end - at);
                        for row in 0..rows {
                            let from = &sums[row * width + at - pixels.start..][..len];
                            let to = &mut out[(image * rows + row) * row_len + pixel..][..len];
                            let bias = gather.bias.map_or(0.0, |bias| bias[row]);
                            for (to, from) in to.iter_mut().zip(from) {
                                *to = from + bias;
                            }
                        }
                        at += len;
                    }
                }
            }
            if stepped {
                weave(gather, phases, &job_lens, images, y);
            }
        }
    }
}

/// Copies the pixels of `runs`, for every offset, side by side into rows of `width`.
#[inline(always)]
fn pack<S: Simd>(simd: S, maps: &[f32], offsets: &[usize], runs: &[Run], panel: &mut [f32], width: usize) {
    let lanes = S::F32_LANES;
    let furthest = runs.iter().map(|run| run.from + run.len.next_multiple_of(lanes)).max().unwrap_or(0);
    let end = runs.last().map_or(0, |run| run.to + run.len);
    assert!(offsets.iter().max().map_or(0, |o| o + furthest) <= maps.len(), "planes end too early");
    assert!(end <= width && offsets.len() * width <= panel.len(), "panel ends too early");
    for run in runs {
        for at in (0..run.len).step_by(lanes) {
            let (from, to) = (run.from + at, run.to + at);
            // SAFETY: both ends were held against the slices above. Whole vectors: what is written beyond a run is
            // overwritten by the next one, and the last stops at the end of its row.
            unsafe {
                let from = maps.as_ptr().add(from);
                let mut to = panel.as_mut_ptr().add(to);
                if run.to + at + lanes <= width {
                    for offset in offsets {
                        to.cast::<S::f32s>().write_unaligned(from.add(*offset).cast::<S::f32s>().read_unaligned());
                        to = to.add(width);
                    }
                } else {
                    let mask = simd.mask_between_m32s(0, (end - run.to - at) as u32);
                    for offset in offsets {
                        simd.mask_store_ptr_f32s(mask, to, from.add(*offset).cast::<S::f32s>().read_unaligned());
                        to = to.add(width);
                    }
                }
            }
        }
    }
}

/// Puts the pixels of all jobs where they belong in `y`.
#[inline(always)]
fn weave(gather: &Gather, phases: &[f32], job_lens: &[usize], images: usize, y: &mut [f32]) {
    let [height, width] = gather.output;
    let [step_rows, step_columns] = gather.output_step;
    let mut starts = Vec::with_capacity(job_lens.len());
    let mut at = 0;
    for len in job_lens {
        starts.push(at);
        at += images * gather.rows * len;
    }
    for (map, y) in y.chunks_exact_mut(height * width).enumerate() {
        for (row, y) in y.chunks_exact_mut(width).enumerate() {
            // The jobs of this row, in order of their columns.
            let columns = step_columns.min(width);
            let first = (row % step_rows) * columns;
            let source = |column: usize| {
                let job = &gather.jobs[first + column];
                &phases[starts[first + column] + map * job_lens[first + column] + row / step_rows * job.grid[1]..]
                    [..job.grid[1]]
            };
            if columns == 2 {
                let (even, odd) = (source(0), source(1));
                for ((pair, even), odd) in y.chunks_exact_mut(2).zip(even).zip(odd) {
                    pair[0] = *even;
                    pair[1] = *odd;
                }
                if even.len() > odd.len() {
                    y[width - 1] = even[even.len() - 1];
                }
            } else {
                for column in 0..columns {
                    for (to, from) in y[column..].iter_mut().step_by(step_columns).zip(source(column)) {
                        *to = *from;
                    }
                }
            }
        }
    }
}

/// The weight gradient of [`conv2d`], `[channels_out, channels_in, kernel…]`.
pub(crate) fn conv2d_weight_grad(x: &[f32], dy: &[f32], sizes: ConvSizes) -> Vec<f32> {
    Arch::new().dispatch(Correlate { x, dy, planes: sizes.input_planes(), sizes })
}

/// `dw[o, c, tap] = Σ_{n, pixel} dy[n, o, pixel] · planes[n, c, pixel + tap]`.
struct Correlate<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    planes: Planes,
    sizes: ConvSizes,
}

/// Pixels that are summed at once.
const PIXELS: usize = 128;

impl WithSimd for Correlate<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        let ConvSizes { batch, channels_in, channels_out, output, kernel, .. } = self.sizes;
        let pixels = output[0] * output[1];
        let lanes = S::F32_LANES;
        let columns = channels_out.next_multiple_of(lanes);
        let work = self.sizes.work();
        // Pixel-major output gradient: its rows are what the tiles read.
        let dy = filled(batch * pixels * columns, |to| {
            let to = Shared::new(to);
            for_each(batch, work, |image| {
                // SAFETY: every image has its own piece.
                let to = unsafe { to.range(image * pixels * columns, pixels * columns) };
                transpose(&self.dy[image * pixels * channels_out..][..pixels * channels_out], pixels, to, columns);
            });
        });
        let taps = kernel[0] * kernel[1];
        // Parts split the sums, not their terms: every number is added up by one thread, in one order.
        let threads = rayon::current_num_threads();
        let (channel_parts, tap_parts) =
            (channels_in.min(threads), threads.div_ceil(channels_in.min(threads)).min(taps));
        filled(channels_out * channels_in * taps, |dw| {
            let dw = Shared::new(dw);
            for_each(channel_parts * tap_parts, work, |part| {
                let share = |all: usize, part: usize, parts: usize| all * part / parts..all * (part + 1) / parts;
                simd.vectorize(CorrelatePart {
                    correlate: &self,
                    simd,
                    dy: &dy,
                    columns,
                    dw: &dw,
                    channels: share(channels_in, part / tap_parts, channel_parts),
                    taps: share(taps, part % tap_parts, tap_parts),
                });
            });
        })
    }
}

/// `from` `[rows, columns]` to `[columns, padded_rows]`, padded with zeros.
fn transpose(from: &[f32], columns: usize, to: &mut [f32], padded_rows: usize) {
    const BLOCK: usize = 16;
    let rows = from.len() / columns;
    for first in (0..padded_rows).step_by(BLOCK) {
        let block = first..padded_rows.min(first + BLOCK);
        for column in 0..columns {
            let to = &mut to[column * padded_rows + block.start..column * padded_rows + block.end];
            for (row, to) in block.clone().zip(to) {
                *to = if row < rows { from[row * columns + column] } else { 0.0 };
            }
        }
    }
}

/// Some channels and taps of a [`Correlate`].
struct CorrelatePart<'a, S> {
    correlate: &'a Correlate<'a>,
    simd: S,
    /// `[batch·pixels, columns]`.
    dy: &'a [f32],
    columns: usize,
    dw: &'a Shared<'a, f32>,
    channels: std::ops::Range<usize>,
    taps: std::ops::Range<usize>,
}

impl<S: Simd> pulp::NullaryFnOnce for CorrelatePart<'_, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { correlate, simd, dy, columns, dw, channels, taps } = self;
        let Correlate { x, ref planes, sizes, .. } = *correlate;
        let lanes = S::F32_LANES;
        let pixels = sizes.output[0] * sizes.output[1];
        let channel_len = planes.channel_len();
        let map_len = channels.len() * channel_len;
        let source_len = planes.source[0] * planes.source[1];
        let all_taps: Vec<[usize; 2]> = sizes.taps().collect();
        let offsets: Vec<usize> = (0..channels.len())
            .flat_map(|c| {
                all_taps[taps.clone()]
                    .iter()
                    .map(move |[r, k]| c * channel_len + planes.tap(r * sizes.dilation[0], k * sizes.dilation[1]))
            })
            .collect();
        let group = (PLANES_BYTES / 2 / (4 * map_len).max(1)).min(PIXELS.div_ceil(pixels) * 4).clamp(1, sizes.batch);
        let tallest = tallest::<S>();
        let rows = row_tiles(offsets.len(), tallest).last().map_or(0, |(first, height)| first + height);
        let lens = [group * map_len + PIXELS + lanes, rows * PIXELS + lanes, rows * columns];
        let mut scratch = Scratch::new(lens);
        let [maps, panel, sums] = scratch.split();
        {
            sums.fill(0.0);
            panel.fill(0.0);
            let mut pixels_of_panel = Vec::new();
            for first in (0..sizes.batch).step_by(group) {
                let images = group.min(sizes.batch - first);
                for image in 0..images {
                    for (index, channel) in channels.clone().enumerate() {
                        let from = ((first + image) * sizes.channels_in + channel) * source_len;
                        let to = &mut maps[image * map_len + index * channel_len..][..channel_len];
                        planes.fill(&x[from..from + source_len], to);
                    }
                }
                let total = images * pixels;
                for panel_at in (0..total).step_by(PIXELS) {
                    let in_panel = panel_at..total.min(panel_at + PIXELS);
                    runs(in_panel.clone(), sizes.output, planes.size[1], map_len, &mut pixels_of_panel);
                    pack(simd, maps, &offsets, &pixels_of_panel, panel, PIXELS);
                    let dy = &dy[(first * pixels + in_panel.start) * columns..][..in_panel.len() * columns];
                    for (row, height) in row_tiles(offsets.len(), tallest) {
                        let mut column = 0;
                        while column < columns {
                            let vectors = ((columns - column) / lanes).min(WIDEST);
                            let operands = Operands {
                                k: in_panel.len(),
                                a: panel[row * PIXELS..][..height * PIXELS].as_ptr(),
                                a_row: PIXELS,
                                a_k: 1,
                                b: dy[column..].as_ptr(),
                                b_k: columns,
                                c: sums[row * columns + column..][..(height - 1) * columns + vectors * lanes]
                                    .as_mut_ptr(),
                                c_row: columns,
                                add: true,
                            };
                            // SAFETY: A is `height` rows of `PIXELS`, B `in_panel` rows of `columns` from `column` on, C
                            // `height` rows of `columns`, and no slice is shorter.
                            unsafe { tile(simd, height, vectors, operands) };
                            column += vectors * lanes;
                        }
                    }
                }
            }
            let taps_of_channel = sizes.kernel[0] * sizes.kernel[1];
            for output in 0..sizes.channels_out {
                for (index, channel) in channels.clone().enumerate() {
                    let at = (output * sizes.channels_in + channel) * taps_of_channel + taps.start;
                    // SAFETY: every part has its own channels and taps.
                    let to = unsafe { dw.range(at, taps.len()) };
                    for (tap, to) in to.iter_mut().enumerate() {
                        *to = sums[(index * taps.len() + tap) * columns + output];
                    }
                }
            }
        }
    }
}
