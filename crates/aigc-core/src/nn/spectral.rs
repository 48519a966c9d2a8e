//! Spectral normalisation.

use crate::{ops, rng::Rng};
use burn::{
    module::{Module, RunningState},
    tensor::{Device, Tensor},
};

/// Divides a weight by its largest singular value (Miyato et al. 2018,
/// <https://arxiv.org/abs/1802.05957>). The weight is read as a matrix outputs × other axes.
///
/// The singular value is estimated by one step of power iteration per forward pass on an autodiff
/// device. The vector `u` of the iteration is part of the model's state, so a resumed run continues
/// with it.
///
/// burn's reparameterisation hook is not used: it would compute the effective weight whenever the
/// parameter is read (saving, averaging, counting), instead of only in a layer's forward pass.
#[derive(Module, Debug)]
pub struct SpectralNorm {
    /// Estimate of the first left singular vector, `[outputs]`, normalised.
    pub u: RunningState<Tensor<1>>,
}

impl SpectralNorm {
    /// Creates the state for a weight with `outputs` outputs.
    pub fn new(outputs: usize, device: &Device) -> Self {
        let u = Rng::stream(0, "spectral", outputs as u64).normal([outputs], device);
        Self {
            u: RunningState::new(unit(u)),
        }
    }

    /// `weight / σ(weight)` with `σ = uᵀ·W·v`, where `u` and `v` are constants for autodiff.
    ///
    /// # Shapes
    /// - weight and output: `[outputs, …]`
    ///
    /// # Panics
    /// If the first axis does not have the number of outputs.
    pub fn normalize<const D: usize>(&self, weight: Tensor<D>) -> Tensor<D> {
        let outputs = weight.dims()[0];
        let rest = weight.shape().num_elements() / outputs;
        let matrix = weight.clone().reshape([outputs, rest]);
        let mut u = ops::cast(self.u.value_sync(), weight.dtype());
        let constant = matrix.clone().detach();
        let v = unit(
            constant
                .clone()
                .transpose()
                .matmul(u.clone().reshape([outputs, 1]))
                .reshape([rest]),
        );
        if weight.device().is_autodiff() {
            u = unit(
                constant
                    .matmul(v.clone().reshape([rest, 1]))
                    .reshape([outputs]),
            );
            self.u.update(u.clone());
        }
        let sigma = (u
            .reshape([1, outputs])
            .matmul(matrix.matmul(v.reshape([rest, 1]))))
        .clamp_min(1e-12);
        weight / sigma.reshape([1; D])
    }
}

fn unit(x: Tensor<1>) -> Tensor<1> {
    let norm = (x.clone() * x.clone()).sum().sqrt().clamp_min(1e-12);
    x / norm
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    /// Uses a matrix with known singular values: rotation · diagonal · rotation.
    #[test]
    fn normalize_sets_largest_singular_value_to_one() {
        let device = Device::flex().autodiff();
        let (c, s) = (0.8f32, 0.6f32);
        // [c −s; s c] · diag(3, 0.5) · [c s; −s c]
        let weight: [[f32; 2]; 2] = [
            [3.0 * c * c + 0.5 * s * s, 2.5 * c * s],
            [2.5 * c * s, 3.0 * s * s + 0.5 * c * c],
        ];
        let weight = Tensor::<2>::from_floats(weight, &device);
        let norm = SpectralNorm::new(2, &device);
        for _ in 0..30 {
            norm.normalize(weight.clone());
        }
        let got = (norm.normalize(weight.clone()) * 3.0 - weight.clone())
            .abs()
            .max()
            .into_scalar::<f32>();
        assert!(got < 1e-5, "{got}");
        // Without autodiff the state is not updated, and the value is the same.
        let u = norm.u.value_sync().into_data();
        let plain = norm.valid();
        let same = plain.normalize(weight.without_autodiff());
        assert_eq!(u, plain.u.value_sync().into_data());
        let largest = (same.clone().matmul(same.transpose())).trace_of();
        assert!(
            (largest - (1.0 + (0.5f32 / 3.0).powi(2))).abs() < 1e-5,
            "{largest}"
        );
    }

    trait Trace {
        fn trace_of(self) -> f32;
    }

    impl Trace for Tensor<2> {
        fn trace_of(self) -> f32 {
            let n = self.dims()[0];
            (self * Tensor::eye(n, &Device::flex()))
                .sum()
                .into_scalar::<f32>()
        }
    }

    /// d/dW of Σ G∘(W/σ) is (G − ⟨G, W/σ⟩·u·vᵀ) / σ (Miyato et al. 2018, eq. 12).
    #[test]
    fn normalize_gradient_matches_paper() {
        let device = Device::flex().autodiff();
        let mut rng = Rng::new(3);
        let weight: Tensor<2> = rng.normal([3, 4], &device).require_grad();
        let direction: Tensor<2> = rng.normal([3, 4], &device);
        let norm = SpectralNorm::new(3, &device);
        for _ in 0..200 {
            norm.normalize(weight.clone());
        }
        let normal = norm.normalize(weight.clone());
        let gradients = (normal.clone() * direction.clone()).sum().backward();
        let got = weight.grad(&gradients).unwrap();
        let (w, g) = (
            weight.detach().without_autodiff(),
            direction.without_autodiff(),
        );
        let u = norm.u.value_sync().without_autodiff().reshape([3, 1]);
        let v = w.clone().transpose().matmul(u.clone());
        let sigma = v.clone().powf_scalar(2.0).sum().sqrt().into_scalar::<f32>();
        let inner = (g.clone() * w / sigma).sum().into_scalar::<f32>();
        let expected = (g - u.matmul(v.transpose()) / sigma * inner) / sigma;
        let difference = (got - expected).abs().max().into_scalar::<f32>();
        assert!(difference < 1e-4, "{difference}");
    }
}
