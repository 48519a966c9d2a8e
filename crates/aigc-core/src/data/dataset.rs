//! The interface of data sets.

use crate::Result;

/// Items by index.
///
/// burn's own trait of this name returns `None` if an item cannot be read. This one returns an
/// error that names the file and the reason.
pub trait Dataset: Send + Sync {
    /// The type of an item.
    type Item: Send;

    /// Number of items.
    fn len(&self) -> usize;

    /// Reads and decodes item `index`.
    ///
    /// # Errors
    /// If the item cannot be read; the error names the file.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    fn get(&self, index: usize) -> Result<Self::Item>;

    /// Whether there are no items.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A data set in memory.
#[derive(Clone, Debug, Default)]
pub struct InMemory<I>(
    /// The items.
    pub Vec<I>,
);

impl<I: Clone + Send + Sync> Dataset for InMemory<I> {
    type Item = I;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, index: usize) -> Result<I> {
        Ok(self.0[index].clone())
    }
}
