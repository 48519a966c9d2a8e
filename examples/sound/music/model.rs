//! A GPT that knows the place of every note.

use crate::{
    layers::{Block, Rotation},
    notation::{BEATS, Notation, Place, SLOTS},
};
use aigc_core::{
    Error, Result,
    burn::{
        self,
        module::Module,
        tensor::{Device, Int, Tensor, TensorData},
    },
    check,
    nn::{Dropout, DropoutConfig, Initializer, LayerNorm, LayerNormConfig},
};
use aigc_text::{Cache, CausalLm, KvCache, nn::Embedding};
use serde::{Deserialize, Serialize};

/// Configuration to create a [`NoteLm`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NoteLmConfig {
    /// What the tokens are.
    pub(crate) notation: Notation,
    /// Maximum length of a sequence, in tokens.
    pub(crate) n_positions: usize,
    /// Width of the hidden states.
    pub(crate) n_embd: usize,
    /// Number of blocks.
    pub(crate) n_layer: usize,
    /// Number of heads; the width of a head is even.
    pub(crate) n_head: usize,
    /// Dropout of embeddings, attention and MLP.
    pub(crate) dropout: f64,
    /// Standard deviation of initial weights.
    pub(crate) initializer_range: f64,
    /// That of the embeddings of places. With 0 they begin without effect, and the first steps
    /// learn faster.
    pub(crate) place_range: f64,
}

impl Default for NoteLmConfig {
    fn default() -> Self {
        Self {
            notation: Notation::default(),
            n_positions: 192,
            n_embd: 128,
            n_layer: 4,
            n_head: 4,
            dropout: 0.0,
            initializer_range: 0.02,
            place_range: 0.0,
        }
    }
}

/// A GPT over notes: the embeddings of token, [slot and beat](Place) of the next token are added;
/// attention has rotary positions, so that it sees distances between notes. The output layer shares
/// its weight with the embedding of tokens.
#[derive(Module, Debug)]
pub(crate) struct NoteLm {
    wte: Embedding,
    slots: Embedding,
    beats: Embedding,
    drop: Dropout,
    h: Vec<Block>,
    ln_f: LayerNorm,
    #[module(skip)]
    config: NoteLmConfig,
}

impl NoteLmConfig {
    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub(crate) fn validate(&self) -> Result<()> {
        check::sizes(&[
            ("n_positions", self.n_positions, 1 << 16),
            ("n_embd", self.n_embd, 1 << 14),
            ("n_layer", self.n_layer, 1 << 8),
            ("n_head", self.n_head, 1 << 8),
        ])?;
        if !self.n_embd.is_multiple_of(2 * self.n_head) {
            let expected = format!("a multiple of {}, twice n_head", 2 * self.n_head);
            return Err(Error::config("n_embd", self.n_embd, expected));
        }
        let p = self.dropout;
        check::ensure((0.0..1.0).contains(&p), "dropout", p, "from 0 to below 1")?;
        check::positive("initializer_range", self.initializer_range)?;
        check::non_negative("place_range", self.place_range)
    }

    /// Creates the network on `device`, initialised as GPT-2.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub(crate) fn init(&self, device: &Device) -> Result<NoteLm> {
        self.validate()?;
        let width = self.n_embd;
        let table = |count: usize, std: f64| {
            let normal = Initializer::Normal { mean: 0.0, std };
            Embedding::new([count, width], normal, device)
        };
        Ok(NoteLm {
            wte: table(self.notation.vocab_size(), self.initializer_range),
            slots: table(SLOTS, self.place_range),
            beats: table(BEATS, self.place_range),
            drop: DropoutConfig::new(self.dropout).init(),
            h: (0..self.n_layer)
                .map(|_| Block::new(self, device))
                .collect(),
            ln_f: LayerNormConfig::new(width).with_bias(false).init(device),
            config: self.clone(),
        })
    }
}

/// Token ids, `[batch, time]`.
pub(crate) fn ids(values: &[usize], batch: usize, device: &Device) -> Tensor<2, Int> {
    let values: Vec<i32> = values.iter().map(|value| *value as i32).collect();
    let time = values.len() / batch.max(1);
    Tensor::from_data(TensorData::new(values, [batch, time]), device)
}

impl NoteLm {
    /// Configuration of the network.
    pub(crate) fn config(&self) -> &NoteLmConfig {
        &self.config
    }

    /// Logits of the next token, whose place is known.
    ///
    /// # Shapes
    /// - tokens: `[batch, time]`; places: one for each token, sequence by sequence
    /// - output: `[batch, time, vocabulary]`
    pub(crate) fn forward_at(&self, tokens: Tensor<2, Int>, places: &[Place]) -> Tensor<3> {
        let x = self.embed(tokens, places);
        let rotation = Rotation::new(&self.config, 0, x.dims()[1], &x.device());
        let x = self
            .h
            .iter()
            .fold(x, |x, block| block.forward(x, &rotation));
        self.lm_head(self.ln_f.forward(x))
    }

    fn embed(&self, tokens: Tensor<2, Int>, places: &[Place]) -> Tensor<3> {
        let ([batch, _], device) = (tokens.dims(), tokens.device());
        let slots: Vec<usize> = places.iter().map(|place| place.slot).collect();
        let beats: Vec<usize> = places.iter().map(|place| place.beat).collect();
        let slots = self.slots.forward(ids(&slots, batch, &device));
        let beats = self.beats.forward(ids(&beats, batch, &device));
        self.drop.forward(self.wte.forward(tokens) + slots + beats)
    }

    /// The places after the last `time` of the tokens of each sequence.
    fn places(&self, sequences: &[u32], batch: usize, time: usize) -> Vec<Place> {
        let len = sequences.len() / batch.max(1);
        let each = sequences.chunks_exact(len.max(1)).flat_map(|sequence| {
            let places = self.config.notation.places(sequence);
            places[len - time..].to_vec()
        });
        each.collect()
    }
}

impl CausalLm for NoteLm {
    fn vocab_size(&self) -> usize {
        self.config.notation.vocab_size()
    }

    fn max_position_embeddings(&self) -> usize {
        self.config.n_positions
    }

    /// One layer more than there are blocks: it keeps the tokens, from which places follow.
    fn new_cache(&self, batch_size: usize, capacity: usize) -> Box<dyn Cache> {
        let NoteLmConfig {
            n_layer,
            n_head,
            n_embd,
            ..
        } = self.config;
        let shape = [batch_size, n_head, capacity, n_embd / n_head];
        Box::new(KvCache::new(n_layer + 1, shape))
    }

    fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let [batch, time] = tokens.dims();
        let data = tokens.to_data();
        let sequences: Vec<u32> = data.iter::<i64>().map(|token| token as u32).collect();
        let places = self.places(&sequences, batch, time);
        self.forward_at(tokens, &places)
    }

    fn forward_cached(&self, tokens: Tensor<2, Int>, cache: &mut dyn Cache) -> Tensor<3> {
        let ([batch, time], device) = (tokens.dims(), tokens.device());
        let NoteLmConfig { n_head, n_embd, .. } = self.config;
        let kept = tokens.clone().float().reshape([batch, 1, time, 1]);
        let kept = kept.expand([batch, n_head, time, n_embd / n_head]);
        let (kept, _) = cache.update(self.h.len(), kept.clone(), kept);
        let kept = kept.narrow(1, 0, 1).narrow(3, 0, 1).into_data();
        let sequences: Vec<u32> = kept.iter::<f32>().map(|token| token as u32).collect();
        let places = self.places(&sequences, batch, time);
        let mask = cache.padding_mask(time, n_head, &device);
        let mut x = self.embed(tokens, &places);
        let rotation = Rotation::new(&self.config, cache.len(), time, &x.device());
        for (layer, block) in self.h.iter().enumerate() {
            x = block.forward_cached(x, &rotation, layer, cache, mask.clone());
        }
        cache.advance(time);
        self.ln_f.forward(x)
    }

    fn lm_head(&self, hidden_states: Tensor<3>) -> Tensor<3> {
        self.wte.logits(hidden_states)
    }
}
