//! The short-time Fourier transform on a device, with gradients.

#[cfg(feature = "flex")]
mod autodiff;
#[cfg(feature = "flex")]
mod distances;
#[cfg(feature = "flex")]
mod flex;
mod matrix;
mod portable;
mod sums;

pub(super) use matrix::Matrix;

use super::{PadMode, Stft, stft::NO_WINDOW};
use crate::ops;
use burn::tensor::{DType, Device, Tensor, TensorData, ops::PadMode as Pad};

/// Least squared magnitude under a square root, whose slope at 0 is infinite.
pub(super) const LEAST_POWER: f64 = 1e-24;

impl Stft {
    /// Real and imaginary parts of the spectra of signals, differentiable.
    ///
    /// # Shapes
    /// - samples: `[batch, time]`
    /// - output: `[batch, bins, frames]` each
    ///
    /// # Panics
    /// If there are too few samples for a frame, which [`frames`](Self::frames) tells before.
    pub fn complex(&self, samples: Tensor<2>) -> (Tensor<3>, Tensor<3>) {
        let spectra = self.spectra(samples).swap_dims(2, 3);
        let [_, batch, bins, frames] = spectra.dims();
        let part = |index| {
            let part = spectra.clone().narrow(0, index, 1);
            part.reshape([batch, bins, frames])
        };
        (part(0), part(1))
    }

    /// Magnitudes of the spectra of signals, differentiable. Squared magnitudes are at least
    /// `floor`, where the gradient is 0: with a floor of 0 they are at least 1e-24, since the root
    /// has no slope at 0.
    ///
    /// # Shapes
    /// - samples: `[batch, time]`
    /// - output: `[batch, bins, frames]`
    ///
    /// # Panics
    /// As [`complex`](Self::complex).
    pub fn magnitude(&self, samples: Tensor<2>, floor: f64) -> Tensor<3> {
        let power = self.powers(samples).clamp_min(floor.max(LEAST_POWER));
        power.sqrt().swap_dims(1, 2)
    }

    /// The signals of spectra, as [`inverse`](Self::inverse) gives them, differentiable.
    ///
    /// # Shapes
    /// - re and im: `[batch, bins, frames]`
    /// - output: `[batch, length]`
    ///
    /// # Panics
    /// If the shapes do not fit each other or the transform, there are no frames, or the signals
    /// have no samples.
    pub fn inverse_tensor(&self, re: Tensor<3>, im: Tensor<3>, length: Option<usize>) -> Tensor<2> {
        let (plan, [batch, bins, frames]) = (&*self.plan, re.dims());
        assert_eq!(re.dims(), im.dims(), "shapes of real and imaginary parts");
        assert_eq!(bins, plan.bins, "bins of a frame of {}", plan.n_fft);
        assert!(frames > 0, "spectra without frames have no signal");
        let device = re.device();
        let [re, im] = [re, im].map(|part| ops::cast(part, DType::F32).swap_dims(1, 2));
        // The transpose counts every frequency once, a real signal all but two of them twice.
        let factor = 1.0 / (plan.n_fft as f64 * plan.scale * plan.scale);
        let weights = (0..bins).map(|bin| match bin {
            0 => factor,
            _ if 2 * bin == plan.n_fft => factor,
            _ => 2.0 * factor,
        });
        let weights = constant(weights, [1, 1, 1, bins], &device);
        let covered = plan.covered(frames);
        let signal = self.transpose(Tensor::stack::<4>(vec![re, im], 0) * weights, covered);
        let envelope = plan.envelope(frames);
        let inverse = envelope
            .iter()
            .map(|sum| if *sum > NO_WINDOW { 1.0 / sum } else { 0.0 });
        let signal = signal * constant(inverse, [1, covered], &device);
        let inside = covered.saturating_sub(plan.side);
        let length = length.unwrap_or(inside.saturating_sub(plan.side));
        let known = length.min(inside);
        assert!(
            known > 0,
            "a signal of no samples: {frames} frames, length {length}"
        );
        let signal = signal.narrow(1, plan.side, known);
        if known == length {
            return signal;
        }
        let rest = Tensor::zeros([batch, length - known], &device);
        Tensor::cat(vec![signal, rest], 1)
    }

    /// Squared magnitudes of signals, `[batch, frames, bins]`.
    pub(super) fn powers(&self, samples: Tensor<2>) -> Tensor<3> {
        let spectra = self.spectra(samples);
        let [_, batch, frames, bins] = spectra.dims();
        let power = (spectra.clone() * spectra).sum_dim(0);
        power.reshape([batch, frames, bins])
    }

    /// Spectra of signals, `[2, batch, frames, bins]`: real, then imaginary parts.
    fn spectra(&self, samples: Tensor<2>) -> Tensor<4> {
        let padded = self.padded_tensor(samples);
        #[cfg(feature = "flex")]
        if is_flex(&padded.device()) {
            return autodiff::spectra(padded, self.plan.clone());
        }
        portable::spectra(padded, &self.plan, &self.matrix)
    }

    /// The transpose of [`spectra`](Self::spectra) without padding as a linear map, to signals of
    /// `len` samples.
    fn transpose(&self, spectra: Tensor<4>, len: usize) -> Tensor<2> {
        #[cfg(feature = "flex")]
        if is_flex(&spectra.device()) {
            return autodiff::transpose(spectra, self.plan.clone(), len);
        }
        portable::transpose(spectra, &self.plan, &self.matrix, len)
    }

    /// Signals with the samples that are added on both sides, in 32 bits.
    fn padded_tensor(&self, samples: Tensor<2>) -> Tensor<2> {
        self.checked_frames(samples.dims()[1]);
        let (samples, side) = (ops::cast(samples, DType::F32), self.plan.side);
        if side == 0 {
            return samples;
        }
        let mode = match self.plan.pad_mode {
            PadMode::Reflect => Pad::Reflect,
            PadMode::Constant => Pad::Constant(0.0),
            PadMode::Replicate => Pad::Edge,
        };
        samples.pad([(side, side)], mode)
    }

    fn checked_frames(&self, len: usize) -> usize {
        self.frames(len).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// A constant of the device.
fn constant<const D: usize>(
    values: impl Iterator<Item = f64>,
    shape: [usize; D],
    device: &Device,
) -> Tensor<D> {
    let values: Vec<f32> = values.map(|x| x as f32).collect();
    let device = device.clone().without_autodiff();
    Tensor::from_data(TensorData::new(values, shape), &device)
}

/// Whether the device is the CPU with kernels of this module.
#[cfg(feature = "flex")]
fn is_flex(device: &Device) -> bool {
    use burn::backend::DispatchDevice;
    let device = device.clone().without_autodiff();
    matches!(device.as_dispatch(), DispatchDevice::Flex(_))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        dsp::{StftConfig, Window},
        rng::Rng,
        testing::{assert_close, values},
    };

    fn configs() -> Vec<Stft> {
        let config = StftConfig::new(32, 8);
        [
            config,
            StftConfig::new(45, 13).with_win_length(30),
            config.uncentered(0).with_window(Window::Hamming),
            config.uncentered(12).with_pad_mode(PadMode::Replicate),
            config.with_pad_mode(PadMode::Constant),
            StftConfig {
                normalized: true,
                ..config
            },
            StftConfig::new(16, 20).with_window(Window::Rectangular),
        ]
        .map(|config| config.init().unwrap())
        .to_vec()
    }

    /// The kernels, the products with a matrix, and the host agree, and so do their gradients.
    #[test]
    fn paths_agree() {
        let device = Device::flex().autodiff();
        let mut rng = Rng::new(5);
        let x: Tensor<2> = rng.normal([3, 200], &device);
        for stft in configs() {
            let frames = stft.frames(200).unwrap();
            let weights: Tensor<4> = rng.normal([2, 3, frames, stft.bins()], &device);
            let run = |by_matrix: bool| {
                let x = x.clone().require_grad();
                let spectra = if by_matrix {
                    portable::spectra(stft.padded_tensor(x.clone()), &stft.plan, &stft.matrix)
                } else {
                    stft.spectra(x.clone())
                };
                let grads = (spectra.clone() * weights.clone()).sum().backward();
                (values(spectra), values(x.grad(&grads).unwrap()))
            };
            let ((fast, fast_grad), (plain, plain_grad)) = (run(false), run(true));
            assert_close(&fast, &plain, 2e-5);
            assert_close(&fast_grad, &plain_grad, 5e-5);
            let row: Vec<f32> = values(x.clone().narrow(0, 1, 1));
            let host = stft.forward(&row).unwrap();
            let width = frames * stft.bins();
            let host: Vec<f32> = host.re().iter().map(|x| *x as f32).collect();
            assert_close(&fast[width..2 * width], &host, 2e-5);
        }
    }

    /// The transpose of either path has the same values and gradients.
    #[test]
    fn transposes_agree() {
        let device = Device::flex().autodiff();
        let mut rng = Rng::new(6);
        for stft in configs() {
            let len = stft.plan.covered(7) + 3;
            let spectra: Tensor<4> = rng.normal([2, 2, 7, stft.bins()], &device);
            let weights: Tensor<2> = rng.normal([2, len], &device);
            let run = |by_matrix: bool| {
                let s = spectra.clone().require_grad();
                let signal = if by_matrix {
                    portable::transpose(s.clone(), &stft.plan, &stft.matrix, len)
                } else {
                    stft.transpose(s.clone(), len)
                };
                let grads = (signal.clone() * weights.clone()).sum().backward();
                (values(signal), values(s.grad(&grads).unwrap()))
            };
            let ((fast, fast_grad), (plain, plain_grad)) = (run(false), run(true));
            assert_close(&fast, &plain, 5e-5);
            assert_close(&fast_grad, &plain_grad, 5e-5);
        }
    }

    #[test]
    fn inverse_gives_the_signal_back() {
        let x: Tensor<2> = Rng::new(7).normal([2, 300], &Device::flex());
        for config in [
            StftConfig::new(64, 16),
            StftConfig::new(45, 11),
            StftConfig {
                normalized: true,
                ..StftConfig::new(32, 8)
            },
        ] {
            let stft = config.init().unwrap();
            let (re, im) = stft.complex(x.clone());
            let found = stft.inverse_tensor(re.clone(), im.clone(), Some(290));
            assert_close(&values(found), &values(x.clone().narrow(1, 0, 290)), 1e-4);
            let spectra = stft.forward(&values(x.clone().narrow(0, 0, 1))).unwrap();
            let whole = stft.inverse_tensor(re.clone(), im.clone(), None);
            let host = stft.inverse(&spectra, None).unwrap();
            assert_close(&values(whole.narrow(0, 0, 1)), &host, 1e-4);
            assert_eq!(stft.inverse_tensor(re, im, Some(400)).dims(), [2, 400]);
        }
    }

    /// Digital silence has a magnitude and a gradient.
    #[test]
    fn silence_has_finite_gradients() {
        let x = Tensor::<2>::zeros([1, 64], &Device::flex().autodiff()).require_grad();
        let stft = StftConfig::new(16, 4).init().unwrap();
        let grads = stft.magnitude(x.clone(), 0.0).sum().backward();
        assert!(values(x.grad(&grads).unwrap()).iter().all(|g| *g == 0.0));
    }

    #[test]
    #[should_panic(expected = "`samples` is 8, expected at least 9 for frames of 16")]
    fn too_few_samples_panic() {
        let stft = StftConfig::new(16, 4).init().unwrap();
        let _ = stft.complex(Tensor::zeros([1, 8], &Device::flex()));
    }
}
