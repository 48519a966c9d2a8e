//! A step of a character-level GPT: 4 layers, 4 heads, width 128, context 64, vocabulary 65, batch 12, no dropout, no
//! biases, tied output; AdamW at 1e-3.

use crate::{Clock, clock::train};
use aigc_core::{
    data::{InMemory, Loader, LoaderConfig},
    nn::{
        Activation, Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig, SelfAttention, SelfAttentionConfig,
    },
    ops,
    rng::Rng,
    train::{Losses, Objective, OptimizerConfig, StepContext, TrainerConfig},
};
use anyhow::Result;
use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor, TensorData},
};

const LAYERS: usize = 4;
const HEADS: usize = 4;
const WIDTH: usize = 128;
const CONTEXT: usize = 64;
const VOCABULARY: usize = 65;
const BATCH: usize = 12;

#[derive(Module, Debug)]
struct Block {
    norm_1: LayerNorm,
    attention: SelfAttention,
    norm_2: LayerNorm,
    up: Linear,
    down: Linear,
}

impl Block {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x.clone() + self.attention.forward(self.norm_1.forward(x));
        let hidden = Activation::Gelu.forward(self.up.forward(self.norm_2.forward(x.clone())));
        x + self.down.forward(hidden)
    }
}

#[derive(Module, Debug)]
struct Gpt {
    tokens: Param<Tensor<2>>,
    positions: Param<Tensor<2>>,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

fn init(device: &Device) -> Gpt {
    let norm = || LayerNormConfig::new(WIDTH).with_bias(false).init(device);
    let linear = |i, o| LinearConfig::new(i, o).with_bias(false).init(device);
    let table = |rows| Initializer::Normal { mean: 0.0, std: 0.02 }.param([rows, WIDTH], rows, WIDTH, device);
    let block = || Block {
        norm_1: norm(),
        attention: SelfAttentionConfig::new(WIDTH, HEADS).with_bias(false).with_causal(true).init(device),
        norm_2: norm(),
        up: linear(WIDTH, 4 * WIDTH),
        down: linear(4 * WIDTH, WIDTH),
    };
    Gpt {
        tokens: table(VOCABULARY),
        positions: table(CONTEXT),
        blocks: (0..LAYERS).map(|_| block()).collect(),
        norm: norm(),
    }
}

struct NextToken;

impl Objective for NextToken {
    type Model = Gpt;
    type Batch = Vec<i32>;

    fn losses(&mut self, model: &Gpt, batch: &Vec<i32>, context: &mut StepContext) -> aigc_core::Result<Losses> {
        // Rows of one token more than the context: inputs, and the same a token later.
        let row = |at: usize, shift: usize| &batch[at * (CONTEXT + 1) + shift..][..CONTEXT];
        let shifted = |shift| (0..BATCH).flat_map(|at| row(at, shift)).copied().collect::<Vec<i32>>();
        let device = &context.device;
        let inputs = Tensor::<2, Int>::from_data(TensorData::new(shifted(0), [BATCH, CONTEXT]), device);
        let targets = Tensor::<1, Int>::from_data(TensorData::new(shifted(1), [BATCH * CONTEXT]), device);
        let mut x = ops::embedding(model.tokens.val(), inputs) + model.positions.val().unsqueeze();
        for block in &model.blocks {
            x = block.forward(x);
        }
        let logits = ops::linear(model.norm.forward(x), model.tokens.val().transpose(), None);
        let losses = ops::cross_entropy(logits.reshape([BATCH * CONTEXT, VOCABULARY]), targets);
        Ok(Losses::new(losses.mean()))
    }
}

pub(crate) fn run(device: &Device, clock: Clock) -> Result<()> {
    let mut rng = Rng::new(0);
    let rows = (0..256).map(|_| (0..=CONTEXT).map(|_| rng.below(VOCABULARY) as i32).collect::<Vec<_>>()).collect();
    let config = LoaderConfig { batch_size: BATCH, ..LoaderConfig::default() };
    let loader = Loader::new(InMemory(rows), |rows: Vec<Vec<i32>>| rows.concat(), config)?;
    let config = TrainerConfig { optimizer: OptimizerConfig::adam_w(0.9, 0.999, 0.01), ..TrainerConfig::new(0) };
    train(NextToken, init(device), &loader, config, clock)
}
