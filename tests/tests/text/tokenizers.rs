//! Tokenizers: round trips, references, broken files.

use super::*;

/// Texts of any characters, some of several bytes, some that come many times; and of bytes that
/// have nothing to do with text.
fn any_text(rng: &mut Rng) -> String {
    if rng.random_index(8) == 0 {
        let bytes: Vec<u8> = (0..rng.random_index(100))
            .map(|_| rng.random_index(256) as u8)
            .collect();
        return String::from_utf8_lossy(&bytes).into_owned();
    }
    let ranges = [
        (0x20, 0x7e),
        (0xa0, 0x2ff),
        (0x4e00, 0x9fff),
        (0x1f300, 0x1faff),
        (0, 0x1f),
        (0x300, 0x36f),
        (0x590, 0x6ff),
        (0x2000, 0x206f),
        (0xd7f0, 0xe010),
        (0xfff0, 0x10010),
        (0, 0x10ffff),
    ];
    let n = rng.random_index(40);
    let text: String = (0..n)
        .filter_map(|_| {
            let (low, high) = ranges[rng.random_index(ranges.len())];
            char::from_u32((low + rng.random_index(high - low + 1)) as u32)
        })
        .collect();
    text.repeat(if rng.random_index(10) == 0 {
        rng.random_index(200)
    } else {
        1
    })
}

#[test]
fn tokenizer_round_trips_any_text() {
    let mut rng = Rng::new(3);
    let corpus: Vec<String> = (0..200).map(|_| any_text(&mut rng)).collect();
    let trained = BpeTokenizer::train(corpus.iter(), 400).unwrap();
    assert!(
        trained.vocab_size() > 257 && trained.vocab_size() <= 400,
        "{}",
        trained.vocab_size()
    );
    assert!(BpeTokenizer::train(corpus.iter(), 256).is_err());
    let folder = tempfile::tempdir().unwrap();
    trained.save_pretrained(folder.path()).unwrap();
    let opened = BpeTokenizer::from_pretrained(folder.path()).unwrap();
    let gpt2 = gpt2_tokenizer();
    let special = [
        "<|endoftext|>",
        "a <|endoftext|>b<|endoftext|",
        "<|endoftext|><|endoftext|>",
    ]
    .map(String::from);
    for text in special
        .into_iter()
        .chain((0..1000).map(|_| any_text(&mut rng)))
    {
        let tokens = trained.encode(&text).unwrap();
        assert_eq!(tokens, opened.encode(&text).unwrap());
        for tokenizer in [&trained, &opened].into_iter().chain(&gpt2) {
            let tokens = tokenizer.encode(&text).unwrap();
            assert_eq!(tokenizer.decode(&tokens), text);
            let mut stream = DecodeStream::new(tokenizer);
            let pieces: String = tokens.iter().map(|token| stream.step(*token)).collect();
            assert_eq!(pieces + &stream.finish(), text);
        }
    }
}

#[test]
fn tokenizer_matches_openai_vocabulary() {
    let Some(tokenizer) = gpt2_tokenizer() else {
        return;
    };
    assert_eq!(tokenizer.vocab_size(), 50_257);
    assert_eq!(tokenizer.eos_token_id(), Some(50_256));
    assert_eq!(tokenizer.encode("Hello world").unwrap(), [15_496, 995]);
    assert_eq!(tokenizer.encode("<|endoftext|>").unwrap(), [50_256]);
    // The ranks of the public vocabulary: every token's bytes.
    let ranks = folder_from("AIGC_DATA")
        .unwrap()
        .join("gpt2-tokenizer/r50k_base.tiktoken");
    let text = std::fs::read_to_string(ranks).unwrap();
    let mut count = 0;
    for line in text.lines() {
        let (bytes, rank) = line.split_once(' ').unwrap();
        assert_eq!(
            tokenizer.token_bytes(rank.parse().unwrap()),
            BASE64_STANDARD.decode(bytes).unwrap(),
            "{line}"
        );
        count += 1;
    }
    assert_eq!(count, 50_256);
}

/// SHA-256 of tokens, four bytes each.
fn digest(tokens: &[u32]) -> String {
    let bytes: Vec<u8> = tokens
        .iter()
        .flat_map(|token| token.to_le_bytes())
        .collect();
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Whole corpora, every character there is, and awkward texts (`tests/reference/gpt2_tokens.py`).
#[test]
fn tokenizer_matches_tiktoken_and_transformers() {
    let Some(tokenizer) = gpt2_tokenizer() else {
        return;
    };
    let json = std::fs::read(own_fixtures().join("text/gpt2-tokens.json")).unwrap();
    let expected: Value = serde_json::from_slice(&json).unwrap();
    let object = |name: &str| expected[name].as_object().unwrap();
    let encode = |text: &str| tokenizer.encode(text).unwrap();

    let texts = object("texts");
    assert!(texts.len() > 120, "{}", texts.len());
    for (text, tokens) in texts {
        let found: Vec<String> = encode(text).iter().map(u32::to_string).collect();
        assert_eq!(found.join(" "), tokens.as_str().unwrap(), "{text:?}");
    }
    let runs = expected["runs"].as_array().unwrap();
    assert!(runs.len() > 80, "{}", runs.len());
    for run in runs {
        let tokens = encode(
            &run["text"]
                .as_str()
                .unwrap()
                .repeat(run["times"].as_u64().unwrap() as usize),
        );
        assert_eq!(
            (run["tokens"].clone(), run["digest"].clone()),
            (tokens.len().into(), digest(&tokens).into()),
            "{run}"
        );
    }
    let planes = expected["planes"].as_array().unwrap();
    assert_eq!(planes.len(), 17);
    for (plane, expected) in planes.iter().enumerate() {
        let characters = (0..0x10000).filter_map(|at| char::from_u32((plane << 16 | at) as u32));
        let tokens: Vec<u32> = characters
            .flat_map(|c| encode(&format!("a{c}1{c}{c} {c}'s{c} \n")))
            .collect();
        assert_eq!(
            &digest(&tokens),
            expected.as_str().unwrap(),
            "characters from {plane:x}0000 on"
        );
    }
    let data = folder_from("AIGC_DATA").unwrap();
    assert_eq!(object("files").len(), 5);
    for (name, expected) in object("files") {
        let Ok(text) = std::fs::read_to_string(data.join(name)) else {
            aigc_tests::skip(&format!("AIGC_DATA has no {name}"));
            continue;
        };
        let lines: Vec<Vec<u32>> = text.split_inclusive('\n').map(encode).collect();
        let marked: Vec<u32> = lines
            .iter()
            .flat_map(|line| line.iter().copied().chain([u32::MAX]))
            .collect();
        let whole = encode(&text);
        let found = serde_json::json!({
            "lines": lines.len(), "tokens_of_lines": marked.len() - lines.len(), "digest_of_lines": digest(&marked),
            "tokens": whole.len(), "digest": digest(&whole),
        });
        assert_eq!(&found, expected, "{name}");
        println!("{name}: {} lines, {} tokens", lines.len(), whole.len());
    }
}

#[test]
fn broken_tokenizer_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let says = |path: &Path| {
        aigc_text::tokenizer::from_pretrained(path)
            .err()
            .expect("an error")
            .to_string()
    };
    assert!(says(folder.path()).contains("tokenizer.json"));
    std::fs::write(folder.path().join("vocab.json"), "{").unwrap();
    std::fs::write(folder.path().join("merges.txt"), "#version\na b\n").unwrap();
    assert!(says(folder.path()).contains("vocab.json"));
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    assert!(says(folder.path()).contains("tokenizer.json"));
    std::fs::write(folder.path().join("characters.json"), "\"abca\"").unwrap();
    assert!(says(folder.path()).contains("characters.json"));
    let letters = CharacterTokenizer::from_text("hello");
    assert!(
        letters
            .encode("hex")
            .unwrap_err()
            .to_string()
            .contains("'x'")
    );
    letters.save_pretrained(folder.path()).unwrap();
    assert_eq!(
        CharacterTokenizer::from_pretrained(folder.path()).unwrap(),
        letters
    );
}
