//! How much a model has memorised its training set, by its losses.

use crate::{
    Error, Result,
    eval::{Estimate, bootstrap, estimate::percentile_interval},
    rng::Rng,
};

/// Rounds of the bootstrap.
const ROUNDS: usize = 1000;
/// Confidence of the bootstrap interval.
const CONFIDENCE: f64 = 0.95;
/// The false-positive rate at which attacks are compared.
const FALSE_POSITIVE_RATE: f64 = 0.01;

/// How far the losses of training items lie below those of held-out ones.
///
/// An attacker who guesses that items with a small loss were trained on succeeds where a model has
/// memorised its training set (Yeom et al. 2018, <https://arxiv.org/abs/1709.01604>).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memorization {
    /// Mean loss of the training items.
    pub train: Estimate,
    /// Mean loss of the held-out items.
    pub held_out: Estimate,
    /// Generalisation gap: the mean loss of held-out items less that of training items.
    pub gap: f64,
    /// The 95 % bootstrap interval of the gap.
    pub gap_interval: (f64, f64),
    /// Area under the ROC curve of the attack: the probability that a training item has a smaller
    /// loss than a held-out one, ties counted by half. 0.5 is chance, 1 complete memorisation.
    pub auc: f64,
    /// The 95 % bootstrap interval of the area.
    pub auc_interval: (f64, f64),
    /// True-positive rate of the attack: the largest share of training items below a threshold that
    /// at most 1 % of the held-out items reach (Carlini et al. 2022,
    /// <https://arxiv.org/abs/2112.03570>). About 0.01 is chance. With fewer than 100 held-out
    /// items, it is the share of training items with a smaller loss than any of them.
    pub tpr_at_1_percent_fpr: f64,
}

/// Compares the losses of training items with those of held-out items of the same distribution, for
/// any model that has a loss for each item. Losses that are drawn with noise, as of diffusion
/// models, should be averages over the same draws for both sets.
///
/// The bootstrap draws items of both sets with a fixed seed: the same losses give the same result.
///
/// # Errors
/// [`Error::InvalidArgument`] if either has fewer than two losses, or one is not finite.
pub fn memorization(train_losses: &[f64], held_out_losses: &[f64]) -> Result<Memorization> {
    check("train_losses", train_losses)?;
    check("held_out_losses", held_out_losses)?;
    let train = Estimate::from_samples(train_losses)?;
    let held_out = Estimate::from_samples(held_out_losses)?;
    let [gap_interval, auc_interval] = intervals(train_losses, held_out_losses)?;
    let (auc, tpr_at_1_percent_fpr) = attack(train_losses, held_out_losses);
    Ok(Memorization {
        gap: held_out.mean - train.mean,
        train,
        held_out,
        gap_interval,
        auc,
        auc_interval,
        tpr_at_1_percent_fpr,
    })
}

/// The bootstrap intervals of the gap and of the area.
fn intervals(train: &[f64], held_out: &[f64]) -> Result<[(f64, f64); 2]> {
    let mut rng = Rng::stream(0, "memorization/train", 0);
    let mut other = Rng::stream(0, "memorization/held-out", 0);
    let n = held_out.len();
    // Sorted once: a round counts how often each place was drawn.
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| held_out[*a].total_cmp(&held_out[*b]));
    let mut place = vec![0; n];
    for (at, item) in order.iter().enumerate() {
        place[*item] = at;
    }
    // The places of held-out losses that equal each training loss.
    let equal = |loss: &f64| {
        let below = order.partition_point(|item| held_out[*item] < *loss);
        let up_to = order.partition_point(|item| held_out[*item] <= *loss);
        (below, up_to)
    };
    let equal: Vec<(usize, usize)> = train.iter().map(equal).collect();
    let mut areas = Vec::with_capacity(ROUNDS);
    let gap = bootstrap(train.len(), ROUNDS, CONFIDENCE, &mut rng, |items| {
        let own: f64 = items.iter().map(|i| train[*i]).sum();
        let (mut others, mut drawn_before) = (0.0, vec![0.0; n + 1]);
        for _ in 0..n {
            let item = other.random_index(n);
            others += held_out[item];
            drawn_before[place[item] + 1] += 1.0;
        }
        let mut sum = 0.0;
        for before in &mut drawn_before {
            sum += *before;
            *before = sum;
        }
        // Ties count by half.
        let larger = items.iter().map(|i| {
            let (below, up_to) = equal[*i];
            n as f64 - 0.5 * (drawn_before[below] + drawn_before[up_to])
        });
        areas.push(larger.sum::<f64>() / (items.len() * n) as f64);
        Ok(others / n as f64 - own / items.len() as f64)
    })?;
    Ok([gap, percentile_interval(areas, CONFIDENCE)?])
}

fn check(name: &str, losses: &[f64]) -> Result<()> {
    if losses.len() < 2 {
        return Err(Error::argument(name, losses.len(), "at least 2 losses"));
    }
    match losses.iter().find(|loss| !loss.is_finite()) {
        Some(loss) => Err(Error::argument(name, loss, "finite losses")),
        None => Ok(()),
    }
}

/// Area under the ROC curve, and its height at [`FALSE_POSITIVE_RATE`].
fn attack(train: &[f64], held_out: &[f64]) -> (f64, f64) {
    let mut losses: Vec<(f64, bool)> = train
        .iter()
        .map(|loss| (*loss, true))
        .chain(held_out.iter().map(|loss| (*loss, false)))
        .collect();
    losses.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (members, others) = (train.len() as f64, held_out.len() as f64);
    // Of the losses up to a threshold; equal ones pass it together.
    let (mut true_positives, mut false_positives) = (0.0, 0.0);
    let (mut area, mut height) = (0.0, 0.0);
    // Not by bits: −0 equals 0.
    for equal in losses.chunk_by(|a, b| a.0 == b.0) {
        let hits = equal.iter().filter(|(_, member)| *member).count() as f64;
        let alarms = equal.len() as f64 - hits;
        area += alarms * (true_positives + 0.5 * hits);
        true_positives += hits;
        false_positives += alarms;
        if false_positives <= FALSE_POSITIVE_RATE * others {
            height = true_positives / members;
        }
    }
    (area / (members * others), height)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separated_losses_are_complete_memorisation() {
        let found = memorization(&[0.1, 0.2, 0.3], &[1.0, 2.0]).unwrap();
        assert_eq!((found.auc, found.tpr_at_1_percent_fpr), (1.0, 1.0));
        assert!((found.gap - 1.3).abs() < 1e-12);
        let (low, high) = found.gap_interval;
        assert!(0.7 <= low + 1e-12 && low < 1.3 && 1.3 < high && high <= 1.9 + 1e-12);
        let reverse = memorization(&[1.0, 2.0], &[0.1, 0.2, 0.3]).unwrap();
        assert_eq!((reverse.auc, reverse.tpr_at_1_percent_fpr), (0.0, 0.0));
        assert_eq!(
            (found.auc_interval, reverse.auc_interval),
            ((1.0, 1.0), (0.0, 0.0))
        );
    }

    #[test]
    fn ties_count_by_half() {
        let equal = memorization(&[1.0; 4], &[1.0; 3]).unwrap();
        assert_eq!((equal.auc, equal.tpr_at_1_percent_fpr), (0.5, 0.0));
        assert_eq!((equal.gap, equal.gap_interval), (0.0, (0.0, 0.0)));
        assert_eq!(equal.auc_interval, (0.5, 0.5));
        // Of the pairs (1|2, 2|3), three are won and one is tied.
        let found = memorization(&[1.0, 2.0], &[2.0, 3.0]).unwrap();
        assert_eq!((found.auc, found.tpr_at_1_percent_fpr), (0.875, 0.5));
    }

    /// One of 100 held-out items may lie below the threshold.
    #[test]
    fn one_per_cent_of_false_positives_is_allowed() {
        let held_out: Vec<f64> = (0..100).map(f64::from).collect();
        let found = memorization(&[-1.0, 0.5, 0.7, 1.0, 1.5], &held_out).unwrap();
        assert_eq!(found.tpr_at_1_percent_fpr, 0.6);
    }

    /// For normal losses with means 1 apart, the area is `Φ(1/√2)`.
    #[test]
    fn auc_matches_normal_distribution() {
        let mut rng = Rng::new(3);
        let mut draw = |shift: f64| -> Vec<f64> {
            let normal = rng.normal_vec(2000).into_iter();
            normal.map(|x| f64::from(x) + shift).collect()
        };
        let found = memorization(&draw(0.0), &draw(1.0)).unwrap();
        assert!((found.auc - 0.7602).abs() < 0.03, "{}", found.auc);
        let (low, high) = found.gap_interval;
        // 2·1.96·√(2/2000)
        assert!((high - low - 0.124).abs() < 0.02, "{low} {high}");
    }

    /// Equal distributions: half, with the deviation √((n + m + 1) / (12·n·m)) of ranks.
    #[test]
    fn auc_interval_is_as_wide_as_that_of_ranks() {
        let mut rng = Rng::new(3);
        let mut losses = || -> Vec<f64> { rng.normal_vec(60).into_iter().map(f64::from).collect() };
        let (train, held_out) = (losses(), losses());
        let found = memorization(&train, &held_out).unwrap();
        let (low, high) = found.auc_interval;
        assert!(low < found.auc && found.auc < high, "{low} {high}");
        let half = 1.96 * (121.0 / (12.0 * 3600.0f64)).sqrt();
        let ratio = (high - low) / 2.0 / half;
        assert!((ratio - 1.0).abs() < 0.25, "{low} {high}");
    }

    #[test]
    fn invalid_losses_are_errors() {
        for (train, held_out, expected) in [
            (vec![1.0], vec![1.0, 2.0], "`train_losses` is 1"),
            (vec![1.0, 2.0], vec![], "`held_out_losses` is 0"),
            (
                vec![1.0, 2.0],
                vec![f64::NAN, 1.0],
                "`held_out_losses` is NaN",
            ),
        ] {
            let error = memorization(&train, &held_out).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
