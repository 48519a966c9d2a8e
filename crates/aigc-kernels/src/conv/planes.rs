//! Zero-padded, phase-split copies of feature maps, on which every tap of a convolution is a
//! constant offset.

/// How a feature map `[height, width]` is laid out so that a step of `step` pixels becomes a step
/// of one: one plane per phase `(row mod step, column mod step)`, each with its share of the
/// padding. Plane `[p, q]` holds `x[i·step + p − pad, j·step + q − pad]` at `(i, j)`, zero outside.
#[derive(Clone, Debug)]
pub(crate) struct Planes {
    /// Height and width of the map.
    pub source: [usize; 2],
    pub step: [usize; 2],
    /// Rows and columns of zeros before the map.
    pub pad: [usize; 2],
    /// The phases that some tap looks at.
    pub phases: Vec<[usize; 2]>,
    /// Height and width of one plane.
    pub size: [usize; 2],
}

impl Planes {
    /// Elements of all planes of one channel.
    pub(crate) fn channel_len(&self) -> usize {
        self.phases.len() * self.size[0] * self.size[1]
    }

    /// Offset of the tap that looks `row`, `column` pixels (of the padded map) away, within a
    /// channel's planes.
    pub(crate) fn tap(&self, row: usize, column: usize) -> usize {
        let phase = [row % self.step[0], column % self.step[1]];
        let index = self
            .phases
            .iter()
            .position(|p| *p == phase)
            .unwrap_or_else(|| unreachable!("a phase that is kept"));
        (index * self.size[0] + row / self.step[0]) * self.size[1] + column / self.step[1]
    }

    /// Columns `j` of a plane of phase `phase` along `axis` that lie inside the map, and the first
    /// one's place there.
    fn inside(&self, axis: usize, phase: usize) -> (std::ops::Range<usize>, usize) {
        let (step, shift) = (self.step[axis], phase as isize - self.pad[axis] as isize);
        let first = (-shift)
            .max(0)
            .cast_unsigned()
            .div_ceil(step)
            .min(self.size[axis]);
        let end = (self.source[axis] as isize - shift)
            .max(0)
            .cast_unsigned()
            .div_ceil(step);
        let end = end.clamp(first, self.size[axis]);
        (
            first..end,
            ((first * step) as isize + shift).max(0).cast_unsigned(),
        )
    }

    /// What has to be copied for every map, worked out once.
    pub(super) fn plan(&self) -> Plan {
        let [rows, columns] = self.size;
        let mut plan = Plan {
            rows: Vec::new(),
            zeros: Vec::new(),
            step: self.step[1],
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
                let from = (first_row + i * self.step[0]) * self.source[1] + first_column;
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

/// How one map becomes planes.
pub(super) struct Plan {
    rows: Vec<RowCopy>,
    zeros: Vec<std::ops::Range<usize>>,
    /// Between the pixels of a row that are copied.
    step: usize,
}

struct RowCopy {
    from: usize,
    to: usize,
    len: usize,
}

impl Plan {
    /// Lays `map` out in `planes`, both of one channel.
    #[inline(always)]
    pub(super) fn fill(&self, map: &[f32], planes: &mut [f32]) {
        for zeros in &self.zeros {
            for place in &mut planes[zeros.clone()] {
                *place = 0.0;
            }
        }
        for row in &self.rows {
            let to = &mut planes[row.to..][..row.len];
            let from = &map[row.from..][..(row.len - 1) * self.step + 1];
            match self.step {
                1 => to.copy_from_slice(from),
                2 => {
                    let (pairs, last) = from.as_chunks::<2>();
                    let (to_last, to) = to
                        .split_last_mut()
                        .unwrap_or_else(|| unreachable!("no row is empty"));
                    for (to, pair) in to.iter_mut().zip(pairs) {
                        *to = pair[0];
                    }
                    *to_last = last[0];
                }
                step => to
                    .iter_mut()
                    .zip(from.iter().step_by(step))
                    .for_each(|(to, from)| *to = *from),
            }
        }
    }
}
