//! How the work of a [`Gather`] is divided into parts.

use super::{
    super::windows::{Window, cut_axis, even, fitting, windows},
    Gather, PLANES_BYTES,
};
use crate::{
    threads::WORTH_SHARING,
    tile::{tallest, widest},
};
use pulp::Simd;
use std::ops::Range;

/// Bytes of packed weights that one part multiplies: half of a second-level cache, as for planes.
/// The part reads them again for every panel of pixels.
const WEIGHTS_BYTES: usize = 512 * 1024;

/// Tiles of rows below which planes are rather cut than rows: the planes of a window are written
/// again for every block of rows.
const WORTH_PLANES: usize = 8;

/// Sizes of the parts.
pub(super) struct Division {
    /// Whether pixels are read in place from the planes.
    pub in_place: bool,
    /// Images.
    images: usize,
    /// Windows of the grid. Packed pixels are those of whole maps.
    windows: Vec<Window>,
    /// Output channels, whole tiles.
    rows: usize,
}

/// A part: some images, pixels and output channels of a group.
pub(super) struct Part<'a> {
    pub group: usize,
    pub images: Range<usize>,
    pub window: &'a Window,
    pub rows: Range<usize>,
}

impl Division {
    /// Parts whose planes and weights fit a cache, and at least two for each thread, so that no
    /// thread waits long for the last part, if the work is worth it.
    pub(super) fn new<S: Simd>(of: &Gather) -> Self {
        let (tallest, widest, axis) = (tallest::<S>(), widest::<S>(), cut_axis(of.grid));
        let in_place = of.reads_in_place(S::F32_LANES, widest);
        let images = of.group(S::F32_LANES, widest);
        let all = of.grid[axis];
        let (unit, mut window, mut rows) = if in_place {
            // Single rows are cut between panels.
            let unit = if axis == 1 { widest * S::F32_LANES } else { 1 };
            let window = fitting(&of.planes, of.grid, of.channels, PLANES_BYTES, unit);
            let taps: usize = of.jobs.iter().map(|job| job.taps.len()).sum();
            let row_len = (4 * taps).saturating_mul(of.channels).max(1);
            let most = (WEIGHTS_BYTES / row_len).max(4 * tallest);
            // Maps of several rows have windows of more pixels, for which weights are read less
            // often.
            let most = if axis == 1 { most } else { of.rows };
            (unit, window, even(of.rows, most, tallest))
        } else {
            (all, all, of.rows.next_multiple_of(tallest))
        };
        let threads = rayon::current_num_threads();
        let wanted = match of.work / WORTH_SHARING {
            0 => 1,
            _ if threads == 1 => 1,
            1..8 => threads,
            _ => 2 * threads,
        };
        let units = of.batch.div_ceil(images).saturating_mul(of.groups);
        let half = |size: usize, unit: usize| even(size, size.div_ceil(2), unit);
        loop {
            let [cuts, blocks] = [all.div_ceil(window), of.rows.div_ceil(rows)];
            if units.saturating_mul(cuts).saturating_mul(blocks) >= wanted {
                break;
            }
            if rows > WORTH_PLANES * tallest {
                rows = half(rows, tallest);
            } else if window > unit {
                window = half(window, unit);
            } else if rows > tallest {
                rows = half(rows, tallest);
            } else {
                break;
            }
        }
        Self {
            in_place,
            images,
            windows: windows(&of.planes, of.grid, &of.taps, window),
            rows,
        }
    }

    /// The number of parts.
    pub(super) fn parts(&self, of: &Gather) -> usize {
        let images = of.batch.div_ceil(self.images);
        of.groups * images * self.windows.len() * of.rows.div_ceil(self.rows)
    }

    /// Part `index`. The parts of a window are neighbours.
    pub(super) fn part(&self, of: &Gather, index: usize) -> Part<'_> {
        let range = |at: usize, len: usize, all: usize| at * len..all.min((at + 1) * len);
        let blocks = of.rows.div_ceil(self.rows);
        let (index, block) = (index / blocks, index % blocks);
        let (index, window) = (index / self.windows.len(), index % self.windows.len());
        let parts = of.batch.div_ceil(self.images);
        Part {
            group: index / parts,
            images: range(index % parts, self.images, of.batch),
            window: &self.windows[window],
            rows: range(block, self.rows, of.rows),
        }
    }
}
