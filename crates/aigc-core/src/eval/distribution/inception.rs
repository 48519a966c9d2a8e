//! The Inception Score.

use super::{Features, MeanStd};
use crate::{Error, Result, rng::Rng};

/// `exp(mean KL(p(y|x) ‖ p(y)))` of class probabilities, as mean and deviation over `splits` parts
/// of the samples: the Inception Score (Salimans et al. 2016, <https://arxiv.org/abs/1606.03498>).
/// From 1 to the number of classes; higher is better. Published scores have 10 splits.
///
/// The parts are those of torch-fidelity: `N·i/splits..N·(i+1)/splits`, rounded down. Samples that
/// are ordered by class have to be shuffled before; with a `shuffle_seed` this is done here, in an
/// order other than torch-fidelity's.
///
/// # Shapes
/// - logits: one row per sample, one column per class; for published numbers those of
///   [`InceptionLayer::LogitsUnbiased`](crate::eval::InceptionLayer::LogitsUnbiased)
///
/// # Errors
/// [`Error::InvalidArgument`] for no splits, or more splits than samples.
pub fn inception_score(
    logits: &Features,
    splits: usize,
    shuffle_seed: Option<u64>,
) -> Result<MeanStd> {
    let n = logits.len();
    if splits == 0 || splits > n {
        let expected = format!("1 to {n}, the number of samples");
        return Err(Error::argument("splits", splits, expected));
    }
    let order = match shuffle_seed {
        Some(seed) => Rng::stream(seed, "inception-score", 0).permutation(n),
        None => (0..n).collect(),
    };
    let scores: Vec<f64> = (0..splits)
        .map(|i| score(logits, &order[i * n / splits..(i + 1) * n / splits]))
        .collect();
    Ok(MeanStd::of(&scores))
}

fn score(logits: &Features, samples: &[usize]) -> f64 {
    let n = samples.len() as f64;
    let mut log_p = vec![0.0; logits.width()];
    let mut mean = vec![0.0; logits.width()];
    let mut negative_entropy = 0.0;
    for sample in samples {
        log_softmax(logits.row(*sample), &mut log_p);
        for (mean, log_p) in mean.iter_mut().zip(&log_p) {
            let p = log_p.exp();
            *mean += p / n;
            negative_entropy += p * log_p / n;
        }
    }
    // The mean divergence is the entropy of the mean less the mean entropy.
    let seen = mean.iter().filter(|p| **p > 0.0);
    let entropy_of_mean: f64 = seen.map(|p| -p * p.ln()).sum();
    (entropy_of_mean + negative_entropy).exp()
}

fn log_softmax(logits: &[f32], log_p: &mut [f64]) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let largest = f64::from(largest);
    let sum: f64 = logits.iter().map(|x| (f64::from(*x) - largest).exp()).sum();
    let shift = largest + sum.ln();
    for (log_p, x) in log_p.iter_mut().zip(logits) {
        *log_p = f64::from(*x) - shift;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits(values: &[f32], classes: usize) -> Features {
        Features::new(values.to_vec(), classes).unwrap()
    }

    /// Certain and evenly spread over 3 of 4 classes: 3. The same for every sample: 1.
    #[test]
    fn score_matches_closed_forms() {
        let mut values = vec![-200.0; 24];
        for sample in 0..6 {
            values[sample * 4 + sample % 3] = 200.0;
        }
        let score = inception_score(&logits(&values, 4), 2, None).unwrap();
        assert!(
            (score.mean - 3.0).abs() < 1e-9 && score.std < 1e-9,
            "{score}"
        );
        let same = logits(&[1.0, 2.0, 0.5].repeat(5), 3);
        let score = inception_score(&same, 1, None).unwrap();
        assert!((score.mean - 1.0).abs() < 1e-9, "{score}");
    }

    /// Samples ordered by class have one class in each split.
    #[test]
    fn shuffling_mixes_ordered_samples() {
        let mut values = vec![0.0; 2 * 200];
        for sample in 0..200 {
            values[sample * 2 + sample / 100] = 100.0;
        }
        let ordered = logits(&values, 2);
        let plain = inception_score(&ordered, 2, None).unwrap();
        let mixed = inception_score(&ordered, 2, Some(3)).unwrap();
        assert!((plain.mean - 1.0).abs() < 1e-9, "{plain}");
        assert!(mixed.mean > 1.9, "{mixed}");
        assert_eq!(mixed, inception_score(&ordered, 2, Some(3)).unwrap());
    }

    #[test]
    fn invalid_splits_are_errors() {
        let two = logits(&[0.0; 4], 2);
        for splits in [0, 3] {
            let error = inception_score(&two, splits, None).unwrap_err().to_string();
            assert!(
                error.contains("`splits`") && error.contains("1 to 2"),
                "{error}"
            );
        }
        assert!(inception_score(&Features::empty(2).unwrap(), 1, None).is_err());
    }
}
