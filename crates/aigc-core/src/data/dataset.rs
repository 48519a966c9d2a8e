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

    /// Item `index` in pass number `epoch` over the data, counted from 0; the same item in all
    /// passes by default. Data sets that draw items at random override it: the draw must follow
    /// from `index` and `epoch` alone, so that a resumed run reads the same items. Outside
    /// training, [`get`](Self::get) is called.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Panics
    /// As [`get`](Self::get).
    fn get_in_epoch(&self, index: usize, epoch: usize) -> Result<Self::Item> {
        let _ = epoch;
        self.get(index)
    }

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
