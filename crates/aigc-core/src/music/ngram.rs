//! Counted probabilities of the next symbol.

use std::collections::HashMap;

/// Counts after one context.
#[derive(Clone, Debug, Default)]
struct Counts {
    total: u32,
    of: HashMap<u32, u32>,
}

/// Probabilities of symbols after a context, counted and smoothed as I. H. Witten and T. C. Bell,
/// "The Zero-Frequency Problem", 1991 (method C).
///
/// A context is a list of what matters, the most important first. What was seen after all of it is
/// mixed with what was seen after its first parts, down to nothing, where all symbols are equally
/// likely: after a context seen `n` times with `d` different symbols, the shorter context has the
/// weight `d / (n + d)`.
///
/// ```
/// use aigc_core::music::WittenBell;
///
/// let mut counts = WittenBell::new(2);
/// assert_eq!(counts.probability(&[7], 0), 0.5);
/// counts.observe(&[7], 0);
/// assert_eq!(counts.probability(&[7], 0), 0.875);
/// assert_eq!(counts.probability(&[8], 0), 0.75);
/// ```
#[derive(Clone, Debug)]
pub struct WittenBell {
    vocab_size: usize,
    contexts: HashMap<Box<[u32]>, Counts>,
}

impl WittenBell {
    /// No counts yet, and so many symbols.
    ///
    /// # Panics
    /// If there are none.
    pub fn new(vocab_size: usize) -> Self {
        assert!(vocab_size > 0, "there must be symbols");
        Self {
            vocab_size,
            contexts: HashMap::new(),
        }
    }

    /// Counts a symbol after a context.
    ///
    /// # Panics
    /// If the symbol is not below the number of symbols.
    pub fn observe(&mut self, context: &[u32], symbol: u32) {
        self.check(symbol);
        for len in 0..=context.len() {
            let counts = self.contexts.entry(Box::from(&context[..len])).or_default();
            counts.total += 1;
            *counts.of.entry(symbol).or_default() += 1;
        }
    }

    /// The probability of a symbol after a context. Over all symbols it sums to 1.
    ///
    /// # Panics
    /// If the symbol is not below the number of symbols.
    pub fn probability(&self, context: &[u32], symbol: u32) -> f64 {
        self.check(symbol);
        let mut probability = 1.0 / self.vocab_size as f64;
        for len in 0..=context.len() {
            let Some(counts) = self.contexts.get(&context[..len]) else {
                break;
            };
            let seen = f64::from(counts.of.get(&symbol).copied().unwrap_or(0));
            let (total, distinct) = (f64::from(counts.total), counts.of.len() as f64);
            probability = (seen + distinct * probability) / (total + distinct);
        }
        probability
    }

    fn check(&self, symbol: u32) {
        let size = self.vocab_size;
        assert!((symbol as usize) < size, "symbol {symbol} of {size}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one() {
        let mut counts = WittenBell::new(11);
        for i in 0..200u32 {
            counts.observe(&[i % 3, i % 5, i % 2], i * i % 11);
        }
        for context in [[0, 0, 0], [2, 4, 1], [2, 9, 9], [7, 0, 0]] {
            let sum: f64 = (0..11).map(|x| counts.probability(&context, x)).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{sum}");
        }
    }
}
