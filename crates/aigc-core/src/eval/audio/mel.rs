//! Filters of the mel scale.

use super::stft::MAX_FFT;
use crate::{Result, check::ensure};

/// Limit on the number of filters.
const MAX_MELS: usize = 4096;
/// Limit on the number of weights of all filters, in 1 GiB of memory.
const MAX_WEIGHTS: usize = 1 << 27;

/// A scale of perceived pitch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MelScale {
    /// `2595·log₁₀(1 + f/700)` (O'Shaughnessy 1987), as in HTK.
    Htk,
    /// Linear below 1 kHz and logarithmic above, as in Slaney's Auditory Toolbox (1998).
    #[default]
    Slaney,
}

/// Scale of the filters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MelNorm {
    /// Peaks of 1.
    None,
    /// Areas of 1, with frequencies in hertz.
    #[default]
    Slaney,
}

/// A bank of triangular filters with centres at equal distances on a mel scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MelConfig {
    /// Samples per second.
    pub sample_rate: u32,
    /// Length of the Fourier transform.
    pub n_fft: usize,
    /// Number of filters.
    pub n_mels: usize,
    /// Lower end of the lowest filter in hertz.
    pub f_min: f64,
    /// Upper end of the highest filter in hertz.
    pub f_max: f64,
    /// The scale.
    pub scale: MelScale,
    /// Scale of the filters.
    pub norm: MelNorm,
}

/// Slaney's scale: hertz per mel below its bend, the bend in hertz and in mels, and the logarithm
/// of the factor per mel above.
const HERTZ_PER_MEL: f64 = 200.0 / 3.0;
const BEND_HERTZ: f64 = 1000.0;
const BEND_MEL: f64 = 15.0;

fn log_step() -> f64 {
    6.4f64.ln() / 27.0
}

impl MelScale {
    /// The pitch of a frequency in hertz.
    pub fn from_hertz(self, hertz: f64) -> f64 {
        match self {
            MelScale::Htk => 2595.0 * (1.0 + hertz / 700.0).log10(),
            MelScale::Slaney if hertz < BEND_HERTZ => hertz / HERTZ_PER_MEL,
            MelScale::Slaney => BEND_MEL + (hertz / BEND_HERTZ).ln() / log_step(),
        }
    }

    /// The frequency of a pitch, in hertz.
    pub fn to_hertz(self, mel: f64) -> f64 {
        match self {
            MelScale::Htk => 700.0 * (10f64.powf(mel / 2595.0) - 1.0),
            MelScale::Slaney if mel < BEND_MEL => mel * HERTZ_PER_MEL,
            MelScale::Slaney => BEND_HERTZ * ((mel - BEND_MEL) * log_step()).exp(),
        }
    }
}

/// The filters, `[n_mels, n_fft / 2 + 1]`, row by row, as `librosa.filters.mel` and
/// `torchaudio.functional.melscale_fbanks` have them.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) if a number is 0, there are more than 4,096 filters, the
/// transform is longer than 2²⁰, there are more than 2²⁷ weights, or the frequencies are not
/// `0 ≤ f_min < f_max ≤ sample_rate / 2`.
pub fn mel_filters(config: &MelConfig) -> Result<Vec<f64>> {
    let MelConfig {
        n_fft,
        n_mels,
        f_min,
        f_max,
        ..
    } = *config;
    let rate = f64::from(config.sample_rate);
    ensure(rate > 0.0, "sample_rate", rate, "at least 1")?;
    for (field, value, most) in [("n_fft", n_fft, MAX_FFT), ("n_mels", n_mels, MAX_MELS)] {
        let expected = format!("1 to {most}");
        ensure((1..=most).contains(&value), field, value, &expected)?;
    }
    let bins = n_fft / 2 + 1;
    ensure(
        n_mels * bins <= MAX_WEIGHTS,
        "n_mels",
        n_mels,
        &format!("at most {} for {bins} frequencies", MAX_WEIGHTS / bins),
    )?;
    ensure(
        f_max > 0.0 && f_max <= rate / 2.0,
        "f_max",
        f_max,
        &format!("above 0, at most half of the sample rate, {}", rate / 2.0),
    )?;
    ensure(
        f_min >= 0.0 && f_min < f_max,
        "f_min",
        f_min,
        &format!("0 or above, below f_max = {f_max}"),
    )?;
    let (low, high) = (
        config.scale.from_hertz(f_min),
        config.scale.from_hertz(f_max),
    );
    let step = (high - low) / (n_mels + 1) as f64;
    let corner = |i: usize| config.scale.to_hertz(low + step * i as f64);
    let mut filters = Vec::with_capacity(n_mels * bins);
    for mel in 0..n_mels {
        let [left, centre, right] = [corner(mel), corner(mel + 1), corner(mel + 2)];
        let peak = match config.norm {
            MelNorm::None => 1.0,
            MelNorm::Slaney => 2.0 / (right - left),
        };
        filters.extend((0..bins).map(|bin| {
            let hertz = bin as f64 * rate / n_fft as f64;
            let rising = (hertz - left) / (centre - left);
            let falling = (right - hertz) / (right - centre);
            peak * rising.min(falling).max(0.0)
        }));
    }
    Ok(filters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_have_their_known_points() {
        assert!((MelScale::Htk.from_hertz(1000.0) - 999.985_537).abs() < 1e-6);
        assert!((MelScale::Slaney.from_hertz(500.0) - 7.5).abs() < 1e-12);
        assert!((MelScale::Slaney.from_hertz(6400.0) - 42.0).abs() < 1e-12);
        for scale in [MelScale::Htk, MelScale::Slaney] {
            for hertz in [0.0, 300.0, 999.0, 1000.0, 7000.0] {
                assert!((scale.to_hertz(scale.from_hertz(hertz)) - hertz).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn invalid_banks_are_errors() {
        let good = MelConfig {
            sample_rate: 8000,
            n_fft: 256,
            n_mels: 20,
            f_min: 0.0,
            f_max: 4000.0,
            scale: MelScale::default(),
            norm: MelNorm::default(),
        };
        assert_eq!(mel_filters(&good).unwrap().len(), 20 * 129);
        for (bad, field) in [
            (
                MelConfig {
                    f_max: 4001.0,
                    ..good
                },
                "f_max",
            ),
            (
                MelConfig {
                    f_max: f64::NAN,
                    ..good
                },
                "f_max",
            ),
            (
                MelConfig {
                    f_min: 4000.0,
                    ..good
                },
                "f_min",
            ),
            (MelConfig { n_mels: 0, ..good }, "n_mels"),
            (
                MelConfig {
                    n_mels: usize::MAX,
                    ..good
                },
                "n_mels",
            ),
            (
                MelConfig {
                    n_mels: MAX_MELS,
                    n_fft: MAX_FFT,
                    ..good
                },
                "n_mels",
            ),
            (MelConfig { n_fft: 0, ..good }, "n_fft"),
            (
                MelConfig {
                    sample_rate: 0,
                    ..good
                },
                "sample_rate",
            ),
        ] {
            let error = mel_filters(&bad).unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}`")), "{error}");
        }
    }
}
