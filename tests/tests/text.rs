//! Generation by identities: ways to generate that must agree with each other, distributions that
//! are known, and mistakes.

use aigc_core::{
    CancelToken, Error,
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig, Dataset},
    device::device,
    ops::Quantization,
    params::{ParamVisitor, visit_params},
    rng::{InitWeights, Rng},
    train::{OptimizerConfig, ParamGroupConfig, Trainer, TrainerConfig},
};
use aigc_tests::{
    floats, folder_from, gpt2_tokenizer, integers, own_fixtures, python_with, run_script, skip,
    small_gpt2, write_case,
};
use aigc_text::{
    BpeTokenizer, CausalLm, CausalLmObjective, CharacterTokenizer, DecodeStream, FinishReason,
    GeneratedSequence, GenerationConfig, GenerationState, Gpt2, Gpt2Config, KvCache,
    LogitsProcessor, TextGenerator, TokenBatch, TokenDataset, Tokenizer,
    generate::{EarlyStopping, FrequencyPenalty, TokenIds, WordConstraint},
    models::ActivationName,
    perplexity, read_lines, tokenize_file,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Int, Tensor, TensorData},
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    path::Path,
};

fn model(seed: u64, vocabulary: usize) -> Gpt2 {
    small_gpt2(seed, vocabulary, 48, [2, 4, 32])
}

fn prompts() -> Vec<Vec<u32>> {
    vec![vec![3, 1, 4, 1, 5, 9, 2, 6], vec![7], vec![27, 18, 28]]
}

fn config() -> GenerationConfig {
    GenerationConfig {
        max_new_tokens: Some(14),
        eos_token_id: Some(TokenIds::One(0)),
        ..GenerationConfig::default()
    }
}

fn generate(
    model: &Gpt2,
    config: GenerationConfig,
    prompts: &[Vec<u32>],
) -> Vec<GeneratedSequence> {
    TextGenerator::new(model, config)
        .unwrap()
        .generate(prompts)
        .unwrap()
}

fn tokens(sequences: &[GeneratedSequence]) -> Vec<Vec<u32>> {
    sequences
        .iter()
        .map(|sequence| sequence.tokens.clone())
        .collect()
}

#[test]
fn rows_of_a_batch_are_what_each_is_alone() {
    let model = model(1, 60);
    let beams = GenerationConfig {
        num_beams: 3,
        no_repeat_ngram_size: 2,
        ..config()
    };
    let contrastive = GenerationConfig {
        penalty_alpha: Some(0.6),
        top_k: 4,
        ..config()
    };
    for config in [config(), beams, contrastive] {
        let together = generate(&model, config.clone(), &prompts());
        for (prompt, together) in prompts().iter().zip(&together) {
            let alone = generate(&model, config.clone(), std::slice::from_ref(prompt));
            assert_eq!(alone[0].tokens, together.tokens, "{config:?}");
        }
    }
}

#[test]
fn one_beam_is_greedy_and_one_group_is_beam_search() {
    let model = model(2, 60);
    // Contrastive search without contrast takes the likeliest.
    let contrastive = GenerationConfig {
        penalty_alpha: Some(0.0),
        top_k: 5,
        ..config()
    };
    assert_eq!(
        tokens(&generate(&model, config(), &prompts())),
        tokens(&generate(&model, contrastive, &prompts()))
    );
    // Groups that do not mind each other all do what one alone does; the best of all is the best of
    // one.
    let beams = GenerationConfig {
        num_beams: 3,
        ..config()
    };
    let groups = GenerationConfig {
        num_beams: 6,
        num_beam_groups: 2,
        ..config()
    };
    let (alone, grouped) = (
        generate(&model, beams, &prompts()),
        generate(&model, groups, &prompts()),
    );
    assert_eq!(tokens(&alone), tokens(&grouped));
    for (alone, grouped) in alone.iter().zip(&grouped) {
        assert!((alone.score.unwrap() - grouped.score.unwrap()).abs() < 1e-5);
    }
    // Groups that do, differ in their first tokens.
    let diverse = GenerationConfig {
        num_beams: 4,
        num_beam_groups: 4,
        diversity_penalty: 1e6,
        num_return_sequences: 4,
        ..config()
    };
    for four in generate(&model, diverse, &prompts()).chunks(4) {
        let mut first: Vec<u32> = four.iter().map(|text| text.new_tokens()[0]).collect();
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), 4, "{four:?}");
    }
}

/// The score of a text by the model alone: the sum of its new tokens' logarithms.
fn log_probability(model: &Gpt2, text: &GeneratedSequence) -> f64 {
    let flex = device("flex").unwrap();
    let all: Vec<i32> = text.tokens.iter().map(|token| *token as i32).collect();
    let logits = model.forward(Tensor::<2, Int>::from_data(
        TensorData::new(all.clone(), [1, all.len()]),
        &flex,
    ));
    let logits: Vec<f64> = logits.into_data().iter::<f64>().collect();
    let vocabulary = model.vocab_size();
    (text.prompt_len..all.len())
        .map(|at| {
            let row = &logits[(at - 1) * vocabulary..][..vocabulary];
            row[all[at] as usize] - row.iter().map(|logit| logit.exp()).sum::<f64>().ln()
        })
        .sum()
}

#[test]
fn enough_beams_find_the_likeliest_text() {
    // All texts of three tokens out of six, by hand.
    let model = model(3, 6);
    let config = GenerationConfig {
        max_new_tokens: Some(3),
        num_beams: 36,
        length_penalty: 0.0,
        early_stopping: EarlyStopping::Never,
        ..GenerationConfig::default()
    };
    let found = generate(&model, config, &[vec![1, 2]]);
    let text = |i: usize| GeneratedSequence {
        tokens: vec![1, 2, (i / 36) as u32, (i / 6 % 6) as u32, (i % 6) as u32],
        ..found[0].clone()
    };
    let best = (0..216)
        .map(text)
        .max_by(|a, b| log_probability(&model, a).total_cmp(&log_probability(&model, b)))
        .unwrap();
    assert_eq!(found[0].tokens, best.tokens);
    assert!((f64::from(found[0].score.unwrap()) - log_probability(&model, &best)).abs() < 1e-4);
    assert!(
        (f64::from(found[0].scores.iter().sum::<f32>()) - log_probability(&model, &best)).abs()
            < 1e-4
    );
}

#[test]
fn forced_words_are_present() {
    let model = model(4, 60);
    let forced = vec![
        WordConstraint::Phrasal(vec![11, 12, 13]),
        WordConstraint::Disjunctive(vec![vec![40, 41], vec![50]]),
    ];
    let config = GenerationConfig {
        num_beams: 4,
        force_words_ids: forced,
        num_return_sequences: 2,
        ..config()
    };
    let holds = |text: &[u32], words: &[u32]| text.windows(words.len()).any(|part| part == words);
    let found = generate(&model, config, &prompts());
    assert!(
        (3..=6).contains(&found.len())
            && (0..3).all(|item| found.iter().any(|text| text.prompt_index == item))
    );
    for text in &found {
        let new = text.new_tokens();
        assert!(
            holds(new, &[11, 12, 13]) && (holds(new, &[40, 41]) || holds(new, &[50])),
            "{text:?}"
        );
    }
    let tight = GenerationConfig {
        num_beams: 4,
        max_new_tokens: Some(2),
        force_words_ids: vec![WordConstraint::Phrasal(vec![11, 12, 13])],
        ..GenerationConfig::default()
    };
    let error = TextGenerator::new(&model, tight)
        .unwrap()
        .generate(&prompts())
        .unwrap_err();
    assert!(error.to_string().contains("force_words_ids"), "{error}");
}

#[test]
fn proposed_tokens_change_nothing() {
    let (model, other) = (model(5, 60), model(6, 60));
    for prompt in prompts() {
        let config = GenerationConfig {
            repetition_penalty: 1.2,
            max_new_tokens: Some(30),
            ..config()
        };
        let alone = generate(&model, config.clone(), std::slice::from_ref(&prompt));
        for (name, assistant) in [("another", &other), ("itself", &model)] {
            let generator = TextGenerator::new(
                &model,
                GenerationConfig {
                    num_assistant_tokens: 4,
                    ..config.clone()
                },
            )
            .unwrap();
            let assisted = generator
                .with_assistant_model(assistant)
                .unwrap()
                .generate(std::slice::from_ref(&prompt))
                .unwrap();
            assert_eq!(alone[0].tokens, assisted[0].tokens, "assisted by {name}");
            assert_eq!(alone[0].finish_reason, assisted[0].finish_reason);
        }
        let looked_up = GenerationConfig {
            prompt_lookup_num_tokens: Some(3),
            ..config
        };
        assert_eq!(
            tokens(&alone),
            tokens(&generate(&model, looked_up, std::slice::from_ref(&prompt)))
        );
    }
}

/// χ² of counts against probabilities, and how many classes it has.
fn chi_squared(
    counts: &HashMap<Vec<u32>, usize>,
    probability: impl Fn(&[u32]) -> f64,
    all: &[Vec<u32>],
    n: usize,
) -> (f64, usize) {
    let term = |text: &Vec<u32>| {
        let expected = probability(text) * n as f64;
        (expected > 5.0)
            .then(|| (*counts.get(text).unwrap_or(&0) as f64 - expected).powi(2) / expected)
    };
    let terms: Vec<f64> = all.iter().filter_map(term).collect();
    (terms.iter().sum(), terms.len())
}

#[test]
fn draws_have_the_model_s_probabilities() {
    let (model, assistant) = (model(7, 5), model(8, 5));
    let n = 4000;
    let prompt = vec![1, 3, 1];
    let pairs: Vec<Vec<u32>> = (0..25).map(|i| vec![i / 5, i % 5]).collect();
    let probability = |new: &[u32]| {
        let text = GeneratedSequence {
            prompt_index: 0,
            tokens: [&prompt[..], new].concat(),
            prompt_len: 3,
            score: None,
            scores: vec![],
            finish_reason: None,
        };
        log_probability(&model, &text).exp()
    };
    assert!((pairs.iter().map(|pair| probability(pair)).sum::<f64>() - 1.0).abs() < 1e-4);
    let config = GenerationConfig {
        do_sample: true,
        top_k: 0,
        max_new_tokens: Some(2),
        num_return_sequences: n,
        ..GenerationConfig::default()
    };
    let mut drawn: HashMap<Vec<u32>, usize> = HashMap::new();
    for text in TextGenerator::new(&model, config.clone())
        .unwrap()
        .seed(1)
        .generate(std::slice::from_ref(&prompt))
        .unwrap()
    {
        *drawn.entry(text.new_tokens().to_vec()).or_default() += 1;
    }
    // The 99.99th percentile of χ² with k − 1 degrees of freedom is below k + 4√(2k) + 12.
    let bound = |k: usize| k as f64 + 4.0 * (2.0 * k as f64).sqrt() + 12.0;
    let (chi, k) = chi_squared(&drawn, probability, &pairs, n);
    assert!(k > 5 && chi < bound(k), "drawn: χ² {chi} of {k}");
    // Proposed by a model that thinks otherwise, and corrected.
    let one = GenerationConfig {
        num_return_sequences: 1,
        num_assistant_tokens: 1,
        ..config
    };
    let several = GenerationConfig {
        num_assistant_tokens: 3,
        max_new_tokens: Some(3),
        ..one.clone()
    };
    let looked_up = GenerationConfig {
        prompt_lookup_num_tokens: Some(3),
        ..several.clone()
    };
    let triples: Vec<Vec<u32>> = (0..125).map(|i| vec![i / 25, i / 5 % 5, i % 5]).collect();
    for (name, config, is_assisted, all) in [
        ("assisted", one, true, &pairs),
        ("assisted with several tokens", several, true, &triples),
        ("looked up", looked_up, false, &triples),
    ] {
        let mut counts: HashMap<Vec<u32>, usize> = HashMap::new();
        for seed in 0..n as u64 {
            let mut generator = TextGenerator::new(&model, config.clone())
                .unwrap()
                .seed(seed);
            if is_assisted {
                generator = generator.with_assistant_model(&assistant).unwrap();
            }
            let text = generator.generate(std::slice::from_ref(&prompt)).unwrap();
            *counts.entry(text[0].new_tokens().to_vec()).or_default() += 1;
        }
        let (chi, k) = chi_squared(&counts, probability, all, n);
        assert!(k > 5 && chi < bound(k), "{name}: χ² {chi} of {k}");
    }
}

/// Ways to draw `count` of things without putting them back, by their weights: which, and with what
/// probability.
fn without_replacement(weights: &[f64], count: usize) -> Vec<(Vec<usize>, f64)> {
    if count == 0 {
        return vec![(vec![], 1.0)];
    }
    let total: f64 = weights.iter().sum();
    let mut ways = Vec::new();
    for (first, weight) in weights
        .iter()
        .enumerate()
        .filter(|(_, weight)| **weight > 0.0)
    {
        let mut left = weights.to_vec();
        left[first] = 0.0;
        for (others, probability) in without_replacement(&left, count - 1) {
            ways.push((
                [&[first], &others[..]].concat(),
                probability * weight / total,
            ));
        }
    }
    ways
}

#[test]
fn drawn_beams_have_the_probabilities_of_draws_without_replacement() {
    let model = model(10, 5);
    let (n, beams) = (8000, 2);
    let prompt = vec![1, 3];
    let of_model = |new: &[u32]| {
        let tokens = [&prompt[..], new].concat();
        let text = GeneratedSequence {
            prompt_index: 0,
            tokens,
            prompt_len: 2,
            score: None,
            scores: vec![],
            finish_reason: None,
        };
        log_probability(&model, &text).exp()
    };
    let texts = (0..5).flat_map(|a| (0..5).map(move |b| vec![a, b]).chain([vec![a]]));
    let probabilities: HashMap<Vec<u32>, f64> =
        texts.map(|new| (new.clone(), of_model(&new))).collect();
    let probability = |new: &[u32]| probabilities[new];
    // Twice as many candidates as beams are drawn of all beams together, of which the best go on.
    let best = |texts: &[Vec<u32>], drawn: &[usize]| {
        let mut drawn: Vec<Vec<u32>> = drawn.iter().map(|i| texts[*i].clone()).collect();
        drawn.sort_by(|a, b| probability(b).total_cmp(&probability(a)));
        drawn.truncate(beams);
        drawn.concat()
    };
    let outcomes = |texts: &[Vec<u32>]| {
        let weights: Vec<f64> = texts.iter().map(|text| probability(text)).collect();
        let mut sets: BTreeMap<Vec<usize>, f64> = BTreeMap::new();
        for (mut drawn, probability) in without_replacement(&weights, 2 * beams) {
            drawn.sort_unstable();
            *sets.entry(drawn).or_default() += probability;
        }
        let mut kept: BTreeMap<Vec<u32>, f64> = BTreeMap::new();
        for (drawn, probability) in sets {
            *kept.entry(best(texts, &drawn)).or_default() += probability;
        }
        kept
    };
    let mut expected: BTreeMap<Vec<u32>, f64> = BTreeMap::new();
    for (running, first) in outcomes(&(0..5).map(|token| vec![token]).collect::<Vec<_>>()) {
        let next: Vec<Vec<u32>> = running
            .iter()
            .flat_map(|beam| (0..5).map(|token| vec![*beam, token]))
            .collect();
        for (kept, second) in outcomes(&next) {
            *expected.entry(kept).or_default() += first * second;
        }
    }
    assert!((expected.values().sum::<f64>() - 1.0).abs() < 1e-4);
    let config = GenerationConfig {
        do_sample: true,
        top_k: 0,
        num_beams: beams,
        num_return_sequences: beams,
        max_new_tokens: Some(2),
        ..GenerationConfig::default()
    };
    let mut counts: HashMap<Vec<u32>, usize> = HashMap::new();
    let prompts = vec![prompt.clone(); 400];
    for seed in 0..(n / prompts.len()) as u64 {
        let texts = TextGenerator::new(&model, config.clone())
            .unwrap()
            .seed(seed)
            .generate(&prompts)
            .unwrap();
        for pair in texts.chunks_exact(beams) {
            let pair: Vec<u32> = pair
                .iter()
                .flat_map(|text| text.new_tokens())
                .copied()
                .collect();
            *counts.entry(pair).or_default() += 1;
        }
    }
    let all: Vec<Vec<u32>> = expected.keys().cloned().collect();
    let (chi, k) = chi_squared(&counts, |kept| expected[kept], &all, n);
    assert!(
        k > 5 && chi < k as f64 + 4.0 * (2.0 * k as f64).sqrt() + 12.0,
        "χ² {chi} of {k}"
    );
    assert!(counts.keys().all(|kept| expected.contains_key(kept)));
}

#[test]
fn streams_and_listeners_hear_what_is_generated() {
    let model = model(9, 60);
    let sampled = GenerationConfig {
        do_sample: true,
        temperature: 0.9,
        top_p: 0.9,
        ..config()
    };
    for config in [config(), sampled] {
        let prompt = &prompts()[0];
        let whole = TextGenerator::new(&model, config.clone())
            .unwrap()
            .seed(4)
            .generate(std::slice::from_ref(prompt))
            .unwrap();
        let stream = TextGenerator::new(&model, config.clone())
            .unwrap()
            .seed(4)
            .stream(prompt)
            .unwrap();
        assert_eq!(
            stream.collect::<Result<Vec<_>, _>>().unwrap(),
            whole[0].new_tokens()
        );
        let heard = RefCell::new(Vec::new());
        let generator = TextGenerator::new(&model, config).unwrap().seed(4);
        generator
            .with_streamer(|tokens| heard.borrow_mut().extend(tokens[0]))
            .unwrap()
            .generate(std::slice::from_ref(prompt))
            .unwrap();
        assert_eq!(heard.into_inner(), whole[0].new_tokens());
    }
    let beams = GenerationConfig {
        num_beams: 2,
        ..config()
    };
    assert!(
        TextGenerator::new(&model, beams.clone())
            .unwrap()
            .with_streamer(|_| ())
            .is_err()
    );
    assert!(
        TextGenerator::new(&model, beams)
            .unwrap()
            .stream(&[1])
            .is_err()
    );
}

#[test]
fn texts_end_when_they_should() {
    let model = model(10, 27);
    let letters = CharacterTokenizer::from_text("abcdefghijklmnopqrstuvwxyz ");
    let config = GenerationConfig {
        max_new_tokens: Some(40),
        ..GenerationConfig::default()
    };
    let prompt = letters.encode("so").unwrap();
    let long = generate(&model, config.clone(), std::slice::from_ref(&prompt));
    assert_eq!(long[0].finish_reason, Some(FinishReason::Length));
    let said = letters.decode(long[0].new_tokens());
    // The text ends with the first place where the string does.
    let stop = said[4..7].to_string();
    let expected = said.find(&stop).unwrap() + 3;
    let stopping = GenerationConfig {
        stop_strings: vec!["never said".into(), stop.clone()],
        ..config.clone()
    };
    let generator = TextGenerator::new(&model, stopping.clone())
        .unwrap()
        .tokenizer(&letters);
    let found = generator.generate(std::slice::from_ref(&prompt)).unwrap();
    assert_eq!(
        (
            found[0].finish_reason,
            letters.decode(found[0].new_tokens())
        ),
        (Some(FinishReason::StopString), said[..expected].to_string())
    );
    assert!(
        TextGenerator::new(&model, stopping)
            .unwrap()
            .generate(std::slice::from_ref(&prompt))
            .is_err(),
        "no tokenizer"
    );
    let flag = CancelToken::new();
    let raised = flag.clone();
    let generator = TextGenerator::new(&model, config.clone())
        .unwrap()
        .with_cancel(flag);
    let heard = RefCell::new(0);
    let generator = generator.with_streamer(|_| {
        *heard.borrow_mut() += 1;
        if *heard.borrow() == 3 {
            raised.cancel();
        }
    });
    let stopped = generator
        .unwrap()
        .generate(std::slice::from_ref(&prompt))
        .unwrap();
    assert_eq!(
        (stopped[0].finish_reason, stopped[0].new_tokens().len()),
        (Some(FinishReason::Cancelled), 4)
    );
    // The context ends a text that may be longer: nothing follows the last token, which needs no
    // place.
    let endless = GenerationConfig {
        max_new_tokens: Some(1000),
        ..config
    };
    assert_eq!(
        generate(&model, endless, std::slice::from_ref(&prompt))[0]
            .tokens
            .len(),
        model.max_position_embeddings() + 1
    );
}

#[test]
fn a_user_s_own_processors_have_their_say() {
    let model = model(11, 60);
    let even = TextGenerator::new(&model, config())
        .unwrap()
        .with_prefix_allowed_tokens_fn(|row: GenerationState<'_>| {
            (0..60)
                .filter(|token| token % 2 == row.new_tokens() as u32 % 2)
                .collect()
        });
    let text = even.generate(&prompts()).unwrap();
    for text in &text {
        assert!(
            text.new_tokens()
                .iter()
                .enumerate()
                .all(|(i, token)| token % 2 == i as u32 % 2),
            "{text:?}"
        );
    }
    let nothing = TextGenerator::new(&model, config())
        .unwrap()
        .with_prefix_allowed_tokens_fn(|_: GenerationState<'_>| vec![]);
    assert!(nothing.generate(&prompts()).is_err());
}

/// Through a cache in any pieces, with rows taken over from others, as without one.
#[test]
fn a_cache_changes_nothing() {
    let (model, flex) = (model(12, 60), device("flex").unwrap());
    let ids = |rows: &[&[u32]]| {
        let all: Vec<i32> = rows
            .concat()
            .into_iter()
            .map(|token| token as i32)
            .collect();
        Tensor::<2, Int>::from_data(TensorData::new(all, [rows.len(), rows[0].len()]), &flex)
    };
    let last = |logits: Tensor<3>| -> Vec<f32> {
        let [_, time, _] = logits.dims();
        logits
            .narrow(1, time - 1, 1)
            .into_data()
            .iter::<f32>()
            .collect()
    };
    // One row becomes three, which go on and are reordered; room for them is made on the way.
    let mut cache: KvCache = model.new_cache(1, 1);
    model.logits(ids(&[&[5, 6, 7]]), &mut cache);
    cache.repeat_interleave(3);
    let mut texts = vec![vec![5, 6, 7]; 3];
    let mut rng = Rng::new(1);
    for step in 0..20 {
        let next: Vec<u32> = (0..3).map(|_| rng.random_index(60) as u32).collect();
        texts
            .iter_mut()
            .zip(&next)
            .for_each(|(text, token)| text.push(*token));
        let rows: Vec<&[u32]> = next.chunks(1).collect();
        let found = last(model.logits(ids(&rows), &mut cache));
        let whole: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let expected = last(model.forward(ids(&whole)));
        let worst = found
            .iter()
            .zip(&expected)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(worst < 1e-3, "step {step}: {worst}");
        let parents: Vec<usize> = (0..3).map(|_| rng.random_index(3)).collect();
        cache.reorder(&parents);
        texts = parents
            .iter()
            .map(|parent| texts[*parent].clone())
            .collect();
        if step == 10 {
            cache.crop(6);
            texts.iter_mut().for_each(|text| text.truncate(6));
        }
    }
}

#[test]
fn perplexity_is_that_of_the_formula() {
    let model = model(13, 60);
    let mut rng = Rng::new(2);
    let tokens: Vec<u32> = (0..130).map(|_| rng.random_index(60) as u32).collect();
    let score = |from: usize, to: usize, first: usize| {
        let text = GeneratedSequence {
            prompt_index: 0,
            tokens: tokens[from..to].to_vec(),
            prompt_len: first - from,
            score: None,
            scores: vec![],
            finish_reason: None,
        };
        -log_probability(&model, &text)
    };
    // Windows of 48, 20 tokens apart: 1 to 48, then what each adds.
    let mut expected = score(0, 48, 1);
    for (from, to) in [(20, 68), (40, 88), (60, 108), (80, 128), (100, 130)] {
        expected += score(from, to, to.min(130) - if to == 130 { 2 } else { 20 });
    }
    let found = perplexity(&model, &tokens, 20).unwrap();
    assert_eq!(found.token_nll.len(), 129);
    assert!(
        (found.loss() - expected / 129.0).abs() < 1e-4,
        "{} {}",
        found.loss(),
        expected / 129.0
    );
    assert!((found.perplexity() - (expected / 129.0).exp()).abs() < 0.1);
    // As far apart as they are long: the first token of each is foretold by nothing, and does not
    // count.
    let apart = perplexity(&model, &tokens, 48).unwrap();
    let expected = score(0, 48, 1) + score(48, 96, 49) + score(96, 130, 97);
    assert_eq!(apart.token_nll.len(), 127);
    assert!((apart.loss() - expected / 127.0).abs() < 1e-4);
}

#[test]
fn windows_are_the_tokens_of_the_text() {
    let folder = tempfile::tempdir().unwrap();
    let text = "the cat sat\non the mat\n\nwithout an end";
    let tokenizer = CharacterTokenizer::from_text(text);
    let (from, to) = (
        folder.path().join("text.txt"),
        folder.path().join("text.tokens"),
    );
    std::fs::write(&from, text).unwrap();
    let mut told = 0;
    let count = tokenize_file(&from, &tokenizer, &to, |bytes| told = bytes).unwrap();
    assert_eq!((count, told), (text.len(), text.len() as u64));
    let all = tokenizer.encode(text).unwrap();
    for stride in [1, 3, 7] {
        let (file, memory) = (
            TokenDataset::open(&to, 6, stride).unwrap(),
            TokenDataset::new(all.clone(), 6, stride).unwrap(),
        );
        assert_eq!(
            (file.len(), file.len()),
            (memory.len(), (all.len() - 7) / stride + 1)
        );
        for i in 0..file.len() {
            assert_eq!(file.get(i).unwrap(), memory.get(i).unwrap());
            assert_eq!(file.get(i).unwrap(), all[i * stride..][..7]);
        }
    }
    let whole = std::fs::read(&to).unwrap();
    for (bytes, what) in [
        (&whole[..10], "truncated"),
        (&whole[..whole.len() - 1], "truncated"),
        (b"something else, longer", "not a file of tokens"),
    ] {
        std::fs::write(&to, bytes).unwrap();
        let error = TokenDataset::open(&to, 6, 1).unwrap_err().to_string();
        assert!(
            error.contains(what) && error.contains("text.tokens"),
            "{error}"
        );
    }
    // A line of three mebibytes comes in parts, and no part cuts a character.
    let long = format!("short\n{}\nend", "\u{1f600}é".repeat(500_000));
    std::fs::write(&from, &long).unwrap();
    let pieces: Vec<String> = read_lines(&from).unwrap().map(Result::unwrap).collect();
    assert_eq!(pieces.concat(), long);
    assert!(
        pieces.len() == 5
            && pieces[0] == "short\n"
            && pieces.iter().all(|piece| piece.len() <= (1 << 20) + 4)
    );
    std::fs::write(&from, [long.as_bytes(), b"\xf0\x9f"].concat()).unwrap();
    let cut = read_lines(&from)
        .unwrap()
        .find_map(Result::err)
        .expect("an error")
        .to_string();
    assert!(cut.contains(&format!("byte {}", long.len())), "{cut}");
    std::fs::write(&from, b"good\nbad \xff\n").unwrap();
    let error = tokenize_file(
        &from,
        &CharacterTokenizer::from_text("god\nba "),
        &to,
        |_| (),
    )
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("text.txt") && error.contains("byte 9"),
        "{error}"
    );
    assert!(
        TokenDataset::new(vec![1, 2, 3], 3, 1).is_err()
            && TokenDataset::new(vec![1, 2, 3], 2, 0).is_err()
    );
}

#[test]
fn mistakes_are_told_at_the_door() {
    let model = model(14, 60);
    let wrong = |config: GenerationConfig, prompts: &[Vec<u32>]| -> String {
        let error = TextGenerator::new(&model, config)
            .and_then(|generator| generator.generate(prompts))
            .unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{error:?}");
        error.to_string()
    };
    let base = GenerationConfig::default;
    let one = [vec![1, 2, 3]];
    for (config, field) in [
        (
            GenerationConfig {
                temperature: 0.0,
                do_sample: true,
                ..base()
            },
            "temperature",
        ),
        (
            GenerationConfig {
                top_p: 0.0,
                ..base()
            },
            "top_p",
        ),
        (
            GenerationConfig {
                min_p: Some(2.0),
                ..base()
            },
            "min_p",
        ),
        (
            GenerationConfig {
                num_beams: 0,
                ..base()
            },
            "num_beams",
        ),
        (
            GenerationConfig {
                max_new_tokens: Some(0),
                ..base()
            },
            "max_new_tokens",
        ),
        (
            GenerationConfig {
                min_length: 30,
                max_length: Some(20),
                ..base()
            },
            "min_length",
        ),
        (
            GenerationConfig {
                min_new_tokens: Some(9),
                max_new_tokens: Some(8),
                ..base()
            },
            "min_new_tokens",
        ),
        (
            GenerationConfig {
                num_return_sequences: 2,
                ..base()
            },
            "num_return_sequences",
        ),
        (
            GenerationConfig {
                num_return_sequences: 4,
                num_beams: 3,
                ..base()
            },
            "num_return_sequences",
        ),
        (
            GenerationConfig {
                num_beams: 4,
                num_beam_groups: 3,
                ..base()
            },
            "num_beam_groups",
        ),
        (
            GenerationConfig {
                diversity_penalty: 1.0,
                ..base()
            },
            "diversity_penalty",
        ),
        (
            GenerationConfig {
                penalty_alpha: Some(0.5),
                do_sample: true,
                ..base()
            },
            "penalty_alpha",
        ),
        (
            GenerationConfig {
                force_words_ids: vec![WordConstraint::Phrasal(vec![1])],
                ..base()
            },
            "num_beams",
        ),
        (
            GenerationConfig {
                bad_words_ids: vec![vec![]],
                ..base()
            },
            "bad_words_ids",
        ),
        (
            GenerationConfig {
                suppress_tokens: vec![60],
                ..base()
            },
            "suppress_tokens",
        ),
        (
            GenerationConfig {
                exponential_decay_length_penalty: Some((1, 1.1)),
                ..base()
            },
            "eos_token_id",
        ),
        (
            GenerationConfig {
                stop_strings: vec![String::new()],
                ..base()
            },
            "stop_strings",
        ),
        (
            GenerationConfig {
                suppress_tokens: (0..60).collect(),
                do_sample: true,
                ..base()
            },
            "scores",
        ),
        (
            GenerationConfig {
                max_length: Some(3),
                ..base()
            },
            "prompt",
        ),
        (
            GenerationConfig {
                suppress_tokens: (0..60).collect(),
                ..base()
            },
            "scores",
        ),
        (
            GenerationConfig {
                suppress_tokens: (0..60).collect(),
                prompt_lookup_num_tokens: Some(2),
                ..base()
            },
            "scores",
        ),
        (
            GenerationConfig {
                num_beams: 1_000_000_000_000,
                ..base()
            },
            "num_beams",
        ),
        (
            GenerationConfig {
                penalty_alpha: Some(0.5),
                top_k: usize::MAX,
                ..base()
            },
            "top_k",
        ),
        (
            GenerationConfig {
                min_length: 24,
                ..base()
            },
            "min_length",
        ),
        (
            GenerationConfig {
                min_length: 60,
                max_new_tokens: Some(usize::MAX),
                ..base()
            },
            "min_length",
        ),
        (
            GenerationConfig {
                min_new_tokens: Some(18),
                max_length: Some(20),
                ..base()
            },
            "min_new_tokens",
        ),
    ] {
        let error = wrong(config, &one);
        assert!(error.contains(&format!("`{field}`")), "{field}: {error}");
    }
    for (prompts, says) in [
        (vec![vec![]], "empty"),
        (vec![vec![1; 49]], "context"),
        (vec![vec![1], vec![60]], "prompts[1]"),
    ] {
        let error = wrong(base(), &prompts);
        assert!(error.contains(says), "{says}: {error}");
    }
    let contrastive = GenerationConfig {
        penalty_alpha: Some(0.6),
        top_k: 4,
        ..base()
    };
    assert!(wrong(contrastive, &[vec![1; 48]]).contains("context"));
    // The last token is foretold from a full context; it needs no place of its own.
    let full = generate(&model, base(), &[vec![1; 48]]);
    assert_eq!(
        (full[0].tokens.len(), full[0].finish_reason),
        (49, Some(FinishReason::Length))
    );
    let proposed = GenerationConfig {
        prompt_lookup_num_tokens: Some(3),
        ..base()
    };
    let stream = TextGenerator::new(&model, proposed.clone())
        .unwrap()
        .stream(&[1, 2])
        .err()
        .expect("an error");
    assert!(stream.to_string().contains("prompt lookup"), "{stream}");
    let both = TextGenerator::new(&model, proposed)
        .unwrap()
        .with_assistant_model(&model)
        .unwrap()
        .generate(&one)
        .unwrap_err();
    assert!(
        both.to_string().contains("`prompt_lookup_num_tokens`"),
        "{both}"
    );
    assert_eq!(generate(&model, base(), &[]), vec![]);
    let begins = GenerationConfig {
        bos_token_id: Some(5),
        max_new_tokens: Some(2),
        ..base()
    };
    assert_eq!(generate(&model, begins, &[vec![]])[0].tokens[0], 5);
    let other = self::model(1, 61);
    assert!(
        TextGenerator::new(&model, base())
            .unwrap()
            .with_assistant_model(&other)
            .is_err()
    );
    assert!(perplexity(&model, &[1], 4).is_err() && perplexity(&model, &[1, 60], 4).is_err());
    let (batch, flex) = (
        TokenBatch::collate(vec![vec![1; 50]]),
        device("flex").unwrap(),
    );
    assert!(
        aigc_text::next_token_loss(&model, &batch, &flex)
            .unwrap_err()
            .to_string()
            .contains("context")
    );
    for (json, says) in [
        ("[]", "object"),
        (r#"{"num_beams": "three"}"#, "num_beams"),
        (r#"{"early_stopping": "maybe"}"#, "early_stopping"),
    ] {
        assert!(
            GenerationConfig::from_json(json)
                .unwrap_err()
                .to_string()
                .contains(says),
            "{json}"
        );
    }
    let (read, ignored) =
        GenerationConfig::from_json(r#"{"top_k": null, "eos_token_id": [1, 2], "new_thing": 1}"#)
            .unwrap();
    assert_eq!(
        (read.top_k, read.eos_token_ids(), ignored),
        (50, vec![1, 2], vec!["new_thing".to_string()])
    );
}

/// Options that no fixture has, each by what its formula says.
#[test]
fn options_do_what_they_say() {
    let model = model(21, 60);
    let (prompt, base) = (vec![vec![7, 8, 7]], GenerationConfig::default);
    let greedy = generate(
        &model,
        GenerationConfig {
            output_scores: true,
            ..base()
        },
        &prompt,
    );
    let text = &greedy[0];
    assert_eq!(
        (
            text.new_tokens().len(),
            text.scores.len(),
            text.finish_reason
        ),
        (20, 20, Some(FinishReason::Length))
    );
    let sum: f64 = text.scores.iter().map(|score| f64::from(*score)).sum();
    assert!((sum - log_probability(&model, text)).abs() < 1e-3, "{sum}");

    // Time that is up ends a text at its first token; more time than there is, never.
    let ends = |seconds: f64| {
        let texts = generate(
            &model,
            GenerationConfig {
                max_time: Some(seconds),
                ..base()
            },
            &prompt,
        );
        (texts[0].new_tokens().len(), texts[0].finish_reason.unwrap())
    };
    assert_eq!(ends(1e-9), (1, FinishReason::MaxTime));
    assert_eq!(ends(1e300), (20, FinishReason::Length));

    let forced = GenerationConfig {
        forced_bos_token_id: Some(9),
        max_new_tokens: Some(3),
        ..base()
    };
    assert_eq!(generate(&model, forced.clone(), &[vec![5]])[0].tokens[1], 9);
    assert_eq!(
        generate(&model, forced, &prompt),
        generate(
            &model,
            GenerationConfig {
                max_new_tokens: Some(3),
                ..base()
            },
            &prompt
        )
    );
    let first = text.new_tokens()[0];
    let begins = GenerationConfig {
        begin_suppress_tokens: vec![first],
        max_new_tokens: Some(1),
        ..base()
    };
    assert_ne!(generate(&model, begins, &prompt)[0].new_tokens()[0], first);

    // What the best would end with at once goes on for as long as it must.
    let eos = Some(TokenIds::One(first));
    assert_eq!(
        generate(
            &model,
            GenerationConfig {
                eos_token_id: eos.clone(),
                ..base()
            },
            &prompt
        )[0]
        .new_tokens(),
        [first]
    );
    for (least, new) in [
        (
            GenerationConfig {
                min_length: 9,
                ..base()
            },
            6,
        ),
        (
            GenerationConfig {
                min_new_tokens: Some(6),
                ..base()
            },
            6,
        ),
    ] {
        let config = GenerationConfig {
            eos_token_id: eos.clone(),
            ..least
        };
        let text = &generate(&model, config, &prompt)[0];
        assert!(
            text.new_tokens().len() > new && !text.new_tokens()[..new].contains(&first),
            "{text:?}"
        );
    }

    // A forced end comes though it is not allowed.
    let ended = GenerationConfig {
        forced_eos_token_id: Some(TokenIds::One(4)),
        max_new_tokens: Some(5),
        ..base()
    };
    let texts = TextGenerator::new(&model, ended)
        .unwrap()
        .with_prefix_allowed_tokens_fn(|_| vec![11, 12])
        .generate(&prompt)
        .unwrap();
    let (last, others) = texts[0].new_tokens().split_last().unwrap();
    assert!(
        *last == 4 && others.iter().all(|token| [11, 12].contains(token)),
        "{texts:?}"
    );

    // Penalties of what has been generated, not of the prompt: once for coming at all, and each
    // time.
    let tokens = [7, 8, 3, 3, 5];
    let row = GenerationState {
        tokens: &tokens,
        prompt_len: 2,
        prompt_index: 0,
        padding: 0,
    };
    let mut scores = vec![1.0; 9];
    FrequencyPenalty {
        frequency: 0.5,
        presence: 0.25,
    }
    .process(row, &mut scores)
    .unwrap();
    assert_eq!(scores, [1.0, 1.0, 1.0, -0.25, 1.0, 0.25, 1.0, 1.0, 1.0]);
}

/// A step with weight decay moves vectors as one without; matrices are drawn to zero by as much as
/// it says.
#[test]
fn weight_decay_is_on_matrices_alone() {
    struct Numbers(BTreeMap<String, (usize, Vec<f32>)>);
    impl ParamVisitor for Numbers {
        fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
            self.0
                .insert(path.into(), (D, param.val().into_data().iter().collect()));
        }
    }
    let numbers = |model: &Gpt2| {
        let mut numbers = Numbers(BTreeMap::new());
        visit_params(model, &mut numbers);
        numbers.0
    };
    let (rate, decay) = (0.01, 0.5);
    let begun = model(3, 60);
    let step = |decay: f64| {
        let folder = tempfile::tempdir().unwrap();
        let optimizer = OptimizerConfig::adam_w(0.9, 0.99, decay);
        let groups = vec![ParamGroupConfig::no_weight_decay_for_1d(&optimizer)];
        let config = TrainerConfig {
            learning_rate: rate,
            optimizer,
            param_groups: groups,
            ..TrainerConfig::new(1)
        };
        let tokens = (0..40u32).map(|at| at * at % 60).collect();
        let windows = TokenDataset::new(tokens, 12, 1).unwrap();
        let loader =
            DataLoader::new(windows, TokenBatch::collate, DataLoaderConfig::default()).unwrap();
        let run = RunDir::create(folder.path().join("run")).unwrap();
        numbers(
            &Trainer::new(config)
                .fit(CausalLmObjective::new(), begun.clone(), &loader, &run)
                .unwrap()
                .model,
        )
    };
    let (with, without, before) = (step(decay), step(0.0), numbers(&begun));
    for (path, (axes, with)) in &with {
        let ((_, without), (_, before)) = (&without[path], &before[path]);
        for ((with, without), before) in with.iter().zip(without).zip(before) {
            let drawn = if *axes == 1 {
                0.0
            } else {
                (rate * decay) as f32 * before
            };
            assert!(
                (without - with - drawn).abs() < 1e-6,
                "{path}: {with}, {without} without decay"
            );
        }
    }
}

/// Texts of any characters, some of several bytes, some that come many times; and of bytes that
/// have nothing to do with text.
fn any_text(rng: &mut Rng) -> String {
    if rng.random_index(8) == 0 {
        let bytes: Vec<u8> = (0..rng.random_index(100))
            .map(|_| rng.random_index(256) as u8)
            .collect();
        return String::from_utf8_lossy(&bytes).into_owned();
    }
    let ranges = [
        (0x20, 0x7e),
        (0xa0, 0x2ff),
        (0x4e00, 0x9fff),
        (0x1f300, 0x1faff),
        (0, 0x1f),
        (0x300, 0x36f),
        (0x590, 0x6ff),
        (0x2000, 0x206f),
        (0xd7f0, 0xe010),
        (0xfff0, 0x10010),
        (0, 0x10ffff),
    ];
    let n = rng.random_index(40);
    let text: String = (0..n)
        .filter_map(|_| {
            let (low, high) = ranges[rng.random_index(ranges.len())];
            char::from_u32((low + rng.random_index(high - low + 1)) as u32)
        })
        .collect();
    text.repeat(if rng.random_index(10) == 0 {
        rng.random_index(200)
    } else {
        1
    })
}

#[test]
fn any_text_comes_back_from_its_tokens() {
    let mut rng = Rng::new(3);
    let corpus: Vec<String> = (0..200).map(|_| any_text(&mut rng)).collect();
    let trained = BpeTokenizer::train(corpus.iter(), 400).unwrap();
    assert!(
        trained.vocab_size() > 257 && trained.vocab_size() <= 400,
        "{}",
        trained.vocab_size()
    );
    assert!(BpeTokenizer::train(corpus.iter(), 256).is_err());
    let folder = tempfile::tempdir().unwrap();
    trained.save(folder.path()).unwrap();
    let opened = BpeTokenizer::open(folder.path()).unwrap();
    let gpt2 = gpt2_tokenizer();
    let special = [
        "<|endoftext|>",
        "a <|endoftext|>b<|endoftext|",
        "<|endoftext|><|endoftext|>",
    ]
    .map(String::from);
    for text in special
        .into_iter()
        .chain((0..1000).map(|_| any_text(&mut rng)))
    {
        let tokens = trained.encode(&text).unwrap();
        assert_eq!(tokens, opened.encode(&text).unwrap());
        for tokenizer in [&trained, &opened].into_iter().chain(&gpt2) {
            let tokens = tokenizer.encode(&text).unwrap();
            assert_eq!(tokenizer.decode(&tokens), text);
            let mut stream = DecodeStream::new(tokenizer);
            let pieces: String = tokens.iter().map(|token| stream.step(*token)).collect();
            assert_eq!(pieces + &stream.finish(), text);
        }
    }
}

#[test]
fn gpt2_s_tokens_are_openai_s() {
    let Some(tokenizer) = gpt2_tokenizer() else {
        return;
    };
    assert_eq!(tokenizer.vocab_size(), 50_257);
    assert_eq!(tokenizer.eos_token_id(), Some(50_256));
    assert_eq!(tokenizer.encode("Hello world").unwrap(), [15_496, 995]);
    assert_eq!(tokenizer.encode("<|endoftext|>").unwrap(), [50_256]);
    // The ranks of the public vocabulary: every token's bytes.
    let ranks = folder_from("AIGC_DATA")
        .unwrap()
        .join("gpt2-tokenizer/r50k_base.tiktoken");
    let text = std::fs::read_to_string(ranks).unwrap();
    let mut count = 0;
    for line in text.lines() {
        let (bytes, rank) = line.split_once(' ').unwrap();
        assert_eq!(
            tokenizer.token_bytes(rank.parse().unwrap()),
            BASE64_STANDARD.decode(bytes).unwrap(),
            "{line}"
        );
        count += 1;
    }
    assert_eq!(count, 50_256);
}

/// SHA-256 of tokens, four bytes each.
fn digest(tokens: &[u32]) -> String {
    let bytes: Vec<u8> = tokens
        .iter()
        .flat_map(|token| token.to_le_bytes())
        .collect();
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Whole corpora, every character there is, and awkward texts (`tests/reference/gpt2_tokens.py`).
#[test]
fn gpt2_s_tokens_are_those_of_tiktoken_and_transformers() {
    let Some(tokenizer) = gpt2_tokenizer() else {
        return;
    };
    let json = std::fs::read(own_fixtures().join("text/gpt2-tokens.json")).unwrap();
    let expected: Value = serde_json::from_slice(&json).unwrap();
    let object = |name: &str| expected[name].as_object().unwrap();
    let encode = |text: &str| tokenizer.encode(text).unwrap();

    let texts = object("texts");
    assert!(texts.len() > 120, "{}", texts.len());
    for (text, tokens) in texts {
        let found: Vec<String> = encode(text).iter().map(u32::to_string).collect();
        assert_eq!(found.join(" "), tokens.as_str().unwrap(), "{text:?}");
    }
    let runs = expected["runs"].as_array().unwrap();
    assert!(runs.len() > 80, "{}", runs.len());
    for run in runs {
        let tokens = encode(
            &run["text"]
                .as_str()
                .unwrap()
                .repeat(run["times"].as_u64().unwrap() as usize),
        );
        assert_eq!(
            (run["tokens"].clone(), run["digest"].clone()),
            (tokens.len().into(), digest(&tokens).into()),
            "{run}"
        );
    }
    let planes = expected["planes"].as_array().unwrap();
    assert_eq!(planes.len(), 17);
    for (plane, expected) in planes.iter().enumerate() {
        let characters = (0..0x10000).filter_map(|at| char::from_u32((plane << 16 | at) as u32));
        let tokens: Vec<u32> = characters
            .flat_map(|c| encode(&format!("a{c}1{c}{c} {c}'s{c} \n")))
            .collect();
        assert_eq!(
            &digest(&tokens),
            expected.as_str().unwrap(),
            "characters from {plane:x}0000 on"
        );
    }
    let data = folder_from("AIGC_DATA").unwrap();
    assert_eq!(object("files").len(), 5);
    for (name, expected) in object("files") {
        let Ok(text) = std::fs::read_to_string(data.join(name)) else {
            skip(&format!("AIGC_DATA has no {name}"));
            continue;
        };
        let lines: Vec<Vec<u32>> = text.split_inclusive('\n').map(encode).collect();
        let marked: Vec<u32> = lines
            .iter()
            .flat_map(|line| line.iter().copied().chain([u32::MAX]))
            .collect();
        let whole = encode(&text);
        let found = serde_json::json!({
            "lines": lines.len(), "tokens_of_lines": marked.len() - lines.len(), "digest_of_lines": digest(&marked),
            "tokens": whole.len(), "digest": digest(&whole),
        });
        assert_eq!(&found, expected, "{name}");
        println!("{name}: {} lines, {} tokens", lines.len(), whole.len());
    }
}

/// Moves every number of a model: biases and norms are to be seen, too.
struct Moved(Rng);

impl ModuleMapper for Moved {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            let noise = self.0.normal(tensor.dims(), &tensor.device());
            tensor + noise * 0.1
        })
    }
}

/// transformers finds every tensor of what is saved here, computes the same logits, and goes on
/// with the same tokens.
#[test]
fn transformers_opens_what_is_saved() {
    let Some(python) = python_with("transformers, torch, safetensors") else {
        return;
    };
    let (folder, flex) = (tempfile::tempdir().unwrap(), device("flex").unwrap());
    let tied = model(1, 60).config().clone();
    let nano = Gpt2Config {
        initializer_range: 0.4,
        ..Gpt2Config::nano(60, 48, [2, 4, 32])
    };
    let untied = Gpt2Config {
        tie_word_embeddings: false,
        ..tied.clone()
    };
    let other = Gpt2Config {
        n_inner: Some(40),
        activation_function: ActivationName::Relu,
        layer_norm_epsilon: 1e-3,
        scale_attn_weights: false,
        scale_attn_by_inverse_layer_idx: true,
        bos_token_id: Some(1),
        eos_token_id: Some(TokenIds::One(2)),
        pad_token_id: Some(3),
        ..untied.clone()
    };
    let mut cases = BTreeMap::from([
        ("tied", tied),
        ("nano", nano),
        ("untied", untied),
        ("other", other),
    ]);
    let mut rng = Rng::new(8);
    for (name, config) in &cases {
        let model = config
            .init(&flex)
            .unwrap()
            .init_weights(rng.random_index(1000) as u64)
            .map(&mut Moved(Rng::new(1)));
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        model.save(&path).unwrap();
        let prompts: Vec<Vec<u32>> = (0..3)
            .map(|_| (0..9).map(|_| rng.random_index(60) as u32).collect())
            .collect();
        let rows = |rows: Vec<Vec<u32>>| -> Vec<i64> {
            rows.concat().into_iter().map(i64::from).collect()
        };
        let ids = rows(prompts.clone());
        let logits = model.forward(Tensor::<2, Int>::from_data(
            TensorData::new(ids.clone(), [3, 9]),
            &flex,
        ));
        let config = GenerationConfig {
            max_new_tokens: Some(39),
            ..GenerationConfig::default()
        };
        let greedy = rows(tokens(&generate(&model, config, &prompts)));
        let said = [
            ("tokens", integers(&ids, &[3, 9])),
            ("logits", floats(&logits)),
            ("greedy", integers(&greedy, &[3, 48])),
        ];
        write_case(&path, &said);
    }
    let text = run_script(&python, "gpt2_saved.py", folder.path());
    println!("{text}");
    for line in text.lines() {
        let (name, apart) = line.split_once(' ').unwrap();
        assert!(
            cases.remove(name).is_some() && apart.parse::<f64>().unwrap() < 1e-4,
            "{line}"
        );
    }
    assert!(cases.is_empty(), "nothing is said of {:?}", cases.keys());
}

/// What nanoGPT's `train.py` leaves, of a compiled model: weights beside the optimizer's,
/// `[out, in]`, under longer names.
#[test]
fn checkpoints_of_nanogpt_open() {
    let Some(python) = python_with("torch, safetensors") else {
        return;
    };
    let (folder, flex) = (tempfile::tempdir().unwrap(), device("flex").unwrap());
    let config = Gpt2Config {
        initializer_range: 0.4,
        ..Gpt2Config::nano(60, 48, [2, 4, 32])
    };
    let model = config
        .init(&flex)
        .unwrap()
        .init_weights(5)
        .map(&mut Moved(Rng::new(1)));
    model.save(folder.path()).unwrap();
    run_script(&python, "nanogpt_checkpoint.py", folder.path());
    let opened = Gpt2::open_weights(config, folder.path().join("ckpt.pt"), &flex).unwrap();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(vec![3, 14, 15, 9], [1, 4]), &flex);
    opened
        .forward(tokens.clone())
        .into_data()
        .assert_eq(&model.forward(tokens).into_data(), true);
}

#[test]
fn broken_tokenizers_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let says = |path: &Path| {
        aigc_text::tokenizer::from_pretrained(path)
            .err()
            .expect("an error")
            .to_string()
    };
    assert!(says(folder.path()).contains("tokenizer.json"));
    std::fs::write(folder.path().join("vocab.json"), "{").unwrap();
    std::fs::write(folder.path().join("merges.txt"), "#version\na b\n").unwrap();
    assert!(says(folder.path()).contains("vocab.json"));
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    assert!(says(folder.path()).contains("tokenizer.json"));
    std::fs::write(folder.path().join("characters.json"), "\"abca\"").unwrap();
    assert!(says(folder.path()).contains("characters.json"));
    let letters = CharacterTokenizer::from_text("hello");
    assert!(
        letters
            .encode("hex")
            .unwrap_err()
            .to_string()
            .contains("'x'")
    );
    letters.save(folder.path()).unwrap();
    assert_eq!(CharacterTokenizer::open(folder.path()).unwrap(), letters);
}

#[test]
fn few_bits_say_nearly_the_same() {
    let model = model(5, 300);
    let ids = Tensor::<2, Int>::from_data(
        TensorData::from([[3, 1, 4, 1, 5, 9, 2, 6, 27, 18]]),
        &device("flex").unwrap(),
    );
    let floats = |logits: Tensor<3>| logits.into_data().try_into_vec::<f32>().unwrap();
    let exact = floats(model.forward(ids.clone()));
    let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let mut errors = Vec::new();
    for quantization in [Quantization::Int8, Quantization::Int4] {
        let packed = model.clone().quantize(quantization);
        let near = floats(packed.forward(ids.clone()));
        let difference: Vec<f32> = exact.iter().zip(&near).map(|(a, b)| a - b).collect();
        errors.push(norm(&difference) / norm(&exact));
        // Token by token it is the same model, though other products are taken.
        let mut cache = packed.new_cache(1, 10);
        let parts = (0..10)
            .map(|at| packed.logits(ids.clone().narrow(1, at, 1), &mut cache))
            .collect();
        let steps = floats(Tensor::cat(parts, 1));
        assert!(
            near.iter().zip(&steps).all(|(a, b)| (a - b).abs() < 2e-3),
            "{quantization:?}"
        );
        // Packing twice changes nothing; files hold whole weights only.
        assert_eq!(
            floats(packed.clone().quantize(quantization).forward(ids.clone())),
            near
        );
        let folder = tempfile::tempdir().unwrap();
        let error = packed.save(folder.path()).unwrap_err().to_string();
        assert!(error.contains("before it is quantized"), "{error}");
        assert!(!folder.path().join("config.json").exists());
    }
    // Half a step of 127 is 0.4 % of a block's largest number, of 7 it is 7 %; layers add up.
    assert!(
        errors[0] < 0.05 && errors[1] < 0.6 && errors[1] > 4.0 * errors[0],
        "{errors:?}"
    );
    println!(
        "relative errors of the logits: int8 {:.4}, int4 {:.4}",
        errors[0], errors[1]
    );
}
