//! Checks of configuration values. Each error names the field, its value and the expected values.

use crate::{Error, Result};
use std::{fmt::Display, ops::RangeInclusive};

/// Fails unless `holds`.
///
/// # Errors
/// [`Error::Config`] with `field`, `value` and `expected`.
pub fn ensure(holds: bool, field: &str, value: impl ToString, expected: &str) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::config(field, value, expected))
    }
}

/// Fails unless `holds`, for an argument of a call.
///
/// # Errors
/// [`Error::InvalidArgument`] with `argument`, `value` and `expected`.
pub fn ensure_argument(
    holds: bool,
    argument: &str,
    value: impl ToString,
    expected: &str,
) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::argument(argument, value, expected))
    }
}

/// Fails unless `value` is finite and above 0.
///
/// # Errors
/// [`Error::Config`].
pub fn positive(field: &str, value: f64) -> Result<()> {
    ensure(
        value > 0.0 && value.is_finite(),
        field,
        value,
        "a finite number above 0",
    )
}

/// Fails unless `value` is finite and at least 0.
///
/// # Errors
/// [`Error::Config`].
pub fn non_negative(field: &str, value: f64) -> Result<()> {
    ensure(
        value >= 0.0 && value.is_finite(),
        field,
        value,
        "a finite number, 0 or above",
    )
}

/// Fails unless `value` is from 0 to 1.
///
/// # Errors
/// [`Error::Config`].
pub fn fraction(field: &str, value: f64) -> Result<()> {
    in_range(field, value, 0.0..=1.0)
}

/// Fails unless `value` lies in `range`.
///
/// # Errors
/// [`Error::Config`].
pub fn in_range<T: PartialOrd + Display>(
    field: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(Error::config(
        field,
        value,
        format!("{} to {}", range.start(), range.end()),
    ))
}

/// Fails unless every size is from 1 to its limit, naming the first of `(field, size, limit)` that
/// is not. For sizes from a file, which decide how much memory is allocated.
///
/// # Errors
/// [`Error::Config`].
pub fn sizes(fields: &[(&str, usize, usize)]) -> Result<()> {
    fields
        .iter()
        .try_for_each(|(field, size, limit)| in_range(field, *size, 1..=*limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_name_field_value_and_range() {
        let message = |result: Result<()>| result.unwrap_err().to_string();
        assert!(
            positive("a", 1e-9).is_ok()
                && non_negative("a", 0.0).is_ok()
                && fraction("a", 1.0).is_ok()
        );
        assert!(
            message(positive("rate", 0.0))
                .contains("`rate` is 0, expected a finite number above 0")
        );
        assert!(message(positive("rate", f64::NAN)).contains("`rate` is NaN"));
        assert!(message(non_negative("rate", f64::INFINITY)).contains("`rate` is inf"));
        assert!(message(fraction("rate", 1.5)).contains("`rate` is 1.5, expected 0 to 1"));
        assert!(message(sizes(&[("a", 1, 2), ("b", 3, 2)])).contains("`b` is 3, expected 1 to 2"));
    }
}
