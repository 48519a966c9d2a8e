//! Transforms of four neighbouring pixels of a row, as matrices; see `winograd::points` for their
//! derivation.

/// Pixels that are computed together.
pub(super) const OUT: usize = 4;

/// The most adjacent taps of a scheme.
pub(super) const MOST_TAPS: usize = 4;

/// The most points of a scheme.
const MOST_POINTS: usize = OUT + MOST_TAPS - 1;

/// The algorithm F(4, 3) with 6 multiplications in place of 12, or F(4, 4) with 7 in place of 16.
/// The rounding errors of the first are up to twice those of direct sums, of the second up to three
/// times.
pub(super) struct Scheme {
    /// Adjacent taps.
    pub taps: usize,
    /// From the taps to the points.
    pub kernel: [[f32; MOST_TAPS]; MOST_POINTS],
    /// From the pixels that are read to the points.
    pub input: [[f32; MOST_POINTS]; MOST_POINTS],
    /// From the points to the pixels that are computed.
    pub output: [[f32; MOST_POINTS]; OUT],
}

impl Scheme {
    /// The scheme for `taps` taps: F(4, 3) for up to three, F(4, 4) for more, which it takes four
    /// at a time: as many as a tile has pixels, so that the next term reads the next tile.
    pub(super) fn new(taps: usize) -> Self {
        let (near, far) = (std::f64::consts::FRAC_1_SQRT_2, std::f64::consts::SQRT_2);
        match taps {
            0..=3 => Self::at(&[0.0, near, -near, far, -far], 3),
            _ => Self::at(&[0.0, 1.0, -1.0, 0.5, -0.5, 2.0], 4),
        }
    }

    /// The scheme at these points and ∞.
    fn at(points: &[f64], taps: usize) -> Self {
        let mut all = Self {
            taps,
            kernel: [[0.0; MOST_TAPS]; MOST_POINTS],
            input: [[0.0; MOST_POINTS]; MOST_POINTS],
            output: [[0.0; MOST_POINTS]; OUT],
        };
        for (index, point) in points.iter().enumerate() {
            let others = || points.iter().filter(move |other| *other != point);
            let norm: f64 = others().map(|other| point - other).product();
            for (tap, factor) in all.kernel[index].iter_mut().take(taps).enumerate() {
                *factor = (point.powi(tap as i32) / norm) as f32;
            }
            for (row, output) in all.output.iter_mut().enumerate() {
                output[index] = point.powi(row as i32) as f32;
            }
            all.input[index] = polynomial(others());
        }
        let last = points.len();
        all.kernel[last][taps - 1] = 1.0;
        all.output[OUT - 1][last] = 1.0;
        all.input[last] = polynomial(points.iter());
        all
    }

    /// Multiplications, and pixels that are read.
    pub(super) fn points(&self) -> usize {
        OUT + self.taps - 1
    }
}

/// The coefficients of the polynomial with these roots, beginning with the constant.
fn polynomial<'a>(roots: impl Iterator<Item = &'a f64>) -> [f32; MOST_POINTS] {
    let mut coefficients = [0.0f64; MOST_POINTS];
    coefficients[0] = 1.0;
    for root in roots {
        for power in (0..MOST_POINTS).rev() {
            let lower = power
                .checked_sub(1)
                .map_or(0.0, |below| coefficients[below]);
            coefficients[power] = lower - root * coefficients[power];
        }
    }
    coefficients.map(|coefficient| coefficient as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_match_direct_correlation() {
        let (kernel, rows) = (
            [3.0f32, -2.0, 5.0, 1.5],
            [1.0f32, 4.0, -3.0, 2.0, 7.0, -6.0, 5.0],
        );
        for taps in [3, 4] {
            let scheme = Scheme::new(taps);
            let points = scheme.points();
            assert_eq!((scheme.taps, points), (taps, taps + 3));
            let at = |factors: &[f32], values: &[f32]| -> f32 {
                factors.iter().zip(values).map(|(a, b)| a * b).sum()
            };
            let sums: Vec<f32> = (0..points)
                .map(|point| {
                    at(&scheme.kernel[point][..taps], &kernel)
                        * at(&scheme.input[point][..points], &rows)
                })
                .collect();
            for (row, output) in scheme.output.iter().enumerate() {
                let (got, expected) = (at(output, &sums), at(&kernel[..taps], &rows[row..]));
                assert!(
                    (got - expected).abs() < 1e-4,
                    "{taps} taps, row {row}: {got}, expected {expected}"
                );
            }
        }
    }
}
