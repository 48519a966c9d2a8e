//! GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners").

mod config;
mod files;
#[cfg(test)]
mod tests;

pub use config::{ActivationName, Gpt2Config};

use crate::{
    cache::{Cache, KvCache, PositionIds},
    models::{CausalLm, LoraConfig},
    nn::{AttentionHeads, Embedding, LmHead, Mlp, Projection},
};
use aigc_core::{
    Result,
    nn::{Dropout, DropoutConfig, Initializer, LayerNorm, LayerNormConfig},
};
use burn::{
    module::Module,
    tensor::{Bool, Device, Int, Tensor},
};

#[derive(Module, Debug)]
struct Attention {
    c_attn: Projection,
    c_proj: Projection,
    resid_dropout: Dropout,
    heads: AttentionHeads,
}

impl Attention {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let heads = self.heads.forward(self.c_attn.forward(x));
        self.resid_dropout.forward(self.c_proj.forward(heads))
    }

    fn forward_cached(
        &self,
        x: Tensor<3>,
        layer: usize,
        cache: &mut dyn Cache,
        mask: Option<Tensor<4, Bool>>,
    ) -> Tensor<3> {
        let qkv = self.c_attn.forward(x);
        self.c_proj
            .forward(self.heads.forward_cached(qkv, layer, cache, mask))
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
    wte: Embedding,
    wpe: Embedding,
    drop: Dropout,
    h: Vec<Block>,
    ln_f: LayerNorm,
}

/// GPT-2: token and position embeddings, blocks of attention and an MLP, and an output layer for
/// the logits of the next token. Names and layouts of the weights are those of transformers'
/// `GPT2LMHeadModel`.
///
/// For opening, saving, quantisation and adapters see
/// [`PretrainedModel`](crate::models::PretrainedModel).
#[derive(Module, Debug)]
pub struct Gpt2 {
    transformer: Transformer,
    lm_head: Option<LmHead>,
    #[module(skip)]
    config: Gpt2Config,
    /// Configuration of the adapters, if there are any.
    #[module(skip)]
    lora: Option<LoraConfig>,
}

impl Gpt2Config {
    /// Creates the network on `device`, with GPT-2's initialisation: normal with standard deviation
    /// [`initializer_range`](Self::initializer_range), divided by `√(2·n_layer)` for the
    /// projections whose output is added to the input of a block; biases zero.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<Gpt2> {
        self.validate()?;
        let d = self.n_embd;
        let normal = |std| Initializer::Normal { mean: 0.0, std };
        let usual = || normal(self.initializer_range);
        let residual = || normal(self.initializer_range / (2.0 * self.n_layer as f64).sqrt());
        let norm = || {
            LayerNormConfig::new(d)
                .with_bias(self.bias)
                .with_epsilon(self.layer_norm_epsilon)
                .init(device)
        };
        let projection =
            |sizes, initializer| Projection::new(sizes, self.bias, initializer, device);
        let dropout = |p| DropoutConfig::new(p).init();
        let block = |layer: usize| Block {
            ln_1: norm(),
            attn: Attention {
                c_attn: projection([d, 3 * d], usual()),
                c_proj: projection([d, d], residual()),
                resid_dropout: dropout(self.resid_pdrop),
                heads: AttentionHeads {
                    n_head: self.n_head,
                    n_kv_head: self.n_head,
                    scale: self.scale(layer),
                    dropout: dropout(self.attn_pdrop),
                },
            },
            ln_2: norm(),
            mlp: Mlp {
                c_fc: projection([d, self.inner()], usual()),
                c_proj: projection([self.inner(), d], residual()),
                dropout: dropout(self.resid_pdrop),
                activation: self.activation_function.into(),
            },
        };
        Ok(Gpt2 {
            transformer: Transformer {
                wte: Embedding::new([self.vocab_size, d], usual(), device),
                wpe: Embedding::new([self.n_positions, d], usual(), device),
                drop: dropout(self.embd_pdrop),
                h: (0..self.n_layer).map(block).collect(),
                ln_f: norm(),
            },
            lm_head: (!self.tie_word_embeddings)
                .then(|| LmHead::new([d, self.vocab_size], usual(), device)),
            config: self.clone(),
            lora: None,
        })
    }
}

impl Gpt2 {
    /// Configuration of the network.
    pub fn config(&self) -> &Gpt2Config {
        &self.config
    }

    /// Hidden states of whole sequences, as transformers' `output_hidden_states`: the embedding,
    /// the output of each block but the last, and the output of the last block after the final
    /// layer norm.
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
                    "{} tokens exceed the {n} positions of the model",
                    first + time
                );
                wpe.range(first, time)
            }
            PositionIds::PerSequence(positions) => wpe.forward(positions),
        };
        debug_assert!([1, batch].contains(&positions.dims()[0]));
        drop.forward(wte.forward(tokens) + positions)
    }
}

impl CausalLm for Gpt2 {
    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn max_position_embeddings(&self) -> usize {
        self.config.n_positions
    }

    fn new_cache(&self, batch_size: usize, capacity: usize) -> Box<dyn Cache> {
        let Gpt2Config {
            n_layer,
            n_head,
            n_embd,
            ..
        } = self.config;
        let shape = [batch_size, n_head, capacity, n_embd / n_head];
        Box::new(KvCache::new(n_layer, shape))
    }

    fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let mut x = self.embed(tokens, PositionIds::Range(0));
        for block in &self.transformer.h {
            x = block.forward(x, |attention, x| attention.forward(x));
        }
        self.lm_head(self.transformer.ln_f.forward(x))
    }

    fn forward_cached(&self, tokens: Tensor<2, Int>, cache: &mut dyn Cache) -> Tensor<3> {
        let [_, time] = tokens.dims();
        let device = tokens.device();
        let mask = cache.padding_mask(time, self.config.n_head, &device);
        let mut x = self.embed(tokens, cache.position_ids(time, &device));
        for (layer, block) in self.transformer.h.iter().enumerate() {
            x = block.forward(x, |attention, x| {
                attention.forward_cached(x, layer, cache, mask.clone())
            });
        }
        cache.advance(time);
        self.transformer.ln_f.forward(x)
    }

    fn lm_head(&self, hidden_states: Tensor<3>) -> Tensor<3> {
        match &self.lm_head {
            Some(head) => head.forward(hidden_states),
            None => self.transformer.wte.logits(hidden_states),
        }
    }
}
