//! Ways to generate that must agree with each other, and distributions that are known.

use super::*;

#[test]
fn batch_elements_match_single_prompts() {
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

#[test]
fn beam_search_finds_the_likeliest_sequence() {
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
fn assisted_generation_matches_plain() {
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
fn samples_have_the_model_probabilities() {
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
        .with_seed(1)
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
                .with_seed(seed);
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
fn sampled_beams_match_draws_without_replacement() {
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
            .with_seed(seed)
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
fn streams_match_generate() {
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
            .with_seed(4)
            .generate(std::slice::from_ref(prompt))
            .unwrap();
        let stream = TextGenerator::new(&model, config.clone())
            .unwrap()
            .with_seed(4)
            .stream(prompt)
            .unwrap();
        assert_eq!(
            stream.collect::<Result<Vec<_>, _>>().unwrap(),
            whole[0].new_tokens()
        );
        let heard = RefCell::new(Vec::new());
        let generator = TextGenerator::new(&model, config).unwrap().with_seed(4);
        generator
            .with_streamer(|tokens| heard.borrow_mut().extend(tokens[0]))
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
            .generate(&[vec![1]])
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
fn stopping_conditions_end_sequences() {
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
        .with_tokenizer(&letters);
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
    let stopped = generator.generate(std::slice::from_ref(&prompt)).unwrap();
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
fn custom_processors_are_applied() {
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
fn cache_matches_full_forward() {
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
    let mut cache = model.new_cache(1, 1);
    model.logits(ids(&[&[5, 6, 7]]), &mut *cache);
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
        let found = last(model.logits(ids(&rows), &mut *cache));
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
