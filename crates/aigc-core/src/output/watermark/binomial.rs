//! Tail of the binomial distribution.

/// Probability of at least `k` successes in `n` trials of probability ½; 0 where it is below the
/// smallest positive number.
pub(super) fn upper_tail(n: usize, k: usize) -> f64 {
    if k == 0 {
        return 1.0;
    }
    if k > n {
        return 0.0;
    }
    if 2 * k <= n {
        // By symmetry; the first term of the longer sum could underflow.
        return 1.0 - upper_tail(n, n + 1 - k);
    }
    let ln_choose: f64 = (1..=n - k).map(|i| ((k + i) as f64 / i as f64).ln()).sum();
    let mut term = (ln_choose - n as f64 * std::f64::consts::LN_2).exp();
    let mut sum = 0.0;
    for j in k..=n {
        sum += term;
        term *= (n - j) as f64 / (j + 1) as f64;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::upper_tail;

    #[test]
    fn tail_matches_counts_and_scipy() {
        let sixteenths: Vec<f64> = (0..6).map(|k| 16.0 * upper_tail(4, k)).collect();
        for (found, expected) in sixteenths.iter().zip([16.0, 15.0, 11.0, 5.0, 1.0, 0.0]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        // scipy.stats.binom.sf(k - 1, n, 0.5)
        for (n, k, expected) in [
            (3_000, 1_600, 0.00013928198051961683),
            (12_000, 6_800, 1.0712527682129243e-48),
            (800, 380, 0.9264338014010901),
        ] {
            let found = upper_tail(n, k);
            assert!(
                (found - expected).abs() < 1e-9 * expected,
                "{found} {expected}"
            );
        }
    }
}
