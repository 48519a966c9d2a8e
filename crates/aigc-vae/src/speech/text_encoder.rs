//! A transformer over the symbols of a text, whose positions are relative.

use super::layers::Embedding;
use aigc_core::{
    Result,
    check::ensure_argument,
    nn::{
        Activation, Conv1d, Conv1dConfig, Dropout, DropoutConfig, Initializer, LayerNorm,
        LayerNormConfig, Linear, LinearConfig, PaddingMode,
    },
    ops,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor, activation::softmax},
};

/// Limit on the attention weights of a layer: 2 GiB of 32-bit floats.
const MAX_WEIGHTS: usize = 1 << 29;

/// Fails for texts whose attention weights would not fit in memory. Their number grows with the
/// square of the length of the texts.
///
/// # Errors
/// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) with the length that is possible.
pub(super) fn check_length(
    argument: &str,
    [batch, tokens]: [usize; 2],
    heads: usize,
) -> Result<()> {
    let rows = batch.saturating_mul(heads).max(1);
    let most = (MAX_WEIGHTS / rows).isqrt();
    let value = format!("{batch} texts of {tokens} symbols");
    let expected = format!("at most {most} symbols each; divide the texts, such as by sentence");
    ensure_argument(tokens <= most, argument, value, &expected)
}

/// Sizes of a [`TextEncoder`].
#[derive(Clone, Copy, Debug)]
pub(super) struct TextEncoderSizes {
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    /// Distance up to which relative positions have vectors of their own.
    pub(super) window: usize,
    pub(super) ffn_dim: usize,
    pub(super) ffn_kernel: usize,
    pub(super) bias: bool,
    pub(super) activation: Activation,
    pub(super) epsilon: f64,
    pub(super) dropout: f64,
    /// Channels of the projection of the hidden states.
    pub(super) outputs: usize,
}

/// Embeddings, transformer layers with relative positions within a window (Shaw et al. 2018,
/// <https://arxiv.org/abs/1803.02155>), and a projection of their outputs.
#[derive(Module, Debug)]
pub(super) struct TextEncoder {
    embed_tokens: Embedding,
    encoder: Encoder,
    project: Conv1d,
}

#[derive(Module, Debug)]
struct Encoder {
    layers: Vec<EncoderLayer>,
}

impl TextEncoder {
    pub(super) fn new(sizes: &TextEncoderSizes, device: &Device) -> Self {
        let hidden = sizes.hidden_size;
        let layers = (0..sizes.layers).map(|_| EncoderLayer::new(sizes, device));
        Self {
            // Scaled by the root of the width, embeddings have variance 1.
            embed_tokens: Embedding::new(
                [sizes.vocab_size, hidden],
                (hidden as f64).powf(-0.5),
                device,
            ),
            encoder: Encoder {
                layers: layers.collect(),
            },
            project: Conv1dConfig::new([hidden, sizes.outputs], 1).init(device),
        }
    }

    /// Hidden states and their projection.
    ///
    /// # Shapes
    /// - ids: `[batch, tokens]`, mask: `[batch, 1, tokens]`, 1 for tokens and 0 for padding
    /// - condition: `[batch or 1, hidden, 1]`, added to the embeddings
    /// - output: `[batch, hidden, tokens]` and `[batch, outputs, tokens]`
    pub(super) fn forward(
        &self,
        ids: Tensor<2, Int>,
        mask: &Tensor<3>,
        condition: Option<Tensor<3>>,
    ) -> (Tensor<3>, Tensor<3>) {
        let [batch, tokens] = ids.dims();
        let x = self.embed_tokens.forward(ids);
        let scale = (x.dims()[2] as f64).sqrt();
        let mut x = x * scale;
        if let Some(condition) = condition {
            x = x + condition.swap_dims(1, 2);
        }
        // The least number in place of minus infinity: a row without tokens stays finite.
        let hidden_keys = (mask.clone() * -1.0 + 1.0) * f32::MIN;
        let hidden_keys = hidden_keys.reshape([batch, 1, 1, tokens]);
        let rows = mask.clone().swap_dims(1, 2);
        x = x * rows.clone();
        for layer in &self.encoder.layers {
            x = layer.forward(x, mask, &hidden_keys);
        }
        let x = (x * rows).swap_dims(1, 2);
        let outputs = self.project.forward(x.clone()) * mask.clone();
        (x, outputs)
    }
}

#[derive(Module, Debug)]
struct EncoderLayer {
    attention: Attention,
    layer_norm: LayerNorm,
    feed_forward: FeedForward,
    final_layer_norm: LayerNorm,
    dropout: Dropout,
}

impl EncoderLayer {
    fn new(sizes: &TextEncoderSizes, device: &Device) -> Self {
        let norm = || {
            LayerNormConfig::new(sizes.hidden_size)
                .with_epsilon(sizes.epsilon)
                .init(device)
        };
        Self {
            attention: Attention::new(sizes, device),
            layer_norm: norm(),
            feed_forward: FeedForward::new(sizes, device),
            final_layer_norm: norm(),
            dropout: DropoutConfig::new(sizes.dropout).init(),
        }
    }

    /// `x` is `[batch, tokens, hidden]`.
    fn forward(&self, x: Tensor<3>, mask: &Tensor<3>, hidden_keys: &Tensor<4>) -> Tensor<3> {
        let y = self.attention.forward(x.clone(), hidden_keys);
        let x = self.layer_norm.forward(x + self.dropout.forward(y));
        let y = self.feed_forward.forward(x.clone(), mask);
        self.final_layer_norm.forward(x + self.dropout.forward(y))
    }
}

/// Attention in which keys and values near a query have a further vector for their distance.
#[derive(Module, Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    emb_rel_k: Param<Tensor<3>>,
    emb_rel_v: Param<Tensor<3>>,
    heads: usize,
    window: usize,
}

impl Attention {
    fn new(sizes: &TextEncoderSizes, device: &Device) -> Self {
        let width = sizes.hidden_size;
        let head = width / sizes.heads;
        let linear = || {
            LinearConfig::new(width, width)
                .with_bias(sizes.bias)
                .init(device)
        };
        let table = || {
            let std = (head as f64).powf(-0.5);
            let shape = [1, 2 * sizes.window + 1, head];
            Initializer::Normal { mean: 0.0, std }.param(shape, head, head, device)
        };
        Self {
            q_proj: linear(),
            k_proj: linear(),
            v_proj: linear(),
            out_proj: linear(),
            emb_rel_k: table(),
            emb_rel_v: table(),
            heads: sizes.heads,
            window: sizes.window,
        }
    }

    fn forward(&self, x: Tensor<3>, hidden_keys: &Tensor<4>) -> Tensor<3> {
        let ([batch, tokens, width], heads) = (x.dims(), self.heads);
        let head = width / heads;
        let split = |x: Tensor<3>| x.reshape([batch, tokens, heads, head]).swap_dims(1, 2);
        let q = split(self.q_proj.forward(x.clone())) * (head as f64).powf(-0.5);
        let k = split(self.k_proj.forward(x.clone()));
        let v = split(self.v_proj.forward(x));
        let distances = 2 * self.window + 1;
        let table =
            |table: &Param<Tensor<3>>| ops::cast(table.val(), q.dtype()).reshape([distances, head]);
        let rows = q.clone().reshape([batch * heads * tokens, head]);
        let by_distance = rows.matmul(table(&self.emb_rel_k).transpose());
        let by_distance = by_distance.reshape([batch, heads, tokens, distances]);
        let scores = q.clone().matmul(k.swap_dims(2, 3)) + to_keys(by_distance, self.window);
        let weights = softmax(scores + hidden_keys.clone(), 3);
        let by_distance = to_distances(weights.clone(), self.window);
        let near = by_distance
            .reshape([batch * heads * tokens, distances])
            .matmul(table(&self.emb_rel_v))
            .reshape([batch, heads, tokens, head]);
        let y = weights.matmul(v) + near;
        let y = y.swap_dims(1, 2).reshape([batch, tokens, width]);
        self.out_proj.forward(y)
    }
}

/// Values for the distances `−window..=window` of keys from their queries, as values for the keys;
/// zeros for keys outside the window.
///
/// # Shapes
/// - x: `[batch, heads, tokens, 2·window + 1]`
/// - output: `[batch, heads, tokens, tokens]`
fn to_keys(x: Tensor<4>, window: usize) -> Tensor<4> {
    let [batch, heads, tokens, _] = x.dims();
    let zeros = Tensor::zeros([batch, heads, tokens, tokens], (&x.device(), x.dtype()));
    // Rows that are one element longer than the padded keys move by one place from query to query.
    let (row, len) = (tokens + 2 * window, tokens * (tokens + 2 * window));
    Tensor::cat(vec![x, zeros], 3)
        .reshape([batch, heads, tokens * (row + 1)])
        .narrow(2, 0, len)
        .reshape([batch, heads, tokens, row])
        .narrow(3, window, tokens)
}

/// The reverse of [`to_keys`]: values for keys, as values for distances within the window; zeros
/// where there is no key.
fn to_distances(x: Tensor<4>, window: usize) -> Tensor<4> {
    let ([batch, heads, tokens, _], options) = (x.dims(), (x.device(), x.dtype()));
    let zeros = |dims: [usize; 4]| Tensor::<4>::zeros(dims, (&options.0, options.1));
    let edge = || zeros([batch, heads, tokens, window]);
    let row = tokens + 2 * window;
    let padded = Tensor::cat(vec![edge(), x, edge()], 3).reshape([batch, heads, 1, tokens * row]);
    let end = zeros([batch, heads, 1, tokens]);
    Tensor::cat(vec![padded, end], 3)
        .reshape([batch, heads, tokens, row + 1])
        .narrow(3, 0, 2 * window + 1)
}

/// Two convolutions along the tokens.
#[derive(Module, Debug)]
struct FeedForward {
    conv_1: Conv1d,
    conv_2: Conv1d,
    dropout: Dropout,
    kernel: usize,
    #[module(skip)]
    activation: Activation,
}

impl FeedForward {
    fn new(sizes: &TextEncoderSizes, device: &Device) -> Self {
        let conv = |channels| Conv1dConfig::new(channels, sizes.ffn_kernel).init(device);
        Self {
            conv_1: conv([sizes.hidden_size, sizes.ffn_dim]),
            conv_2: conv([sizes.ffn_dim, sizes.hidden_size]),
            dropout: DropoutConfig::new(sizes.dropout).init(),
            kernel: sizes.ffn_kernel,
            activation: sizes.activation,
        }
    }

    fn forward(&self, x: Tensor<3>, mask: &Tensor<3>) -> Tensor<3> {
        let padding = [(self.kernel - 1) / 2, self.kernel / 2];
        let padded = |x: Tensor<3>| ops::pad1d(x * mask.clone(), padding, PaddingMode::Zeros);
        let y = self.conv_1.forward(padded(x.swap_dims(1, 2)));
        let y = self.dropout.forward(self.activation.forward(y));
        let y = self.conv_2.forward(padded(y)) * mask.clone();
        y.swap_dims(1, 2)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
    };

    fn encoder() -> TextEncoder {
        let sizes = TextEncoderSizes {
            vocab_size: 10,
            hidden_size: 8,
            layers: 2,
            heads: 2,
            window: 2,
            ffn_dim: 12,
            ffn_kernel: 3,
            bias: true,
            activation: Activation::Relu,
            epsilon: 1e-5,
            dropout: 0.0,
            outputs: 4,
        };
        TextEncoder::new(&sizes, &Device::flex()).init_weights(1)
    }

    fn ids(ids: &[i32]) -> Tensor<2, Int> {
        Tensor::<1, Int>::from_data(ids, &Device::flex()).unsqueeze()
    }

    #[test]
    fn distances_and_keys_are_two_views_of_a_band() {
        for (tokens, window) in [(1, 2), (2, 3), (3, 3), (7, 2)] {
            let distances = 2 * window + 1;
            let x: Tensor<4> = Rng::new(1).normal([2, 1, tokens, distances], &Device::flex());
            let keys = to_keys(x.clone(), window);
            assert_eq!(keys.dims(), [2, 1, tokens, tokens]);
            let (all, found) = (values(x), values(keys.clone()));
            let mut inside = vec![0.0; all.len()];
            for item in 0..2 {
                for (query, key) in (0..tokens).flat_map(|q| (0..tokens).map(move |k| (q, k))) {
                    let row = item * tokens + query;
                    let expected = match query.abs_diff(key) <= window {
                        true => {
                            let at = row * distances + key + window - query;
                            inside[at] = all[at];
                            all[at]
                        }
                        false => 0.0,
                    };
                    assert_eq!(found[row * tokens + key], expected);
                }
            }
            assert_eq!(values(to_distances(keys, window)), inside);
        }
    }

    #[test]
    fn padding_does_not_count() {
        let (model, device) = (encoder(), Device::flex());
        let mask =
            |ones: usize, all: usize| super::super::layers::length_mask(&[ones], all, &device);
        let (hidden, outputs) = model.forward(ids(&[3, 4, 5]), &mask(3, 3), None);
        let (padded, padded_outputs) = model.forward(ids(&[3, 4, 5, 9, 9]), &mask(3, 5), None);
        assert_close(
            &values(padded.clone().narrow(2, 0, 3)),
            &values(hidden),
            1e-5,
        );
        assert_close(
            &values(padded_outputs.narrow(2, 0, 3)),
            &values(outputs),
            1e-5,
        );
        assert!(values(padded.narrow(2, 3, 2)).iter().all(|x| *x == 0.0));
    }

    #[test]
    fn a_row_without_tokens_stays_finite() {
        let mask = super::super::layers::length_mask(&[0], 2, &Device::flex());
        let (hidden, _) = encoder().forward(ids(&[1, 2]), &mask, None);
        assert!(values(hidden).iter().all(|x| x.is_finite()));
    }
}
