//! How often codes occur: in a batch, without moving it to the host, and over a data set.

use super::{MAX_DIM, check_num_codes};
use aigc_core::{Error, Result, check};
use burn::tensor::{IndexingUpdateOp, Int, Tensor};

/// How often each code occurs in a batch.
///
/// # Shapes
/// - codes: `[batch, positions, codebooks]`
/// - output: `[codebooks, num_codes]`
pub fn code_counts(codes: Tensor<3, Int>, num_codes: usize) -> Tensor<2> {
    let [batch, positions, codebooks] = codes.dims();
    let device = codes.device();
    // Each codebook counts in a range of its own.
    let first = Tensor::<1, Int>::arange(0..codebooks as i64, &device) * num_codes as i64;
    let places = codes + first.reshape([1, 1, codebooks]);
    let total = batch * positions * codebooks;
    Tensor::<1>::zeros([codebooks * num_codes], &device)
        .select_assign(
            0,
            places.reshape([total]),
            Tensor::ones([total], &device),
            IndexingUpdateOp::Add,
        )
        .reshape([codebooks, num_codes])
}

/// The perplexity `exp(−Σ p·ln p)` of the codes of each codebook: the number of codes that uniform
/// use would need for the same entropy.
///
/// # Shapes
/// - counts: `[codebooks, num_codes]` ([`code_counts`])
/// - output: `[codebooks]`
pub fn perplexity(counts: Tensor<2>) -> Tensor<1> {
    let total = counts.clone().sum_dim(1).clamp_min(1.0);
    let p = counts / total;
    let terms = p.clone() * p.clamp_min(f64::from(f32::MIN_POSITIVE)).log();
    terms.sum_dim(1).squeeze_dim::<1>(1).neg().exp()
}

/// Counts the codes of a data set exactly.
///
/// ```
/// # use aigc_vae::CodeUsage;
/// # fn main() -> aigc_core::Result<()> {
/// let mut usage = CodeUsage::new(1, 8)?;
/// usage.add_indices(&[0, 1, 2, 3, 0, 1, 2, 3])?;
/// assert_eq!(usage.usage(), 0.5);
/// assert!((usage.perplexity() - 4.0).abs() < 1e-12);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeUsage {
    /// Counts of the codes of each codebook.
    counts: Vec<Vec<u64>>,
}

impl CodeUsage {
    /// A counter for `codebooks` codebooks of `num_codes` codes.
    ///
    /// # Errors
    /// [`Error::Config`] unless there are from 1 to 2¹⁴ codebooks and from 2 to 2²⁰ codes, and at
    /// most 2²⁴ codes in all.
    pub fn new(codebooks: usize, num_codes: usize) -> Result<Self> {
        check::in_range("codebooks", codebooks, 1..=MAX_DIM)?;
        check_num_codes("num_codes", num_codes)?;
        check::in_range("num_codes", num_codes, 2..=(1 << 24) / codebooks)?;
        Ok(Self {
            counts: vec![vec![0; num_codes]; codebooks],
        })
    }

    /// Counts the codes of a batch.
    ///
    /// # Shapes
    /// - codes: `[batch, positions, codebooks]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the codes are of another number of codebooks, or out of range;
    /// nothing is counted then.
    pub fn add(&mut self, codes: Tensor<3, Int>) -> Result<()> {
        let [.., codebooks] = codes.dims();
        if codebooks != self.counts.len() {
            let expected = format!("{} codebooks", self.counts.len());
            return Err(Error::argument("codes", codebooks, expected));
        }
        let codes: Vec<i64> = codes.into_data().iter::<i64>().collect();
        self.add_indices(&codes)
    }

    /// Counts codes, those of a position side by side.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_indices(&mut self, codes: &[i64]) -> Result<()> {
        let (codebooks, num_codes) = (self.counts.len(), self.counts[0].len());
        if !codes.len().is_multiple_of(codebooks) {
            let expected = format!("a multiple of {codebooks}, the number of codebooks");
            return Err(Error::argument("codes", codes.len(), expected));
        }
        let is_wrong = |code: &&i64| !(0..num_codes as i64).contains(*code);
        if let Some(code) = codes.iter().find(is_wrong) {
            let expected = format!("0 to {}", num_codes - 1);
            return Err(Error::argument("codes", code, expected));
        }
        for (index, code) in codes.iter().enumerate() {
            self.counts[index % codebooks][*code as usize] += 1;
        }
        Ok(())
    }

    /// Counts of the codes of a codebook.
    ///
    /// # Panics
    /// If there is no such codebook.
    pub fn counts(&self, codebook: usize) -> &[u64] {
        &self.counts[codebook]
    }

    /// The share of codes that occur, 0 to 1, over all codebooks.
    pub fn usage(&self) -> f64 {
        let used = self.counts.iter().flatten().filter(|count| **count > 0);
        used.count() as f64 / (self.counts.len() * self.counts[0].len()) as f64
    }

    /// The entropy of the codes of a codebook in nats; 0 without codes.
    ///
    /// # Panics
    /// If there is no such codebook.
    pub fn entropy(&self, codebook: usize) -> f64 {
        let counts = &self.counts[codebook];
        let total = counts.iter().sum::<u64>().max(1) as f64;
        let used = counts.iter().filter(|count| **count > 0);
        let terms = used.map(|count| *count as f64 / total);
        -terms.map(|p| p * p.ln()).sum::<f64>()
    }

    /// The perplexity `exp(−Σ p·ln p)` of the codes, from 1 to the number of codes; the geometric
    /// mean over the codebooks.
    pub fn perplexity(&self) -> f64 {
        let entropies = (0..self.counts.len()).map(|codebook| self.entropy(codebook));
        (entropies.sum::<f64>() / self.counts.len() as f64).exp()
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::values;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn perplexity_has_its_closed_forms() {
        let device = Device::flex();
        // The first codebook uses 4 of 8 codes uniformly, the second only one.
        let codes: Vec<i32> = (0..32).flat_map(|i| [2 * (i % 4), 5]).collect();
        let codes = Tensor::<3, Int>::from_data(TensorData::new(codes, [4, 8, 2]), &device);
        let counts = code_counts(codes.clone(), 8);
        assert_eq!(
            values(counts.clone()),
            [
                8.0, 0.0, 8.0, 0.0, 8.0, 0.0, 8.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 32.0, 0.0, 0.0
            ]
        );
        let found = values(perplexity(counts));
        assert!(
            (found[0] - 4.0).abs() < 1e-5 && (found[1] - 1.0).abs() < 1e-6,
            "{found:?}"
        );
        let mut usage = CodeUsage::new(2, 8).unwrap();
        usage.add(codes).unwrap();
        assert_eq!(usage.usage(), 5.0 / 16.0);
        assert!((usage.entropy(0) - 4f64.ln()).abs() < 1e-12 && usage.entropy(1).abs() < 1e-12);
        assert!((usage.perplexity() - 2.0).abs() < 1e-12);

        // Of a geometric distribution p(k) = 2^−(k+1) and a remainder: Σ (k+1)/2^(k+1) bits.
        let mut usage = CodeUsage::new(1, 4).unwrap();
        usage.add_indices(&[0, 0, 0, 0, 1, 1, 2, 3]).unwrap();
        let bits = 0.5 + 0.5 + 0.375 + 0.375;
        assert!((usage.perplexity() - 2f64.powf(bits)).abs() < 1e-12);
    }

    #[test]
    fn code_usage_names_codes_out_of_range() {
        let mut usage = CodeUsage::new(2, 4).unwrap();
        for (codes, expected) in [
            (&[0i64, 4][..], "`codes` is 4, expected 0 to 3"),
            (&[0, -1], "`codes` is -1"),
            (&[0], "a multiple of 2"),
        ] {
            let message = usage.add_indices(codes).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        assert_eq!(usage.usage(), 0.0);
        assert!(CodeUsage::new(0, 4).is_err() && CodeUsage::new(1, 1).is_err());
        assert!(CodeUsage::new(1 << 14, 1 << 20).is_err());
    }
}
