//! Disentanglement, completeness and informativeness.

use super::{FactorCodes, ScoreMatrix};
use crate::{Error, Result, check, rng::Rng};
use serde::{Deserialize, Serialize};

/// Configuration of [`dci`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DciConfig {
    /// Number of trees of a prediction.
    pub rounds: usize,
    /// Number of decisions from the root of a tree to its leaves.
    pub max_depth: usize,
    /// Part of a tree's prediction that is added.
    pub learning_rate: f64,
    /// Part of the samples that informativeness is measured with; the trees are fitted to the
    /// others.
    pub test_fraction: f64,
    /// Seed that decides which samples these are.
    pub seed: u64,
}

impl Default for DciConfig {
    fn default() -> Self {
        Self {
            rounds: 50,
            max_depth: 3,
            learning_rate: 0.3,
            test_fraction: 0.25,
            seed: 0,
        }
    }
}

impl DciConfig {
    fn validate(&self) -> Result<()> {
        check::in_range("rounds", self.rounds, 1..=10_000)?;
        check::in_range("max_depth", self.max_depth, 1..=16)?;
        check::positive("learning_rate", self.learning_rate)?;
        check::in_range("learning_rate", self.learning_rate, 0.0..=1.0)?;
        check::in_range("test_fraction", self.test_fraction, 0.05..=0.9)
    }
}

/// Result of [`dci`].
#[derive(Clone, Debug, PartialEq)]
pub struct Dci {
    /// Mean of `code_disentanglement`, weighted by the importance of the codes: 1 if each code
    /// serves one factor.
    pub disentanglement: f64,
    /// Mean of `factor_completeness`: 1 if each factor is predicted by one code.
    pub completeness: f64,
    /// Mean of `factor_informativeness`: 1 if the codes determine the factors.
    pub informativeness: f64,
    /// For each code, 1 minus the entropy of its importance over the factors, in units of the
    /// largest; 0 for a code without importance.
    pub code_disentanglement: Vec<f64>,
    /// For each factor, 1 minus the entropy of its importance over the codes, in units of the
    /// largest; 0 for a factor that no code predicts.
    pub factor_completeness: Vec<f64>,
    /// How well each factor is predicted for the samples of the test: `R²`, which is 0 or below for
    /// a prediction without use, or the accuracy for a categorical factor.
    pub factor_informativeness: Vec<f64>,
    /// Importance of each code for the prediction of each factor; the sum over the codes is 1, or 0
    /// for a factor that no code predicts.
    pub importance: ScoreMatrix,
}

/// Computes disentanglement, completeness and informativeness (DCI; Eastwood and Williams 2018,
/// <https://openreview.net/forum?id=By-7dz-AZ>, §2) by predictions of each factor from all codes.
///
/// The predictions are those of boosted regression trees (Friedman 2001), which minimise the
/// squared error; a categorical factor is predicted by a sum of trees for each of its values, of
/// which the largest wins. The importance of a code is the sum of the squared errors that its
/// decisions remove. The trees decide between at most 64 intervals of a code with equal numbers of
/// samples, and leave at least 5 samples on each side.
///
/// # Errors
/// [`Error::Config`] for values out of range; [`Error::InvalidArgument`] for fewer than 20 samples.
pub fn dci(data: &FactorCodes<'_>, config: &DciConfig) -> Result<Dci> {
    config.validate()?;
    if data.num_samples() < 20 {
        return Err(Error::argument(
            "samples",
            data.num_samples(),
            "at least 20",
        ));
    }
    let mut order = Rng::stream(config.seed, "dci", 0).permutation(data.num_samples());
    let test_len = ((data.num_samples() as f64 * config.test_fraction) as usize).max(1);
    let train = order.split_off(test_len);
    let boosting = Boosting::new(data, &train, config);
    let predictions = (0..data.num_factors()).map(|factor| boosting.predict_factor(factor, &order));
    let (importances, factor_informativeness): (Vec<Vec<f64>>, Vec<f64>) = predictions.unzip();
    let importance = ScoreMatrix::from_fn(data.num_codes(), data.num_factors(), |code, factor| {
        let total: f64 = importances[factor].iter().sum();
        if total > 0.0 {
            importances[factor][code] / total
        } else {
            0.0
        }
    });
    let (disentanglement, code_disentanglement) = disentanglement(&importance);
    let (completeness, factor_completeness) = completeness(&importance);
    Ok(Dci {
        disentanglement,
        completeness,
        informativeness: mean(&factor_informativeness),
        code_disentanglement,
        factor_completeness,
        factor_informativeness,
        importance,
    })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The weighted mean and the value of each code.
fn disentanglement(importance: &ScoreMatrix) -> (f64, Vec<f64>) {
    let rows = (0..importance.num_codes()).map(|code| importance.code(code));
    let weights: Vec<f64> = rows.clone().map(|row| row.iter().sum()).collect();
    let codes: Vec<f64> = rows.map(concentration).collect();
    let total: f64 = weights.iter().sum();
    let sum: f64 = codes
        .iter()
        .zip(&weights)
        .map(|(code, weight)| code * weight)
        .sum();
    (if total > 0.0 { sum / total } else { 0.0 }, codes)
}

/// The mean and the value of each factor.
fn completeness(importance: &ScoreMatrix) -> (f64, Vec<f64>) {
    let factors: Vec<f64> = (0..importance.num_factors())
        .map(|factor| concentration(&importance.factor(factor)))
        .collect();
    (mean(&factors), factors)
}

/// 1 minus the entropy of the shares of `weights` in units of the largest entropy; 1 for a single
/// weight, 0 if all are 0.
fn concentration(weights: &[f64]) -> f64 {
    let total: f64 = weights.iter().sum();
    if total <= 0.0 {
        return 0.0;
    }
    if weights.len() == 1 {
        return 1.0;
    }
    let shares = weights.iter().filter(|weight| **weight > 0.0);
    let terms = shares.map(|weight| weight / total * (weight / total).ln());
    1.0 + terms.sum::<f64>() / (weights.len() as f64).ln()
}

/// Largest number of intervals of a code.
const BINS: usize = 64;
/// Least number of samples on each side of a decision.
const MIN_SAMPLES: usize = 5;

/// Boosted regression trees on the codes of all samples.
struct Boosting<'a> {
    data: &'a FactorCodes<'a>,
    config: &'a DciConfig,
    /// The samples that the trees are fitted to.
    train: &'a [usize],
    /// The interval of each code of each sample, `[codes][n]`.
    bins: Vec<Vec<u8>>,
}

/// A regression tree.
enum Node {
    Leaf(f64),
    Split {
        code: usize,
        /// The first interval above the threshold.
        bin: u8,
        below: Box<Node>,
        above: Box<Node>,
    },
}

/// A decision and the squared error that it removes.
#[derive(Clone, Copy)]
struct Split {
    code: usize,
    bin: u8,
    gain: f64,
}

impl<'a> Boosting<'a> {
    fn new(data: &'a FactorCodes<'a>, train: &'a [usize], config: &'a DciConfig) -> Self {
        let intervals = |code: usize| -> Vec<u8> {
            let values: Vec<f64> = data.code(code).collect();
            let mut sorted: Vec<f64> = train.iter().map(|sample| values[*sample]).collect();
            sorted.sort_by(f64::total_cmp);
            let mut bounds: Vec<f64> = (1..BINS)
                .map(|bin| sorted[bin * sorted.len() / BINS])
                .filter(|bound| *bound > sorted[0])
                .collect();
            bounds.dedup();
            let bin = |value: &f64| bounds.partition_point(|bound| bound <= value) as u8;
            values.iter().map(bin).collect()
        };
        Self {
            data,
            config,
            train,
            bins: (0..data.num_codes()).map(intervals).collect(),
        }
    }

    /// The importance of each code for a factor, and how well the factor is predicted for the
    /// samples `test`.
    fn predict_factor(&self, factor: usize, test: &[usize]) -> (Vec<f64>, f64) {
        let values: Vec<usize> = self.data.factor(factor).collect();
        let mut importance = vec![0.0; self.data.num_codes()];
        if !self.data.categorical[factor] {
            let targets: Vec<f64> = values.iter().map(|value| *value as f64).collect();
            let predicted = self.predict(&targets, &mut importance);
            let target_mean = test.iter().map(|sample| targets[*sample]).sum::<f64>();
            let target_mean = target_mean / test.len() as f64;
            let square = |x: f64| x * x;
            let around = |centre: &dyn Fn(usize) -> f64| -> f64 {
                test.iter()
                    .map(|sample| square(targets[*sample] - centre(*sample)))
                    .sum()
            };
            let error = around(&|sample| predicted[sample]);
            let spread = around(&|_| target_mean);
            let score = if spread > 0.0 {
                1.0 - error / spread
            } else {
                0.0
            };
            return (importance, score);
        }
        // The value with the largest prediction so far, for each sample.
        let mut best = vec![(f64::NEG_INFINITY, 0); values.len()];
        for value in 0..self.data.num_values[factor] {
            let targets: Vec<f64> = values.iter().map(|v| f64::from(*v == value)).collect();
            if targets.iter().all(|target| *target == 0.0) {
                continue;
            }
            let predicted = self.predict(&targets, &mut importance);
            for (best, predicted) in best.iter_mut().zip(predicted) {
                if predicted > best.0 {
                    *best = (predicted, value);
                }
            }
        }
        let right = test
            .iter()
            .filter(|sample| best[**sample].1 == values[**sample]);
        (importance, right.count() as f64 / test.len() as f64)
    }

    /// Predicts targets for all samples, and adds the squared errors that the decisions about each
    /// code remove.
    fn predict(&self, targets: &[f64], importance: &mut [f64]) -> Vec<f64> {
        let train_targets = self.train.iter().map(|sample| targets[*sample]);
        let start = train_targets.sum::<f64>() / self.train.len() as f64;
        let mut residuals: Vec<f64> = targets.iter().map(|target| target - start).collect();
        let squares = self.train.iter().map(|sample| residuals[*sample].powi(2));
        let min_gain = 1e-9 * squares.sum::<f64>();
        for _ in 0..self.config.rounds {
            let (depth, train) = (self.config.max_depth, self.train.to_vec());
            let tree = self.grow(train, &residuals, depth, min_gain, importance);
            if matches!(tree, Node::Leaf(_)) {
                break;
            }
            for (sample, residual) in residuals.iter_mut().enumerate() {
                *residual -= self.config.learning_rate * self.evaluate(&tree, sample);
            }
        }
        let predicted = targets.iter().zip(&residuals);
        predicted
            .map(|(target, residual)| target - residual)
            .collect()
    }

    fn evaluate(&self, node: &Node, sample: usize) -> f64 {
        match node {
            Node::Leaf(value) => *value,
            Node::Split {
                code,
                bin,
                below,
                above,
            } => {
                let next = if self.bins[*code][sample] < *bin {
                    below
                } else {
                    above
                };
                self.evaluate(next, sample)
            }
        }
    }

    fn grow(
        &self,
        samples: Vec<usize>,
        residuals: &[f64],
        depth: usize,
        min_gain: f64,
        importance: &mut [f64],
    ) -> Node {
        let sum: f64 = samples.iter().map(|sample| residuals[*sample]).sum();
        let leaf = Node::Leaf(sum / samples.len() as f64);
        if depth == 0 {
            return leaf;
        }
        let splits = (0..self.bins.len())
            .filter_map(|code| self.best_split(code, &samples, residuals))
            .filter(|split| split.gain > min_gain);
        // Of equal decisions, the first.
        let best = splits.reduce(|best, next| if next.gain > best.gain { next } else { best });
        let Some(Split { code, bin, gain }) = best else {
            return leaf;
        };
        importance[code] += gain;
        let (below, above): (Vec<usize>, Vec<usize>) =
            (samples.into_iter()).partition(|sample| self.bins[code][*sample] < bin);
        let mut grow =
            |samples| Box::new(self.grow(samples, residuals, depth - 1, min_gain, importance));
        Node::Split {
            code,
            bin,
            below: grow(below),
            above: grow(above),
        }
    }

    /// The decision about a code that removes most of the squared error.
    fn best_split(&self, code: usize, samples: &[usize], residuals: &[f64]) -> Option<Split> {
        let (mut counts, mut sums) = ([0usize; BINS], [0.0; BINS]);
        for sample in samples {
            let bin = usize::from(self.bins[code][*sample]);
            counts[bin] += 1;
            sums[bin] += residuals[*sample];
        }
        let (count, sum) = (samples.len(), sums.iter().sum::<f64>());
        let explained = |sum: f64, count: usize| sum * sum / count as f64;
        let (mut below, mut below_sum) = (0, 0.0);
        let mut best: Option<Split> = None;
        for (bin, (bin_count, bin_sum)) in counts.iter().zip(sums).enumerate() {
            // Between the interval before this one and this one.
            let above = count - below;
            if below >= MIN_SAMPLES && above >= MIN_SAMPLES {
                let gain = explained(below_sum, below) + explained(sum - below_sum, above)
                    - explained(sum, count);
                if best.is_none_or(|best| gain > best.gain) {
                    let bin = bin as u8;
                    best = Some(Split { code, bin, gain });
                }
            }
            below += bin_count;
            below_sum += bin_sum;
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::disentanglement::testing::{as_codes, grid, noise};

    #[test]
    fn scores_of_a_known_importance_match_their_formulas() {
        let matrix = [[1.0, 0.5], [0.0, 0.5], [0.0, 0.0]];
        let importance = ScoreMatrix::from_fn(3, 2, |code, factor| matrix[code][factor]);
        let (score, codes) = disentanglement(&importance);
        let entropy = -(2.0f64 / 3.0 * (2.0f64 / 3.0).ln() + (1.0f64 / 3.0).ln() / 3.0);
        let first = 1.0 - entropy / 2f64.ln();
        assert!((codes[0] - first).abs() < 1e-12);
        assert_eq!(codes[1..], [1.0, 0.0]);
        assert!((score - (0.75 * first + 0.25)).abs() < 1e-12);
        let (score, factors) = completeness(&importance);
        let second = 1.0 - 2f64.ln() / 3f64.ln();
        assert!((factors[0] - 1.0).abs() < 1e-12 && (factors[1] - second).abs() < 1e-12);
        assert!((score - 0.5 * (1.0 + second)).abs() < 1e-12);
        assert_eq!(
            (concentration(&[3.0]), concentration(&[0.0, 0.0])),
            (1.0, 0.0)
        );
    }

    #[test]
    fn codes_equal_to_factors_have_scores_of_one() {
        let num_values = [4, 5, 3];
        let factors = grid(&num_values, 20);
        let codes = as_codes(&factors);
        let data = FactorCodes::new(&codes, 3, &factors, &num_values).unwrap();
        let data = data.with_categorical(&[2]).unwrap();
        let found = dci(&data, &DciConfig::default()).unwrap();
        for score in [
            found.disentanglement,
            found.completeness,
            found.informativeness,
        ] {
            assert!((score - 1.0).abs() < 1e-6, "{found:?}");
        }
        for factor in 0..3 {
            assert!((found.importance.get(factor, factor) - 1.0).abs() < 1e-6);
        }
        assert_eq!(found, dci(&data, &DciConfig::default()).unwrap());
    }

    /// A factor that is not monotone in its code, and codes of noise beside.
    #[test]
    fn trees_find_the_code_of_a_curved_dependence() {
        let factors = grid(&[8, 3], 60);
        let noise = noise(3, 2 * 1440);
        let codes: Vec<f64> = (factors.chunks_exact(2).zip(noise.chunks_exact(2)))
            .flat_map(|(f, e)| {
                [
                    e[0],
                    f64::from([3, 0, 6, 1, 7, 2, 5, 4][f[0] as usize]),
                    e[1],
                ]
            })
            .collect();
        let data = FactorCodes::new(&codes, 3, &factors, &[8, 3]).unwrap();
        let found = dci(&data, &DciConfig::default()).unwrap();
        assert!(found.importance.get(1, 0) > 0.95, "{found:?}");
        assert!(found.factor_informativeness[0] > 0.95, "{found:?}");
        assert!(found.factor_completeness[0] > 0.8, "{found:?}");
        // No code has information about the second factor.
        assert!(found.factor_informativeness[1] < 0.1, "{found:?}");
    }

    #[test]
    fn noise_and_mixed_codes_have_low_scores() {
        let factors = grid(&[4, 5], 100);
        let codes = noise(2, 3 * 2000);
        let data = FactorCodes::new(&codes, 3, &factors, &[4, 5]).unwrap();
        let found = dci(&data, &DciConfig::default()).unwrap();
        assert!(
            found.disentanglement < 0.1 && found.completeness < 0.1,
            "{found:?}"
        );
        assert!(found.informativeness < 0.1, "{found:?}");
        // Sum and difference of two factors together determine both.
        let factors = grid(&[8, 8], 20);
        let codes: Vec<f64> = (factors.chunks_exact(2))
            .flat_map(|f| [f64::from(f[0] + f[1]), f64::from(f[0]) - f64::from(f[1])])
            .collect();
        let data = FactorCodes::new(&codes, 2, &factors, &[8, 8]).unwrap();
        let found = dci(&data, &DciConfig::default()).unwrap();
        assert!(
            found.disentanglement < 0.1 && found.completeness < 0.1,
            "{found:?}"
        );
        assert!(found.informativeness > 0.95, "{found:?}");
    }

    #[test]
    fn invalid_configurations_are_errors() {
        let factors = grid(&[2], 5);
        let codes = as_codes(&factors);
        let data = FactorCodes::new(&codes, 1, &factors, &[2]).unwrap();
        let few = dci(&data, &DciConfig::default()).unwrap_err().to_string();
        assert!(
            few.contains("`samples` is 10, expected at least 20"),
            "{few}"
        );
        let config = DciConfig {
            learning_rate: 1.5,
            ..DciConfig::default()
        };
        let message = dci(&data, &config).unwrap_err().to_string();
        assert!(
            message.contains("`learning_rate` is 1.5, expected 0 to 1"),
            "{message}"
        );
    }
}
