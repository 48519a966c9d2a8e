//! Distances to the closest records of the training set and of held-out data.

use super::features::nearest_rows;
use crate::{
    Error, Result,
    eval::{Features, Proportion, features::pairwise::squared_norms},
    rng::Rng,
};
use std::{borrow::Cow, cmp::Ordering};

/// Whether samples are nearer to the training set than to held-out data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClosestRecords {
    /// Number of samples nearer to a training sample than to every held-out sample, with its
    /// interval.
    pub nearer_train: Proportion,
    /// Number of samples as near to both.
    pub equal: usize,
    /// Mean distance to the closest training sample.
    pub train_distance: f64,
    /// Mean distance to the closest held-out sample.
    pub held_out_distance: f64,
    /// Number of training samples and of held-out samples that were compared with.
    pub records: usize,
}

impl ClosestRecords {
    /// The share of samples nearer to the training set, ties counted by half: 0.5 without
    /// copying, 1 if all samples are copies.
    pub fn share(&self) -> f64 {
        self.nearer_train.value() + 0.5 * self.equal as f64 / self.nearer_train.total() as f64
    }

    /// Mean distance to the training set over mean distance to held-out data: 1 without copying, 0
    /// if all samples are copies; 1 if both distances are 0, infinite if only that to held-out data
    /// is.
    pub fn ratio(&self) -> f64 {
        if self.train_distance == self.held_out_distance {
            1.0
        } else {
            self.train_distance / self.held_out_distance
        }
    }
}

/// Compares the distance of each sample to its closest training sample with that to its closest
/// held-out sample (the share and ratio of the distance to the closest record, DCR; Platzer and
/// Reutterer 2021, <https://arxiv.org/abs/2104.00635>, section 3.3).
///
/// A larger set has nearer records. The larger of the two is therefore reduced to the size of the
/// smaller one by a random draw from `rng`. Both must be from the same distribution.
///
/// # Errors
/// [`Error::InvalidArgument`] if a set is empty or the widths differ.
pub fn closest_records(
    samples: &Features,
    train: &Features,
    held_out: &Features,
    rng: &mut Rng,
) -> Result<ClosestRecords> {
    for (name, set) in [
        ("samples", samples),
        ("train", train),
        ("held_out", held_out),
    ] {
        if set.is_empty() {
            return Err(Error::argument(name, "empty", "at least one row"));
        }
        if set.width() != samples.width() {
            return Err(Error::argument(
                name,
                format!("{} values wide", set.width()),
                format!("{}, the width of `samples`", samples.width()),
            ));
        }
    }
    let records = train.len().min(held_out.len());
    let mut distances = |set: &Features| -> Vec<f64> {
        let set = if set.len() > records {
            let mut rows = rng.permutation(set.len());
            rows.truncate(records);
            Cow::Owned(set.select(&rows))
        } else {
            Cow::Borrowed(set)
        };
        let found = nearest_rows(&set, &squared_norms(&set), samples, 1);
        found.iter().map(|near| near[0].1).collect()
    };
    let (to_train, to_held_out) = (distances(train), distances(held_out));
    let count = |order: Ordering| {
        let orders = to_train.iter().zip(&to_held_out);
        orders.filter(|(t, h)| t.total_cmp(h) == order).count()
    };
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    Ok(ClosestRecords {
        nearer_train: Proportion::new(count(Ordering::Less), samples.len())?,
        equal: count(Ordering::Equal),
        train_distance: mean(&to_train),
        held_out_distance: mean(&to_held_out),
        records,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(n: usize, seed: u64) -> Features {
        Features::new(Rng::new(seed).normal_vec(n * 4), 4).unwrap()
    }

    #[test]
    fn share_is_half_without_copies() {
        let (train, held_out) = (normal(1500, 0), normal(500, 1));
        let mut rng = Rng::new(0);
        let new = closest_records(&normal(1000, 2), &train, &held_out, &mut rng).unwrap();
        // Five standard errors.
        assert!((new.share() - 0.5).abs() < 0.08, "{}", new.share());
        assert!((new.ratio() - 1.0).abs() < 0.08, "{}", new.ratio());
        assert_eq!(new.records, 500);
        let all = normal(500, 0);
        let copies = closest_records(&all, &all, &held_out, &mut rng).unwrap();
        assert_eq!((copies.share(), copies.ratio()), (1.0, 0.0));
        let equal = closest_records(&all, &all, &all, &mut rng).unwrap();
        assert_eq!((equal.share(), equal.ratio()), (0.5, 1.0));
    }

    #[test]
    fn empty_and_mismatched_sets_are_errors() {
        let (x, mut rng) = (normal(5, 0), Rng::new(0));
        let none = Features::empty(4).unwrap();
        let error = closest_records(&x, &x, &none, &mut rng).unwrap_err();
        assert!(error.to_string().contains("`held_out` is empty"));
        let wide = Features::new(vec![0.0; 5], 5).unwrap();
        let error = closest_records(&x, &wide, &x, &mut rng).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`train` is 5 values wide, expected 4")
        );
    }
}
