//! MAUVE, originality of text and memorisation, against other implementations and planted copies.

use aigc_core::{
    eval::{
        Features, NgramOverlap, OriginalityConfig, TextIndex, TextIndexConfig, TextUnit,
        memorization,
        text::{Mauve, MauveConfig},
        token_text,
    },
    rng::Rng,
};
use aigc_tests::{own_fixtures, reference::read};
use serde_json::Value;

fn scores() -> Value {
    let path = own_fixtures().join("eval/mauve/scores.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn assert_close(name: &str, found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found - expected).abs() <= tolerance * expected.abs(),
        "{name}: {found}, expected {expected}"
    );
}

fn assert_scores(found: &Mauve, case: &Value, tolerance: f64) {
    for (name, score) in [
        ("mauve", found.mauve),
        ("mauve_star", found.mauve_star),
        ("frontier_integral", found.frontier_integral),
        ("frontier_integral_star", found.frontier_integral_star),
    ] {
        assert_close(name, score, case[name].as_f64().unwrap(), tolerance);
    }
}

/// `tests/reference/mauve_scores.py`: mauve-text on the same histograms.
#[test]
fn mauve_of_histograms_matches_mauve_text() {
    for case in scores()["counts"].as_array().unwrap() {
        let config = MauveConfig {
            divergence_curve_points: read(&case["points"]),
            scaling_factor: read(&case["scaling"]),
            ..MauveConfig::default()
        };
        let (p, q): (Vec<u64>, Vec<u64>) = (read(&case["p"]), read(&case["q"]));
        let found = config.compute_from_counts(&p, &q).unwrap();
        assert_scores(&found, case, 1e-6);
        let curve: Vec<[f64; 2]> = read(&case["divergence_curve"]);
        assert_eq!(found.divergence_curve.len(), curve.len());
        for (found, expected) in found.divergence_curve.iter().zip(&curve) {
            for axis in 0..2 {
                assert!((found[axis] - expected[axis]).abs() < 1e-9);
            }
        }
    }
}

/// `tests/reference/mauve_scores.py`: mauve-text on the same features, whose clusters any good
/// k-means finds.
#[test]
fn mauve_of_features_matches_mauve_text() {
    for case in scores()["features"].as_array().unwrap() {
        let features = |name: &str| {
            let hundredths: Vec<i32> = read(&case[name]);
            let values = hundredths.iter().map(|x| (f64::from(*x) / 100.0) as f32);
            Features::new(values.collect(), read(&case["width"])).unwrap()
        };
        let config = MauveConfig {
            num_buckets: Some(read::<f64>(&case["num_buckets"]) as usize),
            ..MauveConfig::default()
        };
        let (p, q) = (features("p"), features("q"));
        let found = config.compute(&p, &q).unwrap();
        assert_scores(&found, case, 1e-4);
        for (hist, counts, n) in [
            (&found.p_hist, "p_counts", p.len()),
            (&found.q_hist, "q_counts", q.len()),
        ] {
            let mut sizes: Vec<u64> = hist
                .iter()
                .map(|share| (share * n as f64).round() as u64)
                .collect();
            let mut expected: Vec<u64> = read(&case[counts]);
            sizes.sort_unstable();
            expected.sort_unstable();
            assert_eq!(sizes, expected);
        }
    }
}

/// `tests/reference/mauve_scores.py`: scikit-learn's ROC curve of the same losses, with ties.
#[test]
fn loss_attack_matches_scikit_learn() {
    for case in scores()["losses"].as_array().unwrap() {
        let (train, held_out): (Vec<f64>, Vec<f64>) =
            (read(&case["train"]), read(&case["held_out"]));
        let found = memorization(&train, &held_out).unwrap();
        assert_close("auc", found.auc, case["auc"].as_f64().unwrap(), 1e-12);
        let tpr = case["tpr"].as_f64().unwrap();
        assert_close("tpr", found.tpr_at_1_percent_fpr, tpr, 1e-12);
        let (low, high) = found.gap_interval;
        assert!(low < found.gap && found.gap < high && low > 0.0);
    }
}

/// Sentences of `words` words of a vocabulary of 2,000, which share few long passages by chance.
fn sentences(rng: &mut Rng, count: usize, words: usize) -> Vec<String> {
    let sentence = |rng: &mut Rng| -> String {
        let words: Vec<String> = (0..words)
            .map(|_| format!("w{:x}", 7919 * rng.random_index(2000)))
            .collect();
        words.join(" ") + "."
    };
    (0..count).map(|_| sentence(rng)).collect()
}

/// Every planted sentence is found, with the place it was taken from, also with other line breaks
/// and case; sentences that were not planted have no long span.
#[test]
fn planted_sentences_are_found() {
    let mut rng = Rng::new(1);
    let training = sentences(&mut rng, 4000, 12);
    let documents: Vec<String> = training.chunks(100).map(|d| d.join("\n")).collect();
    let config = TextIndexConfig {
        lowercase: true,
        ..TextIndexConfig::default()
    };
    let index = TextIndex::from_texts(&documents, &config).unwrap();
    let fresh = sentences(&mut rng, 40, 12);
    let planted: Vec<usize> = (0..40).map(|_| rng.random_index(4000)).collect();
    let generated: Vec<String> = fresh
        .iter()
        .zip(&planted)
        .map(|(fresh, planted)| {
            let copy = training[*planted].to_uppercase().replace(' ', " \n ");
            format!("{fresh} {copy} {fresh}")
        })
        .collect();
    for (text, planted) in generated.iter().zip(&planted) {
        let span = &index.spans(text, 40).unwrap()[0];
        let sentence = &training[*planted];
        assert!(span.characters >= sentence.len(), "{span:?}");
        let folded: Vec<&str> = text[span.range.clone()].split_whitespace().collect();
        assert!(folded.join(" ").to_lowercase().contains(sentence));
        let source = &documents[span.document][span.offset..];
        assert!(source[..span.characters].contains(sentence));
    }
    let config = OriginalityConfig {
        ngrams: vec![1, 4],
        unit: TextUnit::Words,
        min_span_characters: 40,
        longest_spans: 5,
    };
    let report = index
        .originality_report(&generated, &fresh, &config)
        .unwrap();
    let copied = report.generated.copied_share().unwrap();
    assert!((0.28..0.4).contains(&copied), "{copied}");
    assert_eq!(report.held_out.copied_characters, 0);
    // Each text has one copy of three sentences.
    let (low, high) = report
        .generated
        .copied_interval(200, 0.95, &mut rng)
        .unwrap();
    assert!(low < copied && copied < high, "{low} {copied} {high}");
    assert!(high - low < 0.02, "{low} {high}");
    let none = report.held_out.copied_interval(200, 0.95, &mut rng);
    assert_eq!(none.unwrap(), (0.0, 0.0));
    let (low, high) = report
        .generated
        .ngram_interval(4, 200, 0.95, &mut rng)
        .unwrap();
    assert!(0.25 < low && low <= high && high < 0.3, "{low} {high}");
    let four = |ngrams: &[(usize, NgramOverlap)]| ngrams[1].1.share().unwrap();
    assert!(four(&report.generated.ngrams) > 0.25);
    assert!(four(&report.held_out.ngrams) < 0.01);
    assert_eq!(report.generated.longest.len(), 5);
}

/// Texts whose suffixes share prefixes of tens of thousands of bytes: one letter, two letters in
/// turn, and a copy of a Fibonacci word.
#[test]
fn copies_of_repetitive_texts_are_found() {
    let plain = TextIndexConfig {
        normalize_whitespace: false,
        ..TextIndexConfig::default()
    };
    let (mut fibonacci, mut before) = ("ab".to_string(), "a".to_string());
    while fibonacci.len() < 50_000 {
        (fibonacci, before) = (format!("{fibonacci}{before}"), fibonacci);
    }
    for (training, generated, longest) in [
        ("a".repeat(50_000), "a".repeat(52_000), 50_000),
        ("ab".repeat(25_000), "ba".repeat(26_000), 50_000),
        (fibonacci.clone(), fibonacci.clone(), fibonacci.len()),
    ] {
        let index = TextIndex::from_texts(&[&training], &plain).unwrap();
        let spans = index.spans(&generated, 2).unwrap();
        assert_eq!(spans[0].characters, longest);
    }
}

/// Characters of tokens keep the n-grams of tokens.
#[test]
fn token_ids_are_indexed() {
    let mut rng = Rng::new(4);
    let mut tokens =
        |n: usize| -> Vec<u32> { (0..n).map(|_| rng.random_index(150_000) as u32).collect() };
    let (training, mut generated) = (tokens(5000), tokens(100));
    generated[30..50].copy_from_slice(&training[777..797]);
    let config = TextIndexConfig {
        normalize_whitespace: false,
        ..TextIndexConfig::default()
    };
    let index = TextIndex::from_texts(&[token_text(&training).unwrap()], &config).unwrap();
    let text = token_text(&generated).unwrap();
    let found = index
        .ngram_overlap(&text, &[5, 20, 21], TextUnit::Characters)
        .unwrap();
    let counts: Vec<usize> = found.iter().map(|overlap| overlap.found).collect();
    assert_eq!(counts, [16, 1, 0]);
    assert_eq!(found[0].total, 96);
}
