//! Windows of a grid of pixels, each with planes of its own, so that the planes of a long map stay
//! in a cache and take no more memory than those of a short one.

use super::planes::{Plan, Planes};

/// The pixels of a rectangle of the grid, and the planes that they read.
pub(super) struct Window {
    /// Row and column on the grid of the first pixel.
    pub first: [usize; 2],
    /// Height and width on the grid.
    pub size: [usize; 2],
    pub planes: Planes,
    pub plan: Plan,
    /// Offset of every tap.
    pub taps: Vec<usize>,
}

impl Window {
    /// Length of the pixels on a plane, including the padding between rows.
    pub(super) fn span(&self) -> usize {
        (self.size[0] - 1) * self.planes.size[1] + self.size[1]
    }
}

/// The axis along which a grid is cut into windows. Rows stay whole, unless there is only one.
pub(super) fn cut_axis(grid: [usize; 2]) -> usize {
    usize::from(grid[0] == 1)
}

/// The length of windows of `grid` whose planes of `channels` channels fit `bytes`, a multiple of
/// `unit` or all of the axis. Windows are at least twice as long as what two neighbours both copy.
pub(super) fn fitting(
    planes: &Planes,
    grid: [usize; 2],
    channels: usize,
    bytes: usize,
    unit: usize,
) -> usize {
    let axis = cut_axis(grid);
    let both = planes.size[axis] - grid[axis];
    let line = [4, channels, planes.phases.len(), planes.size[1 - axis]];
    let line = line.into_iter().fold(1, usize::saturating_mul);
    let most = (bytes / line).saturating_sub(both).max(2 * both).max(unit);
    even(grid[axis], most, unit)
}

/// The length of equal parts of `len`, of which each has at most `most` but for the last step to a
/// multiple of `unit`.
pub(super) fn even(len: usize, most: usize, unit: usize) -> usize {
    len.div_ceil(len.div_ceil(most)).next_multiple_of(unit)
}

/// Cuts a grid, whose pixels read `planes` at the offsets `taps`, into windows of `len` along its
/// [`cut_axis`].
pub(super) fn windows(
    planes: &Planes,
    grid: [usize; 2],
    taps: &[usize],
    len: usize,
) -> Vec<Window> {
    let axis = cut_axis(grid);
    let window = |at: usize| {
        let (mut first, mut size) = ([0; 2], grid);
        (first[axis], size[axis]) = (at, len.min(grid[axis] - at));
        let read = [0, 1].map(|axis| planes.size[axis] - grid[axis] + size[axis]);
        let window = planes.window(first, read);
        Window {
            first,
            size,
            plan: window.plan(),
            taps: taps.iter().map(|tap| planes.moved(*tap, &window)).collect(),
            planes: window,
        }
    };
    (0..grid[axis]).step_by(len).map(window).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    /// At every tap, the pixels of a window read what they read on whole planes.
    #[test]
    fn windows_read_what_whole_planes_hold() {
        let mut rng = Rng::new(3);
        for source in [[1, 90], [23, 9], [1, 3], [7, 1]] {
            for (stride, pad, reach) in [(1, 0, 0), (1, 4, 9), (2, 3, 6), (3, 20, 8), (4, 1, 40)] {
                let grid = source.map(|len: usize| match len {
                    1 => 1,
                    _ => len / stride + 2,
                });
                let strides = source.map(|len| if len == 1 { 1 } else { stride });
                let pad = source.map(|len| if len == 1 { 0 } else { pad });
                let taps_of = |axis: usize| match source[axis] {
                    1 => vec![0],
                    _ => vec![0, reach / 2, reach],
                };
                let mut phases = Vec::new();
                for row in taps_of(0) {
                    for column in taps_of(1) {
                        phases.push([row % strides[0], column % strides[1]]);
                    }
                }
                phases.sort_unstable();
                phases.dedup();
                let planes = Planes {
                    source,
                    stride: strides,
                    pad,
                    phases,
                    first: [0; 2],
                    size: [0, 1].map(|axis| {
                        grid[axis] + taps_of(axis).into_iter().max().unwrap_or(0) / strides[axis]
                    }),
                };
                let taps: Vec<usize> = taps_of(0)
                    .into_iter()
                    .flat_map(|row| taps_of(1).into_iter().map(move |column| [row, column]))
                    .map(|[row, column]| planes.tap(row, column))
                    .collect();
                let map = rng.normals(source[0] * source[1]);
                let filled = |planes: &Planes| {
                    let mut values = vec![f32::NAN; planes.channel_len()];
                    planes.plan().fill(&map, &mut values);
                    values
                };
                let whole = filled(&planes);
                let axis = cut_axis(grid);
                for len in [1, 5, grid[axis]] {
                    let mut pixels = 0;
                    for window in windows(&planes, grid, &taps, len) {
                        let part = filled(&window.planes);
                        for pixel in 0..window.size[0] * window.size[1] {
                            let [row, column] = [pixel / window.size[1], pixel % window.size[1]];
                            let at =
                                (window.first[0] + row) * planes.size[1] + window.first[1] + column;
                            let in_window = row * window.planes.size[1] + column;
                            for (tap, moved) in taps.iter().zip(&window.taps) {
                                assert_eq!(part[in_window + moved], whole[at + tap]);
                            }
                            pixels += 1;
                        }
                    }
                    assert_eq!(pixels, grid[0] * grid[1]);
                }
            }
        }
    }

    #[test]
    fn windows_fit_a_cache() {
        let planes = Planes {
            source: [1, 8000],
            stride: [1; 2],
            pad: [0, 3],
            phases: vec![[0; 2]],
            first: [0; 2],
            size: [1, 8006],
        };
        // 512 columns of 256 channels fit, of which six are read by the next window too.
        let len = fitting(&planes, [1, 8000], 256, 512 * 1024, 48);
        assert_eq!(len, 528);
        assert_eq!(fitting(&planes, [1, 8000], 1 << 40, 512 * 1024, 48), 48);
        assert_eq!(fitting(&planes, [1, 8000], 1, 1 << 20, 1), 8000);
        assert_eq!([even(20, 8, 1), even(20, 8, 8), even(1, 64, 8)], [7, 8, 8]);
    }
}
