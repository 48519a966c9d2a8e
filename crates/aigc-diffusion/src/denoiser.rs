//! Where networks and everything else meet.

use crate::models::{DitModel, UNet2dConditionModel, UNet2dModel};
use aigc_core::{Error, Result, data::ImageShape};
use burn::{
    module::{Module, ModuleDisplay},
    tensor::{Int, Tensor},
};

/// What a network is told besides the time.
#[derive(Clone, Debug, Default)]
pub struct Conditioning {
    /// A class for each sample, `[batch]`.
    pub class_labels: Option<Tensor<1, Int>>,
    /// Tokens for each sample, `[batch, tokens, width]`.
    pub encoder_hidden_states: Option<Tensor<3>>,
    /// The clean samples that the network made of these before, as x; seen by networks that are
    /// [self-conditioned](Denoiser::supports_self_conditioning).
    pub self_cond: Option<Tensor<4>>,
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
    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Conditioning) -> Tensor<4>;

    /// Whether it can be trained on images of this shape, told classes at most.
    ///
    /// # Errors
    /// [`Error::Config`] says what does not fit.
    fn check_trainable(&self, shape: ImageShape) -> Result<()>;

    /// Whether it can make samples of this shape, told whatever it has to be told. A variance
    /// beside what it says is no hindrance.
    ///
    /// # Errors
    /// [`Error::Config`] says what does not fit.
    fn check_shape(&self, shape: ImageShape) -> Result<()> {
        self.check_trainable(shape)
    }

    /// Width of the tokens that it has to be told, if it looks at any.
    fn cross_attention_dim(&self) -> Option<usize> {
        None
    }

    /// Number of classes that it can be told, if it is told one.
    fn num_classes(&self) -> Option<usize> {
        None
    }

    /// Whether it has channels for what it made of samples of so many channels before.
    fn supports_self_conditioning(&self, channels: usize) -> bool {
        let _ = channels;
        false
    }
}

/// Channels in are those of the images, or twice as many where the network looks back; channels out
/// are those of the images; or twice as many with a variance, if one is `allowed`; and sides can be
/// halved so often.
fn check(
    shape: ImageShape,
    [channels_in, channels_out]: [usize; 2],
    factor: usize,
    allowed: bool,
) -> Result<()> {
    let expected = format!("{}, the channels of the images", shape.channels);
    if channels_in != shape.channels && channels_in != 2 * shape.channels {
        return Err(Error::config("in_channels", channels_in, expected));
    }
    if channels_out != shape.channels && !(allowed && channels_out == 2 * shape.channels) {
        return Err(Error::config("out_channels", channels_out, expected));
    }
    if shape.height.is_multiple_of(factor) && shape.width.is_multiple_of(factor) {
        return Ok(());
    }
    Err(Error::config(
        "images",
        shape,
        format!("sides that are multiples of {factor}, for this network"),
    ))
}

/// The sample and what was made of it before, or nothing yet, for a network with channels for both.
fn beside(x: Tensor<4>, channels: usize, condition: &Conditioning) -> Tensor<4> {
    if channels != 2 * x.dims()[1] {
        return x;
    }
    let made = condition
        .self_cond
        .clone()
        .unwrap_or_else(|| x.zeros_like());
    Tensor::cat(vec![x, made], 1)
}

impl Denoiser for UNet2dModel {
    fn check_trainable(&self, shape: ImageShape) -> Result<()> {
        let config = self.config();
        check(
            shape,
            [config.in_channels, config.out_channels],
            1 << (config.block_out_channels.len() - 1),
            false,
        )
    }

    fn check_shape(&self, shape: ImageShape) -> Result<()> {
        let config = self.config();
        check(
            shape,
            [config.in_channels, config.out_channels],
            1 << (config.block_out_channels.len() - 1),
            true,
        )
    }

    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
        self.forward(
            beside(x, self.config().in_channels, condition),
            time,
            condition.class_labels.clone(),
        )
    }

    fn num_classes(&self) -> Option<usize> {
        self.config().num_class_embeds
    }

    fn supports_self_conditioning(&self, channels: usize) -> bool {
        self.config().in_channels == 2 * channels
    }
}

impl Denoiser for UNet2dConditionModel {
    fn check_trainable(&self, _shape: ImageShape) -> Result<()> {
        Err(Error::config(
            "network",
            "UNet2DConditionModel",
            "one that looks at no tokens, to be trained here",
        ))
    }

    fn check_shape(&self, shape: ImageShape) -> Result<()> {
        let config = self.config();
        if config.in_channels != shape.channels {
            let expected = format!("{}, the channels of the images", shape.channels);
            return Err(Error::config("in_channels", config.in_channels, expected));
        }
        check(
            shape,
            [config.in_channels, config.out_channels],
            1 << (config.block_out_channels.len() - 1),
            true,
        )
    }

    fn cross_attention_dim(&self) -> Option<usize> {
        Some(self.config().cross_attention_dim)
    }

    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
        self.forward(
            x,
            time,
            condition
                .encoder_hidden_states
                .as_ref()
                .expect("a network that looks at tokens is given some"),
        )
    }
}

impl Denoiser for DitModel {
    fn check_trainable(&self, shape: ImageShape) -> Result<()> {
        let config = self.config();
        check(
            shape,
            [
                config.in_channels,
                config.out_channels.unwrap_or(config.in_channels),
            ],
            config.patch_size,
            false,
        )
    }

    fn check_shape(&self, shape: ImageShape) -> Result<()> {
        let config = self.config();
        check(
            shape,
            [
                config.in_channels,
                config.out_channels.unwrap_or(config.in_channels),
            ],
            config.patch_size,
            true,
        )
    }

    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
        let class = condition
            .class_labels
            .clone()
            .expect("a network with classes is told one");
        self.forward(beside(x, self.config().in_channels, condition), time, class)
    }

    fn supports_self_conditioning(&self, channels: usize) -> bool {
        self.config().in_channels == 2 * channels
    }

    fn num_classes(&self) -> Option<usize> {
        Some(self.config().num_embeds_ada_norm + 1)
    }
}
