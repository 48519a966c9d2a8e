//! The configuration of vector quantisers.

use super::{VectorQuantizer, started::KnownStarted};
use crate::quantizer::{MAX_DIM, check_num_codes};
use aigc_core::{
    Result,
    check::{self, ensure},
    nn::Initializer,
};
use burn::{
    module::Param,
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};

/// How the codes of a [`VectorQuantizer`] follow the vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodebookUpdate {
    /// By the optimizer: the `codebook` loss `‖sg[x] − c‖²` (van den Oord et al. 2017, eq. 3).
    Gradient,
    /// As moving averages of the vectors assigned to each code (van den Oord et al. 2017,
    /// app. A.1).
    #[default]
    MovingAverage,
}

/// Configuration to create a [`VectorQuantizer`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VectorQuantizerConfig {
    /// Number of codes, 2 to 2²⁰.
    pub num_codes: usize,
    /// Number of dimensions of a code.
    pub dim: usize,
    /// How the codes follow the vectors.
    pub update: CodebookUpdate,
    /// Weight of the past in the moving averages, below 1.
    pub decay: f64,
    /// Constant of Laplace smoothing that is added to the moving average of a code's use.
    pub epsilon: f64,
    /// Weight β of the `commitment` loss `‖x − sg[c]‖²`.
    pub commitment_weight: f64,
    /// Weight of the `codebook` loss, with [`CodebookUpdate::Gradient`].
    pub codebook_weight: f64,
    /// Whether the first update sets the codes to the k-means of its vectors.
    pub kmeans_start: bool,
    /// A code is dead if the moving average of its use is below this share of the mean use of all
    /// codes, and is replaced by a random vector of the batch; 0 to keep dead codes.
    pub revive_below: f64,
    /// Whether vectors and codes are normalised, so that the nearest code has the largest cosine
    /// similarity (Yu et al. 2022, <https://arxiv.org/abs/2110.04627>, §3.2).
    pub cosine: bool,
}

impl VectorQuantizerConfig {
    /// `num_codes` codes of `dim` dimensions that follow moving averages with a decay of 0.99,
    /// commitment weight 0.25, started by k-means, dead below 3 % of the mean use.
    pub fn new(num_codes: usize, dim: usize) -> Self {
        Self {
            num_codes,
            dim,
            update: CodebookUpdate::MovingAverage,
            decay: 0.99,
            epsilon: 1e-5,
            commitment_weight: 0.25,
            codebook_weight: 1.0,
            kmeans_start: true,
            revive_below: 0.03,
            cosine: false,
        }
    }

    /// Number of dimensions of the vectors.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Fails unless all values are in their ranges.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        check_num_codes("num_codes", self.num_codes)?;
        check::sizes(&[("dim", self.dim, MAX_DIM)])?;
        check::in_range("num_codes", self.num_codes, 2..=(1 << 28) / self.dim)?;
        ensure(
            (0.0..1.0).contains(&self.decay),
            "decay",
            self.decay,
            "a number from 0 to below 1",
        )?;
        check::positive("epsilon", self.epsilon)?;
        check::non_negative("commitment_weight", self.commitment_weight)?;
        check::non_negative("codebook_weight", self.codebook_weight)?;
        ensure(
            (0.0..1.0).contains(&self.revive_below),
            "revive_below",
            self.revive_below,
            "a number from 0 to below 1",
        )
    }

    /// Creates the quantiser on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<VectorQuantizer> {
        self.validate()?;
        let (k, d) = (self.num_codes, self.dim);
        let initializer = Initializer::Normal {
            mean: 0.0,
            std: 1.0 / (d as f64).sqrt(),
        };
        let averages = self.update == CodebookUpdate::MovingAverage;
        let known = KnownStarted::default();
        Ok(VectorQuantizer {
            codes: initializer
                .param([k, d], d, d, device)
                .set_require_grad(!averages),
            sums: averages.then(|| state(Initializer::ZEROS, [k, d], device)),
            counts: state(Initializer::ONES, [k], device),
            started: known.count_loads(state(Initializer::ZEROS, [1], device)),
            known,
            config: self.clone(),
        })
    }
}

/// A tensor that is saved and never trained.
fn state<const D: usize>(
    initializer: Initializer,
    shape: [usize; D],
    device: &Device,
) -> Param<Tensor<D>> {
    initializer
        .param(shape, 1, 1, device)
        .set_require_grad(false)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    #[test]
    fn configurations_out_of_range_are_named() {
        let good = VectorQuantizerConfig::new(8, 4);
        for (config, expected) in [
            (
                VectorQuantizerConfig {
                    num_codes: 0,
                    ..good.clone()
                },
                "`num_codes` is 0, expected 2 to",
            ),
            (
                VectorQuantizerConfig {
                    dim: 0,
                    ..good.clone()
                },
                "`dim` is 0, expected 1 to",
            ),
            (
                VectorQuantizerConfig {
                    num_codes: 1 << 20,
                    dim: 1 << 14,
                    ..good.clone()
                },
                "`num_codes` is 1048576",
            ),
            (
                VectorQuantizerConfig {
                    decay: 1.0,
                    ..good.clone()
                },
                "`decay` is 1",
            ),
            (
                VectorQuantizerConfig {
                    revive_below: f64::NAN,
                    ..good.clone()
                },
                "`revive_below` is NaN",
            ),
            (
                VectorQuantizerConfig {
                    epsilon: 0.0,
                    ..good
                },
                "`epsilon` is 0",
            ),
        ] {
            let message = config.init(&Device::flex()).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
