//! Symbols of texts.

use super::*;

fn tokenizer(change: impl FnOnce(&mut VitsTokenizerConfig)) -> VitsTokenizer {
    let symbols = ["<pad>", " ", "a", "b", "c", "'", "<unk>"];
    let mut config = VitsTokenizerConfig {
        vocab: symbols.iter().map(|s| s.to_string()).zip(0..).collect(),
        ..VitsTokenizerConfig::default()
    };
    change(&mut config);
    VitsTokenizer::new(config).unwrap()
}

#[test]
fn unknown_characters_are_named_or_left_out() {
    let strict = tokenizer(|config| config.add_blank = false);
    assert_eq!(strict.encode("A b'c").unwrap(), [2, 1, 3, 5, 4]);
    let message = strict.encode("b, é!").unwrap_err().to_string();
    assert!(message.contains("`text` is ',', 'é', '!'"), "{message}");
    let lax = strict.with_unknown(UnknownCharacters::Replace);
    let tokens = lax.encode_with_report(" b, é!").unwrap();
    assert_eq!((tokens.ids, tokens.unknown), (vec![3], vec![',', 'é', '!']));
    let cased = tokenizer(|config| {
        config.add_blank = false;
        config.normalize = false;
    });
    let cased = cased.with_unknown(UnknownCharacters::Replace);
    assert_eq!(cased.encode(" Ab").unwrap(), [1, 6, 3]);
}

#[test]
fn blanks_surround_every_symbol() {
    let blanks = tokenizer(|_| ());
    assert_eq!(blanks.encode("ab").unwrap(), [0, 2, 0, 3, 0]);
    assert!(blanks.has_symbols(&[0, 2, 0]) && !blanks.has_symbols(&blanks.encode(" ").unwrap()));
    let batch = blanks.encode_batch(&["ab", "c"]).unwrap();
    assert_eq!(batch.ids, [[0, 2, 0, 3, 0], [0, 4, 0, 0, 0]]);
    assert_eq!(batch.lengths, [5, 3]);
    let plain = tokenizer(|config| config.add_blank = false);
    let message = plain.encode_batch(&["a", " "]).unwrap_err().to_string();
    assert!(message.contains("text 1"), "{message}");
}

#[test]
fn lexicons_spell_words() {
    let text = "abba a b b a\ncab c ' b\nabba c\n";
    let lexicon = Lexicon::from_text(text).unwrap();
    let plain = tokenizer(|config| config.add_blank = false);
    let spoken = plain.clone().with_lexicon(lexicon.clone()).unwrap();
    assert_eq!(
        spoken.encode("Abba  cab bc").unwrap(),
        [2, 3, 3, 2, 1, 4, 5, 3, 1, 3, 4]
    );
    let wrong = Lexicon::from_text("word a x").unwrap();
    let message = plain.with_lexicon(wrong).unwrap_err().to_string();
    assert!(message.contains("`x` in the word `word`"), "{message}");

    let phonemes = tokenizer(|config| config.phonemize = true);
    let message = phonemes.encode("abba").unwrap_err().to_string();
    assert!(message.contains("with_lexicon"), "{message}");
    let phonemes = phonemes.with_lexicon(lexicon).unwrap();
    let message = phonemes.encode("abba bb").unwrap_err().to_string();
    assert!(message.contains("the word `bb`"), "{message}");
}

#[test]
fn directories_open_as_they_were_saved() {
    let dir = tempfile::tempdir().unwrap();
    let saved = tokenizer(|config| config.language = Some("eng".into()));
    saved.save_pretrained(dir.path()).unwrap();
    assert_eq!(VitsTokenizer::from_pretrained(dir.path()).unwrap(), saved);
    std::fs::write(dir.path().join(VOCAB), r#"{"<pad>": 0, "a": 0}"#).unwrap();
    let message = VitsTokenizer::from_pretrained(dir.path())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("vocab.json") && message.contains("`a` and"),
        "{message}"
    );
    std::fs::write(dir.path().join(VOCAB), r#"{"<pad>": -1}"#).unwrap();
    let message = VitsTokenizer::from_pretrained(dir.path())
        .unwrap_err()
        .to_string();
    assert!(message.contains("`<pad>` is -1"), "{message}");
}

/// Romanian has letters that older texts write with another mark.
#[test]
fn alphabets_of_voices_are_respected() {
    let roman = tokenizer(|config| config.is_uroman = true);
    let message = roman.encode("aж").unwrap_err().to_string();
    assert!(message.contains("romanise"), "{message}");
    let mut config = VitsTokenizerConfig {
        language: Some("ron".into()),
        add_blank: false,
        ..VitsTokenizerConfig::default()
    };
    config.vocab = [("<pad>".to_owned(), 0), ("ţ".to_owned(), 1)].into();
    let romanian = VitsTokenizer::new(config).unwrap();
    assert_eq!(romanian.encode("țŢȚ").unwrap(), [1, 1, 1]);
}
