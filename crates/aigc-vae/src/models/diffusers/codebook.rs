//! The codebook of a [`VqModel`](super::VqModel), and the posterior over its codes (van den Oord et
//! al. 2017, <https://arxiv.org/abs/1711.00937>).

use crate::quantizer::{flatten_positions, nearest_rows, straight_through, unflatten_positions};
use aigc_core::{encoder::Posterior, nn::Initializer, ops, rng::Rng};
use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor},
};

/// Weight of the codebook's term in the loss, that of diffusers.
pub(super) const BETA: f64 = 0.25;

/// A table of vectors.
#[derive(Module, Debug)]
pub(crate) struct Embedding {
    /// `[codes, dim]`.
    pub(super) weight: Param<Tensor<2>>,
}

/// The codes.
#[derive(Module, Debug)]
pub(crate) struct Codebook {
    pub(super) embedding: Embedding,
}

impl Codebook {
    /// `codes` vectors of `dim` dimensions.
    pub(super) fn new(codes: usize, dim: usize, device: &Device) -> Self {
        let initializer = Initializer::Uniform {
            min: -1.0 / codes as f64,
            max: 1.0 / codes as f64,
        };
        Self {
            embedding: Embedding {
                weight: initializer.param([codes, dim], codes, dim, device),
            },
        }
    }

    /// The index of the nearest code of each position, by Euclidean distance. No gradients flow
    /// through the choice.
    ///
    /// # Shapes
    /// - latents: `[batch, dim, height, width]`
    /// - output: `[batch, positions, 1]`
    pub(super) fn nearest(&self, latents: Tensor<4>) -> Tensor<3, Int> {
        let vectors = flatten_positions(latents.detach());
        let [batch, positions, _] = vectors.dims();
        let codes = ops::cast(self.embedding.weight.val().detach(), vectors.dtype());
        nearest_rows(vectors.flatten::<2>(0, 1), codes).reshape([batch, positions, 1])
    }

    /// The codes of these indices, as a map with the given height and width.
    ///
    /// # Shapes
    /// - indices: `[batch, positions, 1]`
    /// - output: `[batch, dim, height, width]`
    pub(super) fn lookup(&self, indices: Tensor<3, Int>, [height, width]: [usize; 2]) -> Tensor<4> {
        let values = ops::embedding(self.embedding.weight.val(), indices.squeeze_dim::<2>(2));
        let [batch, _, dim] = values.dims();
        unflatten_positions(values, [batch, dim, height, width])
    }
}

/// The posterior of a [`VqModel`](super::VqModel): at each position of the map, the nearest code
/// with certainty.
#[derive(Clone, Debug)]
pub struct QuantizedLatents {
    /// The encoder's output, `[batch, vq_embed_dim, height, width]`.
    pub latents: Tensor<4>,
    /// The nearest code of each position, in the shape of `latents`.
    pub quantized: Tensor<4>,
    /// Index of the code of each position, `[batch, positions, 1]`, row by row.
    pub indices: Tensor<3, Int>,
    /// Number of codes.
    pub num_embeddings: usize,
}

impl QuantizedLatents {
    /// The codes, with the gradient of the encoder's output: the straight-through estimator (van
    /// den Oord et al. 2017, section 3.2).
    ///
    /// # Shapes
    /// - output: that of `latents`
    pub fn straight_through(&self) -> Tensor<4> {
        straight_through(self.latents.clone(), self.quantized.clone())
    }

    /// The mean of `(z − sg[e])²`, which draws the encoder's outputs to their codes, `[1]`; `sg`
    /// stops gradients.
    pub fn commitment_loss(&self) -> Tensor<1> {
        mean_square(self.latents.clone() - self.quantized.clone().detach())
    }

    /// The mean of `(sg[z] − e)²`, which draws the codes to the encoder's outputs, `[1]`.
    pub fn codebook_loss(&self) -> Tensor<1> {
        mean_square(self.quantized.clone() - self.latents.clone().detach())
    }

    /// The loss of diffusers (`commit_loss`), [`commitment_loss`](Self::commitment_loss) +
    /// 0.25·[`codebook_loss`](Self::codebook_loss), `[1]`. In the paper (eq. 3) it is the other
    /// term that has the factor β = 0.25.
    pub fn loss(&self) -> Tensor<1> {
        self.commitment_loss() + self.codebook_loss() * BETA
    }

    /// `log K` nats at each position, for K equally probable codes.
    fn entropy(&self) -> f64 {
        let [_, positions, _] = self.indices.dims();
        uniform_entropy(positions, self.num_embeddings)
    }
}

/// Entropy of `positions` independent codes, equally probable, in nats.
pub(super) fn uniform_entropy(positions: usize, codes: usize) -> f64 {
    positions as f64 * (codes as f64).ln()
}

fn mean_square(x: Tensor<4>) -> Tensor<1> {
    (x.clone() * x).mean()
}

impl Posterior for QuantizedLatents {
    fn sample(&self, _rng: &mut Rng) -> Tensor<4> {
        self.straight_through()
    }

    fn sample_with_log_prob(&self, _rng: &mut Rng) -> (Tensor<4>, Tensor<1>) {
        let batch = self.latents.dims()[0];
        let log_prob = Tensor::zeros([batch], &self.latents.device());
        (self.straight_through(), log_prob)
    }

    fn mode(&self) -> Tensor<4> {
        self.quantized.clone()
    }

    /// The divergence from uniformly distributed codes, a constant.
    fn kl(&self) -> Tensor<1> {
        let batch = self.latents.dims()[0];
        Tensor::full([batch], self.entropy(), &self.latents.device())
    }
}
