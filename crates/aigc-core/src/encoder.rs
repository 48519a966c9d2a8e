//! Traits that let one model family use the models of another.
//!
//! One family's crate implements a trait, another takes the model as `&dyn`; neither crate depends
//! on the other.

use crate::{Result, data::SampleShape, rng::Rng};
use burn::tensor::{Bool, Device, Tensor};

/// A distribution over latents, one for each sample of a batch.
pub trait Posterior<const Z: usize = 4>: std::fmt::Debug {
    /// One sample per batch element, differentiable if the distribution allows it.
    ///
    /// # Shapes
    /// - output: `[batch, …]`, the shape of the latents
    fn sample(&self, rng: &mut Rng) -> Tensor<Z>;

    /// A sample and its log-density `log q(z|x)` in nats; the log-probability of discrete latents,
    /// 0 of latents without uncertainty. Estimators with several samples need it.
    ///
    /// # Shapes
    /// - output: `[batch, …]`, the shape of the latents, and `[batch]`
    fn sample_with_log_prob(&self, rng: &mut Rng) -> (Tensor<Z>, Tensor<1>);

    /// The most probable latents.
    ///
    /// # Shapes
    /// - output: `[batch, …]`, the shape of the latents
    fn mode(&self) -> Tensor<Z>;

    /// The divergence from the prior in nats; for quantised latents, the entropy of uniform codes.
    ///
    /// # Shapes
    /// - output: `[batch]`
    fn kl(&self) -> Tensor<1>;
}

/// A posterior without uncertainty.
#[derive(Clone, Debug)]
pub struct Deterministic<const Z: usize = 4>(
    /// The latents, `[batch, …]`.
    pub Tensor<Z>,
);

impl<const Z: usize> Posterior<Z> for Deterministic<Z> {
    fn sample(&self, _rng: &mut Rng) -> Tensor<Z> {
        self.0.clone()
    }

    fn sample_with_log_prob(&self, _rng: &mut Rng) -> (Tensor<Z>, Tensor<1>) {
        (self.0.clone(), self.kl())
    }

    fn mode(&self) -> Tensor<Z> {
        self.0.clone()
    }

    /// Zero: there is no prior to compare with.
    fn kl(&self) -> Tensor<1> {
        Tensor::zeros([self.0.dims()[0]], &self.0.device())
    }
}

/// An encoder and a decoder of a latent space in which another model works (Rombach et al. 2022,
/// <https://arxiv.org/abs/2112.10752>).
///
/// `X` and `Z` are the ranks of samples and latents, batch axis included: 4 and 4 for images and
/// latent maps, 3 for sound, 5 for video.
pub trait Autoencoder<const X: usize = 4, const Z: usize = 4>: std::fmt::Debug {
    /// The posterior of the latents of each sample.
    ///
    /// # Shapes
    /// - x: `[batch, …]` of [`sample_shape`](Self::sample_shape), in the range of the data
    ///   (`[0, 1]` for images)
    ///
    /// # Panics
    /// If the model does not support the shape of the samples.
    fn encode(&self, x: Tensor<X>) -> Box<dyn Posterior<Z>>;

    /// Decodes latents to samples.
    ///
    /// # Shapes
    /// - z: `[batch, …]` of [`latent_shape`](Self::latent_shape)
    /// - output: `[batch, …]` of [`sample_shape`](Self::sample_shape), in the range of the data
    ///
    /// # Panics
    /// If the latents do not have that shape.
    fn decode(&self, z: Tensor<Z>) -> Tensor<X>;

    /// Shape of a sample.
    fn sample_shape(&self) -> SampleShape;

    /// Shape of a latent.
    fn latent_shape(&self) -> SampleShape;
}

/// The output of a text encoder for a batch of prompts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TextEmbeddings {
    /// One vector per token, `[batch, tokens, width]`.
    pub hidden_states: Tensor<3>,
    /// One vector per prompt, `[batch, width]`, where the encoder has one.
    pub pooled: Option<Tensor<2>>,
    /// True for tokens of the prompt and false for padding, `[batch, tokens]`; `None` if models
    /// attend to all tokens.
    pub attention_mask: Option<Tensor<2, Bool>>,
}

impl TextEmbeddings {
    /// Embeddings `[batch, tokens, width]` without pooled ones and without a mask.
    pub fn new(hidden_states: Tensor<3>) -> Self {
        Self {
            hidden_states,
            pooled: None,
            attention_mask: None,
        }
    }

    /// Sets one vector per prompt, `[batch, width]`.
    pub fn with_pooled(mut self, pooled: Tensor<2>) -> Self {
        self.pooled = Some(pooled);
        self
    }

    /// Sets the mask, `[batch, tokens]`: true for tokens of the prompt, false for padding.
    pub fn with_attention_mask(mut self, attention_mask: Tensor<2, Bool>) -> Self {
        self.attention_mask = Some(attention_mask);
        self
    }
}

/// Encodes text to embeddings that condition another model.
///
/// The encoders of `aigc-encoders` implement it, and custom ones can. Models receive the
/// [`hidden_states`](TextEmbeddings::hidden_states) as a tensor.
pub trait TextEncoder: std::fmt::Debug {
    /// Embeddings of prompts. The embeddings of the empty prompt serve as the unconditional ones.
    ///
    /// # Errors
    /// If a prompt cannot be tokenized.
    fn encode(&self, prompts: &[&str], device: &Device) -> Result<TextEmbeddings>;

    /// Width of the vectors.
    fn embed_dim(&self) -> usize;

    /// Number of tokens that every prompt is padded or truncated to.
    fn max_length(&self) -> usize;
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    /// One token per byte, and a vector of its value and its position.
    #[derive(Debug)]
    struct Bytes;

    impl TextEncoder for Bytes {
        fn encode(&self, prompts: &[&str], device: &Device) -> Result<TextEmbeddings> {
            let (mut states, mut mask) = (Vec::new(), Vec::new());
            for prompt in prompts {
                for position in 0..self.max_length() {
                    let byte = prompt.as_bytes().get(position);
                    states.extend([f32::from(byte.copied().unwrap_or(0)), position as f32]);
                    mask.push(byte.is_some());
                }
            }
            let [batch, tokens] = [prompts.len(), self.max_length()];
            let states = TensorData::new(states, [batch, tokens, self.embed_dim()]);
            let states = Tensor::<3>::from_data(states, device);
            let pooled = states.clone().sum_dim(1).squeeze_dim::<2>(1);
            let mask = Tensor::from_data(TensorData::new(mask, [batch, tokens]), device);
            Ok(TextEmbeddings::new(states)
                .with_pooled(pooled)
                .with_attention_mask(mask))
        }

        fn embed_dim(&self) -> usize {
            2
        }

        fn max_length(&self) -> usize {
            3
        }
    }

    #[test]
    fn text_encoder_pads_prompts_and_masks_padding() {
        let encoder: &dyn TextEncoder = &Bytes;
        let embeddings = encoder
            .encode(&["\u{1}\u{2}", ""], &Device::flex())
            .unwrap();
        assert_eq!(embeddings.hidden_states.dims(), [2, 3, 2]);
        let pooled = embeddings.pooled.unwrap().into_data();
        assert_eq!(
            pooled.iter::<f32>().collect::<Vec<_>>(),
            [3.0, 3.0, 0.0, 3.0]
        );
        let mask = embeddings.attention_mask.unwrap().float().into_data();
        assert_eq!(
            mask.iter::<f32>().collect::<Vec<_>>(),
            [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
        );
    }
}
