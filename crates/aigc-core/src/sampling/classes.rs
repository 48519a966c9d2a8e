//! The classes of requested samples.

use crate::{Error, Result, rng::Rng};

/// The classes of requested samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClassLabels {
    /// Drawn uniformly.
    #[default]
    Random,
    /// The same class for all samples.
    All(u32),
    /// One class for each sample.
    PerSample(Vec<u32>),
}

impl ClassLabels {
    /// The classes of `n` samples of a model with `count` classes; `None` for a model without
    /// classes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `count` is 0, if the model does not have a requested class, or
    /// if there are not `n` of them.
    pub fn resolve(
        &self,
        count: Option<usize>,
        n: usize,
        rng: &mut Rng,
    ) -> Result<Option<Vec<u32>>> {
        match (self, count) {
            (ClassLabels::Random, None) => Ok(None),
            (other, None) => Err(Error::argument(
                "classes",
                format!("{other:?}"),
                "`ClassLabels::Random`; the model has no classes",
            )),
            (_, Some(0)) => Err(Error::argument(
                "count",
                0,
                "at least 1 class, or None for a model without classes",
            )),
            (ClassLabels::Random, Some(count)) => Ok(Some(
                (0..n).map(|_| rng.random_index(count) as u32).collect(),
            )),
            (requested, Some(count)) => requested.clone().validate(count, n).map(Some),
        }
    }

    /// The classes of `n` given samples or latents: `labels`, which a model with `count` classes
    /// needs; `None` for a model without classes, which ignores them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if labels are missing, one is not below `count`, or there are not
    /// `n` of them.
    pub fn of_given(
        labels: Option<&[u32]>,
        count: Option<usize>,
        n: usize,
    ) -> Result<Option<Vec<u32>>> {
        match (labels, count) {
            (_, None) => Ok(None),
            (Some(labels), Some(count)) => Self::PerSample(labels.to_vec())
                .validate(count, n)
                .map(Some),
            (None, Some(count)) => {
                let expected = format!("one below {count} for each sample");
                Err(Error::argument("labels", "missing", expected))
            }
        }
    }

    /// The requested classes of `n` samples, each below `count`. [`Random`](Self::Random) requests
    /// no particular classes, so it fails unless `n` is 0.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if one is not below `count`, or there are not `n` of them.
    pub fn validate(self, count: usize, n: usize) -> Result<Vec<u32>> {
        let classes = match self {
            ClassLabels::Random => vec![],
            ClassLabels::All(class) => vec![class; n],
            ClassLabels::PerSample(classes) => classes,
        };
        if classes.len() != n {
            return Err(Error::argument(
                "classes",
                classes.len(),
                format!("{n}, one for each sample"),
            ));
        }
        match classes.iter().find(|class| **class as usize >= count) {
            Some(class) => Err(Error::argument("classes", class, format!("below {count}"))),
            None => Ok(classes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolve_returns_requested_or_uniform_classes() {
        let mut rng = Rng::new(0);
        assert_eq!(
            ClassLabels::Random.resolve(None, 3, &mut rng).unwrap(),
            None
        );
        assert_eq!(
            ClassLabels::All(2)
                .resolve(Some(3), 2, &mut rng)
                .unwrap()
                .unwrap(),
            [2, 2]
        );
        assert_eq!(
            ClassLabels::PerSample(vec![1, 0])
                .resolve(Some(3), 2, &mut rng)
                .unwrap()
                .unwrap(),
            [1, 0]
        );
        let drawn = ClassLabels::Random
            .resolve(Some(4), 4000, &mut rng)
            .unwrap()
            .unwrap();
        for class in 0..4 {
            let count = drawn.iter().filter(|other| **other == class).count();
            assert!(
                (count as f64 - 1000.0).abs() < 5.0 * 27.4,
                "{class}: {count}"
            ); // five standard deviations
        }
        for (classes, count, expected) in [
            (
                ClassLabels::All(3),
                Some(3),
                "`classes` is 3, expected below 3",
            ),
            (
                ClassLabels::PerSample(vec![0]),
                Some(3),
                "`classes` is 1, expected 2",
            ),
            (
                ClassLabels::All(0),
                None,
                "`classes` is All(0), expected `ClassLabels::Random`; the model has no classes",
            ),
            (ClassLabels::Random, Some(0), "`count` is 0"),
            (ClassLabels::All(0), Some(0), "`count` is 0"),
        ] {
            let message = classes.resolve(count, 2, &mut rng).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn given_labels_are_those_of_a_model_with_classes() {
        let of = |labels, count| ClassLabels::of_given(labels, count, 2);
        assert_eq!(of(Some(&[2, 0][..]), Some(3)).unwrap(), Some(vec![2, 0]));
        assert_eq!(of(Some(&[2, 0][..]), None).unwrap(), None);
        for (labels, expected) in [
            (None, "`labels` is missing, expected one below 3"),
            (Some(&[0][..]), "`classes` is 1, expected 2"),
            (Some(&[0, 3][..]), "`classes` is 3, expected below 3"),
        ] {
            let message = of(labels, Some(3)).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
