//! Batches, shuffled by a seed and read ahead.

use super::{
    Dataset,
    shuffle::{MAX_STORED, Shuffle},
};
use crate::{DataFault, Error, Result, check::ensure, rng::Rng};
use serde::{Deserialize, Serialize};
use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

/// What to do about an item that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnReadError {
    /// Stop with an error that names the file.
    #[default]
    #[serde(alias = "fatal")]
    Fail,
    /// Report it once, and use the next readable item of the data set in its place.
    Skip,
}

/// Configuration to create a [`DataLoader`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataLoaderConfig {
    /// Items per batch. If the data set is smaller, its number of items.
    pub batch_size: usize,
    /// Seed of the order; with `None` the order of the data set.
    #[serde(alias = "shuffle")]
    pub shuffle_seed: Option<u64>,
    /// Threads that decode ahead; with 0, the calling thread decodes. The batches are the same for
    /// any number.
    #[serde(alias = "workers")]
    pub num_workers: usize,
    /// Number of batches that each worker may be ahead.
    #[serde(alias = "prefetch")]
    pub prefetch_factor: usize,
    /// What to do about an item that cannot be read.
    #[serde(alias = "bad_items")]
    pub on_read_error: OnReadError,
}

impl Default for DataLoaderConfig {
    fn default() -> Self {
        Self {
            batch_size: 64,
            shuffle_seed: Some(0),
            num_workers: 1,
            prefetch_factor: 4,
            on_read_error: OnReadError::Fail,
        }
    }
}

/// Combines the items of a data set into batches `B`.
///
/// The stream of training batches is endless, and all are full. Batch `k` does not depend on when
/// it is requested nor on the number of workers, so a resumed run continues with the batch that
/// would have come next.
pub struct DataLoader<B> {
    shared: Arc<Shared<B>>,
    config: DataLoaderConfig,
}

impl<B> Clone for DataLoader<B> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            config: self.config.clone(),
        }
    }
}

impl<B> std::fmt::Debug for DataLoader<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataLoader")
            .field("items", &self.shared.len)
            .field("config", &self.config)
            .finish()
    }
}

/// Reads the items with these indices, in a training epoch or in a single pass.
type ReadBatch<B> =
    dyn Fn(&[usize], Option<usize>, &mut dyn FnMut(Error)) -> Result<B> + Send + Sync;

struct Shared<B> {
    len: usize,
    batch_size: usize,
    shuffle: Option<u64>,
    read: Box<ReadBatch<B>>,
    skipped: Mutex<Vec<String>>,
    /// The orders of the two epochs requested last: around the end of an epoch, workers need both.
    orders: Mutex<Vec<(usize, Arc<Vec<usize>>)>>,
}

impl<B: Send + 'static> DataLoader<B> {
    /// A loader of `dataset`; `collate` makes a batch of items.
    ///
    /// # Errors
    /// [`Error::Config`] if the data set is empty or the configuration is out of range.
    pub fn new<D, C>(dataset: D, collate: C, config: DataLoaderConfig) -> Result<Self>
    where
        D: Dataset + 'static,
        C: Fn(Vec<D::Item>) -> B + Send + Sync + 'static,
    {
        ensure(
            config.batch_size > 0,
            "batch_size",
            config.batch_size,
            "at least 1",
        )?;
        ensure(
            config.num_workers <= 256,
            "num_workers",
            config.num_workers,
            "at most 256",
        )?;
        ensure(
            (1..=1024).contains(&config.prefetch_factor),
            "prefetch_factor",
            config.prefetch_factor,
            "1 to 1024",
        )?;
        let len = dataset.len();
        ensure(len > 0, "dataset", "empty", "at least one item")?;
        let on_read_error = config.on_read_error;
        let read = move |wanted: &[usize], epoch: Option<usize>, skipped: &mut dyn FnMut(Error)| {
            let get = |index| match epoch {
                Some(epoch) => dataset.get_in_epoch(index, epoch),
                None => dataset.get(index),
            };
            let mut items = Vec::with_capacity(wanted.len());
            for index in wanted {
                // Probing upwards from the bad index keeps the replacement independent of threads
                // and of history.
                let mut found = None;
                for probe in 0..len {
                    match get((index + probe) % len) {
                        Ok(item) => {
                            found = Some(item);
                            break;
                        }
                        Err(error) if on_read_error == OnReadError::Fail => return Err(error),
                        Err(error) => skipped(error),
                    }
                }
                items.push(found.ok_or_else(|| {
                    Error::data(
                        PathBuf::from("dataset"),
                        DataFault::Empty(format!("none of {len} items can be read")),
                    )
                })?);
            }
            Ok(collate(items))
        };
        let shared = Shared {
            len,
            batch_size: config.batch_size.min(len),
            shuffle: config.shuffle_seed,
            read: Box::new(read),
            skipped: Mutex::default(),
            orders: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            config,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &DataLoaderConfig {
        &self.config
    }

    /// Number of items in the data set.
    pub fn num_items(&self) -> usize {
        self.shared.len
    }

    /// Messages about the items skipped so far, each once, in the order of their occurrence.
    pub fn skipped(&self) -> Vec<String> {
        self.skipped_since(0)
    }

    /// [`skipped`](Self::skipped) without the first `known` messages.
    pub(crate) fn skipped_since(&self, known: usize) -> Vec<String> {
        lock(&self.shared.skipped)[known..].to_vec()
    }

    /// The endless stream of training batches, beginning with batch `position`.
    pub fn iter_from(&self, position: usize) -> BatchIter<B> {
        if self.config.num_workers == 0 {
            return BatchIter {
                shared: self.shared.clone(),
                position,
                workers: Vec::new(),
                next_worker: 0,
            };
        }
        let count = self.config.num_workers;
        let workers = (0..count)
            .map(|worker| {
                let (send, receive) = sync_channel(self.config.prefetch_factor);
                let shared = self.shared.clone();
                thread::spawn(move || work(&shared, position + worker, count, &send));
                receive
            })
            .collect();
        BatchIter {
            shared: self.shared.clone(),
            position,
            workers,
            next_worker: 0,
        }
    }

    /// One pass in the order of the data set; the last batch may be smaller. Nothing is read ahead.
    pub fn iter_once(&self) -> impl Iterator<Item = Result<B>> + '_ {
        let indices: Vec<usize> = (0..self.shared.len).collect();
        let size = self.shared.batch_size;
        (0..self.shared.len.div_ceil(size)).map(move |k| {
            let end = ((k + 1) * size).min(indices.len());
            self.shared.read_indices(&indices[k * size..end], None)
        })
    }
}

/// Computes every `count`-th batch, beginning with `position`, until the receiver is dropped.
fn work<B>(shared: &Shared<B>, mut position: usize, count: usize, send: &SyncSender<Result<B>>) {
    while send.send(shared.batch(position)).is_ok() {
        position += count;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl<B> Shared<B> {
    fn batch(&self, position: usize) -> Result<B> {
        let per_epoch = self.len / self.batch_size;
        let (epoch, k) = (position / per_epoch, position % per_epoch);
        let places = k * self.batch_size..(k + 1) * self.batch_size;
        if self.len > MAX_STORED {
            let order = self.shuffle.map(|seed| {
                Shuffle::new(self.len, &mut Rng::stream(seed, "shuffle", epoch as u64))
            });
            let indices: Vec<usize> = places
                .map(|at| order.as_ref().map_or(at, |order| order.at(at)))
                .collect();
            return self.read_indices(&indices, Some(epoch));
        }
        self.read_indices(&self.order(epoch)[places], Some(epoch))
    }

    fn order(&self, epoch: usize) -> Arc<Vec<usize>> {
        let mut cached = lock(&self.orders);
        if let Some((_, order)) = cached.iter().find(|(of, _)| *of == epoch) {
            return order.clone();
        }
        let order = Arc::new(match self.shuffle {
            Some(seed) => Rng::stream(seed, "shuffle", epoch as u64).permutation(self.len),
            None => (0..self.len).collect(),
        });
        cached.push((epoch, order.clone()));
        if cached.len() > 2 {
            cached.remove(0);
        }
        order
    }

    fn read_indices(&self, indices: &[usize], epoch: Option<usize>) -> Result<B> {
        (self.read)(indices, epoch, &mut |error| {
            let (message, mut skipped) = (error.to_string(), lock(&self.skipped));
            if !skipped.contains(&message) {
                skipped.push(message);
            }
        })
    }
}

/// The endless stream of batches; see [`DataLoader::iter_from`].
pub struct BatchIter<B> {
    shared: Arc<Shared<B>>,
    position: usize,
    /// Worker `i` of `n` computes batches `i`, `i + n`, `i + 2n`, …; reading from the workers in
    /// rotation restores the order.
    workers: Vec<Receiver<Result<B>>>,
    next_worker: usize,
}

impl<B> BatchIter<B> {
    /// Number of the next batch.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The next batch.
    ///
    /// # Errors
    /// The error of an item that cannot be read, or [`Error::Other`] if a worker panicked.
    pub fn next_batch(&mut self) -> Result<B> {
        self.position += 1;
        if self.workers.is_empty() {
            self.shared.batch(self.position - 1)
        } else {
            let received = self.workers[self.next_worker].recv();
            self.next_worker = (self.next_worker + 1) % self.workers.len();
            received.unwrap_or_else(|_| {
                Err(Error::other("a data worker panicked; its message is above"))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::InMemory;

    fn loader(workers: usize, shuffle: Option<u64>) -> DataLoader<Vec<usize>> {
        let config = DataLoaderConfig {
            batch_size: 4,
            shuffle_seed: shuffle,
            num_workers: workers,
            ..DataLoaderConfig::default()
        };
        DataLoader::new(InMemory((0..11).collect()), |items| items, config).unwrap()
    }

    fn first(loader: &DataLoader<Vec<usize>>, from: usize, n: usize) -> Vec<Vec<usize>> {
        let mut batches = loader.iter_from(from);
        (0..n).map(|_| batches.next_batch().unwrap()).collect()
    }

    #[test]
    fn order_depends_on_seed_not_on_workers() {
        let alone = first(&loader(0, Some(5)), 0, 20);
        for workers in [1, 2, 3, 8] {
            assert_eq!(first(&loader(workers, Some(5)), 0, 20), alone);
        }
        assert_ne!(first(&loader(0, Some(6)), 0, 20), alone);
        assert_ne!(alone[..2], alone[2..4], "each epoch has another order");
    }

    #[test]
    fn epoch_has_no_item_twice() {
        let mut seen = first(&loader(2, Some(1)), 0, 2).concat();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 8);
    }

    #[test]
    fn iter_from_starts_anywhere() {
        assert_eq!(
            first(&loader(3, Some(5)), 7, 5),
            first(&loader(0, Some(5)), 0, 12)[7..]
        );
    }

    #[test]
    fn iter_once_has_every_item_once() {
        let all: Vec<_> = loader(2, Some(5)).iter_once().map(Result::unwrap).collect();
        assert_eq!(all, [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9, 10]]);
    }

    /// Items with the epoch in which they are read.
    struct Epochs;

    impl Dataset for Epochs {
        type Item = (usize, Option<usize>);
        fn len(&self) -> usize {
            6
        }
        fn get(&self, index: usize) -> Result<Self::Item> {
            Ok((index, None))
        }
        fn get_in_epoch(&self, index: usize, epoch: usize) -> Result<Self::Item> {
            Ok((index, Some(epoch)))
        }
    }

    #[test]
    fn items_are_read_in_the_epoch_of_their_batch() {
        for num_workers in [0, 2] {
            let config = DataLoaderConfig {
                batch_size: 3,
                num_workers,
                ..DataLoaderConfig::default()
            };
            let loader = DataLoader::new(Epochs, |items| items, config).unwrap();
            let mut batches = loader.iter_from(3);
            for epoch in [1, 2, 2, 3, 3] {
                let batch = batches.next_batch().unwrap();
                assert!(batch.iter().all(|item| item.1 == Some(epoch)), "{batch:?}");
            }
            let all: Vec<_> = loader.iter_once().flat_map(Result::unwrap).collect();
            assert!(all.iter().all(|item| item.1.is_none()), "{all:?}");
        }
    }

    #[test]
    fn small_data_sets_make_small_batches() {
        let config = DataLoaderConfig {
            batch_size: 100,
            num_workers: 0,
            ..DataLoaderConfig::default()
        };
        let loader = DataLoader::new(InMemory(vec![1, 2, 3]), |items| items, config).unwrap();
        assert_eq!(loader.iter_from(0).next_batch().unwrap().len(), 3);
    }

    struct Spoilt(&'static [usize]);

    impl Dataset for Spoilt {
        type Item = usize;
        fn len(&self) -> usize {
            8
        }
        fn get(&self, index: usize) -> Result<usize> {
            if self.0.contains(&index) {
                return Err(Error::data(
                    format!("{index}.png"),
                    DataFault::Decode("broken".into()),
                ));
            }
            Ok(index)
        }
    }

    #[test]
    fn unreadable_items_fail_or_are_replaced() {
        let make = |bad: &'static [usize], on_read_error| {
            let config = DataLoaderConfig {
                batch_size: 8,
                shuffle_seed: None,
                num_workers: 2,
                on_read_error,
                ..DataLoaderConfig::default()
            };
            DataLoader::new(Spoilt(bad), |items| items, config).unwrap()
        };
        let fatal = make(&[3], OnReadError::Fail)
            .iter_from(0)
            .next_batch()
            .unwrap_err();
        assert_eq!(fatal.to_string(), "3.png: cannot be decoded: broken");
        let skipping = make(&[3, 4, 7], OnReadError::Skip);
        assert_eq!(
            skipping.iter_from(0).next_batch().unwrap(),
            [0, 1, 2, 5, 5, 5, 6, 0]
        );
        assert_eq!(skipping.skipped().len(), 3);
        let hopeless = make(&[0, 1, 2, 3, 4, 5, 6, 7], OnReadError::Skip)
            .iter_from(0)
            .next_batch()
            .unwrap_err();
        assert!(
            hopeless.to_string().contains("none of 8 items"),
            "{hopeless}"
        );
    }

    #[test]
    fn loader_refuses_empty_data_and_batches() {
        let make = |items: Vec<u8>, config| {
            DataLoader::new(InMemory(items), |items| items, config).unwrap_err()
        };
        let error = make(vec![], DataLoaderConfig::default());
        assert!(error.to_string().contains("at least one item"));
        let error = make(
            vec![1],
            DataLoaderConfig {
                batch_size: 0,
                ..DataLoaderConfig::default()
            },
        );
        assert_eq!(
            error.to_string(),
            "config field `batch_size` is 0, expected at least 1"
        );
    }
}
