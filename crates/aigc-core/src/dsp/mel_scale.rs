//! Filters of the mel scale.

use super::MelConfig;
use crate::Result;
use serde::{Deserialize, Serialize};

/// A scale of perceived pitch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MelScale {
    /// `2595·log₁₀(1 + f/700)` (O'Shaughnessy 1987), as in HTK.
    Htk,
    /// Linear below 1 kHz and logarithmic above, as in Slaney's Auditory Toolbox (1998).
    #[default]
    Slaney,
    /// `1127·ln(1 + f/700)`, as in Kaldi: HTK's with rounded constants.
    Kaldi,
}

/// Scale of the filters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MelNorm {
    /// Peaks of 1.
    None,
    /// Areas of 1, with frequencies in hertz.
    #[default]
    Slaney,
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
            MelScale::Kaldi => 1127.0 * (hertz / 700.0).ln_1p(),
            MelScale::Slaney if hertz < BEND_HERTZ => hertz / HERTZ_PER_MEL,
            MelScale::Slaney => BEND_MEL + (hertz / BEND_HERTZ).ln() / log_step(),
        }
    }

    /// The frequency of a pitch, in hertz.
    pub fn to_hertz(self, mel: f64) -> f64 {
        match self {
            MelScale::Htk => 700.0 * (10f64.powf(mel / 2595.0) - 1.0),
            MelScale::Kaldi => 700.0 * (mel / 1127.0).exp_m1(),
            MelScale::Slaney if mel < BEND_MEL => mel * HERTZ_PER_MEL,
            MelScale::Slaney => BEND_HERTZ * ((mel - BEND_MEL) * log_step()).exp(),
        }
    }
}

/// The triangular filters of a configuration, `[n_mels, n_fft / 2 + 1]`, row by row: those of
/// `librosa.filters.mel`, `torchaudio.functional.melscale_fbanks` and, with
/// `triangularize_in_mel_space`, `transformers.audio_utils.mel_filter_bank`. Bin `b` has the
/// frequency `b·sample_rate / n_fft`, as in librosa; the others agree if both numbers are even.
///
/// # Errors
/// As [`MelConfig::validate`].
pub fn mel_filters(config: &MelConfig) -> Result<Vec<f64>> {
    config.validate()?;
    let (scale, n_mels, bins) = (config.mel_scale, config.n_mels, config.n_fft / 2 + 1);
    let low = scale.from_hertz(config.f_min);
    let step = (scale.from_hertz(config.f_max) - low) / (n_mels + 1) as f64;
    let pitch = |i: usize| low + step * i as f64;
    let hertz = |bin: usize| bin as f64 * f64::from(config.sample_rate) / config.n_fft as f64;
    let in_mels = config.triangularize_in_mel_space;
    let corner = |i: usize| {
        if in_mels {
            pitch(i)
        } else {
            scale.to_hertz(pitch(i))
        }
    };
    let places: Vec<f64> = (0..bins)
        .map(|bin| {
            if in_mels {
                scale.from_hertz(hertz(bin))
            } else {
                hertz(bin)
            }
        })
        .collect();
    let mut filters = Vec::with_capacity(n_mels * bins);
    for mel in 0..n_mels {
        let [left, centre, right] = [corner(mel), corner(mel + 1), corner(mel + 2)];
        let peak = match config.norm {
            MelNorm::None => 1.0,
            MelNorm::Slaney => 2.0 / (scale.to_hertz(pitch(mel + 2)) - scale.to_hertz(pitch(mel))),
        };
        filters.extend(places.iter().map(|place| {
            let rising = (place - left) / (centre - left);
            let falling = (right - place) / (right - centre);
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
        assert!((MelScale::Kaldi.from_hertz(700.0) - 1127.0 * 2f64.ln()).abs() < 1e-9);
        for scale in [MelScale::Htk, MelScale::Slaney, MelScale::Kaldi] {
            for hertz in [0.0, 300.0, 999.0, 1000.0, 7000.0] {
                assert!((scale.to_hertz(scale.from_hertz(hertz)) - hertz).abs() < 1e-9);
            }
        }
    }

    /// Neighbouring triangles add up to 1 between the first and the last peak.
    #[test]
    fn triangles_are_a_partition() {
        for mel_scale in [MelScale::Htk, MelScale::Slaney, MelScale::Kaldi] {
            for triangularize_in_mel_space in [false, true] {
                let config = MelConfig {
                    sample_rate: 8000,
                    n_fft: 512,
                    win_length: 512,
                    n_mels: 12,
                    f_max: 4000.0,
                    norm: MelNorm::None,
                    mel_scale,
                    triangularize_in_mel_space,
                    ..MelConfig::default()
                };
                let filters = mel_filters(&config).unwrap();
                for bin in 40..200 {
                    let sum: f64 = (0..12).map(|mel| filters[mel * 257 + bin]).sum();
                    assert!((sum - 1.0).abs() < 1e-9, "{mel_scale:?} {bin}: {sum}");
                }
            }
        }
    }
}
