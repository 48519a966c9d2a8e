//! Seeds of requests without one.

use std::hash::{BuildHasher, RandomState};

/// A seed that cannot be predicted, of the 32 bits that PyTorch's generator uses.
pub(crate) fn random_seed() -> u64 {
    // Every `RandomState` of a thread has another key.
    RandomState::new().hash_one(0u8) & 0xffff_ffff
}

#[cfg(test)]
mod tests {
    use super::random_seed;
    use std::collections::BTreeSet;

    #[test]
    fn seeds_differ_and_have_32_bits() {
        let seeds: BTreeSet<u64> = (0..20).map(|_| random_seed()).collect();
        assert!(seeds.len() > 1 && seeds.iter().all(|seed| *seed < 1 << 32));
    }
}
