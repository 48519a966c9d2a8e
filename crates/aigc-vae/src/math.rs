//! Arithmetic that several parts of the crate share.

use aigc_core::rng::Rng;
use burn::tensor::Tensor;

/// `log Σ exp x` along `dim`, which keeps length 1; −∞ if all values are.
pub(crate) fn log_sum_exp<const D: usize>(x: Tensor<D>, dim: usize) -> Tensor<D> {
    let largest = x.clone().detach().max_dim(dim).clamp_min(f32::MIN);
    (x - largest.clone()).exp().sum_dim(dim).log() + largest
}

/// The Cholesky factor of a symmetric matrix, both row by row: the lower triangular `L` with
/// `L·Lᵀ` the matrix, of which the lower triangle is read. `None` unless the matrix is positive
/// definite and finite.
pub(crate) fn cholesky(mut matrix: Vec<f64>, dim: usize) -> Option<Vec<f64>> {
    for i in 0..dim {
        for j in 0..=i {
            let (above, row) = matrix.split_at(i * dim);
            let other = if i == j { row } else { &above[j * dim..] };
            let products = row[..j].iter().zip(&other[..j]).map(|(a, b)| a * b);
            let rest = row[j] - products.sum::<f64>();
            let value = match i == j {
                true if rest > 0.0 && rest.is_finite() => rest.sqrt(),
                true => return None,
                false => rest / above[j * dim + j],
            };
            matrix[i * dim + j] = value;
        }
        matrix[i * dim + i + 1..(i + 1) * dim].fill(0.0);
    }
    Some(matrix)
}

/// A uniform number in `[0, 1)`, a multiple of 2⁻⁵³.
pub(crate) fn uniform(rng: &mut Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::values;
    use burn::tensor::Device;

    #[test]
    fn log_sum_exp_is_exact_for_huge_numbers() {
        let device = Device::flex();
        let x = Tensor::<2>::from_floats([[1000.0, 1000.0], [-1000.0, 0.0]], &device);
        let sums = values(log_sum_exp(x, 1));
        assert!(
            (sums[0] - 1000.693).abs() < 1e-3 && sums[1] == 0.0,
            "{sums:?}"
        );
    }

    #[test]
    fn log_sum_exp_of_nothing_is_negative_infinity() {
        let least = f32::NEG_INFINITY;
        let x = Tensor::<2>::from_floats([[least, least], [least, 2.0]], &Device::flex());
        assert_eq!(values(log_sum_exp(x, 1)), [least, 2.0]);
    }

    /// The example of a factor of integers, and matrices without one.
    #[test]
    fn cholesky_factors_positive_definite_matrices() {
        // The upper triangle is not read.
        let matrix = [4.0, 9.0, 9.0, 12.0, 37.0, 9.0, -16.0, -43.0, 98.0];
        let factor = cholesky(matrix.to_vec(), 3).unwrap();
        assert_eq!(factor, [2.0, 0.0, 0.0, 6.0, 1.0, 0.0, -8.0, 5.0, 3.0]);
        for matrix in [
            [1.0, 0.0, 2.0, 1.0],
            [0.0, 0.0, 0.0, 1.0],
            [f64::INFINITY, 0.0, 0.0, 1.0],
            [f64::NAN, 0.0, 0.0, 1.0],
        ] {
            assert_eq!(cholesky(matrix.to_vec(), 2), None, "{matrix:?}");
        }
    }

    #[test]
    fn uniform_numbers_are_in_their_range() {
        let mut rng = Rng::new(1);
        let drawn: Vec<f64> = (0..1000).map(|_| uniform(&mut rng)).collect();
        assert!(drawn.iter().all(|x| (0.0..1.0).contains(x)));
        // Five standard errors of a mean of numbers with the variance 1/12.
        let mean = drawn.iter().sum::<f64>() / 1000.0;
        assert!((mean - 0.5).abs() < 5.0 / 12000f64.sqrt(), "{mean}");
    }
}
