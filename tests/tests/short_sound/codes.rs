//! A model of several streams of tokens, told a class, on streams whose entropy is known.
//!
//! Of a class `c`, modulo 16:
//!
//! - the first codebook begins with one of four codes, `4c` to `4c + 3`, and rises by `2c + 1` or
//!   `2c + 2` from frame to frame
//! - the second codebook has `5x + c` where the first one has `x`
//! - the third codebook has the code of the second one, or that plus 5 or plus 10
//!
//! All choices are uniform and independent, so that a code takes the logarithm of the number of its
//! choices, in nats.

use super::{loader, settings, train};
use aigc_core::{
    Result,
    data::Dataset,
    rng::Rng,
    testing::{flex, values},
    train::OptimizerConfig,
};
use aigc_text::{
    GenerationConfig,
    music::{
        CodesBatch, CodesItem, ConditionInputs, MultiStreamGenerator, MultiStreamLm,
        MultiStreamObjective, MusicgenDecoder, MusicgenDecoderConfig, multi_stream_loss,
    },
};
use std::f64::consts::LN_2;

/// Steps of the training.
const STEPS: usize = 500;
/// Items of a batch.
const BATCH: usize = 32;
/// Learning rate after warm-up.
const LEARNING_RATE: f64 = 3e-3;
/// Items that are trained on.
const TRAINED: usize = 1 << 14;
/// Items that are measured.
const HELD_OUT: usize = 256;
/// Streams that are generated.
const GENERATED: usize = 64;
/// Most nats a code of every codebook above its entropy.
const MOST_EXCESS: f64 = 0.05;
/// Most nats a code, as a share of those of a uniform distribution.
const MOST_OF_UNIFORM: f64 = 0.3;
/// Least nats a code by which a wrong class costs more than the right one.
const LEAST_OF_WRONG_CLASS: f64 = 0.5;
/// Least share of generated codes that obey the rules of the class that was told.
const LEAST_OBEYED: f64 = 0.95;
/// Least share of generated streams whose class is the one that was told.
const LEAST_AS_TOLD: f64 = 0.95;
/// Most distance from one half of the share of the smaller rises among generated ones.
const MOST_UNEVEN: f64 = 0.1;

/// Codes of a codebook.
const VOCABULARY: u32 = 16;
const CLASSES: u32 = 4;
/// Frames of every item.
const FRAMES: usize = 24;

/// The entropy of a code of each codebook.
fn entropies() -> [f64; 3] {
    let rises = (FRAMES - 1) as f64;
    let first = (4f64.ln() + rises * LN_2) / FRAMES as f64;
    [first, 0.0, 3f64.ln()]
}

/// Items that are drawn when they are read; another seed gives other ones.
struct Streams {
    len: usize,
    seed: u64,
}

impl Streams {
    /// The class of an item, and its codes.
    fn draw(&self, index: usize) -> (u32, Vec<Vec<u32>>) {
        let mut rng = Rng::stream(self.seed, "streams", index as u64);
        let mut choice = |count: usize| rng.random_index(count) as u32;
        let class = choice(CLASSES as usize);
        let mut code = 4 * class + choice(4);
        let mut codes = vec![vec![]; 3];
        for _ in 0..FRAMES {
            let second = (5 * code + class) % VOCABULARY;
            let third = (second + 5 * choice(3)) % VOCABULARY;
            for (stream, code) in codes.iter_mut().zip([code, second, third]) {
                stream.push(code);
            }
            code = (code + 2 * class + 1 + choice(2)) % VOCABULARY;
        }
        (class, codes)
    }

    /// All items, with the class after their own ones by `off`.
    fn batch(&self, off: u32) -> CodesBatch {
        let item = |index| {
            let (class, codes) = self.draw(index);
            CodesItem::new(codes).with_classes(vec![(class + off) % CLASSES])
        };
        CodesBatch::collate((0..self.len).map(item).collect())
    }
}

impl Dataset for Streams {
    type Item = CodesItem;

    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, index: usize) -> Result<CodesItem> {
        let (class, codes) = self.draw(index);
        Ok(CodesItem::new(codes).with_classes(vec![class]))
    }
}

/// How far a code lies above another one.
fn rise(from: u32, to: u32) -> u32 {
    (to + VOCABULARY - from) % VOCABULARY
}

/// The number of codes that obey the rules of a class.
fn obeyed(codes: &[Vec<u32>], class: u32) -> usize {
    let [first, second, third] = codes else {
        panic!("{} codebooks", codes.len());
    };
    let steps = first.windows(2).map(|pair| rise(pair[0], pair[1]));
    let rises = steps.filter(|step| [1, 2].contains(&step.wrapping_sub(2 * class)));
    let seconds = first.iter().zip(second);
    let seconds = seconds.filter(|(x, y)| (5 * **x + class) % VOCABULARY == **y);
    let thirds = second.iter().zip(third);
    let thirds = thirds.filter(|(x, y)| [0, 5, 10].contains(&rise(**x, **y)));
    usize::from(first[0] / 4 == class) + rises.count() + seconds.count() + thirds.count()
}

/// The nats of a code of each codebook.
fn nats(model: &MusicgenDecoder, batch: &CodesBatch) -> Vec<f64> {
    let losses = multi_stream_loss(model, batch, None, &flex()).unwrap();
    values(losses).into_iter().map(f64::from).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn a_model_of_streams_reaches_their_entropy_and_obeys_their_rules() {
    let config = MusicgenDecoderConfig {
        vocab_size: VOCABULARY as usize,
        num_codebooks: 3,
        max_position_embeddings: 32,
        num_hidden_layers: 2,
        hidden_size: 64,
        ffn_dim: 256,
        num_attention_heads: 4,
        dropout: 0.0,
        // Beside positions, whose values reach 1, small embeddings would be learned late.
        initializer_factor: 0.1,
        ..MusicgenDecoderConfig::speech_8khz(vec![CLASSES as usize])
    };
    let data = Streams {
        len: TRAINED,
        seed: 1,
    };
    let trainer = settings(
        STEPS,
        LEARNING_RATE,
        OptimizerConfig::adam_w(0.9, 0.98, 0.01),
    );
    let model = train(
        trainer,
        MultiStreamObjective::new(0.0).unwrap(),
        config.init(&flex()).unwrap(),
        &loader(data, CodesBatch::collate, BATCH),
    );

    let held_out = Streams {
        len: HELD_OUT,
        seed: 2,
    };
    let (found, expected) = (nats(&model, &held_out.batch(0)), entropies());
    let mut pairs = found.iter().zip(&expected);
    assert!(
        pairs.all(|(found, expected)| (found - expected).abs() <= MOST_EXCESS),
        "{found:?} nats a code, the entropy is {expected:?}"
    );
    let uniform = f64::from(VOCABULARY).ln();
    assert!(
        mean(&found) <= MOST_OF_UNIFORM * uniform,
        "{found:?} nats a code, {uniform} of a uniform distribution"
    );
    let wrong = nats(&model, &held_out.batch(1));
    assert!(
        mean(&wrong) >= mean(&found) + LEAST_OF_WRONG_CLASS,
        "{found:?} nats a code, {wrong:?} with a wrong class"
    );

    let classes: Vec<u32> = (0..GENERATED as u32).map(|at| at % CLASSES).collect();
    let told = classes.iter().map(|class| vec![*class]).collect();
    let condition = model.encode_condition(&ConditionInputs::classes(told));
    let options = GenerationConfig {
        do_sample: true,
        top_k: 0,
        max_new_tokens: Some(model.delay_pattern().steps(FRAMES)),
        ..GenerationConfig::default()
    };
    let generator = MultiStreamGenerator::new(&model, options).unwrap();
    let generated = generator.with_seed(3);
    let generated = generated.generate(GENERATED, condition.unwrap().as_ref());
    let generated = generated.unwrap();
    assert_eq!(generated.frames(), FRAMES);

    let (mut right, mut as_told, mut smaller, mut greater) = (0, 0, 0, 0);
    for (codes, class) in generated.codes.iter().zip(&classes) {
        right += obeyed(codes, *class);
        let nearest = (0..CLASSES).max_by_key(|class| obeyed(codes, *class));
        as_told += usize::from(nearest == Some(*class));
        for pair in codes[0].windows(2) {
            let step = rise(pair[0], pair[1]);
            smaller += usize::from(step == 2 * class + 1);
            greater += usize::from(step == 2 * class + 2);
        }
    }
    let right = right as f64 / (GENERATED * 3 * FRAMES) as f64;
    let as_told = as_told as f64 / GENERATED as f64;
    assert!(
        right >= LEAST_OBEYED && as_told >= LEAST_AS_TOLD,
        "{right} of the codes obey the rules, {as_told} of the streams are of the class told"
    );
    let share = smaller as f64 / (smaller + greater) as f64;
    assert!(
        (share - 0.5).abs() <= MOST_UNEVEN,
        "{share} of the rises are the smaller ones of their class"
    );
}
