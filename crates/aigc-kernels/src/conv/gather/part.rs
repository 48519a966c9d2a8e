//! The sums of one part.

use super::{
    super::panel::{in_place as runs_in_place, pack, packed},
    Gather,
    division::Part,
    output::write_out,
};
use crate::{
    memory::volume,
    threads::{Scratch, Shared},
    tile::{Listed, Operands, Strided, row_tiles, tallest, tile, widest},
};
use pulp::Simd;

/// Terms of a sum that are processed together, so that their pixels stay in the first-level cache.
const DEPTH: usize = 192;

/// A [`Part`] of a [`Gather`].
pub(super) struct Split<'a, S> {
    pub gather: &'a Gather<'a>,
    pub simd: S,
    /// The packed weights of all jobs, group by group.
    pub weights: &'a [Vec<f32>],
    pub y: &'a Shared<'a, f32>,
    pub part: Part<'a>,
    /// Whether pixels are read in place from the planes.
    pub in_place: bool,
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
            part,
            in_place,
        } = self;
        let Gather {
            channels, ref jobs, ..
        } = *gather;
        let (window, taps) = (part.window, &part.window.taps);
        let (images, [_, plane_width]) = (part.images.len(), window.planes.size);
        let (channel_len, lanes) = (window.planes.channel_len(), S::F32_LANES);
        let (map_len, width) = (volume(&[channels, channel_len]), widest::<S>() * lanes);
        // Channels that are processed together.
        let chunk = (DEPTH / taps.len().max(1)).clamp(1, channels);
        let padded_rows = row_tiles(part.rows.len(), tallest::<S>())
            .last()
            .map_or(0, |(first, height)| first + height);
        let panel_len = match in_place {
            true => 0,
            false => volume(&[chunk, taps.len(), width]) + lanes,
        };
        let mut scratch = Scratch::new([
            volume(&[images, map_len]) + width,
            panel_len,
            volume(&[jobs.len(), padded_rows, width]),
        ]);
        let [maps, panel, sums] = scratch.split();
        let source_len = window.planes.source[0] * window.planes.source[1];
        for (map, to) in maps
            .chunks_exact_mut(channel_len)
            .take(images * channels)
            .enumerate()
        {
            let image = gather.image(part.images.start + map / channels, part.group);
            let from = (image * channels + map % channels) * source_len;
            window.plan.fill(&gather.x[from..from + source_len], to);
        }
        let in_planes: Vec<usize> = (0..chunk)
            .flat_map(|c| taps.iter().map(move |tap| c * channel_len + tap))
            .collect();
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
            weights: &weights[part.group * jobs.len()..][..jobs.len()],
            tables: &tables,
            first_row: part.rows.start,
            rows: part.rows.len(),
            padded_rows,
            sums,
        };
        let mut runs = Vec::new();
        if in_place {
            let span = window.span();
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
                    runs_in_place(places, window.size, plane_width, image, &mut runs);
                    // SAFETY: no other part has these pixels and rows.
                    unsafe { write_out(simd, &product, &part, &runs, y) };
                }
            }
        } else {
            let total = images * window.size[0] * window.size[1];
            for first in (0..total).step_by(width) {
                let pixels = first..total.min(first + width);
                packed(pixels.clone(), window.size, plane_width, map_len, &mut runs);
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
                // SAFETY: no other part has these pixels and rows.
                unsafe { write_out(simd, &product, &part, &runs, y) };
            }
        }
    }
}

/// The product of the weights of all jobs and one panel of pixels.
pub(super) struct Product<'a> {
    pub gather: &'a Gather<'a>,
    /// The packed weights of every job.
    weights: &'a [Vec<f32>],
    /// For every job, the offsets of the taps of a chunk of channels.
    tables: &'a [Vec<usize>],
    /// First output channel, at the beginning of a tile, and number of output channels.
    first_row: usize,
    rows: usize,
    pub padded_rows: usize,
    /// `[jobs, padded_rows, width]`.
    pub sums: &'a mut [f32],
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
            for (row, height) in row_tiles(self.rows, tallest::<S>()) {
                let weights = &weights[(self.first_row + row) * depth + channel * taps * height..]
                    [..count * taps * height];
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
