//! Cache of keys and values of earlier tokens, so that they are computed only once.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use std::fmt::Debug;

/// Positions of tokens in their sequences.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // It lives for a call.
pub enum PositionIds {
    /// Consecutive positions from this one on, the same for all batch elements.
    Range(usize),
    /// Positions for each batch element, `[batch, time]`.
    PerSequence(Tensor<2, Int>),
}

/// State of earlier tokens that attention needs. [`KvCache`] keeps keys and values of all tokens; a
/// model with windowed attention can implement a cache that keeps fewer.
pub trait Cache: Debug + Send {
    /// Number of tokens in the cache, including padding.
    fn len(&self) -> usize;

    /// Whether the cache has no tokens.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Batch size.
    fn batch_size(&self) -> usize;

    /// Marks the first `padding[i]` tokens of batch element `i` as padding.
    ///
    /// # Panics
    /// If the cache is not empty, or there is not one number per batch element.
    fn set_left_padding(&mut self, padding: &[usize]);

    /// Positions of the next `time` tokens in their sequences.
    fn position_ids(&self, time: usize, device: &Device) -> PositionIds;

    /// True where padding hides a key from the next `time` tokens, `[batch, n_head, time, keys]`
    /// for `n_head` query heads; `None` without padding.
    fn padding_mask(&self, time: usize, n_head: usize, device: &Device) -> Option<Tensor<4, Bool>>;

    /// Appends the keys and values of the next tokens for block `layer`, and returns all keys and
    /// values that these tokens attend to.
    ///
    /// # Shapes
    /// - k and v: `[batch, n_kv_head, time, d]`
    /// - outputs: `[batch, n_kv_head, keys, d]`, the last `time` keys being the new ones
    ///
    /// # Panics
    /// If the shapes do not fit the cache.
    fn update(&mut self, layer: usize, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>);

    /// Advances by `time` tokens; called once all blocks have stored them.
    fn advance(&mut self, time: usize);

    /// Removes all tokens but the first `len`.
    fn crop(&mut self, len: usize);

    /// Repeats every batch element `times` times, side by side.
    fn repeat_interleave(&mut self, times: usize);

    /// Replaces batch element `i` by a copy of the former element `parents[i]`.
    ///
    /// # Panics
    /// If there is not one parent per batch element, or one is out of range.
    fn reorder(&mut self, parents: &[usize]);
}

/// Number of tokens by which a cache grows at least.
const BLOCK: usize = 128;

/// Keys and values of all tokens so far for a batch of sequences, for every block of a model.
///
/// Memory is allocated in blocks of tokens, and new tokens are written in place. Sequences may
/// begin with padding, which no token attends to. When a batch element becomes a copy of another
/// ([`reorder`](Cache::reorder)), only tokens that the two do not share are copied.
#[derive(Clone, Debug)]
pub struct KvCache {
    /// Keys and values of every block, `[batch, n_kv_head, capacity, d]`.
    layers: Vec<Option<[Tensor<4>; 2]>>,
    /// Batch size, heads of keys and values, capacity and width of a head.
    shape: [usize; 4],
    len: usize,
    /// Number of padding tokens at the beginning of each batch element.
    padding: Vec<usize>,
    /// Number of initial tokens that two batch elements share.
    shared: Vec<Vec<usize>>,
}

impl KvCache {
    /// An empty cache for a model of `layers` blocks. `shape` is the batch size, number of heads of
    /// keys and values, capacity in tokens, and width of a head.
    pub fn new(layers: usize, shape: [usize; 4]) -> Self {
        let rows = shape[0];
        Self {
            layers: vec![None; layers],
            shape,
            len: 0,
            padding: vec![0; rows],
            shared: vec![vec![0; rows]; rows],
        }
    }
}

impl Cache for KvCache {
    fn len(&self) -> usize {
        self.len
    }

    fn batch_size(&self) -> usize {
        self.shape[0]
    }

    fn set_left_padding(&mut self, padding: &[usize]) {
        assert!(
            self.is_empty() && padding.len() == self.batch_size(),
            "padding of {} batch elements",
            self.batch_size()
        );
        self.padding = padding.to_vec();
    }

    fn position_ids(&self, time: usize, device: &Device) -> PositionIds {
        if self.padding.iter().all(|n| *n == 0) {
            return PositionIds::Range(self.len);
        }
        let row = |padding: &usize| {
            (self.len..self.len + time)
                .map(|at| at.saturating_sub(*padding) as i32)
                .collect()
        };
        let each: Vec<Vec<i32>> = self.padding.iter().map(row).collect();
        PositionIds::PerSequence(Tensor::<2, Int>::from_data(
            TensorData::new(each.concat(), [self.batch_size(), time]),
            device,
        ))
    }

    fn padding_mask(&self, time: usize, n_head: usize, device: &Device) -> Option<Tensor<4, Bool>> {
        if self.padding.iter().all(|n| *n == 0) {
            return None;
        }
        let keys = self.len + time;
        // Padding attends to itself, so that every query has a key.
        let mut hidden = Vec::with_capacity(self.batch_size() * time * keys);
        for padding in &self.padding {
            for at in self.len..keys {
                hidden.extend((0..keys).map(|key| key < *padding && key != at));
            }
        }
        let hidden = TensorData::new(hidden, [self.batch_size(), 1, time, keys]);
        let shape = [self.batch_size(), n_head, time, keys];
        Some(Tensor::<4, Bool>::from_data(hidden, device).expand(shape))
    }

    fn update(&mut self, layer: usize, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [rows, heads, capacity, d] = self.shape;
        let [.., time, _] = k.dims();
        assert_eq!(
            k.dims(),
            [rows, heads, time, d],
            "keys of a cache of shape {:?}",
            self.shape
        );
        let end = self.len + time;
        if end > capacity {
            self.shape[2] = end.next_multiple_of(BLOCK);
        }
        let room = self.shape[2];
        let held = self.layers[layer].take();
        let empty = |like: &Tensor<4>| {
            Tensor::zeros([rows, heads, room, d], (&like.device(), like.dtype()))
        };
        let held = held.unwrap_or_else(|| [empty(&k), empty(&v)]);
        let [keys, values] = held.map(|tensor| match tensor.dims()[2] {
            now if now < room => {
                let larger = empty(&tensor);
                larger.slice_assign(
                    [0..rows, 0..heads, 0..self.len, 0..d],
                    tensor.narrow(2, 0, self.len),
                )
            }
            _ => tensor,
        });
        // Updates in place: the tensors are not shared.
        let at = [0..rows, 0..heads, self.len..end, 0..d];
        let (keys, values) = (keys.slice_assign(at.clone(), k), values.slice_assign(at, v));
        self.layers[layer] = Some([keys.clone(), values.clone()]);
        (keys.narrow(2, 0, end), values.narrow(2, 0, end))
    }

    fn advance(&mut self, time: usize) {
        self.len += time;
        (0..self.batch_size()).for_each(|row| self.shared[row][row] = self.len);
    }

    fn crop(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.shared
            .iter_mut()
            .flatten()
            .for_each(|shared| *shared = self.len.min(*shared));
    }

    fn repeat_interleave(&mut self, times: usize) {
        if times == 1 {
            return;
        }
        let [rows, heads, capacity, d] = self.shape;
        let repeat = |tensor: Tensor<4>| {
            let each = tensor
                .unsqueeze_dim::<5>(1)
                .expand([rows, times, heads, capacity, d]);
            each.reshape([rows * times, heads, capacity, d])
        };
        self.layers
            .iter_mut()
            .for_each(|layer| *layer = layer.take().map(|held| held.map(repeat)));
        self.shape[0] *= times;
        let rows = self.batch_size();
        self.padding = (0..rows).map(|row| self.padding[row / times]).collect();
        let shared = std::mem::take(&mut self.shared);
        self.shared = (0..rows)
            .map(|a| (0..rows).map(|b| shared[a / times][b / times]).collect())
            .collect();
    }

    fn reorder(&mut self, parents: &[usize]) {
        let rows = self.batch_size();
        assert!(
            parents.len() == rows && parents.iter().all(|p| *p < rows),
            "parents of {rows} batch elements: {parents:?}"
        );
        let moved: Vec<usize> = (0..rows)
            .filter(|row| self.shared[*row][parents[*row]] < self.len)
            .collect();
        if let Some(first) = moved
            .iter()
            .map(|row| self.shared[*row][parents[*row]])
            .min()
        {
            let [_, heads, _, d] = self.shape;
            let count = self.len - first;
            let from: Vec<i32> = moved.iter().map(|row| parents[*row] as i32).collect();
            for layer in &mut self.layers {
                let Some(held) = layer.take() else { continue };
                *layer = Some(held.map(|mut tensor| {
                    let from = Tensor::<1, Int>::from_data(
                        TensorData::new(from.clone(), [moved.len()]),
                        &tensor.device(),
                    );
                    // All copies at once: a batch element may be overwritten and be a parent
                    // itself.
                    let copies = tensor.clone().narrow(2, first, count).select(0, from);
                    for (i, row) in moved.iter().enumerate() {
                        let at = [*row..row + 1, 0..heads, first..self.len, 0..d];
                        tensor = tensor.slice_assign(at, copies.clone().narrow(0, i, 1));
                    }
                    tensor
                }));
            }
        }
        self.padding = parents.iter().map(|p| self.padding[*p]).collect();
        let shared = |a: &usize| parents.iter().map(|b| self.shared[*a][*b]).collect();
        self.shared = parents.iter().map(shared).collect();
    }
}
