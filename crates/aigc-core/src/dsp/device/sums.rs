//! Sums of distances of spectra, from which losses are made.

use super::LEAST_POWER;
#[cfg(feature = "flex")]
use super::{autodiff, is_flex};
use crate::dsp::Stft;
use burn::tensor::Tensor;

impl Stft {
    /// Sums over the spectra of estimates and targets, `[3]`: of squared differences of
    /// magnitudes, of the targets' squared magnitudes, and of absolute differences of natural
    /// logarithms of magnitudes. Squared magnitudes are at least `floor`. Differentiable with
    /// respect to the estimates. Also returns the number of magnitudes.
    pub(in crate::dsp) fn distances(
        &self,
        estimates: Tensor<2>,
        targets: Tensor<2>,
        floor: f64,
    ) -> (Tensor<1>, usize) {
        let ([batch, len], targets) = (estimates.dims(), targets.detach());
        assert_eq!(
            [batch, len],
            targets.dims(),
            "shapes of estimates and targets"
        );
        let (frames, floor) = (self.checked_frames(len), floor.max(LEAST_POWER));
        let count = batch * frames * self.bins();
        #[cfg(feature = "flex")]
        if is_flex(&estimates.device()) && is_flex(&targets.device()) {
            let [estimates, targets] = [estimates, targets].map(|x| self.padded_tensor(x));
            let plan = self.plan.clone();
            return (
                autodiff::distances(estimates, targets, plan, floor as f32),
                count,
            );
        }
        (self.composed_distances(estimates, targets, floor), count)
    }

    /// The sums by operations on tensors.
    fn composed_distances(
        &self,
        estimates: Tensor<2>,
        targets: Tensor<2>,
        floor: f64,
    ) -> Tensor<1> {
        let [a, b] = [estimates, targets].map(|x| self.powers(x).clamp_min(floor));
        let error = a.clone().sqrt() - b.clone().sqrt();
        let logs = (a.log() - b.clone().log()).abs() * 0.5;
        let sums = vec![(error.clone() * error).sum(), b.sum(), logs.sum()];
        Tensor::cat(sums, 0)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use crate::{
        dsp::{PadMode, StftConfig},
        rng::Rng,
        testing::{assert_close, values},
    };
    use burn::tensor::{Device, Tensor};

    /// The kernel and the operations on tensors agree, and so do their gradients. Some powers are
    /// below the floor.
    #[test]
    fn kernel_agrees_with_the_operations() {
        let device = Device::flex().autodiff();
        let mut rng = Rng::new(8);
        let x: Tensor<2> = rng.normal([3, 300], &device);
        let target = rng.normal([3, 300], &device);
        let weights = Tensor::<1>::from_floats([0.7, 0.0, -0.4], &device);
        for config in [
            StftConfig::new(64, 16),
            StftConfig::new(45, 13).with_win_length(30),
            StftConfig::new(32, 8).with_pad_mode(PadMode::Constant),
        ] {
            let stft = config.init().unwrap();
            for floor in [1e-7, 3.0] {
                let run = |fused: bool| {
                    let x = x.clone().require_grad();
                    let sums = if fused {
                        stft.distances(x.clone(), target.clone(), floor).0
                    } else {
                        stft.composed_distances(x.clone(), target.clone(), floor)
                    };
                    let grads = (sums.clone() * weights.clone()).sum().backward();
                    (values(sums), values(x.grad(&grads).unwrap()))
                };
                let ((sums, grad), (plain_sums, plain_grad)) = (run(true), run(false));
                for (a, b) in sums.iter().zip(&plain_sums) {
                    assert!((a - b).abs() < 1e-5 * b.abs(), "{a} {b}");
                }
                let largest = plain_grad.iter().fold(0.0f32, |x, y| x.max(y.abs()));
                assert_close(&grad, &plain_grad, 1e-4 * largest);
            }
        }
    }
}
