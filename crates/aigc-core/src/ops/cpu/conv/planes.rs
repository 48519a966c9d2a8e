//! Zero-padded, phase-split copies of feature maps, on which every tap of a convolution is a constant offset.

/// How a feature map `[height, width]` is laid out so that a step of `step` pixels becomes a step of one: one plane per
/// phase `(row mod step, column mod step)`, each with its share of the padding. Plane `[p, q]` holds
/// `x[i·step + p − pad, j·step + q − pad]` at `(i, j)`, zero outside.
#[derive(Clone, Debug)]
pub(crate) struct Planes {
    /// Height and width of the map.
    pub source: [usize; 2],
    pub step: [usize; 2],
    /// Rows and columns of zeros before the map; negative where the map is cut.
    pub pad: [isize; 2],
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

    /// Offset of the tap that looks `row`, `column` pixels (of the padded map) away, within a channel's planes.
    pub(crate) fn tap(&self, row: usize, column: usize) -> usize {
        let phase = [row % self.step[0], column % self.step[1]];
        let index =
            self.phases.iter().position(|p| *p == phase).unwrap_or_else(|| unreachable!("a phase that is kept"));
        (index * self.size[0] + row / self.step[0]) * self.size[1] + column / self.step[1]
    }

    /// Columns `j` of a plane of phase `phase` along `axis` that lie inside the map, and the first one's place there.
    fn inside(&self, axis: usize, phase: usize) -> (std::ops::Range<usize>, usize) {
        let (step, shift) = (self.step[axis], phase as isize - self.pad[axis]);
        let first = (-shift).max(0).cast_unsigned().div_ceil(step).min(self.size[axis]);
        let end = (self.source[axis] as isize - shift).max(0).cast_unsigned().div_ceil(step);
        let end = end.clamp(first, self.size[axis]);
        (first..end, ((first * step) as isize + shift).max(0).cast_unsigned())
    }

    /// Lays `map` out in `planes`, both of one channel.
    #[inline(always)]
    pub(crate) fn fill(&self, map: &[f32], planes: &mut [f32]) {
        let ([_, width], [rows, columns]) = (self.source, self.size);
        for (&[row_phase, column_phase], plane) in self.phases.iter().zip(planes.chunks_exact_mut(rows * columns)) {
            let (inside_rows, first_row) = self.inside(0, row_phase);
            let (inside, first_column) = self.inside(1, column_phase);
            plane[..inside_rows.start * columns].fill(0.0);
            plane[inside_rows.end * columns..].fill(0.0);
            let plane = &mut plane[inside_rows.start * columns..inside_rows.end * columns];
            for (i, row) in plane.chunks_exact_mut(columns).enumerate() {
                row[..inside.start].fill(0.0);
                row[inside.end..].fill(0.0);
                let row = &mut row[inside.clone()];
                let from = &map[(first_row + i * self.step[0]) * width..][..width];
                match self.step[1] {
                    1 => row.copy_from_slice(&from[first_column..first_column + row.len()]),
                    2 if !row.is_empty() => {
                        let (pairs, odd) = from[first_column..].as_chunks::<2>();
                        for (to, pair) in row.iter_mut().zip(pairs) {
                            *to = pair[0];
                        }
                        if pairs.len() < row.len() {
                            row[pairs.len()] = odd[0];
                        }
                    }
                    step => {
                        for (to, from) in row.iter_mut().zip(from[first_column.min(width)..].iter().step_by(step)) {
                            *to = *from;
                        }
                    }
                }
            }
        }
    }
}
