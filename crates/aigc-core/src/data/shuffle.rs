//! Random permutations that are too long to be stored.

use crate::rng::Rng;

/// Number of items above which a permutation is computed element by element; below, it is stored.
pub(crate) const MAX_STORED: usize = 1 << 22;

/// A permutation of `0..len` in constant memory: a Feistel network on the next even number of bits,
/// applied again to results that are out of range (Black & Rogaway 2002, "Ciphers with Arbitrary
/// Finite Domains", §4 and 5).
#[derive(Clone, Debug)]
pub(crate) struct Shuffle {
    len: u64,
    /// Bits of half a number.
    half: u32,
    keys: [u64; 6],
}

impl Shuffle {
    pub(crate) fn new(len: usize, rng: &mut Rng) -> Self {
        let bits = u64::BITS - (len as u64).saturating_sub(1).leading_zeros();
        Self {
            len: len as u64,
            half: bits.div_ceil(2).max(1),
            keys: std::array::from_fn(|_| rng.next_u64()),
        }
    }

    /// The item at position `place`, which is below `len`.
    pub(crate) fn at(&self, place: usize) -> usize {
        let mut number = place as u64;
        // The network permutes fewer than four times as many numbers: less than four iterations on
        // average.
        loop {
            number = self.permuted(number);
            if number < self.len {
                return number as usize;
            }
        }
    }

    fn permuted(&self, number: u64) -> u64 {
        let mask = (1 << self.half) - 1;
        let (mut left, mut right) = (number >> self.half, number & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mixed(right ^ key) & mask));
        }
        left << self.half | right
    }
}

/// Mixes the bits of a number (the finalizer of SplitMix64, Steele et al. 2014).
fn mixed(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffle_is_a_permutation() {
        for len in [1, 2, 3, 5, 16, 17, 100, 1023, 1025, 70_000] {
            let shuffle = Shuffle::new(len, &mut Rng::new(len as u64));
            let mut seen = vec![false; len];
            (0..len).for_each(|place| {
                assert!(
                    !std::mem::replace(&mut seen[shuffle.at(place)], true),
                    "of {len}"
                )
            });
        }
    }

    /// Neighbouring positions are not neighbouring items, and other keys give other orders.
    #[test]
    fn shuffle_looks_random() {
        let len = 50_000;
        let [one, other] = [1, 2].map(|seed| Shuffle::new(len, &mut Rng::new(seed)));
        let distance = |place: usize| one.at(place).abs_diff(one.at(place + 1)) as f64;
        let mean = (0..len - 1).map(distance).sum::<f64>() / (len - 1) as f64;
        // Two draws of an interval are a third of it apart, with a deviation of √(1/18).
        assert!(
            (mean / len as f64 - 1.0 / 3.0).abs() < 5.0 * (1.0f64 / 18.0 / len as f64).sqrt(),
            "{mean}"
        );
        assert!(
            (0..len)
                .filter(|place| one.at(*place) == other.at(*place))
                .count()
                < 10
        );
    }
}
