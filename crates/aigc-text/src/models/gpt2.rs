//! GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners").

use crate::{
    cache::KvCache,
    generate::{TokenIds, in_vocabulary},
    models::{CausalLm, LoraConfig, PositionIds},
};
use aigc_core::{
    Error, Result, json,
    nn::{
        Activation, Dropout, DropoutConfig, Initializer, LayerNorm, LayerNormConfig, Linear,
        LinearConfig, QuantizedWeight,
    },
    ops::{self, Quantization},
};
use burn::{
    module::{LoraAdapter, Module, Param},
    tensor::{Bool, Device, Int, Tensor, activation::softmax},
};
use serde::{Deserialize, Serialize};

/// Configuration to create a [`Gpt2`]: the fields of transformers' `config.json`, and
/// [`bias`](Self::bias).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpt2Config {
    /// Number of tokens.
    pub vocab_size: usize,
    /// The longest text, in tokens.
    pub n_positions: usize,
    /// Width.
    pub n_embd: usize,
    /// Number of blocks.
    pub n_layer: usize,
    /// Number of heads; it divides the width.
    pub n_head: usize,
    /// Width inside of a block's perceptron; four times the width unless given.
    pub n_inner: Option<usize>,
    /// Activation inside of a block's perceptron.
    pub activation_function: ActivationName,
    /// Dropout of what a block adds.
    pub resid_pdrop: f64,
    /// Dropout of the embeddings.
    pub embd_pdrop: f64,
    /// Dropout of attention's weights.
    pub attn_pdrop: f64,
    /// Added to the variance in layer norms.
    pub layer_norm_epsilon: f64,
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
    /// Whether scores of attention are divided by `√d`.
    pub scale_attn_weights: bool,
    /// Whether they are divided by the block's number too.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Whether the output layer is the table of tokens.
    pub tie_word_embeddings: bool,
    /// Whether linear layers and layer norms add biases. Not a field of transformers: nanoGPT has
    /// models without.
    pub bias: bool,
    /// The token that begins a text.
    pub bos_token_id: Option<u32>,
    /// The token that ends a text.
    pub eos_token_id: Option<TokenIds>,
    /// The token that fills up shorter rows.
    pub pad_token_id: Option<u32>,
}

/// Activations by transformers' names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum ActivationName {
    /// By a hyperbolic tangent, as GPT-2 was trained.
    #[default]
    #[serde(alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluNew,
    Gelu,
    Relu,
    #[serde(alias = "swish")]
    Silu,
    Tanh,
}

impl From<ActivationName> for Activation {
    fn from(name: ActivationName) -> Self {
        match name {
            ActivationName::GeluNew => Activation::GeluTanh,
            ActivationName::Gelu => Activation::Gelu,
            ActivationName::Relu => Activation::Relu,
            ActivationName::Silu => Activation::Silu,
            ActivationName::Tanh => Activation::Tanh,
        }
    }
}

/// The size of 124 million parameters.
impl Default for Gpt2Config {
    fn default() -> Self {
        Self {
            vocab_size: 50257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            activation_function: ActivationName::GeluNew,
            resid_pdrop: 0.1,
            embd_pdrop: 0.1,
            attn_pdrop: 0.1,
            layer_norm_epsilon: 1e-5,
            initializer_range: 0.02,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            tie_word_embeddings: true,
            bias: true,
            bos_token_id: Some(50256),
            eos_token_id: Some(TokenIds::One(50256)),
            pad_token_id: None,
        }
    }
}

/// Fields that change the network in ways that are not made here, and what they have to be.
const FIXED: &[(&str, &str)] = &[("add_cross_attention", "false")];

impl Gpt2Config {
    /// 124 million parameters.
    pub fn small() -> Self {
        Self::default()
    }

    /// 355 million parameters.
    pub fn medium() -> Self {
        Self {
            n_embd: 1024,
            n_layer: 24,
            n_head: 16,
            ..Self::default()
        }
    }

    /// 774 million parameters.
    pub fn large() -> Self {
        Self {
            n_embd: 1280,
            n_layer: 36,
            n_head: 20,
            ..Self::default()
        }
    }

    /// 1,558 million parameters.
    pub fn xl() -> Self {
        Self {
            n_embd: 1600,
            n_layer: 48,
            n_head: 25,
            ..Self::default()
        }
    }

    /// A small model as nanoGPT makes them: exact GELU, no biases, no dropout, no special tokens;
    /// the last three numbers are layers, heads and width.
    pub fn nano(
        vocab_size: usize,
        n_positions: usize,
        [n_layer, n_head, n_embd]: [usize; 3],
    ) -> Self {
        Self {
            vocab_size,
            n_positions,
            n_embd,
            n_layer,
            n_head,
            activation_function: ActivationName::Gelu,
            resid_pdrop: 0.0,
            embd_pdrop: 0.0,
            attn_pdrop: 0.0,
            bias: false,
            bos_token_id: None,
            eos_token_id: None,
            ..Self::default()
        }
    }

    /// A configuration from the fields of a `config.json`; the others have defaults. Also gives the
    /// fields that are not known and change nothing.
    ///
    /// # Errors
    /// [`Error::Config`] names a field with a value that cannot be one of its, or is not made here.
    pub fn from_json(text: &str) -> Result<(Self, Vec<String>)> {
        let mut fields = json::parse_object(text)?;
        if let Some(other) = fields.get("model_type").filter(|kind| *kind != "gpt2") {
            return Err(Error::config("model_type", other, "gpt2"));
        }
        json::reject_unsupported(&mut fields, FIXED)?;
        let (mut config, ignored): (Self, _) = json::from_map_with_defaults(&fields)?;
        // transformers opens models whose special tokens are none of theirs, and writes such.
        let size = config.vocab_size;
        let is_there = |token: &u32| (*token as usize) < size;
        config.bos_token_id = config.bos_token_id.filter(is_there);
        config.eos_token_id = config
            .eos_token_id
            .filter(|tokens| tokens.list().iter().all(is_there));
        config.pad_token_id = config.pad_token_id.filter(is_there);
        config.validate()?;
        Ok((config, ignored))
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`] names the field.
    pub fn validate(&self) -> Result<()> {
        json::check_ranges(&[
            ("vocab_size", self.vocab_size, 1 << 24),
            ("n_positions", self.n_positions, 1 << 24),
            ("n_embd", self.n_embd, 1 << 16),
            ("n_layer", self.n_layer, 1 << 10),
            ("n_head", self.n_head, 1 << 10),
            ("n_inner", self.inner(), 1 << 18),
        ])?;
        if !self.n_embd.is_multiple_of(self.n_head) {
            return Err(Error::config(
                "n_head",
                self.n_head,
                format!("a divisor of n_embd, {}", self.n_embd),
            ));
        }
        for (field, p) in [
            ("resid_pdrop", self.resid_pdrop),
            ("embd_pdrop", self.embd_pdrop),
            ("attn_pdrop", self.attn_pdrop),
        ] {
            if !(0.0..1.0).contains(&p) {
                return Err(Error::config(field, p, "from 0 to below 1"));
            }
        }
        let positive = [
            ("layer_norm_epsilon", self.layer_norm_epsilon),
            ("initializer_range", self.initializer_range),
        ];
        for (field, value) in positive {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::config(field, value, "above 0"));
            }
        }
        let special = [
            ("bos_token_id", self.bos_token_id.map(TokenIds::One)),
            ("eos_token_id", self.eos_token_id.clone()),
            ("pad_token_id", self.pad_token_id.map(TokenIds::One)),
        ];
        special.iter().try_for_each(|(field, tokens)| {
            in_vocabulary(
                field,
                tokens.iter().flat_map(TokenIds::list),
                self.vocab_size,
            )
        })
    }

    fn inner(&self) -> usize {
        self.n_inner.unwrap_or(self.n_embd.saturating_mul(4))
    }

    /// The network on `device`, with GPT-2's initial weights: normal with deviation
    /// [`initializer_range`](Self::initializer_range), divided by `√(2·n_layer)` where a block adds
    /// to its input; biases zero.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn init(&self, device: &Device) -> Result<Gpt2> {
        self.validate()?;
        let (d, vocabulary) = (self.n_embd, self.vocab_size);
        let normal = |std| Initializer::Normal { mean: 0.0, std };
        let table = |rows| Table {
            weight: Weight::Full(normal(self.initializer_range).param([rows, d], rows, d, device)),
        };
        let norm = || {
            LayerNormConfig::new(d)
                .with_bias(self.bias)
                .with_epsilon(self.layer_norm_epsilon)
                .init(device)
        };
        let added = self.initializer_range / (2.0 * self.n_layer as f64).sqrt();
        let conv = |from, to, std| Conv1D {
            weight: Weight::Full(normal(std).param([from, to], from, to, device)),
            bias: self
                .bias
                .then(|| Initializer::ZEROS.param([to], from, to, device)),
        };
        let dropout = |p| DropoutConfig::new(p).init();
        let block = |layer: usize| Block {
            ln_1: norm(),
            attn: Attention {
                c_attn: conv(d, 3 * d, self.initializer_range),
                c_proj: conv(d, d, added),
                attn_dropout: dropout(self.attn_pdrop),
                resid_dropout: dropout(self.resid_pdrop),
                n_head: self.n_head,
                scale: self.scale(layer),
            },
            ln_2: norm(),
            mlp: Mlp {
                c_fc: conv(d, self.inner(), self.initializer_range),
                c_proj: conv(self.inner(), d, added),
                dropout: dropout(self.resid_pdrop),
                activation: self.activation_function.into(),
            },
        };
        let head = LinearConfig::new(d, vocabulary)
            .with_bias(false)
            .with_initializer(normal(self.initializer_range));
        Ok(Gpt2 {
            transformer: Transformer {
                wte: table(vocabulary),
                wpe: table(self.n_positions),
                drop: dropout(self.embd_pdrop),
                h: (0..self.n_layer).map(block).collect(),
                ln_f: norm(),
            },
            lm_head: (!self.tie_word_embeddings).then(|| Head::Full(head.init(device))),
            config: self.clone(),
            lora: None,
        })
    }

    /// What queries are multiplied by, beside the `1/√d` of attention.
    fn scale(&self, layer: usize) -> f64 {
        let d = (self.n_embd / self.n_head) as f64;
        let unscaled = if self.scale_attn_weights {
            1.0
        } else {
            d.sqrt()
        };
        if self.scale_attn_by_inverse_layer_idx {
            unscaled / (layer + 1) as f64
        } else {
            unscaled
        }
    }
}

/// A weight as it was trained, or of few bits.
#[derive(Module, Debug)]
enum Weight {
    Full(Param<Tensor<2>>),
    Packed(QuantizedWeight),
}

/// A table with a row for each token or position.
#[derive(Module, Debug)]
struct Table {
    weight: Weight,
}

impl Table {
    fn rows(&self, indices: Tensor<2, Int>) -> Tensor<3> {
        match &self.weight {
            Weight::Full(weight) => ops::embedding(weight.val(), indices),
            Weight::Packed(weight) => weight.embedding(indices),
        }
    }

    /// Rows that follow each other, `[1, count, width]`.
    fn range(&self, first: usize, count: usize) -> Tensor<3> {
        match &self.weight {
            Weight::Full(weight) => weight.val().narrow(0, first, count).unsqueeze(),
            Weight::Packed(weight) => {
                let rows = first as i64..(first + count) as i64;
                weight.embedding(Tensor::arange(rows, &weight.scales.val().device()).unsqueeze())
            }
        }
    }

    /// How much each row is like `x`.
    fn scores(&self, x: Tensor<3>) -> Tensor<3> {
        match &self.weight {
            Weight::Full(weight) => ops::linear(x, weight.val().transpose(), None),
            Weight::Packed(weight) => weight.linear(x, None),
        }
    }

    fn quantize(&mut self, quantization: Quantization) {
        if let Weight::Full(weight) = &self.weight {
            self.weight = Weight::Packed(QuantizedWeight::new(weight.val(), quantization));
        }
    }
}

/// `y = x·W + b` with `W` as `[in, out]` in files too, as GPT-2's are.
#[derive(Module, Debug)]
struct Conv1D {
    weight: Weight,
    bias: Option<Param<Tensor<1>>>,
}

impl Conv1D {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let bias = self.bias.as_ref().map(Param::val);
        match &self.weight {
            Weight::Full(weight) => {
                // `x·A·B` is cheap, `W + A·B` would cost a weight for every call.
                let added = weight.adapter().map(|LoraAdapter { a, b, scale }| {
                    ops::linear(
                        ops::linear(x.clone(), a.val(), None) * *scale,
                        b.val(),
                        None,
                    )
                });
                let y = ops::linear(x, weight.base(), bias);
                match added {
                    Some(added) => y + added,
                    None => y,
                }
            }
            Weight::Packed(weight) => weight.linear(x, bias),
        }
    }

    fn quantize(&mut self, quantization: Quantization) {
        if let Weight::Full(weight) = &self.weight {
            self.weight =
                Weight::Packed(QuantizedWeight::new(weight.val().transpose(), quantization));
        }
    }
}

/// An output layer of its own.
#[derive(Module, Debug)]
enum Head {
    Full(Linear),
    Packed(QuantizedWeight),
}

#[derive(Module, Debug)]
struct Attention {
    c_attn: Conv1D,
    c_proj: Conv1D,
    attn_dropout: Dropout,
    resid_dropout: Dropout,
    n_head: usize,
    scale: f64,
}

impl Attention {
    /// Without a cache: a text from its beginning.
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let qkv = self.c_attn.forward(x);
        let dropping = self.attn_dropout.prob > 0.0 && qkv.device().is_autodiff();
        let heads = if self.scale == 1.0 && !dropping {
            ops::self_attention(qkv, self.n_head, true)
        } else {
            let [q, k, v] = self.split(qkv);
            let heads = if dropping {
                self.drop_out(q, k, v)
            } else {
                ops::attention(q, k, v, None, true)
            };
            join(heads)
        };
        self.resid_dropout.forward(self.c_proj.forward(heads))
    }

    /// Behind what the cache holds.
    fn append(
        &self,
        x: Tensor<3>,
        layer: usize,
        cache: &mut KvCache,
        hidden: Option<Tensor<4, Bool>>,
    ) -> Tensor<3> {
        let [q, k, v] = self.split(self.c_attn.forward(x));
        let (k, v) = cache.update(layer, k, v);
        self.c_proj
            .forward(join(ops::attention(q, k, v, hidden, true)))
    }

    /// `[batch, time, 3·d]` as queries, keys and values, `[batch, heads, time, d_head]`.
    fn split(&self, qkv: Tensor<3>) -> [Tensor<4>; 3] {
        let [batch, time, width] = qkv.dims();
        let d = width / 3 / self.n_head;
        let parts = qkv
            .reshape([batch, time, 3, self.n_head, d])
            .permute([2, 0, 3, 1, 4]);
        let [q, k, v] = [0, 1, 2].map(|part| parts.clone().narrow(0, part, 1).squeeze_dim::<4>(0));
        [if self.scale == 1.0 { q } else { q * self.scale }, k, v]
    }

    /// Attention some of whose weights are dropped, which the fused one cannot do.
    fn drop_out(&self, q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
        let [batch, heads, time, d] = q.dims();
        let later = Tensor::<2, Bool>::tril_mask([time, time], 0, &q.device());
        let scores = q.matmul(k.transpose()) / (d as f64).sqrt();
        let scores = scores.mask_fill(
            later.unsqueeze::<4>().expand([batch, heads, time, time]),
            f32::NEG_INFINITY,
        );
        self.attn_dropout.forward(softmax(scores, 3)).matmul(v)
    }
}

/// `[batch, heads, time, d_head]` as `[batch, time, d]`.
fn join(heads: Tensor<4>) -> Tensor<3> {
    let [batch, n, time, d] = heads.dims();
    heads.swap_dims(1, 2).reshape([batch, time, n * d])
}

#[derive(Module, Debug)]
struct Mlp {
    c_fc: Conv1D,
    c_proj: Conv1D,
    dropout: Dropout,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let inner = self.activation.forward(self.c_fc.forward(x));
        self.dropout.forward(self.c_proj.forward(inner))
    }
}

#[derive(Module, Debug)]
struct Block {
    ln_1: LayerNorm,
    attn: Attention,
    ln_2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    fn forward(
        &self,
        x: Tensor<3>,
        attend: impl FnOnce(&Attention, Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        let x = x.clone() + attend(&self.attn, self.ln_1.forward(x));
        x.clone() + self.mlp.forward(self.ln_2.forward(x))
    }
}

#[derive(Module, Debug)]
struct Transformer {
    wte: Table,
    wpe: Table,
    drop: Dropout,
    h: Vec<Block>,
    ln_f: LayerNorm,
}

/// GPT-2: tokens and positions are embedded, blocks add what attention and a perceptron find, and
/// the output layer scores every token as the next. Names and layouts of the weights are those of
/// transformers' `GPT2LMHeadModel`.
#[derive(Module, Debug)]
pub struct Gpt2 {
    transformer: Transformer,
    lm_head: Option<Head>,
    #[module(skip)]
    config: Gpt2Config,
    /// How it is adapted; set as long as weights have adapters.
    #[module(skip)]
    pub(super) lora: Option<LoraConfig>,
}

impl Gpt2 {
    /// Its configuration.
    pub fn config(&self) -> &Gpt2Config {
        &self.config
    }

    /// The same model with matrices of few bits, for generating: a fourth or an eighth of the
    /// memory and of the time. The tables of tokens and positions and the output layer, where
    /// rounding shows most, keep eight bits. Adapters are merged first.
    pub fn quantize(self, quantization: Quantization) -> Self {
        let mut model = self.merge_lora();
        let Transformer { wte, wpe, h, .. } = &mut model.transformer;
        [wte, wpe]
            .into_iter()
            .for_each(|table| table.quantize(Quantization::Int8));
        for Block { attn, mlp, .. } in h {
            let weights = [
                &mut attn.c_attn,
                &mut attn.c_proj,
                &mut mlp.c_fc,
                &mut mlp.c_proj,
            ];
            weights
                .into_iter()
                .for_each(|weight| weight.quantize(quantization));
        }
        if let Some(Head::Full(head)) = &model.lm_head {
            let packed = QuantizedWeight::new(head.weight.val().transpose(), Quantization::Int8);
            model.lm_head = Some(Head::Packed(packed));
        }
        model
    }

    /// Whether [`quantize`](Self::quantize) has been here.
    pub fn is_quantized(&self) -> bool {
        matches!(self.transformer.wte.weight, Weight::Packed(_))
    }

    /// What every block says of texts from their beginning: the embedding, the output of each block
    /// but the last, and the last one's after the final layer norm, as transformers'
    /// `output_hidden_states`.
    ///
    /// # Shapes
    /// - tokens: `[batch, time]`
    /// - each output: `[batch, time, n_embd]`
    ///
    /// # Panics
    /// If there are more than `n_positions` tokens, or one is not below `vocab_size`.
    pub fn hidden_states(&self, tokens: Tensor<2, Int>) -> Vec<Tensor<3>> {
        let mut states = vec![self.embed(tokens, PositionIds::Range(0))];
        for block in &self.transformer.h {
            let x = states[states.len() - 1].clone();
            states.push(block.forward(x, |attention, x| attention.forward(x)));
        }
        let last = states.pop().expect("the embedding at least");
        states.push(self.transformer.ln_f.forward(last));
        states
    }

    fn embed(&self, tokens: Tensor<2, Int>, positions: PositionIds) -> Tensor<3> {
        let [batch, time] = tokens.dims();
        let Transformer { wte, wpe, drop, .. } = &self.transformer;
        let positions = match positions {
            PositionIds::Range(first) => {
                let n = self.config.n_positions;
                assert!(
                    first + time <= n,
                    "{} tokens are more than the model's {n} positions",
                    first + time
                );
                wpe.range(first, time)
            }
            PositionIds::PerRow(positions) => wpe.rows(positions),
        };
        debug_assert!([1, batch].contains(&positions.dims()[0]));
        drop.forward(wte.rows(tokens) + positions)
    }
}

impl CausalLm for Gpt2 {
    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn max_position_embeddings(&self) -> usize {
        self.config.n_positions
    }

    fn new_cache(&self, batch_size: usize, capacity: usize) -> KvCache {
        let Gpt2Config {
            n_layer,
            n_head,
            n_embd,
            ..
        } = self.config;
        KvCache::new(n_layer, [batch_size, n_head, capacity, n_embd / n_head])
    }

    fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let mut x = self.embed(tokens, PositionIds::Range(0));
        for block in &self.transformer.h {
            x = block.forward(x, |attention, x| attention.forward(x));
        }
        self.lm_head(self.transformer.ln_f.forward(x))
    }

    fn forward_cached(&self, tokens: Tensor<2, Int>, cache: &mut KvCache) -> Tensor<3> {
        let [_, time] = tokens.dims();
        let device = tokens.device();
        let mask = cache.padding_mask(time, &device);
        let mut x = self.embed(tokens, cache.position_ids(time, &device));
        for (layer, block) in self.transformer.h.iter().enumerate() {
            x = block.forward(x, |attention, x| {
                attention.append(x, layer, cache, mask.clone())
            });
        }
        cache.advance(time);
        self.transformer.ln_f.forward(x)
    }

    fn lm_head(&self, hidden_states: Tensor<3>) -> Tensor<3> {
        match &self.lm_head {
            Some(Head::Full(head)) => head.forward(hidden_states),
            Some(Head::Packed(head)) => head.linear(hidden_states, None),
            None => self.transformer.wte.scores(hidden_states),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GenerationConfig, TextGenerator};
    use aigc_core::{device::device, rng::Rng};
    use base64::{Engine, prelude::BASE64_STANDARD};
    use burn::tensor::TensorData;
    use safetensors::{Dtype, tensor::TensorView};
    use serde_json::Value;
    use std::{collections::BTreeSet, path::Path};

    /// minGPT's trained network that sorts, with all that it computes on the way.
    #[test]
    fn the_network_that_sorts_is_mingpt_s() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let folder =
            std::env::var_os("AIGC_DATA").map(|data| root.join(data).join("gpt-nano-sort"));
        let Some(folder) = folder.filter(|folder| folder.is_dir()) else {
            assert!(
                std::env::var_os("AIGC_REQUIRE_DATA").is_none(),
                "AIGC_DATA has no gpt-nano-sort"
            );
            println!("skipped: set AIGC_DATA");
            return;
        };
        let json = |name: &str| -> Value {
            serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
        };
        let bytes = |entry: &Value| {
            BASE64_STANDARD
                .decode(entry["data"].as_str().unwrap())
                .unwrap()
        };
        let shape =
            |entry: &Value| serde_json::from_value::<Vec<usize>>(entry["shape"].clone()).unwrap();
        let weights = json("gpt-nano-sort-model.json");
        // The file of tensors lacks biases of attention; the one that it was made of has them.
        let named = weights
            .as_object()
            .unwrap()
            .iter()
            .filter(|(name, _)| *name != "config");
        let tensors: Vec<_> = named
            .map(|(name, entry)| (name, bytes(entry), shape(entry)))
            .collect();
        let views = tensors.iter().map(|(name, data, shape)| {
            (
                name,
                TensorView::new(Dtype::F32, shape.clone(), data).unwrap(),
            )
        });
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("model.safetensors");
        safetensors::serialize_to_file(views.collect::<Vec<_>>(), None, &path).unwrap();
        let config = Gpt2Config {
            vocab_size: 3,
            n_positions: 11,
            n_embd: 48,
            n_layer: 3,
            n_head: 3,
            tie_word_embeddings: false,
            bos_token_id: None,
            eos_token_id: None,
            ..Gpt2Config::default()
        };
        let flex = device("flex").unwrap();
        let model = Gpt2::open_weights(config, &path, &flex).unwrap();

        let golden = json("gpt-nano-sort-t0-partials.json");
        let floats = |entry: &Value| -> Vec<f32> {
            bytes(entry)
                .as_chunks()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect()
        };
        let mut left: BTreeSet<&str> = golden
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert!(left.remove("config"));
        let mut same = |name: &str, (found, dims): (Vec<f32>, Vec<usize>)| {
            assert_eq!(dims, shape(&golden[name]), "{name}");
            let error = |(a, b): (&f32, &f32)| if a == b { 0.0 } else { (a - b).abs() };
            let errors = found
                .iter()
                .zip(&floats(&golden[name]))
                .map(error)
                .collect::<Vec<_>>();
            let worst = errors.iter().fold(
                0.0,
                |worst, error| if *error <= worst { worst } else { *error },
            );
            println!("{name}: {worst:.1e}");
            assert!(worst < 1e-5, "{name} is off by {worst:.1e}");
            left.remove(name);
        };
        let ids: Vec<i32> = floats(&golden["idx"])
            .iter()
            .map(|token| *token as i32)
            .collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [3, 11]), &flex);
        same("idx", flat(ids.clone().float()));
        let Transformer {
            wte, wpe, h, ln_f, ..
        } = &model.transformer;
        same("tok_emb", flat(wte.rows(ids.clone())));
        same("pos_emb", flat(wpe.range(0, 11)));
        let x = model.embed(ids.clone(), PositionIds::Range(0));
        same("x", flat(x.clone()));
        // The first block, piece by piece, and the pieces as they are called.
        let Block {
            ln_1,
            attn,
            ln_2,
            mlp,
        } = &h[0];
        let ln1 = ln_1.forward(x.clone());
        same("ln1", flat(ln1.clone()));
        let qkv = attn.c_attn.forward(ln1.clone());
        same("qkv", flat(qkv.clone()));
        let [q, k, v] = attn.split(qkv.clone());
        same("q", flat(q.clone()));
        same("k", flat(k.clone()));
        same("v", flat(v.clone()));
        // Fused attention has no scores to show: these are those of its queries and keys, and its
        // values by them.
        let later = Tensor::<2, Bool>::tril_mask([11, 11], 0, &flex)
            .unsqueeze::<4>()
            .expand([3, 3, 11, 11]);
        let scores =
            (q.clone().matmul(k.clone().transpose()) / 4.0).mask_fill(later, f32::NEG_INFINITY);
        same("att", flat(scores.clone()));
        let weights = softmax(scores, 3);
        same("attSm", flat(weights.clone()));
        same("y", flat(join(weights.matmul(v.clone()))));
        same(
            "y",
            flat(join(ops::attention(
                q.clone(),
                k.clone(),
                v.clone(),
                None,
                true,
            ))),
        );
        same("y", flat(join(attn.drop_out(q, k, v))));
        let y = ops::self_attention(qkv, 3, true);
        same("y", flat(y.clone()));
        let projected = attn.c_proj.forward(y);
        same("yProj", flat(projected.clone()));
        same("yProj", flat(attn.forward(ln1)));
        let residual = x.clone() + projected;
        same("attnResid", flat(residual.clone()));
        let ln2 = ln_2.forward(residual.clone());
        same("ln2", flat(ln2.clone()));
        let fc = mlp.c_fc.forward(ln2.clone());
        same("fc", flat(fc.clone()));
        let gelu = mlp.activation.forward(fc);
        same("gelu", flat(gelu.clone()));
        same("mlp", flat(mlp.c_proj.forward(gelu)));
        let said = mlp.forward(ln2);
        same("mlp", flat(said.clone()));
        same("mlpResid", flat(residual + said));
        // The blocks, and what the model shows of them.
        let mut states = vec![x];
        for (block, name) in h.iter().zip(["block0", "block1", "block2"]) {
            let x = block.forward(states[states.len() - 1].clone(), |attention, x| {
                attention.forward(x)
            });
            same(name, flat(x.clone()));
            states.push(x);
        }
        same("ln_f", flat(ln_f.forward(states.pop().unwrap())));
        for (state, name) in model
            .hidden_states(ids.clone())
            .into_iter()
            .zip(["x", "block0", "block1", "ln_f"])
        {
            same(name, flat(state));
        }
        let logits = model.forward(ids);
        same("lm_head", flat(logits.clone()));
        same("probs", flat(softmax(logits, 2)));
        assert!(left.is_empty(), "not compared: {left:?}");

        // And it sorts: six letters, then each of them again, in order.
        let mut rng = Rng::new(1);
        for _ in 0..20 {
            let letters: Vec<u32> = (0..6).map(|_| rng.random_index(3) as u32).collect();
            let mut sorted = letters.clone();
            sorted.sort_unstable();
            // The context holds eleven: the last is foretold from a full one.
            let config = GenerationConfig {
                max_new_tokens: Some(6),
                ..GenerationConfig::default()
            };
            let texts = TextGenerator::new(&model, config)
                .unwrap()
                .generate(std::slice::from_ref(&letters))
                .unwrap();
            assert_eq!(texts[0].new_tokens(), sorted, "{letters:?}");
        }
    }

    fn flat<const D: usize>(x: Tensor<D>) -> (Vec<f32>, Vec<usize>) {
        let dims = x.dims().to_vec();
        (x.into_data().iter::<f32>().collect(), dims)
    }
}
