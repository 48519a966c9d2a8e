//! Single operations, forward or forward and backward.

use crate::Clock;
use aigc_core::{
    nn::Activation,
    ops::{self, GenerativeOps, OptionalTensor},
    rng::Rng,
};
use anyhow::Result;
use burn::{
    backend::{Dispatch, TensorMetadata},
    tensor::{Device, Tensor, ops::ConvOptions},
};

fn draw<const D: usize>(seed: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    Rng::new(seed).normal(shape, device)
}

/// Runs `work` until the clock says that it is enough.
fn run<T>(work: impl Fn() -> T, device: &Device, mut clock: Clock) -> Result<()> {
    loop {
        std::hint::black_box(work());
        device.sync()?;
        if !clock.tick() {
            return Ok(());
        }
    }
}

/// A convolution with padding 1 and no bias; `grads` names the gradients wanted, `x` and `w`, which are computed from a
/// given gradient of the result.
pub(crate) fn conv(
    grads: &str,
    [batch, channels_in, channels_out, side, kernel, stride]: [usize; 6],
    device: &Device,
    clock: Clock,
) -> Result<()> {
    let x = draw(1, [batch, channels_in, side, side], device).into_dispatch();
    let w = draw(2, [channels_out, channels_in, kernel, kernel], device).into_dispatch();
    let options = || ConvOptions::new([stride; 2], [1; 2], [1; 2], 1);
    let forward = || Dispatch::conv2d_forward(x.clone(), w.clone(), OptionalTensor::Missing, options());
    let dy = draw(3, forward().shape().dims::<4>(), device).into_dispatch();
    let (wants_x, wants_w) = (grads.contains('x'), grads.contains('w'));
    let all = || {
        let dx = wants_x.then(|| Dispatch::conv2d_input_grad(x.clone(), w.clone(), dy.clone(), options()));
        let dw = wants_w.then(|| Dispatch::conv2d_weight_grad(x.clone(), w.clone(), dy.clone(), options()));
        (forward(), dx, dw)
    };
    run(all, device, clock)
}

const MAPS: [usize; 4] = [32, 64, 28, 28];

/// Eight groups of 32×64×28×28.
pub(crate) fn group_norm(device: &Device, clock: Clock) -> Result<()> {
    let (x, gamma, beta) = (draw(1, MAPS, device), draw(2, [64], device), draw(3, [64], device));
    let norm = || ops::group_norm(x.clone(), gamma.clone(), beta.clone(), 8, 1e-5, Activation::Identity);
    run(norm, device, clock)
}

/// SiLU of 32×64×28×28.
pub(crate) fn silu(device: &Device, clock: Clock) -> Result<()> {
    let x = draw(1, MAPS, device);
    run(|| ops::activation(x.clone(), Activation::Silu), device, clock)
}

/// Both, with all gradients.
pub(crate) fn group_norm_silu(device: &Device, clock: Clock) -> Result<()> {
    let (x, gamma, beta) = (draw(1, MAPS, device), draw(2, [64], device), draw(3, [64], device));
    let [x, dy] = [x, draw(4, MAPS, device)].map(|maps| maps.into_dispatch());
    let [gamma, beta] = [gamma, beta].map(|channels| channels.into_dispatch());
    let all = || {
        let (x, gamma, beta) = (x.clone(), gamma.clone(), beta.clone());
        let silu = Activation::Silu;
        let (y, mean, var) = Dispatch::group_norm_forward(x.clone(), gamma.clone(), beta.clone(), 8, 1e-5, silu);
        (y, Dispatch::group_norm_grads(x, gamma, beta, mean, var, dy.clone(), 8, 1e-5, silu))
    };
    run(all, device, clock)
}
