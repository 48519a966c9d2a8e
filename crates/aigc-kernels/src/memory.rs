//! Allocation of output buffers.

use crate::pages::large_pages;

/// Allocates `len` numbers and lets `write` fill them. `write` must write every element before it
/// reads any: all callers in this crate guarantee this, and check the lengths that it depends on
/// at their entry.
///
/// Zeroing a buffer that is overwritten anyway costs as much as a light operation itself, so the
/// buffer starts uninitialised.
pub(crate) fn filled(len: usize, write: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut values: Vec<f32> = Vec::with_capacity(len);
    #[cfg(any(debug_assertions, miri))]
    values.resize(len, f32::NAN);
    // SAFETY: the capacity is `len`, and `write` overwrites every element before it is read, by the
    // contract above. Builds with debug assertions, such as the tests', start from NaN, which
    // reveals elements that were not written.
    #[cfg(not(any(debug_assertions, miri)))]
    unsafe {
        values.set_len(len)
    };
    large_pages(&values);
    write(&mut values);
    values
}

/// The product of `sizes`: the length of a buffer of that shape.
///
/// # Panics
/// If the product overflows.
pub(crate) fn volume(sizes: &[usize]) -> usize {
    sizes
        .iter()
        .try_fold(1usize, |product, size| product.checked_mul(*size))
        .unwrap_or_else(|| panic!("sizes {sizes:?} overflow"))
}
