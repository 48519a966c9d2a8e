//! From counts to the score.

use super::{Bleu, BleuStatistics};
use serde::{Deserialize, Serialize};

/// What stands for the precision of an order without matches. The methods are numbered as by Chen
/// and Cherry (2014), <https://aclanthology.org/W14-3346>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Smoothing {
    /// Zero, and with it the score.
    None,
    /// Method 1: this many matches; 0.1 in the paper.
    Floor(f64),
    /// Method 2: this number is added to matches and n-grams of every order above 1; 1 in the
    /// paper.
    AddK(f64),
    /// Method 3: half a match for the first such order, a quarter for the second, and so on.
    #[default]
    Exp,
}

/// A BLEU score and its parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BleuScore {
    /// The score, 0 to 100.
    pub score: f64,
    /// Precision of each order after smoothing, in percent; all 0 if nothing matches.
    pub precisions: Vec<f64>,
    /// Matches of each order, before smoothing.
    pub counts: Vec<usize>,
    /// N-grams of each order in the hypotheses, before smoothing.
    pub totals: Vec<usize>,
    /// The brevity penalty, 0 to 1.
    pub bp: f64,
    /// Tokens in the hypotheses.
    pub sys_len: usize,
    /// Tokens in the references of closest length.
    pub ref_len: usize,
}

impl Bleu {
    /// The score of sentences with this sum.
    pub(in crate::eval::text) fn score(&self, sum: BleuStatistics) -> BleuScore {
        let BleuStatistics {
            counts,
            totals,
            sys_len,
            ref_len,
        } = sum;
        let bp = match sys_len {
            0 if ref_len > 0 => 0.0,
            _ if sys_len >= ref_len => 1.0,
            _ => (1.0 - ref_len as f64 / sys_len as f64).exp(),
        };
        let mut precisions = vec![0.0; self.max_order];
        let mut score = 0.0;
        if counts.iter().any(|count| *count > 0) {
            let (mut order, mut halved) = (self.max_order, 1.0);
            for n in 0..self.max_order {
                let added = match self.smoothing {
                    Smoothing::AddK(k) if n > 0 => k,
                    _ => 0.0,
                };
                let (matches, total) = (counts[n] as f64 + added, totals[n] as f64 + added);
                if total == 0.0 {
                    break;
                }
                if self.effective_order {
                    order = n + 1;
                }
                let matches = match self.smoothing {
                    Smoothing::Exp if matches == 0.0 => {
                        halved *= 0.5;
                        halved
                    }
                    Smoothing::Floor(value) if matches == 0.0 => value,
                    _ => matches,
                };
                precisions[n] = 100.0 * matches / total;
            }
            // A precision of zero has the logarithm −∞, and the score becomes zero.
            let logs: f64 = precisions[..order].iter().map(|p| p.ln()).sum();
            score = bp * (logs / order as f64).exp();
        }
        BleuScore {
            score,
            precisions,
            counts,
            totals,
            bp,
            sys_len,
            ref_len,
        }
    }
}
