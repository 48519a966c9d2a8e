//! Where networks and everything else meet.

use crate::models::{DitModel, UNet2dConditionModel, UNet2dModel};
use aigc_core::{Error, Result, data::ImageShape};
use burn::{
    module::{Module, ModuleDisplay},
    tensor::{Int, Tensor},
};

/// What a network is told besides the time.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// A class for each sample, `[batch]`.
    pub class: Option<Tensor<1, Int>>,
    /// Tokens for each sample, `[batch, tokens, width]`.
    pub tokens: Option<Tensor<3>>,
}

/// Says what noise hides, or what the noise is.
pub trait Denoiser: Module + ModuleDisplay {
    /// # Shapes
    /// - x: `[batch, channels, height, width]`, as a scheduler's `input` gives it
    /// - time: `[batch]`
    /// - output: as x, or with twice the channels, the second half a variance
    ///
    /// # Panics
    /// If the shapes do not fit, or something that the network has to be told is missing.
    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Condition) -> Tensor<4>;

    /// Whether it can be trained on images of this shape, told classes at most.
    ///
    /// # Errors
    /// [`Error::Config`] says what does not fit.
    fn fits(&self, shape: ImageShape) -> Result<()>;

    /// Number of classes that it can be told, if it is told one.
    fn classes(&self) -> Option<usize> {
        None
    }
}

/// Channels in and out are those of the images, and sides can be halved so often.
fn check(shape: ImageShape, [channels_in, channels_out]: [usize; 2], factor: usize) -> Result<()> {
    for (field, channels) in [("in_channels", channels_in), ("out_channels", channels_out)] {
        if channels != shape.channels {
            return Err(Error::config(field, channels, format!("{}, the channels of the images", shape.channels)));
        }
    }
    if shape.height.is_multiple_of(factor) && shape.width.is_multiple_of(factor) {
        return Ok(());
    }
    Err(Error::config("images", shape, format!("sides that are multiples of {factor}, for this network")))
}

impl Denoiser for UNet2dModel {
    fn fits(&self, shape: ImageShape) -> Result<()> {
        let config = self.config();
        check(shape, [config.in_channels, config.out_channels], 1 << (config.block_out_channels.len() - 1))
    }

    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Condition) -> Tensor<4> {
        self.forward(x, time, condition.class.clone())
    }

    fn classes(&self) -> Option<usize> {
        self.config().num_class_embeds
    }
}

impl Denoiser for UNet2dConditionModel {
    fn fits(&self, _shape: ImageShape) -> Result<()> {
        Err(Error::config("network", "UNet2DConditionModel", "one that looks at no tokens, to be trained here"))
    }

    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Condition) -> Tensor<4> {
        self.forward(x, time, condition.tokens.as_ref().expect("a network that looks at tokens is given some"))
    }
}

impl Denoiser for DitModel {
    fn fits(&self, shape: ImageShape) -> Result<()> {
        let config = self.config();
        check(shape, [config.in_channels, config.out_channels.unwrap_or(config.in_channels)], config.patch_size)
    }

    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Condition) -> Tensor<4> {
        self.forward(x, time, condition.class.clone().expect("a network with classes is told one"))
    }

    fn classes(&self) -> Option<usize> {
        Some(self.config().num_embeds_ada_norm + 1)
    }
}
