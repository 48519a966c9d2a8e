//! GPT-2, `generate` and logits processors against transformers. (They come from `AIGC_FIXTURES`.)

use super::Tensors;
use aigc_core::{
    device::device,
    params::{ParamVisitor, visit_params},
};
use aigc_text::{
    CausalLm, GenerationConfig, GenerationState, Gpt2, Gpt2Config, LogitsProcessor,
    PretrainedModel, TextGenerator,
    generate::{
        EpsilonCutoff, EtaCutoff, MinP, NoRepeatNgram, RepetitionPenalty, Temperature, TopH, TopK,
        TopP, TypicalP,
    },
    objective::{TokenBatch, next_token_loss},
};
use burn::{
    module::{Module, Param},
    tensor::{Gradients, Int, Tensor, TensorData},
};
use safetensors::SafeTensors;
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

fn model(case: &Path, json: &Value) -> Gpt2 {
    let model = Gpt2::from_pretrained(
        case.join(json["model"].as_str().unwrap()),
        &device("flex").unwrap(),
    )
    .unwrap();
    assert!(model.warnings().is_empty(), "{model}");
    model.into_inner()
}

fn rows(tensors: &Tensors, name: &str) -> Vec<Vec<u32>> {
    let [_, n] = tensors.shape::<2>(name);
    let all: Vec<u32> = tensors
        .integers(name)
        .into_iter()
        .map(|token| token as u32)
        .collect();
    all.chunks_exact(n).map(<[u32]>::to_vec).collect()
}

fn close(name: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let error = |(a, b): (&f32, &f32)| {
        if (a - b).is_nan() {
            f32::INFINITY
        } else {
            (a - b).abs() / b.abs().max(1.0)
        }
    };
    let worst = found.iter().zip(expected).map(error).fold(0.0, f32::max);
    println!("{name}: {worst:.1e}");
    assert!(worst < tolerance, "{name} is off by {worst:.1e}");
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Logits, hidden states and loss.
pub(crate) fn forward(case: &Path, json: &Value) {
    let flex = device("flex").unwrap();
    let model = model(case, json);
    let tensors = Tensors::open(case);
    let ids = rows(&tensors, "input_ids");
    let tokens = |from: usize, to: usize| {
        let all: Vec<i32> = ids
            .iter()
            .flat_map(|row| &row[from..to])
            .map(|token| *token as i32)
            .collect();
        Tensor::<2, Int>::from_data(TensorData::new(all, [ids.len(), to - from]), &flex)
    };
    let n = ids[0].len();
    close(
        "logits",
        &numbers(model.forward(tokens(0, n))),
        &tensors.floats("logits"),
        1e-4,
    );
    for (i, state) in model.hidden_states(tokens(0, n)).into_iter().enumerate() {
        close(
            &format!("hidden {i}"),
            &numbers(state),
            &tensors.floats(&format!("hidden.{i}")),
            1e-4,
        );
    }
    // In three pieces, through a cache.
    let mut cache = model.new_cache(ids.len(), 2);
    let pieces =
        [(0, 4), (4, 5), (5, n)].map(|(from, to)| model.logits(tokens(from, to), &mut *cache));
    close(
        "logits by pieces",
        &numbers(Tensor::cat(pieces.to_vec(), 1)),
        &tensors.floats("logits"),
        1e-4,
    );
    let loss = next_token_loss(&model, &TokenBatch::collate(ids), &flex).unwrap();
    close("loss", &numbers(loss), &tensors.floats("loss"), 1e-5);
}

/// The tokens that `generate` returned.
pub(crate) fn generate(case: &Path, json: &Value) {
    let model = model(case, json);
    let tensors = Tensors::open(case);
    let folder = case.join(json["model"].as_str().unwrap());
    // As transformers does: the model's own options, and those of the call over them.
    let own = std::fs::read_to_string(folder.join("generation_config.json")).unwrap();
    let mut fields: serde_json::Map<String, Value> = serde_json::from_str(&own).unwrap();
    fields.insert("pad_token_id".into(), 0.into());
    fields.extend(json["config"].as_object().unwrap().clone());
    let loaded = GenerationConfig::from_json(&Value::Object(fields).to_string()).unwrap();
    let (config, ignored) = (loaded.value, loaded.unused_fields);
    let idle = [
        "output_attentions",
        "output_hidden_states",
        "transformers_version",
        "use_cache",
    ];
    assert!(
        ignored.iter().all(|field| idle.contains(&field.as_str())),
        "{ignored:?}"
    );
    let mut prompts = rows(&tensors, "input_ids");
    if tensors.has("attention_mask") {
        for (prompt, mask) in prompts.iter_mut().zip(rows(&tensors, "attention_mask")) {
            let padding = mask.iter().filter(|seen| **seen == 0).count();
            prompt.drain(..padding);
        }
    }
    let longest = prompts.iter().map(Vec::len).max().unwrap();
    let pad = config.pad_token();
    let found = TextGenerator::new(&model, config)
        .unwrap()
        .generate(&prompts)
        .unwrap();
    let expected = rows(&tensors, "sequences");
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        let mut padded = vec![pad; longest - found.prompt_len];
        padded.extend(&found.tokens);
        assert!(padded.len() <= expected.len());
        padded.resize(expected.len(), pad);
        assert_eq!(&padded, expected);
    }
    if tensors.has("sequences_scores") {
        let scores: Vec<f32> = found
            .iter()
            .map(|sequence| sequence.score.expect("a beam's score"))
            .collect();
        close("scores", &scores, &tensors.floats("sequences_scores"), 1e-4);
    }
}

/// One processor, by the name of its class.
pub(crate) fn processor(case: &Path, json: &Value) {
    let tensors = Tensors::open(case);
    let config = &json["config"];
    let number = |name: &str| {
        config[name]
            .as_f64()
            .unwrap_or_else(|| panic!("{name} of {config}"))
    };
    let keep = config["min_tokens_to_keep"].as_u64().unwrap_or(1) as usize;
    let mut processor: Box<dyn LogitsProcessor> = match json["cls"].as_str().unwrap() {
        "TemperatureLogitsWarper" => Box::new(Temperature(number("temperature"))),
        "TopKLogitsWarper" => Box::new(TopK {
            k: number("top_k") as usize,
            min_tokens_to_keep: keep,
        }),
        "TopPLogitsWarper" => Box::new(TopP {
            p: number("top_p"),
            min_tokens_to_keep: keep,
        }),
        "MinPLogitsWarper" => Box::new(MinP {
            min_p: number("min_p"),
            min_tokens_to_keep: keep,
        }),
        "TypicalLogitsWarper" => Box::new(TypicalP {
            p: number("mass"),
            min_tokens_to_keep: keep,
        }),
        "EpsilonLogitsWarper" => Box::new(EpsilonCutoff {
            epsilon: number("epsilon"),
            min_tokens_to_keep: keep,
        }),
        "EtaLogitsWarper" => Box::new(EtaCutoff {
            epsilon: number("epsilon"),
            min_tokens_to_keep: keep,
        }),
        "TopHLogitsWarper" => Box::new(TopH {
            top_h: number("top_h"),
        }),
        "RepetitionPenaltyLogitsProcessor" => Box::new(RepetitionPenalty(number("penalty"))),
        "NoRepeatNGramLogitsProcessor" => Box::new(NoRepeatNgram(number("ngram_size") as usize)),
        other => panic!("{other} is not a processor of this crate"),
    };
    let [_, vocabulary] = tensors.shape::<2>("logits");
    let mut scores = tensors.floats("logits");
    for (item, (tokens, scores)) in rows(&tensors, "history")
        .iter()
        .zip(scores.chunks_exact_mut(vocabulary))
        .enumerate()
    {
        processor
            .process(
                GenerationState {
                    tokens,
                    prompt_len: tokens.len(),
                    prompt_index: item,
                    padding: 0,
                },
                scores,
            )
            .unwrap();
    }
    scores
        .iter_mut()
        .filter(|score| **score == f32::NEG_INFINITY)
        .for_each(|score| *score = -1e30);
    close("scores", &scores, &tensors.floats("expected"), 1e-5);
}

/// One network in every file that it may come in.
pub(crate) fn files(case: &Path) {
    let flex = device("flex").unwrap();
    let tensors = Tensors::open(case);
    let ids = rows(&tensors, "input_ids");
    let all: Vec<i32> = ids.concat().into_iter().map(|token| token as i32).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(all, [ids.len(), ids[0].len()]), &flex);
    for (folder, logits) in [
        ("whole", "whole"),
        ("shards", "whole"),
        ("bin", "whole"),
        ("bin-shards", "whole"),
        ("half", "half"),
        ("old", "old"),
    ] {
        let model = Gpt2::from_pretrained(case.join(folder), &flex).unwrap();
        close(
            folder,
            &numbers(model.forward(ids.clone())),
            &tensors.floats(logits),
            1e-5,
        );
        // Written again, it is the same.
        let again = tempfile::tempdir().unwrap();
        model.save_pretrained(again.path()).unwrap();
        let again = Gpt2::from_pretrained(again.path(), &flex).unwrap();
        close(
            "again",
            &numbers(again.forward(ids.clone())),
            &numbers(model.forward(ids.clone())),
            1e-9,
        );
    }
    let text = std::fs::read_to_string(case.join("linear/config.json")).unwrap();
    let config = Gpt2Config {
        tie_word_embeddings: false,
        ..Gpt2Config::from_json(&text).unwrap().into_inner()
    };
    let weights = case.join("linear/model.safetensors");
    let model = Gpt2::from_weights(config.clone(), &weights, &flex).unwrap();
    close(
        "linear",
        &numbers(model.forward(ids)),
        &tensors.floats("linear"),
        1e-5,
    );
    let mistake = |config: Gpt2Config| {
        Gpt2::from_weights(config, &weights, &flex)
            .unwrap_err()
            .to_string()
    };
    // All that is wrong is named at once.
    let more = mistake(Gpt2Config {
        n_layer: 3,
        n_positions: 13,
        ..config.clone()
    });
    for name in [
        "transformer.h.2.ln_1.weight",
        "transformer.h.2.mlp.c_fc.bias",
        "transformer.wpe.weight ([12, 16], expected [13, 16])",
    ] {
        assert!(more.contains(name), "{name}: {more}");
    }
    // Layers beyond `n_layer` are reported, not fatal.
    let fewer = Gpt2Config {
        n_layer: 1,
        ..config
    };
    let fewer = Gpt2::from_weights(fewer, &weights, &flex).unwrap();
    let unused = "transformer.h.1.attn.c_attn.weight".to_string();
    assert!(fewer.unused_tensors.contains(&unused), "{fewer}");
    let code = Gpt2::from_pretrained(case.join("code"), &flex)
        .unwrap_err()
        .to_string();
    assert!(
        code.contains("pytorch_model.bin") && code.contains("system"),
        "{code}"
    );
}

/// Adapters that PEFT has made, their gradients, and what it merges them to.
pub(crate) fn lora(case: &Path) {
    let flex = device("flex").unwrap();
    let tensors = Tensors::open(case);
    let rows = rows(&tensors, "input_ids");
    let all: Vec<i32> = rows.iter().flatten().map(|token| *token as i32).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(all, [rows.len(), rows[0].len()]), &flex);
    let whole = case.with_file_name("gpt2-files").join("whole");
    let config =
        Gpt2Config::from_json(&std::fs::read_to_string(whole.join("config.json")).unwrap())
            .unwrap()
            .into_inner();
    // Gradients are of the network as it is evaluated.
    let still = Gpt2Config {
        resid_pdrop: 0.0,
        embd_pdrop: 0.0,
        attn_pdrop: 0.0,
        ..config
    };
    let plain = Gpt2::from_weights(still, whole.join("model.safetensors"), &flex).unwrap();
    let model = plain.into_inner().load_lora(case.join("adapters")).unwrap();
    close(
        "adapted",
        &numbers(model.forward(ids.clone())),
        &tensors.floats("logits"),
        1e-5,
    );
    close(
        "merged",
        &numbers(model.clone().merge_lora().forward(ids)),
        &tensors.floats("merged"),
        1e-5,
    );
    let trained = model.clone().train();
    let loss =
        next_token_loss(&trained, &TokenBatch::collate(rows), &trained.devices()[0]).unwrap();
    close(
        "loss",
        &numbers(loss.clone()),
        &tensors.floats("loss"),
        1e-5,
    );
    let gradients = loss.backward();
    let mut slopes = Slopes {
        gradients: &gradients,
        of: Vec::new(),
    };
    visit_params(&trained, &mut slopes);
    assert_eq!(slopes.of.len(), 8);
    for (path, gradient) in slopes.of {
        let (layer, factor) = path
            .split_once(".weight.lora.")
            .expect("nothing else is trained");
        let name = format!(
            "base_model.model.{layer}.lora_{}.weight",
            factor.to_uppercase()
        );
        close(&name, &gradient, &tensors.floats(&name), 1e-7);
    }
    // Written again, it is the same file.
    let again = tempfile::tempdir().unwrap();
    model.save_lora(again.path()).unwrap();
    let file = |folder: &Path| std::fs::read(folder.join("adapter_model.safetensors")).unwrap();
    let (ours, theirs) = (file(again.path()), file(&case.join("adapters")));
    let (ours, theirs) = (
        SafeTensors::deserialize(&ours).unwrap(),
        SafeTensors::deserialize(&theirs).unwrap(),
    );
    let content = |file: &SafeTensors<'_>| -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
        file.iter()
            .map(|(name, view)| (name.into(), (view.shape().to_vec(), view.data().to_vec())))
            .collect()
    };
    assert_eq!(content(&ours), content(&theirs));
    let json = |folder: &Path| -> Value {
        serde_json::from_slice(&std::fs::read(folder.join("adapter_config.json")).unwrap()).unwrap()
    };
    let theirs = json(&case.join("adapters"));
    for (field, value) in json(again.path()).as_object().unwrap() {
        let same = *value == theirs[field]
            || value.is_number() && value.as_f64() == theirs[field].as_f64();
        assert!(same, "{field} is {value}");
    }
}

/// Gradients by path, turned as PEFT has them.
struct Slopes<'a> {
    gradients: &'a Gradients,
    of: Vec<(String, Vec<f32>)>,
}

impl ParamVisitor for Slopes<'_> {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad(self.gradients) {
            self.of.push((path.into(), numbers(gradient.transpose())));
        }
    }
}
