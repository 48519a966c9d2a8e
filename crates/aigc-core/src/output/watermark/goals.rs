//! Which coefficients a mark moves, and to which values.

/// Standard deviation of the noise that marks are planned for, such as that of compression; as a
/// multiple of what the mark may change each coefficient by.
const NOISE: f64 = 0.5;

/// Distance of the values that coefficients can be moved to, in standard deviations of the noise.
const STEP: f64 = 0.25;

/// Number of these values; noise hardly ever changes the sign of the largest.
const LEVELS: usize = 16;

/// Rounds of the search for the price of a change.
const HALVINGS: usize = 30;

/// New values of `aligned`, the coefficients times the signs that they shall have, whose squared
/// changes sum to at most `energy`.
///
/// They are the values for which the largest number of signs is expected to agree after noise.
/// As in improved spread spectrum (Malvar and Florêncio 2003,
/// <https://doi.org/10.1109/TSP.2003.809385>), the energy goes to where the image works against
/// the key: to signs that are wrong and cheap to turn, not to those that are right by themselves.
pub(super) fn goals(aligned: &[f64], energy: f64) -> Vec<f64> {
    let unit = NOISE * (energy / aligned.len() as f64).sqrt();
    let levels = (1..=LEVELS).map(|i| STEP * i as f64);
    let levels: Vec<(f64, f64)> = levels.map(|level| (level, agreement(level))).collect();
    // A sum of gains under a sum of costs has its maximum where every coefficient by itself has
    // the largest difference of gain and cost, at one price (a Lagrange multiplier).
    let plan = |price: f64| -> Vec<f64> {
        let goal = |value: &f64| {
            let scaled = value / unit;
            let now = agreement(scaled);
            let mut best = (0.0, *value);
            for (level, then) in levels.iter().filter(|(level, _)| *level > scaled) {
                let gain = then - now - price * (level - scaled).powi(2);
                if gain > best.0 {
                    best = (gain, level * unit);
                }
            }
            best.1
        };
        aligned.iter().map(goal).collect()
    };
    // Logarithms of prices: at the lower, every sign is worth its cost, at the higher none.
    let (mut low, mut high) = (-20.0f64, 5.0f64);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        let squares = plan(middle.exp()).into_iter().zip(aligned);
        let cost: f64 = squares.map(|(goal, value)| (goal - value).powi(2)).sum();
        if cost > energy {
            low = middle;
        } else {
            high = middle;
        }
    }
    plan(high.exp())
}

/// Probability that a value, in standard deviations of the noise, stays positive. The logistic
/// function is close to the normal distribution's with this factor.
fn agreement(value: f64) -> f64 {
    1.0 / (1.0 + (-1.702 * value).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cheap wrong signs are turned, expensive ones are left, and all energy is spent.
    #[test]
    fn energy_goes_where_it_turns_most_signs() {
        let aligned: Vec<f64> = (-500..500).map(|i| f64::from(i) + 0.5).collect();
        let energy = 40_000.0;
        let goals = goals(&aligned, energy);
        let moved: Vec<_> = goals.iter().zip(&aligned).filter(|(g, a)| g != a).collect();
        let cost: f64 = moved.iter().map(|(g, a)| (*g - *a).powi(2)).sum();
        assert!(cost <= energy && cost > 0.8 * energy, "{cost}");
        assert!(moved.iter().all(|(goal, value)| goal > value));
        let positive = |values: &[f64]| values.iter().filter(|value| **value > 0.0).count();
        // At best, without regard to noise, the changes 0.5², 1.5², …, 48.5² turn 49 signs.
        let turned = positive(&goals) - positive(&aligned);
        assert!((35..=49).contains(&turned), "{turned}");
        assert_eq!(goals[..400], aligned[..400]);
        assert_eq!(goals[600..], aligned[600..]);
    }

    #[test]
    fn signs_that_are_right_in_any_noise_cost_nothing() {
        assert_eq!(goals(&[1e6; 8], 100.0), [1e6; 8]);
        let wrong = [-1e300; 8];
        assert_eq!(goals(&wrong, 100.0), wrong);
    }
}
