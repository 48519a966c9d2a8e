use super::{
    files::{MERGES, VOCABULARY},
    *,
};
use crate::tokenizer::files::WHOLE;

const TEXTS: [&str; 2] = ["A red circle above two blue squares.", "a red square"];

#[test]
fn words_are_single_tokens() {
    let tokenizer = ClipTokenizer::from_words(TEXTS).unwrap();
    for text in TEXTS {
        let words = text.split(' ').count() + text.matches('.').count();
        assert_eq!(tokenizer.encode(text).unwrap().len(), words);
        let ids = tokenizer.encode(text).unwrap();
        let expected = text.to_lowercase().replace('.', " .");
        assert_eq!(tokenizer.decode(&ids), expected);
    }
    // Unknown letters become the end of a text, known ones tokens.
    let ids = tokenizer.encode("rez").unwrap();
    assert_eq!(ids.last(), Some(&tokenizer.eos_token_id()));
    assert_eq!(
        tokenizer.eos_token_id() as usize,
        tokenizer.vocab_size() - 1
    );
}

#[test]
fn trained_vocabulary_encodes_every_text() {
    let tokenizer = ClipTokenizer::train(TEXTS, 520).unwrap();
    assert_eq!(tokenizer.vocab_size(), 520);
    let ids = tokenizer.encode("Žluťoučký 猫 red").unwrap();
    assert_eq!(tokenizer.decode(&ids), "žluťoučký 猫 red");
    let message = ClipTokenizer::train(TEXTS, 500).unwrap_err().to_string();
    assert!(message.contains("`vocab_size` is 500"), "{message}");
}

#[test]
fn prompts_are_cut_and_padded() {
    let tokenizer = ClipTokenizer::from_words(TEXTS).unwrap();
    let tokenizer = tokenizer.with_max_length(5).unwrap();
    let (bos, eos) = (tokenizer.bos_token_id(), tokenizer.eos_token_id());
    let red = tokenizer.token_id("red</w>").unwrap();
    let batch = tokenizer
        .encode_padded(&["", "red", "red red red  two RED"])
        .unwrap();
    assert_eq!(batch.ids[0], [bos, eos, eos, eos, eos]);
    assert_eq!(batch.ids[1], [bos, red, eos, eos, eos]);
    assert_eq!(batch.ids[2], [bos, red, red, red, eos]);
    assert_eq!(batch.attention_mask[1], [true, true, true, false, false]);
    assert_eq!(batch.cut, [None, None, Some("two red".into())]);
    let padded = tokenizer.clone().with_pad_token("red</w>").unwrap();
    assert_eq!(padded.encode_padded(&[""]).unwrap().ids[0][2..], [red; 3]);
    assert!(tokenizer.clone().with_pad_token("cat").is_err());
    let message = tokenizer.with_max_length(1).unwrap_err().to_string();
    assert!(message.contains("`max_length` is 1"), "{message}");
}

#[test]
fn added_tokens_are_found_and_saved() {
    let mut tokenizer = ClipTokenizer::from_words(TEXTS).unwrap();
    let size = tokenizer.vocab_size() as u32;
    let ids = tokenizer.add_tokens(&["<Cat-Toy>", "<dog>"]).unwrap();
    assert_eq!(ids, [size, size + 1]);
    let red = tokenizer.token_id("red</w>").unwrap();
    let text = "red <cat-toy> red<DOG>";
    let expected = [red, ids[0], red, ids[1]];
    assert_eq!(tokenizer.encode(text).unwrap(), expected);
    for (token, known) in [("<dog>", "<dog>"), ("<CAT-toy>", "<CAT-toy>"), ("", "")] {
        let message = tokenizer.add_tokens(&["<new>", token]).unwrap_err();
        assert!(message.to_string().contains(known), "{message}");
    }
    assert_eq!(tokenizer.token_id("<new>"), None);

    let dir = tempfile::tempdir().unwrap();
    tokenizer.save_pretrained(dir.path()).unwrap();
    let saved = ClipTokenizer::from_pretrained(dir.path()).unwrap();
    assert_eq!(saved.encode(text).unwrap(), expected);
    assert_eq!(saved.vocab_size(), tokenizer.vocab_size());
}

#[test]
fn broken_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let message = |files: &[(&str, &str)]| {
        for name in [WHOLE, VOCABULARY, MERGES] {
            let _ = std::fs::remove_file(dir.path().join(name));
        }
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let opened = ClipTokenizer::from_pretrained(dir.path());
        opened.unwrap_err().to_string()
    };
    let vocab = r#"{"a": 0, "b</w>": 1, "<|endoftext|>": 2}"#;
    let long = format!("{} b</w>", "a".repeat(100));
    let whole = r#"{"model": {"type": "BPE", "vocab": {}, "merges": []}}"#;
    let far = r#"{"a": 0, "<|startoftext|>": 1, "<|endoftext|>": 4294967295}"#;
    // Behind three tokens would be the id of `a`.
    let gap = r#"{"a": 3, "b": 0, "<|endoftext|>": 1}"#;
    let cases: [(&[(&str, &str)], &str); 9] = [
        (&[], "no tokenizer.json, and no vocab.json with merges.txt"),
        (&[(VOCABULARY, vocab)], "no vocab.json with merges.txt"),
        (&[(VOCABULARY, "{"), (MERGES, "")], "vocab.json: not JSON"),
        (
            &[(VOCABULARY, vocab), (MERGES, "a b</w>")],
            "the merge `a b</w>` gives no token",
        ),
        (&[(VOCABULARY, vocab), (MERGES, &long)], "gives no token"),
        (&[(VOCABULARY, vocab), (MERGES, "ab")], "the merge \"ab\""),
        (&[(WHOLE, whole)], "not CLIP's tokenizer"),
        (
            &[(VOCABULARY, far), (MERGES, "")],
            "\"<|endoftext|>\" has the id 4294967295, expected below 16777216",
        ),
        (
            &[(VOCABULARY, gap), (MERGES, "")],
            "\"<|startoftext|>\" gets the id of \"a\"",
        ),
    ];
    for (files, expected) in cases {
        let message = message(files);
        assert!(message.contains(expected), "{message}");
    }
    // A vocabulary without an end.
    let none = ClipTokenizer::from_vocabulary(HashMap::new(), vec![]).unwrap_err();
    assert!(none.to_string().contains("unk_token"), "{none}");
}
