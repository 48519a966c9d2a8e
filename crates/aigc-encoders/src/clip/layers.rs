//! Layers of both encoders, with transformers' names.

use aigc_core::{
    nn::{Activation, Initializer, LayerNorm, LayerNormConfig, Linear},
    ops,
};
use burn::{
    module::{Module, Param},
    tensor::{Bool, DType, Device, Int, Tensor},
};

/// A tensor of 16-bit floats as 32-bit ones; others as they are.
pub(super) fn widened<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match x.dtype() {
        DType::F16 | DType::BF16 => ops::cast(x, DType::F32),
        _ => x,
    }
}

/// A distribution of initial weights around zero.
pub(super) fn normal(std: f64) -> Initializer {
    Initializer::Normal { mean: 0.0, std }
}

/// A linear layer of `[from, to]` features whose bias, if there is one, is zero at first.
pub(super) fn linear([from, to]: [usize; 2], bias: bool, std: f64, device: &Device) -> Linear {
    Linear {
        weight: normal(std).param([from, to], from, to, device),
        bias: bias.then(|| Initializer::ZEROS.param([to], from, to, device)),
        spectral: None,
    }
}

/// A table of embeddings, one for each token or position.
#[derive(Module, Debug)]
pub struct Embedding {
    /// Weight, `[count, width]`.
    pub weight: Param<Tensor<2>>,
}

impl Embedding {
    pub(super) fn new([count, width]: [usize; 2], std: f64, device: &Device) -> Self {
        Self {
            weight: normal(std).param([count, width], count, width, device),
        }
    }

    /// The embeddings of `indices`; those of half precision in 32 bits.
    ///
    /// # Shapes
    /// - indices: `[batch, tokens]`
    /// - output: `[batch, tokens, width]`
    ///
    /// # Panics
    /// If an index is not below the number of embeddings.
    pub fn forward(&self, indices: Tensor<2, Int>) -> Tensor<3> {
        ops::embedding(self.weight.val(), indices)
    }

    /// The first `count` embeddings, `[1, count, width]`.
    pub(super) fn first(&self, count: usize) -> Tensor<3> {
        widened(self.weight.val().narrow(0, 0, count)).unsqueeze()
    }
}

/// Sizes of an encoder.
pub(super) struct EncoderSizes {
    pub(super) width: usize,
    pub(super) inner: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) activation: Activation,
    pub(super) epsilon: f64,
    /// Factor of the standard deviations of initial weights.
    pub(super) factor: f64,
}

impl EncoderSizes {
    pub(super) fn norm(&self, device: &Device) -> LayerNorm {
        LayerNormConfig::new(self.width)
            .with_epsilon(self.epsilon)
            .init(device)
    }

    /// An encoder with the initial weights of transformers.
    pub(super) fn init(&self, device: &Device) -> Encoder {
        let width = (self.width as f64).powf(-0.5) * self.factor;
        let residual = width * (2.0 * self.layers as f64).powf(-0.5);
        let inner = (2.0 * self.width as f64).powf(-0.5) * self.factor;
        let square = |std| linear([self.width; 2], true, std, device);
        let layer = |_| EncoderLayer {
            layer_norm1: self.norm(device),
            self_attn: Attention {
                q_proj: square(residual),
                k_proj: square(residual),
                v_proj: square(residual),
                out_proj: square(width),
                heads: self.heads,
            },
            layer_norm2: self.norm(device),
            mlp: Mlp {
                fc1: linear([self.width, self.inner], true, inner, device),
                fc2: linear([self.inner, self.width], true, residual, device),
                activation: self.activation,
            },
        };
        Encoder {
            layers: (0..self.layers).map(layer).collect(),
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
