//! The mutual information gap.

use super::{FactorCodes, ScoreMatrix};
use crate::{Result, check};

/// Result of [`mutual_information_gap`].
#[derive(Clone, Debug, PartialEq)]
pub struct MutualInformationGap {
    /// Mean of the gaps: 1 if the best code of each factor determines it and no other code has
    /// information about it, 0 if two codes have the same amount of information.
    pub score: f64,
    /// For each factor, the difference of the two largest mutual informations, divided by the
    /// entropy of the factor.
    pub gaps: Vec<f64>,
    /// Entropy of each factor, in nats.
    pub entropies: Vec<f64>,
    /// Mutual information of each code and each factor, in nats.
    pub mutual_information: ScoreMatrix,
}

/// Computes the mutual information gap (MIG; Chen et al. 2018, <https://arxiv.org/abs/1802.04942>,
/// eq. 6) of discretised codes: histograms of `bins` bins of equal width between the least and the
/// largest value of a code; 20 bins are usual (Locatello et al. 2019,
/// <https://arxiv.org/abs/1811.12359>).
///
/// The mutual information of independent codes and factors is not 0 for a finite number `n` of
/// samples, but about `(bins − 1)·(values − 1) / 2n`, so `n` should be some thousands.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) unless there are 2 to 4,096 bins.
pub fn mutual_information_gap(data: &FactorCodes<'_>, bins: usize) -> Result<MutualInformationGap> {
    check::ensure_argument((2..=4096).contains(&bins), "bins", bins, "2 to 4096")?;
    let factors: Vec<Vec<usize>> = (0..data.num_factors())
        .map(|factor| data.factor(factor).collect())
        .collect();
    let codes: Vec<Vec<usize>> = (0..data.num_codes())
        .map(|code| data.binned(code, bins))
        .collect();
    let entropies: Vec<f64> = factors.iter().cloned().map(entropy).collect();
    let code_entropies: Vec<f64> = codes.iter().cloned().map(entropy).collect();
    // I(z; v) = H(z) + H(v) − H(z, v)
    let information = |code: usize, factor: usize| {
        let pairs = codes[code]
            .iter()
            .copied()
            .zip(factors[factor].iter().copied());
        let joint = entropy(pairs.collect());
        (code_entropies[code] + entropies[factor] - joint).max(0.0)
    };
    let mutual_information =
        ScoreMatrix::from_fn(data.num_codes(), data.num_factors(), information);
    let gaps: Vec<f64> = (entropies.iter().enumerate())
        .map(|(factor, entropy)| mutual_information.gap(factor) / entropy)
        .collect();
    Ok(MutualInformationGap {
        score: gaps.iter().sum::<f64>() / gaps.len() as f64,
        gaps,
        entropies,
        mutual_information,
    })
}

/// The entropy of the shares of equal items, in nats.
fn entropy<T: Ord>(mut items: Vec<T>) -> f64 {
    items.sort_unstable();
    let shares = items.chunk_by(|a, b| a == b);
    let shares = shares.map(|equal| equal.len() as f64 / items.len() as f64);
    -shares.map(|share| share * share.ln()).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::disentanglement::testing::{as_codes, binary_symmetric, grid, noise};
    use std::f64::consts::LN_2;

    #[test]
    fn codes_equal_to_factors_have_a_gap_of_one() {
        let num_values = [4, 5, 3];
        let factors = grid(&num_values, 10);
        let codes = as_codes(&factors);
        let data = FactorCodes::new(&codes, 3, &factors, &num_values).unwrap();
        let found = mutual_information_gap(&data, 20).unwrap();
        assert!((found.score - 1.0).abs() < 1e-9, "{found:?}");
        for (factor, values) in num_values.into_iter().enumerate() {
            let entropy = (values as f64).ln();
            assert!((found.entropies[factor] - entropy).abs() < 1e-9);
            for code in 0..3 {
                let expected = if code == factor { entropy } else { 0.0 };
                let information = found.mutual_information.get(code, factor);
                assert!((information - expected).abs() < 1e-9);
            }
        }
        assert!(mutual_information_gap(&data, 1).is_err());
    }

    /// The information of a binary symmetric channel with errors in 1 of 8 cases.
    #[test]
    fn gap_of_a_noisy_channel_matches_its_closed_form() {
        let (codes, factors) = binary_symmetric();
        let data = FactorCodes::new(&codes, 3, &factors, &[2, 2]).unwrap();
        let found = mutual_information_gap(&data, 20).unwrap();
        let errors = -(0.125 * 0.125f64.ln() + 0.875 * 0.875f64.ln());
        assert!((found.mutual_information.get(0, 0) - (LN_2 - errors)).abs() < 1e-12);
        assert!((found.gaps[0] - (1.0 - errors / LN_2)).abs() < 1e-12);
        assert!((found.gaps[1] - 1.0).abs() < 1e-12);
        assert!((found.score - (1.0 - 0.5 * errors / LN_2)).abs() < 1e-12);
    }

    #[test]
    fn two_equal_codes_have_no_gap() {
        let factors = grid(&[6], 5);
        let codes: Vec<f64> = as_codes(&factors)
            .into_iter()
            .flat_map(|x| [x, -x])
            .collect();
        let data = FactorCodes::new(&codes, 2, &factors, &[6]).unwrap();
        assert!(mutual_information_gap(&data, 20).unwrap().score.abs() < 1e-12);
    }

    #[test]
    fn noise_has_nearly_no_gap() {
        let factors = grid(&[4, 3], 400);
        let codes = noise(1, 3 * 4800);
        let data = FactorCodes::new(&codes, 3, &factors, &[4, 3]).unwrap();
        let found = mutual_information_gap(&data, 20).unwrap();
        assert!(found.score < 0.01, "{found:?}");
        // The bias of the estimate is about 19·3 / 9600.
        assert!(
            found
                .mutual_information
                .code(0)
                .iter()
                .all(|value| *value < 0.02)
        );
    }
}
