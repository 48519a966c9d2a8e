//! Weight gradients by direct correlation.

use super::{
    ConvSizes,
    depthwise::depthwise_weight_grad,
    panel::{pack, packed},
    pixel_major::Transpose,
    planes::Planes,
    windows::{Window, cut_axis, fitting, windows},
};
use crate::{
    memory::{filled, volume},
    simd::arch,
    threads::{Scratch, Shared, for_each},
    tile::{Left, Listed, Operands, Strided, column_tiles, row_tiles, tallest, tile, widest},
};
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// `dw[g, o, c, tap] = Σ_{n, pixel} dy[n, g, o, pixel] · planes[n, g, c, pixel + tap]`.
pub(super) fn correlate(x: &[f32], dy: &[f32], planes: Planes, sizes: ConvSizes) -> Vec<f32> {
    if [sizes.channels_in, sizes.channels_out] == [sizes.groups; 2] {
        return depthwise_weight_grad(x, dy, &planes, sizes);
    }
    arch().dispatch(Correlate {
        x,
        dy,
        planes,
        sizes,
    })
}

struct Correlate<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    planes: Planes,
    sizes: ConvSizes,
}

/// Pixels per block of the sum.
const PIXELS: usize = 128;

/// Bytes of planes that one part processes at a time.
const PLANES_BYTES: usize = 256 * 1024;

impl WithSimd for Correlate<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        let ConvSizes {
            batch,
            groups,
            output,
            dilation,
            kernel,
            ..
        } = self.sizes;
        // Those of a group.
        let [channels_in, channels_out] = self.sizes.channels_of_group();
        let pixels = output[0] * output[1];
        let columns = channels_out.next_multiple_of(S::F32_LANES);
        let work = self.sizes.work();
        // Rows of the gradient have the width of the planes, including the padding, if that costs
        // less than packing: copying a vector takes about as long as five vector multiplications.
        let in_place =
            self.planes.size[1] * columns <= output[1] * (columns + 5 * S::F32_LANES / 8);
        let row_len = if in_place {
            self.planes.size[1]
        } else {
            output[1]
        };
        let image_len = output[0] * row_len;
        // The output gradient, transposed to pixel-major, group by group, whose rows are the B
        // operand of the tiles.
        let transpose = |to: &mut [f32]| {
            let to = Shared::new(to);
            for_each(groups * batch, work, |index| {
                // SAFETY: images are disjoint.
                let to = unsafe { to.range(index * image_len * columns, image_len * columns) };
                let image = index % batch * groups + index / batch;
                let from = &self.dy[image * pixels * channels_out..][..pixels * channels_out];
                simd.vectorize(Transpose {
                    from,
                    rows: output[0],
                    width: output[1],
                    to,
                    row_len,
                    columns,
                });
            });
        };
        let group_len = volume(&[batch, image_len, columns]);
        // SAFETY: the parts cover all images, and `Transpose` writes every pixel and the padding.
        let dy = unsafe { filled(volume(&[groups, group_len]), transpose) };
        let taps = kernel[0] * kernel[1];
        let places = self.sizes.taps();
        let places: Vec<usize> = places
            .map(|[r, c]| self.planes.tap(r * dilation[0], c * dilation[1]))
            .collect();
        // Windows of whole blocks, so that the blocks of a sum are the same with any windows. Only
        // of single rows: the rows of other maps are short.
        let cut = match (in_place, output[0]) {
            (true, 1) => fitting(&self.planes, output, channels_in, PLANES_BYTES, PIXELS),
            _ => output[cut_axis(output)],
        };
        let windows = windows(&self.planes, output, &places, cut);
        // Parts split the sums, not their terms: every sum is accumulated by one thread in a fixed
        // order.
        let threads = rayon::current_num_threads().div_ceil(groups);
        let channel_parts = channels_in.min(threads);
        let tap_parts = threads.div_ceil(channel_parts).min(taps);
        let write = |dw: &mut [f32]| {
            let dw = Shared::new(dw);
            let parts = channel_parts * tap_parts;
            for_each(groups * parts, work, |part| {
                let (group, part) = (part / parts, part % parts);
                let share = |all: usize, part: usize, parts: usize| {
                    all * part / parts..all * (part + 1) / parts
                };
                simd.vectorize(Split {
                    correlate: &self,
                    simd,
                    group,
                    windows: &windows,
                    dy: &dy[group * group_len..][..group_len],
                    image_len,
                    in_place,
                    columns,
                    dw: &dw,
                    channels: share(channels_in, part / tap_parts, channel_parts),
                    taps: share(taps, part % tap_parts, tap_parts),
                });
            });
        };
        // SAFETY: the parts cover all groups, channels and taps, and each writes its own for all
        // outputs.
        unsafe { filled(volume(&[groups, channels_out, channels_in, taps]), write) }
    }
}

/// The part of a [`Correlate`] for some channels and taps of a group.
struct Split<'a, S> {
    correlate: &'a Correlate<'a>,
    simd: S,
    group: usize,
    windows: &'a [Window],
    /// That of the group, `[batch·image_len, columns]`.
    dy: &'a [f32],
    image_len: usize,
    in_place: bool,
    columns: usize,
    dw: &'a Shared<'a, f32>,
    channels: Range<usize>,
    taps: Range<usize>,
}

impl<S: Simd> pulp::NullaryFnOnce for Split<'_, S> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            correlate,
            simd,
            group: of_group,
            windows,
            dy,
            image_len,
            in_place,
            columns,
            dw,
            channels,
            taps,
        } = self;
        let Correlate {
            x,
            ref planes,
            sizes,
            ..
        } = *correlate;
        let [channels_in, channels_out] = sizes.channels_of_group();
        let channel_lens = windows.iter().map(|window| window.planes.channel_len());
        let map_len = volume(&[channels.len(), channel_lens.max().unwrap_or(0)]);
        let source_len = planes.source[0] * planes.source[1];
        let rows = channels.len() * taps.len();
        let padded_rows = row_tiles(rows, tallest::<S>())
            .last()
            .map_or(0, |(first, height)| first + height);
        // Image after image where there are several windows: the order of a sum must not depend on
        // the number of channels of this part.
        let most = match windows.len() {
            1 => sizes.batch,
            _ => 1,
        };
        let fits = PLANES_BYTES / (4 * map_len).max(1);
        let group = fits.min(PIXELS.div_ceil(image_len) * 4).clamp(1, most);
        let panel_len = if in_place {
            0
        } else {
            volume(&[padded_rows, PIXELS]) + S::F32_LANES
        };
        let mut scratch = Scratch::new([
            volume(&[group, map_len]) + PIXELS,
            panel_len,
            volume(&[padded_rows, columns]),
        ]);
        let [maps, panel, sums] = scratch.split();
        sums.fill(0.0);
        let mut runs = Vec::new();
        // The offset of every channel and tap.
        let mut offsets = Vec::with_capacity(padded_rows);
        let steps = (0..sizes.batch).step_by(group);
        for (first, window) in steps.flat_map(|first| windows.iter().map(move |w| (first, w))) {
            let images = group.min(sizes.batch - first);
            let (channel_len, plane_width) = (window.planes.channel_len(), window.planes.size[1]);
            let map_len = channels.len() * channel_len;
            offsets.clear();
            for channel in 0..channels.len() {
                let taps = &window.taps[taps.clone()];
                offsets.extend(taps.iter().map(|tap| channel * channel_len + tap));
            }
            // Padding rows use offset 0; their sums are not read.
            offsets.resize(padded_rows, 0);
            for image in 0..images {
                for (index, channel) in channels.clone().enumerate() {
                    let of_group = (first + image) * sizes.groups + of_group;
                    let from = (of_group * channels_in + channel) * source_len;
                    let to = &mut maps[image * map_len + index * channel_len..][..channel_len];
                    window.plan.fill(&x[from..from + source_len], to);
                }
            }
            if in_place {
                // Windows of more than one row are whole maps.
                let start = window.first[1];
                for image in 0..images {
                    // The padding after the last row is left out.
                    let places = window.span();
                    for at in (0..places).step_by(PIXELS) {
                        let len = PIXELS.min(places - at);
                        let dy = &dy[((first + image) * image_len + start + at) * columns..]
                            [..len * columns];
                        let furthest = offsets
                            .iter()
                            .max()
                            .map_or(0, |offset| offset + image * map_len + at + len);
                        assert!(furthest <= maps.len(), "a tap reaches beyond the planes");
                        // SAFETY: `len` pixels from `at` on lie in `maps` at every offset, by the
                        // assertion, and `dy` has as many.
                        unsafe {
                            let start = maps.as_ptr().add(image * map_len + at);
                            let a = |row: usize, height: usize| Listed {
                                start,
                                offsets: &offsets[row..row + height],
                            };
                            multiply(simd, a, rows, dy, columns, sums);
                        }
                    }
                }
                continue;
            }
            let total = images * image_len;
            for at in (0..total).step_by(PIXELS) {
                let pixels = at..total.min(at + PIXELS);
                packed(
                    pixels.clone(),
                    sizes.output,
                    plane_width,
                    map_len,
                    &mut runs,
                );
                pack(simd, maps, &offsets, &runs, panel, PIXELS);
                let dy = &dy[(first * image_len + at) * columns..][..pixels.len() * columns];
                let a = |row: usize, height: usize| Strided {
                    start: panel[row * PIXELS..][..height * PIXELS].as_ptr(),
                    row: PIXELS,
                    k: 1,
                };
                // SAFETY: A has rows of `PIXELS`, and `dy` has at most that many pixels.
                unsafe { multiply(simd, a, rows, dy, columns, sums) };
            }
        }
        let taps_of_channel = sizes.kernel[0] * sizes.kernel[1];
        for output in 0..channels_out {
            let row = of_group * channels_out + output;
            for (index, channel) in channels.clone().enumerate() {
                let at = (row * channels_in + channel) * taps_of_channel + taps.start;
                // SAFETY: parts have disjoint channels and taps.
                let to = unsafe { dw.range(at, taps.len()) };
                for (tap, to) in to.iter_mut().enumerate() {
                    *to = sums[(index * taps.len() + tap) * columns + output];
                }
            }
        }
    }
}

/// `sums[rows, columns] += a[rows, pixels]·dy[pixels, columns]`, where `a(row, height)` addresses
/// `height` rows from `row` on. Rows are split by [`row_tiles`], so `sums` must include the padding
/// rows of the last tile.
///
/// A column tile of `dy` stays in the first-level cache while all rows are processed.
///
/// # Safety
/// Every row of `a`, including those of the last tile, has at least as many elements as `dy` has
/// pixels.
///
/// # Panics
/// If `columns` is 0, or `sums` is too short.
#[inline(always)]
unsafe fn multiply<S: Simd, A: Left>(
    simd: S,
    a: impl Fn(usize, usize) -> A,
    rows: usize,
    dy: &[f32],
    columns: usize,
    sums: &mut [f32],
) {
    let (lanes, len) = (S::F32_LANES, dy.len() / columns);
    for (first, vectors) in column_tiles(columns / lanes, widest::<S>()) {
        let b = Strided {
            start: dy[first * lanes..].as_ptr(),
            row: 0,
            k: columns,
        };
        for (row, height) in row_tiles(rows, tallest::<S>()) {
            let sums = &mut sums[row * columns + first * lanes..]
                [..(height - 1) * columns + vectors * lanes];
            let operands = Operands {
                k: len,
                a: a(row, height),
                b,
                c: sums.as_mut_ptr(),
                c_row: columns,
                add: true,
            };
            // SAFETY: A by the caller's contract; B is `len` rows of `columns` of `dy`, from the
            // tile's first column on, and C is the slice above, with the same row stride.
            unsafe { tile(simd, height, vectors, operands) };
        }
    }
}
