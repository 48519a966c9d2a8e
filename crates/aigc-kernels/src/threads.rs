//! Work in parts, and the memory the parts share.

use crate::pages::keep_pages;
use std::{
    cell::RefCell,
    marker::PhantomData,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Below about this many floating-point operations (or elements moved, times a few) waking a thread
/// costs more than it saves.
pub(crate) const WORTH_SHARING: usize = 200_000;

/// Calls `part` for every number below `count`, on all threads where `work` is worth it. What is a
/// part depends on the sizes and the number of threads only, so whatever a part computes does not
/// depend on which thread takes it when.
///
/// The calling thread works too, and starts at once: rayon's own iterators would put it to sleep
/// and wake two others.
pub(crate) fn for_each(count: usize, work: usize, part: impl Fn(usize) + Sync + Send) {
    keep_pages();
    let helpers = if work < WORTH_SHARING {
        0
    } else {
        rayon::current_num_threads().min(count).saturating_sub(1)
    };
    if helpers == 0 {
        return (0..count).for_each(part);
    }
    let next = AtomicUsize::new(0);
    let take = || {
        loop {
            match next.fetch_add(1, Ordering::Relaxed) {
                index if index < count => part(index),
                _ => break,
            }
        }
    };
    rayon::in_place_scope(|scope| {
        (0..helpers).for_each(|_| scope.spawn(|_| take()));
        take();
    });
}

/// A slice whose disjoint pieces several threads write.
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: a `Shared` gives access only through `range`, whose caller promises that no two threads
// overlap.
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

    /// Where element `start` lies, for writing `len` elements from there on.
    ///
    /// # Panics
    /// If they end after the slice.
    #[inline(always)]
    pub(crate) fn pointer(&self, start: usize, len: usize) -> *mut T {
        assert!(
            start <= self.len && len <= self.len - start,
            "{start} + {len} > {}",
            self.len
        );
        // SAFETY: inside the slice by the assertion.
        unsafe { self.start.add(start) }
    }

    /// `len` elements from `start`.
    ///
    /// # Safety
    /// No two live pieces overlap.
    ///
    /// # Panics
    /// If the piece ends after the slice.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn range(&self, start: usize, len: usize) -> &mut [T] {
        // SAFETY: inside the slice, not aliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(start, len), len) }
    }
}

/// `N` buffers that the thread keeps from call to call, so that their pages stay where they are.
///
/// Not a closure: code in a closure would lose the instruction set that its surroundings were
/// compiled for.
pub(crate) struct Scratch<const N: usize> {
    buffers: Vec<Vec<f32>>,
    lens: [usize; N],
}

thread_local! {
    static KEPT: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

impl<const N: usize> Scratch<N> {
    /// Buffers of these lengths, holding whatever their last user left. Asked for again while in
    /// use, new ones.
    pub(crate) fn new(lens: [usize; N]) -> Self {
        let mut buffers = KEPT.with(RefCell::take);
        buffers.resize_with(buffers.len().max(N), Vec::new);
        for (buffer, len) in buffers.iter_mut().zip(lens) {
            if buffer.len() < len {
                buffer.resize(len, 0.0);
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
                .unwrap_or_else(|| unreachable!("as many buffers as lengths"));
            &mut buffer[..len]
        })
    }
}

impl<const N: usize> Drop for Scratch<N> {
    fn drop(&mut self) {
        KEPT.with(|kept| *kept.borrow_mut() = std::mem::take(&mut self.buffers));
    }
}
