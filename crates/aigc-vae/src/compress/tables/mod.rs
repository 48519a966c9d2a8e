//! Integer frequencies: of any alphabet, of latents in bins, of pixels under a likelihood.
//!
//! Encoder and decoder must compute the same integers. All computations from a network's outputs to
//! frequencies are on the host in `f64`, by additions, multiplications, divisions and the functions
//! of the crate `libm`, which are the same on every machine. The outputs themselves are rounded to
//! a coarse grid first, so that most differences in their last digits vanish. A value close to the
//! middle between two grid points can still be rounded to either: that is why files have checksums.
//!
//! | file | content |
//! |---|---|
//! | `frequencies` | tables of frequencies |
//! | `grid` | the rounding of a network's outputs |
//! | `distributions` | distribution functions, from `libm` |
//! | `bins` | bins of latents |
//! | `pixels` | pixels under a likelihood |
//! | `mixture` | pixels under a mixture of logistics |

mod bins;
mod distributions;
mod frequencies;
mod grid;
mod mixture;
mod pixels;

pub use bins::{LatentBins, MAX_LATENT_BITS};
pub use frequencies::{FrequencyTable, MAX_SYMBOLS, PRECISION};
pub(super) use grid::ensure_finite;
pub use pixels::PixelTables;

#[cfg(all(test, feature = "flex"))]
mod testing {
    use super::PRECISION;

    pub(super) const TOTAL: f64 = (1u32 << PRECISION) as f64;

    /// `∫ exp(−½((x − μ)/σ)²) / (σ√2π)` by Simpson's rule.
    pub(super) fn normal_mass(low: f64, high: f64, mean: f64, std: f64) -> f64 {
        let density = |x: f64| {
            let scaled = (x - mean) / std;
            (-0.5 * scaled * scaled).exp() / (std * std::f64::consts::TAU.sqrt())
        };
        let (n, step) = (200, (high - low) / 200.0);
        let weight = |i: usize| match i {
            0 | 200 => 1.0,
            _ => [2.0, 4.0][i % 2],
        };
        let terms = (0..=n).map(|i| weight(i) * density(low + i as f64 * step));
        terms.sum::<f64>() * step / 3.0
    }
}
