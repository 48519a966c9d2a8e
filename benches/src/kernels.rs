//! Benchmarks of single operations: forward pass, or forward and backward pass.

use crate::Clock;
use aigc_core::{
    nn::Activation,
    ops::{self, GenerativeOps, OptionalTensor},
    rng::Rng,
};
use anyhow::Result;
use burn::{
    backend::{Dispatch, TensorMetadata},
    tensor::{
        Device, Int, Tensor,
        ops::{ConvOptions, ConvTransposeOptions},
    },
};

/// Normal values.
pub(crate) fn draw<const D: usize>(seed: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    Rng::new(seed).normal(shape, device)
}

/// One run of an operation.
pub type Kernel = Box<dyn Fn()>;

/// Creates the inputs on a device, and the kernel.
pub type MakeKernel = fn(&Device) -> Kernel;

/// A kernel that waits until the device has done `work`.
pub(crate) fn kernel<T>(device: &Device, work: impl Fn() -> T + 'static) -> Kernel {
    let device = device.clone();
    Box::new(move || {
        std::hint::black_box(work());
        device.sync().expect("the device synchronises");
    })
}

/// Runs `kernel` until the clock ends.
pub(crate) fn repeat(kernel: Kernel, mut clock: Clock) -> Result<()> {
    loop {
        kernel();
        if !clock.tick() {
            return Ok(());
        }
    }
}

/// A convolution with padding 1 (1×1 kernels: none) and no bias. `grads` lists the gradients to
/// compute, `x` and `w`, from a given gradient of the result. burn's autodiff does not accept such
/// a gradient, so it is not used; PyTorch's autograd is timed, and takes microseconds.
pub(crate) fn conv(
    grads: &'static str,
    [batch, channels_in, channels_out, side, kernel_side, stride]: [usize; 6],
    device: &Device,
) -> Kernel {
    let x = draw(1, [batch, channels_in, side, side], device).into_dispatch();
    let w = draw(
        2,
        [channels_out, channels_in, kernel_side, kernel_side],
        device,
    )
    .into_dispatch();
    let padding = if kernel_side == 1 { 0 } else { 1 };
    let options = move || ConvOptions::new([stride; 2], [padding; 2], [1; 2], 1);
    let y = Dispatch::conv2d_forward(x.clone(), w.clone(), OptionalTensor::Missing, options());
    let dy = draw(3, y.shape().dims::<4>(), device).into_dispatch();
    kernel(device, move || {
        let dx = grads
            .contains('x')
            .then(|| Dispatch::conv2d_input_grad(x.shape(), w.clone(), dy.clone(), options()));
        let dw = grads
            .contains('w')
            .then(|| Dispatch::conv2d_weight_grad(x.clone(), w.clone(), dy.clone(), options()));
        (
            Dispatch::conv2d_forward(x.clone(), w.clone(), OptionalTensor::Missing, options()),
            dx,
            dw,
        )
    })
}

const MAPS: [usize; 4] = [32, 64, 28, 28];

/// Group norm of 32×64×28×28 with eight groups.
pub(crate) fn group_norm(device: &Device) -> Kernel {
    let (x, gamma, beta) = (
        draw(1, MAPS, device),
        draw(2, [64], device),
        draw(3, [64], device),
    );
    kernel(device, move || {
        ops::group_norm(
            x.clone(),
            gamma.clone(),
            beta.clone(),
            8,
            1e-5,
            Activation::Identity,
        )
    })
}

/// An activation of 32×64×28×28.
pub(crate) fn activation(activation: Activation, device: &Device) -> Kernel {
    let x = draw(1, MAPS, device);
    kernel(device, move || ops::activation(x.clone(), activation))
}

/// Group norm and SiLU, with all gradients.
pub(crate) fn group_norm_silu(device: &Device) -> Kernel {
    let (x, gamma, beta) = (
        draw(1, MAPS, device),
        draw(2, [64], device),
        draw(3, [64], device),
    );
    let [x, dy] = [x, draw(4, MAPS, device)].map(|maps| maps.into_dispatch());
    let [gamma, beta] = [gamma, beta].map(|channels| channels.into_dispatch());
    kernel(device, move || {
        let (x, gamma, beta) = (x.clone(), gamma.clone(), beta.clone());
        let silu = Activation::Silu;
        let (y, mean, var) =
            Dispatch::group_norm_forward(x.clone(), gamma.clone(), beta.clone(), 8, 1e-5, silu);
        (
            y,
            Dispatch::group_norm_grads(x, gamma, beta, mean, var, dy.clone(), 8, 1e-5, silu),
        )
    })
}

/// Batch norm of 32×64×28×28 with the statistics of the batch, and ReLU.
fn batch_norm_relu(device: &Device) -> Kernel {
    let (x, gamma, beta) = (
        draw(1, MAPS, device),
        draw(2, [64], device),
        draw(3, [64], device),
    );
    kernel(device, move || {
        ops::batch_norm(
            x.clone(),
            gamma.clone(),
            beta.clone(),
            1e-5,
            Activation::Relu,
        )
    })
}

/// A transposed 4×4 convolution with stride 2, 128 to 64 channels, from 7×7 to 14×14.
fn conv_transpose(device: &Device) -> Kernel {
    let (x, w) = (
        draw(1, [64, 128, 7, 7], device),
        draw(2, [128, 64, 4, 4], device),
    );
    let options = || ConvTransposeOptions::new([2; 2], [1; 2], [0; 2], [1; 2], 1);
    kernel(device, move || {
        ops::conv_transpose2d(x.clone(), w.clone(), None, options())
    })
}

/// Matrix product `[rows, k]·[k, columns]`.
pub(crate) fn product([rows, k, columns]: [usize; 3], device: &Device) -> Kernel {
    let (a, b) = (draw(1, [rows, k], device), draw(2, [k, columns], device));
    kernel(device, move || ops::linear(a.clone(), b.clone(), None))
}

/// Linear layer of 768 rows, from 128 to 512 features.
fn linear(device: &Device) -> Kernel {
    let (x, w, bias) = (
        draw(1, [768, 128], device),
        draw(2, [128, 512], device),
        draw(3, [512], device),
    );
    kernel(device, move || {
        ops::linear(x.clone(), w.clone(), Some(bias.clone()))
    })
}

/// Layer norm of 768 rows of 128.
fn layer_norm(device: &Device) -> Kernel {
    let (x, gamma) = (draw(1, [768, 128], device), draw(2, [128], device));
    kernel(device, move || {
        ops::layer_norm(x.clone(), gamma.clone(), None, 1e-5)
    })
}

/// Causal self-attention of 8 sequences with 12 heads of width 64.
fn attention(length: usize, device: &Device) -> Kernel {
    let qkv = draw(1, [8, length, 3 * 768], device);
    kernel(device, move || ops::self_attention(qkv.clone(), 12, true))
}

/// Cross-entropy of 768 rows of logits over 50,257 tokens.
fn cross_entropy(device: &Device) -> Kernel {
    let logits = draw(1, [768, 50_257], device);
    let targets = Tensor::<1, Int>::arange(0..768, device);
    kernel(device, move || {
        ops::cross_entropy(logits.clone(), targets.clone())
    })
}

/// The kernels of `cargo bench -p aigc-benches --bench kernels`.
pub const KERNELS: [(&str, MakeKernel); 18] = [
    ("conv1_64", |device| {
        conv("", [32, 64, 64, 28, 1, 1], device)
    }),
    ("conv1_64_xw", |device| {
        conv("xw", [32, 64, 64, 28, 1, 1], device)
    }),
    ("conv3_64", |device| {
        conv("", [32, 64, 64, 28, 3, 1], device)
    }),
    ("conv3_64_xw", |device| {
        conv("xw", [32, 64, 64, 28, 3, 1], device)
    }),
    ("conv3_32", |device| {
        conv("", [32, 32, 32, 28, 3, 1], device)
    }),
    ("conv4_64", |device| {
        conv("", [64, 64, 128, 14, 4, 2], device)
    }),
    ("conv4_64_xw", |device| {
        conv("xw", [64, 64, 128, 14, 4, 2], device)
    }),
    ("conv_transpose4_128", conv_transpose),
    ("group_norm", group_norm),
    ("group_norm_silu_xw", group_norm_silu),
    ("batch_norm_relu", batch_norm_relu),
    ("silu", |device| activation(Activation::Silu, device)),
    ("gelu", |device| activation(Activation::Gelu, device)),
    ("linear", linear),
    ("layer_norm", layer_norm),
    ("attention_64", |device| attention(64, device)),
    ("attention_1024", |device| attention(1024, device)),
    ("cross_entropy", cross_entropy),
];
