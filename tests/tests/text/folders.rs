//! Directories as transformers of every age writes them.

use super::*;
use aigc_core::weights::{Loaded, save_tensors};
use aigc_text::{AnyCausalLm, tokenizer};
use serde_json::json;

/// Tensors of a model by path, in its files' layout.
fn tensors(dir: &Path) -> BTreeMap<String, TensorData> {
    let reader = aigc_core::weights::WeightReader::from_dir(dir, &["model"]).unwrap();
    let names: Vec<String> = reader.names().map(str::to_owned).collect();
    names
        .into_iter()
        .map(|name| {
            let shape = reader.shape(&name).unwrap().to_vec();
            let data = TensorData::new(reader.read(&name).unwrap(), shape);
            (name, data)
        })
        .collect()
}

fn logits(model: &impl CausalLm) -> Vec<f32> {
    let tokens = TensorData::from([[3, 1, 4, 1, 5, 9]]);
    let tokens = Tensor::<2, Int>::from_data(tokens, &device("flex").unwrap());
    model.forward(tokens).into_data().iter().collect()
}

/// A saved model, and a directory to write variations of it to.
fn saved() -> (Gpt2, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let model = model(3, 60);
    model.save_pretrained(dir.path()).unwrap();
    (model, dir)
}

fn open(dir: &Path) -> Loaded<Gpt2> {
    Gpt2::from_pretrained(dir, &device("flex").unwrap()).unwrap()
}

#[test]
fn wrapped_and_renamed_weights_open() {
    let (model, dir) = saved();
    let (weights, all) = (dir.path().join("model.safetensors"), tensors(dir.path()));
    let expected = logits(&model);
    for prefix in [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "model.",
        "transformer.",
    ] {
        let renamed = all
            .iter()
            .map(|(name, data)| (format!("{prefix}{name}"), data.clone()))
            .collect();
        save_tensors(&renamed, &weights).unwrap();
        let opened = open(dir.path());
        assert_eq!(logits(&*opened), expected, "{prefix}");
        assert!(opened.notes[0].contains(prefix), "{opened}");
        assert!(opened.unused_tensors.is_empty(), "{opened}");
    }
    // Layer norms of old conversions from TensorFlow.
    let old = |name: &str| {
        let is_norm = name.contains(".ln_");
        let name = match is_norm {
            true => name.replace(".weight", ".gamma").replace(".bias", ".beta"),
            false => name.to_owned(),
        };
        name.replace("transformer.", "")
    };
    let renamed = all
        .iter()
        .map(|(name, data)| (old(name), data.clone()))
        .collect();
    save_tensors(&renamed, &weights).unwrap();
    let opened = open(dir.path());
    assert_eq!(logits(&*opened), expected);
    assert!(opened.warnings().is_empty(), "{opened}");
}

#[test]
fn unused_tensors_are_reported_and_missing_ones_fatal() {
    let (model, dir) = saved();
    let weights = dir.path().join("model.safetensors");
    let mut all = tensors(dir.path());
    all.insert("score.weight".into(), TensorData::from([[1.0f32, 2.0]]));
    all.insert(
        "transformer.h.7.ln_1.bias".into(),
        TensorData::from([1.0f32]),
    );
    all.insert(
        "transformer.h.0.attn.masked_bias".into(),
        TensorData::from([1.0f32]),
    );
    save_tensors(&all, &weights).unwrap();
    let opened = open(dir.path());
    assert_eq!(logits(&*opened), logits(&model));
    assert_eq!(
        opened.unused_tensors,
        ["score.weight", "transformer.h.7.ln_1.bias"]
    );
    all.remove("transformer.wpe.weight");
    save_tensors(&all, &weights).unwrap();
    let error = Gpt2::from_pretrained(dir.path(), &device("flex").unwrap()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("missing keys: transformer.wpe.weight"),
        "{error}"
    );
}

/// A head that differs from the embedding is used although the configuration ties them.
#[test]
fn differing_head_of_a_tied_model_is_used() {
    let (model, dir) = saved();
    let weights = dir.path().join("model.safetensors");
    let mut all = tensors(dir.path());
    let table = all["transformer.wte.weight"].clone();
    all.insert("lm_head.weight".into(), table.clone());
    save_tensors(&all, &weights).unwrap();
    let same = open(dir.path());
    assert!(
        same.warnings().is_empty() && same.config().tie_word_embeddings,
        "{same}"
    );
    assert_eq!(logits(&*same), logits(&model));
    let doubled: Vec<f32> = table.iter::<f32>().map(|x| 2.0 * x).collect();
    all.insert(
        "lm_head.weight".into(),
        TensorData::new(doubled, table.shape().to_vec()),
    );
    save_tensors(&all, &weights).unwrap();
    let opened = open(dir.path());
    assert!(
        opened.notes[0].contains("lm_head.weight differs"),
        "{opened}"
    );
    let twice: Vec<f32> = logits(&model).iter().map(|x| 2.0 * x).collect();
    let apart = logits(&*opened)
        .into_iter()
        .zip(twice)
        .map(|(a, b)| (a - b).abs());
    assert!(apart.fold(0.0, f32::max) < 1e-5);
    // Saved again, it stays.
    let again = tempfile::tempdir().unwrap();
    opened.save_pretrained(again.path()).unwrap();
    let again = open(again.path());
    assert!(again.warnings().is_empty(), "{again}");
    assert_eq!(logits(&*again), logits(&*opened));
}

#[test]
fn variants_and_shards_without_index_open() {
    let (model, dir) = saved();
    let weights = dir.path().join("model.safetensors");
    let all = tensors(dir.path());
    std::fs::rename(&weights, dir.path().join("model.fp16.safetensors")).unwrap();
    let opened = open(dir.path());
    assert!(opened.notes[0].contains("fp16"), "{opened}");
    assert_eq!(logits(&*opened), logits(&model));
    std::fs::remove_file(dir.path().join("model.fp16.safetensors")).unwrap();
    let (first, second): (BTreeMap<_, _>, BTreeMap<_, _>) = all
        .into_iter()
        .partition(|(name, _)| name.contains(".h.0."));
    let shard = |i: usize| {
        dir.path()
            .join(format!("model-0000{i}-of-00002.safetensors"))
    };
    save_tensors(&first, &shard(1)).unwrap();
    save_tensors(&second, &shard(2)).unwrap();
    assert_eq!(logits(&*open(dir.path())), logits(&model));
}

/// Any directory opens by its `model_type`, is quantised, adapted and saved like the model itself.
#[test]
fn any_causal_lm_matches_its_model() {
    let (model, dir) = saved();
    let flex = device("flex").unwrap();
    let any = AnyCausalLm::from_pretrained(dir.path(), &flex)
        .unwrap()
        .into_inner();
    assert_eq!(aigc_tests::bits(&any), aigc_tests::bits(&model));
    assert_eq!(logits(&any), logits(&model));
    let config = || GenerationConfig {
        max_new_tokens: Some(8),
        num_beams: 2,
        ..GenerationConfig::default()
    };
    let prompt = [vec![5, 6, 7]];
    assert_eq!(
        TextGenerator::new(&any, config())
            .unwrap()
            .generate(&prompt)
            .unwrap(),
        generate(&model, config(), &prompt)
    );
    let again = tempfile::tempdir().unwrap();
    any.save_pretrained(again.path()).unwrap();
    for name in ["config.json", "model.safetensors"] {
        let read = |dir: &Path| std::fs::read(dir.join(name)).unwrap();
        assert!(read(again.path()) == read(dir.path()), "{name}");
    }
    let quantised = |quantised: bool| match quantised {
        true => logits(&any.clone().quantize(Quantization::Int8)),
        false => logits(&model.clone().quantize(Quantization::Int8)),
    };
    assert_eq!(quantised(true), quantised(false));
    let lora = aigc_text::LoraConfig::default();
    let adapted = any.with_lora(lora.clone()).unwrap();
    assert_eq!(adapted.lora(), Some(&lora));
    let adapters = tempfile::tempdir().unwrap();
    adapted.save_lora(adapters.path()).unwrap();
    assert_eq!(
        aigc_tests::bits(&model.load_lora(adapters.path()).unwrap()),
        aigc_tests::bits(&adapted)
    );
    std::fs::write(dir.path().join("config.json"), "{\"model_type\": \"bert\"}").unwrap();
    let error = AnyCausalLm::from_pretrained(dir.path(), &flex)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("bert") && error.contains("one of gpt2"),
        "{error}"
    );
}

/// Options of generation in an old `config.json`, `-1` and whole floats, byte-order marks.
#[test]
fn generation_options_are_read_from_old_files() {
    let (_, dir) = saved();
    let path = dir.path().join("config.json");
    let mut fields: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    fields["max_length"] = json!(30.0);
    fields["no_repeat_ngram_size"] = json!(2);
    fields["repetition_penalty"] = json!(1.3);
    fields["pad_token_id"] = json!(-1);
    fields["bos_token_id"] = json!(0);
    fields["eos_token_id"] = json!(0);
    std::fs::write(&path, format!("\u{feff}{fields}")).unwrap();
    let model = open(dir.path());
    assert_eq!(model.config().pad_token_id, None);
    let config = GenerationConfig::from_pretrained(dir.path()).unwrap();
    assert!(config.warnings().is_empty(), "{config}");
    let expected = GenerationConfig {
        max_length: Some(30),
        no_repeat_ngram_size: 2,
        repetition_penalty: 1.3,
        bos_token_id: Some(0),
        eos_token_id: Some(TokenIds::One(0)),
        ..GenerationConfig::default()
    };
    assert_eq!(*config, expected);
    // A file of its own overrides them all.
    let own = dir.path().join("generation_config.json");
    let text = r#"{"num_beams": 2.0, "encoder_repetition_penalty": 1.2, "guidance_scale": 1.5}"#;
    std::fs::write(&own, format!("\u{feff}{text}")).unwrap();
    let config = GenerationConfig::from_pretrained(dir.path()).unwrap();
    assert_eq!((config.num_beams, config.max_length), (2, None));
    assert_eq!(
        config.unused_fields,
        ["encoder_repetition_penalty", "guidance_scale"]
    );
}

/// Special tokens outside a small vocabulary count as none.
#[test]
fn special_tokens_outside_the_vocabulary_are_none() {
    let model = model(3, 60);
    let config = GenerationConfig {
        bos_token_id: Some(50256),
        pad_token_id: Some(50256),
        eos_token_id: Some(TokenIds::One(50256)),
        max_new_tokens: Some(4),
        ..GenerationConfig::default()
    };
    let plain = GenerationConfig {
        max_new_tokens: Some(4),
        ..GenerationConfig::default()
    };
    let prompts = [vec![1, 2, 3], vec![4]];
    assert_eq!(
        generate(&model, config.clone(), &prompts),
        generate(&model, plain, &prompts)
    );
    let error = TextGenerator::new(&model, config)
        .and_then(|generator| generator.generate(&[vec![]]))
        .unwrap_err();
    assert!(error.to_string().contains("bos_token_id"), "{error}");
}

/// A byte-level tokenizer of 300 tokens as `tokenizer.json`, and as vocabulary and merges.
fn tokenizer_dirs() -> [tempfile::TempDir; 2] {
    let trained = BpeTokenizer::train(["the cat sat on the mat"].into_iter(), 270).unwrap();
    let [whole, pair] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    trained.save_pretrained(whole.path()).unwrap();
    let json: Value =
        serde_json::from_slice(&std::fs::read(whole.path().join("tokenizer.json")).unwrap())
            .unwrap();
    let merges: String = json["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| {
            format!(
                "{} {}\n",
                pair[0].as_str().unwrap(),
                pair[1].as_str().unwrap()
            )
        })
        .collect();
    let write = |name: &str, text: String| std::fs::write(pair.path().join(name), text).unwrap();
    write("vocab.json", format!("\u{feff}{}", json["model"]["vocab"]));
    write("merges.txt", format!("\u{feff}#version: 0.2\n{merges}"));
    // tokenizer.json with a mark, too.
    std::fs::write(
        whole.path().join("tokenizer.json"),
        format!("\u{feff}{json}"),
    )
    .unwrap();
    [whole, pair]
}

#[test]
fn added_tokens_have_the_ids_of_their_files() {
    for dir in tokenizer_dirs() {
        let path = dir.path();
        let plain = BpeTokenizer::from_pretrained(path).unwrap();
        let n = plain.vocab_size() as u32;
        let write = |name: &str, json: Value| {
            std::fs::write(path.join(name), json.to_string()).unwrap();
        };
        write(
            "added_tokens.json",
            json!({"<pad>": n, "<|user|>": n + 1, "<|bot|>": n + 2}),
        );
        write(
            "special_tokens_map.json",
            json!({"pad_token": "<pad>", "additional_special_tokens": ["<|user|>", "<|bot|>"]}),
        );
        let opened = tokenizer::from_pretrained(path).unwrap();
        let text = "<|user|>the cat<|bot|><pad>";
        let expected = [
            vec![n + 1],
            plain.encode("the cat").unwrap(),
            vec![n + 2, n],
        ]
        .concat();
        assert_eq!(opened.encode(text).unwrap(), expected);
        assert_eq!(opened.decode(&expected), text);
        assert!((n..n + 3).all(|token| opened.is_special(token)));
        // Newer files keep them in the configuration.
        std::fs::remove_file(path.join("added_tokens.json")).unwrap();
        std::fs::remove_file(path.join("special_tokens_map.json")).unwrap();
        let token = |content: &str, special: bool| json!({"content": content, "special": special});
        write(
            "tokenizer_config.json",
            json!({"added_tokens_decoder": {
                n.to_string(): token("<pad>", true),
                (n + 1).to_string(): token("<|user|>", false),
                (n + 2).to_string(): token("<|bot|>", false),
            }}),
        );
        let newer = tokenizer::from_pretrained(path).unwrap();
        assert_eq!(newer.encode(text).unwrap(), expected);
        assert!(newer.is_special(n) && !newer.is_special(n + 1));
        // An id that the vocabulary does not lead to is an error, not another token.
        write(
            "tokenizer_config.json",
            json!({"added_tokens_decoder": { (n + 5).to_string(): token("<x>", true) }}),
        );
        let error = tokenizer::from_pretrained(path).err().unwrap().to_string();
        assert!(
            error.contains("<x>") && error.contains(&(n + 5).to_string()),
            "{error}"
        );
    }
}

#[test]
fn tokenizer_follows_directory_options() {
    for dir in tokenizer_dirs() {
        let path = dir.path();
        let plain = BpeTokenizer::from_pretrained(path).unwrap();
        let end = plain.eos_token_id().unwrap();
        let open = |config: Value| {
            std::fs::write(path.join("tokenizer_config.json"), config.to_string()).unwrap();
            tokenizer::from_pretrained(path)
        };
        let encode = |text: &str| plain.encode(text).unwrap();
        assert_eq!(plain.encode_prompt("cat").unwrap(), encode("cat"));
        let prefix = open(json!({"add_prefix_space": true})).unwrap();
        assert_eq!(prefix.encode("cat").unwrap(), encode(" cat"));
        assert_eq!(prefix.encode(" cat").unwrap(), encode(" cat"));
        let begins = open(json!({"add_bos_token": true, "bos_token": "<|endoftext|>"})).unwrap();
        let expected = [vec![end], encode("cat")].concat();
        assert_eq!(begins.encode_prompt("cat").unwrap(), expected);
        // Texts to train on have none, and there is never one too many.
        assert_eq!(begins.encode("cat").unwrap(), encode("cat"));
        assert_eq!(begins.encode_prompt("<|endoftext|>cat").unwrap(), expected);
        assert_eq!(begins.encode_prompt("").unwrap(), [end]);
        let saved = tempfile::tempdir().unwrap();
        begins.save_pretrained(saved.path()).unwrap();
        let again = tokenizer::from_pretrained(saved.path()).unwrap();
        assert_eq!(again.encode_prompt("cat").unwrap(), expected);
    }
    // A post-processor of tokenizer.json.
    let [whole, _] = tokenizer_dirs();
    let path = whole.path().join("tokenizer.json");
    let plain = BpeTokenizer::from_pretrained(whole.path()).unwrap();
    let end = plain.eos_token_id().unwrap();
    let text = tokenizer::read_text(&path).unwrap();
    let mut fields: Value = serde_json::from_str(&text).unwrap();
    fields["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [
            {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {
            "<|endoftext|>": {"id": "<|endoftext|>", "ids": [end], "tokens": ["<|endoftext|>"]},
        },
    });
    std::fs::write(&path, fields.to_string()).unwrap();
    let begins = tokenizer::from_pretrained(whole.path()).unwrap();
    let expected = [vec![end], plain.encode("cat").unwrap()].concat();
    assert_eq!(begins.encode_prompt("cat").unwrap(), expected);
    assert_eq!(begins.encode("cat").unwrap(), plain.encode("cat").unwrap());
}

/// Ending is made more likely once, however often its token is listed.
#[test]
fn repeated_eos_tokens_count_once() {
    let model = model(4, 60);
    let config = |eos: Vec<u32>| GenerationConfig {
        eos_token_id: Some(TokenIds::Several(eos)),
        exponential_decay_length_penalty: Some((1, 1.01)),
        output_scores: true,
        max_new_tokens: Some(10),
        ..GenerationConfig::default()
    };
    assert_eq!(config(vec![7, 3, 7]).eos_token_ids(), [7, 3]);
    let prompt = [vec![1, 2, 3]];
    assert_eq!(
        generate(&model, config(vec![7, 7, 7, 7]), &prompt),
        generate(&model, config(vec![7]), &prompt)
    );
}

#[test]
fn non_finite_options_are_refused() {
    let model = model(4, 60);
    let base = GenerationConfig::default;
    for config in [
        GenerationConfig {
            temperature: f64::NAN,
            ..base()
        },
        GenerationConfig {
            temperature: f64::INFINITY,
            ..base()
        },
        GenerationConfig {
            length_penalty: f64::NAN,
            ..base()
        },
        GenerationConfig {
            sequence_bias: vec![(vec![1], f32::NAN)],
            ..base()
        },
    ] {
        assert!(TextGenerator::new(&model, config).is_err());
    }
    let config = GenerationConfig {
        temperature: 0.5,
        top_p: 0.9,
        ..base()
    };
    assert_eq!(config.inactive_options(), ["temperature", "top_p"]);
    let sampled = GenerationConfig {
        do_sample: true,
        ..config
    };
    assert!(sampled.inactive_options().is_empty());
}
