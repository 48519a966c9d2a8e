//! Where the kernels' memory comes from.

/// `len` numbers that `write` writes.
///
/// Zeroing what is about to be overwritten costs as much as a light operation itself, so the buffer starts as whatever
/// the allocator gives.
pub(crate) fn filled(len: usize, write: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut values: Vec<f32> = Vec::with_capacity(len);
    #[cfg(any(debug_assertions, miri))]
    values.resize(len, f32::NAN);
    // SAFETY: the capacity is there, every bit pattern is an f32, and `write` overwrites all of it before anything reads
    // it (builds with debug assertions start from NaN, which tests would see).
    #[cfg(not(any(debug_assertions, miri)))]
    unsafe {
        values.set_len(len)
    };
    write(&mut values);
    values
}
