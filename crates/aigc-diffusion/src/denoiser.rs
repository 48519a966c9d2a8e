//! The trait through which objectives, samplers and pipelines use networks.

use aigc_core::{Error, Result, check::ensure_argument, data::SampleShape};
use burn::{
    module::{Module, ModuleDisplay},
    tensor::{Bool, Int, Tensor},
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
    /// Token ids of the prompts, `[batch, tokens]`, for networks that
    /// [encode them](Denoiser::takes_input_ids) themselves.
    pub input_ids: Option<Tensor<2, Int>>,
    /// Which of the vectors cross-attention attends to, `[batch, tokens]`: true for tokens of the
    /// prompt, false for padding. `None`: to all.
    pub encoder_attention_mask: Option<Tensor<2, Bool>>,
    /// One vector for each prompt, `[batch, width]`: `text_embeds` of SDXL's U-nets,
    /// `pooled_projections` of the transformers of Stable Diffusion 3 and FLUX.
    pub pooled_projections: Option<Tensor<2>>,
    /// Numbers about each image, `[batch, numbers]`: the sizes and offsets of SDXL (`time_ids`),
    /// height, width and aspect ratio of PixArt.
    pub time_ids: Option<Tensor<2>>,
    /// The guidance scale that a distilled network receives, `[batch]`: of FLUX.1 dev as it is, of
    /// latent consistency models one less.
    pub guidance: Option<Tensor<1>>,
    /// What a ControlNet adds to the maps of a U-net.
    pub residuals: Option<ControlResiduals>,
    /// The clean samples that the network predicted before, as x; used by networks that are
    /// [self-conditioned](Denoiser::supports_self_conditioning).
    pub self_cond: Option<Tensor<D>>,
}

/// What a ControlNet adds to the maps that a U-net's decoder receives (Zhang et al. 2023,
/// <https://arxiv.org/abs/2302.05543>).
#[derive(Clone, Debug)]
pub struct ControlResiduals {
    /// For each skip of the encoder, in order, `[batch, channels, height, width]`.
    pub down: Vec<Tensor<4>>,
    /// For the map in the middle.
    pub mid: Tensor<4>,
}

impl ControlResiduals {
    /// Applies a function to every map.
    pub fn map(self, f: impl Fn(Tensor<4>) -> Tensor<4>) -> Self {
        Self {
            down: self.down.into_iter().map(&f).collect(),
            mid: f(self.mid),
        }
    }

    /// The sum of what several ControlNets add; `None` if there is none.
    ///
    /// # Panics
    /// If they do not have the same maps.
    pub fn sum(all: impl IntoIterator<Item = Self>) -> Option<Self> {
        all.into_iter().reduce(|sum, other| {
            let maps = [sum.down.len(), other.down.len()];
            assert_eq!(maps[0], maps[1], "numbers of maps of two ControlNets");
            let pairs = sum.down.into_iter().zip(other.down);
            Self {
                down: pairs.map(|(a, b)| a + b).collect(),
                mid: sum.mid + other.mid,
            }
        })
    }

    /// The same for a batch with `count` unconditional samples before these, to which nothing is
    /// added. This is what guess mode does under classifier-free guidance.
    pub fn after_zeros(self, count: usize) -> Self {
        self.map(|map| {
            let [_, channels, height, width] = map.dims();
            let shape = [count, channels, height, width];
            let zeros = Tensor::zeros(shape, (&map.device(), map.dtype()));
            Tensor::cat(vec![zeros, map], 0)
        })
    }
}

impl<const D: usize> Default for Conditioning<D> {
    fn default() -> Self {
        Self {
            class_labels: None,
            class_embeddings: None,
            encoder_hidden_states: None,
            input_ids: None,
            encoder_attention_mask: None,
            pooled_projections: None,
            time_ids: None,
            guidance: None,
            residuals: None,
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
            input_ids: self.input_ids.map(Tensor::autodiff),
            encoder_attention_mask: self.encoder_attention_mask.map(Tensor::autodiff),
            pooled_projections: self.pooled_projections.map(Tensor::autodiff),
            time_ids: self.time_ids.map(Tensor::autodiff),
            guidance: self.guidance.map(Tensor::autodiff),
            residuals: self
                .residuals
                .map(|residuals| residuals.map(Tensor::autodiff)),
            self_cond: self.self_cond.map(Tensor::autodiff),
        }
    }

    /// The same conditions without autodiff.
    pub(crate) fn inner(self) -> Self {
        Self {
            class_labels: self.class_labels.map(Tensor::inner),
            class_embeddings: self.class_embeddings.map(Tensor::inner),
            encoder_hidden_states: self.encoder_hidden_states.map(Tensor::inner),
            input_ids: self.input_ids.map(Tensor::inner),
            encoder_attention_mask: self.encoder_attention_mask.map(Tensor::inner),
            pooled_projections: self.pooled_projections.map(Tensor::inner),
            time_ids: self.time_ids.map(Tensor::inner),
            guidance: self.guidance.map(Tensor::inner),
            residuals: self.residuals.map(|residuals| residuals.map(Tensor::inner)),
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
    ///   [`input_scale`](crate::ModelCall::input_scale) of the plan's call, followed by the
    ///   [extra channels](Self::extra_input_channels), if there are any
    /// - time: `[batch]`
    /// - output: as x, or with twice the channels, the second half a variance
    ///
    /// # Panics
    /// If the shapes do not fit, or a condition that the network needs is missing.
    fn predict(&self, x: Tensor<D>, time: Tensor<1>, condition: &Conditioning<D>) -> Tensor<D>;

    /// Whether the network processes samples of this shape: channels, without
    /// [extra ones](Self::extra_input_channels), and sides that it can halve or cut into patches. A
    /// learned variance beside the prediction is allowed.
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

    /// Whether the network encodes prompts itself, from their token ids: a text encoder is part of
    /// it, and trained with it.
    fn takes_input_ids(&self) -> bool {
        false
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

    /// Fields of [`Conditioning`] that the network needs, and that objectives and samplers of this
    /// crate do not fill, by name: only pipelines of whole models do.
    fn needs_from_pipeline(&self) -> Option<&'static str> {
        None
    }

    /// Number of channels that the input of [`predict`](Self::predict) has after those of the
    /// sample: mask and masked image of an inpainting network, a small image of an upscaler.
    fn extra_input_channels(&self) -> usize {
        0
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

/// Checks that all conditions that a network needs are among those that this crate fills.
pub(crate) fn check_conditions<const D: usize>(network: &impl Denoiser<D>) -> Result<()> {
    match network.needs_from_pipeline() {
        None => Ok(()),
        Some(field) => Err(Error::argument(
            "network",
            format!("one that needs {field}"),
            "one that is conditioned on classes or encoder hidden states alone",
        )),
    }
}

/// Checks that a network's input is the sample alone, for callers that append nothing to it, with
/// conditions that this crate fills; these callers have no token ids.
pub(crate) fn check_sample_is_input<const D: usize>(network: &impl Denoiser<D>) -> Result<()> {
    check_conditions(network)?;
    ensure_argument(
        !network.takes_input_ids(),
        "network",
        "one that encodes token ids itself",
        "the network that it conditions, with the prompts encoded before",
    )?;
    let extra = network.extra_input_channels();
    ensure_argument(
        extra == 0,
        "network",
        format!("one with {extra} extra input channels"),
        "one whose input is the sample alone",
    )
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
