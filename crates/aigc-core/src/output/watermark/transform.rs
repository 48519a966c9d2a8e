//! Low frequencies of the discrete cosine transform of whole images.

/// Number of frequencies of each axis.
pub(super) const SIDE: usize = 128;

/// The orthonormal DCT-II of images of one size, restricted to the first [`SIDE`] frequencies of
/// each axis. Frequencies count half periods per image, so that a resized image has the same
/// coefficients up to a common factor.
pub(super) struct LowFrequencies {
    rows: Basis,
    columns: Basis,
}

/// Cosines of one axis, in both orders: each loop below adds multiples of contiguous rows, which
/// compiles to vector instructions.
struct Basis {
    len: usize,
    count: usize,
    /// `[len, count]`
    by_sample: Vec<f32>,
    /// `[count, len]`
    by_frequency: Vec<f32>,
}

impl Basis {
    fn new(len: usize) -> Self {
        let count = len.min(SIDE);
        let cosine = |sample: usize, frequency: usize| {
            let norm = if frequency == 0 { 1.0 } else { 2.0 } / len as f64;
            // Whole periods are taken off in integers, where nothing is rounded.
            let phase = ((2 * sample + 1) * frequency) % (4 * len);
            (norm.sqrt() * (std::f64::consts::PI * phase as f64 / (2 * len) as f64).cos()) as f32
        };
        let all = |outer: usize, inner: usize, value: &dyn Fn(usize, usize) -> f32| {
            (0..outer * inner)
                .map(|i| value(i / inner, i % inner))
                .collect()
        };
        Self {
            len,
            count,
            by_sample: all(len, count, &cosine),
            by_frequency: all(count, len, &|frequency, sample| cosine(sample, frequency)),
        }
    }
}

/// `sum += factor · x`
fn add_scaled(sum: &mut [f32], factor: f32, x: &[f32]) {
    for (sum, x) in sum.iter_mut().zip(x) {
        *sum += factor * x;
    }
}

impl LowFrequencies {
    /// The transform of images of `height × width`.
    pub(super) fn new(height: usize, width: usize) -> Self {
        Self {
            rows: Basis::new(height),
            columns: Basis::new(width),
        }
    }

    /// Coefficients `[SIDE, SIDE]`, vertical frequencies first, of a plane `[height, width]`; 0 for
    /// frequencies that the size does not have.
    pub(super) fn forward(&self, plane: &[f32]) -> Vec<f32> {
        let mut coefficients = vec![0.0; SIDE * SIDE];
        let mut of_row = vec![0.0; self.columns.count];
        for (row, values) in plane.chunks_exact(self.columns.len).enumerate() {
            of_row.fill(0.0);
            let cosines = self.columns.by_sample.chunks_exact(self.columns.count);
            for (value, cosines) in values.iter().zip(cosines) {
                add_scaled(&mut of_row, *value, cosines);
            }
            let cosines = &self.rows.by_sample[row * self.rows.count..][..self.rows.count];
            for (cosine, sum) in cosines.iter().zip(coefficients.chunks_exact_mut(SIDE)) {
                add_scaled(sum, *cosine, &of_row);
            }
        }
        coefficients
    }

    /// The plane `[height, width]` with these coefficients `[SIDE, SIDE]`.
    pub(super) fn inverse(&self, coefficients: &[f32]) -> Vec<f32> {
        let mut plane = vec![0.0; self.rows.len * self.columns.len];
        let mut of_row = vec![0.0; self.columns.count];
        for (row, values) in plane.chunks_exact_mut(self.columns.len).enumerate() {
            of_row.fill(0.0);
            let cosines = &self.rows.by_sample[row * self.rows.count..][..self.rows.count];
            for (cosine, coefficients) in cosines.iter().zip(coefficients.chunks_exact(SIDE)) {
                add_scaled(&mut of_row, *cosine, coefficients);
            }
            let cosines = self.columns.by_frequency.chunks_exact(self.columns.len);
            for (coefficient, cosines) in of_row.iter().zip(cosines) {
                add_scaled(values, *coefficient, cosines);
            }
        }
        plane
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A product of two cosines has one coefficient, whatever the size of the image.
    #[test]
    fn cosine_has_one_coefficient() {
        for (height, width) in [(40, 70), (200, 131)] {
            let transform = LowFrequencies::new(height, width);
            let wave = |i: usize, len: usize, frequency: f64| {
                (std::f64::consts::PI * (i as f64 + 0.5) * frequency / len as f64).cos()
            };
            let plane: Vec<f32> = (0..height * width)
                .map(|i| (wave(i / width, height, 7.0) * wave(i % width, width, 30.0)) as f32)
                .collect();
            let coefficients = transform.forward(&plane);
            let expected = ((height * width) as f32).sqrt() / 2.0;
            for (i, coefficient) in coefficients.iter().enumerate() {
                let expected = if i == 7 * SIDE + 30 { expected } else { 0.0 };
                assert!((coefficient - expected).abs() < 1e-3, "{i}: {coefficient}");
            }
            let back = transform.inverse(&coefficients);
            assert!(back.iter().zip(&plane).all(|(a, b)| (a - b).abs() < 1e-4));
        }
    }
}
