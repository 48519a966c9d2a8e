//! Textual inversion.

use super::File;
use crate::adapters::{Component, TextualInversion, expand_prompt};
use aigc_core::{rng::InitWeights, weights::save_tensors};
use aigc_encoders::{
    clip::{ClipTextConfig, ClipTextModel},
    tokenizer::ClipTokenizer,
};
use burn::tensor::Device;

/// A text encoder of this width, and its tokenizer.
fn encoder(width: usize) -> (ClipTokenizer, ClipTextModel) {
    let tokenizer = ClipTokenizer::from_words(["a photo of <toy> style"]).unwrap();
    let config = ClipTextConfig {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: width,
        intermediate_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        max_position_embeddings: 12,
        ..ClipTextConfig::default()
    };
    let model = config.init(&Device::flex()).unwrap().init_weights(1);
    (tokenizer, model)
}

#[test]
fn inversions_open_in_every_form() {
    let open = |tensors: &[(&str, &[usize])]| {
        let mut file = File::new();
        for (name, shape) in tensors {
            file.draw(name, shape);
        }
        let path = file.dir.path().join("style.safetensors");
        save_tensors(&file.tensors, &path).unwrap();
        TextualInversion::open(path)
    };
    for (tensors, token, count) in [
        (&[("<toy>", &[4][..])][..], "<toy>", 1),
        (&[("<toy>", &[3, 4])], "<toy>", 3),
        (&[("emb_params", &[2, 4])], "style", 2),
        (
            &[("string_to_param.*", &[2, 4]), ("other", &[1])],
            "style",
            2,
        ),
        (&[("clip_l", &[1, 4]), ("clip_g", &[2, 6])], "style", 2),
    ] {
        let inversion = open(tensors).unwrap();
        assert_eq!(
            (inversion.token(), inversion.tokens().len()),
            (token, count)
        );
        assert!(inversion.fits(Component::TextEncoder, 4));
    }
    let both = open(&[("clip_l", &[1, 4]), ("clip_g", &[2, 6])]).unwrap();
    assert!(both.fits(Component::TextEncoder2, 6) && !both.fits(Component::TextEncoder2, 4));
    assert!(!both.fits(Component::TextEncoder3, 4));
    for (tensors, reason) in [
        (&[][..], "0 tensors"),
        (
            &[("a", &[4][..]), ("b", &[4])],
            "2 tensors (a, b), expected one named as its token",
        ),
        (&[("a", &[1, 2, 4])], "a has the shape [1, 2, 4]"),
        (&[("emb_params", &[])], "emb_params has the shape []"),
        (
            &[("string_to_param.a", &[4]), ("string_to_param.b", &[4])],
            "several tokens",
        ),
        (&[(" ", &[4])], "the token is empty"),
        (&[("a", &[4097, 1])], "1 to 4096 rows"),
    ] {
        let error = open(tensors).unwrap_err().to_string();
        assert!(
            error.contains(reason) && error.contains("style.safetensors"),
            "{error}"
        );
    }
}

#[test]
fn tokens_with_several_vectors_are_expanded() {
    let mut file = File::new();
    let values = file.draw("<cat>", &[3, 4]);
    file.open().unwrap_err();
    let inversion = TextualInversion::open(file.path()).unwrap();
    let (mut tokenizer, model) = encoder(4);
    let size = tokenizer.vocab_size();
    let model = inversion
        .add_to(Component::TextEncoder, &mut tokenizer, model)
        .unwrap();
    let prompt = expand_prompt("a <cat> photo, <cat>", &tokenizer);
    assert_eq!(
        prompt,
        "a <cat> <cat>_1 <cat>_2 photo, <cat> <cat>_1 <cat>_2"
    );
    assert_eq!(expand_prompt("a photo", &tokenizer), "a photo");
    let ids = tokenizer.encode(&prompt).unwrap();
    let added: Vec<u32> = ids.into_iter().filter(|id| *id as usize >= size).collect();
    let first = size as u32;
    assert_eq!(
        added,
        [first, first + 1, first + 2, first, first + 1, first + 2]
    );
    let table = model.token_embeddings();
    assert_eq!(table.dims(), [size + 3, 4]);
    let rows = table.narrow(0, size, 3).into_data();
    assert!(rows.iter::<f64>().eq(values));
    // For a model of another width.
    let (mut tokenizer, other) = encoder(6);
    let component = Component::TextEncoder;
    let error = inversion
        .add_to(component, &mut tokenizer, other)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("have the width 4") && error.contains("have the width 6"),
        "{error}"
    );
    assert_eq!(tokenizer.vocab_size(), size);
}

/// Diffusers' directories have one file of a fixed name.
#[test]
fn directories_open() {
    let mut file = File::new();
    file.draw("<toy>", &[2, 4]);
    let path = file.dir.path().join("learned_embeds.safetensors");
    save_tensors(&file.tensors, &path).unwrap();
    let inversion = TextualInversion::open(file.dir.path()).unwrap();
    assert_eq!(inversion.tokens(), ["<toy>", "<toy>_1"]);
}

/// A token is refused if its prompts would be expanded by the token of something else.
#[test]
fn tokens_that_others_continue_are_refused() {
    let mut file = File::new();
    file.draw("<dog>", &[1, 4]);
    save_tensors(&file.tensors, &file.path()).unwrap();
    let inversion = TextualInversion::open(file.path()).unwrap();
    let (mut tokenizer, model) = encoder(4);
    tokenizer.add_tokens(&["<dog>_1"]).unwrap();
    let size = tokenizer.vocab_size();
    let error = inversion
        .add_to(Component::TextEncoder, &mut tokenizer, model)
        .unwrap_err()
        .to_string();
    assert!(error.contains("<dog>_1"), "{error}");
    assert_eq!(tokenizer.vocab_size(), size);
}
