//! Polynomial hashes (Karp and Rabin 1987) of any range of a text, from sampled prefix hashes.
//!
//! Long common prefixes are compared by hashes in logarithmic time. The hashes are residues modulo
//! the prime 2⁶¹ − 1, so two different ranges agree with a probability of about `length / 2⁶¹`.

const PRIME: u64 = (1 << 61) - 1;
/// A fixed random residue.
const BASE: u64 = 0x1a3f_90c4_5be2_7d61;
/// Bytes from one stored prefix hash to the next: a hash costs this many steps at most, and an
/// eighth of this number of bytes shares one byte of memory.
const STRIDE: usize = 32;

fn multiply(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    let sum = (product as u64 & PRIME) + (product >> 61) as u64;
    if sum >= PRIME { sum - PRIME } else { sum }
}

fn step(hash: u64, byte: u8) -> u64 {
    // Below 2⁶¹ + 256, which fits; the next product needs a residue.
    let sum = multiply(hash, BASE) + u64::from(byte) + 1;
    if sum >= PRIME { sum - PRIME } else { sum }
}

/// `BASE` to the power of `2^exponent`.
fn power_of_two(exponent: u32) -> u64 {
    (0..exponent).fold(BASE, |power, _| multiply(power, power))
}

/// Hashes of prefixes of a text.
#[derive(Clone, Debug)]
pub(super) struct PrefixHashes(Vec<u64>);

impl PrefixHashes {
    pub(super) fn new(text: &[u8]) -> Self {
        let mut samples = Vec::with_capacity(text.len() / STRIDE + 1);
        let mut hash = 0;
        samples.push(hash);
        for block in text.chunks_exact(STRIDE) {
            hash = block.iter().fold(hash, |hash, byte| step(hash, *byte));
            samples.push(hash);
        }
        Self(samples)
    }

    /// Bytes of heap memory for a text of `bytes` bytes.
    pub(super) fn memory(bytes: u64) -> u64 {
        (bytes / STRIDE as u64 + 1) * size_of::<u64>() as u64
    }

    fn prefix(&self, text: &[u8], end: usize) -> u64 {
        let sample = end / STRIDE;
        text[sample * STRIDE..end]
            .iter()
            .fold(self.0[sample], |hash, byte| step(hash, *byte))
    }

    /// Hash of `text[start..start + length]`; `power` is `BASE^length`.
    fn range(&self, text: &[u8], start: usize, length: usize, power: u64) -> u64 {
        let before = multiply(self.prefix(text, start), power);
        let hash = self.prefix(text, start + length) + PRIME - before;
        if hash >= PRIME { hash - PRIME } else { hash }
    }
}

/// A text with its hashes.
#[derive(Clone, Copy)]
pub(super) struct Hashed<'a> {
    pub(super) text: &'a [u8],
    pub(super) hashes: &'a PrefixHashes,
}

/// Prefixes up to this length are compared byte by byte.
const DIRECT: usize = 256;

/// Length of the longest common prefix of `a.text[from_a..]` and `b.text[from_b..]`.
pub(super) fn common_prefix(a: Hashed<'_>, from_a: usize, b: Hashed<'_>, from_b: usize) -> usize {
    let limit = (a.text.len() - from_a).min(b.text.len() - from_b);
    let short = limit.min(DIRECT);
    let mut known = direct(
        &a.text[from_a..from_a + short],
        &b.text[from_b..from_b + short],
    );
    if known < DIRECT {
        return known;
    }
    let equal = |known: usize, exponent: u32| {
        let length = 1 << exponent;
        let power = power_of_two(exponent);
        known + length <= limit
            && a.hashes.range(a.text, from_a + known, length, power)
                == b.hashes.range(b.text, from_b + known, length, power)
    };
    // Steps double while the ranges are equal, and then halve.
    let smallest = DIRECT.ilog2();
    let mut exponent = smallest;
    while equal(known, exponent) {
        known += 1 << exponent;
        exponent += 1;
    }
    while exponent > smallest {
        exponent -= 1;
        if equal(known, exponent) {
            known += 1 << exponent;
        }
    }
    let end = limit.min(known + DIRECT) - known;
    known
        + direct(
            &a.text[from_a + known..from_a + known + end],
            &b.text[from_b + known..from_b + known + end],
        )
}

/// Length of the common prefix of slices of one length.
fn direct(a: &[u8], b: &[u8]) -> usize {
    let mut equal = 0;
    for (x, y) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        if x != y {
            break;
        }
        equal += 8;
    }
    let rest = a[equal..].iter().zip(&b[equal..]);
    equal + rest.take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_prefixes_match_comparison_of_bytes() {
        // Thue–Morse words are where hashes modulo a power of two fail.
        let text: Vec<u8> = (0u32..5000)
            .map(|i| b'a' + (i.count_ones() % 2) as u8)
            .collect();
        let mut other = text.clone();
        other.extend_from_within(0..700);
        for changed in [300, 1111, 3000, 4999] {
            other[changed] = b'x';
            let (hashes, others) = (PrefixHashes::new(&text), PrefixHashes::new(&other));
            let a = Hashed {
                text: &text,
                hashes: &hashes,
            };
            let b = Hashed {
                text: &other,
                hashes: &others,
            };
            for (i, j) in [
                (0, 0),
                (1, 1),
                (301, 301),
                (0, 5000),
                (1112, 1112),
                (7, 4000),
            ] {
                let pairs = text[i..].iter().zip(&other[j..]);
                let expected = pairs.take_while(|(x, y)| x == y).count();
                assert_eq!(common_prefix(a, i, b, j), expected, "{changed} {i} {j}");
            }
        }
    }

    #[test]
    fn hash_of_range_does_not_depend_on_its_place() {
        let text: Vec<u8> = (0..400).map(|i| (i * i % 251) as u8).collect();
        let twice = [&[9; 77], text.as_slice()].concat();
        let (a, b) = (PrefixHashes::new(&text), PrefixHashes::new(&twice));
        let power = power_of_two(6);
        for start in [0, 1, 31, 32, 200] {
            assert_eq!(
                a.range(&text, start, 64, power),
                b.range(&twice, start + 77, 64, power)
            );
        }
    }
}
