//! Arithmetic that several parts of the crate share.

use burn::tensor::Tensor;

/// `log Σ exp x` along `dim`, which keeps length 1; −∞ if all values are.
pub(crate) fn log_sum_exp<const D: usize>(x: Tensor<D>, dim: usize) -> Tensor<D> {
    let largest = x.clone().detach().max_dim(dim).clamp_min(f32::MIN);
    (x - largest.clone()).exp().sum_dim(dim).log() + largest
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
}
