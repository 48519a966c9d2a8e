//! The blocks of the encoder. Fields have the names of weights in transformers' files.
#![allow(non_snake_case)]

use super::{
    config::{T5Config, T5ModelType},
    position::position_bias,
};
use crate::layers::{Embedding, normal, widened};
use aigc_core::nn::{Activation, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::{
    module::Module,
    tensor::{Device, Tensor, activation::softmax},
};

/// Number of queries whose scores are in memory at a time.
const QUERIES: usize = 128;

/// Creates layers with the settings that all of them share.
pub(super) struct Layers<'a> {
    pub(super) config: &'a T5Config,
    pub(super) activation: Activation,
    pub(super) gated: bool,
    pub(super) device: &'a Device,
}

impl Layers<'_> {
    /// Standard deviation of initial weights.
    fn std(&self, variance: f64) -> f64 {
        self.config.initializer_factor * variance.sqrt()
    }

    /// A linear layer without a bias; `inverse` is one over the variance of its initial weights.
    fn linear(&self, from: usize, to: usize, inverse: usize) -> Linear {
        LinearConfig::new(from, to)
            .with_bias(false)
            .with_initializer(normal(self.std(1.0 / inverse as f64)))
            .init(self.device)
    }

    pub(super) fn norm(&self) -> RmsNorm {
        RmsNormConfig::new(self.config.d_model)
            .with_epsilon(self.config.layer_norm_epsilon)
            .init(self.device)
    }

    pub(super) fn embedding(&self, rows: usize, width: usize, variance: f64) -> Embedding {
        Embedding::new([rows, width], self.std(variance), self.device)
    }

    /// Block number `index`; the first one has a table of relative positions, of UMT5 every one.
    pub(super) fn block(&self, index: usize) -> Block {
        let config = self.config;
        let (d, inner) = (config.d_model, config.num_heads * config.d_kv);
        let buckets = config.relative_attention_num_buckets;
        let has_table = index == 0 || config.model_type == T5ModelType::Umt5;
        let table = || self.embedding(buckets, config.num_heads, 1.0 / d as f64);
        let attention = Attention {
            q: self.linear(d, inner, d * config.d_kv),
            k: self.linear(d, inner, d),
            v: self.linear(d, inner, d),
            o: self.linear(inner, d, inner),
            relative_attention_bias: has_table.then(table),
            heads: config.num_heads,
        };
        let wi = || self.linear(d, config.d_ff, d);
        let wo = self.linear(config.d_ff, d, config.d_ff);
        let activation = self.activation;
        let dense = if self.gated {
            Dense::Gated(GatedDense {
                wi_0: wi(),
                wi_1: wi(),
                wo,
                activation,
            })
        } else {
            Dense::Plain(PlainDense {
                wi: wi(),
                wo,
                activation,
            })
        };
        Block {
            layer: (
                AttentionLayer {
                    SelfAttention: attention,
                    layer_norm: self.norm(),
                },
                DenseLayer {
                    DenseReluDense: dense,
                    layer_norm: self.norm(),
                },
            ),
        }
    }
}

/// What is added to the scores of attention in a block.
pub(super) struct Bias {
    /// By relative position, `[1, heads, tokens, tokens]`.
    pub(super) position: Tensor<4>,
    /// The least number for padding and 0 for others, `[batch, 1, 1, tokens]`.
    pub(super) padding: Option<Tensor<4>>,
}

impl Bias {
    /// Adds to the scores `[batch, heads, queries, tokens]` of the queries from `start` on.
    fn add_to(&self, scores: Tensor<4>, start: usize) -> Tensor<4> {
        let [_, _, queries, _] = scores.dims();
        let scores = scores + self.position.clone().narrow(2, start, queries);
        match &self.padding {
            Some(padding) => scores + padding.clone(),
            None => scores,
        }
    }
}

/// Self-attention whose scores are not scaled.
#[derive(Module, Debug)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    relative_attention_bias: Option<Embedding>,
    heads: usize,
}

impl Attention {
    fn forward(&self, x: Tensor<3>, bias: &Bias) -> Tensor<3> {
        let [batch, tokens, _] = x.dims();
        let split = |x: Tensor<3>| -> Tensor<4> {
            let [.., width] = x.dims();
            x.reshape([batch, tokens, self.heads, width / self.heads])
                .swap_dims(1, 2)
        };
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|layer| split(layer.forward(x.clone())));
        let keys = k.swap_dims(2, 3);
        let blocks = (0..tokens).step_by(QUERIES).map(|start| {
            let count = QUERIES.min(tokens - start);
            let scores = q.clone().narrow(2, start, count).matmul(keys.clone());
            softmax(bias.add_to(scores, start), 3).matmul(v.clone())
        });
        let y = Tensor::cat(blocks.collect(), 2);
        let [.., width] = y.dims();
        let y = y.swap_dims(1, 2);
        self.o
            .forward(y.reshape([batch, tokens, self.heads * width]))
    }
}

/// A feed-forward network of two layers, `wo(activation(wi(x)))`.
#[derive(Module, Debug)]
struct PlainDense {
    wi: Linear,
    wo: Linear,
    #[module(skip)]
    activation: Activation,
}

/// A feed-forward network with a gate, `wo(activation(wi_0(x)) * wi_1(x))` (Shazeer 2020,
/// <https://arxiv.org/abs/2002.05202>).
#[derive(Module, Debug)]
struct GatedDense {
    wi_0: Linear,
    wi_1: Linear,
    wo: Linear,
    #[module(skip)]
    activation: Activation,
}

#[derive(Module, Debug)]
enum Dense {
    Plain(PlainDense),
    Gated(GatedDense),
}

impl Dense {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Plain(dense) => {
                let inner = dense.activation.forward(dense.wi.forward(x));
                dense.wo.forward(inner)
            }
            Self::Gated(dense) => {
                let gate = dense.activation.forward(dense.wi_0.forward(x.clone()));
                dense.wo.forward(gate * dense.wi_1.forward(x))
            }
        }
    }
}

#[derive(Module, Debug)]
struct AttentionLayer {
    SelfAttention: Attention,
    layer_norm: RmsNorm,
}

#[derive(Module, Debug)]
struct DenseLayer {
    DenseReluDense: Dense,
    layer_norm: RmsNorm,
}

/// Attention and a feed-forward network, each behind a norm and with a residual connection.
#[derive(Module, Debug)]
pub(super) struct Block {
    layer: (AttentionLayer, DenseLayer),
}

impl Block {
    /// The bias of relative positions for `tokens` tokens, `[1, heads, tokens, tokens]`; `None`
    /// for a block without a table.
    pub(super) fn position_bias(&self, max_distance: usize, tokens: usize) -> Option<Tensor<4>> {
        let table = self
            .layer
            .0
            .SelfAttention
            .relative_attention_bias
            .as_ref()?;
        Some(position_bias(
            widened(table.weight.val()),
            max_distance,
            tokens,
        ))
    }

    /// # Shapes
    /// - x and output: `[batch, tokens, d_model]`
    pub(super) fn forward(&self, x: Tensor<3>, bias: &Bias) -> Tensor<3> {
        let (attention, dense) = &self.layer;
        let normed = attention.layer_norm.forward(x.clone());
        let x = x + attention.SelfAttention.forward(normed, bias);
        let normed = dense.layer_norm.forward(x.clone());
        x + dense.DenseReluDense.forward(normed)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
    };

    /// `softmax(q·kᵀ + bias)·v` of more queries than are in memory at a time, by its formula.
    #[test]
    fn attention_is_unscaled_and_adds_its_bias() {
        let device = Device::flex();
        let config = T5Config {
            d_model: 6,
            d_kv: 4,
            num_heads: 1,
            ..T5Config::default()
        };
        let layers = Layers {
            config: &config,
            activation: Activation::Relu,
            gated: false,
            device: &device,
        };
        let block = layers.block(0).init_weights(1);
        let layer = &block.layer.0.SelfAttention;
        let tokens = QUERIES + 7;
        let mut rng = Rng::new(2);
        let x: Tensor<3> = rng.normal([1, tokens, 6], &device);
        let mut padding = vec![0.0; tokens];
        padding[3] = f32::MIN;
        let padding = Tensor::<1>::from_floats(&padding[..], &device);
        let bias = Bias {
            position: rng.normal([1, 1, tokens, tokens], &device),
            padding: Some(padding.clone().reshape([1, 1, 1, tokens])),
        };
        let [q, k, v] = [&layer.q, &layer.k, &layer.v]
            .map(|layer| x.clone().matmul(layer.weight.val().unsqueeze()));
        let scores = q.matmul(k.swap_dims(1, 2)) + bias.position.clone().squeeze_dim::<3>(0);
        let scores = scores + padding.reshape([1, 1, tokens]);
        let expected = softmax(scores, 2)
            .matmul(v)
            .matmul(layer.o.weight.val().unsqueeze());
        let found = layer.forward(x, &bias);
        assert_close(&values(found), &values(expected), 1e-5);
    }
}
