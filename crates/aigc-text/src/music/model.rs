//! MusicGen's decoder.

use super::{
    Condition, ConditionCache, ConditionInputs, DelayPattern, MultiStreamLm, MusicgenDecoderConfig,
    StreamCache,
    layers::{Layer, Told, initializer, positions},
};
use crate::{
    cache::{Cache, KvCache},
    nn::{Embedding, LmHead},
    tokens::ids,
};
use aigc_core::{
    Error, Result,
    check::ensure_argument,
    encoder::TextEmbeddings,
    nn::{Dropout, DropoutConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig},
    ops::Quantization,
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};

/// The decoder of MusicGen (Copet et al. 2023, <https://arxiv.org/abs/2306.05284>): the embeddings
/// of the tokens of all codebooks are summed, blocks attend to earlier steps and to the condition,
/// and every codebook has an output layer.
///
/// The condition of a text is the states of an encoder, projected to the width of the model. The
/// condition of classes, which MusicGen does not have, is an embedding for each class. Both may be
/// combined.
#[derive(Module, Debug)]
pub struct MusicgenDecoder {
    embed_tokens: Vec<Embedding>,
    layers: Vec<Layer>,
    layer_norm: LayerNorm,
    lm_heads: Vec<LmHead>,
    enc_to_dec_proj: Option<Linear>,
    class_embeddings: Vec<Embedding>,
    drop: Dropout,
    #[module(skip)]
    config: MusicgenDecoderConfig,
}

impl MusicgenDecoderConfig {
    /// Creates the network on `device`. Weights are normal with standard deviation
    /// [`initializer_factor`](Self::initializer_factor).
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn init(&self, device: &Device) -> Result<MusicgenDecoder> {
        self.validate()?;
        let d = self.hidden_size;
        let table = |count| Embedding::new([count, d], initializer(self), device);
        let head = |_| LmHead::new([d, self.vocab_size], initializer(self), device);
        let projected = self.text_hidden_size.filter(|width| *width != d);
        let projection = |width| {
            LinearConfig::new(width, d)
                .with_initializer(initializer(self))
                .init(device)
        };
        Ok(MusicgenDecoder {
            // One more for empty places.
            embed_tokens: (0..self.num_codebooks)
                .map(|_| table(self.vocab_size + 1))
                .collect(),
            layers: (0..self.num_hidden_layers)
                .map(|_| Layer::new(self, device))
                .collect(),
            layer_norm: LayerNormConfig::new(d).init(device),
            lm_heads: (0..self.num_codebooks).map(head).collect(),
            enc_to_dec_proj: projected.map(projection),
            class_embeddings: self.class_sizes.iter().map(|size| table(*size)).collect(),
            drop: DropoutConfig::new(self.dropout).init(),
            config: self.clone(),
        })
    }
}

impl MusicgenDecoder {
    /// Configuration of the network.
    pub fn config(&self) -> &MusicgenDecoderConfig {
        &self.config
    }

    /// The device of the weights.
    pub(super) fn device(&self) -> Device {
        self.layer_norm.gamma.val().device()
    }

    /// Quantises the weight matrices, for generation with a quarter or an eighth of the memory.
    /// Embeddings and output layers have eight bits. A quantised model cannot be trained or saved.
    pub fn quantize(mut self, quantization: Quantization) -> Self {
        for layer in &mut self.layers {
            for linear in layer.linear_mut() {
                linear.quantize(quantization);
            }
        }
        for head in &mut self.lm_heads {
            head.quantize(Quantization::Int8);
        }
        for table in &mut self.embed_tokens {
            table.quantize(Quantization::Int8);
        }
        self
    }

    /// Whether the model is quantised.
    pub fn is_quantized(&self) -> bool {
        let mut heads = self.lm_heads.iter();
        heads.any(|head| matches!(head, LmHead::Quantized(_)))
    }

    /// The input of the blocks: the sum of the embeddings of tokens and positions.
    fn embed(&self, tokens: Tensor<3, Int>, first: usize) -> Tensor<3> {
        let [batch, codebooks, time] = tokens.dims();
        let n = self.config.max_position_embeddings;
        assert_eq!(codebooks, self.config.num_codebooks, "streams of tokens");
        assert!(
            first + time <= n,
            "{} steps exceed the {n} positions of the model",
            first + time
        );
        let stream = |index: usize| tokens.clone().narrow(1, index, 1).reshape([batch, time]);
        let embedded = self.embed_tokens.iter().enumerate();
        let embedded = embedded.map(|(index, table)| table.forward(stream(index)));
        let sum = embedded.reduce(|sum, next| sum + next);
        let sum = sum.expect("at least one codebook");
        let places = positions(first, time, self.config.hidden_size, &sum.device());
        self.drop.forward(sum + places)
    }

    fn text_condition(&self, text: &TextEmbeddings) -> Result<Condition> {
        let Some(width) = self.config.text_hidden_size else {
            let expected = "none: the model has no text_hidden_size";
            return Err(Error::argument("text", "given", expected));
        };
        let states = text.hidden_states.clone();
        let found = states.dims()[2];
        let expected = format!("states of width {width}, the text_hidden_size of the model");
        let given = format!("states of width {found}");
        ensure_argument(found == width, "text", given, &expected)?;
        let states = match &self.enc_to_dec_proj {
            Some(projection) => projection.forward(states),
            None => states,
        };
        Condition::new(states, text.attention_mask.clone())
    }

    fn class_condition(&self, classes: &[Vec<u32>]) -> Result<Condition> {
        let sizes = &self.config.class_sizes;
        let wrong = |found: String| {
            let expected: String = match sizes[..] {
                [] => "none: the model has no class_sizes".into(),
                _ => format!("for each sample, classes below {sizes:?}, the class_sizes"),
            };
            Error::argument("classes", found, expected)
        };
        let fits = |sample: &&Vec<u32>| {
            let mut pairs = sample.iter().zip(sizes);
            sample.len() == sizes.len() && pairs.all(|(class, size)| (*class as usize) < *size)
        };
        if sizes.is_empty() {
            return Err(wrong("given".into()));
        }
        if let Some(sample) = classes.iter().find(|sample| !fits(sample)) {
            return Err(wrong(format!("{sample:?}")));
        }
        let device = self.device();
        let states = self
            .class_embeddings
            .iter()
            .enumerate()
            .map(|(kind, table)| {
                let of_kind: Vec<u32> = classes.iter().map(|sample| sample[kind]).collect();
                table.forward(ids(&of_kind, of_kind.len(), &device))
            });
        Condition::new(Tensor::cat(states.collect(), 1), None)
    }
}

impl MultiStreamLm for MusicgenDecoder {
    fn num_codebooks(&self) -> usize {
        self.config.num_codebooks
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn pad_token_id(&self) -> u32 {
        self.config.pad()
    }

    fn delay_pattern(&self) -> DelayPattern {
        let pattern = self.config.delay_pattern();
        pattern.expect("the configuration was validated")
    }

    fn max_position_embeddings(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn encode_condition(&self, inputs: &ConditionInputs) -> Result<Option<Condition>> {
        let text = inputs.text.as_ref().map(|text| self.text_condition(text));
        let classes = match &inputs.classes[..] {
            [] => None,
            classes => Some(self.class_condition(classes)),
        };
        Ok(match (text.transpose()?, classes.transpose()?) {
            (Some(text), Some(classes)) => Some(text.join(classes)?),
            (text, classes) => text.or(classes),
        })
    }

    fn new_cache(
        &self,
        batch_size: usize,
        capacity: usize,
        condition: Option<&Condition>,
    ) -> StreamCache {
        let (heads, width) = (self.config.num_attention_heads, self.config.hidden_size);
        let condition = condition.map(|condition| {
            assert_eq!(condition.batch_size(), batch_size, "samples of a condition");
            let of_layer = |layer: &Layer| layer.encoder_attn.keys_values(condition.states());
            ConditionCache {
                layers: self.layers.iter().map(of_layer).collect(),
                hidden: condition.hidden(),
            }
        });
        let shape = [batch_size, heads, capacity, width / heads];
        StreamCache {
            steps: Box::new(KvCache::new(self.layers.len(), shape)),
            condition,
        }
    }

    fn forward(&self, tokens: Tensor<3, Int>, condition: Option<&Condition>) -> Tensor<4> {
        let batch = tokens.dims()[0];
        let told = condition.map(|condition| {
            assert_eq!(condition.batch_size(), batch, "samples of a condition");
            (condition.states(), condition.hidden())
        });
        let mut x = self.embed(tokens, 0);
        for layer in &self.layers {
            let keys_values = told
                .as_ref()
                .map(|(states, _)| layer.encoder_attn.keys_values(states.clone()));
            let told = keys_values.as_ref().map(|keys_values| Told {
                keys_values,
                hidden: told.as_ref().and_then(|(_, hidden)| hidden.as_ref()),
            });
            x = layer.forward(x, None, told);
        }
        self.lm_heads(self.layer_norm.forward(x))
    }

    fn forward_cached(&self, tokens: Tensor<3, Int>, cache: &mut StreamCache) -> Tensor<3> {
        let time = tokens.dims()[2];
        let StreamCache { steps, condition } = cache;
        let mut x = self.embed(tokens, steps.len());
        for (index, layer) in self.layers.iter().enumerate() {
            let told = condition.as_ref().map(|condition| Told {
                keys_values: &condition.layers[index],
                hidden: condition.hidden.as_ref(),
            });
            let cache: &mut dyn Cache = &mut **steps;
            x = layer.forward(x, Some((index, cache)), told);
        }
        steps.advance(time);
        self.layer_norm.forward(x)
    }

    fn lm_heads(&self, hidden_states: Tensor<3>) -> Tensor<4> {
        let logits = self.lm_heads.iter();
        let logits = logits.map(|head| head.forward(hidden_states.clone()).unsqueeze_dim::<4>(1));
        Tensor::cat(logits.collect(), 1)
    }
}
