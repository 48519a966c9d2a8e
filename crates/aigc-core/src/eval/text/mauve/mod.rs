//! MAUVE: how close the distribution of generated text is to that of human text.

mod divergence;
mod interval;
mod kmeans;
mod pca;

use crate::{Error, Result, eval::Features};
use divergence::{area, divergence_curve, frontier_integral};
use kmeans::KMeans;

/// Settings of [MAUVE](Mauve). The defaults are those of mauve-text 0.4.0.
#[derive(Clone, Debug, PartialEq)]
pub struct MauveConfig {
    /// Number of clusters; `None` is a tenth of the smaller set, at least 2.
    pub num_buckets: Option<usize>,
    /// Whether features are divided by their Euclidean length.
    pub normalize: bool,
    /// Share of the variance that the principal components keep, in (0, 1).
    pub kmeans_explained_var: f64,
    /// Number of runs of k-means, of which the best one counts.
    pub kmeans_num_redo: usize,
    /// Largest number of iterations of a run.
    pub kmeans_max_iter: usize,
    /// Number of mixtures on the divergence curve.
    pub divergence_curve_points: usize,
    /// The constant by which divergences are multiplied.
    pub scaling_factor: f64,
    /// Seed of k-means.
    pub seed: u64,
}

impl Default for MauveConfig {
    fn default() -> Self {
        Self {
            num_buckets: None,
            normalize: true,
            kmeans_explained_var: 0.9,
            kmeans_num_redo: 5,
            kmeans_max_iter: 500,
            divergence_curve_points: 25,
            scaling_factor: 5.0,
            seed: 25,
        }
    }
}

/// MAUVE of two sets of texts (Pillutla et al. 2021, <https://arxiv.org/abs/2102.01454>).
///
/// Features of both sets are clustered together. The area under the curve of divergences between
/// the histograms over the clusters is the score: 1 if they are equal, near 0 if no cluster has
/// texts of both. Scores compare only with those of the same features and numbers of texts; 5,000
/// texts of each set are usual.
#[derive(Clone, Debug, PartialEq)]
pub struct Mauve {
    /// The score, in `[0, 1]`; higher is closer.
    pub mauve: f64,
    /// The frontier integral, in `[0, 1]`; lower is closer.
    pub frontier_integral: f64,
    /// The score of histograms with half a text added to each bucket (Krichevsky–Trofimov
    /// smoothing; Pillutla et al. 2023, <https://arxiv.org/abs/2212.14578>).
    pub mauve_star: f64,
    /// The frontier integral of the smoothed histograms.
    pub frontier_integral_star: f64,
    /// The divergence curve: points in `[0, 1]²` from `(1, 0)` to `(0, 1)`.
    pub divergence_curve: Vec<[f64; 2]>,
    /// Share of the first set in each bucket.
    pub p_hist: Vec<f64>,
    /// Share of the second set in each bucket.
    pub q_hist: Vec<f64>,
    /// Number of texts of the first set in each bucket.
    pub p_counts: Vec<u64>,
    /// Number of texts of the second set in each bucket.
    pub q_counts: Vec<u64>,
    /// Number of buckets.
    pub num_buckets: usize,
}

impl MauveConfig {
    /// MAUVE of features of two sets of texts, as of a language model's last hidden state at the
    /// last token. Memory grows with the number of texts, not with its square.
    ///
    /// # Errors
    /// [`Error::Config`] for a setting out of range; [`Error::InvalidArgument`] if a set is empty,
    /// if the widths differ, or if there are fewer texts than buckets.
    pub fn compute(&self, p: &Features, q: &Features) -> Result<Mauve> {
        self.check()?;
        for (name, set) in [("p", p), ("q", q)] {
            if set.is_empty() {
                return Err(Error::argument(
                    name,
                    "empty",
                    "at least one row of features",
                ));
            }
        }
        if p.width() != q.width() {
            let expected = format!("{} features, as in p", p.width());
            return Err(Error::argument("q", q.width(), expected));
        }
        let smaller = p.len().min(q.len());
        let clusters = self.num_buckets.unwrap_or_else(|| {
            // Halves round to even numbers, as in Python.
            ((smaller as f64 / 10.0).round_ties_even() as usize).max(2)
        });
        let texts = p.len() + q.len();
        if clusters > texts {
            return Err(Error::argument(
                "num_buckets",
                clusters,
                format!("at most {texts}, the number of rows"),
            ));
        }
        let points = pca::project(p, q, self.normalize, self.kmeans_explained_var)?;
        let labels = KMeans {
            clusters,
            restarts: self.kmeans_num_redo,
            max_iterations: self.kmeans_max_iter,
            seed: self.seed,
        }
        .labels(&points)?;
        let count = |labels: &[usize]| {
            let mut counts = vec![0; clusters];
            labels.iter().for_each(|label| counts[*label] += 1);
            counts
        };
        let (first, second) = labels.split_at(p.len());
        self.compute_from_counts(&count(first), &count(second))
    }

    /// MAUVE of two histograms: numbers of texts in each bucket, of the user's own clustering.
    ///
    /// # Errors
    /// [`Error::Config`] for a setting out of range; [`Error::InvalidArgument`] if a histogram is
    /// empty, or if their lengths differ.
    pub fn compute_from_counts(&self, p: &[u64], q: &[u64]) -> Result<Mauve> {
        self.check()?;
        check_counts(p, q)?;
        let (p_hist, q_hist) = (histogram(p, 0.0), histogram(q, 0.0));
        let (p_star, q_star) = (histogram(p, 0.5), histogram(q, 0.5));
        let divergence_curve = self.curve(&p_hist, &q_hist);
        Ok(Mauve {
            mauve: area(&divergence_curve),
            frontier_integral: frontier_integral(&p_hist, &q_hist),
            mauve_star: self.score(&p_star, &q_star),
            frontier_integral_star: frontier_integral(&p_star, &q_star),
            divergence_curve,
            num_buckets: p.len(),
            p_hist,
            q_hist,
            p_counts: p.to_vec(),
            q_counts: q.to_vec(),
        })
    }

    fn score(&self, p: &[f64], q: &[f64]) -> f64 {
        area(&self.curve(p, q))
    }

    fn curve(&self, p: &[f64], q: &[f64]) -> Vec<[f64; 2]> {
        divergence_curve(p, q, self.divergence_curve_points, self.scaling_factor)
    }

    fn check(&self) -> Result<()> {
        for (name, value, least) in [
            ("num_buckets", self.num_buckets.unwrap_or(2), 2),
            ("kmeans_num_redo", self.kmeans_num_redo, 1),
            ("kmeans_max_iter", self.kmeans_max_iter, 1),
            ("divergence_curve_points", self.divergence_curve_points, 2),
        ] {
            if value < least {
                return Err(Error::config(name, value, format!("at least {least}")));
            }
        }
        let explained = self.kmeans_explained_var;
        if !(explained > 0.0 && explained < 1.0) {
            return Err(Error::config(
                "kmeans_explained_var",
                explained,
                "between 0 and 1",
            ));
        }
        if !(self.scaling_factor > 0.0 && self.scaling_factor.is_finite()) {
            return Err(Error::config(
                "scaling_factor",
                self.scaling_factor,
                "a positive number",
            ));
        }
        Ok(())
    }
}

fn check_counts(p: &[u64], q: &[u64]) -> Result<()> {
    for (name, counts) in [("p", p), ("q", q)] {
        if counts.iter().all(|count| *count == 0) {
            return Err(Error::argument(name, "empty", "at least one text"));
        }
    }
    if p.len() != q.len() {
        let expected = format!("{} buckets, as in p", p.len());
        return Err(Error::argument("q", q.len(), expected));
    }
    Ok(())
}

/// Shares of counts, with `more` added to each of them.
fn histogram(counts: &[u64], more: f64) -> Vec<f64> {
    let total: f64 = counts.iter().map(|count| *count as f64 + more).sum();
    let share = |count: &u64| (*count as f64 + more) / total;
    counts.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn normal(seed: u64, n: usize, shift: f32) -> Features {
        let values = Rng::new(seed).normal_vec(n * 4);
        Features::new(values.into_iter().map(|x| x + shift).collect(), 4).unwrap()
    }

    #[test]
    fn equal_sets_score_one_and_distant_ones_near_zero() {
        let config = MauveConfig {
            normalize: false,
            ..MauveConfig::default()
        };
        let p = normal(1, 100, 0.0);
        let same = config.compute(&p, &p).unwrap();
        assert!((same.mauve - 1.0).abs() < 1e-9, "{}", same.mauve);
        assert_eq!((same.frontier_integral, same.num_buckets), (0.0, 10));
        let near = config.compute(&p, &normal(2, 100, 0.0)).unwrap();
        let far = config.compute(&p, &normal(3, 100, 50.0)).unwrap();
        assert!(
            far.mauve < 0.01 && near.mauve > 0.5,
            "{} {}",
            far.mauve,
            near.mauve
        );
        assert!((far.frontier_integral - 1.0).abs() < 1e-9);
        // Smoothing never leaves a bucket empty.
        assert!(far.mauve_star > far.mauve);
        assert_eq!(config.compute(&p, &normal(2, 100, 0.0)).unwrap(), near);
    }

    #[test]
    fn invalid_input_is_an_error() {
        let config = MauveConfig::default();
        let p = normal(1, 20, 0.0);
        let fails = |config: &MauveConfig, q: &Features, expected: &str| {
            let error = config.compute(&p, q).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        fails(&config, &Features::empty(4).unwrap(), "`q` is empty");
        let narrow = Features::new(vec![1.0, 2.0], 2).unwrap();
        fails(&config, &narrow, "`q` is 2, expected 4 features");
        let many = MauveConfig {
            num_buckets: Some(41),
            ..config.clone()
        };
        fails(&many, &p, "`num_buckets` is 41, expected at most 40");
        let whole = MauveConfig {
            kmeans_explained_var: 1.0,
            ..config.clone()
        };
        fails(&whole, &p, "`kmeans_explained_var` is 1");
        assert!(config.compute_from_counts(&[0, 0], &[1, 0]).is_err());
        assert!(config.compute_from_counts(&[1, 0], &[1]).is_err());
    }
}
