//! Porter's stemmer and ROUGE with it, against the stems of NLTK and the scores of rouge-score that
//! `tests/reference/rouge_stemmer.py` writes.

use aigc_core::eval::text::{Rouge, RougeVariant, porter_stem};
use aigc_tests::own_fixtures;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Fixture {
    /// By word.
    stems: BTreeMap<String, String>,
    texts: Vec<Text>,
}

#[derive(Deserialize)]
struct Text {
    hypothesis: String,
    references: Vec<String>,
    /// Precision, recall and F-score by the name of the variant.
    scores: BTreeMap<String, [f64; 3]>,
}

fn fixture() -> Fixture {
    let path = own_fixtures().join("eval/text/rouge_stemmer.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn stems_match_nltk() {
    let stems = fixture().stems;
    assert!(stems.len() >= 3_000);
    for (word, expected) in stems {
        assert_eq!(porter_stem(&word), expected, "{word}");
    }
}

#[test]
fn rouge_with_stems_matches_rouge_score() {
    let mut changed = 0;
    for text in fixture().texts {
        for (name, expected) in text.scores {
            let plain = Rouge::new(match name.as_str() {
                "rouge1" => RougeVariant::N(1),
                "rouge2" => RougeVariant::N(2),
                "rougeL" => RougeVariant::L,
                "rougeLsum" => RougeVariant::Lsum,
                _ => panic!("{name}"),
            });
            let without = plain.sentence(&text.hypothesis, &text.references).unwrap();
            let stemmed = Rouge {
                stem: true,
                ..plain
            };
            let found = stemmed.sentence(&text.hypothesis, &text.references);
            let found = found.unwrap();
            changed += usize::from(found != without);
            let found = [found.precision, found.recall, found.fmeasure];
            for (found, expected) in found.into_iter().zip(expected) {
                assert!(
                    (found - expected).abs() <= 1e-9,
                    "{name} of {:?}: {found}, expected {expected}",
                    text.hypothesis
                );
            }
        }
    }
    assert!(changed > 100, "{changed}");
}
