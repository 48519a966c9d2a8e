//! Attention of the tokens of an image and of a prompt, with the names of diffusers' `Attention`.

use super::transformers::RotaryTable;
use aigc_core::{
    nn::{Dropout, DropoutConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig},
    ops,
};
use burn::{
    module::Module,
    tensor::{Bool, Device, Int, Tensor, TensorData},
};

/// Configuration of an [`Attention`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionConfig {
    /// Width of the tokens, and of all heads together.
    pub(crate) width: usize,
    /// Width of the tokens that keys and values come from.
    pub(crate) context_width: usize,
    pub(crate) heads: usize,
    /// Whether queries, keys and values have biases.
    pub(crate) bias: bool,
    /// Whether each head of queries and keys is normalised (Henry et al. 2020,
    /// <https://arxiv.org/abs/2010.04245>, with root-mean-square norms).
    pub(crate) qk_norm: bool,
    /// Epsilon of a norm of queries and keys over all heads together, in place of one of each head.
    pub(crate) whole_norm: Option<f64>,
    /// Whether a second stream of tokens has queries, keys and values of its own.
    pub(crate) second: bool,
    /// Whether the outputs of the first and of the second stream are projected.
    pub(crate) outputs: [bool; 2],
    /// Whether the projection of the first output has a bias.
    pub(crate) out_bias: bool,
    pub(crate) dropout: f64,
}

impl AttentionConfig {
    /// Attention of one stream to itself.
    pub(crate) fn new(width: usize, heads: usize) -> Self {
        Self {
            width,
            context_width: width,
            heads,
            bias: true,
            qk_norm: false,
            whole_norm: None,
            second: false,
            outputs: [true, false],
            out_bias: true,
            dropout: 0.0,
        }
    }

    pub(crate) fn init(self, device: &Device) -> Attention {
        let Self {
            width,
            context_width,
            heads,
            bias,
            qk_norm,
            whole_norm,
            second,
            outputs,
            out_bias,
            dropout,
        } = self;
        let linear = |from, bias| LinearConfig::new(from, width).with_bias(bias).init(device);
        let added = || second.then(|| linear(width, true));
        let qk_norm = qk_norm || whole_norm.is_some();
        let norm = |wanted: bool| {
            let config = match whole_norm {
                Some(epsilon) => RmsNormConfig::new(width).with_epsilon(epsilon),
                None => RmsNormConfig::new(width / heads).with_epsilon(1e-6),
            };
            wanted.then(|| config.init(device))
        };
        Attention {
            norm_q: norm(qk_norm),
            norm_k: norm(qk_norm),
            to_q: linear(width, bias),
            to_k: linear(context_width, bias),
            to_v: linear(context_width, bias),
            norm_added_q: norm(qk_norm && second),
            norm_added_k: norm(qk_norm && second),
            add_q_proj: added(),
            add_k_proj: added(),
            add_v_proj: added(),
            to_out: outputs[0].then(|| {
                let dropout = DropoutConfig::new(dropout).init();
                (linear(width, out_bias), dropout)
            }),
            to_add_out: (second && outputs[1]).then(|| linear(width, true)),
            heads,
            whole_norm: whole_norm.is_some(),
        }
    }
}

/// Attention within one stream of tokens, within two, or from one to another.
#[derive(Module, Debug)]
pub(crate) struct Attention {
    norm_q: Option<RmsNorm>,
    norm_k: Option<RmsNorm>,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    norm_added_q: Option<RmsNorm>,
    norm_added_k: Option<RmsNorm>,
    add_q_proj: Option<Linear>,
    add_k_proj: Option<Linear>,
    add_v_proj: Option<Linear>,
    to_out: Option<(Linear, Dropout)>,
    to_add_out: Option<Linear>,
    heads: usize,
    /// Whether norms are over all heads.
    whole_norm: bool,
}

/// Least tokens for each channel of [`Attention::is_narrow`].
const ROWS_PER_CHANNEL: usize = 32;

/// Queries, keys and values, `[batch, tokens, heads, width of a head]`.
type Projected = [Tensor<4>; 3];

/// Attention of the streams to each other, as one stream, `[batch, tokens, width]`.
fn attend(streams: Vec<Projected>, rotary: Option<&RotaryTable>) -> Tensor<3> {
    let [q, k, v] = std::array::from_fn(|part| {
        let parts = streams.iter().map(|stream| stream[part].clone());
        parts.reduce(|a, b| Tensor::cat(vec![a, b], 1))
    })
    .map(|part| part.expect("one stream or more"));
    let (q, k) = match rotary {
        Some(rotary) => (rotary.rotate(q), rotary.rotate(k)),
        None => (q, k),
    };
    heads_attend(q, k, v)
}

/// # Shapes
/// - q: `[batch, tokens, heads, d]`, k and v: `[batch, others, heads, d]`
/// - output: `[batch, tokens, heads·d]`
fn heads_attend(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<3> {
    let [batch, tokens, heads, d] = q.dims();
    let [q, k, v] = [q, k, v].map(|x| x.swap_dims(1, 2));
    ops::attention(q, k, v, None, false)
        .swap_dims(1, 2)
        .reshape([batch, tokens, heads * d])
}

impl Attention {
    fn heads(&self, x: Tensor<3>) -> Tensor<4> {
        let [batch, tokens, width] = x.dims();
        x.reshape([batch, tokens, self.heads, width / self.heads])
    }

    fn projected(
        &self,
        x: Tensor<3>,
        layers: [&Linear; 3],
        norms: [&Option<RmsNorm>; 2],
    ) -> Projected {
        let [q, k, v] = layers.map(|layer| layer.forward(x.clone()));
        [
            self.normed(q, norms[0]),
            self.normed(k, norms[1]),
            self.heads(v),
        ]
    }

    /// The heads of queries or keys, normalised if there is a norm.
    fn normed(&self, x: Tensor<3>, norm: &Option<RmsNorm>) -> Tensor<4> {
        match norm {
            Some(norm) if self.whole_norm => self.heads(norm.forward(x)),
            Some(norm) => norm.forward(self.heads(x)),
            None => self.heads(x),
        }
    }

    fn first(&self, x: Tensor<3>) -> Projected {
        let layers = [&self.to_q, &self.to_k, &self.to_v];
        self.projected(x, layers, [&self.norm_q, &self.norm_k])
    }

    fn second(&self, x: Tensor<3>) -> Projected {
        let layers = [&self.add_q_proj, &self.add_k_proj, &self.add_v_proj]
            .map(|layer| layer.as_ref().expect("a second stream"));
        self.projected(x, layers, [&self.norm_added_q, &self.norm_added_k])
    }

    fn output(&self, x: Tensor<3>) -> Tensor<3> {
        match &self.to_out {
            Some((linear, dropout)) => dropout.forward(linear.forward(x)),
            None => x,
        }
    }

    /// Attention of the tokens to each other.
    ///
    /// # Shapes
    /// - x and output: `[batch, tokens, width]`
    pub(crate) fn forward(&self, x: Tensor<3>, rotary: Option<&RotaryTable>) -> Tensor<3> {
        let attended = match rotary {
            None if self.is_narrow(&x) => self.together(x),
            _ => attend(vec![self.first(x)], rotary),
        };
        self.output(attended)
    }

    /// Whether queries, keys and values are plain products of `x` by weights that are small beside
    /// it: then one product is faster than three, although the weights are copied for it.
    fn is_narrow(&self, x: &Tensor<3>) -> bool {
        let [batch, tokens, width] = x.dims();
        let layers = [&self.to_q, &self.to_k, &self.to_v];
        let is_plain = |layer: &&Linear| {
            let weight = layer.weight.val();
            weight.dims() == [width, width]
                && weight.dtype() == x.dtype()
                && layer.bias.is_none()
                && layer.spectral.is_none()
        };
        batch * tokens >= ROWS_PER_CHANNEL * width
            && self.norm_q.is_none()
            && self.norm_k.is_none()
            && layers.iter().all(is_plain)
    }

    /// Attention with one product in place of three, before the output layer.
    fn together(&self, x: Tensor<3>) -> Tensor<3> {
        let layers = [&self.to_q, &self.to_k, &self.to_v];
        let weights = layers.map(|layer| layer.weight.val());
        let qkv = ops::linear(x, Tensor::cat(weights.to_vec(), 1), None);
        ops::self_attention(qkv, self.heads, false)
    }

    /// Attention of the tokens of an image and of a prompt to each other; positions of `rotary` are
    /// those of the prompt, then of the image.
    ///
    /// # Shapes
    /// - x and first output: `[batch, tokens, width]`
    /// - context and second output: `[batch, others, width]`
    pub(crate) fn joint(
        &self,
        x: Tensor<3>,
        context: Tensor<3>,
        rotary: Option<&RotaryTable>,
    ) -> (Tensor<3>, Tensor<3>) {
        let (tokens, others) = (x.dims()[1], context.dims()[1]);
        let attended = attend(vec![self.second(context), self.first(x)], rotary);
        let context = attended.clone().narrow(1, 0, others);
        let context = match &self.to_add_out {
            Some(layer) => layer.forward(context),
            None => context,
        };
        (self.output(attended.narrow(1, others, tokens)), context)
    }

    /// Attention of tokens to those of a prompt.
    ///
    /// # Shapes
    /// - x and output: `[batch, tokens, width]`
    ///
    /// # Panics
    /// If there are not as many prompts as samples.
    pub(crate) fn cross(&self, x: Tensor<3>, prompts: &PromptTokens) -> Tensor<3> {
        let batch = x.dims()[0];
        assert_eq!(prompts.counts.len(), batch, "number of prompts");
        let q = self.normed(self.to_q.forward(x), &self.norm_q);
        let [k, v] = [&self.to_k, &self.to_v]
            .map(|layer| layer.forward(prompts.tokens.clone()).unsqueeze::<3>());
        let (k, v) = (self.normed(k, &self.norm_k), self.heads(v));
        let counts = &prompts.counts;
        if counts.iter().all(|count| *count == counts[0]) {
            let [_, _, heads, d] = k.dims();
            let [k, v] = [k, v].map(|x| x.reshape([batch, counts[0], heads, d]));
            return self.output(heads_attend(q, k, v));
        }
        let mut start = 0;
        let each = counts.iter().enumerate().map(|(i, count)| {
            let [k, v] = [&k, &v].map(|x| x.clone().narrow(1, start, *count));
            start += count;
            heads_attend(q.clone().narrow(0, i, 1), k, v)
        });
        self.output(Tensor::cat(each.collect(), 0))
    }
}

/// The tokens of prompts that attention sees. Hidden ones are left out: so no mask of queries ×
/// keys is needed, and less is computed.
#[derive(Clone, Debug)]
pub(crate) struct PromptTokens {
    /// Those of all samples, one after the other, `[tokens, width]`.
    tokens: Tensor<2>,
    /// How many belong to each sample.
    counts: Vec<usize>,
}

impl PromptTokens {
    /// The visible tokens of `hidden_states`. A sample without any sees all of its tokens, as a
    /// softmax over equally low scores does.
    ///
    /// # Shapes
    /// - hidden_states: `[batch, tokens, width]`
    /// - mask: `[batch, tokens]`, true for visible tokens
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub(crate) fn new(hidden_states: Tensor<3>, mask: Option<Tensor<2, Bool>>) -> Self {
        let [batch, tokens, width] = hidden_states.dims();
        let device = hidden_states.device();
        let all = hidden_states.reshape([batch * tokens, width]);
        let every = Self {
            tokens: all.clone(),
            counts: vec![tokens; batch],
        };
        let Some(mask) = mask else {
            return every;
        };
        assert_eq!(
            mask.dims(),
            [batch, tokens],
            "mask of {batch} prompts of {tokens} tokens"
        );
        let mask: Vec<bool> = mask.into_data().iter::<bool>().collect();
        if mask.iter().all(|visible| *visible) {
            return every;
        }
        let (mut seen, mut counts) = (vec![], vec![]);
        for (sample, mask) in mask.chunks(tokens).enumerate() {
            let none = !mask.contains(&true);
            let visible = (0..tokens).filter(|token| none || mask[*token]);
            let before = seen.len();
            seen.extend(visible.map(|token| (sample * tokens + token) as i32));
            counts.push(seen.len() - before);
        }
        let count = seen.len();
        let seen = Tensor::<1, Int>::from_data(TensorData::new(seen, [count]), &device);
        Self {
            tokens: all.select(0, seen),
            counts,
        }
    }

    /// The tokens after a network that works on each of them alone.
    pub(crate) fn map(self, f: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Self {
        Self {
            tokens: f(self.tokens),
            ..self
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        device::device,
        rng::{InitWeights, Rng},
    };

    fn apart<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
        (a - b).abs().max().into_scalar::<f32>()
    }

    /// One product of many tokens has the values and the gradients of three.
    #[test]
    fn one_product_is_three() {
        let device = device("flex").unwrap().autodiff();
        let config = AttentionConfig {
            bias: false,
            ..AttentionConfig::new(4, 2)
        };
        let layer = config.init(&device).init_weights(1);
        let mut rng = Rng::new(2);
        let x: Tensor<3> = rng.normal([9, 16, 4], &device);
        let of_loss: Tensor<3> = rng.normal([9, 16, 4], &device);
        assert!(layer.is_narrow(&x) && !layer.is_narrow(&x.clone().narrow(0, 0, 7)));
        let gradients = |y: Tensor<3>| {
            let gradients = (y.clone() * of_loss.clone()).sum().backward();
            let layers = [&layer.to_q, &layer.to_k, &layer.to_v];
            let of = layers.map(|layer| layer.weight.val().grad(&gradients).unwrap());
            (y, of)
        };
        let (one, of_one) = gradients(layer.forward(x.clone(), None));
        let (three, of_three) = gradients(layer.output(attend(vec![layer.first(x)], None)));
        assert!(apart(one, three) < 1e-5);
        for (one, three) in of_one.into_iter().zip(of_three) {
            let size = three.clone().abs().max().into_scalar::<f32>();
            assert!(apart(one, three) < 1e-5 * size.max(1.0));
        }
        let biased = AttentionConfig::new(4, 2).init(&device).init_weights(1);
        assert!(!biased.is_narrow(&rng.normal([9, 16, 4], &device)));
    }

    /// Leaving hidden tokens out is the same as a mask of queries × keys; a sample whose tokens are
    /// all hidden sees all of them.
    #[test]
    fn cross_attention_matches_a_mask() {
        let flex = device("flex").unwrap();
        let config = AttentionConfig {
            context_width: 10,
            ..AttentionConfig::new(8, 2)
        };
        let layer = config.init(&flex).init_weights(1);
        let mut rng = Rng::new(2);
        let x: Tensor<3> = rng.normal([3, 5, 8], &flex);
        let context: Tensor<3> = rng.normal([3, 4, 10], &flex);
        let visible = [
            [true, false, true, false],
            [true, true, true, true],
            [false, false, false, false],
        ];
        let mask = Tensor::<2, Bool>::from_data(TensorData::from(visible), &flex);
        let found = layer.cross(x.clone(), &PromptTokens::new(context.clone(), Some(mask)));
        let hidden = [[false, true, false, true], [false; 4], [false; 4]];
        let hidden = Tensor::<2, Bool>::from_data(TensorData::from(hidden), &flex)
            .reshape([3, 1, 1, 4])
            .expand([3, 2, 5, 4]);
        let heads =
            |linear: &Linear, x: &Tensor<3>| layer.heads(linear.forward(x.clone())).swap_dims(1, 2);
        let expected = ops::attention(
            heads(&layer.to_q, &x),
            heads(&layer.to_k, &context),
            heads(&layer.to_v, &context),
            Some(hidden),
            false,
        );
        let expected = layer.output(expected.swap_dims(1, 2).reshape([3, 5, 8]));
        assert!(apart(found.clone(), expected) < 1e-5);
        // Two samples with as many tokens take one call.
        let pair = [[true, false, true, false], [false, true, true, false]];
        let pair = Tensor::<2, Bool>::from_data(TensorData::from(pair), &flex);
        let two = |x: &Tensor<3>| x.clone().narrow(0, 0, 2);
        let prompts = PromptTokens::new(two(&context), Some(pair));
        assert_eq!(prompts.counts, [2, 2]);
        let together = layer.cross(two(&x), &prompts);
        assert!(apart(together.narrow(0, 0, 1), found.narrow(0, 0, 1)) < 1e-5);
    }

    /// A norm over all heads: a head with larger numbers stays larger.
    #[test]
    fn norms_can_be_over_all_heads() {
        let flex = device("flex").unwrap();
        let config = AttentionConfig {
            whole_norm: Some(1e-6),
            out_bias: false,
            ..AttentionConfig::new(4, 2)
        };
        let layer = config.init(&flex).init_weights(3);
        let x: Tensor<3> = Rng::new(4).normal([1, 2, 4], &flex);
        let [q, k, _] = layer.first(x.clone());
        for (found, linear) in [(q, &layer.to_q), (k, &layer.to_k)] {
            let plain = linear.forward(x.clone());
            let root = (plain.clone() * plain.clone()).mean_dim(2).sqrt();
            let expected = (plain / root).reshape([1, 2, 2, 2]);
            assert!(apart(found, expected) < 1e-4);
        }
        // Attention to the own tokens as to those of a prompt is the same.
        let to_prompt = layer.cross(x.clone(), &PromptTokens::new(x.clone(), None));
        assert!(apart(to_prompt, layer.forward(x, None)) < 1e-5);
    }

    /// With the same layers for both streams, joint attention is that of all tokens to each other.
    #[test]
    fn joint_attention_is_that_of_one_stream() {
        let flex = device("flex").unwrap();
        let config = AttentionConfig {
            qk_norm: true,
            second: true,
            outputs: [true, true],
            ..AttentionConfig::new(8, 2)
        };
        let mut layer = config.init(&flex).init_weights(1);
        layer.add_q_proj = Some(layer.to_q.clone());
        layer.add_k_proj = Some(layer.to_k.clone());
        layer.add_v_proj = Some(layer.to_v.clone());
        layer.to_add_out = layer.to_out.as_ref().map(|(linear, _)| linear.clone());
        let mut rng = Rng::new(2);
        let x: Tensor<3> = rng.normal([2, 5, 8], &flex);
        let context: Tensor<3> = rng.normal([2, 3, 8], &flex);
        let (image, prompt) = layer.joint(x.clone(), context.clone(), None);
        let together = layer.forward(Tensor::cat(vec![x, context], 1), None);
        let expected = Tensor::cat(vec![image, prompt], 1);
        assert!(apart(together, expected) < 1e-5);
    }
}
