//! Features of samples, and the networks that compute them.

mod cache;
mod extract;
pub(crate) mod pairwise;

pub use cache::FeatureCache;
pub(super) use cache::weight_hash;
pub(crate) use extract::extract;
pub use extract::{ClosureExtractor, FeatureExtractor, FeatureStream};

use crate::{Error, Result};
use burn::tensor::Tensor;

/// Features of samples on the host, one row for each sample. All values are finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    values: Vec<f32>,
    width: usize,
}

impl Features {
    /// Features from the values of all rows, one after the other.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a row has no values, the last row is incomplete, or a value is
    /// not finite.
    pub fn new(values: Vec<f32>, width: usize) -> Result<Self> {
        let mut features = Self::empty(width)?;
        features.check(&values)?;
        features.values = values;
        Ok(features)
    }

    /// No samples yet, of `width` features each.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no features.
    pub fn empty(width: usize) -> Result<Self> {
        if width == 0 {
            return Err(Error::argument("features", width, "at least 1"));
        }
        Ok(Self {
            values: Vec::new(),
            width,
        })
    }

    /// Features of a batch.
    ///
    /// # Shapes
    /// - features: `[batch, width]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no features, or a value is not finite.
    pub fn from_tensor(features: &Tensor<2>) -> Result<Self> {
        let [_, width] = features.dims();
        Self::new(features.to_data().iter::<f32>().collect(), width)
    }

    /// Adds the rows of a batch.
    ///
    /// # Shapes
    /// - features: `[batch, width]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the number of features differs, or a value is not finite.
    pub fn extend(&mut self, features: &Tensor<2>) -> Result<()> {
        self.append(&Self::from_tensor(features)?)
    }

    /// Adds the rows of `other`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the number of features differs.
    pub fn append(&mut self, other: &Self) -> Result<()> {
        if other.width != self.width {
            return Err(Error::argument(
                "features",
                other.width,
                format!("{} of each sample, as before", self.width),
            ));
        }
        self.values.extend_from_slice(&other.values);
        Ok(())
    }

    fn check(&self, values: &[f32]) -> Result<()> {
        if !values.len().is_multiple_of(self.width) {
            return Err(Error::argument(
                "features",
                format!("{} values", values.len()),
                format!("a multiple of {}, the features of a sample", self.width),
            ));
        }
        match values.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(Error::argument(
                "features",
                format!("{} (sample {})", values[at], at / self.width),
                "finite numbers",
            )),
            None => Ok(()),
        }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Number of features of a sample.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The features of sample `i`.
    ///
    /// # Panics
    /// If there are fewer samples.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.width..][..self.width]
    }

    /// The features of each sample.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.width)
    }

    /// All values, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The samples with these numbers, which may repeat.
    ///
    /// # Panics
    /// If there are fewer samples.
    pub fn select(&self, rows: &[usize]) -> Self {
        Self {
            values: rows.iter().flat_map(|i| self.row(*i)).copied().collect(),
            width: self.width,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_selected_and_appended() {
        let mut x = Features::new(vec![1.0, 2.0, 3.0, 4.0], 2).unwrap();
        assert_eq!((x.len(), x.width(), x.row(1)), (2, 2, &[3.0, 4.0][..]));
        assert_eq!(
            x.select(&[1, 0, 1]).values(),
            [3.0, 4.0, 1.0, 2.0, 3.0, 4.0]
        );
        x.append(&x.select(&[0])).unwrap();
        assert_eq!(x.rows().len(), 3);
        assert!(x.append(&Features::new(vec![1.0], 1).unwrap()).is_err());
    }

    #[test]
    fn invalid_features_name_the_sample() {
        let text = |found: Result<Features>| found.unwrap_err().to_string();
        assert!(text(Features::new(vec![], 0)).contains("`features` is 0"));
        assert!(text(Features::new(vec![1.0; 3], 2)).contains("multiple of 2"));
        let nan = text(Features::new(vec![1.0, 2.0, f32::NAN, 0.0], 2));
        assert!(nan.contains("NaN (sample 1), expected finite"), "{nan}");
    }
}
