//! Single operations, forward or forward and backward.

use crate::Clock;
use aigc_core::{nn::Activation, ops, rng::Rng};
use anyhow::Result;
use burn::tensor::{Device, Tensor, ops::ConvOptions};

fn draw<const D: usize>(seed: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    Rng::new(seed).normal(shape, device)
}

/// Runs `forward`, and where `backward` the gradients of what it was given, until the clock says that it is enough.
fn run<const D: usize>(
    forward: impl Fn() -> Tensor<D>,
    backward: bool,
    device: &Device,
    mut clock: Clock,
) -> Result<()> {
    loop {
        let y = forward();
        if backward {
            // Of something that is no scalar, the gradient that is handed in is ones.
            std::hint::black_box(y.backward());
        } else {
            std::hint::black_box(y);
        }
        device.sync()?;
        if !clock.tick() {
            return Ok(());
        }
    }
}

/// A convolution with padding 1 and no bias; `grads` names the gradients wanted, `x` and `w`.
pub(crate) fn conv(
    grads: &str,
    [batch, channels_in, channels_out, side, kernel, stride]: [usize; 6],
    device: &Device,
    clock: Clock,
) -> Result<()> {
    let on = if grads.is_empty() { device.clone() } else { device.clone().autodiff() };
    let x = draw(1, [batch, channels_in, side, side], &on).set_require_grad(grads.contains('x'));
    let w = draw(2, [channels_out, channels_in, kernel, kernel], &on).set_require_grad(grads.contains('w'));
    let options = ConvOptions::new([stride; 2], [1; 2], [1; 2], 1);
    run(|| ops::conv2d(x.clone(), w.clone(), None, options.clone()), !grads.is_empty(), &on, clock)
}

const MAPS: [usize; 4] = [32, 64, 28, 28];

/// Eight groups of 32×64×28×28.
pub(crate) fn group_norm(device: &Device, clock: Clock) -> Result<()> {
    let (x, gamma, beta) = (draw(1, MAPS, device), draw(2, [64], device), draw(3, [64], device));
    let norm = || ops::group_norm(x.clone(), gamma.clone(), beta.clone(), 8, 1e-5, Activation::Identity);
    run(norm, false, device, clock)
}

/// SiLU of 32×64×28×28.
pub(crate) fn silu(device: &Device, clock: Clock) -> Result<()> {
    let x = draw(1, MAPS, device);
    run(|| ops::activation(x.clone(), Activation::Silu), false, device, clock)
}

/// Both, with all gradients.
pub(crate) fn group_norm_silu(device: &Device, clock: Clock) -> Result<()> {
    let on = device.clone().autodiff();
    let x = draw(1, MAPS, &on).require_grad();
    let (gamma, beta) = (draw(2, [64], &on).require_grad(), draw(3, [64], &on).require_grad());
    let norm = || ops::group_norm(x.clone(), gamma.clone(), beta.clone(), 8, 1e-5, Activation::Silu);
    run(norm, true, &on, clock)
}
