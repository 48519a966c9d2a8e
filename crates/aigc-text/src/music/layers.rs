//! The blocks of MusicGen's decoder.

// Linear layers without a bias, full or quantised: the type is that of output layers.
use crate::nn::LmHead as BiasFree;
use crate::{cache::Cache, music::config::MusicgenDecoderConfig};
use aigc_core::{
    nn::{Activation, Dropout, DropoutConfig, Initializer, LayerNorm, LayerNormConfig},
    ops,
};
use burn::{
    module::Module,
    tensor::{Bool, Device, Tensor},
};

/// Multi-head attention of separate projections.
#[derive(Module, Debug)]
pub(super) struct Attention {
    q_proj: BiasFree,
    k_proj: BiasFree,
    v_proj: BiasFree,
    out_proj: BiasFree,
    heads: usize,
}

impl Attention {
    /// Divides `[batch, time, width]` into `[batch, heads, time, d]`.
    fn split(&self, x: Tensor<3>) -> Tensor<4> {
        let [batch, time, width] = x.dims();
        x.reshape([batch, time, self.heads, width / self.heads])
            .swap_dims(1, 2)
    }

    /// Projects the joined heads.
    fn output(&self, heads: Tensor<4>) -> Tensor<3> {
        let [batch, count, time, d] = heads.dims();
        let joined = heads.swap_dims(1, 2).reshape([batch, time, count * d]);
        self.out_proj.forward(joined)
    }

    /// Keys and values of vectors, `[batch, heads, vectors, d]`.
    pub(super) fn keys_values(&self, states: Tensor<3>) -> [Tensor<4>; 2] {
        let keys = self.split(self.k_proj.forward(states.clone()));
        [keys, self.split(self.v_proj.forward(states))]
    }

    /// Attention of steps to themselves and earlier ones, those in the cache of block `layer` too.
    fn to_steps(&self, x: Tensor<3>, cache: Option<(usize, &mut dyn Cache)>) -> Tensor<3> {
        let q = self.split(self.q_proj.forward(x.clone()));
        let [k, v] = self.keys_values(x);
        let (k, v) = match cache {
            Some((layer, cache)) => cache.update(layer, k, v),
            None => (k, v),
        };
        self.output(ops::attention(q, k, v, None, true))
    }

    /// Attention to a condition.
    fn to_condition(&self, x: Tensor<3>, told: Told<'_>) -> Tensor<3> {
        let q = self.split(self.q_proj.forward(x));
        let [batch, heads, queries, _] = q.dims();
        let [k, v] = told.keys_values.clone();
        let hidden = told.hidden.map(|hidden| {
            let keys = hidden.dims()[1];
            let hidden = hidden.clone().reshape([batch, 1, 1, keys]);
            hidden.expand([batch, heads, queries, keys])
        });
        self.output(ops::attention(q, k, v, hidden, false))
    }
}

/// Keys and values of a condition for a block, and a mask that is true where they are hidden.
#[derive(Clone, Copy)]
pub(super) struct Told<'a> {
    pub(super) keys_values: &'a [Tensor<4>; 2],
    pub(super) hidden: Option<&'a Tensor<2, Bool>>,
}

/// A block: attention to earlier steps, attention to the condition, an MLP.
#[derive(Module, Debug)]
pub(super) struct Layer {
    self_attn: Attention,
    self_attn_layer_norm: LayerNorm,
    pub(super) encoder_attn: Attention,
    encoder_attn_layer_norm: LayerNorm,
    fc1: BiasFree,
    fc2: BiasFree,
    final_layer_norm: LayerNorm,
    drop: Dropout,
    activation_drop: Dropout,
    #[module(skip)]
    activation: Activation,
}

impl Layer {
    pub(super) fn new(config: &MusicgenDecoderConfig, device: &Device) -> Self {
        let d = config.hidden_size;
        let linear = |sizes| BiasFree::new(sizes, initializer(config), device);
        let attention = || Attention {
            q_proj: linear([d, d]),
            k_proj: linear([d, d]),
            v_proj: linear([d, d]),
            out_proj: linear([d, d]),
            heads: config.num_attention_heads,
        };
        let norm = || LayerNormConfig::new(d).init(device);
        Self {
            self_attn: attention(),
            self_attn_layer_norm: norm(),
            encoder_attn: attention(),
            encoder_attn_layer_norm: norm(),
            fc1: linear([d, config.ffn_dim]),
            fc2: linear([config.ffn_dim, d]),
            final_layer_norm: norm(),
            drop: DropoutConfig::new(config.dropout).init(),
            activation_drop: DropoutConfig::new(config.activation_dropout).init(),
            activation: config.activation_function.into(),
        }
    }

    /// Applies the block, `[batch, time, width]`.
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        cache: Option<(usize, &mut dyn Cache)>,
        told: Option<Told<'_>>,
    ) -> Tensor<3> {
        let y = self.self_attn_layer_norm.forward(x.clone());
        let mut x = x + self.drop.forward(self.self_attn.to_steps(y, cache));
        if let Some(told) = told {
            let y = self.encoder_attn_layer_norm.forward(x.clone());
            x = x + self.drop.forward(self.encoder_attn.to_condition(y, told));
        }
        let y = self.final_layer_norm.forward(x.clone());
        let inner = self.activation.forward(self.fc1.forward(y));
        let y = self.fc2.forward(self.activation_drop.forward(inner));
        x + self.drop.forward(y)
    }

    /// All linear layers.
    pub(super) fn linear_mut(&mut self) -> [&mut BiasFree; 10] {
        let (own, told) = (&mut self.self_attn, &mut self.encoder_attn);
        [
            &mut own.q_proj,
            &mut own.k_proj,
            &mut own.v_proj,
            &mut own.out_proj,
            &mut told.q_proj,
            &mut told.k_proj,
            &mut told.v_proj,
            &mut told.out_proj,
            &mut self.fc1,
            &mut self.fc2,
        ]
    }
}

/// The initializer of all weights.
pub(super) fn initializer(config: &MusicgenDecoderConfig) -> Initializer {
    Initializer::Normal {
        mean: 0.0,
        std: config.initializer_factor,
    }
}

/// Sinusoids of positions from `first` on, `[1, count, width]` (Vaswani et al. 2017,
/// <https://arxiv.org/abs/1706.03762>, section 3.5): all cosines, then all sines. In 32 bits, as
/// the models were trained.
pub(super) fn positions(first: usize, count: usize, width: usize, device: &Device) -> Tensor<3> {
    let half = width / 2;
    let step = (10_000f64.ln() / (half - 1) as f64) as f32;
    let frequencies: Vec<f32> = (0..half).map(|i| (-step * i as f32).exp()).collect();
    let mut values = Vec::with_capacity(count * width);
    for at in first..first + count {
        let angles = frequencies.iter().map(|f| at as f32 * f);
        values.extend(angles.clone().map(f32::cos));
        values.extend(angles.map(f32::sin));
        // The last place of an odd width is empty.
        values.resize((at - first + 1) * width, 0.0);
    }
    let data = burn::tensor::TensorData::new(values, [1, count, width]);
    Tensor::from_data(data, device)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::{assert_close, values};

    #[test]
    fn positions_are_cosines_and_sines() {
        let device = Device::flex();
        let found = values(positions(3, 2, 5, &device));
        let angle = |at: f32, i: i32| at * 10_000f32.powi(-i);
        let row = |at: f32| {
            let [slow, fast] = [angle(at, 1), angle(at, 0)];
            [fast.cos(), slow.cos(), fast.sin(), slow.sin(), 0.0]
        };
        assert_close(&found, &[row(3.0), row(4.0)].concat(), 1e-6);
    }
}
