//! Transforms of tiles of pixels to points, and of sums at points to pixels.

use super::{
    super::{
        gather::Gather,
        lanes::{deinterleave, interleave},
        planes::Planes,
    },
    Layout, Winograd, load,
    points::{MAX_POINTS, Scheme},
    store,
};
use crate::{memory::volume, threads::Shared};
use pulp::Simd;
use std::{marker::PhantomData, ops::Range};

/// Where the values of a band of tiles lie: in elements, from the values of the first tile and
/// channel at the first point on.
#[derive(Clone, Copy)]
pub(super) struct Strides {
    pub start: usize,
    pub point: usize,
    pub tile: usize,
    /// From one vector of channels to the next.
    pub vector: usize,
}

impl Strides {
    /// The elements of `tiles` tiles and `vectors` vectors at `points` points, up to the last.
    fn len<S: Simd>(self, points: usize, tiles: usize, vectors: usize) -> usize {
        (points - 1) * self.point
            + (tiles - 1) * self.tile
            + (vectors - 1) * self.vector
            + S::F32_LANES
    }
}

/// Transforms the pixels that a band of tiles reads.
pub(super) struct Inputs<'a, S, P, Q> {
    all: &'a Winograd<'a>,
    simd: S,
    /// Rows and columns of a plane that a band reads.
    read: [usize; 2],
    schemes: PhantomData<(P, Q)>,
}

impl<'a, S: Simd, P: Scheme, Q: Scheme> Inputs<'a, S, P, Q> {
    #[inline(always)]
    pub(super) fn new(all: &'a Winograd<'a>, simd: S) -> Self {
        let [_, columns] = all.grid();
        let mut read = [P::POINTS, (columns - 1) * Q::OUT + Q::POINTS];
        read.iter_mut()
            .zip(all.spread())
            .for_each(|(read, spread)| *read += spread);
        let schemes = PhantomData;
        Self {
            all,
            simd,
            read,
            schemes,
        }
    }

    /// Lengths of the buffers of [`map`](Self::map): the pixels that a band reads, those on the
    /// planes, and the lines at the points of one axis.
    pub(super) fn buffers(&self) -> [usize; 3] {
        let (lanes, planes) = (S::F32_LANES, &self.all.gather.planes);
        let [rows, columns] = self.read;
        let source_rows = planes.source[0].min(rows.saturating_mul(planes.stride[0]));
        [
            volume(&[source_rows, planes.source[1], lanes]),
            volume(&[planes.phases.len(), rows, columns, lanes]),
            volume(&[P::POINTS, columns, lanes]),
        ]
    }

    /// Writes the values of band `unit`, counted across images, to `to`: all vectors of a window,
    /// window after window.
    ///
    /// # Safety
    /// No other thread uses these elements of `to`.
    #[inline(always)]
    pub(super) unsafe fn map(
        &self,
        unit: usize,
        [pixels, padded, lines]: [&mut [f32]; 3],
        layout: Layout,
        to: &Shared<f32>,
        strides: Strides,
    ) {
        let (s, lanes) = (self.simd, S::F32_LANES);
        let Gather {
            x,
            channels,
            ref planes,
            ..
        } = *self.all.gather;
        let [bands, columns] = self.all.grid();
        let (image, band) = (unit / bands, unit % bands);
        let [_, read_columns] = self.read;
        let [map_len, step] = [planes.source[0] * planes.source[1], planes.stride[1]];
        let [top, left] = self.all.origin;
        let runs = runs_inside(planes, [top + band * P::OUT, left], self.read);
        // The pixels of the map that are copied.
        let top = runs.iter().map(|run| run.from).min().unwrap_or(0);
        let ends = runs.iter().map(|run| run.from + (run.len - 1) * step + 1);
        let count = ends.max().map_or(0, |end| end - top);
        let pixels = &mut pixels[..count * lanes];
        let vectors = layout.channels / lanes;
        let len = strides.len::<S>(layout.points, columns, vectors * self.all.windows.len());
        let to = to.pointer(strides.start, len);
        // The zeros around the runs stay.
        padded.fill(0.0);
        for vector in 0..vectors {
            let first = vector * lanes;
            let maps = &x[(image * channels + first) * map_len + top..];
            interleave::<S>(maps, map_len, lanes.min(channels - first), count, pixels);
            for run in &runs {
                for pixel in 0..run.len {
                    let value = load::<S>(pixels, (run.from - top + pixel * step) * lanes);
                    store::<S>(padded, (run.to + pixel) * lanes, value);
                }
            }
            for (index, window) in self.all.windows.iter().enumerate() {
                let start = window.phase * self.read[0] + window.row;
                let padded = &padded[(start * read_columns + window.column) * lanes..];
                for column in 0..(columns - 1) * Q::OUT + Q::POINTS {
                    let mut d = [s.splat_f32s(0.0); MAX_POINTS];
                    for (row, d) in d.iter_mut().take(P::POINTS).enumerate() {
                        *d = load::<S>(padded, (row * read_columns + column) * lanes);
                    }
                    for (y, value) in P::input(s, d).into_iter().take(P::POINTS).enumerate() {
                        store::<S>(lines, (y * read_columns + column) * lanes, value);
                    }
                }
                for column in 0..columns {
                    let at = column * strides.tile + (index * vectors + vector) * strides.vector;
                    for y in 0..P::POINTS {
                        let line = &lines[(y * read_columns + column * Q::OUT) * lanes..];
                        let mut d = [s.splat_f32s(0.0); MAX_POINTS];
                        for (x, d) in d.iter_mut().take(Q::POINTS).enumerate() {
                            *d = load::<S>(line, x * lanes);
                        }
                        for (x, value) in Q::input(s, d).into_iter().take(Q::POINTS).enumerate() {
                            // SAFETY: below `len`, which is in bounds, by `pointer`.
                            unsafe {
                                let to = to.add(at + (y * Q::POINTS + x) * strides.point);
                                to.cast::<S::f32s>().write_unaligned(value);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Pixels of a row of the map that are neighbours on a plane.
struct Run {
    from: usize,
    to: usize,
    len: usize,
}

/// The runs of a map that are copied to `read` rows and columns of every plane, from row and column
/// `first` of the plane on. What lies beyond the plane is read by no tap.
fn runs_inside(planes: &Planes, first: [usize; 2], read: [usize; 2]) -> Vec<Run> {
    let inside = |axis: usize, phase: [usize; 2], at: usize| {
        let at = first[axis] + at;
        let place = (at * planes.stride[axis] + phase[axis]).checked_sub(planes.pad[axis])?;
        (at < planes.size[axis] && place < planes.source[axis]).then_some(place)
    };
    let mut runs = Vec::new();
    for (index, phase) in planes.phases.iter().enumerate() {
        let columns = (0..read[1]).filter_map(|at| Some((at, inside(1, *phase, at)?)));
        let columns: Vec<(usize, usize)> = columns.collect();
        let Some((column, x)) = columns.first() else {
            continue;
        };
        for row in 0..read[0] {
            if let Some(y) = inside(0, *phase, row) {
                runs.push(Run {
                    from: y * planes.source[1] + x,
                    to: (index * read[0] + row) * read[1] + column,
                    len: columns.len(),
                });
            }
        }
    }
    runs
}

/// Transforms the sums of a band of tiles to pixels.
pub(super) struct Outputs<'a, S, P, Q> {
    all: &'a Winograd<'a>,
    simd: S,
    schemes: PhantomData<(P, Q)>,
}

impl<'a, S: Simd, P: Scheme, Q: Scheme> Outputs<'a, S, P, Q> {
    #[inline(always)]
    pub(super) fn new(all: &'a Winograd<'a>, simd: S) -> Self {
        let schemes = PhantomData;
        Self { all, simd, schemes }
    }

    /// Length of the buffer of [`map`](Self::map).
    pub(super) fn buffer(&self) -> usize {
        let Gather {
            output,
            output_stride,
            ..
        } = *self.all.gather;
        let rows = P::OUT.saturating_mul(output_stride[0]).min(output[0]);
        volume(&[rows, output[1], S::F32_LANES])
    }

    /// Writes the pixels of band `unit`, counted across images, to the maps `channels` of `y`,
    /// which begin with a vector; `strides` are those of their sums. The sums of a job follow those
    /// of all points of the job before.
    ///
    /// # Safety
    /// No other thread uses the band of these maps.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    pub(super) unsafe fn map(
        &self,
        unit: usize,
        channels: Range<usize>,
        pixels: &mut [f32],
        layout: Layout,
        sums: &[f32],
        strides: Strides,
        y: &Shared<f32>,
    ) {
        let (s, lanes) = (self.simd, S::F32_LANES);
        let Gather {
            rows,
            output: [height, width],
            output_stride,
            bias,
            ..
        } = *self.all.gather;
        let [bands, columns] = self.all.grid();
        let (image, band) = (unit / bands, unit % bands);
        let top = band * P::OUT * output_stride[0];
        let band_rows = (P::OUT * output_stride[0]).min(height - top);
        let phases = output_stride[1].min(width);
        for (vector, first) in channels.step_by(lanes).enumerate() {
            let maps = lanes.min(rows - first);
            let mut bias_of = [0.0; super::MOST_LANES];
            if let Some(bias) = bias {
                bias_of[..maps].copy_from_slice(&bias[first..first + maps]);
            }
            let bias_of = load::<S>(&bias_of, 0);
            for job in 0..self.all.jobs.len() {
                let [row_phase, column_phase] = [job / phases, job % phases];
                for column in 0..columns {
                    let at = strides.start
                        + job * layout.points * strides.point
                        + column * strides.tile
                        + vector * strides.vector;
                    let mut lines = [[s.splat_f32s(0.0); MAX_POINTS]; MAX_POINTS];
                    for y in 0..P::POINTS {
                        let mut m = [s.splat_f32s(0.0); MAX_POINTS];
                        for (x, m) in m.iter_mut().take(Q::POINTS).enumerate() {
                            *m = load::<S>(sums, at + (y * Q::POINTS + x) * strides.point);
                        }
                        let values = Q::output(s, m);
                        for (line, value) in lines.iter_mut().zip(values).take(Q::OUT) {
                            line[y] = value;
                        }
                    }
                    for (x, line) in lines.into_iter().take(Q::OUT).enumerate() {
                        let x = (column * Q::OUT + x) * output_stride[1] + column_phase;
                        if x >= width {
                            break;
                        }
                        let values = P::output(s, line).into_iter().take(P::OUT);
                        for (y, value) in values.enumerate() {
                            let y = y * output_stride[0] + row_phase;
                            if y >= band_rows {
                                break;
                            }
                            let value = s.add_f32s(value, bias_of);
                            store::<S>(pixels, (y * width + x) * lanes, value);
                        }
                    }
                }
            }
            let (stride, len) = (height * width, band_rows * width);
            let start = (image * rows + first) * stride + top * width;
            let to = y.pointer(start, (maps - 1) * stride + len);
            // SAFETY: in bounds, by `pointer`; the caller's contract.
            unsafe { deinterleave::<S>(pixels, maps, len, to, stride) };
        }
    }
}

/// Transforms the gradient of a band of tiles by the transpose of [`Outputs`].
pub(super) struct Gradients<'a, S, P, Q> {
    all: &'a Winograd<'a>,
    simd: S,
    /// Gradient of the output, of its shape.
    dy: &'a [f32],
    schemes: PhantomData<(P, Q)>,
}

impl<'a, S: Simd, P: Scheme, Q: Scheme> Gradients<'a, S, P, Q> {
    #[inline(always)]
    pub(super) fn new(all: &'a Winograd<'a>, simd: S, dy: &'a [f32]) -> Self {
        let schemes = PhantomData;
        Self {
            all,
            simd,
            dy,
            schemes,
        }
    }

    /// Lengths of the buffers of [`map`](Self::map): the pixels, and the lines at the points of one
    /// axis.
    pub(super) fn buffers(&self) -> [usize; 2] {
        let ([_, columns], [_, width]) = (self.all.grid(), self.all.gather.output);
        [
            volume(&[P::OUT, width, S::F32_LANES]),
            volume(&[P::POINTS, columns * Q::OUT, S::F32_LANES]),
        ]
    }

    /// Writes the values of the vector of channels from `first` on of band `unit`, counted across
    /// images, to `to`.
    ///
    /// # Safety
    /// No other thread uses these elements of `to`.
    #[inline(always)]
    pub(super) unsafe fn map(
        &self,
        unit: usize,
        first: usize,
        [pixels, lines]: [&mut [f32]; 2],
        layout: Layout,
        to: &Shared<f32>,
        strides: Strides,
    ) {
        let (s, lanes) = (self.simd, S::F32_LANES);
        let Gather {
            rows,
            output: [height, width],
            ..
        } = *self.all.gather;
        let [bands, columns] = self.all.grid();
        let (image, band) = (unit / bands, unit % bands);
        let (top, line_len, map_len) = (band * P::OUT, columns * Q::OUT, height * width);
        let band_rows = P::OUT.min(height - top);
        let maps = &self.dy[(image * rows + first) * map_len + top * width..];
        let pixels = &mut pixels[..band_rows * width * lanes];
        interleave::<S>(
            maps,
            map_len,
            lanes.min(rows - first),
            band_rows * width,
            pixels,
        );
        for column in 0..line_len {
            let mut d = [s.splat_f32s(0.0); MAX_POINTS];
            if column < width {
                for (row, d) in d.iter_mut().take(band_rows).enumerate() {
                    *d = load::<S>(pixels, (row * width + column) * lanes);
                }
            }
            for (y, value) in P::gradient(s, d).into_iter().take(P::POINTS).enumerate() {
                store::<S>(lines, (y * line_len + column) * lanes, value);
            }
        }
        let to = to.pointer(strides.start, strides.len::<S>(layout.points, columns, 1));
        for column in 0..columns {
            for y in 0..P::POINTS {
                let line = &lines[(y * line_len + column * Q::OUT) * lanes..];
                let mut d = [s.splat_f32s(0.0); MAX_POINTS];
                for (x, d) in d.iter_mut().take(Q::OUT).enumerate() {
                    *d = load::<S>(line, x * lanes);
                }
                for (x, value) in Q::gradient(s, d).into_iter().take(Q::POINTS).enumerate() {
                    let at = column * strides.tile + (y * Q::POINTS + x) * strides.point;
                    // SAFETY: in bounds, by `pointer`.
                    unsafe { to.add(at).cast::<S::f32s>().write_unaligned(value) };
                }
            }
        }
    }
}
