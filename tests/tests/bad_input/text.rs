//! Files of language models, altered at random, and tokenizers that contradict themselves.

use aigc_core::{Error, Result, data::Dataset, device::device, rng::Rng};
use aigc_tests::own_fixtures;
use aigc_text::{
    BpeTokenizer, CausalLm, CharacterTokenizer, GenerationConfig, Gpt2, PretrainedModel,
    TextGenerator, TokenDataset, Tokenizer,
    generate::{TokenIds, WordConstraint},
    tokenizer,
};
use burn::tensor::{Int, Tensor};
use serde_json::{Value, json};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

/// A file cut off, shorter or longer by a few bytes, or with some bytes changed: to any, by a bit,
/// or to others of its own, with which text often remains what it was. Half of the changes are
/// where headers are.
fn altered(good: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = good.to_vec();
    let place = |rng: &mut Rng| {
        let end = if rng.random_index(2) == 0 {
            good.len()
        } else {
            good.len().min(400)
        };
        rng.random_index(end)
    };
    let (at, n) = (place(rng), 1 + rng.random_index(8));
    match rng.random_index(6) {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..(at + n).min(good.len()))),
        2 => {
            let from = rng.random_index(good.len() - n);
            bytes
                .splice(at..at, good[from..from + n].iter().copied())
                .for_each(drop);
        }
        how => (0..n).for_each(|_| {
            let at = place(rng);
            bytes[at] = match how {
                3 => rng.random_index(256) as u8,
                4 => bytes[at] ^ 1 << rng.random_index(8),
                _ => good[rng.random_index(good.len())],
            };
        }),
    }
    bytes
}

/// JSON with another value somewhere.
fn with_another_value(json: &mut Value, rng: &mut Rng) {
    let inside: Vec<&mut Value> = match json {
        Value::Array(values) => values.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => vec![],
    };
    if !inside.is_empty() && rng.random_index(6) > 0 {
        let at = rng.random_index(inside.len());
        return with_another_value(inside.into_iter().nth(at).expect("it is inside"), rng);
    }
    let others = [
        json!([null, true, "", "a", "ByteLevel", [], [[]], {}]),
        json!([-1, 0, 1, 3, 1024, 1 << 24, u32::MAX, u64::MAX, 0.5, 1e308]),
    ];
    let others = others[rng.random_index(2)].as_array().expect("a list");
    *json = others[rng.random_index(others.len())].clone();
}

/// Opens a directory with each of `files` altered in `cases` ways: a panic fails, an error names
/// the file or its directory, and what opens is used. Some have to be refused, and some taken.
fn alter_each(folder: &Path, files: &[&str], cases: usize, open: impl Fn() -> Result<()>) {
    open().expect("the files are good");
    for file in files {
        let path = folder.join(file);
        let good = std::fs::read(&path).unwrap();
        let mut rng = Rng::new(9);
        let mut refused = 0;
        for case in 0..cases {
            let bad = match serde_json::from_slice(&good) {
                Ok(mut json) if case % 2 == 0 => {
                    with_another_value(&mut json, &mut rng);
                    json.to_string().into_bytes()
                }
                _ => altered(&good, &mut rng),
            };
            std::fs::write(&path, &bad).unwrap();
            match catch_unwind(AssertUnwindSafe(&open)) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    refused += 1;
                    assert!(
                        !matches!(error, Error::Config { .. }),
                        "{file}, case {case} names no file: {error}"
                    );
                    assert!(
                        error.to_string().contains(&*folder.to_string_lossy()),
                        "{file}, case {case}: {error}"
                    );
                }
                Err(_) => panic!(
                    "{file} panics in case {case}: {}",
                    String::from_utf8_lossy(&bad)
                ),
            }
        }
        std::fs::write(&path, good).unwrap();
        println!("{file}: {refused} of {cases} refused");
        assert!(
            (1..cases).contains(&refused),
            "{file}: {refused} of {cases} refused"
        );
    }
}

/// A directory to alter, with the files of one of our fixtures.
fn copied(fixture: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(own_fixtures().join("text").join(fixture)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

#[test]
fn altered_language_model_files_never_panic() {
    let flex = device("flex").unwrap();
    let use_it = |model: Gpt2| {
        let n = model.max_position_embeddings().min(5);
        let logits = model.forward(Tensor::<2, Int>::zeros([1, n], &flex));
        assert_eq!(
            logits.into_data().iter::<f32>().count(),
            n * model.vocab_size()
        );
    };
    for (name, files) in [
        ("whole", &["config.json", "model.safetensors"][..]),
        (
            "shards",
            &[
                "model.safetensors.index.json",
                "model-00002-of-00002.safetensors",
            ],
        ),
        ("bin", &["pytorch_model.bin"]),
        (
            "bin-shards",
            &[
                "pytorch_model.bin.index.json",
                "pytorch_model-00001-of-00002.bin",
            ],
        ),
    ] {
        let folder = copied(&format!("gpt2-files/{name}"));
        alter_each(folder.path(), files, 500, || {
            Gpt2::from_pretrained(folder.path(), &flex).map(|model| use_it(model.into_inner()))
        });
    }
    let model = Gpt2::from_pretrained(own_fixtures().join("text/gpt2-files/whole"), &flex)
        .unwrap()
        .into_inner();
    let folder = copied("gpt2-lora/adapters");
    alter_each(
        folder.path(),
        &["adapter_config.json", "adapter_model.safetensors"],
        500,
        || model.clone().load_lora(folder.path()).map(use_it),
    );
}

#[test]
fn altered_generation_options_never_panic() {
    let folder = copied("gpt2-files/whole");
    let model = Gpt2::from_pretrained(folder.path(), &device("flex").unwrap())
        .unwrap()
        .into_inner();
    let beams = GenerationConfig {
        num_beams: 2,
        force_words_ids: vec![WordConstraint::Phrasal(vec![3, 4])],
        bad_words_ids: vec![vec![5], vec![6, 7]],
        ..GenerationConfig::default()
    };
    let drawn = GenerationConfig {
        do_sample: true,
        top_p: 0.9,
        typical_p: 0.9,
        min_p: Some(0.01),
        top_h: Some(0.5),
        sequence_bias: vec![(vec![8, 9], 1.0)],
        suppress_tokens: vec![1],
        exponential_decay_length_penalty: Some((2, 1.5)),
        eos_token_id: Some(TokenIds::Several(vec![0, 2])),
        ..GenerationConfig::default()
    };
    let searched = GenerationConfig {
        penalty_alpha: Some(0.5),
        top_k: 4,
        ..GenerationConfig::default()
    };
    for config in [beams, drawn, searched] {
        let config = GenerationConfig {
            max_length: Some(8),
            bos_token_id: Some(0),
            ..config
        };
        std::fs::write(
            folder.path().join("generation_config.json"),
            serde_json::to_string(&config).unwrap(),
        )
        .unwrap();
        alter_each(folder.path(), &["generation_config.json"], 500, || {
            let config = GenerationConfig::from_pretrained(folder.path())?.into_inner();
            let is_valid = config.validate(model.vocab_size());
            // What is too much for a test is no mistake.
            if is_valid.is_ok() && config.num_beams.saturating_mul(config.num_return_sequences) > 16
            {
                return Ok(());
            }
            match TextGenerator::new(&model, config)
                .and_then(|generator| generator.generate(&[vec![1, 2]]))
            {
                Ok(_) | Err(Error::Config { .. } | Error::InvalidArgument { .. }) => Ok(()),
                Err(other) => panic!("{other}"),
            }
        });
    }
}

#[test]
fn altered_tokenizer_files_never_panic() {
    let text = "the cat sat on the mat, the cat's mat \u{1f600}; ".repeat(20);
    let trained = BpeTokenizer::train([&text].into_iter(), 300).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let open = || -> Result<()> {
        let tokenizer = tokenizer::from_pretrained(path)?;
        if let Ok(tokens) = tokenizer.encode(&text[..100]) {
            assert!(
                tokens
                    .iter()
                    .all(|token| (*token as usize) < tokenizer.vocab_size())
            );
            tokenizer.decode(&tokens);
        }
        Ok(())
    };
    trained.save_pretrained(path).unwrap();
    alter_each(path, &["tokenizer.json"], 1000, open);
    // The same in two files.
    let json: Value =
        serde_json::from_slice(&std::fs::read(path.join("tokenizer.json")).unwrap()).unwrap();
    std::fs::remove_file(path.join("tokenizer.json")).unwrap();
    std::fs::write(path.join("vocab.json"), json["model"]["vocab"].to_string()).unwrap();
    let pair = |pair: &Value| {
        format!(
            "{} {}\n",
            pair[0].as_str().unwrap(),
            pair[1].as_str().unwrap()
        )
    };
    let merges: String = json["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(pair)
        .collect();
    std::fs::write(path.join("merges.txt"), format!("#version: 0.2\n{merges}")).unwrap();
    assert_eq!(
        BpeTokenizer::from_pretrained(path)
            .unwrap()
            .encode(&text)
            .unwrap(),
        trained.encode(&text).unwrap()
    );
    alter_each(path, &["vocab.json", "merges.txt"], 500, open);
    CharacterTokenizer::from_text(&text)
        .save_pretrained(path)
        .unwrap();
    alter_each(path, &["characters.json"], 500, open);
    let tokens = path.join("text.tokens");
    let from = path.join("text.txt");
    std::fs::write(&from, &text[..100]).unwrap();
    aigc_text::tokenize_file(&from, &trained, &tokens, |_| ()).unwrap();
    alter_each(path, &["text.tokens"], 500, || {
        let windows = TokenDataset::open(&tokens, 4, 3)?;
        (0..windows.len())
            .try_for_each(|i| windows.get(i).map(|window| assert_eq!(window.len(), 5)))
    });
}

/// Vocabularies that promise more tokens than they have, and options that would cut texts.
#[test]
fn inconsistent_tokenizer_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let trained = BpeTokenizer::train(["the cat sat on the mat"].into_iter(), 300).unwrap();
    trained.save_pretrained(folder.path()).unwrap();
    let path = folder.path().join("tokenizer.json");
    let good: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let open = |change: &dyn Fn(&mut Value)| {
        let mut json = good.clone();
        change(&mut json);
        std::fs::write(&path, json.to_string()).unwrap();
        BpeTokenizer::from_pretrained(folder.path())
    };
    for last in [u32::MAX, 4_000_000_000, 1 << 22] {
        let error = open(&|json| json["model"]["vocab"]["th"] = last.into())
            .err()
            .expect("an error")
            .to_string();
        assert!(
            error.contains("tokenizer.json") && error.contains(&last.to_string()),
            "{error}"
        );
    }
    let vocabulary = |json: &mut Value| {
        json["model"]["vocab"]
            .as_object_mut()
            .unwrap()
            .remove("the")
    };
    let error = open(&|json| _ = vocabulary(json))
        .err()
        .expect("an error")
        .to_string();
    assert!(
        error.contains("tokenizer.json") && error.contains("merge"),
        "{error}"
    );
    for mark in ["continuing_subword_prefix", "end_of_word_suffix"] {
        let error = open(&|json| json["model"][mark] = "é".into())
            .err()
            .expect("an error")
            .to_string();
        assert!(
            error.contains("tokenizer.json") && error.contains(mark),
            "{error}"
        );
    }
    let [tokens, merges] = ["vocab.json", "merges.txt"].map(|name| folder.path().join(name));
    std::fs::write(&tokens, r#"{"a":0,"b":1}"#).unwrap();
    std::fs::write(&merges, "#version: 0.2\na b\n").unwrap();
    let error = BpeTokenizer::from_files(&tokens, &merges)
        .err()
        .expect("an error")
        .to_string();
    assert!(
        error.contains("merges.txt") && error.contains("a b"),
        "{error}"
    );
    assert!(BpeTokenizer::train(["a"].into_iter(), usize::MAX).is_err());
    let tables = open(&|json| {
        json["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})
    });
    assert!(
        tables
            .err()
            .expect("an error")
            .to_string()
            .contains("SentencePiece")
    );
    let cutting = open(&|json| {
        json["truncation"] = json!({
            "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0
        });
        json["padding"] = json!({
            "strategy": {"Fixed": 50}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0,
            "pad_token": "!"
        });
    });
    assert_eq!(
        cutting.unwrap().encode("the cat sat").unwrap(),
        trained.encode("the cat sat").unwrap()
    );
}
