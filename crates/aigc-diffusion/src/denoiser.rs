//! The trait through which objectives, samplers and pipelines use networks.

use aigc_core::{Error, Result, data::SampleShape};
use burn::{
    module::{Module, ModuleDisplay},
    tensor::{Int, Tensor},
};

/// What a network is conditioned on besides the time. `D` is the rank of a batch of samples.
#[derive(Clone, Debug)]
pub struct Conditioning<const D: usize = 4> {
    /// A class for each sample, `[batch]`.
    pub class_labels: Option<Tensor<1, Int>>,
    /// A vector for each sample, which is added to the time embedding, `[batch, width]`; used by
    /// networks with a [width](Denoiser::class_embedding_dim) for it.
    pub class_embeddings: Option<Tensor<2>>,
    /// Vectors that cross-attention attends to, such as those of a text encoder,
    /// `[batch, tokens, width]`.
    pub encoder_hidden_states: Option<Tensor<3>>,
    /// The clean samples that the network predicted before, as x; used by networks that are
    /// [self-conditioned](Denoiser::supports_self_conditioning).
    pub self_cond: Option<Tensor<D>>,
}

impl<const D: usize> Default for Conditioning<D> {
    fn default() -> Self {
        Self {
            class_labels: None,
            class_embeddings: None,
            encoder_hidden_states: None,
            self_cond: None,
        }
    }
}

impl<const D: usize> Conditioning<D> {
    /// The same conditions on a device with autodiff.
    pub(crate) fn autodiff(self) -> Self {
        Self {
            class_labels: self.class_labels.map(Tensor::autodiff),
            class_embeddings: self.class_embeddings.map(Tensor::autodiff),
            encoder_hidden_states: self.encoder_hidden_states.map(Tensor::autodiff),
            self_cond: self.self_cond.map(Tensor::autodiff),
        }
    }

    /// The same conditions without autodiff.
    pub(crate) fn inner(self) -> Self {
        Self {
            class_labels: self.class_labels.map(Tensor::inner),
            class_embeddings: self.class_embeddings.map(Tensor::inner),
            encoder_hidden_states: self.encoder_hidden_states.map(Tensor::inner),
            self_cond: self.self_cond.map(Tensor::inner),
        }
    }
}

/// A network that predicts x₀, ε, v or a velocity from a noisy sample.
///
/// `D` is the rank of a batch of samples: 4 for images and latent maps, 3 for sound, 5 for video.
pub trait Denoiser<const D: usize = 4>: Module + ModuleDisplay {
    /// The prediction for noisy samples.
    ///
    /// # Shapes
    /// - x: `[batch, channels, …]`, scaled by the
    ///   [`input_scale`](crate::ModelCall::input_scale) of the plan's call
    /// - time: `[batch]`
    /// - output: as x, or with twice the channels, the second half a variance
    ///
    /// # Panics
    /// If the shapes do not fit, or a condition that the network needs is missing.
    fn predict(&self, x: Tensor<D>, time: Tensor<1>, condition: &Conditioning<D>) -> Tensor<D>;

    /// Whether the network processes samples of this shape: channels, and sides that it can halve
    /// or cut into patches. A learned variance beside the prediction is allowed.
    ///
    /// # Errors
    /// [`Error::Config`] names the field of the configuration that does not fit.
    fn check_shape(&self, shape: SampleShape) -> Result<()>;

    /// Whether the objective of this crate trains the network on samples of this shape:
    /// [`check_shape`](Self::check_shape), and an output without a variance, which has no loss.
    ///
    /// # Errors
    /// [`Error::Config`] names the field of the configuration that does not fit.
    fn check_trainable(&self, shape: SampleShape) -> Result<()> {
        self.check_shape(shape)
    }

    /// Whether the network encodes times down to `min`, the smallest time that it is to receive.
    ///
    /// # Errors
    /// [`Error::Config`] names the field of the configuration that does not fit.
    fn check_min_time(&self, min: f64) -> Result<()> {
        let _ = min;
        Ok(())
    }

    /// Width of the encoder hidden states that cross-attention expects, if there is any.
    fn cross_attention_dim(&self) -> Option<usize> {
        None
    }

    /// Width of the class embeddings that are given for each sample, if the network takes such. The
    /// null vector, of unconditional samples, is zeros.
    fn class_embedding_dim(&self) -> Option<usize> {
        None
    }

    /// Number of class embeddings, the null class included, if the network is class-conditional.
    fn num_classes(&self) -> Option<usize> {
        None
    }

    /// The class of unconditional samples, if the network has one: what labels are replaced by when
    /// conditioning is dropped in training, and what classifier-free guidance compares with.
    fn null_class(&self) -> Option<u32> {
        None
    }

    /// Whether the network takes its previous x̂₀ as extra input channels, for samples with this
    /// number of channels.
    fn supports_self_conditioning(&self, channels: usize) -> bool {
        let _ = channels;
        false
    }

    /// Shape of the samples that the configuration is for; `None` if the configuration
    /// has no sample size.
    fn sample_shape(&self) -> Option<SampleShape> {
        None
    }

    /// Directory of the network in a pipeline of diffusers.
    fn component(&self) -> &'static str {
        "unet"
    }
}

/// Checks images against a network's channels and the `factor` that both sides have to be a
/// multiple of.
///
/// Input channels are those of the images, or twice as many with self-conditioning; output channels
/// are those of the images, or twice as many with a variance, if one is `allowed`.
pub(crate) fn check_image(
    shape: SampleShape,
    [channels_in, channels_out]: [usize; 2],
    factor: usize,
    allowed: bool,
) -> Result<()> {
    let Some(image) = shape.as_image() else {
        let expected = "images: channels, height and width";
        return Err(Error::argument("shape", shape, expected));
    };
    let expected = format!("{}, the channels of the images", image.channels);
    if channels_in != image.channels && channels_in != 2 * image.channels {
        return Err(Error::config("in_channels", channels_in, expected));
    }
    if channels_out != image.channels && !(allowed && channels_out == 2 * image.channels) {
        return Err(Error::config("out_channels", channels_out, expected));
    }
    if image.height.is_multiple_of(factor) && image.width.is_multiple_of(factor) {
        return Ok(());
    }
    Err(Error::argument(
        "shape",
        shape,
        format!("sides that are multiples of {factor}, for this network"),
    ))
}

/// The input of a network with `channels` channels: the noisy sample, with the previous x̂₀ (zeros
/// at first) beside it where there are channels for both.
pub(crate) fn with_self_cond(x: Tensor<4>, channels: usize, condition: &Conditioning) -> Tensor<4> {
    if channels != 2 * x.dims()[1] {
        return x;
    }
    let previous = condition
        .self_cond
        .clone()
        .unwrap_or_else(|| x.zeros_like());
    Tensor::cat(vec![x, previous], 1)
}

/// The number of classes that are not the null class: class embeddings are numbered from 0, and the
/// null class is the last where there is one.
pub(crate) fn real_classes<const D: usize>(network: &impl Denoiser<D>) -> Option<usize> {
    let count = network.num_classes()?;
    match network.null_class() {
        Some(null) if null as usize + 1 == count => Some(count - 1),
        _ => Some(count),
    }
}
