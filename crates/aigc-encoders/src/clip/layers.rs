//! Layers of both encoders, with transformers' names.

use super::config::Shared;
use crate::layers::normal;
use aigc_core::{
    nn::{Activation, Initializer, LayerNorm, LayerNormConfig, Linear},
    ops,
};
use burn::{
    module::Module,
    tensor::{Bool, Device, Tensor},
};

/// A linear layer of `[from, to]` features whose bias, if there is one, is zero at first.
fn linear([from, to]: [usize; 2], bias: bool, std: f64, device: &Device) -> Linear {
    Linear {
        weight: normal(std).param([from, to], from, to, device),
        bias: bias.then(|| Initializer::ZEROS.param([to], from, to, device)),
        spectral: None,
    }
}

/// A projection of `[from, to]` features without a bias; `factor` is that of the configuration.
pub(super) fn projection([from, to]: [usize; 2], factor: f64, device: &Device) -> Linear {
    linear([from, to], false, (from as f64).powf(-0.5) * factor, device)
}

impl Shared {
    pub(super) fn norm(&self, device: &Device) -> LayerNorm {
        LayerNormConfig::new(self.hidden_size)
            .with_epsilon(self.layer_norm_eps)
            .init(device)
    }

    /// The projection of the pooled output, if the configuration has one.
    pub(super) fn projection(&self, device: &Device) -> Option<Linear> {
        let sizes = [self.hidden_size, self.projection_dim];
        self.with_projection
            .then(|| projection(sizes, self.initializer_factor, device))
    }

    /// The layers, with the initial weights of transformers.
    pub(super) fn encoder(&self, device: &Device) -> Encoder {
        let (d, inner, factor) = (
            self.hidden_size,
            self.intermediate_size,
            self.initializer_factor,
        );
        let width_std = (d as f64).powf(-0.5) * factor;
        let residual_std = width_std * (2.0 * self.num_hidden_layers as f64).powf(-0.5);
        let inner_std = (2.0 * d as f64).powf(-0.5) * factor;
        let square = |std| linear([d; 2], true, std, device);
        let layer = |_| EncoderLayer {
            layer_norm1: self.norm(device),
            self_attn: Attention {
                q_proj: square(residual_std),
                k_proj: square(residual_std),
                v_proj: square(residual_std),
                out_proj: square(width_std),
                heads: self.num_attention_heads,
            },
            layer_norm2: self.norm(device),
            mlp: Mlp {
                fc1: linear([d, inner], true, inner_std, device),
                fc2: linear([inner, d], true, residual_std, device),
                activation: self.hidden_act.into(),
            },
        };
        Encoder {
            layers: (0..self.num_hidden_layers).map(layer).collect(),
        }
    }
}

/// Multi-head self-attention.
#[derive(Module, Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: usize,
}

impl Attention {
    /// `mask`, `[batch, heads, queries, keys]`, is true where a key is hidden.
    fn forward(&self, x: Tensor<3>, mask: Option<Tensor<4, Bool>>, causal: bool) -> Tensor<3> {
        let [batch, tokens, width] = x.dims();
        let heads = |projection: &Linear| {
            projection
                .forward(x.clone())
                .reshape([batch, tokens, self.heads, width / self.heads])
                .swap_dims(1, 2)
        };
        let [q, k, v] = [&self.q_proj, &self.k_proj, &self.v_proj].map(heads);
        let joined = ops::attention(q, k, v, mask, causal)
            .swap_dims(1, 2)
            .reshape([batch, tokens, width]);
        self.out_proj.forward(joined)
    }
}

#[derive(Module, Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.fc2
            .forward(self.activation.forward(self.fc1.forward(x)))
    }
}

#[derive(Module, Debug)]
struct EncoderLayer {
    layer_norm1: LayerNorm,
    self_attn: Attention,
    layer_norm2: LayerNorm,
    mlp: Mlp,
}

impl EncoderLayer {
    fn forward(&self, x: Tensor<3>, mask: Option<Tensor<4, Bool>>, causal: bool) -> Tensor<3> {
        let attended = self
            .self_attn
            .forward(self.layer_norm1.forward(x.clone()), mask, causal);
        let x = x + attended;
        x.clone() + self.mlp.forward(self.layer_norm2.forward(x))
    }
}

/// The layers of an encoder.
#[derive(Module, Debug)]
pub(super) struct Encoder {
    layers: Vec<EncoderLayer>,
}

impl Encoder {
    /// The input, and the output of every layer.
    ///
    /// # Shapes
    /// - x and each output: `[batch, tokens, width]`
    /// - mask: `[batch, queries, keys]`, true where a key is hidden
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        mask: Option<Tensor<3, Bool>>,
        causal: bool,
    ) -> Vec<Tensor<3>> {
        let heads = self.layers.first().map_or(1, |layer| layer.self_attn.heads);
        let mask = mask.map(|mask| {
            let [batch, queries, keys] = mask.dims();
            mask.unsqueeze_dim::<4>(1)
                .expand([batch, heads, queries, keys])
        });
        let mut states = vec![x];
        for layer in &self.layers {
            let x = states[states.len() - 1].clone();
            states.push(layer.forward(x, mask.clone(), causal));
        }
        states
    }
}
