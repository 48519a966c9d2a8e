//! Windows of tokens, perplexity, weight decay.

use super::*;

#[test]
fn perplexity_matches_its_formula() {
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
fn windows_match_the_tokens() {
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
        (b"something else, longer", "not a token file"),
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

/// A step with weight decay moves vectors as one without; matrices are drawn to zero by as much as
/// it says.
#[test]
fn weight_decay_applies_to_matrices_only() {
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
