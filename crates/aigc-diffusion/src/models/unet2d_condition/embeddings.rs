//! What every block receives: the embedding of the time, to which those of a class, of a guidance
//! scale, and of the pooled prompt with the sizes of the image are added.

use super::config::UNet2dConditionConfig;
use crate::{
    denoiser::Conditioning,
    models::{
        attention::PromptTokens,
        blocks::Tokens,
        time::{Sinusoids, TimeEmbedding},
        unet2d::{ClassEmbedType, Embedding},
    },
};
use aigc_core::{
    nn::{Activation, Linear, LinearConfig},
    ops,
};
use burn::{
    module::Module,
    tensor::{DType, Device, Tensor, TensorData},
};

/// The encoding of guidance scales that latent consistency models receive (Luo et al. 2023,
/// <https://arxiv.org/abs/2310.04378>, section 4.2): sines, then cosines, of `1000·w` at falling
/// frequencies. `w` is one less than the guidance scale of classifier-free guidance.
///
/// # Shapes
/// - w: `[batch]`
/// - output: `[batch, width]`, in 32 bits
///
/// # Panics
/// If `width` is less than 4.
pub fn guidance_scale_embedding(w: Tensor<1>, width: usize) -> Tensor<2> {
    assert!(width >= 4, "width of a guidance scale's embedding: {width}");
    let (half, device) = (width / 2, w.device());
    let w = ops::cast(w, DType::F32);
    // In 32 bits, as these models were trained: angles are large, so the last digits matter.
    let step = 10_000f32.ln() / (half as f32 - 1.0);
    let frequencies: Vec<f32> = (0..half).map(|i| (i as f32 * -step).exp()).collect();
    let frequencies = Tensor::<2>::from_data(TensorData::new(frequencies, [1, half]), &device);
    let angles = (w * 1000.0).reshape([-1, 1]) * frequencies;
    let [batch, _] = angles.dims();
    let mut parts = vec![angles.clone().sin(), angles.cos()];
    if width % 2 == 1 {
        parts.push(Tensor::zeros([batch, 1], &device));
    }
    Tensor::cat(parts, 1)
}

/// The embedding of a class.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // One for each network.
pub(in crate::models) enum ClassEmbedding {
    /// A vector for each class.
    Table(Embedding),
    /// Two layers, from an encoded class or a given vector.
    Layers(TimeEmbedding),
    /// One layer from a given vector.
    Layer(Linear),
}

impl ClassEmbedding {
    pub(super) fn new(
        config: &UNet2dConditionConfig,
        activation: Activation,
        device: &Device,
    ) -> Option<Self> {
        let width = config.time_width();
        let first = config.block_out_channels[0];
        let given = config.projection_class_embeddings_input_dim;
        Some(match config.class_embed_type {
            None => Self::Table(Embedding::new(config.num_class_embeds?, width, device)),
            Some(ClassEmbedType::Timestep) => {
                Self::Layers(TimeEmbedding::new(first, width, activation, device))
            }
            Some(ClassEmbedType::Projection) => {
                Self::Layers(TimeEmbedding::new(given?, width, Activation::Silu, device))
            }
            Some(ClassEmbedType::SimpleProjection) => {
                Self::Layer(LinearConfig::new(given?, width).init(device))
            }
            // It has no weights.
            Some(ClassEmbedType::Identity) => return None,
        })
    }
}

/// The modules that embed the conditions of every block.
#[derive(Clone, Copy, Debug)]
pub(in crate::models) struct Embedder<'a> {
    pub(in crate::models) config: &'a UNet2dConditionConfig,
    pub(in crate::models) time: &'a TimeEmbedding,
    pub(in crate::models) class: Option<&'a ClassEmbedding>,
    pub(in crate::models) addition: Option<&'a TimeEmbedding>,
    pub(in crate::models) activation: Activation,
    /// Type of the network's input.
    pub(in crate::models) dtype: DType,
}

impl Embedder<'_> {
    /// Sines and cosines of numbers.
    fn encode(&self, width: usize, numbers: Tensor<1>) -> Tensor<2> {
        let sinusoids = Sinusoids {
            width,
            cosines_first: self.config.flip_sin_to_cos,
            shift: self.config.freq_shift,
        };
        ops::cast(sinusoids.of(numbers), self.dtype)
    }

    /// The embedding that every block receives, activated: that is how every block begins.
    ///
    /// # Shapes
    /// - time: `[batch]`
    /// - guidance: `[batch, time_cond_proj_dim]`
    /// - output: `[batch, width]`
    pub(in crate::models) fn embed(
        &self,
        time: Tensor<1>,
        condition: &Conditioning,
        guidance: Option<Tensor<2>>,
    ) -> Tensor<2> {
        let encoded = self.encode(self.config.block_out_channels[0], time);
        let mut embedding = match guidance {
            Some(guidance) => {
                let guidance = ops::cast(guidance, self.dtype);
                self.time.forward_with_condition(encoded, guidance)
            }
            None => self.time.forward(encoded),
        };
        if let Some(class) = self.class(condition) {
            assert_eq!(
                class.dims(),
                embedding.dims(),
                "shape of the class embeddings"
            );
            embedding = embedding + class;
        }
        if let Some(addition) = self.addition {
            embedding = embedding + addition.forward(self.pooled_and_sizes(condition));
        }
        self.activation.forward(embedding)
    }

    fn class(&self, condition: &Conditioning) -> Option<Tensor<2>> {
        let labels = || {
            let labels = condition.class_labels.clone();
            labels.expect("a class-conditional network needs class labels")
        };
        let vectors = || {
            let vectors = condition.class_embeddings.clone();
            let vectors = vectors.expect("this network needs class embeddings");
            ops::cast(vectors, self.dtype)
        };
        match self.class {
            Some(ClassEmbedding::Table(table)) => Some(ops::cast(table.of(labels()), self.dtype)),
            Some(ClassEmbedding::Layers(layers)) => {
                Some(layers.forward(match self.config.class_embed_type {
                    Some(ClassEmbedType::Timestep) => {
                        self.encode(self.config.block_out_channels[0], labels().float())
                    }
                    _ => vectors(),
                }))
            }
            Some(ClassEmbedding::Layer(layer)) => Some(layer.forward(vectors())),
            None if self.config.class_embed_type == Some(ClassEmbedType::Identity) => {
                Some(vectors())
            }
            None => None,
        }
    }

    /// The pooled vectors of prompts with the encoded sizes of images, side by side.
    fn pooled_and_sizes(&self, condition: &Conditioning) -> Tensor<2> {
        let pooled = condition.pooled_projections.clone();
        let pooled = pooled.expect("this network needs pooled vectors of the prompts");
        let numbers = condition.time_ids.clone();
        let numbers = numbers.expect("this network needs numbers about the images (time_ids)");
        let width = self.config.addition_time_embed_dim.unwrap_or_default();
        let [batch, count] = numbers.dims();
        let sizes = self.encode(width, numbers.reshape([batch * count]));
        let sizes = sizes.reshape([batch, count * width]);
        let both = Tensor::cat(vec![ops::cast(pooled, self.dtype), sizes], 1);
        assert_eq!(
            Some(both.dims()[1]),
            self.config.projection_class_embeddings_input_dim,
            "width of the pooled vectors with {count} encoded numbers (time_ids)"
        );
        both
    }
}

/// The tokens of a condition, as cross-attention receives them.
#[derive(Debug)]
pub(in crate::models) struct EncodedTokens {
    all: PromptTokens,
    visible: PromptTokens,
}

impl EncodedTokens {
    /// `projection`: from the hidden states of the encoder to the tokens.
    pub(in crate::models) fn new(
        condition: &Conditioning,
        projection: Option<&Linear>,
        dtype: DType,
    ) -> Option<Self> {
        let states = ops::cast(condition.encoder_hidden_states.clone()?, dtype);
        let states = match projection {
            Some(projection) => projection.forward(states),
            None => states,
        };
        Some(Self {
            all: PromptTokens::new(states.clone(), None),
            visible: PromptTokens::new(states, condition.encoder_attention_mask.clone()),
        })
    }

    pub(in crate::models) fn tokens(&self) -> Tokens<'_> {
        Tokens {
            all: &self.all,
            visible: &self.visible,
        }
    }
}
