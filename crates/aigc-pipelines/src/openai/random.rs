//! Random names and numbers that need not be secret.

use std::hash::{BuildHasher, RandomState};

/// 64 random bits. The standard library seeds its hashers from the system.
fn random_bits() -> u64 {
    // Every `RandomState` of a thread has another key.
    RandomState::new().hash_one(0u8)
}

/// 32 random hexadecimal digits.
pub(super) fn random_hex() -> String {
    format!("{:016x}{:016x}", random_bits(), random_bits())
}

/// A random number from 0 to 1, without 1.
pub(super) fn random_fraction() -> f64 {
    (random_bits() >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_values_differ() {
        let names: std::collections::HashSet<_> = (0..1000).map(|_| random_hex()).collect();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|name| name.len() == 32));
        let mean = (0..10_000).map(|_| random_fraction()).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.03, "{mean}");
    }
}
