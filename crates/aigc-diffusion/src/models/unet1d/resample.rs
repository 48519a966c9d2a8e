//! Halving and doubling of the number of samples by a fixed filter.

use aigc_core::ops::{self, PaddingMode};
use burn::{
    module::{Module, Param, ParamId},
    tensor::{
        Device, Tensor,
        ops::{ConvOptions, ConvTransposeOptions},
    },
};

/// Cubic interpolation between two samples, at odd multiples of a quarter of their distance.
const CUBIC: [f32; 8] = [
    -0.011_718_75,
    -0.035_156_25,
    0.113_281_25,
    0.433_593_75,
    0.433_593_75,
    0.113_281_25,
    -0.035_156_25,
    -0.011_718_75,
];
/// Samples mirrored at both ends before halving, and before doubling.
const PADDING: [usize; 2] = [3, 2];
/// Samples removed from both ends after doubling.
const CUT: usize = 7;

/// A lowpass filter, the same for all channels. Files contain it; it is not trained.
#[derive(Module, Debug)]
pub(super) struct Lowpass {
    /// `[8]`.
    kernel: Param<Tensor<1>>,
}

impl Lowpass {
    /// The filter before every second sample is dropped.
    pub(super) fn halving(device: &Device) -> Self {
        Self::new(1.0, device)
    }

    /// The filter between samples, twice as large: every second sample that it sees is 0.
    pub(super) fn doubling(device: &Device) -> Self {
        Self::new(2.0, device)
    }

    fn new(gain: f32, device: &Device) -> Self {
        let kernel = Tensor::from_floats(CUBIC.map(|weight| gain * weight), device);
        Self {
            kernel: Param::initialized(ParamId::new(), kernel).set_require_grad(false),
        }
    }

    /// # Shapes
    /// - x: `[batch, channels, time]`
    /// - output: `[batch, channels, time / 2]`
    pub(super) fn halve(&self, x: Tensor<3>) -> Tensor<3> {
        let options = ConvOptions::new([1, 2], [0, 0], [1, 1], 1);
        self.filter(x, PADDING[0], |x, kernel| {
            ops::conv2d(x, kernel, None, options)
        })
    }

    /// # Shapes
    /// - x: `[batch, channels, time]`
    /// - output: `[batch, channels, 2·time]`
    pub(super) fn double(&self, x: Tensor<3>) -> Tensor<3> {
        let options = ConvTransposeOptions::new([1, 2], [0, CUT], [0, 0], [1, 1], 1);
        self.filter(x, PADDING[1], |x, kernel| {
            ops::conv_transpose2d(x, kernel, None, options)
        })
    }

    /// Every channel as a map of one channel and height one.
    fn filter(
        &self,
        x: Tensor<3>,
        padding: usize,
        apply: impl FnOnce(Tensor<4>, Tensor<4>) -> Tensor<4>,
    ) -> Tensor<3> {
        let [batch, channels, _] = x.dims();
        let x = ops::pad1d(x, [padding; 2], PaddingMode::Reflect);
        let time = x.dims()[2];
        let y = apply(
            x.reshape([batch * channels, 1, 1, time]),
            self.kernel.val().reshape([1, 1, 1, CUBIC.len()]),
        );
        let time = y.dims()[3];
        y.reshape([batch, channels, time])
    }
}
