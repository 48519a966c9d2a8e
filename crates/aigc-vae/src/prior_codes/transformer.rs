//! A causal transformer over maps of codes (Vaswani et al. 2017,
//! <https://arxiv.org/abs/1706.03762>; for images Parmar et al. 2018,
//! <https://arxiv.org/abs/1802.05751>).
//!
//! A transformer is used, not a masked convolution, because the maps are small: attention over at
//! most a few hundred codes is cheap on a CPU, sees all earlier codes without a blind spot, and its
//! keys and values can be kept, so that sampling computes each code once.

use crate::{CodeShape, quantizer::flatten_positions};
use aigc_core::{
    Result,
    check::{self, ensure},
    nn::{
        Activation, Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig, Dropout,
        DropoutConfig, Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig,
        SelfAttention, SelfAttentionConfig,
    },
    ops,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor},
};
use serde::{Deserialize, Serialize};

const EMBEDDING: Initializer = Initializer::Normal {
    mean: 0.0,
    std: 0.02,
};

/// What codes are conditioned on.
#[derive(Clone, Debug, Default)]
pub struct PriorCondition {
    /// The class of each sample, `[batch]`; without it, a class-conditional prior works with its
    /// null condition, a vector of zeros.
    pub class_labels: Option<Tensor<1, Int>>,
    /// The codes of the level above, `[batch, positions, codebooks]`.
    pub above: Option<Tensor<3, Int>>,
}

/// Configuration to create a [`CodePrior`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CodePriorConfig {
    /// The codes, at most 2¹⁶ of each codebook and 2¹⁴ of each sample.
    pub codes: CodeShape,
    /// The codes of the level above that the prior is conditioned on. The sides of its map divide
    /// those of `codes` by the same factor.
    pub above: Option<CodeShape>,
    /// Number of classes, of a class-conditional prior.
    pub num_classes: Option<usize>,
    /// Width of the transformer.
    pub d_model: usize,
    /// Number of blocks.
    pub n_layer: usize,
    /// Number of attention heads; it must divide the width.
    pub n_head: usize,
    /// Ratio of the inner width of the MLPs to the width.
    pub mlp_ratio: usize,
    /// Dropout of the outputs of attention and MLPs, in training.
    pub dropout: f64,
    /// Number of residual blocks of convolutions over the codes of the level above.
    pub above_blocks: usize,
}

impl CodePriorConfig {
    /// 4 blocks of width 128 with 4 heads, dropout 0.1, without conditions.
    pub fn new(codes: CodeShape) -> Self {
        Self {
            codes,
            above: None,
            num_classes: None,
            d_model: 128,
            n_layer: 4,
            n_head: 4,
            mlp_ratio: 4,
            dropout: 0.1,
            above_blocks: 2,
        }
    }

    /// Fails unless all values are in their ranges.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        check_codes("codes", &self.codes)?;
        check::sizes(&[
            ("d_model", self.d_model, 4096),
            ("n_layer", self.n_layer, 64),
            ("n_head", self.n_head, 64),
            ("mlp_ratio", self.mlp_ratio, 16),
            ("num_classes", self.num_classes.unwrap_or(1), 1 << 16),
        ])?;
        check::in_range("above_blocks", self.above_blocks, 0..=16)?;
        ensure(
            self.d_model.is_multiple_of(self.n_head),
            "n_head",
            self.n_head,
            &format!("a divisor of {}, the width", self.d_model),
        )?;
        ensure(
            (0.0..1.0).contains(&self.dropout),
            "dropout",
            self.dropout,
            "a number from 0 to below 1",
        )?;
        if let Some(above) = &self.above {
            check_codes("above", above)?;
            let factor = self.codes.height / above.height;
            ensure(
                factor > 0
                    && above.height * factor == self.codes.height
                    && above.width * factor == self.codes.width,
                "above",
                above,
                &format!("a map whose sides divide those of {} equally", self.codes),
            )?;
        }
        let weights = self.num_weights();
        let expected = format!("fewer weights than {weights}: at most 2³⁰");
        ensure(weights <= 1 << 30, "d_model", self.d_model, &expected)
    }

    /// Number of weights of the embeddings, the blocks and the convolutions.
    fn num_weights(&self) -> u128 {
        let d = self.d_model as u128;
        let codes = |codes: &CodeShape| (codes.codebooks * codes.num_codes) as u128;
        let blocks = self.n_layer as u128 * (4 + 2 * self.mlp_ratio as u128) * d * d;
        let tables = 2 * codes(&self.codes) + self.num_classes.unwrap_or(0) as u128;
        let above = self.above.map_or(0, |above| {
            let factor = (self.codes.height / above.height) as u128;
            codes(&above) * d + (self.above_blocks as u128 * 18 + factor * factor) * d * d
        });
        blocks + tables * d + above
    }

    /// Creates the prior on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<CodePrior> {
        self.validate()?;
        let d = self.d_model;
        let CodeShape {
            height,
            width,
            codebooks,
            num_codes,
        } = self.codes;
        let table = |rows: usize| EMBEDDING.param([rows, d], rows, d, device);
        let norm = || LayerNormConfig::new(d).init(device);
        let dropout = || DropoutConfig::new(self.dropout).init();
        let block = |_| Block {
            norm1: norm(),
            attention: SelfAttentionConfig::new(d, self.n_head)
                .with_causal(true)
                .init(device),
            norm2: norm(),
            fc1: LinearConfig::new(d, self.mlp_ratio * d).init(device),
            fc2: LinearConfig::new(self.mlp_ratio * d, d).init(device),
            dropout: dropout(),
            n_head: self.n_head,
        };
        Ok(CodePrior {
            embedding: table(codebooks * num_codes),
            start: table(1),
            rows: table(height),
            columns: table(width),
            books: table(codebooks),
            classes: self.num_classes.map(table),
            above: self.above.map(|above| AboveEncoder {
                embedding: table(above.codebooks * above.num_codes),
                blocks: (0..self.above_blocks)
                    .map(|_| AboveBlock::new(d, device))
                    .collect(),
                upsample: {
                    let factor = height / above.height;
                    ConvTranspose2dConfig::new([d, d], factor)
                        .with_stride(factor)
                        .init(device)
                },
                codes: above,
            }),
            blocks: (0..self.n_layer).map(block).collect(),
            norm: norm(),
            heads: (0..codebooks)
                .map(|_| LinearConfig::new(d, num_codes).init(device))
                .collect(),
            dropout: dropout(),
            config: self.clone(),
        })
    }
}

fn check_codes(field: &str, codes: &CodeShape) -> Result<()> {
    let names = ["height", "width", "codebooks", "num_codes"].map(|name| format!("{field}.{name}"));
    check::sizes(&[
        (names[0].as_str(), codes.height, 1 << 10),
        (names[1].as_str(), codes.width, 1 << 10),
        (names[2].as_str(), codes.codebooks, 64),
    ])?;
    check::in_range(&names[3], codes.num_codes, 2..=1 << 16)?;
    ensure(
        codes.num_indices() <= 1 << 14,
        field,
        codes,
        "at most 16384 codes of a sample",
    )
}

/// An autoregressive distribution over the codes of a sample, `p(c) = Π p(cₜ | c₁ … cₜ₋₁)`.
///
/// The codes are ordered row by row, and those of a position by codebook. The input for a code is
/// the embedding of the code before it, the position of the code itself, and the conditions: its
/// class, and features of the codes of the level above at its position (Razavi et al. 2019,
/// <https://arxiv.org/abs/1906.00446>, §3.2).
#[derive(Module, Debug)]
pub struct CodePrior {
    /// Embeddings of the codes of all codebooks, `[codebooks·num_codes, d_model]`.
    embedding: Param<Tensor<2>>,
    /// In place of the code before the first.
    start: Param<Tensor<2>>,
    rows: Param<Tensor<2>>,
    columns: Param<Tensor<2>>,
    books: Param<Tensor<2>>,
    classes: Option<Param<Tensor<2>>>,
    above: Option<AboveEncoder>,
    blocks: Vec<Block>,
    norm: LayerNorm,
    /// The logits of the codes of each codebook.
    heads: Vec<Linear>,
    dropout: Dropout,
    #[module(skip)]
    config: CodePriorConfig,
}

impl CodePrior {
    /// Configuration of the prior.
    pub fn config(&self) -> &CodePriorConfig {
        &self.config
    }

    aigc_core::pretrained_methods!(CodePriorConfig, config: Self::config);

    /// The logits of each code, given the codes before it.
    ///
    /// # Shapes
    /// - codes: `[batch, positions, codebooks]`
    /// - output: `[batch, positions·codebooks, num_codes]`
    ///
    /// # Panics
    /// If the codes do not have the shape of the configuration, the codes of the level above are
    /// missing, or a code or a class is not below their number. Codes and classes are read from
    /// their device for this.
    pub fn forward(&self, codes: Tensor<3, Int>, condition: &PriorCondition) -> Tensor<3> {
        self.check(&codes, condition);
        self.forward_unchecked(codes, condition)
    }

    /// [`forward`](Self::forward) for codes and classes that are known to be in their ranges.
    fn forward_unchecked(&self, codes: Tensor<3, Int>, condition: &PriorCondition) -> Tensor<3> {
        let shape = self.config.codes;
        let ([batch, ..], n) = (codes.dims(), shape.num_indices());
        assert_eq!(
            codes.dims(),
            [batch, shape.positions(), shape.codebooks],
            "codes of a prior over {shape}"
        );
        let mut inputs = self.first(batch);
        if n > 1 {
            let earlier = numbered(codes, shape.num_codes).narrow(1, 0, n - 1);
            let earlier = ops::embedding(self.embedding.val(), earlier);
            inputs = Tensor::cat(vec![inputs, earlier], 1);
        }
        let x = self.dropout.forward(inputs + self.context(condition));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        self.logits(self.norm.forward(x))
    }

    /// The log-probability of codes in nats. Divided by `−ln 2`, it is the number of bits that the
    /// codes of a sample need.
    ///
    /// # Shapes
    /// - codes: `[batch, positions, codebooks]`
    /// - output: `[batch]`
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn log_prob(&self, codes: Tensor<3, Int>, condition: &PriorCondition) -> Tensor<1> {
        self.check(&codes, condition);
        self.log_prob_unchecked(codes, condition)
    }

    /// [`log_prob`](Self::log_prob) for codes and classes that are known to be in their ranges,
    /// such as those of a [`CodeBatch`](super::CodeBatch).
    pub(crate) fn log_prob_unchecked(
        &self,
        codes: Tensor<3, Int>,
        condition: &PriorCondition,
    ) -> Tensor<1> {
        let logits = self.forward_unchecked(codes.clone(), condition);
        let [batch, n, num_codes] = logits.dims();
        let nats = ops::cross_entropy(
            logits.reshape([batch * n, num_codes]),
            codes.reshape([batch * n]),
        );
        -nats.reshape([batch, n]).sum_dim(1).squeeze_dim::<1>(1)
    }

    /// # Panics
    /// If a code or a class is out of range: with several codebooks, it would be that of another
    /// one.
    fn check(&self, codes: &Tensor<3, Int>, condition: &PriorCondition) {
        let config = &self.config;
        assert_below("codes", codes, config.codes.num_codes);
        if let (Some(classes), Some(labels)) = (config.num_classes, &condition.class_labels) {
            assert_below("class_labels", labels, classes);
        }
        if let (Some(shape), Some(above)) = (config.above, &condition.above) {
            assert_below("above", above, shape.num_codes);
        }
    }

    /// The input for the first code, `[batch, 1, d_model]`.
    fn first(&self, batch: usize) -> Tensor<3> {
        let d = self.config.d_model;
        self.start.val().reshape([1, 1, d]).expand([batch, 1, d])
    }

    /// What is added to the inputs: positions and conditions, `[1 or batch, codes, d_model]`.
    fn context(&self, condition: &PriorCondition) -> Tensor<3> {
        let d = self.config.d_model;
        let CodeShape {
            height,
            width,
            codebooks,
            ..
        } = self.config.codes;
        let rows = self.rows.val().reshape([height, 1, 1, d]);
        let columns = self.columns.val().reshape([1, width, 1, d]);
        let books = self.books.val().reshape([1, 1, codebooks, d]);
        let n = self.config.codes.num_indices();
        let mut context = (rows + columns + books).reshape([1, n, d]);
        if let (Some(classes), Some(labels)) = (&self.classes, &condition.class_labels) {
            let labels = labels.clone().unsqueeze_dim::<2>(1);
            context = context + ops::embedding(classes.val(), labels);
        }
        if let Some(encoder) = &self.above {
            let above = condition.above.clone();
            let above = above.expect("the codes of the level above, for a prior that needs them");
            context = context + encoder.forward(above, codebooks);
        }
        context
    }

    /// The logits of all codes from their normalised features, `[batch, codes, d_model]`.
    fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        if let [head] = &self.heads[..] {
            return head.forward(hidden);
        }
        let ([batch, n, d], books) = (hidden.dims(), self.heads.len());
        let hidden = hidden.reshape([batch, n / books, books, d]);
        let heads = self.heads.iter().enumerate();
        let logits = heads.map(|(book, head)| head.forward(hidden.clone().narrow(2, book, 1)));
        let logits: Tensor<4> = Tensor::cat(logits.collect(), 2);
        logits.reshape([batch, n, self.config.codes.num_codes])
    }

    /// Starts to decode `batch` samples, code by code.
    pub(crate) fn decoder(&self, batch: usize, condition: &PriorCondition) -> Decoder<'_> {
        Decoder {
            prior: self,
            context: self.context(condition),
            caches: self.blocks.iter().map(|_| Cache::default()).collect(),
            next: 0,
            batch,
        }
    }
}

/// # Panics
/// Unless all values are from 0 to below `count`.
fn assert_below<const D: usize>(field: &str, values: &Tensor<D, Int>, count: usize) {
    let (values, range) = (values.clone().into_data(), 0..count as i64);
    if let Some(value) = values.iter::<i64>().find(|value| !range.contains(value)) {
        panic!(
            "`{field}` has the value {value}, expected 0 to {}",
            count - 1
        );
    }
}

/// Codes as rows of a table of the codes of all codebooks, `[batch, positions·codebooks]`.
fn numbered(codes: Tensor<3, Int>, num_codes: usize) -> Tensor<2, Int> {
    let [.., codebooks] = codes.dims();
    if codebooks == 1 {
        return codes.squeeze_dim::<2>(2);
    }
    let first = Tensor::<1, Int>::arange(0..codebooks as i64, &codes.device()) * num_codes as i64;
    (codes + first.reshape([1, 1, codebooks])).flatten::<2>(1, 2)
}

/// Decoding of a batch. Keys and values of earlier codes are kept, so that each code is computed
/// once.
pub(crate) struct Decoder<'a> {
    prior: &'a CodePrior,
    context: Tensor<3>,
    caches: Vec<Cache>,
    /// Number of codes decoded so far.
    next: usize,
    batch: usize,
}

impl Decoder<'_> {
    /// The logits of the next code; `previous` is the code before it, `[batch]`, and `None` for the
    /// first.
    ///
    /// # Shapes
    /// - output: `[batch, num_codes]`
    pub(crate) fn next_logits(&mut self, previous: Option<Tensor<1, Int>>) -> Tensor<2> {
        let (prior, shape) = (self.prior, self.prior.config.codes);
        let at = self.next;
        self.next += 1;
        let input = match previous {
            None => prior.first(self.batch),
            Some(codes) => {
                let first = (at + shape.codebooks - 1) % shape.codebooks * shape.num_codes;
                let numbered = (codes + first as i64).unsqueeze_dim::<2>(1);
                ops::embedding(prior.embedding.val(), numbered)
            }
        };
        let mut x = input + self.context.clone().narrow(1, at, 1);
        let capacity = shape.num_indices();
        for (block, cache) in prior.blocks.iter().zip(&mut self.caches) {
            x = block.step(x, cache, at, capacity);
        }
        let head = &prior.heads[at % shape.codebooks];
        head.forward(prior.norm.forward(x)).squeeze_dim::<2>(1)
    }
}

/// Keys and values of a block, `[batch, n_head, capacity, d]`.
#[derive(Default)]
struct Cache(Option<[Tensor<4>; 2]>);

impl Cache {
    /// Stores the keys and values of code `at`, and returns those of all codes so far.
    fn update(&mut self, new: [Tensor<4>; 2], at: usize, capacity: usize) -> [Tensor<4>; 2] {
        let [batch, heads, _, d] = new[0].dims();
        let held = self.0.take().unwrap_or_else(|| {
            let empty = Tensor::zeros([batch, heads, capacity, d], &new[0].device());
            [empty.clone(), empty]
        });
        let [new_keys, new_values] = new;
        let [keys, values] = held;
        let place = [0..batch, 0..heads, at..at + 1, 0..d];
        let keys = keys.slice_assign(place.clone(), new_keys);
        let values = values.slice_assign(place, new_values);
        let held = self.0.insert([keys, values]);
        [0, 1].map(|i| held[i].clone().narrow(2, 0, at + 1))
    }
}

/// A pre-norm transformer block.
#[derive(Module, Debug)]
struct Block {
    norm1: LayerNorm,
    attention: SelfAttention,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    dropout: Dropout,
    n_head: usize,
}

impl Block {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let attended = self.attention.forward(self.norm1.forward(x.clone()));
        self.mlp(x + self.dropout.forward(attended))
    }

    /// [`forward`](Self::forward) of code `at` alone, `[batch, 1, d_model]`.
    fn step(&self, x: Tensor<3>, cache: &mut Cache, at: usize, capacity: usize) -> Tensor<3> {
        let qkv = self.attention.qkv.forward(self.norm1.forward(x.clone()));
        let ([batch, _, width], heads) = (qkv.dims(), self.n_head);
        let d = width / (3 * heads);
        let parts = qkv.reshape([batch, 3, heads, 1, d]);
        let [q, k, v] = [0, 1, 2].map(|part| parts.clone().narrow(1, part, 1).squeeze_dim::<4>(1));
        let [keys, values] = cache.update([k, v], at, capacity);
        let attended = ops::attention(q, keys, values, None, false);
        let attended = attended.reshape([batch, 1, heads * d]);
        self.mlp(x + self.attention.output.forward(attended))
    }

    fn mlp(&self, x: Tensor<3>) -> Tensor<3> {
        let inner = self.fc1.forward(self.norm2.forward(x.clone()));
        let output = self.fc2.forward(Activation::Gelu.forward(inner));
        x + self.dropout.forward(output)
    }
}

/// Features of the codes of the level above, at the positions of the level below.
#[derive(Module, Debug)]
struct AboveEncoder {
    embedding: Param<Tensor<2>>,
    blocks: Vec<AboveBlock>,
    upsample: ConvTranspose2d,
    #[module(skip)]
    codes: CodeShape,
}

impl AboveEncoder {
    /// # Shapes
    /// - codes: `[batch, positions, codebooks]` of the level above
    /// - output: `[batch, positions·codebooks, d_model]` of the level below, which has `codebooks`
    fn forward(&self, codes: Tensor<3, Int>, codebooks: usize) -> Tensor<3> {
        let shape = self.codes;
        let [batch, ..] = codes.dims();
        assert_eq!(
            codes.dims(),
            [batch, shape.positions(), shape.codebooks],
            "codes of a level above, of {shape}"
        );
        let embedded = ops::embedding(self.embedding.val(), numbered(codes, shape.num_codes));
        let d = embedded.dims()[2];
        // The codes of a position are added.
        let x = embedded
            .reshape([batch, shape.positions(), shape.codebooks, d])
            .sum_dim(2)
            .reshape([batch, shape.positions(), d])
            .swap_dims(1, 2)
            .reshape([batch, d, shape.height, shape.width]);
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        let features = flatten_positions(self.upsample.forward(x));
        let [_, positions, _] = features.dims();
        features
            .unsqueeze_dim::<4>(2)
            .expand([batch, positions, codebooks, d])
            .reshape([batch, positions * codebooks, d])
    }
}

/// `x + conv₃ₓ₃(act(conv₃ₓ₃(act(x))))`.
#[derive(Module, Debug)]
struct AboveBlock {
    conv1: Conv2d,
    conv2: Conv2d,
}

impl AboveBlock {
    fn new(d: usize, device: &Device) -> Self {
        let conv = || Conv2dConfig::new([d, d], 3).with_padding(1).init(device);
        Self {
            conv1: conv(),
            conv2: conv(),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let act = Activation::Gelu;
        let inner = self.conv1.forward(act.forward(x.clone()));
        x + self.conv2.forward(act.forward(inner))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
    };
    use burn::tensor::TensorData;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn shape(height: usize, width: usize, codebooks: usize, num_codes: usize) -> CodeShape {
        CodeShape {
            height,
            width,
            codebooks,
            num_codes,
        }
    }

    fn tiny(codes: CodeShape) -> CodePriorConfig {
        CodePriorConfig {
            d_model: 16,
            n_layer: 2,
            n_head: 2,
            dropout: 0.0,
            above_blocks: 1,
            ..CodePriorConfig::new(codes)
        }
    }

    /// A prior whose weights are large enough for its distributions to be far from uniform.
    fn prior(config: &CodePriorConfig, seed: u64) -> CodePrior {
        let mut prior = config.init(&Device::flex()).unwrap().init_weights(seed);
        for table in [&mut prior.embedding, &mut prior.start, &mut prior.rows] {
            *table = table.clone().map(|weights| weights * 50.0);
        }
        prior.classes = prior
            .classes
            .map(|table| table.map(|weights| weights * 50.0));
        if let Some(above) = &mut prior.above {
            above.embedding = above.embedding.clone().map(|weights| weights * 50.0);
        }
        prior
    }

    /// Configurations with each kind of condition, and several codebooks.
    fn configs() -> [CodePriorConfig; 4] {
        let plain = tiny(shape(2, 2, 1, 3));
        let classes = CodePriorConfig {
            num_classes: Some(2),
            ..plain.clone()
        };
        let above = CodePriorConfig {
            above: Some(shape(1, 1, 2, 50)),
            ..classes.clone()
        };
        [plain, classes, above, tiny(shape(1, 2, 2, 3))]
    }

    fn condition(config: &CodePriorConfig, batch: usize, seed: u64) -> PriorCondition {
        let device = Device::flex();
        let mut rng = Rng::new(seed);
        let labels = config.num_classes.map(|count| {
            let labels: Vec<i32> = (0..batch).map(|_| rng.random_index(count) as i32).collect();
            Tensor::from_data(TensorData::new(labels, [batch]), &device)
        });
        PriorCondition {
            class_labels: labels,
            above: (config.above).map(|above| above.sample_uniform(batch, &mut rng, &device)),
        }
    }

    /// The probabilities of all 81 sequences of 4 codes of an alphabet of 3 sum to 1, under any
    /// condition.
    #[test]
    fn probabilities_of_all_codes_sum_to_one() {
        let device = Device::flex();
        for (index, config) in configs().iter().enumerate() {
            let prior = prior(config, index as u64);
            let CodeShape { codebooks, .. } = config.codes;
            let all: Vec<i32> = (0..81)
                .flat_map(|n| [n / 27, n / 9 % 3, n / 3 % 3, n % 3])
                .collect();
            let all = TensorData::new(all, [81, 4 / codebooks, codebooks]);
            let all = Tensor::<3, Int>::from_data(all, &device);
            let mut seen = Vec::new();
            for seed in 0..2 {
                let one = condition(config, 1, seed);
                let repeated = PriorCondition {
                    class_labels: one.class_labels.map(|labels| labels.repeat_dim(0, 81)),
                    above: one.above.map(|codes| codes.repeat_dim(0, 81)),
                };
                let nats = values(prior.log_prob(all.clone(), &repeated));
                let p: Vec<f64> = nats.iter().map(|nats| f64::from(*nats).exp()).collect();
                let total: f64 = p.iter().sum();
                assert!((total - 1.0).abs() < 1e-4, "{config:?}: {total}");
                let largest = p.iter().copied().fold(0.0, f64::max);
                assert!(largest > 1.5 / 81.0, "{config:?} is uniform: {largest}");
                seen.push(nats);
            }
            let is_conditional = config.above.is_some();
            assert!(!is_conditional || seen[0] != seen[1], "{config:?}");
        }
    }

    /// Changing a code changes no logit of it or of earlier ones, and some of later ones.
    #[test]
    fn logits_depend_on_earlier_codes_only() {
        let device = Device::flex();
        for config in [
            tiny(shape(3, 3, 1, 5)),
            tiny(shape(2, 2, 2, 5)),
            CodePriorConfig {
                above: Some(shape(1, 1, 1, 4)),
                num_classes: Some(3),
                ..tiny(shape(3, 3, 1, 5))
            },
        ] {
            let prior = prior(&config, 7);
            let (n, k) = (config.codes.num_indices(), config.codes.num_codes);
            let given = condition(&config, 1, 1);
            let codes = config.codes.sample_uniform(1, &mut Rng::new(2), &device);
            let first = values(prior.forward(codes.clone(), &given));
            let indices: Vec<i32> = codes.into_data().iter::<i32>().collect();
            for at in 0..n {
                let mut changed = indices.clone();
                changed[at] = (changed[at] + 1) % k as i32;
                let dims = [1, config.codes.positions(), config.codes.codebooks];
                let changed = Tensor::from_data(TensorData::new(changed, dims), &device);
                let other = values(prior.forward(changed, &given));
                let apart: Vec<f32> = first
                    .chunks(k)
                    .zip(other.chunks(k))
                    .map(|(a, b)| {
                        let gaps = a.iter().zip(b).map(|(a, b)| (a - b).abs());
                        gaps.fold(0.0, f32::max)
                    })
                    .collect();
                let (earlier, later) = apart.split_at(at + 1);
                assert!(earlier.iter().all(|gap| *gap < 1e-6), "{at}: {apart:?}");
                assert!(
                    later.is_empty() || later.iter().any(|gap| *gap > 1e-4),
                    "{at}: {apart:?}"
                );
            }
        }
    }

    /// Decoding code by code gives the logits of the whole sequence.
    #[test]
    fn cached_logits_match_whole_sequences() {
        let device = Device::flex();
        let batch = 3;
        for config in [
            tiny(shape(3, 4, 1, 6)),
            tiny(shape(2, 3, 3, 6)),
            CodePriorConfig {
                above: Some(shape(2, 2, 2, 5)),
                num_classes: Some(4),
                ..tiny(shape(4, 4, 2, 6))
            },
        ] {
            let prior = prior(&config, 3);
            let n = config.codes.num_indices();
            let given = condition(&config, batch, 4);
            let codes = config
                .codes
                .sample_uniform(batch, &mut Rng::new(5), &device);
            let whole = prior.forward(codes.clone(), &given);
            let flat = codes.flatten::<2>(1, 2);
            let mut decoder = prior.decoder(batch, &given);
            let mut previous = None;
            for at in 0..n {
                let found = decoder.next_logits(previous);
                let expected = whole.clone().narrow(1, at, 1);
                assert_close(&values(found), &values(expected), 1e-4);
                previous = Some(flat.clone().narrow(1, at, 1).squeeze_dim::<1>(1));
            }
        }
    }

    #[test]
    fn a_single_code_has_its_own_distribution() {
        let device = Device::flex();
        let prior = prior(&tiny(shape(1, 1, 1, 2)), 1);
        let codes = Tensor::<3, Int>::from_data(TensorData::new(vec![0, 1], [2, 1, 1]), &device);
        let nats = values(prior.log_prob(codes, &PriorCondition::default()));
        assert!((nats[0].exp() + nats[1].exp() - 1.0).abs() < 1e-5);
    }

    /// Without a label, the prior differs from that of every class.
    #[test]
    fn missing_labels_are_the_null_condition() {
        let device = Device::flex();
        let config = &configs()[1];
        let prior = prior(config, 5);
        let codes = config.codes.sample_uniform(1, &mut Rng::new(2), &device);
        let nats = |class: Option<i32>| {
            let condition = PriorCondition {
                class_labels: class
                    .map(|class| Tensor::from_data(TensorData::new(vec![class], [1]), &device)),
                above: None,
            };
            values(prior.log_prob(codes.clone(), &condition))[0]
        };
        let all = [nats(None), nats(Some(0)), nats(Some(1))];
        assert!(
            all[0] != all[1] && all[0] != all[2] && all[1] != all[2],
            "{all:?}"
        );
    }

    /// Of several codebooks, the rows after those of a codebook are those of the next one.
    #[test]
    fn codes_and_classes_out_of_range_are_named() {
        let device = Device::flex();
        let config = CodePriorConfig {
            above: Some(shape(1, 1, 2, 4)),
            num_classes: Some(2),
            ..tiny(shape(2, 2, 2, 3))
        };
        let prior = prior(&config, 5);
        let message = |code: i32, class: i32, above: i32| {
            let codes = Tensor::<3, Int>::from_data(
                TensorData::new(vec![0, 2, code, 1, 0, 1, 2, 0], [1, 4, 2]),
                &device,
            );
            let condition = PriorCondition {
                class_labels: Some(Tensor::from_data(
                    TensorData::new(vec![class], [1]),
                    &device,
                )),
                above: Some(Tensor::from_data(
                    TensorData::new(vec![above, 3], [1, 1, 2]),
                    &device,
                )),
            };
            let call = |log_prob: bool| {
                let (prior, codes, condition) = (&prior, codes.clone(), &condition);
                let call = AssertUnwindSafe(move || match log_prob {
                    true => drop(prior.log_prob(codes, condition)),
                    false => drop(prior.forward(codes, condition)),
                });
                match catch_unwind(call) {
                    Ok(()) => "none".to_string(),
                    Err(panic) => *panic.downcast::<String>().unwrap(),
                }
            };
            let message = call(true);
            assert_eq!(call(false), message);
            message
        };
        assert_eq!(message(2, 1, 3), "none");
        for (found, expected) in [
            (message(3, 1, 3), "`codes` has the value 3, expected 0 to 2"),
            (
                message(-1, 1, 3),
                "`codes` has the value -1, expected 0 to 2",
            ),
            (
                message(2, 2, 3),
                "`class_labels` has the value 2, expected 0 to 1",
            ),
            (message(2, 1, 4), "`above` has the value 4, expected 0 to 3"),
        ] {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn pretrained_priors_open_with_their_configuration() {
        let device = Device::flex();
        let config = &configs()[2];
        let prior = prior(config, 5);
        let dir = tempfile::tempdir().unwrap();
        prior.save_pretrained(dir.path()).unwrap();
        let loaded = CodePrior::from_pretrained(dir.path(), &device).unwrap();
        assert!(loaded.warnings().is_empty(), "{loaded}");
        let file = |name: &str| dir.path().join(name);
        std::fs::rename(file("model.safetensors"), file("model.fp16.safetensors")).unwrap();
        let fp16 = CodePrior::from_pretrained_with_variant(dir.path(), "fp16", &device).unwrap();
        assert_eq!(loaded.config(), config);
        let codes = config.codes.sample_uniform(2, &mut Rng::new(2), &device);
        let given = condition(config, 2, 3);
        let [a, b, c] =
            [&prior, &*loaded, &*fp16].map(|prior| prior.log_prob(codes.clone(), &given));
        let (a, b, c) = (values(a), values(b), values(c));
        assert_eq!((&a, &a), (&b, &c));
    }

    #[test]
    fn configurations_out_of_range_are_named() {
        let good = tiny(shape(4, 4, 1, 8));
        for (config, expected) in [
            (
                tiny(shape(0, 4, 1, 8)),
                "`codes.height` is 0, expected 1 to",
            ),
            (
                tiny(shape(4, 4, 1, 1)),
                "`codes.num_codes` is 1, expected 2 to",
            ),
            (
                tiny(shape(1024, 1024, 1, 8)),
                "`codes` is 1024×1024×1 codes of 8, expected at most 16384",
            ),
            (
                CodePriorConfig {
                    n_head: 3,
                    ..good.clone()
                },
                "`n_head` is 3, expected a divisor of 16",
            ),
            (
                CodePriorConfig {
                    above: Some(shape(2, 4, 1, 8)),
                    ..good.clone()
                },
                "`above` is 2×4×1 codes of 8",
            ),
            (
                CodePriorConfig {
                    above: Some(shape(8, 8, 1, 8)),
                    ..good.clone()
                },
                "`above` is 8×8×1 codes of 8",
            ),
            (
                CodePriorConfig {
                    num_classes: Some(0),
                    ..good.clone()
                },
                "`num_classes` is 0",
            ),
            (
                CodePriorConfig {
                    dropout: 1.0,
                    ..good.clone()
                },
                "`dropout` is 1",
            ),
            (
                CodePriorConfig {
                    d_model: 4096,
                    n_layer: 64,
                    ..good
                },
                "at most 2³⁰",
            ),
        ] {
            let message = config.init(&Device::flex()).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
