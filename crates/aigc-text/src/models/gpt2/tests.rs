//! Comparison with a trained network of minGPT, with all intermediate values.

use super::*;
use crate::{GenerationConfig, TextGenerator, nn::join};
use aigc_core::{device::device, ops, rng::Rng};
use base64::{Engine, prelude::BASE64_STANDARD};
use burn::tensor::{TensorData, activation::softmax};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::Value;
use std::{collections::BTreeSet, path::Path};

/// minGPT's network that sorts letters, and the intermediate values of its forward pass.
#[test]
fn gpt2_matches_mingpt() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = std::env::var_os("AIGC_DATA").map(|data| root.join(data).join("gpt-nano-sort"));
    let Some(folder) = folder.filter(|folder| folder.is_dir()) else {
        assert!(
            std::env::var_os("AIGC_REQUIRE_DATA").is_none(),
            "AIGC_DATA has no gpt-nano-sort"
        );
        println!("skipped: set AIGC_DATA");
        return;
    };
    let json = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
    };
    let bytes = |entry: &Value| {
        BASE64_STANDARD
            .decode(entry["data"].as_str().unwrap())
            .unwrap()
    };
    let shape =
        |entry: &Value| serde_json::from_value::<Vec<usize>>(entry["shape"].clone()).unwrap();
    let weights = json("gpt-nano-sort-model.json");
    // The file of tensors lacks the biases of attention; they are in the original file.
    let named = weights
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| *name != "config");
    let tensors: Vec<_> = named
        .map(|(name, entry)| (name, bytes(entry), shape(entry)))
        .collect();
    let views = tensors.iter().map(|(name, data, shape)| {
        (
            name,
            TensorView::new(Dtype::F32, shape.clone(), data).unwrap(),
        )
    });
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("model.safetensors");
    safetensors::serialize_to_file(views.collect::<Vec<_>>(), None, &path).unwrap();
    let config = Gpt2Config {
        vocab_size: 3,
        n_positions: 11,
        n_embd: 48,
        n_layer: 3,
        n_head: 3,
        tie_word_embeddings: false,
        bos_token_id: None,
        eos_token_id: None,
        ..Gpt2Config::default()
    };
    let flex = device("flex").unwrap();
    let model = Gpt2::from_weights(config, &path, &flex)
        .unwrap()
        .into_inner();

    let golden = json("gpt-nano-sort-t0-partials.json");
    let floats = |entry: &Value| -> Vec<f32> {
        bytes(entry)
            .as_chunks()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect()
    };
    let mut left: BTreeSet<&str> = golden
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert!(left.remove("config"));
    let mut same = |name: &str, (found, dims): (Vec<f32>, Vec<usize>)| {
        assert_eq!(dims, shape(&golden[name]), "{name}");
        let error = |(a, b): (&f32, &f32)| if a == b { 0.0 } else { (a - b).abs() };
        let errors = found
            .iter()
            .zip(&floats(&golden[name]))
            .map(error)
            .collect::<Vec<_>>();
        let worst = errors.iter().fold(
            0.0,
            |worst, error| if *error <= worst { worst } else { *error },
        );
        println!("{name}: {worst:.1e}");
        assert!(worst < 1e-5, "{name} is off by {worst:.1e}");
        left.remove(name);
    };
    let ids: Vec<i32> = floats(&golden["idx"])
        .iter()
        .map(|token| *token as i32)
        .collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [3, 11]), &flex);
    same("idx", flat(ids.clone().float()));
    let Transformer {
        wte, wpe, h, ln_f, ..
    } = &model.transformer;
    same("tok_emb", flat(wte.forward(ids.clone())));
    same("pos_emb", flat(wpe.range(0, 11)));
    let x = model.embed(ids.clone(), PositionIds::Range(0));
    same("x", flat(x.clone()));
    // The first block, layer by layer, and the layers as the model calls them.
    let Block {
        ln_1,
        attn,
        ln_2,
        mlp,
    } = &h[0];
    let ln1 = ln_1.forward(x.clone());
    same("ln1", flat(ln1.clone()));
    let qkv = attn.c_attn.forward(ln1.clone());
    same("qkv", flat(qkv.clone()));
    let [q, k, v] = attn.heads.split(qkv.clone());
    same("q", flat(q.clone()));
    same("k", flat(k.clone()));
    same("v", flat(v.clone()));
    // Fused attention does not return scores: they are computed here from its queries, keys and
    // values.
    let later = Tensor::<2, Bool>::tril_mask([11, 11], 0, &flex)
        .unsqueeze::<4>()
        .expand([3, 3, 11, 11]);
    let scores =
        (q.clone().matmul(k.clone().transpose()) / 4.0).mask_fill(later, f32::NEG_INFINITY);
    same("att", flat(scores.clone()));
    let weights = softmax(scores, 3);
    same("attSm", flat(weights.clone()));
    same("y", flat(join(weights.matmul(v.clone()))));
    same(
        "y",
        flat(join(ops::attention(
            q.clone(),
            k.clone(),
            v.clone(),
            None,
            true,
        ))),
    );
    same("y", flat(join(attn.heads.attend_with_dropout(q, k, v))));
    let y = ops::self_attention(qkv, 3, true);
    same("y", flat(y.clone()));
    let projected = attn.c_proj.forward(y);
    same("yProj", flat(projected.clone()));
    same("yProj", flat(attn.forward(ln1)));
    let residual = x.clone() + projected;
    same("attnResid", flat(residual.clone()));
    let ln2 = ln_2.forward(residual.clone());
    same("ln2", flat(ln2.clone()));
    let fc = mlp.c_fc.forward(ln2.clone());
    same("fc", flat(fc.clone()));
    let gelu = mlp.activation.forward(fc);
    same("gelu", flat(gelu.clone()));
    same("mlp", flat(mlp.c_proj.forward(gelu)));
    let output = mlp.forward(ln2);
    same("mlp", flat(output.clone()));
    same("mlpResid", flat(residual + output));
    // The blocks, and the hidden states that the model returns.
    let mut states = vec![x];
    for (block, name) in h.iter().zip(["block0", "block1", "block2"]) {
        let x = block.forward(states[states.len() - 1].clone(), |attention, x| {
            attention.forward(x)
        });
        same(name, flat(x.clone()));
        states.push(x);
    }
    same("ln_f", flat(ln_f.forward(states.pop().unwrap())));
    for (state, name) in model
        .hidden_states(ids.clone())
        .into_iter()
        .zip(["x", "block0", "block1", "ln_f"])
    {
        same(name, flat(state));
    }
    let logits = model.forward(ids);
    same("lm_head", flat(logits.clone()));
    same("probs", flat(softmax(logits, 2)));
    assert!(left.is_empty(), "not compared: {left:?}");

    // The network sorts: after six letters it generates the same letters in order.
    let mut rng = Rng::new(1);
    for _ in 0..20 {
        let letters: Vec<u32> = (0..6).map(|_| rng.random_index(3) as u32).collect();
        let mut sorted = letters.clone();
        sorted.sort_unstable();
        // The context has eleven positions: the last letter is predicted from a full context.
        let config = GenerationConfig {
            max_new_tokens: Some(6),
            ..GenerationConfig::default()
        };
        let texts = TextGenerator::new(&model, config)
            .unwrap()
            .generate(std::slice::from_ref(&letters))
            .unwrap();
        assert_eq!(texts[0].new_tokens(), sorted, "{letters:?}");
    }
}

fn flat<const D: usize>(x: Tensor<D>) -> (Vec<f32>, Vec<usize>) {
    let dims = x.dims().to_vec();
    (x.into_data().iter::<f32>().collect(), dims)
}
