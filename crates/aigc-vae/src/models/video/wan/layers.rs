//! Residual blocks and attention. Fields have the names of weights in diffusers' files.

use super::{
    super::{into_batch, out_of_batch},
    cache::{Cache, causal},
};
use aigc_core::{
    nn::{Activation, Conv2d, Conv2dConfig, Conv3d, Conv3dConfig, Initializer},
    ops,
};
use burn::{
    module::{Module, Param},
    tensor::{DType, Device, Tensor},
};

/// The square of the least length of a vector that is divided by, 10⁻¹².
const LEAST_SQUARE: f64 = 1e-24;

/// A convolution that [`causal`] applies, with frames of the same size.
pub(super) fn causal_conv(channels: [usize; 2], device: &Device) -> Conv3d {
    Conv3dConfig::new(channels, [3, 3, 3])
        .with_padding([0, 1, 1])
        .init(device)
}

/// A convolution of single pixels.
pub(super) fn pointwise(channels: [usize; 2], device: &Device) -> Conv3d {
    Conv3dConfig::new(channels, [1, 1, 1]).init(device)
}

/// `x / ‖x‖·√channels·γ`, with the length over the channels of each pixel; in 32 bits also for `x`
/// in half precision, whose squares overflow.
fn normed(x: Tensor<5>, gamma: Tensor<5>) -> Tensor<5> {
    let dtype = x.dtype();
    let x = match dtype {
        DType::F16 | DType::BF16 => ops::cast(x, DType::F32),
        _ => x,
    };
    let channels = x.dims()[1] as f64;
    // Clamped before the root, whose slope at 0 is infinite.
    let square = (x.clone() * x.clone()).sum_dim(1);
    let length = square.clamp_min(LEAST_SQUARE).sqrt();
    let gamma = ops::cast(gamma, x.dtype()) * channels.sqrt();
    ops::cast(x / length * gamma, dtype)
}

/// A norm of root mean squares over channels. Its name does not end in `Norm`: the files call its
/// weight `gamma`, not `weight`.
#[derive(Module, Debug)]
pub(super) struct ChannelRms {
    /// `[channels, 1, 1, 1]`
    gamma: Param<Tensor<4>>,
}

impl ChannelRms {
    pub(super) fn new(channels: usize, device: &Device) -> Self {
        let gamma = Initializer::ONES.param([channels, 1, 1, 1], channels, channels, device);
        Self { gamma }
    }

    pub(super) fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        normed(x, self.gamma.val().unsqueeze::<5>())
    }
}

/// [`ChannelRms`] of single frames.
#[derive(Module, Debug)]
struct FrameRms {
    /// `[channels, 1, 1]`
    gamma: Param<Tensor<3>>,
}

/// Two convolutions around a skip.
#[derive(Module, Debug)]
pub(super) struct ResidualBlock {
    norm1: ChannelRms,
    conv1: Conv3d,
    norm2: ChannelRms,
    conv2: Conv3d,
    conv_shortcut: Option<Conv3d>,
}

impl ResidualBlock {
    pub(super) fn new([from, to]: [usize; 2], device: &Device) -> Self {
        Self {
            norm1: ChannelRms::new(from, device),
            conv1: causal_conv([from, to], device),
            norm2: ChannelRms::new(to, device),
            conv2: causal_conv([to, to], device),
            conv_shortcut: (from != to).then(|| pointwise([from, to], device)),
        }
    }

    /// `count` blocks, of which the first changes the number of channels.
    pub(super) fn several([from, to]: [usize; 2], count: usize, device: &Device) -> Vec<Self> {
        let block = |i| Self::new([if i == 0 { from } else { to }, to], device);
        (0..count).map(block).collect()
    }

    pub(super) fn forward(&self, x: Tensor<5>, cache: &mut Cache) -> Tensor<5> {
        let mut h = x.clone();
        for (norm, conv) in [(&self.norm1, &self.conv1), (&self.norm2, &self.conv2)] {
            h = causal(conv, Activation::Silu.forward(norm.forward(h)), cache);
        }
        match &self.conv_shortcut {
            Some(shortcut) => h + shortcut.forward(x),
            None => h + x,
        }
    }
}

/// Attention of the pixels of a frame to each other, around a skip.
#[derive(Module, Debug)]
struct AttentionBlock {
    norm: FrameRms,
    to_qkv: Conv2d,
    proj: Conv2d,
}

impl AttentionBlock {
    fn new(channels: usize, device: &Device) -> Self {
        let gamma = Initializer::ONES.param([channels, 1, 1], channels, channels, device);
        Self {
            norm: FrameRms { gamma },
            to_qkv: Conv2dConfig::new([channels, 3 * channels], 1).init(device),
            proj: Conv2dConfig::new([channels, channels], 1).init(device),
        }
    }

    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let [_, channels, frames, height, width] = x.dims();
        let gamma = self.norm.gamma.val().reshape([1, channels, 1, 1, 1]);
        let qkv = self.to_qkv.forward(into_batch(normed(x.clone(), gamma)));
        let (rows, pixels) = (qkv.dims()[0], height * width);
        let qkv = qkv.reshape([rows, 3 * channels, pixels]).swap_dims(1, 2);
        let h = ops::self_attention(ops::contiguous(qkv), 1, false).swap_dims(1, 2);
        let h = ops::contiguous(h).reshape([rows, channels, height, width]);
        x + out_of_batch(self.proj.forward(h), frames)
    }
}

/// The blocks at the smallest size: a residual block, attention, a residual block.
#[derive(Module, Debug)]
pub(super) struct MidBlock {
    attentions: Vec<AttentionBlock>,
    resnets: Vec<ResidualBlock>,
}

impl MidBlock {
    pub(super) fn new(channels: usize, device: &Device) -> Self {
        Self {
            attentions: vec![AttentionBlock::new(channels, device)],
            resnets: ResidualBlock::several([channels, channels], 2, device),
        }
    }

    pub(super) fn forward(&self, x: Tensor<5>, cache: &mut Cache) -> Tensor<5> {
        let x = self.resnets[0].forward(x, cache);
        let layers = self.attentions.iter().zip(&self.resnets[1..]);
        layers.fold(x, |x, (attention, resnet)| {
            resnet.forward(attention.forward(x), cache)
        })
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::{assert_close, values};

    #[test]
    fn norms_are_over_the_channels_of_a_pixel() {
        let device = Device::flex();
        let mut norm = ChannelRms::new(2, &device);
        let gamma = Tensor::<1>::from_floats([1.0, -2.0], &device);
        norm.gamma = Param::from_tensor(gamma.reshape([2, 1, 1, 1]));
        let x = Tensor::<1>::from_floats([3.0, 0.0, 4.0, 0.0], &device);
        let found = values(norm.forward(x.reshape([1, 2, 1, 1, 2])));
        let root = 2.0f32.sqrt();
        assert_close(&found, &[0.6 * root, 0.0, -1.6 * root, 0.0], 1e-6);
    }

    /// The gradient at a pixel of zeros is finite.
    #[test]
    fn zeros_have_gradients() {
        let device = Device::flex().autodiff();
        let norm = ChannelRms::new(2, &device);
        let x = Tensor::<5>::zeros([1, 2, 1, 1, 1], &device).require_grad();
        let gradient = x.grad(&norm.forward(x.clone()).sum().backward()).unwrap();
        assert!(values(gradient).iter().all(|x| x.is_finite()));
    }
}
