//! Allocation of output buffers, and checks of sizes.

use crate::pages::large_pages;
use std::fmt::Display;

/// Allocates `len` numbers and lets `write` fill them.
///
/// Zeroing a buffer that is overwritten anyway costs as much as a light operation itself, so the
/// buffer starts uninitialised. In unit tests and with debug assertions it starts from NaN,
/// which reveals elements that were not written.
///
/// # Safety
/// `write` reads no element before it has written it, and has written all of them when it returns.
///
/// # Panics
/// If `len` numbers do not fit the address space.
#[allow(
    clippy::uninit_vec,
    reason = "the elements are written before they are read"
)]
pub(crate) unsafe fn filled(len: usize, write: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut values: Vec<f32> = Vec::with_capacity(len);
    #[cfg(any(test, debug_assertions, miri))]
    values.resize(len, f32::NAN);
    // SAFETY: the capacity is at least `len`, and no element is read before it is written, by the
    // caller's contract. If `write` panics, the buffer is freed unread.
    #[cfg(not(any(test, debug_assertions, miri)))]
    unsafe {
        values.set_len(len)
    };
    large_pages(&values);
    write(&mut values);
    values
}

/// The product of `sizes`: the length of a buffer of that shape. It is at most [`isize::MAX`], so
/// the lengths of a few vectors can be added to it without overflow.
///
/// # Panics
/// If the product is larger.
pub(crate) fn volume(sizes: &[usize]) -> usize {
    sizes
        .iter()
        .try_fold(1usize, |product, size| product.checked_mul(*size))
        .filter(|volume| isize::try_from(*volume).is_ok())
        .unwrap_or_else(|| panic!("sizes {sizes:?} overflow"))
}

/// # Panics
/// If `len`, the number of elements of the argument `name`, is not `expected`.
#[track_caller]
pub(crate) fn check_len(name: impl Display, len: usize, expected: usize) {
    assert!(
        len == expected,
        "{name} has {len} elements, expected {expected}"
    );
}

/// The number of rows of `width` elements in `len` elements, those of the argument `name`. It is 0
/// if `width` is 0.
///
/// # Panics
/// If `len` is not a multiple of `width`.
#[track_caller]
pub(crate) fn row_count(name: &str, len: usize, width: usize) -> usize {
    assert!(
        len.is_multiple_of(width),
        "{name} has {len} elements, expected whole rows of {width}"
    );
    len.checked_div(width).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_panics;

    #[test]
    fn volume_rejects_overflow() {
        assert_eq!(volume(&[2, 3, 4]), 24);
        assert_eq!(volume(&[0, usize::MAX]), 0);
        assert_eq!(volume(&[isize::MAX as usize]), isize::MAX as usize);
        assert_panics("overflow", || volume(&[usize::MAX]));
        assert_panics("overflow", || volume(&[1 << (usize::BITS / 2); 2]));
    }
}
