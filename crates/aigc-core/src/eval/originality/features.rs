//! Nearest training samples in feature space, and copies among them.

use super::calibration::{Calibration, CalibrationConfig, ratio};
use crate::{
    Error, Result,
    check::{ensure, ensure_argument},
    eval::{
        Features,
        features::pairwise::{for_each_block, squared_distance, squared_norms},
    },
};

/// Nearest neighbours among the features of known samples, by exact Euclidean distances.
#[derive(Clone, Debug)]
pub struct FeatureNeighbors {
    known: Features,
    squared_norms: Vec<f64>,
}

impl FeatureNeighbors {
    /// A search among `known`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are none.
    pub fn new(known: Features) -> Result<Self> {
        if known.is_empty() {
            return Err(Error::argument("known", "empty", "at least one row"));
        }
        Ok(Self {
            squared_norms: squared_norms(&known),
            known,
        })
    }

    /// Number of known samples.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Always `false`: a search has at least one known sample.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The known features.
    pub fn known(&self) -> &Features {
        &self.known
    }

    /// The `k` nearest known rows for each row of `queries`, nearest first: indices and Euclidean
    /// distances. Of equally near rows the first in the set comes first. Memory is used for one
    /// block of distances at a time.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the width differs, or `k` is 0 or exceeds the number of known
    /// rows.
    pub fn kneighbors(&self, queries: &Features, k: usize) -> Result<Vec<Vec<(usize, f64)>>> {
        let known = self.known.len();
        if queries.width() != self.known.width() {
            return Err(Error::argument(
                "queries",
                format!("{} values wide", queries.width()),
                format!("{}, the width of the known features", self.known.width()),
            ));
        }
        if k == 0 || k > known {
            return Err(Error::argument(
                "k",
                k,
                format!("1 to {known}, the number of known samples"),
            ));
        }
        Ok(nearest_rows(&self.known, &self.squared_norms, queries, k))
    }
}

/// The `k` nearest rows of `known`, whose squared norms are given, for each row of `queries`.
pub(super) fn nearest_rows(
    known: &Features,
    squared_norms: &[f64],
    queries: &Features,
    k: usize,
) -> Vec<Vec<(usize, f64)>> {
    let count = known.len();
    let mut found = Vec::with_capacity(queries.len());
    let mut near: Vec<(f64, usize)> = Vec::with_capacity(count);
    for_each_block(queries, known, |first, _, products| {
        for (i, products) in products.chunks_exact(count).enumerate() {
            // ‖x − y‖² without ‖x‖², which is the same for the whole row.
            let part = |(product, norm): (&f64, &f64)| norm - 2.0 * product;
            let parts = products.iter().zip(squared_norms).map(part);
            near.clear();
            near.extend(parts.enumerate().map(|(index, part)| (part, index)));
            if k < count {
                near.select_nth_unstable_by(k - 1, nearer);
                near.truncate(k);
            }
            // Distances from the values: a difference of large squares would hide an exact copy.
            let query = queries.row(first + i);
            let distance = |index| squared_distance(query, known.row(index)).sqrt();
            for (value, index) in &mut near {
                *value = distance(*index);
            }
            near.sort_by(nearer);
            found.push(
                near.iter()
                    .map(|(distance, index)| (*index, *distance))
                    .collect(),
            );
        }
    });
    found
}

fn nearer(a: &(f64, usize), b: &(f64, usize)) -> std::cmp::Ordering {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
}

/// The nearest training sample in feature space.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeatureMatch {
    /// Index of the training sample.
    pub index: usize,
    /// Euclidean distance to it.
    pub distance: f64,
    /// The distance divided by that to the `k`-th nearest training sample, in `[0, 1]`.
    pub score: f64,
    /// Whether the score is below the calibrated threshold.
    pub is_copy: bool,
}

/// Finds copies of training samples in the features of any network, with a threshold calibrated on
/// held-out samples.
///
/// The score is the distance to the nearest training sample over the distance to the `k`-th
/// nearest. Plain distances depend on how dense the training set is around a sample; the ratio does
/// not (the test of Lowe 2004, <https://doi.org/10.1023/B:VISI.0000029664.99615.94>, section 7.1,
/// with another `k`).
#[derive(Clone, Debug)]
pub struct FeatureCopyDetector {
    neighbors: FeatureNeighbors,
    k: usize,
    calibration: Calibration,
}

impl FeatureCopyDetector {
    /// A detector of copies of `train`. `k` is usually 10: copies are found if a training sample
    /// occurs fewer than `k` times in the training set.
    ///
    /// # Errors
    /// [`Error::Config`] for a configuration out of range or `k` below 2;
    /// [`Error::InvalidArgument`] for fewer than `k` training samples, too few held-out samples
    /// (the message has the number needed), widths that differ, and held-out samples that are
    /// copies.
    pub fn fit(
        train: Features,
        held_out: &Features,
        k: usize,
        config: CalibrationConfig,
    ) -> Result<Self> {
        config.validate()?;
        ensure(k >= 2, "k", k, "at least 2")?;
        if train.len() < k {
            return Err(Error::argument(
                "train",
                format!("{} samples", train.len()),
                format!("at least {k}, to compare distances with"),
            ));
        }
        let neighbors = FeatureNeighbors::new(train)?;
        let scores: Vec<f64> = neighbors
            .kneighbors(held_out, k)?
            .iter()
            .map(|near| ratio(near[0].1, near[k - 1].1))
            .collect();
        Ok(Self {
            calibration: Calibration::new(&scores, config)?,
            neighbors,
            k,
        })
    }

    /// The nearest training sample of each sample, and whether it was copied.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no samples, or the width differs.
    pub fn detect(&self, samples: &Features) -> Result<Vec<FeatureMatch>> {
        ensure_argument(!samples.is_empty(), "samples", samples.len(), "at least 1")?;
        let found = self.neighbors.kneighbors(samples, self.k)?;
        let matched = |near: &Vec<(usize, f64)>| {
            let (index, distance) = near[0];
            let score = ratio(distance, near[self.k - 1].1);
            FeatureMatch {
                index,
                distance,
                score,
                is_copy: self.calibration.is_copy(score),
            }
        };
        Ok(found.iter().map(matched).collect())
    }

    /// The threshold and how it was found.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn normal(n: usize, width: usize, seed: u64) -> Features {
        Features::new(Rng::new(seed).normal_vec(n * width), width).unwrap()
    }

    #[test]
    fn neighbors_match_plain_search() {
        let (known, queries) = (normal(90, 5, 0), normal(40, 5, 1));
        let neighbors = FeatureNeighbors::new(known.clone()).unwrap();
        let got = neighbors.kneighbors(&queries, 4).unwrap();
        assert_eq!((neighbors.len(), got.len()), (90, 40));
        for (query, near) in queries.rows().zip(&got) {
            let mut all: Vec<(f64, usize)> = known
                .rows()
                .enumerate()
                .map(|(i, row)| (squared_distance(query, row).sqrt(), i))
                .collect();
            all.sort_by(nearer);
            let expected: Vec<_> = all[..4].iter().map(|(d, i)| (*i, *d)).collect();
            assert_eq!(*near, expected);
        }
        let itself = neighbors.kneighbors(&known, 1).unwrap();
        assert!(
            itself
                .iter()
                .enumerate()
                .all(|(i, near)| near[0] == (i, 0.0))
        );
    }

    #[test]
    fn planted_copies_are_found() {
        let train = normal(800, 8, 0);
        let config = CalibrationConfig {
            false_alarm_rate: 0.02,
            ..CalibrationConfig::default()
        };
        let detector =
            FeatureCopyDetector::fit(train.clone(), &normal(400, 8, 1), 10, config).unwrap();
        assert!(detector.calibration().false_alarms.value() <= 0.02);
        let noise = Rng::new(2).normal_vec(100 * 8);
        let copies = train.values().iter().zip(noise).map(|(x, e)| x + 0.02 * e);
        let copies = Features::new(copies.collect(), 8).unwrap();
        let found = detector.detect(&copies).unwrap();
        assert!(
            found
                .iter()
                .enumerate()
                .all(|(i, m)| m.is_copy && m.index == i)
        );
        let alarms = detector.detect(&normal(1000, 8, 3)).unwrap();
        let alarms = alarms.iter().filter(|m| m.is_copy).count();
        // Twice the rate.
        assert!(alarms <= 40, "{alarms}");
        let none = detector.detect(&Features::empty(8).unwrap()).unwrap_err();
        assert!(none.to_string().contains("`samples` is 0"), "{none}");
    }

    #[test]
    fn bad_sets_are_errors() {
        assert!(FeatureNeighbors::new(Features::empty(3).unwrap()).is_err());
        let neighbors = FeatureNeighbors::new(normal(3, 2, 0)).unwrap();
        assert!(neighbors.kneighbors(&normal(3, 3, 0), 1).is_err());
        let error = neighbors.kneighbors(&normal(3, 2, 0), 4).unwrap_err();
        assert!(error.to_string().contains("`k` is 4, expected 1 to 3"));
        let fit = |train, held_out, k| {
            let config = CalibrationConfig::default();
            FeatureCopyDetector::fit(normal(train, 2, 0), &normal(held_out, 2, 1), k, config)
                .unwrap_err()
                .to_string()
        };
        assert!(fit(5, 300, 10).contains("`train` is 5 samples, expected at least 10"));
        assert!(fit(50, 20, 10).contains("`held_out` is 20 samples, expected at least 161"));
        assert!(fit(50, 300, 1).contains("`k` is 1"));
    }
}
