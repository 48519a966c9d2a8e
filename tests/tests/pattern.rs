//! Generation held to a pattern, by every way to generate. GPT-2's vocabulary comes from
//! `AIGC_DATA`.

use aigc_tests::{gpt2_tokenizer, small_gpt2};
use aigc_text::{
    BpeTokenizer, CausalLm, FinishReason, GeneratedSequence, GenerationConfig, GenerationState,
    Gpt2, GrammarConstraint, LogitsProcessor, TextGenerator, Tokenizer, generate::TokenIds,
};
use regex::Regex;
use serde_json::{Value, json};
use std::{cell::RefCell, time::Instant};

fn model(seed: u64, vocabulary: usize) -> Gpt2 {
    small_gpt2(seed, vocabulary, 400, [1, 2, 16])
}

/// Options for texts that a token of `end` ends.
fn config(end: u32) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens: Some(380),
        eos_token_id: Some(TokenIds::One(end)),
        ..GenerationConfig::default()
    }
}

fn drawn(end: u32) -> GenerationConfig {
    GenerationConfig {
        do_sample: true,
        top_k: 0,
        ..config(end)
    }
}

/// What was generated, without the token that ends it; which there has to be.
fn said(text: &GeneratedSequence, tokenizer: &dyn Tokenizer) -> String {
    assert_eq!(
        text.finish_reason,
        Some(FinishReason::Eos),
        "{:?}",
        tokenizer.decode(text.new_tokens())
    );
    let (_, new) = text.new_tokens().split_last().unwrap();
    String::from_utf8(
        new.iter()
            .flat_map(|token| tokenizer.token_bytes(*token))
            .collect(),
    )
    .expect("whole characters")
}

#[test]
fn gpt2_texts_match_their_expression() {
    let Some(tokenizer) = gpt2_tokenizer() else {
        return;
    };
    let (model, end) = (
        model(1, tokenizer.vocab_size()),
        tokenizer.eos_token_id().unwrap(),
    );
    let prompt = tokenizer.encode("The answer is").unwrap();
    for expression in [
        "[0-9]{4}-[0-9]{2}-[0-9]{2}",
        "(?:yes|no|maybe)(?:, (?:yes|no)){0,3}[.!]",
        "(?i)the [a-z]{2,8} (?:cat|dog)s?",
        // Characters of two to four bytes, of which hardly any is a token.
        "[α-ω]{3,6}(?: 漢字|😀)?",
        r"\p{Lu}[\p{L} ]{5,20}\n",
        // As long as one likes: that the end becomes likelier ends it.
        r"(?s)[^<]*<[^>]*>",
    ] {
        let pattern = GrammarConstraint::regex(expression, &tokenizer, &[end]).unwrap();
        let whole = Regex::new(&format!("^(?:{expression})$")).unwrap();
        let mut seen = std::collections::HashSet::new();
        for seed in 0..3 {
            let config = GenerationConfig {
                num_return_sequences: 4,
                exponential_decay_length_penalty: Some((4, 1.5)),
                sequence_bias: vec![
                    (tokenizer.encode("<").unwrap(), 9.0),
                    (tokenizer.encode(">").unwrap(), 9.0),
                ],
                ..drawn(end)
            };
            let generator = TextGenerator::new(&model, config)
                .unwrap()
                .with_seed(seed)
                .with_logits_processor(pattern.clone());
            for text in generator.generate(std::slice::from_ref(&prompt)).unwrap() {
                let text = said(&text, &tokenizer);
                assert!(whole.is_match(&text), "{text:?} of {expression}");
                seen.insert(text);
            }
        }
        assert!(seen.len() > 3, "{seen:?}");
        println!("{expression}: {:?}", seen.iter().next().unwrap());
    }
}

/// Whether an object has these properties and no others; those after `required` may be missing.
fn has(value: &Value, required: &[&str], others: &[&str]) -> bool {
    let Some(object) = value.as_object() else {
        return false;
    };
    required.iter().all(|name| object.contains_key(*name))
        && object
            .keys()
            .all(|name| required.contains(&&name[..]) || others.contains(&&name[..]))
}

fn is_person(value: &Value) -> bool {
    let length = |text: &Value| text.as_str().map_or(0, |text| text.chars().count());
    let mail = Regex::new(r"^[a-z]{1,8}@[a-z]{1,8}\.(?:org|net)$").unwrap();
    has(value, &["age", "name"], &["mail", "tags"])
        && value["age"]
            .as_i64()
            .is_some_and(|age| (0..=130).contains(&age))
        && (1..=12).contains(&length(&value["name"]))
        && value
            .get("mail")
            .is_none_or(|text| text.is_null() || mail.is_match(text.as_str().unwrap()))
        && value.get("tags").is_none_or(|tags| {
            let tags = tags.as_array().unwrap();
            tags.len() <= 3
                && tags
                    .iter()
                    .all(|tag| [json!("a\"b"), json!("é"), json!(1.5)].contains(tag))
        })
}

/// Lists of lists, and of whole numbers at last.
fn is_nested(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => {
            (1..=2).contains(&items.len()) && items.iter().all(|item| is_nested(item, depth + 1))
        }
        // As a float, which `-0` is.
        other => {
            depth > 0
                && other
                    .as_f64()
                    .is_some_and(|n| n.fract() == 0.0 && (-9.0..=9.0).contains(&n))
        }
    }
}

fn is_measured(value: &Value) -> bool {
    let Some(items) = value.as_array() else {
        return false;
    };
    (2..=3).contains(&items.len())
        && items[0] == "x"
        && items[1].is_number()
        && items.get(2).is_none_or(Value::is_boolean)
}

type Check = fn(&Value) -> bool;

/// Schemas, and whether a value is of them.
fn schemas() -> [(Value, Check); 4] {
    let person = json!({"type": "object", "properties": {
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "mail": {"type": ["string", "null"], "pattern": r"^[a-z]{1,8}@[a-z]{1,8}\.(?:org|net)$"},
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "tags": {"type": "array", "items": {"enum": ["a\"b", "é", 1.5]}, "maxItems": 3}},
        "required": ["age", "name"], "additionalProperties": false});
    let node = json!({"$ref": "#/$defs/node"});
    let nested = json!({"type": "array", "items": node, "minItems": 1, "maxItems": 2, "$defs": {"node": {"anyOf": [
        {"type": "integer", "minimum": -9, "maximum": 9},
        {"type": "array", "items": node, "minItems": 1, "maxItems": 2}]}}});
    let measured = json!({"type": "array", "prefixItems": [{"const": "x"}, {"type": "number"}, {"type": "boolean"}],
        "items": false, "minItems": 2});
    let either = json!({"oneOf": [
        {"type": "object", "properties": {"kind": {"const": "no"}}, "required": ["kind"],
            "additionalProperties": false},
        {"type": "object", "properties": {"kind": {"const": "yes"}, "of": {"type": "boolean"}},
            "required": ["kind", "of"], "additionalProperties": false}]});
    let is_either: Check = |value| match value["kind"].as_str() {
        Some("no") => has(value, &["kind"], &[]),
        Some("yes") => has(value, &["kind", "of"], &[]) && value["of"].is_boolean(),
        _ => false,
    };
    [
        (person, is_person),
        (nested, |value| is_nested(value, 0)),
        (measured, is_measured),
        (either, is_either),
    ]
}

#[test]
fn gpt2_texts_match_their_json_schema() {
    let Some(tokenizer) = gpt2_tokenizer() else {
        return;
    };
    let (model, end) = (
        model(2, tokenizer.vocab_size()),
        tokenizer.eos_token_id().unwrap(),
    );
    let prompt = tokenizer.encode("As JSON: ").unwrap();
    for (schema, is_valid) in schemas() {
        let pattern =
            GrammarConstraint::json_schema(&schema.to_string(), &tokenizer, &[end]).unwrap();
        for seed in 0..3 {
            // Numbers may have any number of digits: so that they end.
            let sequence_bias = [",", "]"]
                .map(|sign| (tokenizer.encode(sign).unwrap(), 5.0))
                .into();
            let config = GenerationConfig {
                num_return_sequences: 4,
                temperature: 1.5,
                sequence_bias,
                ..drawn(end)
            };
            let generator = TextGenerator::new(&model, config)
                .unwrap()
                .with_seed(seed)
                .with_logits_processor(pattern.clone());
            for text in generator.generate(std::slice::from_ref(&prompt)).unwrap() {
                let text = said(&text, &tokenizer);
                let value: Value =
                    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
                assert!(is_valid(&value), "{text} of {schema}");
                if seed == 0 {
                    println!("{text}");
                }
            }
        }
    }
}

/// Prints what a step takes on its own, which depends on the machine.
#[test]
fn json_masks_depend_on_position() {
    let Some(tokenizer) = gpt2_tokenizer() else {
        return;
    };
    let end = tokenizer.eos_token_id().unwrap();
    let mut scores = vec![0.0; tokenizer.vocab_size()];
    let tokens = tokenizer
        .encode("{\"name\": \"it may be any text at all, as long as it ends")
        .unwrap();
    let schema =
        json!({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]});
    let begin = Instant::now();
    let mut pattern =
        GrammarConstraint::json_schema(&schema.to_string(), &tokenizer, &[end]).unwrap();
    println!("built in {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
    for round in ["first", "later"] {
        for (what, tokens) in [
            ("in a fixed part", &tokens[..1]),
            ("in a text", &tokens[..]),
        ] {
            let row = GenerationState {
                tokens,
                prompt_len: 0,
                prompt_index: 0,
                padding: 0,
            };
            scores.fill(0.0);
            let begin = Instant::now();
            pattern.process(row, &mut scores).unwrap();
            let took = begin.elapsed().as_secs_f64() * 1e3;
            let allowed = scores.iter().filter(|score| **score == 0.0).count();
            println!("{round} step {what}: {took:.3} ms, {allowed} tokens allowed");
            assert_eq!(allowed > 1000, what == "in a text", "{what}: {allowed}");
        }
    }
}

/// Byte pairs learned from a few words, and a model of them.
fn small() -> (BpeTokenizer, Gpt2, u32) {
    let words = [
        "one two three four",
        "the cat and the other cat",
        "12 34 56. été",
    ];
    let tokenizer = BpeTokenizer::train(words.iter().cycle().take(30), 290).unwrap();
    let (model, end) = (
        model(3, tokenizer.vocab_size()),
        tokenizer.eos_token_id().unwrap(),
    );
    (tokenizer, model, end)
}

#[test]
fn every_generation_mode_follows_the_grammar() {
    let (tokenizer, model, end) = small();
    let expression = "(?:(?:the|one|[a-z]{2,5}) ){1,4}[0-9]{2}[.é]";
    let pattern = GrammarConstraint::regex(expression, &tokenizer, &[end]).unwrap();
    let whole = Regex::new(&format!("^(?:{expression})$")).unwrap();
    let base = || GenerationConfig {
        max_new_tokens: Some(40),
        ..config(end)
    };
    let drawn = || GenerationConfig {
        do_sample: true,
        ..base()
    };
    let prompts: Vec<Vec<u32>> = ["the other", "12 cats"]
        .map(|text| tokenizer.encode(text).unwrap())
        .into();
    let generator = |config: GenerationConfig| {
        TextGenerator::new(&model, config)
            .unwrap()
            .with_seed(5)
            .with_tokenizer(&tokenizer)
            .with_logits_processor(pattern.clone())
    };
    let check = |texts: &[GeneratedSequence], what: &str| {
        for text in texts {
            let text = said(text, &tokenizer);
            assert!(whole.is_match(&text), "{what}: {text:?}");
        }
    };
    for (what, config, count) in [
        ("greedy", base(), 1),
        (
            "drawn",
            GenerationConfig {
                num_return_sequences: 5,
                ..drawn()
            },
            5,
        ),
        (
            "top",
            GenerationConfig {
                top_k: 3,
                top_p: 0.9,
                min_p: Some(0.1),
                ..drawn()
            },
            1,
        ),
        (
            "typical",
            GenerationConfig {
                typical_p: 0.5,
                top_h: Some(0.4),
                eta_cutoff: 0.01,
                ..drawn()
            },
            1,
        ),
        (
            "beams",
            GenerationConfig {
                num_beams: 4,
                num_return_sequences: 4,
                ..base()
            },
            4,
        ),
        (
            "drawn beams",
            GenerationConfig {
                num_beams: 3,
                num_return_sequences: 3,
                ..drawn()
            },
            3,
        ),
        (
            "groups",
            GenerationConfig {
                num_beams: 4,
                num_beam_groups: 2,
                diversity_penalty: 1.5,
                ..base()
            },
            1,
        ),
        (
            "contrastive",
            GenerationConfig {
                penalty_alpha: Some(0.9),
                top_k: 6,
                ..base()
            },
            1,
        ),
        (
            "penalties",
            GenerationConfig {
                repetition_penalty: 1.5,
                min_new_tokens: Some(6),
                ..base()
            },
            1,
        ),
    ] {
        let texts = generator(config).generate(&prompts).unwrap();
        assert_eq!(texts.len(), 2 * count, "{what}");
        check(&texts, what);
    }

    // More beams than there are texts.
    let few = GrammarConstraint::regex("yes|no", &tokenizer, &[end]).unwrap();
    let beams = GenerationConfig {
        num_beams: 5,
        num_return_sequences: 5,
        ..base()
    };
    let texts = TextGenerator::new(&model, beams)
        .unwrap()
        .with_logits_processor(few)
        .generate(&prompts[..1])
        .unwrap();
    let found: Vec<String> = texts.iter().map(|text| said(text, &tokenizer)).collect();
    assert!(
        !found.is_empty() && found.iter().all(|text| text == "yes" || text == "no"),
        "{found:?}"
    );

    // One at a time: streams and proposed tokens, which change nothing where the best are taken.
    let other = self::model(4, model.vocab_size());
    for config in [base(), drawn()] {
        let plain = generator(config.clone()).generate(&prompts[..1]).unwrap();
        let stream: Result<Vec<u32>, _> = generator(config.clone())
            .stream(&prompts[0])
            .unwrap()
            .collect();
        assert_eq!(stream.unwrap(), plain[0].new_tokens());
        let heard = RefCell::new(Vec::new());
        let listening =
            generator(config.clone()).with_streamer(|tokens| heard.borrow_mut().extend(tokens[0]));
        listening.generate(&prompts[..1]).unwrap();
        assert_eq!(heard.into_inner(), plain[0].new_tokens());
        let looked_up = GenerationConfig {
            prompt_lookup_num_tokens: Some(3),
            ..config.clone()
        };
        for (what, text) in [
            (
                "assisted",
                generator(config.clone())
                    .with_assistant_model(&other)
                    .unwrap()
                    .generate(&prompts[..1])
                    .unwrap(),
            ),
            (
                "looked up",
                generator(looked_up).generate(&prompts[..1]).unwrap(),
            ),
        ] {
            check(&text, what);
            assert!(
                config.do_sample || text[0].tokens == plain[0].tokens,
                "{what}"
            );
        }
    }
}

#[test]
fn contradictory_grammar_and_options_are_errors() {
    let (tokenizer, model, end) = small();
    let pattern = GrammarConstraint::regex("[0-9]+", &tokenizer, &[end]).unwrap();
    let digits: Vec<u32> = (0..tokenizer.vocab_size() as u32)
        .filter(|token| {
            tokenizer
                .token_bytes(*token)
                .first()
                .is_some_and(u8::is_ascii_digit)
        })
        .collect();
    for strategy in [
        config(end),
        drawn(end),
        GenerationConfig {
            num_beams: 3,
            ..config(end)
        },
        GenerationConfig {
            penalty_alpha: Some(0.5),
            ..config(end)
        },
    ] {
        let config = GenerationConfig {
            suppress_tokens: digits.clone(),
            ..strategy
        };
        let generator = TextGenerator::new(&model, config)
            .unwrap()
            .with_logits_processor(pattern.clone());
        let error = generator.generate(&[vec![5]]).unwrap_err().to_string();
        assert!(error.contains("no token with a probability"), "{error}");
    }
}
