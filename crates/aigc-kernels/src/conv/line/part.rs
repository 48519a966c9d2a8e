//! The tiles of a window.

use super::{
    super::gather::Gather,
    Line, Window,
    scheme::{OUT, Scheme},
    tiles::{SLACK, join},
};
use crate::{
    memory::volume,
    threads::{Scratch, Shared},
    tile::{Listed, Operands, Strided, row_tiles, tallest, tile, widest},
};
use pulp::Simd;
use std::ops::Range;

/// Terms of a sum that are processed together, so that their values stay in the first-level cache.
/// The sums of these blocks are added.
const DEPTH: usize = 192;

/// Tiles of rows whose sums at all points are kept at a time.
const BLOCK: usize = 4;

/// The output channels `rows` of a window.
pub(super) struct Split<'a, S, const POINTS: usize> {
    pub line: &'a Line<'a>,
    pub simd: S,
    /// The transformed weights.
    pub weights: &'a [f32],
    pub y: &'a Shared<'a, f32>,
    pub image: usize,
    pub window: Window,
    pub rows: Range<usize>,
}

impl<S: Simd, const POINTS: usize> pulp::NullaryFnOnce for Split<'_, S, POINTS> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            line,
            simd,
            weights,
            y,
            image,
            window,
            rows,
        } = self;
        let Line {
            ref scheme,
            terms,
            dilation,
            ..
        } = *line;
        let Gather {
            x,
            channels,
            rows: all_rows,
            bias,
            output: [_, out],
            ..
        } = *line.gather;
        let (lanes, width) = (S::F32_LANES, widest::<S>() * S::F32_LANES);
        let (read, tiles) = (line.tiles_read(window), window.groups * dilation);
        let (depth, block) = (channels * terms, BLOCK * tallest::<S>());
        // Values at one point of one channel.
        let row_len = (read - dilation).next_multiple_of(lanes);
        let mut scratch = Scratch::new([
            OUT * read,
            OUT * read + SLACK * lanes,
            volume(&[POINTS, channels, row_len]) + lanes,
            volume(&[POINTS, block, width]),
            OUT * width,
        ]);
        let [padded, tile_rows, mapped, sums, pixels] = scratch.split();
        let source_len = line.gather.planes.source[1];
        for channel in 0..channels {
            let map = &x[(image * channels + channel) * source_len..][..source_len];
            line.fill(map, window, padded, tile_rows);
            let to = &mut mapped[channel * row_len..];
            to_points::<S, POINTS>(simd, line, tile_rows, to, row_len, channels * row_len);
        }
        // The offset of every term, which reads the tile `dilation` after that of the one before.
        let offsets: Vec<usize> = (0..depth)
            .map(|term| term / terms * row_len + term % terms * dilation)
            .collect();
        // The pixels of the window.
        let start = window.first * OUT * dilation;
        let len = (OUT * tiles).min(out - start);
        let point_len = weights.len() / POINTS;
        for first in (0..tiles).step_by(width) {
            let count = width.min(tiles - first);
            let vectors = count.div_ceil(lanes);
            for block_row in rows.clone().step_by(block) {
                let block_rows = block.min(rows.end - block_row);
                for point in 0..POINTS {
                    let weights = &weights[point * point_len + block_row * depth..];
                    for from in (0..depth).step_by(DEPTH) {
                        let offsets = &offsets[from..depth.min(from + DEPTH)];
                        let start = point * channels * row_len + first;
                        let furthest = offsets.iter().max().copied().unwrap_or(0);
                        let end = start + furthest + vectors * lanes;
                        assert!(end <= mapped.len(), "a term reaches beyond the values");
                        for (row, height) in row_tiles(block_rows, tallest::<S>()) {
                            let a = &weights[row * depth + from * height..];
                            let a = &a[..offsets.len() * height];
                            let c = &mut sums[(point * block + row) * width..][..height * width];
                            // SAFETY: A is as many columns of `height` as there are offsets, and C
                            // `height` rows of `width`, the slices above; the vectors lie in
                            // `mapped` at all offsets, by the assertion.
                            unsafe {
                                let operands = Operands {
                                    k: offsets.len(),
                                    a: Strided {
                                        start: a.as_ptr(),
                                        row: 1,
                                        k: height,
                                    },
                                    b: Listed {
                                        start: mapped.as_ptr().add(start),
                                        offsets,
                                    },
                                    c: c.as_mut_ptr(),
                                    c_row: width,
                                    add: from > 0,
                                };
                                tile(simd, height, vectors, operands);
                            }
                        }
                    }
                }
                for row in 0..block_rows {
                    let channel = block_row + row;
                    let bias = bias.map_or(0.0, |bias| bias[channel]);
                    let sums = &sums[row * width..];
                    to_pixels::<S, POINTS>(
                        simd,
                        scheme,
                        sums,
                        block * width,
                        vectors,
                        bias,
                        pixels,
                    );
                    let map = (image * all_rows + channel) * out + start;
                    // SAFETY: parts have disjoint rows and windows.
                    let map = unsafe { y.range(map, len) };
                    let pixels = std::array::from_fn(|pixel| &pixels[pixel * width..][..count]);
                    join(pixels, first, dilation, map);
                }
            }
        }
    }
}

/// Transforms the tiles of a channel, of which pixel `p` is row `p` of `tile_rows`, as
/// [`fill`](Line::fill) writes it, to all points, `point_len` elements apart: `len` values, whole
/// vectors, of which the last may mean nothing.
#[inline(always)]
pub(super) fn to_points<S: Simd, const POINTS: usize>(
    simd: S,
    line: &Line,
    tile_rows: &[f32],
    to: &mut [f32],
    len: usize,
    point_len: usize,
) {
    let lanes = S::F32_LANES;
    // Beyond the tiles, any values will do.
    let row_len = (tile_rows.len() - SLACK * lanes) / OUT;
    for at in (0..len).step_by(lanes) {
        let mut pixels = [simd.splat_f32s(0.0); POINTS];
        for (pixel, value) in pixels.iter_mut().enumerate() {
            let from = pixel % OUT * row_len + at + pixel / OUT * line.dilation;
            *value = S::as_simd_f32s(&tile_rows[from..from + lanes]).0[0];
        }
        for (point, factors) in line.scheme.input.iter().enumerate().take(POINTS) {
            let mut sum = simd.splat_f32s(0.0);
            for (factor, pixel) in factors.iter().zip(pixels) {
                sum = simd.mul_add_e_f32s(simd.splat_f32s(*factor), pixel, sum);
            }
            let to = &mut to[point * point_len + at..][..lanes];
            S::as_mut_simd_f32s(to).0[0] = sum;
        }
    }
}

/// Transforms the sums of a row, `point_len` elements apart from point to point, to the pixels of
/// `vectors` vectors of tiles, `[pixel, tile]`.
#[inline(always)]
fn to_pixels<S: Simd, const POINTS: usize>(
    simd: S,
    scheme: &Scheme,
    sums: &[f32],
    point_len: usize,
    vectors: usize,
    bias: f32,
    to: &mut [f32],
) {
    let (lanes, width) = (S::F32_LANES, to.len() / OUT);
    for at in (0..vectors * lanes).step_by(lanes) {
        let mut points = [simd.splat_f32s(0.0); POINTS];
        for (point, value) in points.iter_mut().enumerate() {
            let from = point * point_len + at;
            *value = S::as_simd_f32s(&sums[from..from + lanes]).0[0];
        }
        for (pixel, factors) in scheme.output.iter().enumerate() {
            let mut sum = simd.splat_f32s(bias);
            for (factor, point) in factors.iter().zip(points) {
                sum = simd.mul_add_e_f32s(simd.splat_f32s(*factor), point, sum);
            }
            let to = &mut to[pixel * width + at..][..lanes];
            S::as_mut_simd_f32s(to).0[0] = sum;
        }
    }
}
