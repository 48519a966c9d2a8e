//! Which classes to make.

use crate::{Error, Result, rng::Rng};

/// Which classes to make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClassLabels {
    /// Each as likely as any other.
    #[default]
    Random,
    /// This one.
    All(u32),
    /// One for each sample.
    PerSample(Vec<u32>),
}

impl ClassLabels {
    /// The classes of `n` samples of a model that knows `count` of them; nothing for a model
    /// without classes.
    ///
    /// # Errors
    /// [`Error::Config`] if one is asked for that the model does not know, or not one for each
    /// sample.
    pub fn resolve(
        &self,
        count: Option<usize>,
        n: usize,
        rng: &mut Rng,
    ) -> Result<Option<Vec<u32>>> {
        match (self, count) {
            (ClassLabels::Random, None) => Ok(None),
            (other, None) => Err(Error::config(
                "classes",
                format!("{other:?}"),
                "any; the model has no classes",
            )),
            (ClassLabels::Random, Some(count)) => Ok(Some(
                (0..n).map(|_| rng.random_index(count) as u32).collect(),
            )),
            (asked, Some(count)) => asked.clone().validate(count, n).map(Some),
        }
    }

    /// The classes of `n` samples that are asked for by name, each below `count`; none of
    /// [`Random`](Self::Random).
    ///
    /// # Errors
    /// [`Error::Config`] if one is not below `count`, or there are not `n`.
    pub fn validate(self, count: usize, n: usize) -> Result<Vec<u32>> {
        let classes = match self {
            ClassLabels::Random => vec![],
            ClassLabels::All(class) => vec![class; n],
            ClassLabels::PerSample(classes) => classes,
        };
        if classes.len() != n {
            return Err(Error::config(
                "classes",
                classes.len(),
                format!("{n}, one for each sample"),
            ));
        }
        match classes.iter().find(|class| **class as usize >= count) {
            Some(class) => Err(Error::config("classes", class, format!("below {count}"))),
            None => Ok(classes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_asked_for_or_drawn_evenly() {
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
            (ClassLabels::All(0), None, "the model has no classes"),
        ] {
            let message = classes.resolve(count, 2, &mut rng).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
