//! Measures of text, against the numbers of sacrebleu, rouge-score and NLTK that
//! `tests/reference/text_metrics.py` writes.

use aigc_core::{
    eval::{
        half_sampling,
        text::{
            Bleu, Chrf, Rouge, RougeVariant, SelfBleu, Smoothing, Tokenizer, corpus_distinct_n,
            rouge_l, rouge_lsum, rouge_n,
        },
    },
    rng::Rng,
};
use aigc_tests::own_fixtures;
use serde_json::Value;
use std::collections::HashMap;

fn fixture(name: &str) -> Value {
    let path = own_fixtures().join(format!("eval/text/{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Hypotheses, and the references of each.
type Corpus = (Vec<String>, Vec<Vec<String>>);

fn corpora() -> HashMap<String, Corpus> {
    let pairs: HashMap<String, Vec<(String, Vec<String>)>> =
        serde_json::from_value(fixture("corpora")).unwrap();
    pairs
        .into_iter()
        .map(|(name, pairs)| (name, pairs.into_iter().unzip()))
        .collect()
}

fn cases(name: &str) -> Vec<Value> {
    fixture(name).as_array().unwrap().clone()
}

fn numbers(value: &Value) -> Vec<f64> {
    let values = value.as_array().unwrap();
    values.iter().map(|x| x.as_f64().unwrap()).collect()
}

fn assert_close(found: f64, expected: f64, what: &str) {
    assert!(
        (found - expected).abs() <= 1e-9 + 1e-7 * expected.abs(),
        "{what}: {found}, expected {expected}"
    );
}

fn tokenizer(name: &str) -> Tokenizer {
    serde_json::from_value(Value::from(name)).unwrap()
}

#[test]
fn tokens_match_sacrebleu_and_rouge_score() {
    let cases = cases("tokens");
    assert!(cases.len() > 20);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        for name in ["none", "13a", "intl", "zh", "char", "rouge"] {
            let expected: Vec<String> = serde_json::from_value(case[name].clone()).unwrap();
            assert_eq!(tokenizer(name).tokenize(text), expected, "{name}: {text}");
        }
    }
}

/// The settings that have sacrebleu's `options`.
fn bleu_with(options: &Value) -> Bleu {
    let value = options["smooth_value"].as_f64();
    let defaults = Bleu::default();
    Bleu {
        tokenizer: tokenizer(options["tokenize"].as_str().unwrap()),
        lowercase: options["lowercase"].as_bool().unwrap_or(false),
        max_order: options["max_ngram_order"]
            .as_u64()
            .map_or(defaults.max_order, |n| n as usize),
        smoothing: match options["smooth_method"].as_str() {
            Some("none") => Smoothing::None,
            Some("floor") => Smoothing::Floor(value.unwrap_or(0.1)),
            Some("add-k") => Smoothing::AddK(value.unwrap_or(1.0)),
            _ => defaults.smoothing,
        },
        effective_order: options["effective_order"].as_bool().unwrap_or(false),
    }
}

#[test]
fn bleu_matches_sacrebleu() {
    let corpora = corpora();
    for case in cases("bleu") {
        let bleu = bleu_with(&case["options"]);
        let what = format!("{} {}", case["corpus"], case["options"]);
        let (hypotheses, references) = &corpora[case["corpus"].as_str().unwrap()];
        let found = bleu.corpus(hypotheses, references).unwrap();
        let expected = &case["expected"];
        assert_close(found.score, expected["score"].as_f64().unwrap(), &what);
        assert_close(found.bp, expected["bp"].as_f64().unwrap(), &what);
        assert_eq!(expected["sys_len"], found.sys_len, "{what}");
        assert_eq!(expected["ref_len"], found.ref_len, "{what}");
        // sacrebleu's counts include what add-k adds.
        let added = match bleu.smoothing {
            Smoothing::AddK(k) => k,
            _ => 0.0,
        };
        for (found, expected) in [
            (&found.counts, &expected["counts"]),
            (&found.totals, &expected["totals"]),
        ] {
            let found = found.iter().enumerate();
            let found: Vec<f64> = found
                .map(|(n, count)| *count as f64 + if n > 0 { added } else { 0.0 })
                .collect();
            assert_eq!(found, numbers(expected), "{what}");
        }
        let precisions = numbers(&expected["precisions"]);
        assert_eq!(found.precisions.len(), precisions.len());
        for (found, expected) in found.precisions.iter().zip(precisions) {
            assert_close(*found, expected, &what);
        }
        for (i, expected) in numbers(&case["sentences"]).into_iter().enumerate() {
            let found = bleu.sentence(&hypotheses[i], &references[i]).unwrap();
            assert_close(found.score, expected, &format!("{what} {}", hypotheses[i]));
        }
    }
}

#[test]
fn chrf_matches_sacrebleu() {
    let corpora = corpora();
    for case in cases("chrf") {
        let options = &case["options"];
        let orders = |name: &str, default| options[name].as_u64().map_or(default, |n| n as usize);
        let is = |name: &str| options[name].as_bool().unwrap_or(false);
        let defaults = Chrf::default();
        let chrf = Chrf {
            char_order: orders("char_order", defaults.char_order),
            word_order: orders("word_order", defaults.word_order),
            beta: options["beta"].as_f64().unwrap_or(defaults.beta),
            lowercase: is("lowercase"),
            whitespace: is("whitespace"),
            eps_smoothing: is("eps_smoothing"),
        };
        let what = format!("{} {options}", case["corpus"]);
        let (hypotheses, references) = &corpora[case["corpus"].as_str().unwrap()];
        let found = chrf.corpus(hypotheses, references).unwrap();
        assert_close(found, case["score"].as_f64().unwrap(), &what);
        for (i, expected) in numbers(&case["sentences"]).into_iter().enumerate() {
            let found = chrf.sentence(&hypotheses[i], &references[i]).unwrap();
            assert_close(found, expected, &format!("{what} {}", hypotheses[i]));
        }
    }
}

#[test]
fn rouge_matches_rouge_score() {
    let corpora = corpora();
    for case in cases("rouge") {
        let kind = case["kind"].as_str().unwrap();
        let rouge = Rouge::new(match kind {
            "rougeL" => RougeVariant::L,
            "rougeLsum" => RougeVariant::Lsum,
            _ => RougeVariant::N(kind["rouge".len()..].parse().unwrap()),
        });
        let (hypotheses, references) = &corpora[case["corpus"].as_str().unwrap()];
        let scores = rouge.scores(hypotheses, references).unwrap();
        let expected = case["scores"].as_array().unwrap();
        assert_eq!(scores.len(), expected.len());
        for ((found, expected), text) in scores.iter().zip(expected).zip(hypotheses) {
            let what = format!("{kind} {text}");
            let found = [found.precision, found.recall, found.fmeasure];
            for (found, expected) in found.into_iter().zip(numbers(expected)) {
                assert_close(found, expected, &what);
            }
        }
    }
}

#[test]
fn self_bleu_matches_nltk() {
    let fixture = fixture("self_bleu");
    let texts: Vec<String> = serde_json::from_value(fixture["texts"].clone()).unwrap();
    let scores = fixture["scores"].as_object().unwrap();
    assert_eq!(scores.len(), 4);
    for (order, expected) in scores {
        let mut measure = SelfBleu::default();
        measure.bleu.tokenizer = Tokenizer::Whitespace;
        // All texts have as many words: NLTK has no fewer orders for shorter ones.
        measure.bleu.effective_order = false;
        measure.bleu.max_order = order.parse().unwrap();
        let found = measure.score(&texts).unwrap();
        assert_eq!(found.texts, texts.len());
        assert_close(found.score, expected.as_f64().unwrap(), order);
    }
}

/// Texts of 12 patterns with random words. Over sets of texts, self-BLEU and distinct-2 vary about
/// as the interval of a single set says.
#[test]
fn halves_show_how_measures_of_sets_vary() {
    let mut rng = Rng::new(7);
    let patterns: Vec<Vec<usize>> = (0..12)
        .map(|_| (0..20).map(|_| rng.random_index(200)).collect())
        .collect();
    let mut set = || -> Vec<Vec<usize>> {
        let text = |rng: &mut Rng| {
            let pattern = &patterns[rng.random_index(patterns.len())];
            let word = |word: &usize| match rng.random_index(10) {
                0..7 => *word,
                _ => rng.random_index(200),
            };
            pattern.iter().map(word).collect()
        };
        (0..40).map(|_| text(&mut rng)).collect()
    };
    let sets: Vec<_> = (0..200).map(|_| set()).collect();
    let bleu = |texts: &[&[usize]]| -> f64 {
        let found = SelfBleu::default().score_tokens::<usize>(texts);
        found.unwrap().score
    };
    let distinct = |texts: &[&[usize]]| -> f64 { corpus_distinct_n::<usize>(texts, 2).unwrap() };
    type Measure<'a> = &'a dyn Fn(&[&[usize]]) -> f64;
    let measures: [Measure<'_>; 2] = [&bleu, &distinct];
    for value in measures {
        let of = |texts: &[Vec<usize>], rows: &[usize]| {
            let drawn: Vec<&[usize]> = rows.iter().map(|row| texts[*row].as_slice()).collect();
            value(&drawn)
        };
        let all: Vec<usize> = (0..40).collect();
        let values: Vec<f64> = sets.iter().map(|texts| of(texts, &all)).collect();
        let mean = values.iter().sum::<f64>() / 200.0;
        let squares = values.iter().map(|value| (value - mean).powi(2));
        let half = 1.96 * (squares.sum::<f64>() / 199.0).sqrt();
        let mut widths = 0.0;
        for (texts, value) in sets.iter().zip(&values).take(10) {
            let drawn = |rows: &[usize]| Ok(of(texts, rows));
            let (low, high) = half_sampling(40, 100, 0.95, &mut Rng::new(1), drawn).unwrap();
            assert!(low < *value && *value < high, "{low} {value} {high}");
            widths += (high - low) / 20.0;
        }
        assert!((0.8..1.6).contains(&(widths / half)), "{}", widths / half);
    }
}

/// The ids of a tokenizer score as the words they stand for.
#[test]
fn ids_score_as_words() {
    let (hypotheses, references) = &corpora()["drawn"];
    let mut known = HashMap::new();
    let mut ids = |text: &str| -> Vec<usize> {
        let words = text.split_whitespace().map(String::from);
        words
            .map(|word| {
                let next = known.len();
                *known.entry(word).or_insert(next)
            })
            .collect()
    };
    let hypothesis_ids: Vec<_> = hypotheses.iter().map(|text| ids(text)).collect();
    let reference_ids: Vec<Vec<_>> = references
        .iter()
        .map(|texts| texts.iter().map(|text| ids(text)).collect())
        .collect();
    let bleu = Bleu {
        tokenizer: Tokenizer::Whitespace,
        ..Bleu::default()
    };
    assert_eq!(
        bleu.corpus_tokens(&hypothesis_ids, &reference_ids).unwrap(),
        bleu.corpus(hypotheses, references).unwrap()
    );
    let (hypothesis, reference) = (&hypothesis_ids[0], &reference_ids[0][0]);
    let of_words = |variant| {
        let rouge = Rouge {
            tokenizer: Tokenizer::Whitespace,
            ..Rouge::new(variant)
        };
        rouge.sentence(&hypotheses[0], &references[0][..1]).unwrap()
    };
    assert_eq!(
        rouge_n(hypothesis, reference, 2).unwrap(),
        of_words(RougeVariant::N(2))
    );
    assert_eq!(rouge_l(hypothesis, reference), of_words(RougeVariant::L));
    assert_eq!(
        rouge_lsum(&[hypothesis], &[reference]),
        of_words(RougeVariant::Lsum)
    );
}
