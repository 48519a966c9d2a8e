//! Weight gradients with fewer multiplications, for kernels with vertically adjacent taps: bands of
//! rows of both maps are transformed to [`points`](super::points), multiplied and summed there over
//! images, bands and columns, and the sums are transformed back.

use super::{
    ConvSizes,
    correlate::multiply,
    planes::{Plan, Planes},
    points::{MAX_POINTS, Scheme, Three, Two, TwoBySeven, map_rows},
};
use crate::{
    memory::{filled, volume},
    simd::arch,
    threads::{Scratch, Shared, for_each},
    tile::{Listed, row_tiles, tallest},
};
use pulp::{Simd, WithSimd};
use std::{marker::PhantomData, ops::Range};

/// Bytes of transformed input that one part processes at a time.
const MAPPED_BYTES: usize = 2 * 1024 * 1024;

/// Elements of a cache line.
const LINE: usize = 16;

/// Places per block of the sum.
const PLACES: usize = 128;

/// The computation of [`correlate`](super::correlate::correlate).
pub(super) struct WinogradWeights<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    sizes: ConvSizes,
    planes: Planes,
    /// Vertically adjacent taps.
    taps: usize,
    /// Rows of the output gradient that are transformed together.
    out: usize,
    /// Bands of `out` rows.
    bands: usize,
}

impl<'a> WinogradWeights<'a> {
    /// `None` if it saves nothing: for kernels of one row or of many rows, and for very few
    /// channels.
    pub(super) fn new(x: &'a [f32], dy: &'a [f32], sizes: ConvSizes) -> Option<Self> {
        let ConvSizes {
            channels_in,
            kernel,
            stride,
            output,
            dilation,
            ..
        } = sizes;
        let taps = kernel[0].div_ceil(stride[0]);
        if dilation != [1, 1] || !(2..=3).contains(&taps) || channels_in < 4 {
            return None;
        }
        // With two taps, four rows take five multiplications and seven rows eight.
        let bands = |out: usize| output[0].div_ceil(out);
        let out = if taps == 2 && 8 * bands(7) < 5 * bands(4) {
            7
        } else {
            4
        };
        let mut planes = sizes.input_planes();
        planes.size[0] = bands(out) * out + taps - 1;
        let all = Self {
            x,
            dy,
            sizes,
            planes,
            taps,
            out,
            bands: bands(out),
        };
        // Multiplications, including those of the padding between rows.
        let cost = (out + taps - 1) * all.bands * stride[0].min(kernel[0]) * all.planes.size[1];
        (cost < kernel[0] * output[0] * output[1]).then_some(all)
    }

    pub(super) fn run(self) -> Vec<f32> {
        match (self.taps, self.out) {
            (2, 4) => arch().dispatch(With(self, PhantomData::<Two>)),
            (2, _) => arch().dispatch(With(self, PhantomData::<TwoBySeven>)),
            _ => arch().dispatch(With(self, PhantomData::<Three>)),
        }
    }

    /// Length of an image's transformed rows, which are contiguous.
    fn image_len(&self) -> usize {
        volume(&[self.bands, self.planes.size[1]])
    }
}

struct With<'a, P>(WinogradWeights<'a>, PhantomData<P>);

impl<P: Scheme> WithSimd for With<'_, P> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        let Self(all, scheme) = self;
        let ConvSizes {
            batch,
            channels_in,
            channels_out,
            output,
            kernel,
            ..
        } = all.sizes;
        let (columns, work) = (
            channels_out.next_multiple_of(S::F32_LANES),
            all.sizes.work(),
        );
        let places = volume(&[batch, all.image_len()]);
        // `[point, image, band, column, channel]`.
        let map = |to: &mut [f32]| {
            let to = Shared::new(to);
            for_each(batch, work, |image| {
                let map_len = channels_out * output[0] * output[1];
                let from = &all.dy[image * map_len..][..map_len];
                simd.vectorize(MapGradient {
                    all: &all,
                    scheme,
                    simd,
                    from,
                    to: &to,
                    image,
                    places,
                    columns,
                });
            });
        };
        // SAFETY: the parts cover all images, and `MapGradient` writes every point, band, column
        // and vector of channels.
        let dy = unsafe { filled(volume(&[P::POINTS, places, columns]), map) };
        let taps = kernel[0] * kernel[1];
        // Parts split the sums, not their terms: every sum is accumulated by one thread in a fixed
        // order.
        let parts = channels_in.min(rayon::current_num_threads());
        let write = |dw: &mut [f32]| {
            let dw = Shared::new(dw);
            for_each(parts, work, |part| {
                let channels = channels_in * part / parts..channels_in * (part + 1) / parts;
                simd.vectorize(Split {
                    all: &all,
                    scheme,
                    simd,
                    dy: &dy,
                    columns,
                    dw: &dw,
                    channels,
                });
            });
        };
        // SAFETY: the parts cover all channels. The terms of `Split` are all rows and columns of
        // the kernel, and it writes each for all its channels and all outputs.
        unsafe { filled(volume(&[channels_out, channels_in, taps]), write) }
    }
}

/// Transforms the output gradient of one image.
struct MapGradient<'a, S, P> {
    all: &'a WinogradWeights<'a>,
    scheme: PhantomData<P>,
    simd: S,
    from: &'a [f32],
    to: &'a Shared<'a, f32>,
    image: usize,
    places: usize,
    columns: usize,
}

impl<S: Simd, P: Scheme> pulp::NullaryFnOnce for MapGradient<'_, S, P> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            all,
            simd: s,
            from,
            to,
            image,
            places,
            columns,
            ..
        } = self;
        let ([height, width], lanes, row_len) =
            (all.sizes.output, S::F32_LANES, all.planes.size[1]);
        let channels = all.sizes.channels_out;
        let factors = P::factors();
        let mut scratch = Scratch::new([volume(&[P::OUT, width, lanes])]);
        let [rows] = scratch.split();
        let pieces: [&mut [f32]; MAX_POINTS] = std::array::from_fn(|point| {
            let (at, len) = if point < P::POINTS {
                (
                    (point * places + image * all.image_len()) * columns,
                    all.image_len() * columns,
                )
            } else {
                (0, 0)
            };
            // SAFETY: images and points are disjoint, and the ranges beyond the last point empty.
            unsafe { to.range(at, len) }
        });
        for band in 0..all.bands {
            for first in (0..columns).step_by(lanes) {
                // `lanes` channels interleaved, zero beyond the last channel and the last row.
                rows.fill(0.0);
                for lane in 0..lanes.min(channels.saturating_sub(first)) {
                    for row in 0..P::OUT.min(height - band * P::OUT) {
                        let line = &from[((first + lane) * height + band * P::OUT + row) * width..]
                            [..width];
                        let to = rows[row * width * lanes..].chunks_exact_mut(lanes);
                        line.iter()
                            .zip(to)
                            .for_each(|(value, to)| to[lane] = *value);
                    }
                }
                for column in 0..row_len {
                    let place = (band * row_len + column) * columns + first;
                    for point in 0..P::POINTS {
                        let mut sum = s.splat_f32s(0.0);
                        if column < width {
                            for (row, factors) in factors.iter().take(P::OUT).enumerate() {
                                let (values, _) = S::as_simd_f32s(
                                    &rows[(row * width + column) * lanes..][..lanes],
                                );
                                sum =
                                    s.mul_add_e_f32s(s.splat_f32s(factors[point]), values[0], sum);
                            }
                        }
                        S::as_mut_simd_f32s(&mut pieces[point][place..][..lanes]).0[0] = sum;
                    }
                }
            }
        }
    }
}

/// The part for some input channels.
struct Split<'a, S, P> {
    all: &'a WinogradWeights<'a>,
    scheme: PhantomData<P>,
    simd: S,
    dy: &'a [f32],
    columns: usize,
    dw: &'a Shared<'a, f32>,
    channels: Range<usize>,
}

impl<S: Simd, P: Scheme> pulp::NullaryFnOnce for Split<'_, S, P> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            all,
            simd,
            dy,
            columns,
            dw,
            channels,
            ..
        } = self;
        let WinogradWeights {
            x,
            sizes,
            ref planes,
            bands,
            ..
        } = *all;
        let ConvSizes {
            batch,
            channels_in,
            channels_out,
            output,
            kernel,
            stride,
            ..
        } = sizes;
        let (lanes, width, image_len) = (S::F32_LANES, planes.size[1], all.image_len());
        let phases = planes.phases.len();
        let per_image = channels.len() * phases * image_len;
        let group = (MAPPED_BYTES / (4 * P::POINTS * per_image).max(1)).clamp(1, batch);
        // Transformed rows, `[point, channel, phase, image, band, column]`.
        let map_len = volume(&[group, image_len]);
        let point_len = volume(&[channels.len(), phases, map_len]) + lanes;
        // Columns of taps, one per row phase and column of the kernel.
        let terms: Vec<[usize; 2]> = (0..stride[0].min(kernel[0]))
            .flat_map(|row| (0..kernel[1]).map(move |column| [row, column]))
            .collect();
        let rows = channels.len() * terms.len();
        let padded_rows = row_tiles(rows, tallest::<S>())
            .last()
            .map_or(0, |(first, height)| first + height);
        let mut offsets = Vec::with_capacity(padded_rows);
        for channel in 0..channels.len() {
            for [row, column] in &terms {
                let wanted = [row % stride[0], column % stride[1]];
                let phase = planes.phases.iter().position(|phase| *phase == wanted);
                let phase =
                    phase.unwrap_or_else(|| unreachable!("the phases of all taps are kept"));
                offsets.push((channel * phases + phase) * map_len + column / stride[1]);
            }
        }
        // Padding rows use offset 0; their sums are not read.
        offsets.resize(padded_rows, 0);
        let sums_len = volume(&[padded_rows, columns]);
        let plane_len = volume(&[planes.size[0], width]);
        let mut scratch = Scratch::new([
            plane_len + lanes,
            volume(&[P::POINTS, point_len]),
            volume(&[P::POINTS, sums_len]),
        ]);
        let [padded, mapped, sums] = scratch.split();
        sums.fill(0.0);
        let source_len = planes.source[0] * planes.source[1];
        let plans: Vec<Plan> = planes
            .phases
            .iter()
            .map(|p| {
                Planes {
                    phases: vec![*p],
                    ..planes.clone()
                }
                .plan()
            })
            .collect();
        for first in (0..batch).step_by(group) {
            let images = group.min(batch - first);
            // In memory order: elements written beyond a row are overwritten by the next row.
            for (index, channel) in channels.clone().enumerate() {
                for (phase, plan) in plans.iter().enumerate() {
                    for image in 0..images {
                        let from = ((first + image) * channels_in + channel) * source_len;
                        plan.fill(&x[from..from + source_len], &mut padded[..plane_len]);
                        for band in 0..bands {
                            let to = (index * phases + phase) * map_len
                                + image * image_len
                                + band * width;
                            let rows = &padded[band * P::OUT * width..];
                            map_rows::<S, P>(simd, rows, &mut mapped[to..], width, point_len);
                        }
                    }
                }
            }
            // The padding after the last row is left out.
            let len = images * image_len - (width - output[1]);
            let furthest = offsets.iter().max().map_or(0, |offset| offset + len);
            assert!(
                furthest <= point_len,
                "a tap reaches beyond the transformed rows"
            );
            for point in 0..P::POINTS {
                let dy = &dy[(point * batch + first) * image_len * columns..][..len * columns];
                let sums = &mut sums[point * sums_len..][..sums_len];
                let mapped = &mapped[point * point_len..][..point_len];
                for at in (0..len).step_by(PLACES) {
                    let dy = &dy[at * columns..(at + PLACES).min(len) * columns];
                    // SAFETY: `len` places lie in `mapped` after every offset, by the assertion,
                    // and `dy` has those from `at` on, at most `len - at`.
                    unsafe {
                        let start = mapped.as_ptr().add(at);
                        let a = |row: usize, height: usize| Listed {
                            start,
                            offsets: &offsets[row..row + height],
                        };
                        multiply(simd, a, rows, dy, columns, sums);
                    }
                }
            }
        }
        let (taps_of_channel, factors) = (kernel[0] * kernel[1], P::weight_factors());
        // A cache line of sums at a time, so that each is read once.
        for first in (0..channels_out).step_by(LINE) {
            let outputs = first..channels_out.min(first + LINE);
            for (index, channel) in channels.clone().enumerate() {
                for (term, [row, column]) in terms.iter().enumerate() {
                    let at = (index * terms.len() + term) * columns + first;
                    let mut gradients = [[0.0; LINE]; 3];
                    for (point, factors) in factors.iter().take(P::POINTS).enumerate() {
                        let sums = &sums[point * sums_len + at..][..outputs.len()];
                        for (gradients, factor) in gradients.iter_mut().zip(factors) {
                            gradients
                                .iter_mut()
                                .zip(sums)
                                .for_each(|(gradient, sum)| *gradient += factor * sum);
                        }
                    }
                    for (lane, output) in outputs.clone().enumerate() {
                        // SAFETY: parts have disjoint channels, and this is the only live range of
                        // this part.
                        let to = unsafe {
                            dw.range(
                                (output * channels_in + channel) * taps_of_channel,
                                taps_of_channel,
                            )
                        };
                        for (tap, kernel_row) in (*row..kernel[0]).step_by(stride[0]).enumerate() {
                            to[kernel_row * kernel[1] + column] = gradients[tap][lane];
                        }
                    }
                }
            }
        }
    }
}
