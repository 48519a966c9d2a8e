//! Parts of an image at each displacement, and their normalised values.

use crate::data::ImageShape;

/// Cells of the grid of averages, per side.
const GRID: usize = 6;

/// Standard deviation below which an image has no contrast: half a grey level.
const FLAT: f64 = 0.5 / 255.0;

/// The motion of a copy against the original: a flip, then a shift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alignment {
    /// Whether the copy is flipped horizontally.
    pub flipped: bool,
    /// Rows by which the copy is shifted down.
    pub down: isize,
    /// Columns by which the copy is shifted to the right.
    pub right: isize,
}

/// Where the center of a training image may be in a sample.
#[derive(Clone, Debug)]
pub(super) struct Windows {
    /// Shape of the images.
    pub(super) shape: ImageShape,
    /// Shape of the center.
    pub(super) center: ImageShape,
    /// The alignments compared, smallest first: of equally near ones the smallest is reported.
    pub(super) alignments: Vec<Alignment>,
    margin: usize,
}

impl Windows {
    /// The windows in images of `shape`, whose sides are above `2·max_shift`.
    pub(super) fn new(shape: ImageShape, max_shift: usize, flips: bool) -> Self {
        let shifts = -(max_shift as isize)..=max_shift as isize;
        let mut alignments = Vec::new();
        for flipped in [false, true].into_iter().take(1 + usize::from(flips)) {
            for down in shifts.clone() {
                for right in shifts.clone() {
                    alignments.push(Alignment {
                        flipped,
                        down,
                        right,
                    });
                }
            }
        }
        alignments.sort_by_key(|a| (a.flipped, a.down.abs() + a.right.abs()));
        Self {
            center: ImageShape::new(
                shape.channels,
                shape.height - 2 * max_shift,
                shape.width - 2 * max_shift,
            ),
            shape,
            alignments,
            margin: max_shift,
        }
    }

    /// Number of values of a window.
    pub(super) fn len(&self) -> usize {
        self.center.numel()
    }

    /// Number of averages of a window.
    pub(super) fn num_cells(&self) -> usize {
        self.center.channels * GRID.min(self.center.height) * GRID.min(self.center.width)
    }

    /// Appends the window of `image` that holds the center of the original if `alignment` is its
    /// motion.
    pub(super) fn extract(&self, image: &[f32], alignment: Alignment, values: &mut Vec<f32>) {
        let ImageShape { height, width, .. } = self.shape;
        let top = (self.margin as isize + alignment.down) as usize;
        // A flipped copy is flipped back: what was shifted to the right is then on the left.
        let right = if alignment.flipped {
            -alignment.right
        } else {
            alignment.right
        };
        let left = (self.margin as isize + right) as usize;
        for plane in image.chunks_exact(height * width) {
            for row in plane.chunks_exact(width).skip(top).take(self.center.height) {
                if alignment.flipped {
                    let back = row.iter().rev().skip(left).take(self.center.width);
                    values.extend(back);
                } else {
                    values.extend(&row[left..left + self.center.width]);
                }
            }
        }
    }

    /// Appends the averages of a window over a grid of cells.
    pub(super) fn average(&self, window: &[f32], cells: &mut Vec<f32>) {
        let ImageShape { height, width, .. } = self.center;
        let (rows, columns) = (GRID.min(height), GRID.min(width));
        for plane in window.chunks_exact(height * width) {
            for i in 0..rows {
                let (top, bottom) = (i * height / rows, (i + 1) * height / rows);
                for j in 0..columns {
                    let (left, right) = (j * width / columns, (j + 1) * width / columns);
                    let sum: f32 = (top..bottom)
                        .map(|y| plane[y * width..][left..right].iter().sum::<f32>())
                        .sum();
                    cells.push(sum / ((bottom - top) * (right - left)) as f32);
                }
            }
        }
    }
}

/// Subtracts the mean and divides by the norm. Values without contrast become 0.
pub(super) fn normalize(values: &mut [f32]) {
    let n = values.len() as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let squares = values.iter().map(|v| (f64::from(*v) - mean).powi(2));
    let norm = squares.sum::<f64>().sqrt();
    let scale = if norm < FLAT * n.sqrt() {
        0.0
    } else {
        1.0 / norm
    };
    for value in values {
        *value = ((f64::from(*value) - mean) * scale) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_follow_shift_and_flip() {
        let windows = Windows::new(ImageShape::new(1, 4, 5), 1, true);
        assert_eq!((windows.alignments.len(), windows.len()), (18, 6));
        assert_eq!(windows.alignments[0], Alignment::default());
        let original: Vec<f32> = (0..20).map(|i| i as f32).collect();
        let mut center = Vec::new();
        windows.extract(&original, Alignment::default(), &mut center);
        assert_eq!(center, [6.0, 7.0, 8.0, 11.0, 12.0, 13.0]);
        for alignment in windows.alignments.clone() {
            // The copy: flipped, then shifted.
            let pixel = |y: isize, x: isize| {
                let (y, x) = (y - alignment.down, x - alignment.right);
                let x = if alignment.flipped { 4 - x } else { x };
                match (0..4).contains(&y) && (0..5).contains(&x) {
                    true => original[(y * 5 + x) as usize],
                    false => -1.0,
                }
            };
            let copy: Vec<f32> = (0..20).map(|i| pixel(i / 5, i % 5)).collect();
            let mut window = Vec::new();
            windows.extract(&copy, alignment, &mut window);
            assert_eq!(window, center, "{alignment:?}");
        }
    }

    #[test]
    fn averages_match_means_of_cells() {
        let windows = Windows::new(ImageShape::new(1, 14, 12), 1, false);
        assert_eq!(windows.num_cells(), 36);
        let window: Vec<f32> = (0..120).map(|i| (i % 10) as f32).collect();
        let windows_small = Windows::new(ImageShape::new(2, 5, 6), 1, false);
        assert_eq!(windows_small.num_cells(), 24);
        let mut cells = Vec::new();
        windows.average(&window, &mut cells);
        // Ten columns in six cells: 0, 1–2, 3–4, 5, 6–7, 8–9.
        assert_eq!(cells.len(), windows.num_cells());
        assert_eq!(cells[..6], [0.0, 1.5, 3.5, 5.0, 6.5, 8.5]);
    }

    #[test]
    fn brightness_and_contrast_are_removed() {
        let mut a: Vec<f32> = (0..12).map(|i| (i as f32).sin()).collect();
        let mut b: Vec<f32> = a.iter().map(|v| 0.5 * v + 0.3).collect();
        normalize(&mut a);
        normalize(&mut b);
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6));
        assert!((a.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-6);
        let mut flat = [0.7; 9];
        normalize(&mut flat);
        assert_eq!(flat, [0.0; 9]);
    }
}
