//! Tests of T5's tokenizer.

use super::{
    T5Tokenizer, charsmap,
    model_proto::tests::{bytes, model, piece},
};
use aigc_core::Result;
use serde_json::json;
use std::path::Path;

/// A table that replaces `b` by `a`, and `c` by nothing.
fn table() -> Vec<u8> {
    // Of the 512 units, the root's children begin at 0, those of the nodes at 256.
    let mut units = vec![0u32; 512];
    for (byte, value) in [(b'b', 0), (b'c', 2)] {
        let node = usize::from(byte);
        let leaf = 256 + node;
        units[node] = ((leaf ^ node) as u32) << 10 | 1 << 8 | u32::from(byte);
        units[leaf] = 1 << 31 | value;
    }
    let trie = units.iter().flat_map(|unit| unit.to_le_bytes());
    [
        &2048u32.to_le_bytes()[..],
        &trie.collect::<Vec<_>>(),
        b"a\0\0",
    ]
    .concat()
}

fn open(file: &[u8]) -> Result<T5Tokenizer> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("spiece.model"), file).unwrap();
    T5Tokenizer::from_pretrained(dir.path())
}

#[test]
fn texts_become_pieces_with_marks() {
    let tokenizer = open(&model(&[])).unwrap();
    assert_eq!(tokenizer.vocab_size(), 108);
    assert_eq!((tokenizer.pad_token_id(), tokenizer.eos_token_id()), (0, 1));
    for (text, ids) in [
        ("", &[][..]),
        (" a\n a", &[5, 5][..]),
        ("aa", &[5, 4][..]),
        ("é", &[3, 6][..]),
        // Unknown characters are one token.
        ("xyz", &[3, 2][..]),
        // Added tokens are found first.
        ("a<new>a", &[5, 7, 5][..]),
        ("</s>", &[1][..]),
        ("<extra_id_99>", &[8][..]),
        ("<extra_id_0>", &[107][..]),
    ] {
        assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text:?}");
    }
    assert_eq!(tokenizer.decode(&[5, 4, 2, 6, 1, 0]), "aaé");
}

/// Characters that no piece has are the bytes of their UTF-8, if the file says so.
#[test]
fn unknown_characters_become_bytes() {
    let pieces = [piece("<0xC3>", 0.0, 6), piece("<0x9F>", 0.0, 6)].concat();
    let file = [&model(&[])[..], &pieces, &bytes(2, &[0x98, 2, 1])].concat();
    let check = |tokenizer: &T5Tokenizer| {
        let ids = [5, 8, 9, 3, 8, 9];
        assert_eq!(tokenizer.encode("aß ß").unwrap(), ids);
        assert_eq!(tokenizer.decode(&ids), "aß ß");
        // Half a character.
        assert_eq!(tokenizer.decode(&[5, 8]), "a\u{fffd}");
        // A byte that has no piece.
        assert_eq!(tokenizer.encode("x").unwrap(), [3, 2]);
    };
    let tokenizer = open(&file).unwrap();
    check(&tokenizer);
    let dir = tempfile::tempdir().unwrap();
    tokenizer.save_pretrained(dir.path()).unwrap();
    check(&T5Tokenizer::from_pretrained(dir.path()).unwrap());
    // Without the flag they are unknown.
    let plain = open(&[&model(&[])[..], &pieces].concat()).unwrap();
    assert_eq!(plain.encode("aß").unwrap(), [5, 2]);
}

#[test]
fn characters_are_replaced_first() {
    let tokenizer = open(&model(&table())).unwrap();
    assert_eq!(tokenizer.encode("bcb").unwrap(), [5, 4]);
    assert!(tokenizer.encode("c").unwrap().is_empty());
}

#[test]
fn texts_are_padded_and_cut() {
    let tokenizer = open(&model(&[])).unwrap();
    let batch = tokenizer.encode_padded(&["a", "a a aé?", ""], 4).unwrap();
    assert_eq!(batch.ids, [[5, 1, 0, 0], [5, 5, 5, 1], [1, 0, 0, 0]]);
    let mask = [
        [true, true, false, false],
        [true; 4],
        [true, false, false, false],
    ];
    assert_eq!(batch.attention_mask, mask);
    assert_eq!(batch.cut, [None, Some("é<unk>".into()), None]);
    for length in [0, usize::MAX] {
        let message = tokenizer.encode_padded(&["a"], length).unwrap_err();
        let expected = format!("`max_length` is {length}, expected 1 (the end of a prompt) to");
        assert!(message.to_string().contains(&expected), "{message}");
    }
}

#[test]
fn saved_tokenizers_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("spiece.model"), model(&table())).unwrap();
    let config = json!({
        "extra_ids": 2,
        "model_max_length": 77,
        "additional_special_tokens": ["<extra_id_0>", "<extra_id_1>", {"content": "<last>"}],
    });
    std::fs::write(path("tokenizer_config.json"), config.to_string()).unwrap();
    let tokenizer = T5Tokenizer::from_pretrained(dir.path()).unwrap();
    assert_eq!(tokenizer.model_max_length(), Some(77));
    let text = "a b\u{a0}<extra_id_1>é <new> <last>c?";
    let ids = [5, 5, 8, 3, 6, 7, 10, 3, 2];
    assert_eq!(tokenizer.encode(text).unwrap(), ids);
    let other = tempfile::tempdir().unwrap();
    tokenizer.save_pretrained(other.path()).unwrap();
    let whole = T5Tokenizer::from_pretrained(other.path()).unwrap();
    assert_eq!(whole.encode(text).unwrap(), ids);
    assert_eq!(whole.model_max_length(), Some(77));
    // The same from the SentencePiece model alone.
    assert!(other.path().join("spiece.model").is_file());
    std::fs::remove_file(other.path().join("tokenizer.json")).unwrap();
    let pieces = T5Tokenizer::from_pretrained(other.path()).unwrap();
    assert_eq!(pieces.encode("a b").unwrap(), [5, 5]);
    assert_eq!(pieces.vocab_size(), 10);
}

/// Every file cut short is an error that names the file, never a panic.
#[test]
fn truncated_models_are_refused() {
    let file = model(&table());
    assert!(open(&file).is_ok());
    for length in 0..file.len() {
        let message = open(&file[..length]).unwrap_err().to_string();
        assert!(message.contains("spiece.model: "), "{length}: {message}");
    }
}

#[test]
fn other_models_are_refused() {
    let message = |extra: &[u8]| {
        let file = [&model(&[])[..], extra].concat();
        open(&file).unwrap_err().to_string()
    };
    // `trainer_spec` may come in parts.
    for (field, expected) in [
        (&[3 << 3, 2][..], "model_type is 2, expected 1 (unigram)"),
        (&[0xc0, 2, 200, 1][..], "unk_id is 200, of 108 pieces"),
    ] {
        let message = message(&bytes(2, field));
        assert!(message.contains(expected), "{message}");
    }
    let dir = tempfile::tempdir().unwrap();
    let message = T5Tokenizer::from_pretrained(dir.path())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("no tokenizer.json and no spiece.model"),
        "{message}"
    );
}

#[test]
fn broken_json_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    open_saved(dir.path());
    let text = std::fs::read_to_string(path("tokenizer.json")).unwrap();
    let whole: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (pointer, value, expected) in [
        ("/model/type", json!("BPE"), "model.type is \"BPE\""),
        (
            "/model/vocab/4",
            json!(["a"]),
            "entry 4 of model.vocab is [\"a\"]",
        ),
        ("/model/vocab/4", json!(["", 1.0]), "entry 4 of model.vocab"),
        ("/model/vocab", json!([]), "unk_id is 2, of 0 pieces"),
        ("/model/unk_id", json!(null), "model.unk_id is null"),
        (
            "/model/byte_fallback",
            json!("yes"),
            "model.byte_fallback is \"yes\"",
        ),
        (
            "/added_tokens/0",
            json!({"id": 0}),
            "added_tokens has the entry",
        ),
        (
            "/added_tokens/0/content",
            json!("<other>"),
            "the added token \"<other>\" has the id 0",
        ),
        (
            "/normalizer/precompiled_charsmap",
            json!("AAA"),
            "precompiled_charsmap: ",
        ),
    ] {
        let mut broken = whole.clone();
        *broken.pointer_mut(pointer).unwrap() = value;
        std::fs::write(path("tokenizer.json"), broken.to_string()).unwrap();
        let message = T5Tokenizer::from_pretrained(dir.path())
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("tokenizer.json: ") && message.contains(expected),
            "{pointer}: {message}"
        );
    }
}

/// A directory with the files that are written.
fn open_saved(dir: &Path) {
    let tokenizer = open(&model(&table())).unwrap();
    tokenizer.save_pretrained(dir).unwrap();
}

#[test]
fn broken_tables_are_refused() {
    let whole = table();
    charsmap::check(&whole).unwrap();
    // What is left of the replacements may be enough, as a table may have none.
    for length in 0..whole.len() - 3 {
        assert!(charsmap::check(&whole[..length]).is_err(), "{length} bytes");
    }
    let changed = |at: usize, value: u32| {
        let mut table = whole.clone();
        table[4 + 4 * at..][..4].copy_from_slice(&value.to_le_bytes());
        charsmap::check(&table).unwrap_err()
    };
    // The root's children, and those of `b`, outside the trie.
    assert!(changed(0, 600 << 10).contains("of 512 units"));
    let node = usize::from(b'b');
    assert!(changed(node, 600 << 10 | u32::from(b'b')).contains("of 512 units"));
    assert!(changed(256 + node, 1 << 31 | 4).contains("a replacement at byte 4 of 3"));
    let empty = charsmap::check(&[0; 4]).unwrap_err();
    assert_eq!(empty, "an empty trie");
    let huge = [&u32::MAX.to_le_bytes()[..], &[0; 16]].concat();
    assert!(charsmap::check(&huge).unwrap_err().contains("a trie of"));
    // A node that is its own child.
    let mut circle = whole.clone();
    let unit = 1u32 << 10 | u32::from(b'c');
    circle[4 + 4 * usize::from(b'c')..][..4].copy_from_slice(&unit.to_le_bytes());
    assert!(charsmap::check(&circle).is_ok());
}
