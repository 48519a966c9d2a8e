//! Tests of grammars against enumerated texts and an independent matcher.

use super::*;
use aigc_core::rng::Rng;
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::Path, time::Instant};

/// A tokenizer of arbitrary byte sequences.
struct Pieces(Vec<Vec<u8>>);

impl Pieces {
    fn of(pieces: &[&str]) -> Self {
        Self(
            pieces
                .iter()
                .map(|piece| piece.as_bytes().to_vec())
                .collect(),
        )
    }

    /// All bytes, and additional pieces.
    fn bytes_and(pieces: &[&str]) -> Self {
        let bytes = (0..=255u8).map(|byte| vec![byte]);
        Self(
            bytes
                .chain(pieces.iter().map(|piece| piece.as_bytes().to_vec()))
                .collect(),
        )
    }
}

impl Tokenizer for Pieces {
    fn encode(&self, _: &str) -> Result<Vec<u32>> {
        Err(Error::config(
            "text",
            "any",
            "none: these tokens are for their bytes",
        ))
    }

    fn token_bytes(&self, token: u32) -> Vec<u8> {
        self.0.get(token as usize).cloned().unwrap_or_default()
    }

    fn vocab_size(&self) -> usize {
        self.0.len()
    }

    fn is_special(&self, token: u32) -> bool {
        self.token_bytes(token).starts_with(b"<|")
    }

    fn save_pretrained(&self, _: &Path) -> Result<()> {
        Ok(())
    }
}

/// Which of `count` tokens are allowed after `tokens`.
fn allowed(pattern: &mut GrammarConstraint, tokens: &[u32], count: usize) -> Result<Vec<usize>> {
    let mut scores = vec![0.0; count];
    pattern.process(
        GenerationState {
            tokens,
            prompt_len: 0,
            prompt_index: 0,
            padding: 0,
        },
        &mut scores,
    )?;
    Ok((0..count).filter(|token| scores[*token] == 0.0).collect())
}

/// A regular expression with an exhaustive matcher.
enum Expression {
    Byte(u8),
    Both(Box<Expression>, Box<Expression>),
    Either(Box<Expression>, Box<Expression>),
    Times(Box<Expression>, usize, usize, &'static str),
}

impl Expression {
    fn random(rng: &mut Rng, size: usize) -> Self {
        if size <= 1 {
            return Expression::Byte(b"ab"[rng.random_index(2)]);
        }
        let left = 1 + rng.random_index(size - 1);
        match rng.random_index(5) {
            0 | 1 => Expression::Both(
                Self::random(rng, left).into(),
                Self::random(rng, size - left).into(),
            ),
            2 => Expression::Either(
                Self::random(rng, left).into(),
                Self::random(rng, size - left).into(),
            ),
            _ => {
                let kinds: [(usize, usize, &str); 7] = [
                    (0, 99, "*"),
                    (1, 99, "+"),
                    (0, 1, "?"),
                    (0, 99, "*?"),
                    (1, 99, "+?"),
                    (0, 1, "??"),
                    (1, 2, "{1,2}"),
                ];
                let (least, most, sign) = kinds[rng.random_index(kinds.len())];
                Expression::Times(Self::random(rng, size - 1).into(), least, most, sign)
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Expression::Byte(byte) => char::from(*byte).to_string(),
            Expression::Both(a, b) => format!("{}{}", a.text(), b.text()),
            Expression::Either(a, b) => format!("({}|{})", a.text(), b.text()),
            Expression::Times(a, _, _, sign) => format!("(?:{}){sign}", a.text()),
        }
    }

    /// Positions where a match that begins at `from` may end.
    fn ends(&self, text: &[u8], from: usize) -> BTreeSet<usize> {
        match self {
            Expression::Byte(byte) => (text.get(from) == Some(byte))
                .then_some(from + 1)
                .into_iter()
                .collect(),
            Expression::Both(a, b) => a
                .ends(text, from)
                .into_iter()
                .flat_map(|at| b.ends(text, at))
                .collect(),
            Expression::Either(a, b) => &a.ends(text, from) | &b.ends(text, from),
            Expression::Times(a, least, most, _) => {
                let (mut ends, mut at) = (BTreeSet::new(), BTreeSet::from([from]));
                for times in 0..=*most {
                    if times >= *least {
                        // Only positions that were not reached before can lead to new ones.
                        if at.is_subset(&ends) {
                            break;
                        }
                        ends.extend(&at);
                    }
                    at = at.into_iter().flat_map(|at| a.ends(text, at)).collect();
                }
                ends
            }
        }
    }

    fn matches(&self, text: &[u8]) -> bool {
        self.ends(text, 0).contains(&text.len())
    }
}

/// All texts of the pieces with at most `most` bytes.
fn texts_of(pieces: &[Vec<u8>], most: usize) -> BTreeSet<Vec<u8>> {
    let mut all = BTreeSet::new();
    let mut last = BTreeSet::from([Vec::new()]);
    while !last.is_empty() {
        all.extend(last.iter().cloned());
        let longer = |text: Vec<u8>| {
            pieces
                .iter()
                .map(move |piece| [&text[..], &piece[..]].concat())
        };
        last = last
            .into_iter()
            .flat_map(longer)
            .filter(|text| text.len() <= most)
            .collect();
    }
    all
}

#[test]
fn masks_match_exhaustive_search() {
    let mut rng = Rng::new(11);
    let own = ["ab", "ba", "aab", "bbb"];
    let (mut seen, mut ended) = (0, 0);
    for round in 0..120 {
        let pieces = if round % 2 == 0 {
            Pieces::of(&["a", "b"])
        } else {
            Pieces::bytes_and(&own)
        };
        let is_useful = |piece: &&Vec<u8>| piece.iter().all(|byte| b"ab".contains(byte));
        // With at most as many bytes as the rest of a text.
        let every = texts_of(&[b"a".to_vec(), b"b".to_vec()], 8);
        let size = 1 + rng.random_index(5);
        let expression = Expression::random(&mut rng, size);
        let end = pieces.0.len();
        let can_match = |start: &[u8]| {
            every
                .iter()
                .any(|rest| expression.matches(&[start, rest].concat()))
        };
        let mut pattern =
            GrammarConstraint::regex(&expression.text(), &pieces, &[end as u32]).unwrap();
        let mut tokens = Vec::new();
        for _ in 0..4 {
            let text: Vec<u8> = tokens
                .iter()
                .flat_map(|token| pieces.token_bytes(*token))
                .collect();
            let may_follow = |token: &usize| match pieces.0.get(*token) {
                Some(piece) => is_useful(&piece) && can_match(&[&text[..], &piece[..]].concat()),
                None => expression.matches(&text),
            };
            let expected: Vec<usize> = (0..=end).filter(may_follow).collect();
            let got = allowed(&mut pattern, &tokens, end + 1).unwrap();
            assert_eq!(
                got,
                expected,
                "{} after {:?}",
                expression.text(),
                String::from_utf8_lossy(&text)
            );
            seen += 1;
            match got[rng.random_index(got.len())] {
                token if token == end => {
                    ended += 1;
                    break;
                }
                token => tokens.push(token as u32),
            }
        }
    }
    assert!(seen > 200 && ended > 10, "{seen} {ended}");
}

#[test]
fn special_and_empty_tokens_are_masked() {
    let pieces = Pieces::of(&["<", "|", "<|x|>", "", "<<", "x"]);
    let mut pattern = GrammarConstraint::regex(r"[<|x>]*", &pieces, &[5]).unwrap();
    // The last token ends; the seventh score belongs to no token.
    assert_eq!(allowed(&mut pattern, &[], 7).unwrap(), [0, 1, 4, 5]);
    assert_eq!(allowed(&mut pattern, &[0], 7).unwrap(), [0, 1, 4, 5]);
    // Without tokens for a part of the pattern, the error appears where the part is reached.
    let mut pattern = GrammarConstraint::regex("<(?:xy|x)", &pieces, &[5]).unwrap();
    assert_eq!(allowed(&mut pattern, &[], 7).unwrap(), [0]);
    assert!(
        GrammarConstraint::regex("y", &pieces, &[5])
            .err()
            .unwrap()
            .to_string()
            .contains("no token may follow")
    );
}

#[test]
fn finished_sequences_are_unconstrained() {
    let pieces = Pieces::bytes_and(&[]);
    let mut pattern = GrammarConstraint::regex("a+", &pieces, &[256]).unwrap();
    assert_eq!(allowed(&mut pattern, &[97, 256], 257).unwrap().len(), 257);
    assert_eq!(
        allowed(&mut pattern, &[97, 256, 5], 257).unwrap().len(),
        257
    );
    // The text of the prompt does not matter.
    let mut scores = vec![0.0; 257];
    pattern
        .process(
            GenerationState {
                tokens: &[256, 3],
                prompt_len: 2,
                prompt_index: 0,
                padding: 0,
            },
            &mut scores,
        )
        .unwrap();
    assert_eq!(
        (0..257)
            .filter(|token| scores[*token] == 0.0)
            .collect::<Vec<_>>(),
        [97]
    );
}

#[test]
fn dead_ends_are_errors() {
    let pieces = Pieces::bytes_and(&[]);
    let mut pattern = GrammarConstraint::regex("ab", &pieces, &[]).unwrap();
    assert_eq!(allowed(&mut pattern, &[97], 257).unwrap(), [98]);
    let error = allowed(&mut pattern, &[97, 98], 257)
        .unwrap_err()
        .to_string();
    assert!(error.contains("`end` is empty"), "{error}");
    let error = allowed(&mut pattern, &[98], 257).unwrap_err().to_string();
    assert!(error.contains("token 0 of the text"), "{error}");
    // A constraint to tokens that the pattern forbids, and scores that are not numbers.
    for value in [f32::NEG_INFINITY, f32::NAN] {
        let mut scores = vec![0.0; 257];
        scores[97] = value;
        let row = GenerationState {
            tokens: &[],
            prompt_len: 0,
            prompt_index: 0,
            padding: 0,
        };
        let error = pattern.process(row, &mut scores).unwrap_err().to_string();
        assert!(error.contains("no token with a probability"), "{error}");
    }
}

#[test]
fn unsupported_expressions_and_schemas_are_errors() {
    let pieces = Pieces::bytes_and(&[]);
    let begin = Instant::now();
    let long = "a".repeat(LONGEST + 1);
    for (expression, part) in [
        (r"[a&&b]", "no token may follow"),
        (r"a$b", "lookarounds"),
        (r"(a", "unclosed group"),
        (r"a\", "incomplete escape"),
        (r"\bword\b", "lookarounds"),
        (&long, "too long"),
        ("(?P<stop>a)b", "groups of any name"),
    ] {
        let error = GrammarConstraint::regex(expression, &pieces, &[256])
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("`expression`") && error.contains(part) && error.len() < 400,
            "{error}"
        );
    }
    let mut row = json!({"a0": {"type": "null"}});
    for i in 1..300 {
        row[format!("a{i}")] = json!({"$ref": format!("#/$defs/a{}", i - 1)});
    }
    let mut doubled = json!({"a0": {"type": "null"}});
    for i in 1..40 {
        let next = json!({"$ref": format!("#/$defs/a{}", i - 1)});
        doubled[format!("a{i}")] =
            json!({"type": "array", "prefixItems": [next, next], "minItems": 2});
    }
    // The same schemas, merged with others.
    let mut merged = json!({"a0": {"type": "null"}});
    for i in 1..40 {
        let next = json!({"type": "array", "$ref": format!("#/$defs/a{}", i - 1)});
        merged[format!("a{i}")] = json!({"type": "array", "prefixItems": [next, next]});
    }
    let every: Vec<Value> = (0..60)
        .map(|i| json!({"anyOf": [{"minimum": i}, {"maxLength": i}]}))
        .collect();
    let huge = json!({"type": "array", "items": {"type": "integer"}, "minItems": u32::MAX, "maxItems": u64::MAX});
    for (schema, part) in [
        (json!(3), "not an object"),
        (json!({"type": "strin"}), "strin"),
        (json!({"type": "string", "pattern": "(?=a)"}), "look"),
        (json!({"type": "string", "pattern": "(a"}), "unclosed"),
        (
            json!({"type": "object", "dependentRequired": {}}),
            "dependentRequired",
        ),
        (json!({"not": {"type": "null"}}), "not"),
        (json!({"$ref": "https://example.com/x"}), "example.com"),
        (json!({"$ref": "#/$defs/x"}), "not found"),
        (
            json!({"type": "integer", "minimum": 3, "maximum": 2}),
            "minimum",
        ),
        (
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}),
            "no token may follow",
        ),
        (json!({"allOf": every}), "too large"),
        (
            json!({"type": "number", "multipleOf": 1e-300}),
            "too many digits",
        ),
        (json!({"type": "number", "multipleOf": 1e9}), "multipleOf"),
        (
            json!({"$ref": "#/$defs/a39", "$defs": merged}),
            "more than 100000 values",
        ),
        (json!({"const": "a".repeat(LONGEST)}), "too long"),
    ] {
        let error = GrammarConstraint::json_schema(&schema.to_string(), &pieces, &[256]).err();
        let error = error
            .unwrap_or_else(|| panic!("{}", short(&schema.to_string())))
            .to_string();
        assert!(
            error.contains("`schema`") && error.contains(part) && error.len() < 400,
            "{error}"
        );
    }
    for text in ["", "{", "{\"type\":\"null\"} x", &"[".repeat(100_000)] {
        let error = GrammarConstraint::json_schema(text, &pieces, &[])
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("`schema`") && error.len() < 400, "{error}");
    }
    // Large schemas that are within the limits.
    for defs in [row, doubled] {
        let last = defs.as_object().unwrap().len() - 1;
        let schema = json!({"$ref": format!("#/$defs/a{last}"), "$defs": defs});
        GrammarConstraint::json_schema(&schema.to_string(), &pieces, &[256]).unwrap();
    }
    GrammarConstraint::regex(r"(?:(?:\w{100}){100}){100}", &pieces, &[256]).unwrap();
    GrammarConstraint::json_schema(&huge.to_string(), &pieces, &[256]).unwrap();
    assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
}

#[test]
fn cached_states_match_fresh_states() {
    let pieces = Pieces::bytes_and(&["ab"]);
    let mut warm = GrammarConstraint::regex("(?:ab|c)*d", &pieces, &[]).unwrap();
    let texts: [&[u32]; 6] = [
        &[99, 97, 98, 256],
        &[],
        &[97],
        &[97, 98],
        &[256, 99],
        &[99, 97],
    ];
    for text in texts.iter().chain(&texts) {
        let mut cold = GrammarConstraint {
            states: HashMap::new(),
            ..warm.clone()
        };
        assert_eq!(
            allowed(&mut warm, text, 257).unwrap(),
            allowed(&mut cold, text, 257).unwrap()
        );
    }
    for length in 0..2 * KEPT {
        assert_eq!(
            allowed(&mut warm, &vec![99; length], 257).unwrap(),
            [97, 99, 100, 256]
        );
    }
    assert!(warm.states.len() <= KEPT);
    // The same for states of many batch elements.
    for row in 0..2 * KEPT as u32 {
        let text: Vec<u32> = (0..9)
            .map(|bit| if row >> bit & 1 == 1 { 256 } else { 99 })
            .collect();
        assert_eq!(allowed(&mut warm, &text, 257).unwrap(), [97, 99, 100, 256]);
    }
    assert!(warm.states.len() >= 2 * KEPT, "{}", warm.states.len());
}

#[test]
fn automaton_is_rebuilt_beyond_its_limit() {
    let pieces = Pieces::bytes_and(&[]);
    let mut pattern = GrammarConstraint::regex("[ab]*a[ab]{24}!", &pieces, &[256]).unwrap();
    let mut rng = Rng::new(4);
    for _ in 0..400 {
        let text: Vec<u32> = (0..200).map(|_| 97 + rng.random_index(2) as u32).collect();
        let expected = if text[text.len() - 25] == 97 {
            vec![33, 97, 98]
        } else {
            vec![97, 98]
        };
        assert_eq!(allowed(&mut pattern, &text, 257).unwrap(), expected);
    }
}

#[test]
fn json_whitespace_is_one_space_after_separators() {
    let pieces = Pieces::bytes_and(&[]);
    let properties =
        json!({"b": {"type": "integer"}, "a": {"type": "array", "items": {"type": "null"}}});
    let schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
    let mut pattern = GrammarConstraint::json_schema(&schema.to_string(), &pieces, &[256]).unwrap();
    let mut is_of = |text: &str| {
        let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
        allowed(&mut pattern, &tokens, 257).is_ok_and(|tokens| tokens.contains(&256))
    };
    for text in [
        r#"{"b":1,"a":[null,null]}"#,
        r#"{"b": 1, "a": [null, null]}"#,
        "{}",
        r#"{"a":[]}"#,
    ] {
        assert!(is_of(text), "{text}");
    }
    for text in [
        r#"{"a":[],"b":1}"#,
        r#"{"b" :1}"#,
        r#"{"b":  1}"#,
        " {}",
        "{ }",
        "{}\n",
        r#"{"c":1}"#,
        "{",
    ] {
        assert!(!is_of(text), "{text}");
    }
}
