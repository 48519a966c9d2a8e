//! Factors of inverse covariance matrices.

use crate::math::cholesky;

/// The lower triangular `P` with `PᵀP = Σ⁻¹`, where `Σ` is the covariance matrix with its
/// eigenvalues raised to at least `floor`: among the matrices with such eigenvalues, the one of the
/// highest likelihood.
pub(super) fn precision_factor(mut matrix: Vec<f64>, dim: usize, floor: f64) -> Vec<f64> {
    let raised = |matrix: &[f64], by: f64| {
        let mut matrix = matrix.to_vec();
        (0..dim).for_each(|i| matrix[i * dim + i] += by);
        matrix
    };
    // A matrix minus the floor has a factor if all eigenvalues are above the floor.
    if cholesky(raised(&matrix, -floor), dim).is_none() {
        matrix = raise_eigenvalues(matrix, dim, floor);
    }
    let mut added = 0.0;
    loop {
        match cholesky(raised(&matrix, added), dim) {
            Some(factor) => return invert_lower(&factor, dim),
            // Rounding errors of a matrix of very different eigenvalues.
            None => added = f64::max(2.0 * added, floor),
        }
    }
}

/// The inverse of a lower triangular matrix.
fn invert_lower(matrix: &[f64], dim: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; dim * dim];
    for i in 0..dim {
        let diagonal = matrix[i * dim + i];
        inverse[i * dim + i] = 1.0 / diagonal;
        for j in 0..i {
            let products = (j..i).map(|k| matrix[i * dim + k] * inverse[k * dim + j]);
            inverse[i * dim + j] = -products.sum::<f64>() / diagonal;
        }
    }
    inverse
}

/// A symmetric matrix with its eigenvalues raised to at least `floor`.
fn raise_eigenvalues(matrix: Vec<f64>, dim: usize, floor: f64) -> Vec<f64> {
    let (values, vectors) = symmetric_eigen(matrix, dim);
    let mut raised = vec![0.0; dim * dim];
    for (value, vector) in values.iter().zip(vectors.chunks_exact(dim)) {
        let value = value.max(floor);
        for i in 0..dim {
            let scaled = value * vector[i];
            let row = raised[i * dim..(i + 1) * dim].iter_mut();
            row.zip(vector).for_each(|(sum, v)| *sum += scaled * v);
        }
    }
    raised
}

/// Eigenvalues and eigenvectors (in rows) of a symmetric matrix, by Jacobi's rotations (Golub and
/// Van Loan 2013, §8.5).
fn symmetric_eigen(mut a: Vec<f64>, dim: usize) -> (Vec<f64>, Vec<f64>) {
    /// Convergence is quadratic: matrices of hundreds of dimensions take about ten sweeps.
    const MAX_SWEEPS: usize = 40;
    let mut vectors = vec![0.0; dim * dim];
    (0..dim).for_each(|i| vectors[i * dim + i] = 1.0);
    let norm: f64 = a.iter().map(|x| x * x).sum();
    for _ in 0..MAX_SWEEPS {
        let below = (0..dim).flat_map(|p| (0..p).map(move |q| (p, q)));
        let rest: f64 = below.map(|(p, q)| a[p * dim + q].powi(2)).sum();
        if rest <= 1e-30 * norm {
            break;
        }
        for p in 0..dim {
            for q in p + 1..dim {
                let off = a[p * dim + q];
                if off == 0.0 {
                    continue;
                }
                let theta = (a[q * dim + q] - a[p * dim + p]) / (2.0 * off);
                let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let c = 1.0 / t.hypot(1.0);
                let s = t * c;
                for k in 0..dim {
                    let (x, y) = (a[k * dim + p], a[k * dim + q]);
                    a[k * dim + p] = c * x - s * y;
                    a[k * dim + q] = s * x + c * y;
                }
                for k in 0..dim {
                    let (x, y) = (a[p * dim + k], a[q * dim + k]);
                    a[p * dim + k] = c * x - s * y;
                    a[q * dim + k] = s * x + c * y;
                }
                for k in 0..dim {
                    let (x, y) = (vectors[p * dim + k], vectors[q * dim + k]);
                    vectors[p * dim + k] = c * x - s * y;
                    vectors[q * dim + k] = s * x + c * y;
                }
            }
        }
    }
    ((0..dim).map(|i| a[i * dim + i]).collect(), vectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_invert_the_matrix_with_raised_eigenvalues() {
        // Eigenvalues 3, 1 and 0, the last below the floor; eigenvectors by construction.
        let (u, v) = ([0.6, 0.8, 0.0], [-0.8, 0.6, 0.0]);
        let matrix = |values: [f64; 3]| {
            let entry = |k: usize| {
                let (i, j) = (k / 3, k % 3);
                let last = f64::from(u8::from(i == 2 && j == 2));
                values[0] * u[i] * u[j] + values[1] * v[i] * v[j] + values[2] * last
            };
            (0..9).map(entry).collect::<Vec<_>>()
        };
        let factor = precision_factor(matrix([3.0, 1.0, 0.0]), 3, 0.25);
        let expected = matrix([3.0, 1.0, 0.25]);
        for i in 0..3 {
            for j in 0..3 {
                // Σ·PᵀP must be the identity.
                let precision = |k: usize| {
                    (0..3)
                        .map(|m| factor[m * 3 + k] * factor[m * 3 + j])
                        .sum::<f64>()
                };
                let product: f64 = (0..3).map(|k| expected[i * 3 + k] * precision(k)).sum();
                let identity = f64::from(u8::from(i == j));
                assert!((product - identity).abs() < 1e-10, "{i} {j} {product}");
            }
        }
    }
}
