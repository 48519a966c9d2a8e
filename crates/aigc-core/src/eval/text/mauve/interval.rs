//! Intervals of MAUVE.

use super::{MauveConfig, check_counts, histogram};
use crate::{
    Result,
    eval::estimate::{centred_interval, check_bootstrap},
    rng::Rng,
};

impl MauveConfig {
    /// A bootstrap interval of the score of two histograms, such as `p_counts` and `q_counts` of
    /// [`Mauve`](super::Mauve): the texts of both sets are drawn with replacement, and stay in
    /// their buckets. Drawn histograms differ more than the given ones; this shift is subtracted.
    ///
    /// The interval is that of the score for these numbers of texts and these buckets. It leaves
    /// out that k-means finds other buckets for other texts or with another [`seed`](Self::seed).
    /// If the distributions are nearly equal, it is too wide.
    ///
    /// # Errors
    /// As [`compute_from_counts`](Self::compute_from_counts);
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for fewer than 20 rounds, or a
    /// confidence outside (0, 1).
    pub fn interval_from_counts(
        &self,
        p: &[u64],
        q: &[u64],
        rounds: usize,
        confidence: f64,
        rng: &mut Rng,
    ) -> Result<(f64, f64)> {
        self.check()?;
        check_counts(p, q)?;
        check_bootstrap(rounds, confidence)?;
        let (of_p, of_q) = (labels_of(p), labels_of(q));
        let found = (0..rounds)
            .map(|_| {
                let p = drawn_counts(&of_p, p.len(), rng);
                let q = drawn_counts(&of_q, q.len(), rng);
                self.score(&histogram(&p, 0.0), &histogram(&q, 0.0))
            })
            .collect();
        let score = self.score(&histogram(p, 0.0), &histogram(q, 0.0));
        let (low, high) = centred_interval(found, score, 1.0, confidence)?;
        Ok((low.clamp(0.0, 1.0), high.clamp(0.0, 1.0)))
    }
}

/// The bucket of each text of a histogram.
fn labels_of(counts: &[u64]) -> Vec<usize> {
    let buckets = counts.iter().enumerate();
    buckets
        .flat_map(|(bucket, count)| (0..*count).map(move |_| bucket))
        .collect()
}

/// The histogram of as many texts, drawn with replacement.
fn drawn_counts(labels: &[usize], buckets: usize, rng: &mut Rng) -> Vec<u64> {
    let mut counts = vec![0; buckets];
    for _ in labels {
        counts[labels[rng.random_index(labels.len())]] += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of two histograms that are drawn again and again, the interval holds the mean score of all
    /// draws about as often as it says.
    #[test]
    fn intervals_cover_as_often_as_they_say() {
        let config = MauveConfig::default();
        // Shares of 20: of 100 texts each.
        let (p, q) = (labels_of(&[6, 5, 4, 3, 2]), labels_of(&[2, 4, 4, 4, 6]));
        let mut rng = Rng::new(2);
        let mut draw = |labels: &[usize]| {
            let mut counts = vec![0; 5];
            for _ in 0..100 {
                counts[labels[rng.random_index(labels.len())]] += 1;
            }
            counts
        };
        let pairs: Vec<(Vec<u64>, Vec<u64>)> = (0..60).map(|_| (draw(&p), draw(&q))).collect();
        let score = |(p, q): &(Vec<u64>, Vec<u64>)| config.compute_from_counts(p, q).unwrap().mauve;
        let mean = pairs.iter().map(score).sum::<f64>() / 60.0;
        let mut rng = Rng::new(5);
        let mut hits = 0;
        for pair in &pairs {
            let (p, q) = pair;
            let found = config.interval_from_counts(p, q, 100, 0.9, &mut rng);
            let ((low, high), value) = (found.unwrap(), score(pair));
            assert!(low <= value && value <= high, "{low} {value} {high}");
            hits += usize::from(low <= mean && mean <= high);
        }
        assert!((45..60).contains(&hits), "{hits}");
    }

    /// In one bucket of their own each, texts are drawn as they are.
    #[test]
    fn interval_of_a_certain_score_has_no_width() {
        let config = MauveConfig::default();
        let mut rng = Rng::new(0);
        let mut interval =
            |p: &[u64], q: &[u64]| config.interval_from_counts(p, q, 20, 0.9, &mut rng);
        let (low, high) = interval(&[9, 0], &[0, 7]).unwrap();
        assert!(low == high && low < 0.01, "{low} {high}");
        assert!(interval(&[9, 0], &[0]).is_err());
        assert!(interval(&[0, 0], &[1, 0]).is_err());
        let found = config.interval_from_counts(&[1], &[1], 19, 0.9, &mut rng);
        assert!(found.unwrap_err().to_string().contains("`rounds` is 19"));
    }
}
