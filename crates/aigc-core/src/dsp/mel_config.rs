//! Everything that makes two mel spectra comparable.

use super::{
    FloorMode, LogStyle, MelNorm, MelScale, MelSpectrogram, PadMode, StftConfig, Window,
    log_style::Logarithm,
};
use crate::{
    Result,
    check::{ensure, in_range, non_negative, positive},
};
use serde::{Deserialize, Serialize};

/// Limit on the number of filters.
const MAX_MELS: usize = 4096;

/// Limit on the weights of all filters: eight times those of the largest in use.
const MAX_WEIGHTS: usize = 1 << 22;

/// Where the frames of a mel spectrum lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MelPadding {
    /// Frame `t` is centred on sample `t·hop_length`.
    Center,
    /// Frame `t` is centred on the middle of `hop_length` samples from `t·hop_length` on, as
    /// vocoders have it: `(n_fft − hop_length) / 2` samples, rounded down, are added on both sides.
    /// If `n_fft − hop_length` is even, there are `len / hop_length` frames.
    #[default]
    Hop,
    /// The first frame begins at the first sample.
    None,
}

/// Everything that makes two mel spectra comparable: a vocoder that reads mels of another
/// configuration gives noise, however well it and their maker were trained. It belongs into every
/// checkpoint of a model that makes or reads mels; [`check_same`](Self::check_same) names the first
/// field that differs.
///
/// ```
/// use aigc_core::dsp::MelConfig;
///
/// # fn main() -> aigc_core::Result<()> {
/// let config = MelConfig::hifi_gan(8000, 256, 64, 40);
/// let mel = config.init()?;
/// let log_mel = mel.log_mel(&[0.5; 6400])?;
/// assert_eq!((log_mel.width(), log_mel.len()), (40, 100));
///
/// let other = MelConfig { floor: 1e-9, ..config };
/// let error = config.check_same(&other).unwrap_err().to_string();
/// assert!(error.starts_with("config field `floor` is 1e-9, expected 1e-5"));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MelConfig {
    /// Samples per second.
    pub sample_rate: u32,
    /// Length of a frame, and of the Fourier transform, in samples.
    pub n_fft: usize,
    /// Samples from one frame to the next.
    pub hop_length: usize,
    /// Length of the window in samples, centred in the frame.
    pub win_length: usize,
    /// The window, periodic.
    pub window: Window,
    /// Where the frames lie.
    pub padding: MelPadding,
    /// What surrounds the signal.
    pub pad_mode: PadMode,
    /// Power of the magnitudes that the filters sum: 1 or 2.
    pub power: u32,
    /// Added to squared magnitudes.
    pub power_floor: f64,
    /// Number of filters.
    pub n_mels: usize,
    /// Lower end of the lowest filter in hertz.
    pub f_min: f64,
    /// Upper end of the highest filter in hertz.
    pub f_max: f64,
    /// The scale on which the filters' centres have equal distances.
    pub mel_scale: MelScale,
    /// Scale of the filters.
    pub norm: MelNorm,
    /// Whether the sides of the filters are straight over mels, instead of over hertz.
    pub triangularize_in_mel_space: bool,
    /// What keeps the argument of the logarithm from 0.
    pub floor: f64,
    /// How the floor is applied.
    pub floor_mode: FloorMode,
    /// The logarithm.
    pub log_style: LogStyle,
}

impl Default for MelConfig {
    /// [`hifi_gan`](Self::hifi_gan) of 22,050 samples per second, up to 8 kHz, as in the paper.
    fn default() -> Self {
        Self {
            f_max: 8000.0,
            ..Self::hifi_gan(22_050, 1024, 256, 80)
        }
    }
}

impl MelConfig {
    /// The mels of HiFi-GAN (Kong et al. 2020, <https://arxiv.org/abs/2010.05646>): natural
    /// logarithms of magnitudes in filters of Slaney's scale up to half of the sample rate, at
    /// least 1e-5.
    pub fn hifi_gan(sample_rate: u32, n_fft: usize, hop_length: usize, n_mels: usize) -> Self {
        Self {
            sample_rate,
            n_fft,
            hop_length,
            win_length: n_fft,
            window: Window::Hann,
            padding: MelPadding::Hop,
            pad_mode: PadMode::Reflect,
            power: 1,
            power_floor: 1e-9,
            n_mels,
            f_min: 0.0,
            f_max: f64::from(sample_rate) / 2.0,
            mel_scale: MelScale::Slaney,
            norm: MelNorm::Slaney,
            triangularize_in_mel_space: false,
            floor: 1e-5,
            floor_mode: FloorMode::Clamp,
            log_style: LogStyle::HifiGan,
        }
    }

    /// The mels of Whisper (Radford et al. 2022, <https://arxiv.org/abs/2212.04356>): 80 or 128
    /// filters over the power of sound of 16,000 samples per second.
    pub fn whisper(n_mels: usize) -> Self {
        Self {
            padding: MelPadding::Center,
            power: 2,
            power_floor: 0.0,
            floor: 1e-10,
            log_style: LogStyle::Whisper,
            ..Self::hifi_gan(16_000, 400, 160, n_mels)
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if a length is out of range, as
    /// [`StftConfig::validate`] says, there are more than 4,096 filters or 2²² weights in them, the
    /// frequencies are not `0 ≤ f_min < f_max ≤ sample_rate / 2`, or a floor or the logarithm is
    /// invalid.
    pub fn validate(&self) -> Result<()> {
        let rate = f64::from(self.sample_rate);
        ensure(self.sample_rate > 0, "sample_rate", rate, "at least 1")?;
        self.stft().validate()?;
        if self.padding == MelPadding::Hop {
            let expected = format!("1 to n_fft = {}", self.n_fft);
            let fits = self.hop_length <= self.n_fft;
            ensure(fits, "hop_length", self.hop_length, &expected)?;
        }
        let most = MAX_MELS.min(MAX_WEIGHTS / self.stft().bins());
        in_range("n_mels", self.n_mels, 1..=most)?;
        ensure(
            self.f_max > 0.0 && self.f_max <= rate / 2.0,
            "f_max",
            self.f_max,
            &format!("above 0, at most half of the sample rate, {}", rate / 2.0),
        )?;
        ensure(
            self.f_min >= 0.0 && self.f_min < self.f_max,
            "f_min",
            self.f_min,
            &format!("0 or above, below f_max = {}", self.f_max),
        )?;
        ensure(
            matches!(self.power, 1 | 2),
            "power",
            self.power,
            "1 (magnitude) or 2 (power)",
        )?;
        non_negative("power_floor", self.power_floor)?;
        positive("floor", self.floor)?;
        self.log_style.validate()
    }

    /// Plans the transforms.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn init(&self) -> Result<MelSpectrogram> {
        MelSpectrogram::new(*self)
    }

    /// The transform whose magnitudes the filters sum.
    pub fn stft(&self) -> StftConfig {
        let config = StftConfig {
            win_length: self.win_length,
            window: self.window,
            pad_mode: self.pad_mode,
            ..StftConfig::new(self.n_fft, self.hop_length)
        };
        match self.padding {
            MelPadding::Center => config,
            MelPadding::Hop => config.uncentered(self.n_fft.saturating_sub(self.hop_length) / 2),
            MelPadding::None => config.uncentered(0),
        }
    }

    pub(super) fn logarithm(&self) -> Logarithm {
        Logarithm {
            style: self.log_style,
            floor: self.floor,
            mode: self.floor_mode,
            power: self.power,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_is_json() {
        let config = MelConfig::whisper(80);
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<MelConfig>(&json).unwrap(), config);
        let error = serde_json::from_str::<MelConfig>(r#"{"mels": 80}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `mels`"));
    }

    #[test]
    fn invalid_settings_are_errors() {
        type Change = fn(&mut MelConfig);
        let cases: [(&str, Change); 15] = [
            ("sample_rate", |config| config.sample_rate = 0),
            ("n_fft", |config| config.n_fft = 0),
            ("n_fft", |config| config.n_fft = usize::MAX),
            ("win_length", |config| config.win_length = 2000),
            ("hop_length", |config| config.hop_length = 0),
            ("hop_length", |config| config.hop_length = 1025),
            ("n_mels", |config| config.n_mels = 0),
            ("n_mels", |config| config.n_mels = usize::MAX),
            ("f_max", |config| config.f_max = 11_026.0),
            ("f_max", |config| config.f_max = f64::NAN),
            ("f_min", |config| config.f_min = -1.0),
            ("f_min", |config| config.f_min = 8000.0),
            ("power", |config| config.power = 3),
            ("power_floor", |config| config.power_floor = -1.0),
            ("floor", |config| config.floor = 0.0),
        ];
        for (field, change) in cases {
            let mut config = MelConfig::default();
            change(&mut config);
            let error = config.init().unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}`")), "{error}");
        }
    }
}
