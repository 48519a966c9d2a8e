//! The traits through which families use each other's models.
//!
//! A family's crate implements them, another one takes them as `&dyn`; neither depends on the
//! other.

use crate::{Result, data::SampleShape, rng::Rng};
use burn::tensor::{Device, Tensor};

/// A distribution over latents, one for each sample of a batch.
pub trait Posterior<const Z: usize = 4>: std::fmt::Debug {
    /// A draw for each sample, differentiable where the distribution allows it.
    ///
    /// # Shapes
    /// - output: `[batch, …]`, as the latents
    fn sample(&self, rng: &mut Rng) -> Tensor<Z>;

    /// The most probable latents.
    ///
    /// # Shapes
    /// - output: `[batch, …]`, as the latents
    fn mode(&self) -> Tensor<Z>;

    /// What the latents cost, in nats: the divergence from the prior, or the entropy of uniform
    /// codes for quantised latents.
    ///
    /// # Shapes
    /// - output: `[batch]`
    fn kl(&self) -> Tensor<1>;
}

/// A posterior without uncertainty: the latents themselves.
#[derive(Clone, Debug)]
pub struct Deterministic<const Z: usize = 4>(
    /// The latents, `[batch, …]`.
    pub Tensor<Z>,
);

impl<const Z: usize> Posterior<Z> for Deterministic<Z> {
    fn sample(&self, _rng: &mut Rng) -> Tensor<Z> {
        self.0.clone()
    }

    fn mode(&self) -> Tensor<Z> {
        self.0.clone()
    }

    /// Zero: nothing is compared with a prior.
    fn kl(&self) -> Tensor<1> {
        Tensor::zeros([self.0.dims()[0]], &self.0.device())
    }
}

/// An encoder and a decoder, so that one model can work in the latent space of another (Rombach et
/// al. 2022, <https://arxiv.org/abs/2112.10752>).
///
/// `X` and `Z` are the ranks of samples and latents, batch axis included: 4 and 4 for images and
/// latent maps, 3 for sound, 5 for video.
pub trait Autoencoder<const X: usize = 4, const Z: usize = 4>: std::fmt::Debug {
    /// The posterior of the latents of samples.
    ///
    /// # Shapes
    /// - x: `[batch, …]` of [`sample_shape`](Self::sample_shape), in the range of the data
    ///   (`[0, 1]` for images)
    ///
    /// # Panics
    /// If the samples are not of a shape that the model supports.
    fn encode(&self, x: Tensor<X>) -> Box<dyn Posterior<Z>>;

    /// Samples of latents.
    ///
    /// # Shapes
    /// - z: `[batch, …]` of [`latent_shape`](Self::latent_shape)
    /// - output: `[batch, …]` of [`sample_shape`](Self::sample_shape), in the range of the data
    ///
    /// # Panics
    /// If the latents are not of that shape.
    fn decode(&self, z: Tensor<Z>) -> Tensor<X>;

    /// Shape of a sample.
    fn sample_shape(&self) -> SampleShape;

    /// Shape of a latent.
    fn latent_shape(&self) -> SampleShape;
}

/// What a text encoder computes for prompts.
#[derive(Clone, Debug)]
pub struct TextEmbeddings {
    /// One vector per token, `[batch, tokens, width]`.
    pub hidden_states: Tensor<3>,
    /// One vector per prompt, `[batch, width]`, where the encoder has one.
    pub pooled: Option<Tensor<2>>,
}

/// Text to embeddings that condition another model.
pub trait TextEncoder: std::fmt::Debug {
    /// Embeddings of prompts. The empty prompt is a prompt: it serves as the unconditional one.
    ///
    /// # Errors
    /// For prompts that cannot be tokenized.
    fn encode(&self, prompts: &[&str], device: &Device) -> Result<TextEmbeddings>;

    /// Width of the vectors.
    fn embed_dim(&self) -> usize;

    /// Tokens that every prompt is padded or truncated to.
    fn max_length(&self) -> usize;
}
