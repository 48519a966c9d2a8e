//! Options of generation: their checks, and effects by definition.

use super::*;

#[test]
fn options_and_prompts_are_validated() {
    let model = model(14, 60);
    let wrong = |config: GenerationConfig, prompts: &[Vec<u32>]| -> String {
        let error = TextGenerator::new(&model, config)
            .and_then(|generator| generator.generate(prompts))
            .unwrap_err();
        assert!(
            matches!(error, Error::Config { .. } | Error::InvalidArgument { .. }),
            "{error:?}"
        );
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
    let text = r#"{"top_k": null, "eos_token_id": [1, 2, 1], "new_thing": 1, "guidance_scale": 1.5,
        "encoder_repetition_penalty": 1.0, "use_cache": true, "transformers_version": "5.24.0"}"#;
    let read = GenerationConfig::from_json(text).unwrap();
    assert_eq!((read.top_k, read.eos_token_ids()), (50, vec![1, 2]));
    let mut unused = read.unused_fields.clone();
    unused.sort();
    assert_eq!(unused, ["guidance_scale", "new_thing"]);
    assert!(read.warnings()[0].contains("guidance_scale"));
}

/// Options that no fixture has, each by what its formula says.
#[test]
fn options_match_their_definitions() {
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
