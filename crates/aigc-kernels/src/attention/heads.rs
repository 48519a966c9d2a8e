//! Sizes of an attention, and where its heads lie in memory.

use crate::{
    memory::{check_len, volume},
    product::Matrix,
    threads::Shared,
};

/// Queries that are worked on at once.
pub(super) const BLOCK: usize = 64;

/// Sizes of an attention.
///
/// Any sizes are allowed here: the functions that take them check them.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSizes {
    /// Batch size.
    pub batch: usize,
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values; they divide the query heads. Query head `h` attends to key head
    /// `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Query positions.
    pub queries: usize,
    /// Key positions.
    pub keys: usize,
    /// Channels of a head.
    pub d: usize,
    /// Whether a query ignores the keys after it.
    pub causal: bool,
}

impl AttentionSizes {
    /// Query heads for each key head.
    pub(super) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Approximate number of floating-point operations.
    pub(super) fn work(&self) -> usize {
        [self.heads, self.queries, self.keys, self.d]
            .iter()
            .fold(self.batch.saturating_mul(4), |work, size| {
                work.saturating_mul(*size)
            })
    }

    pub(super) fn scale(&self) -> f32 {
        1.0 / (self.d as f32).sqrt()
    }

    /// # Panics
    /// If the key heads do not divide the query heads, or the sizes overflow.
    pub(super) fn check(&self) {
        let Self {
            batch,
            heads,
            kv_heads,
            queries,
            keys,
            d,
            ..
        } = *self;
        assert!(
            kv_heads > 0 && heads.is_multiple_of(kv_heads),
            "attention: kv_heads is {kv_heads}, expected a divisor of the {heads} heads"
        );
        // Upper bounds of all lengths, and of the offsets inside them. A size of 0 must not hide
        // that the others overflow.
        let tokens = queries.max(keys);
        volume(&[3, batch, heads.max(kv_heads), tokens, d].map(|size: usize| size.max(1)));
        volume(&[BLOCK, tokens]);
    }

    /// # Panics
    /// If the sizes are not those of a self-attention over `qkv`.
    pub(super) fn check_self(&self, qkv: &[f32]) {
        self.check();
        assert!(
            self.kv_heads == self.heads && self.keys == self.queries,
            "self-attention: kv_heads and keys are {} and {}, expected {} and {} as heads and \
             queries",
            self.kv_heads,
            self.keys,
            self.heads,
            self.queries
        );
        let len = volume(&[self.batch, self.queries, 3, self.heads, self.d]);
        check_len("self-attention: qkv", qkv.len(), len);
    }

    /// How many keys query `query` sees.
    pub(super) fn seen(&self, query: usize) -> usize {
        if self.causal {
            (query + 1 + self.keys)
                .saturating_sub(self.queries)
                .min(self.keys)
        } else {
            self.keys
        }
    }
}

/// `[batch, heads, tokens, d]` somewhere in a slice.
///
/// Any start and steps are allowed here: the functions that take them check that all elements lie
/// inside the slice.
#[derive(Clone, Copy)]
pub struct Heads<'a> {
    /// The storage.
    pub values: &'a [f32],
    /// Offset of the first element.
    pub start: usize,
    /// Steps along batch, heads, tokens and channels.
    pub steps: [usize; 4],
}

impl<'a> Heads<'a> {
    /// # Panics
    /// If an element of `shape`, `[batch, heads, tokens, d]`, lies outside the slice. `name` is
    /// that of the argument.
    pub(super) fn check(&self, name: &str, shape: [usize; 4]) {
        let Self {
            values,
            start,
            steps,
        } = *self;
        let last = shape
            .iter()
            .zip(steps)
            .try_fold(start, |last, (size, step)| {
                last.checked_add(size.checked_sub(1)?.checked_mul(step)?)
            });
        assert!(
            shape.contains(&0) || last.is_some_and(|last| last < values.len()),
            "attention: {name} of shape {shape:?}, start {start} and steps {steps:?} does not fit \
             its {} elements",
            values.len()
        );
    }

    /// Tokens from `first` on of one head, as a matrix of tokens × channels.
    pub(super) fn tokens(&self, batch: usize, head: usize, first: usize) -> Matrix<'a> {
        let at = self.start + batch * self.steps[0] + head * self.steps[1] + first * self.steps[2];
        Matrix {
            // A head without elements may start beyond the slice.
            values: self.values.get(at..).unwrap_or_default(),
            row: self.steps[2],
            column: self.steps[3],
        }
    }
}

/// Where the heads of an output or a gradient lie, channels side by side. The steps come from the
/// shape, so that heads do not overlap.
#[derive(Clone, Copy)]
pub(super) struct HeadsOut {
    /// Offset of the first element.
    pub(super) start: usize,
    /// Strides of batch, head and position.
    pub(super) steps: [usize; 3],
}

impl HeadsOut {
    /// `[batch, tokens, heads, d]` in order.
    pub(super) fn in_order(heads: usize, tokens: usize, d: usize) -> Self {
        Self {
            start: 0,
            steps: [tokens * heads * d, d, heads * d],
        }
    }
}

/// What one part writes of a tensor whose heads interleave: never as a slice, which would overlap
/// those of other heads.
#[derive(Clone, Copy)]
pub(super) struct HeadOf<'a> {
    pub(super) shared: &'a Shared<'a, f32>,
    pub(super) out: HeadsOut,
    pub(super) batch: usize,
    pub(super) head: usize,
    pub(super) d: usize,
}

impl HeadOf<'_> {
    /// Where the `count` tokens from `first` on lie, [`step`](Self::step) apart: valid for `d`
    /// elements each.
    ///
    /// # Panics
    /// If they do not lie inside the tensor.
    pub(super) fn rows(&self, first: usize, count: usize) -> *mut f32 {
        if count == 0 {
            return self.shared.pointer(0, 0);
        }
        let start = self.out.start
            + self.batch * self.out.steps[0]
            + self.head * self.out.steps[1]
            + first * self.out.steps[2];
        self.shared
            .pointer(start, (count - 1) * self.step() + self.d)
    }

    pub(super) fn step(&self) -> usize {
        self.out.steps[2]
    }

    /// Multiplies the rows from `first` on by `factors`.
    ///
    /// # Safety
    /// The rows are initialised, and only the caller reads or writes this head's numbers.
    pub(super) unsafe fn scale(&self, first: usize, factors: &[f32]) {
        let start = self.rows(first, factors.len());
        for (row, factor) in factors.iter().enumerate() {
            // SAFETY: `rows` checks that the row is inside the tensor; the rest by the caller's
            // contract.
            let row =
                unsafe { std::slice::from_raw_parts_mut(start.add(row * self.step()), self.d) };
            row.iter_mut().for_each(|value| *value *= factor);
        }
    }
}

/// Queries, keys and values of `[batch, tokens, 3·heads·d]`.
///
/// # Panics
/// If `kv_heads` is not `heads`, `keys` is not `queries`, the sizes overflow, or `qkv` does not
/// have the length of its shape.
pub fn side_by_side(qkv: &[f32], sizes: AttentionSizes) -> [Heads<'_>; 3] {
    sizes.check_self(qkv);
    let AttentionSizes {
        heads, queries, d, ..
    } = sizes;
    let width = 3 * heads * d;
    [0, 1, 2].map(|part| Heads {
        values: qkv,
        start: part * heads * d,
        steps: [queries * width, d, width, 1],
    })
}
