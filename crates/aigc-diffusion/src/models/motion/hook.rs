//! Places between the layers of a U-net of images where a network over frames adds its own.

use crate::denoiser::{Conditioning, Denoiser};
use burn::tensor::Tensor;

/// A layer of a U-net. Blocks and layers are numbered in the order in which they are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UNetLayer {
    /// The first convolution.
    Input,
    /// A layer of the encoder.
    Down {
        /// Number of the block.
        block: usize,
        /// Number of the layer in the block.
        layer: usize,
    },
    /// A layer at the smallest size: convolutions before (0) and after (1) the attention.
    Middle {
        /// Number of the layer.
        layer: usize,
    },
    /// A layer of the decoder.
    Up {
        /// Number of the block.
        block: usize,
        /// Number of the layer in the block.
        layer: usize,
    },
}

impl UNetLayer {
    /// The block of this layer among those of a network, and the number of the layer in the block.
    /// `None` for the first convolution, and at the smallest size if there is no `middle`.
    pub(crate) fn find<'a, B>(
        self,
        down: &'a [B],
        middle: Option<&'a B>,
        up: &'a [B],
    ) -> Option<(&'a B, usize)> {
        match self {
            Self::Input => None,
            Self::Down { block, layer } => Some((&down[block], layer)),
            Self::Middle { layer } => middle.map(|block| (block, layer)),
            Self::Up { block, layer } => Some((&up[block], layer)),
        }
    }
}

/// What is computed between the layers of a U-net. Both methods return maps of the shape that they
/// receive, `[batch, channels, height, width]`; by default the same maps.
pub trait LayerHook {
    /// After the convolutions of a layer, before its attention.
    fn after_convolutions(&self, layer: UNetLayer, x: Tensor<4>) -> Tensor<4> {
        let _ = layer;
        x
    }

    /// At the end of a layer: after its attention, or after its convolutions if it has none. At the
    /// smallest size, only layer 0 has an end of this kind.
    fn after_layer(&self, layer: UNetLayer, x: Tensor<4>) -> Tensor<4> {
        let _ = layer;
        x
    }
}

/// Nothing is computed between the layers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoHook;

impl LayerHook for NoHook {}

/// The sizes of a U-net that layers between its own have to fit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UNetLayout {
    /// Channels at each size, from the largest on.
    pub block_out_channels: Vec<usize>,
    /// Layers of each encoder block; decoder blocks have one more.
    pub layers_per_block: usize,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
}

impl UNetLayout {
    /// A layout of these values.
    pub fn new(
        block_out_channels: &[usize],
        layers_per_block: usize,
        norm_num_groups: usize,
    ) -> Self {
        Self {
            block_out_channels: block_out_channels.to_vec(),
            layers_per_block,
            norm_num_groups,
        }
    }
}

/// A U-net of images with places between its layers.
pub trait HookedUNet: Denoiser<4> {
    /// [`predict`](Denoiser::predict) with `hook` between the layers. A hook that returns what it
    /// receives changes no bit of the output.
    ///
    /// # Panics
    /// As [`predict`](Denoiser::predict), and those of the hook.
    fn predict_hooked(
        &self,
        x: Tensor<4>,
        time: Tensor<1>,
        condition: &Conditioning,
        hook: &dyn LayerHook,
    ) -> Tensor<4>;

    /// Numbers of blocks, layers and channels.
    fn layout(&self) -> UNetLayout;
}
