//! Frequencies of latents in bins.

use super::{
    FrequencyTable,
    distributions::{differences, normal_cdf, normal_quantile},
    grid::{LATENT_STEP, LOG_STEP, on_grid},
};
use aigc_core::{Result, check::ensure_argument};

/// The largest number of bits of a latent's bin.
pub const MAX_LATENT_BITS: u8 = 12;

/// A division of the real line into `2^bits` bins that are equally probable under a standard normal
/// distribution, the prior of a latent (Townsend et al. 2019, <https://arxiv.org/abs/1901.04866>,
/// app. B).
#[derive(Clone, Debug)]
pub struct LatentBins {
    bits: u8,
    /// Limits between neighbouring bins.
    edges: Vec<f64>,
    /// The median of each bin.
    medians: Vec<f32>,
}

impl LatentBins {
    /// `2^bits` bins.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) unless `bits` is 1 to
    /// [`MAX_LATENT_BITS`].
    pub fn new(bits: u8) -> Result<Self> {
        ensure_argument(
            (1..=MAX_LATENT_BITS).contains(&bits),
            "latent_bits",
            bits,
            "1 to 12",
        )?;
        let bins = 1usize << bits;
        let quantile = |half_bins: usize| normal_quantile(half_bins as f64 / (2 * bins) as f64);
        Ok(Self {
            bits,
            edges: (1..bins).map(|bin| quantile(2 * bin)).collect(),
            medians: (0..bins).map(|bin| quantile(2 * bin + 1) as f32).collect(),
        })
    }

    /// Bits of the number of a bin.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// The latent in the middle of a bin, its median.
    ///
    /// # Panics
    /// If there is no such bin.
    pub fn median(&self, bin: usize) -> f32 {
        self.medians[bin]
    }

    /// The bin of a latent, which must not be NaN.
    pub fn bin(&self, latent: f32) -> usize {
        self.edges
            .partition_point(|edge| *edge <= f64::from(latent))
    }

    /// The frequencies of the bins under a normal distribution, whose mean is rounded to multiples
    /// of 1/1024 and whose `log σ²` to multiples of 1/32.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) if `mean` or `logvar` is not
    /// finite.
    pub fn posterior(&self, mean: f32, logvar: f32) -> Result<FrequencyTable> {
        let mean = on_grid("mean", &[mean], LATENT_STEP)?[0];
        // Limits at which a distribution lies in one bin, or is flat over all of them.
        let logvar = on_grid("logvar", &[logvar.clamp(-60.0, 60.0)], LOG_STEP)?[0];
        let precision = libm::exp(-0.5 * logvar);
        let below = self
            .edges
            .iter()
            .map(|edge| normal_cdf((edge - mean) * precision));
        FrequencyTable::from_probabilities(&differences(below))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::compress::tables::testing::{TOTAL, normal_mass};

    #[test]
    fn bins_are_equally_probable_under_the_prior() {
        for bits in [1, 4, 10] {
            let bins = LatentBins::new(bits).unwrap();
            let prior = bins.posterior(0.0, 0.0).unwrap();
            assert_eq!(prior.len(), 1 << bits);
            let size = TOTAL / f64::from(1u32 << bits);
            for bin in 0..prior.len() {
                assert!((f64::from(prior.interval(bin).size) - size).abs() <= 2.0);
                assert_eq!(bins.bin(bins.median(bin)), bin);
            }
            for (bin, edges) in bins.edges.windows(2).enumerate() {
                let mass = normal_mass(edges[0], edges[1], 0.0, 1.0);
                assert!((mass * f64::from(1u32 << bits) - 1.0).abs() < 1e-6);
                let half = normal_mass(edges[0], f64::from(bins.median(bin + 1)), 0.0, 1.0);
                assert!((half / mass - 0.5).abs() < 1e-3);
            }
        }
        assert_eq!(LatentBins::new(3).unwrap().bin(-50.0), 0);
        assert_eq!(LatentBins::new(3).unwrap().bin(50.0), 7);
        for bits in [0, MAX_LATENT_BITS + 1] {
            let error = LatentBins::new(bits).unwrap_err().to_string();
            assert!(error.contains("`latent_bits`"), "{error}");
        }
    }

    #[test]
    fn posterior_frequencies_are_masses_of_the_bins() {
        let bins = LatentBins::new(6).unwrap();
        for (mean, logvar) in [(0.5f32, -2.0f32), (-1.25, 0.5), (2.0, -6.0)] {
            let table = bins.posterior(mean, logvar).unwrap();
            let std = (f64::from(logvar) / 2.0).exp();
            for (bin, edges) in bins.edges.windows(2).enumerate() {
                let mass = normal_mass(edges[0], edges[1], f64::from(mean), std);
                let frequency = f64::from(table.interval(bin + 1).size) / TOTAL;
                assert!(
                    (frequency - mass).abs() < 70.0 / TOTAL,
                    "{frequency} {mass}"
                );
            }
        }
        // Very narrow, very wide and far away.
        let narrow = bins.posterior(0.3, -200.0).unwrap();
        assert!(narrow.bits(bins.bin(0.3)) < 1e-4);
        let wide = bins.posterior(0.0, 200.0).unwrap();
        assert!((wide.bits(0) - 1.0).abs() < 1e-3 && (wide.bits(63) - 1.0).abs() < 1e-3);
        assert!(bins.posterior(1e30, 0.0).unwrap().bits(63) < 1e-4);
        assert!(bins.posterior(f32::NAN, 0.0).is_err());
        assert!(bins.posterior(0.0, f32::NAN).is_err());
    }
}
