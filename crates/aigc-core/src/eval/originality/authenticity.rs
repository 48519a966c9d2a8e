//! The authenticity score.

use super::features::nearest_rows;
use crate::{
    Error, Result,
    eval::{Features, Proportion, features::pairwise::squared_norms},
};

/// Authenticity (Alaa et al. 2022, <https://arxiv.org/abs/2102.08921>, section 4.2): the share of
/// samples that are no noisy copies of training samples. A sample is authentic if its nearest
/// training sample is farther from it than from every other training sample.
///
/// Samples from the distribution of the training set have about one half; the score falls to 0 if
/// all samples are copies, and rises to 1 for samples that are far from the training set.
///
/// # Errors
/// [`Error::InvalidArgument`] for no samples, fewer than two training samples, and widths that
/// differ.
pub fn authenticity(samples: &Features, train: &Features) -> Result<Proportion> {
    if samples.is_empty() {
        return Err(Error::argument("samples", "empty", "at least one row"));
    }
    if train.len() < 2 {
        return Err(Error::argument(
            "train",
            format!("{} samples", train.len()),
            "at least 2",
        ));
    }
    if samples.width() != train.width() {
        return Err(Error::argument(
            "samples",
            format!("{} values wide", samples.width()),
            format!("{}, the width of `train`", train.width()),
        ));
    }
    let norms = squared_norms(train);
    let nearest = nearest_rows(train, &norms, samples, 1);
    // Only the training samples that are nearest to some sample are searched for.
    let mut matched: Vec<usize> = nearest.iter().map(|near| near[0].0).collect();
    matched.sort_unstable();
    matched.dedup();
    let others = nearest_rows(train, &norms, &train.select(&matched), 2);
    let mut radius = vec![0.0; train.len()];
    for (index, near) in matched.iter().zip(&others) {
        // A row with two equal ones may not find itself; those have the distance 0, too.
        let other = near.iter().find(|(other, _)| other != index);
        radius[*index] = other.map_or(0.0, |(_, distance)| *distance);
    }
    let authentic = nearest
        .iter()
        .filter(|near| near[0].1 > radius[near[0].0])
        .count();
    Proportion::new(authentic, samples.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn score_matches_distances_on_a_line() {
        let train = Features::new(vec![0.0, 1.0, 3.0, 3.0], 1).unwrap();
        let score = |samples: Vec<f32>| {
            let samples = Features::new(samples, 1).unwrap();
            authenticity(&samples, &train).unwrap().count()
        };
        // 0.4 is nearer to 0 than 1 is; -2 is not; 3 occurs twice, so only 3 itself copies it.
        assert_eq!(score(vec![0.4]), 0);
        assert_eq!(score(vec![-2.0]), 1);
        assert_eq!(score(vec![3.01, 3.0]), 1);
    }

    #[test]
    fn copies_are_not_authentic() {
        let train = Features::new(Rng::new(0).normal_vec(600), 6).unwrap();
        assert_eq!(authenticity(&train, &train).unwrap().count(), 0);
        let new = Features::new(Rng::new(1).normal_vec(600), 6).unwrap();
        let share = authenticity(&new, &train).unwrap().value();
        assert!((0.3..0.8).contains(&share), "{share}");
        assert!(authenticity(&Features::empty(6).unwrap(), &train).is_err());
        assert!(authenticity(&new, &train.select(&[0])).is_err());
        assert!(authenticity(&Features::new(vec![0.0; 5], 5).unwrap(), &train).is_err());
    }
}
