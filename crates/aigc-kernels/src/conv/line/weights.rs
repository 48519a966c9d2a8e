//! The weights at all points.

use super::{
    super::gather::Gather,
    Line,
    scheme::{MOST_TAPS, Scheme},
};
use crate::{
    memory::{filled, volume},
    threads::{Shared, for_each},
    tile::{TALLEST, row_tiles, tallest},
};
use pulp::Simd;

/// Elements between the values of two points, so that those of a tile do not share the sets of a
/// cache.
const GAP: usize = 32;

impl Line<'_> {
    /// Transforms the weights: for every point, tiles of rows as in [`Gather`], with all terms of
    /// a channel after those of the one before.
    #[inline(always)]
    pub(super) fn weights<S: Simd>(&self, simd: S) -> Vec<f32> {
        let depth = volume(&[self.gather.channels, self.terms]);
        let tiles: Vec<(usize, usize)> = row_tiles(self.gather.rows, tallest::<S>()).collect();
        let padded = tiles.last().map_or(0, |(first, height)| first + height);
        let point_len = volume(&[padded, depth]) + GAP;
        let len = volume(&[self.scheme.points(), point_len]);
        let write = |packed: &mut [f32]| {
            for point in packed.chunks_exact_mut(point_len) {
                point[point_len - GAP..].fill(0.0);
            }
            let packed = Shared::new(packed);
            for_each(tiles.len(), 8 * len, |index| {
                let (first, height) = tiles[index];
                simd.vectorize(Transform {
                    line: self,
                    first,
                    height,
                    packed: &packed,
                    point_len,
                });
            });
        };
        // SAFETY: the tiles cover all rows, and all points and terms are written, and the gaps.
        unsafe { filled(len, write) }
    }
}

/// Transforms the weights of a tile of rows.
struct Transform<'a> {
    line: &'a Line<'a>,
    first: usize,
    height: usize,
    /// `[point, tile of rows, term, row]`.
    packed: &'a Shared<'a, f32>,
    point_len: usize,
}

impl pulp::NullaryFnOnce for Transform<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            line,
            first,
            height,
            packed,
            point_len,
        } = self;
        let (scheme, terms) = (&line.scheme, line.terms);
        let Scheme { taps, kernel, .. } = scheme;
        let Gather {
            channels,
            rows,
            weight,
            weight_strides: [row_stride, channel_stride],
            ..
        } = *line.gather;
        let depth = channels * terms;
        let inside = height.min(rows - first);
        for term in 0..depth {
            let elements = &line.elements[term % terms * taps..];
            let elements = &elements[..elements.len().min(*taps)];
            let start = first * row_stride + term / terms * channel_stride;
            let mut values = [[0.0f32; MOST_TAPS]; TALLEST];
            for (row, values) in values.iter_mut().enumerate().take(inside) {
                let weight = &weight[start + row * row_stride..];
                for (value, element) in values.iter_mut().zip(elements) {
                    *value = weight[*element];
                }
            }
            for (point, factors) in kernel.iter().enumerate().take(scheme.points()) {
                let mut sums = [0.0f32; TALLEST];
                for row in 0..TALLEST {
                    sums[row] = values[row][0] * factors[0]
                        + values[row][1] * factors[1]
                        + values[row][2] * factors[2]
                        + values[row][3] * factors[3];
                }
                let at = point * point_len + first * depth + term * height;
                // SAFETY: tiles are disjoint, and the range ends with the iteration.
                let to = unsafe { packed.range(at, height) };
                match to.first_chunk_mut::<TALLEST>() {
                    Some(to) => *to = sums,
                    None => to.copy_from_slice(&sums[..height]),
                }
            }
        }
    }
}
