//! The computation of [`gather`](super::gather), vectorised across the images of a batch: each
//! vector lane is one image.
//!
//! On maps narrower than a few vectors, a vector of neighbouring pixels is mostly padding, or has
//! to be packed for every tap. A vector that holds one pixel of, say, sixteen images fits any map;
//! images are transposed on input and output. Vertically adjacent taps use the Winograd transforms
//! of [`points`](super::points).

use super::{
    gather::{Gather, Job},
    planes::Planes,
    points::{One, Scheme, Three, Two, TwoBySeven, map_rows, unmap},
};
use crate::{
    memory::{filled, volume},
    simd::arch,
    threads::{Scratch, Shared, for_each},
    tile::{Listed, Operands, Strided, TALLEST, column_tiles, row_tiles, tallest, tile, widest},
};
use pulp::{Simd, WithSimd};
use std::marker::PhantomData;

/// Vertically adjacent taps of a job.
struct Term {
    /// Index into [`Across::windows`] of the rows that the taps read.
    window: usize,
    /// Horizontal offset.
    column: usize,
    /// Kernel elements from the top, `None` where there is no tap.
    kernel: [Option<usize>; 3],
}

/// Rows that terms read: a phase of the planes, and the row of it for the first row of output.
type Window = (usize, usize);

/// A [`Gather`] whose taps form columns of up to three.
pub(super) struct Across<'a> {
    gather: &'a Gather<'a>,
    windows: Vec<Window>,
    /// The terms of every job.
    terms: Vec<Vec<Term>>,
    /// Height of a column of taps.
    taps: usize,
    /// Output rows that are computed together.
    out: usize,
}

/// A column of taps: phase, column, and (row, kernel element) from the top.
type Column = ((usize, usize), Vec<(usize, usize)>);

impl<'a> Across<'a> {
    /// Groups the taps into columns. `None` if a column has more than three.
    pub(super) fn new(gather: &'a Gather<'a>) -> Option<Self> {
        let columns: Vec<Vec<Column>> =
            gather.jobs.iter().map(|job| columns(gather, job)).collect();
        let height = |(_, taps): &Column| taps[taps.len() - 1].0 - taps[0].0 + 1;
        let taps = columns.iter().flatten().map(height).max().unwrap_or(0);
        if !(1..=3).contains(&taps) {
            return None;
        }
        let mut windows: Vec<Window> = Vec::new();
        let term = |((phase, column), taps): &Column| {
            let rows = (*phase, taps[0].0);
            let window = windows
                .iter()
                .position(|window| *window == rows)
                .unwrap_or_else(|| {
                    windows.push(rows);
                    windows.len() - 1
                });
            let mut kernel = [None; 3];
            taps.iter()
                .for_each(|(row, element)| kernel[row - taps[0].0] = Some(*element));
            Term {
                window,
                column: *column,
                kernel,
            }
        };
        let mut term = term;
        let terms = columns
            .iter()
            .map(|columns| columns.iter().map(&mut term).collect())
            .collect();
        // With two taps, four rows take five multiplications and seven rows eight.
        let bands = |out: usize| gather.grid[0].div_ceil(out);
        let out = if taps == 2 && 8 * bands(7) < 5 * bands(4) {
            7
        } else {
            4
        };
        Some(Self {
            gather,
            windows,
            terms,
            taps,
            out,
        })
    }

    /// Estimated cycles per image, with tiles of `tallest` rows.
    pub(super) fn cycles(&self, lanes: usize, tallest: usize) -> usize {
        /// Transformed rows of a point that are still fast to read again.
        const CACHED_BYTES: usize = 40 << 10;
        let Gather {
            batch,
            channels,
            rows,
            ref planes,
            grid,
            ..
        } = *self.gather;
        let terms: usize = self.terms.iter().map(Vec::len).sum();
        let points = self.out + self.taps - 1;
        // A part is a group of images and a band of rows; its elements are moved one by one.
        let bands = grid[0].div_ceil(self.out);
        let products = points * terms * channels * rows * grid[1] / 2;
        // Every tile of rows reads the transformed rows of a point. Fitted on AVX2 (Zen 3); with wider
        // vectors it was not measured.
        let bytes = 4 * lanes * channels * self.windows.len() * planes.size[1];
        let missed = match lanes <= 8 && bytes > CACHED_BYTES {
            true => products / tallest,
            false => 0,
        };
        let maps = 8
            * points
            * (self.windows.len() * channels * planes.size[1] + self.terms.len() * rows * grid[1]);
        let moved = (self.out + self.taps) * planes.phases.len() * planes.size[1] * channels
            + self.out * self.terms.len() * rows * grid[1];
        batch.div_ceil(lanes) * bands * (products + missed + maps + moved * lanes) / batch
    }

    pub(super) fn run(self) -> Vec<f32> {
        match (self.taps, self.out) {
            (1, _) => arch().dispatch(With(self, One)),
            (2, 4) => arch().dispatch(With(self, Two)),
            (2, _) => arch().dispatch(With(self, TwoBySeven)),
            _ => arch().dispatch(With(self, Three)),
        }
    }

    fn width(&self) -> usize {
        self.gather.planes.size[1]
    }

    /// Copies from a channel's map to its planes, for the `rows` rows that a band reads.
    fn moves_in(&self, band: usize, rows: usize, lanes: usize) -> Moves {
        let Planes {
            source,
            stride,
            pad,
            ref phases,
            size,
        } = self.gather.planes;
        let mut moves = Vec::new();
        for (index, phase) in phases.iter().enumerate() {
            for row in 0..rows {
                for column in 0..size[1] {
                    let y = ((band * self.out + row) * stride[0] + phase[0]).checked_sub(pad[0]);
                    let x = (column * stride[1] + phase[1]).checked_sub(pad[1]);
                    if let (Some(y), Some(x)) =
                        (y.filter(|y| *y < source[0]), x.filter(|x| *x < source[1]))
                    {
                        moves.push([
                            y * source[1] + x,
                            ((index * rows + row) * size[1] + column) * lanes,
                        ]);
                    }
                }
            }
        }
        Moves::new(moves)
    }

    /// Output rows of a band.
    fn band_rows(&self, band: usize) -> std::ops::Range<usize> {
        let Gather {
            output,
            output_stride,
            ..
        } = *self.gather;
        (band * self.out * output_stride[0]).min(output[0])
            ..((band + 1) * self.out * output_stride[0]).min(output[0])
    }

    /// Copies from the jobs' sums to a channel's band of the output. `job` and `row` are the
    /// strides of the sums.
    fn moves_out(&self, band: usize, [job, row]: [usize; 2], lanes: usize) -> Moves {
        let Gather {
            output: [_, width],
            output_stride,
            ..
        } = *self.gather;
        let columns = output_stride[1].min(width);
        let mut moves = Vec::new();
        for y in 0..self.band_rows(band).len() {
            for x in 0..width {
                let index = y % output_stride[0] * columns + x % columns;
                moves.push([
                    index * job + y / output_stride[0] * row + x / columns * lanes,
                    y * width + x,
                ]);
            }
        }
        Moves::new(moves)
    }

    /// Offsets of the terms of all channels in the transformed rows of a point.
    fn offsets(&self, terms: &[Term], lanes: usize) -> Vec<usize> {
        let place = |channel: usize, term: &Term| {
            (channel * self.windows.len() + term.window) * self.width() + term.column
        };
        let channels = 0..self.gather.channels;
        channels
            .flat_map(|channel| terms.iter().map(move |term| place(channel, term) * lanes))
            .collect()
    }

    /// The transformed weights of every job, `[tile of rows, point, channel, term, height]`.
    fn map_weights<P: Scheme>(&self, tallest: usize) -> Vec<Vec<f32>> {
        let Gather {
            channels,
            rows,
            weight,
            weight_strides: [row_stride, channel_stride],
            ..
        } = *self.gather;
        let tiles: Vec<(usize, usize)> = row_tiles(rows, tallest).collect();
        let padded = tiles.last().map_or(0, |(first, height)| first + height);
        let factors = P::weight_factors();
        let of_job = |terms: &Vec<Term>| {
            let depth = volume(&[channels, terms.len()]);
            let len = volume(&[P::POINTS, padded, depth]);
            let write = |mapped: &mut [f32]| {
                let mapped = Shared::new(mapped);
                for_each(tiles.len(), 4 * len, |index| {
                    let (first, height) = tiles[index];
                    // SAFETY: tiles are disjoint.
                    let mapped = unsafe {
                        mapped.range(first * P::POINTS * depth, height * P::POINTS * depth)
                    };
                    let used = height.min(rows - first);
                    for channel in 0..channels {
                        for (index, term) in terms.iter().enumerate() {
                            let at = first * row_stride + channel * channel_stride;
                            let mut kernels = [[0.0; TALLEST]; 3];
                            for (kernels, element) in kernels.iter_mut().zip(term.kernel) {
                                let Some(element) = element else { continue };
                                for (row, kernel) in kernels.iter_mut().take(used).enumerate() {
                                    *kernel = weight[at + row * row_stride + element];
                                }
                            }
                            let place = (channel * terms.len() + index) * height;
                            for (point, factors) in factors.iter().take(P::POINTS).enumerate() {
                                let mut sums = [0.0; TALLEST];
                                for (factor, kernels) in factors.iter().zip(&kernels) {
                                    sums.iter_mut()
                                        .zip(kernels)
                                        .for_each(|(sum, kernel)| *sum += factor * kernel);
                                }
                                let to = &mut mapped[point * depth * height + place..][..height];
                                match <&mut [f32; TALLEST]>::try_from(&mut *to) {
                                    Ok(to) => *to = sums,
                                    Err(_) => {
                                        to.iter_mut().zip(sums).for_each(|(to, sum)| *to = sum)
                                    }
                                }
                            }
                        }
                    }
                });
            };
            // SAFETY: the tiles cover all rows, and each writes its height for every point, channel
            // and term.
            unsafe { filled(len, write) }
        };
        self.terms.iter().map(of_job).collect()
    }
}

/// Groups the taps of a job into columns.
fn columns(gather: &Gather, job: &Job) -> Vec<Column> {
    let [height, width] = gather.planes.size;
    let mut columns: Vec<Column> = Vec::new();
    for (tap, kernel) in job.taps.iter().zip(&job.kernel) {
        let place = gather.taps[*tap];
        let (phase, row, column) = (
            place / (height * width),
            place / width % height,
            place % width,
        );
        match columns.iter_mut().find(|(at, _)| *at == (phase, column)) {
            Some((_, taps)) => taps.push((row, *kernel)),
            None => columns.push(((phase, column), vec![(row, *kernel)])),
        }
    }
    columns
        .iter_mut()
        .for_each(|(_, taps)| taps.sort_unstable());
    columns
}

/// A list of single-element copies.
struct Moves {
    /// Source and destination index.
    moves: Vec<[usize; 2]>,
    /// One more than the largest source and the largest destination index.
    end: [usize; 2],
}

impl Moves {
    fn new(moves: Vec<[usize; 2]>) -> Self {
        let end = [0, 1].map(|side| moves.iter().map(|at| at[side] + 1).max().unwrap_or(0));
        Self { moves, end }
    }

    /// # Panics
    /// If an index is outside its slice.
    #[inline(always)]
    fn run(&self, from: &[f32], to: &mut [f32]) {
        assert!(
            self.end[0] <= from.len() && self.end[1] <= to.len(),
            "copies from {} and to {} elements exceed slices of {} and {}",
            self.end[0],
            self.end[1],
            from.len(),
            to.len()
        );
        for [source, place] in &self.moves {
            // SAFETY: all indices are below `end`, which is in bounds by the assertion. The writes
            // are volatile because the compiler would otherwise emit scatters, which cost several
            // times as much as single stores (Zen 4).
            unsafe {
                to.as_mut_ptr()
                    .add(*place)
                    .write_volatile(*from.get_unchecked(*source))
            };
        }
    }
}

struct With<'a, P>(Across<'a>, P);

impl<P: Scheme> WithSimd for With<'_, P> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        let Self(across, _) = self;
        let Gather {
            batch,
            rows,
            output,
            grid,
            work,
            ..
        } = *across.gather;
        let reach = across
            .terms
            .iter()
            .flatten()
            .map(|term| term.column + grid[1])
            .max()
            .unwrap_or(0);
        assert!(reach <= across.width(), "a tap reaches beyond the planes");
        let weights = across.map_weights::<P>(tallest::<S>());
        let (bands, groups) = (grid[0].div_ceil(P::OUT), batch.div_ceil(S::F32_LANES));
        let write = |y: &mut [f32]| {
            let y = Shared::new(y);
            for_each(bands * groups, work, |part| {
                let (group, band) = (part / bands, part % bands);
                simd.vectorize(Split {
                    across: &across,
                    scheme: PhantomData::<P>,
                    simd,
                    weights: &weights,
                    y: &y,
                    group,
                    band,
                });
            });
        };
        // SAFETY: the parts cover all images and bands of rows, and `Split` copies the sums of all
        // pixels of its band.
        unsafe { filled(volume(&[batch, rows, output[0], output[1]]), write) }
    }
}

/// A band of rows of one group of images, one image per lane.
struct Split<'a, S, P> {
    across: &'a Across<'a>,
    scheme: PhantomData<P>,
    simd: S,
    weights: &'a [Vec<f32>],
    y: &'a Shared<'a, f32>,
    group: usize,
    band: usize,
}

impl<S: Simd, P: Scheme> pulp::NullaryFnOnce for Split<'_, S, P> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            across,
            simd,
            weights,
            y,
            group,
            band,
            ..
        } = self;
        let Gather {
            x,
            batch,
            channels,
            ref planes,
            rows,
            grid,
            output,
            ..
        } = *across.gather;
        let (lanes, tallest) = (S::F32_LANES, tallest::<S>());
        let (width, windows) = (across.width(), &across.windows);
        let read_rows = P::POINTS + windows.iter().map(|(_, first)| *first).max().unwrap_or(0);
        let planes_len = volume(&[planes.phases.len(), read_rows, width, lanes]);
        let point_len = volume(&[channels, windows.len(), width, lanes]);
        let panel = volume(&[grid[1], lanes]);
        let job_len = volume(&[P::POINTS, tallest, panel]);
        let mut scratch = Scratch::new([
            planes_len,
            volume(&[P::POINTS, point_len]),
            volume(&[weights.len(), job_len]),
        ]);
        let [planes_of, mapped, sums] = scratch.split();
        // The padding stays zero.
        planes_of.fill(0.0);
        let moves_in = across.moves_in(band, read_rows, lanes);
        let source_len = planes.source[0] * planes.source[1];
        for channel in 0..channels {
            for lane in 0..lanes {
                // Lanes beyond the last image repeat it; their results are not read.
                let image = (group * lanes + lane).min(batch - 1);
                moves_in.run(
                    &x[(image * channels + channel) * source_len..][..source_len],
                    &mut planes_of[lane..],
                );
            }
            for (window, (phase, first)) in windows.iter().enumerate() {
                let from = &planes_of[(phase * read_rows + first) * width * lanes..]
                    [..P::POINTS * width * lanes];
                let to = &mut mapped[(channel * windows.len() + window) * width * lanes..];
                map_rows::<S, P>(simd, from, to, width * lanes, point_len);
            }
        }
        let offsets: Vec<Vec<usize>> = across
            .terms
            .iter()
            .map(|terms| across.offsets(terms, lanes))
            .collect();
        let (map_len, band_rows) = (output[0] * output[1], across.band_rows(band));
        for (row, height) in row_tiles(rows, tallest) {
            let moves_out = across.moves_out(band, [job_len, height * panel], lanes);
            for ((weights, offsets), sums) in weights
                .iter()
                .zip(&offsets)
                .zip(sums.chunks_exact_mut(job_len))
            {
                let depth = offsets.len();
                if depth == 0 {
                    sums.fill(0.0);
                }
                for point in 0..if depth == 0 { 0 } else { P::POINTS } {
                    let weights =
                        &weights[(row * P::POINTS + point * height) * depth..][..height * depth];
                    let input = &mapped[point * point_len..][..point_len];
                    let sums = &mut sums[point * height * panel..][..height * panel];
                    for (column, vectors) in column_tiles(grid[1], widest::<S>()) {
                        let operands = Operands {
                            k: depth,
                            a: Strided {
                                start: weights.as_ptr(),
                                row: 1,
                                k: height,
                            },
                            b: Listed {
                                start: input[column * lanes..].as_ptr(),
                                offsets,
                            },
                            c: sums[column * lanes..].as_mut_ptr(),
                            c_row: panel,
                            add: false,
                        };
                        // SAFETY: A is `depth` columns of `height`; C is `height` rows of `panel`,
                        // with `vectors` vectors from its column on. The offsets are columns of
                        // rows of `input`, and B stays inside these rows, by the assertion on their
                        // width.
                        unsafe { tile(simd, height, vectors, operands) };
                    }
                }
                for row_of in 0..height.min(rows - row) {
                    let bias = across.gather.bias.map_or(0.0, |bias| bias[row + row_of]);
                    unmap::<S, P>(
                        simd,
                        &mut sums[row_of * panel..],
                        grid[1],
                        height * panel,
                        bias,
                    );
                }
            }
            for row_of in 0..height.min(rows - row) {
                for lane in 0..lanes.min(batch - group * lanes) {
                    let map = (group * lanes + lane) * rows + row + row_of;
                    // SAFETY: parts have disjoint images and bands, and this is the only live range
                    // of this part.
                    let map = unsafe {
                        y.range(
                            map * map_len + band_rows.start * output[1],
                            band_rows.len() * output[1],
                        )
                    };
                    moves_out.run(&sums[row_of * panel + lane..], map);
                }
            }
        }
    }
}
