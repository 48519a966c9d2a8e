//! Parallel loops, shared output slices and per-thread scratch buffers.

use crate::{pages::keep_pages, team};
use std::{cell::RefCell, marker::PhantomData};

/// Approximate number of floating-point operations (or a few times the elements moved) below which
/// waking a thread costs more than it saves.
pub(crate) const WORTH_SHARING: usize = 200_000;

/// Calls `part` for every index below `count`, on all threads if `work` (floating-point operations)
/// is at least [`WORTH_SHARING`]. Callers split their work by sizes and the number of threads only,
/// so results do not depend on which thread runs which part.
///
/// The calling thread takes part and starts at once; rayon's own iterators would put it to sleep
/// and wake two others.
pub(crate) fn for_each(count: usize, work: usize, part: impl Fn(usize) + Sync) {
    // Behind a pointer, this is compiled once for all callers.
    run(count, work, &part);
}

fn run(count: usize, work: usize, part: &(dyn Fn(usize) + Sync)) {
    keep_pages();
    let helpers = if work < WORTH_SHARING {
        0
    } else {
        rayon::current_num_threads().min(count).saturating_sub(1)
    };
    if helpers == 0 {
        return (0..count).for_each(part);
    }
    team::run(count, helpers, part);
}

/// A slice of which several threads write disjoint ranges.
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: a `Shared` is a borrowed `&mut [T]`, which may be sent. It gives access to the elements
// only through `range`, whose callers guarantee that no two threads use overlapping ranges, and
// through the raw pointers of `pointer`, whose users guarantee the same.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            slice: PhantomData,
        }
    }

    /// Pointer to element `start`, valid for `len` elements.
    ///
    /// # Panics
    /// If the range ends beyond the slice.
    #[inline(always)]
    pub(crate) fn pointer(&self, start: usize, len: usize) -> *mut T {
        assert!(
            start <= self.len && len <= self.len - start,
            "range of {len} from {start} ends beyond the {} elements",
            self.len
        );
        // SAFETY: inside the slice, by the assertion.
        unsafe { self.start.add(start) }
    }

    /// The `len` elements from `start` on.
    ///
    /// # Safety
    /// No two live ranges overlap, and no pointer of [`pointer`](Self::pointer) is used for an
    /// element of a live range.
    ///
    /// # Panics
    /// If the range ends beyond the slice.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn range(&self, start: usize, len: usize) -> &mut [T] {
        // SAFETY: inside the slice, and not aliased by the caller's contract.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(start, len), len) }
    }
}

/// `N` scratch buffers. The thread keeps their memory between calls, so that their pages are not
/// faulted in again.
///
/// A guard object instead of a callback: code in a closure would not be compiled for the
/// instruction set of its surroundings.
pub(crate) struct Scratch<const N: usize> {
    buffers: Vec<Vec<f32>>,
    lens: [usize; N],
}

thread_local! {
    static KEPT: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Elements of a cache line, at whose beginning every buffer begins: a vector that lies in two
/// lines takes twice as long to read.
const ALIGNED: usize = 16;

impl<const N: usize> Scratch<N> {
    /// Buffers of these lengths, with the contents of their last use. A nested call on the same
    /// thread allocates new ones.
    pub(crate) fn new(lens: [usize; N]) -> Self {
        let mut buffers = KEPT.with(RefCell::take);
        buffers.resize_with(buffers.len().max(N), Vec::new);
        for (buffer, len) in buffers.iter_mut().zip(lens) {
            if buffer.len() < len + ALIGNED {
                buffer.resize(len + ALIGNED, 0.0);
            }
        }
        Self { buffers, lens }
    }

    /// The buffers.
    pub(crate) fn split(&mut self) -> [&mut [f32]; N] {
        let mut rest = self.buffers.iter_mut().zip(self.lens);
        std::array::from_fn(|_| {
            let (buffer, len) = rest
                .next()
                .unwrap_or_else(|| unreachable!("there are at least as many buffers as lengths"));
            let start = buffer.as_ptr().align_offset(ALIGNED * size_of::<f32>());
            &mut buffer[start..][..len]
        })
    }
}

impl<const N: usize> Drop for Scratch<N> {
    fn drop(&mut self) {
        KEPT.with(|kept| *kept.borrow_mut() = std::mem::take(&mut self.buffers));
    }
}
