//! Scores of generated sounds by a classifier.
//!
//! They are those that the field's measurements of spoken digits report (Goel et al. 2022,
//! <https://arxiv.org/abs/2202.09729>). Numbers are comparable only among the same classifier.

use crate::{
    Error, Result,
    eval::{FeatureStatistics, Features, frechet_distance},
    rng::Rng,
};

/// Features and logits of sounds.
#[derive(Clone, Debug, PartialEq)]
pub struct SoundReadings {
    /// Features, one row for each sound.
    pub features: Features,
    /// Logits of the classes, one row for each sound.
    pub logits: Features,
}

impl SoundReadings {
    /// The class read in each sound.
    pub fn predictions(&self) -> Vec<u32> {
        let largest = |row: &[f32]| {
            let values = row.iter().enumerate();
            // The first of equal ones.
            let best = values.reduce(|best, next| if next.1 > best.1 { next } else { best });
            best.map_or(0, |(class, _)| class as u32)
        };
        self.logits.rows().map(largest).collect()
    }
}

/// Four scores of generated sounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassifierScores {
    /// Fréchet distance of the features from those of real sounds; lower is better.
    pub frechet: f64,
    /// [`split_inception_score`]; higher is better.
    pub inception: f64,
    /// [`modified_inception_score`]; higher is better.
    pub modified_inception: f64,
    /// [`am_score`]; lower is better.
    pub am: f64,
}

impl ClassifierScores {
    /// Scores of generated sounds beside real ones. Those of real held-out sounds show how good
    /// they can be.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the two have other features or classes, or there are fewer
    /// than two sounds of one kind.
    pub fn new(real: &SoundReadings, generated: &SoundReadings, seed: u64) -> Result<Self> {
        let statistics = |features: &Features| {
            let mut statistics = FeatureStatistics::new(features.width())?;
            statistics.add_features(features)?;
            Ok::<_, Error>(statistics)
        };
        let (of_real, of_generated) = (
            statistics(&real.features)?,
            statistics(&generated.features)?,
        );
        Ok(Self {
            frechet: frechet_distance(&of_real, &of_generated)?,
            inception: split_inception_score(&generated.logits, seed)?,
            modified_inception: modified_inception_score(&generated.logits)?,
            am: am_score(&real.logits, &generated.logits)?,
        })
    }
}

impl std::fmt::Display for ClassifierScores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = f.precision().unwrap_or(3);
        write!(
            f,
            "Fréchet {:.digits$}, IS {:.digits$}, mIS {:.digits$}, AM {:.digits$}",
            self.frechet, self.inception, self.modified_inception, self.am
        )
    }
}

/// `exp(mean KL(p(y|x) ‖ p(y)))`, where the mean is over half of the sounds, and `p(y)` is the mean
/// of the other half. [`inception_score`](crate::eval::inception_score) has the same sounds for
/// both. The halves are drawn by `seed`.
///
/// # Shapes
/// - logits: one row per sound, one column per class
///
/// # Errors
/// [`Error::InvalidArgument`] for fewer than two sounds.
pub fn split_inception_score(logits: &Features, seed: u64) -> Result<f64> {
    let log_p = log_probabilities(logits, "logits", 2)?;
    let order = Rng::stream(seed, "split inception score", 0).permutation(log_p.len());
    let (half, other) = order.split_at(log_p.len() / 2);
    let log_mean: Vec<f64> = mean(other.iter().map(|i| &log_p[*i]), logits.width())
        .into_iter()
        .map(f64::ln)
        .collect();
    let divergence = |i: &usize| {
        let p = log_p[*i].iter().zip(&log_mean);
        p.map(|(log_p, log_mean)| weighted(*log_p, log_p - log_mean))
            .sum::<f64>()
    };
    Ok((half.iter().map(divergence).sum::<f64>() / half.len() as f64).exp())
}

/// `exp(mean KL(p(y|x) ‖ p(y|x′)))` over all pairs of sounds (Gurumurthy et al. 2017,
/// <https://arxiv.org/abs/1706.02071>, without their classes): what drawn pairs estimate.
///
/// # Shapes
/// - logits: one row per sound, one column per class
///
/// # Errors
/// [`Error::InvalidArgument`] for no sounds.
pub fn modified_inception_score(logits: &Features) -> Result<f64> {
    let log_p = log_probabilities(logits, "logits", 1)?;
    let count = log_p.len() as f64;
    let marginal = mean(log_p.iter(), logits.width());
    // Σ p·ln p of every sound, less the products of all p with all ln p.
    let own = log_p
        .iter()
        .flatten()
        .map(|log_p| weighted(*log_p, *log_p))
        .sum::<f64>()
        / count;
    let crossed = marginal.iter().enumerate().map(|(class, p)| {
        let log_mean = log_p.iter().map(|row| row[class]).sum::<f64>() / count;
        p * log_mean
    });
    Ok((own - crossed.sum::<f64>()).exp())
}

/// `KL(p(y) of real sounds ‖ p(y) of generated ones)` plus the mean entropy of `p(y|x)` of the
/// generated ones (Zhou et al. 2018, <https://arxiv.org/abs/1703.02000>).
///
/// # Shapes
/// - real and generated: logits, one row per sound, one column per class
///
/// # Errors
/// [`Error::InvalidArgument`] for no sounds, or if the numbers of classes differ.
pub fn am_score(real: &Features, generated: &Features) -> Result<f64> {
    if real.width() != generated.width() {
        let expected = format!("{}, the classes of real sounds", real.width());
        return Err(Error::argument("generated", generated.width(), expected));
    }
    let width = real.width();
    let real = log_probabilities(real, "real", 1)?;
    let generated = log_probabilities(generated, "generated", 1)?;
    let marginals = mean(real.iter(), width)
        .into_iter()
        .zip(mean(generated.iter(), width));
    let divergence = marginals.map(|(p, q)| if p > 0.0 { p * (p / q).ln() } else { 0.0 });
    let own = generated
        .iter()
        .flatten()
        .map(|log_p| weighted(*log_p, *log_p));
    Ok(divergence.sum::<f64>() - own.sum::<f64>() / generated.len() as f64)
}

/// `p·x` for the logarithm of `p`; 0 where `p` is 0.
fn weighted(log_p: f64, x: f64) -> f64 {
    let p = log_p.exp();
    if p > 0.0 { p * x } else { 0.0 }
}

/// Logarithms of the probabilities of classes, one row per sound.
fn log_probabilities(logits: &Features, argument: &str, fewest: usize) -> Result<Vec<Vec<f64>>> {
    if logits.len() < fewest {
        let found = format!("{} sounds", logits.len());
        return Err(Error::argument(
            argument,
            found,
            format!("at least {fewest}"),
        ));
    }
    let row = |row: &[f32]| -> Vec<f64> {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let shifted = row.iter().map(|x| f64::from(*x) - f64::from(largest));
        let shifted: Vec<f64> = shifted.collect();
        let log_sum = shifted.iter().map(|x| x.exp()).sum::<f64>().ln();
        shifted.iter().map(|x| x - log_sum).collect()
    };
    Ok(logits.rows().map(row).collect())
}

/// Mean probabilities of rows of logarithms.
fn mean<'a>(rows: impl ExactSizeIterator<Item = &'a Vec<f64>>, width: usize) -> Vec<f64> {
    let count = rows.len() as f64;
    let mut mean = vec![0.0; width];
    for row in rows {
        for (mean, log_p) in mean.iter_mut().zip(row) {
            *mean += log_p.exp() / count;
        }
    }
    mean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(probabilities: &[[f64; 3]]) -> Features {
        let logits = probabilities.iter().flatten().map(|p| p.ln() as f32);
        Features::new(logits.collect(), 3).unwrap()
    }

    fn kl(p: [f64; 3], q: [f64; 3]) -> f64 {
        p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum()
    }

    #[test]
    fn scores_match_their_definitions() {
        let p = [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.5, 0.25, 0.25]];
        let mut pairs = 0.0;
        for a in p {
            for b in p {
                pairs += kl(a, b) / 9.0;
            }
        }
        let found = modified_inception_score(&of(&p)).unwrap();
        assert!((found - pairs.exp()).abs() < 1e-6, "{found}");

        let real = [0.2, 0.3, 0.5];
        let mean = [0, 1, 2].map(|class| p.iter().map(|p| p[class]).sum::<f64>() / 3.0);
        let entropy = p.iter().flatten().map(|p| -p * p.ln()).sum::<f64>() / 3.0;
        let found = am_score(&of(&[real]), &of(&p)).unwrap();
        assert!((found - kl(real, mean) - entropy).abs() < 1e-6, "{found}");

        // Two sounds: one is the half, the other its marginal.
        let found = split_inception_score(&of(&p[..2]), 3).unwrap();
        let either = [kl(p[0], p[1]), kl(p[1], p[0])].map(f64::exp);
        assert!(
            either.iter().any(|score| (score - found).abs() < 1e-6),
            "{found}"
        );
    }

    /// Certain and even: as many as there are classes, and no entropy.
    #[test]
    fn certain_and_even_sounds_score_best() {
        let mut logits = vec![0.0; 3 * 300];
        for sound in 0..300 {
            logits[3 * sound + sound % 3] = 30.0;
        }
        let logits = Features::new(logits, 3).unwrap();
        let inception = split_inception_score(&logits, 0).unwrap();
        assert!((2.9..3.2).contains(&inception), "{inception}");
        assert!(am_score(&logits, &logits).unwrap().abs() < 1e-9);
        assert!(modified_inception_score(&logits).unwrap() > 1e8);
        let readings = SoundReadings {
            features: logits.clone(),
            logits: logits.clone(),
        };
        assert_eq!(readings.predictions()[..4], [0, 1, 2, 0]);
        let scores = ClassifierScores::new(&readings, &readings, 0).unwrap();
        assert!(scores.frechet.abs() < 1e-3, "{scores}");
        assert_eq!(scores.inception, inception);
    }

    #[test]
    fn too_few_sounds_are_errors() {
        let one = of(&[[0.2, 0.3, 0.5]]);
        let text = |result: Result<f64>| result.unwrap_err().to_string();
        assert!(text(split_inception_score(&one, 0)).contains("`logits` is 1 sounds"));
        let none = Features::empty(3).unwrap();
        assert!(text(modified_inception_score(&none)).contains("`logits` is 0 sounds"));
        assert!(text(am_score(&none, &one)).contains("`real`"));
        let two = Features::new(vec![0.0; 2], 2).unwrap();
        assert!(text(am_score(&one, &two)).contains("`generated` is 2, expected 3"));
    }
}
