//! Zero-padded, phase-split copies of feature maps, in which every tap of a convolution is a
//! constant offset.

use crate::memory::volume;

/// Layout of a feature map `[height, width]` in which pixels `stride` apart become neighbours: one
/// plane per phase `(row mod stride, column mod stride)`, each with its share of the padding. Plane
/// `[p, q]` holds `x[i·stride + p − pad, j·stride + q − pad]` at `(i, j)`, and zero outside of `x`;
/// `i` and `j` count from `first` on.
#[derive(Clone, Debug)]
pub(crate) struct Planes {
    /// Height and width of the map.
    pub source: [usize; 2],
    pub stride: [usize; 2],
    /// Rows and columns of zeros before the map.
    pub pad: [usize; 2],
    /// The phases that are used by a tap.
    pub phases: Vec<[usize; 2]>,
    /// Row and column at which the planes begin: zero, except for those of a window.
    pub first: [usize; 2],
    /// Height and width of one plane.
    pub size: [usize; 2],
}

impl Planes {
    /// Elements of all planes of one channel.
    ///
    /// # Panics
    /// If their number overflows.
    pub(crate) fn channel_len(&self) -> usize {
        volume(&[self.phases.len(), self.size[0], self.size[1]])
    }

    /// These planes, if the offsets inside them do not overflow.
    ///
    /// # Panics
    /// If they do.
    pub(crate) fn checked(self) -> Self {
        self.channel_len();
        self
    }

    /// Offset, within the planes of a channel, of the tap at `row`, `column` of the padded map.
    pub(crate) fn tap(&self, row: usize, column: usize) -> usize {
        let phase = [row % self.stride[0], column % self.stride[1]];
        let index = self
            .phases
            .iter()
            .position(|p| *p == phase)
            .unwrap_or_else(|| unreachable!("the phases of all taps are kept"));
        (index * self.size[0] + row / self.stride[0]) * self.size[1] + column / self.stride[1]
    }

    /// The rows and columns of these planes from `first` on, `size` of them.
    pub(super) fn window(&self, first: [usize; 2], size: [usize; 2]) -> Self {
        Self {
            first: [0, 1].map(|axis| self.first[axis] + first[axis]),
            size,
            ..self.clone()
        }
    }

    /// Offset in a window of the tap that has the offset `tap` in these planes.
    pub(super) fn moved(&self, tap: usize, window: &Self) -> usize {
        let [height, width] = self.size;
        let (phase, row, column) = (tap / (height * width), tap / width % height, tap % width);
        (phase * window.size[0] + row) * window.size[1] + column
    }

    /// Indices along `axis` of a plane of phase `phase` that lie inside the map, and the index in
    /// the map of the first.
    fn inside(&self, axis: usize, phase: usize) -> (std::ops::Range<usize>, usize) {
        let stride = self.stride[axis];
        let shift = (phase + self.first[axis] * stride) as isize - self.pad[axis] as isize;
        let first = (-shift)
            .max(0)
            .cast_unsigned()
            .div_ceil(stride)
            .min(self.size[axis]);
        let end = (self.source[axis] as isize - shift)
            .max(0)
            .cast_unsigned()
            .div_ceil(stride);
        let end = end.clamp(first, self.size[axis]);
        (
            first..end,
            ((first * stride) as isize + shift).max(0).cast_unsigned(),
        )
    }

    /// The copies that fill the planes of a map, computed once for all maps.
    pub(super) fn plan(&self) -> Plan {
        let [rows, columns] = self.size;
        let mut plan = Plan {
            rows: Vec::new(),
            zeros: Vec::new(),
            stride: self.stride[1],
        };
        let mut written = 0;
        for (index, &[row_phase, column_phase]) in self.phases.iter().enumerate() {
            let (inside_rows, first_row) = self.inside(0, row_phase);
            let (inside, first_column) = self.inside(1, column_phase);
            if inside.is_empty() {
                continue;
            }
            for (i, row) in inside_rows.enumerate() {
                let to = (index * rows + row) * columns + inside.start;
                let from = (first_row + i * self.stride[0]) * self.source[1] + first_column;
                plan.zeros.push(written..to);
                plan.rows.push(RowCopy {
                    from,
                    to,
                    len: inside.len(),
                });
                written = to + inside.len();
            }
        }
        plan.zeros.push(written..self.channel_len());
        plan
    }
}

/// The copies from a map to its planes.
pub(super) struct Plan {
    rows: Vec<RowCopy>,
    zeros: Vec<std::ops::Range<usize>>,
    /// Stride in the map between copied pixels of a row.
    stride: usize,
}

struct RowCopy {
    from: usize,
    to: usize,
    len: usize,
}

impl Plan {
    /// Copies the map of one channel to its planes.
    #[inline(always)]
    pub(super) fn fill(&self, map: &[f32], planes: &mut [f32]) {
        for zeros in &self.zeros {
            for place in &mut planes[zeros.clone()] {
                *place = 0.0;
            }
        }
        for row in &self.rows {
            let to = &mut planes[row.to..][..row.len];
            let from = &map[row.from..][..(row.len - 1) * self.stride + 1];
            match self.stride {
                1 => to.copy_from_slice(from),
                2 => {
                    let (pairs, last) = from.as_chunks::<2>();
                    let (to_last, to) = to
                        .split_last_mut()
                        .unwrap_or_else(|| unreachable!("rows are not empty"));
                    for (to, pair) in to.iter_mut().zip(pairs) {
                        *to = pair[0];
                    }
                    *to_last = last[0];
                }
                stride => to
                    .iter_mut()
                    .zip(from.iter().step_by(stride))
                    .for_each(|(to, from)| *to = *from),
            }
        }
    }
}
