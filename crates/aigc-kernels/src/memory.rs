//! Where the kernels' memory comes from.

use crate::pages::large_pages;

/// `len` numbers that `write` writes: all of them, before it reads any. That is a promise of every
/// caller here; the operations hold the shapes that it hangs on against each other first.
///
/// Zeroing what is about to be overwritten costs as much as a light operation itself, so the buffer
/// starts as whatever the allocator gives.
pub(crate) fn filled(len: usize, write: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut values: Vec<f32> = Vec::with_capacity(len);
    #[cfg(any(debug_assertions, miri))]
    values.resize(len, f32::NAN);
    // SAFETY: the capacity is there, and `write` overwrites all of it before anything reads it, by
    // the promise above. Builds with debug assertions, the tests' among them, start from NaN, which
    // shows whatever was not written.
    #[cfg(not(any(debug_assertions, miri)))]
    unsafe {
        values.set_len(len)
    };
    large_pages(&values);
    write(&mut values);
    values
}
