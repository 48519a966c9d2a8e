//! How much of every codebook is used, over the last steps.

use crate::quantizer::{code_counts, perplexity};
use aigc_core::{Error, Result, check};
use burn::tensor::{Int, Tensor, TensorData};
use std::sync::LazyLock;

/// Most codebooks with metrics of their own.
const MAX_CODEBOOKS: usize = 64;
/// Weight of the past in the moving averages of counts: about fifty batches.
const DECAY: f64 = 0.98;
/// Steps between two checks for little use.
const CHECKED: usize = 100;
/// A code counts as used if it has this share of what it would have if all were used equally.
const USED: f64 = 0.1;
/// Least share of a codebook's codes that should be used.
const LEAST: f64 = 0.5;

/// Names of the metrics of each codebook, counted from 1.
static NAMES: LazyLock<Vec<[String; 2]>> = LazyLock::new(|| {
    let name = |index: usize| [format!("usage_{index}"), format!("perplexity_{index}")];
    (1..=MAX_CODEBOOKS).map(name).collect()
});

/// Watches the codes of a codec in training, by moving averages of how often each occurs.
///
/// The metrics of codebook `k`, counted from 1, are `usage_k`, the share of its codes that occur at
/// least a tenth as often as if all were equally frequent, and `perplexity_k`, the number of
/// equally frequent codes with the same entropy.
#[derive(Clone, Debug)]
pub struct CodecUsage {
    size: usize,
    codebooks: usize,
    /// `[codebooks, size]`; `None` before the first batch.
    averages: Option<Tensor<2>>,
    /// What was loaded, until the device is known.
    loaded: Option<Vec<f32>>,
    /// Whether each codebook had too little use at the last check.
    low: Vec<bool>,
}

impl CodecUsage {
    /// A watch of `codebooks` codebooks of `size` codes.
    ///
    /// # Errors
    /// [`Error::Config`] unless there are 1 to 64 codebooks of 2 to 2²⁰ codes.
    pub fn new(codebooks: usize, size: usize) -> Result<Self> {
        check::in_range("codebooks", codebooks, 1..=MAX_CODEBOOKS)?;
        check::in_range("codebook_size", size, 2..=1 << 20)?;
        Ok(Self {
            size,
            codebooks,
            averages: None,
            loaded: None,
            low: vec![false; codebooks],
        })
    }

    /// Counts the codes of a batch, and returns the metrics of all codebooks, `[1]` each.
    ///
    /// # Shapes
    /// - codes: `[batch, codebooks, frames]`
    ///
    /// # Panics
    /// If there are other codebooks, or a code is not below their size.
    pub fn add(&mut self, codes: Tensor<3, Int>) -> Vec<(&'static str, Tensor<1>)> {
        let counts = code_counts(codes.without_autodiff().swap_dims(1, 2), self.size);
        assert_eq!(counts.dims()[0], self.codebooks, "number of codebooks");
        let loaded = self.loaded.take().map(|values| {
            let data = TensorData::new(values, [self.codebooks, self.size]);
            Tensor::from_data(data, &counts.device())
        });
        let averages = match self.averages.take().or(loaded) {
            Some(averages) => averages * DECAY + counts,
            None => counts,
        };
        let perplexities = perplexity(averages.clone());
        let shares = shares_used(&averages);
        self.averages = Some(averages);
        let metric = |index: usize| {
            let [usage, perplexity] = &NAMES[index];
            [
                (usage.as_str(), shares.clone().narrow(0, index, 1)),
                (
                    perplexity.as_str(),
                    perplexities.clone().narrow(0, index, 1),
                ),
            ]
        };
        (0..self.codebooks).flat_map(metric).collect()
    }

    /// The share of the codes of each codebook that are used.
    pub fn usage(&self) -> Vec<f64> {
        match &self.averages {
            Some(averages) => shares_used(averages).into_data().iter::<f64>().collect(),
            None => vec![0.0; self.codebooks],
        }
    }

    /// A warning, after every hundredth step, if a codebook that was used enough is now used to
    /// less than a half.
    pub fn check(&mut self, step: usize) -> Option<String> {
        if !(step + 1).is_multiple_of(CHECKED) {
            return None;
        }
        let usage = self.usage();
        let low: Vec<bool> = usage.iter().map(|share| *share < LEAST).collect();
        let new = low.iter().zip(&self.low).zip(usage).enumerate();
        let new: Vec<String> = new
            .filter(|(_, ((now, before), _))| **now && !**before)
            .map(|(index, (_, share))| format!("{} ({:.0} %)", index + 1, 100.0 * share))
            .collect();
        self.low = low;
        (!new.is_empty()).then(|| {
            format!(
                "less than half of the codes are used of codebook {}; replace dead codes sooner, \
                 or use fewer codes",
                new.join(", ")
            )
        })
    }

    /// The averages, bit for bit, and what was warned of.
    pub(super) fn state(&self) -> serde_json::Value {
        let averages: Option<Vec<u32>> = match (&self.averages, &self.loaded) {
            (Some(averages), _) => {
                let values = averages.to_data();
                Some(values.iter::<f32>().map(f32::to_bits).collect())
            }
            (None, Some(values)) => Some(values.iter().map(|value| value.to_bits()).collect()),
            (None, None) => None,
        };
        serde_json::json!({"averages": averages, "low": self.low})
    }

    pub(super) fn load_state(&mut self, mut state: serde_json::Value) -> Result<()> {
        let fault = |found: String| {
            let expected = format!("{} codebooks of {} codes", self.codebooks, self.size);
            Error::config("state.usage", found, expected)
        };
        let mut part = |name: &str| {
            let part = state.get_mut(name).map(serde_json::Value::take);
            part.unwrap_or_default()
        };
        let averages: Option<Vec<u32>> =
            serde_json::from_value(part("averages")).map_err(|error| fault(error.to_string()))?;
        let low: Vec<bool> =
            serde_json::from_value(part("low")).map_err(|error| fault(error.to_string()))?;
        let count = averages.as_ref().map(Vec::len);
        if low.len() != self.codebooks || count.is_some_and(|n| n != self.codebooks * self.size) {
            return Err(fault(format!("{} codebooks, {count:?} counts", low.len())));
        }
        self.low = low;
        self.averages = None;
        self.loaded = averages.map(|bits| bits.into_iter().map(f32::from_bits).collect());
        Ok(())
    }
}

/// The share of codes that are used, `[codebooks]`.
fn shares_used(averages: &Tensor<2>) -> Tensor<1> {
    let [codebooks, size] = averages.dims();
    let total = averages.clone().sum_dim(1).clamp_min(1e-6);
    let shares = averages.clone() / total;
    let used = shares.greater_elem(USED / size as f64).float();
    used.mean_dim(1).reshape([codebooks])
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn codes(of: &[i32], codebooks: usize) -> Tensor<3, Int> {
        let data = TensorData::new(of.to_vec(), [1, codebooks, of.len() / codebooks]);
        Tensor::from_data(data, &Device::flex())
    }

    #[test]
    fn usage_and_perplexity_are_those_of_the_codes() {
        let mut usage = CodecUsage::new(2, 4).unwrap();
        let metrics = usage.add(codes(&[0, 1, 2, 3, 1, 1, 1, 1], 2));
        let found: Vec<(&str, f32)> = metrics
            .into_iter()
            .map(|(name, value)| (name, value.into_scalar::<f32>()))
            .collect();
        let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            ["usage_1", "perplexity_1", "usage_2", "perplexity_2"]
        );
        let expected = [1.0, 4.0, 0.25, 1.0];
        for ((name, value), expected) in found.into_iter().zip(expected) {
            assert!((value - expected).abs() < 1e-4, "{name}: {value}");
        }
        assert_eq!(usage.check(98), None);
        let warning = usage.check(99).unwrap();
        assert!(warning.contains("codebook 2 (25 %)"), "{warning}");
        // Once until it recovers.
        assert_eq!(usage.check(199), None);

        let mut other = CodecUsage::new(2, 4).unwrap();
        other.load_state(usage.state()).unwrap();
        assert_eq!(other.state(), usage.state());
        for usage in [&mut usage, &mut other] {
            usage.add(codes(&[0, 0, 0, 0, 0, 1, 2, 3], 2));
        }
        assert_eq!(other.state(), usage.state());
        let message = CodecUsage::new(3, 4).unwrap().load_state(usage.state());
        let message = message.unwrap_err().to_string();
        assert!(
            message.contains("expected 3 codebooks of 4 codes"),
            "{message}"
        );
    }
}
