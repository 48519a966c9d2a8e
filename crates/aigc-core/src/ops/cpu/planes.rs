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

    /// Lays `map` out in `planes`, both of one channel.
    #[inline(always)]
    pub(crate) fn fill(&self, map: &[f32], planes: &mut [f32]) {
        let ([height, width], [_, columns]) = (self.source, self.size);
        let plane_len = self.size[0] * self.size[1];
        for (phase, plane) in self.phases.iter().zip(planes.chunks_exact_mut(plane_len)) {
            let [row_shift, column_shift] = [0, 1].map(|axis| phase[axis] as isize - self.pad[axis]);
            // Columns j with 0 ≤ j·step + shift < width.
            let step = self.step[1];
            let first = (-column_shift).max(0).cast_unsigned().div_ceil(step).min(columns);
            let end = (width as isize - column_shift).max(0).cast_unsigned().div_ceil(step).clamp(first, columns);
            for (i, row) in plane.chunks_exact_mut(columns).enumerate() {
                let source_row = (i * self.step[0]) as isize + row_shift;
                if !(0..height as isize).contains(&source_row) || first == end {
                    row.fill(0.0);
                    continue;
                }
                let from =
                    source_row.cast_unsigned() * width + ((first * step) as isize + column_shift).cast_unsigned();
                row[..first].fill(0.0);
                let (inside, after) = row[first..].split_at_mut(end - first);
                after.fill(0.0);
                match step {
                    1 => inside.copy_from_slice(&map[from..from + inside.len()]),
                    2 => {
                        let pairs = &map[from..from + 2 * inside.len() - 1];
                        let (last, body) = inside.split_last_mut().unwrap_or_else(|| unreachable!("first < end"));
                        for (to, pair) in body.iter_mut().zip(pairs.chunks_exact(2)) {
                            *to = pair[0];
                        }
                        *last = pairs[pairs.len() - 1];
                    }
                    _ => {
                        for (to, value) in inside.iter_mut().zip(map[from..].iter().step_by(step)) {
                            *to = *value;
                        }
                    }
                }
            }
        }
    }
}

/// A stretch of pixels that lie side by side in a plane as well as in a panel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// First element in the panel.
    pub to: usize,
    /// First element in the planes of the group's first channel.
    pub from: usize,
    pub len: usize,
}

/// The runs of the pixels `pixels` of a group of maps with `grid` pixels each, whose planes lie `map_len` apart.
pub(crate) fn runs(
    pixels: std::ops::Range<usize>,
    grid: [usize; 2],
    plane_width: usize,
    map_len: usize,
    into: &mut Vec<Run>,
) {
    into.clear();
    let start = pixels.start;
    let mut at = start;
    while at < pixels.end {
        let (map, pixel) = (at / (grid[0] * grid[1]), at % (grid[0] * grid[1]));
        let (row, column) = (pixel / grid[1], pixel % grid[1]);
        let len = (grid[1] - column).min(pixels.end - at);
        into.push(Run { to: at - start, from: map * map_len + row * plane_width + column, len });
        at += len;
    }
}
