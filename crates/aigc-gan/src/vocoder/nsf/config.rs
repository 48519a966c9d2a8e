//! Configuration of HiFi-GAN with a harmonic source.

use super::{
    super::checks::{
        MAX_CHANNELS, MAX_KERNEL, MAX_LAYERS, blocks_reach, check_dilations, check_hop,
        check_layer, check_list, check_mel_config, check_odd, check_slope, product, read_config,
    },
    NsfHifiGan,
};
use aigc_core::{
    Result,
    check::{self, ensure},
    dsp::{MelConfig, PitchConfig},
    weights::Loaded,
};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

/// Limit on the number of harmonics.
const MAX_HARMONICS: usize = 256;

/// Configuration to create a [`NsfHifiGan`]. The default is for speech of 22,050 samples per
/// second and the mels of [`MelConfig::default`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type", rename = "nsf_hifigan")]
pub struct NsfHifiGanConfig {
    /// Configuration of the spectrograms.
    pub mel_config: MelConfig,
    /// Channels before the first upsampling; each upsampling halves them.
    pub upsample_initial_channel: usize,
    /// Factor of each upsampling. Their product is the number of samples of a frame.
    pub upsample_rates: Vec<usize>,
    /// Kernels of the residual blocks behind each upsampling, whose outputs are averaged. Odd.
    pub resblock_kernel_sizes: Vec<usize>,
    /// Dilations of the convolutions of each of these blocks.
    pub resblock_dilation_sizes: Vec<Vec<usize>>,
    /// Slope of the leaky ReLU for negative inputs.
    pub leaky_relu_slope: f64,
    /// Multiples of the pitch in the source. Those above half of the sample rate are silent.
    pub harmonics: usize,
    /// Channels of the network that predicts the pitch.
    pub pitch_channels: usize,
    /// Lowest pitch in hertz.
    pub f_min: f64,
    /// Highest pitch in hertz.
    pub f_max: f64,
}

impl Default for NsfHifiGanConfig {
    fn default() -> Self {
        let pitch = PitchConfig::new(22_050, 256);
        Self {
            mel_config: MelConfig::default(),
            upsample_initial_channel: 256,
            upsample_rates: vec![8, 8, 2, 2],
            resblock_kernel_sizes: vec![3, 7, 11],
            resblock_dilation_sizes: vec![vec![1, 3, 5]; 3],
            leaky_relu_slope: 0.1,
            harmonics: 32,
            pitch_channels: 128,
            f_min: pitch.f_min,
            f_max: pitch.f_max,
        }
    }
}

impl NsfHifiGanConfig {
    /// `model_type` in `config.json`.
    pub const MODEL_TYPE: &str = "nsf_hifigan";

    /// A small network for speech of 8,000 samples per second: 40 mels, 64 samples a frame, 64
    /// channels.
    pub fn speech_8khz() -> Self {
        Self {
            mel_config: MelConfig::hifi_gan(8000, 256, 64, 40),
            upsample_initial_channel: 64,
            upsample_rates: vec![4; 3],
            resblock_kernel_sizes: vec![3, 7],
            resblock_dilation_sizes: vec![vec![1, 3]; 2],
            harmonics: 16,
            pitch_channels: 64,
            ..Self::default()
        }
    }

    /// A configuration from the text of `config.json`. Missing fields have their defaults. The
    /// report lists unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Json`](aigc_core::Error::Json) if the text is not JSON;
    /// [`Error::Config`](aigc_core::Error::Config) names a field with a value that it cannot have.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let config: Loaded<Self> = read_config(text, Self::MODEL_TYPE)?;
        config.validate()?;
        Ok(config)
    }

    /// Samples of a frame.
    pub fn hop_length(&self) -> usize {
        product(&self.upsample_rates)
    }

    /// What finds the pitch of a sound that the network is trained with, in the middle of each hop
    /// of the sound that it makes.
    pub fn pitch_config(&self) -> PitchConfig {
        let mel = &self.mel_config;
        PitchConfig {
            f_min: self.f_min,
            f_max: self.f_max,
            ..PitchConfig::new(mel.sample_rate, mel.hop_length)
        }
    }

    /// Frames before and after a frame on which its samples depend, for a valid configuration and
    /// a given source.
    pub fn context_frames(&self) -> usize {
        // Kernels of 7 at both ends.
        const ENDS: usize = 3;
        let reach = blocks_reach(&self.resblock_kernel_sizes, &self.resblock_dilation_sizes);
        let rates = self.upsample_rates.iter();
        let before = rates.rev().fold(ENDS, |after, rate| {
            // The convolution of an upsampling, and the sample after the last for interpolation.
            (after + reach + rate).div_ceil(*rate) + 1
        });
        before + ENDS
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        let (layers, initial) = (self.upsample_rates.len(), self.upsample_initial_channel);
        let (bands, kernels) = (self.mel_config.n_mels, &self.resblock_kernel_sizes);
        check::sizes(&[
            ("mel_config.n_mels", bands, MAX_CHANNELS),
            ("upsample_initial_channel", initial, MAX_CHANNELS),
            ("upsample_rates", layers, MAX_LAYERS),
            ("resblock_kernel_sizes", kernels.len(), MAX_LAYERS),
            ("harmonics", self.harmonics, MAX_HARMONICS),
            ("pitch_channels", self.pitch_channels, MAX_CHANNELS),
        ])?;
        let expected = format!("at least {}, for {layers} halvings", 1usize << layers);
        let field = "upsample_initial_channel";
        ensure(initial >> layers > 0, field, initial, &expected)?;
        check_list("upsample_rates", &self.upsample_rates, layers, MAX_KERNEL)?;
        check_hop("upsample_rates", &self.upsample_rates)?;
        let field = "resblock_kernel_sizes";
        check_list(field, kernels, kernels.len(), MAX_KERNEL)?;
        check_odd(field, kernels)?;
        for kernel in kernels {
            check_layer(field, &[initial / 2, initial / 2, *kernel])?;
        }
        let mut hop = self.hop_length();
        for (layer, rate) in self.upsample_rates.iter().enumerate() {
            let channels = initial >> (layer + 1);
            check_layer(
                "upsample_rates",
                &[initial >> layer, channels, 2 * rate + 1],
            )?;
            hop /= rate;
            check_layer("harmonics", &[self.harmonics + 1, channels, 2 * hop])?;
        }
        let dilations = &self.resblock_dilation_sizes;
        check_dilations("resblock_dilation_sizes", dilations, kernels.len())?;
        check_slope(self.leaky_relu_slope)?;
        check_mel_config(&self.mel_config, bands, self.hop_length())?;
        self.pitch_config().validate()
    }

    /// Creates the network on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<NsfHifiGan> {
        self.validate()?;
        NsfHifiGan::new(self, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocoder::HifiGanConfig;

    #[test]
    fn configurations_are_written_as_they_are_read() {
        for config in [NsfHifiGanConfig::default(), NsfHifiGanConfig::speech_8khz()] {
            config.validate().unwrap();
            let text = serde_json::to_string(&config).unwrap();
            assert!(text.contains(NsfHifiGanConfig::MODEL_TYPE));
            let again = NsfHifiGanConfig::from_json(&text).unwrap();
            assert_eq!(again.value, config);
            assert!(again.unused_fields.is_empty());
        }
        let text = serde_json::to_string(&HifiGanConfig::speech_8khz()).unwrap();
        let error = serde_json::from_str::<NsfHifiGanConfig>(&text).unwrap_err();
        assert!(error.to_string().contains("harmonics"), "{error}");
        let other = r#"{"model_type": "univnet"}"#;
        let error = NsfHifiGanConfig::from_json(other).unwrap_err().to_string();
        assert!(error.contains("`model_type`"), "{error}");
    }

    #[test]
    fn invalid_values_are_refused_by_name() {
        type Change = fn(&mut NsfHifiGanConfig);
        let changes: [(&str, Change); 15] = [
            ("upsample_rates", |c| {
                (c.upsample_initial_channel, c.upsample_rates) = (4096, vec![64]);
            }),
            ("harmonics", |c| {
                (c.upsample_initial_channel, c.upsample_rates) = (4096, vec![1, 1024]);
                c.harmonics = 256;
            }),
            ("upsample_initial_channel", |c| {
                c.upsample_initial_channel = 7
            }),
            ("upsample_rates", |c| c.upsample_rates = vec![]),
            ("upsample_rates", |c| c.upsample_rates = vec![1024; 4]),
            ("resblock_kernel_sizes", |c| {
                c.resblock_kernel_sizes = vec![]
            }),
            ("resblock_kernel_sizes", |c| c.resblock_kernel_sizes[0] = 4),
            ("resblock_dilation_sizes", |c| {
                c.resblock_dilation_sizes.truncate(1)
            }),
            ("leaky_relu_slope", |c| c.leaky_relu_slope = f64::NAN),
            ("harmonics", |c| c.harmonics = 0),
            ("harmonics", |c| c.harmonics = 1000),
            ("pitch_channels", |c| c.pitch_channels = 0),
            ("mel_config.hop_length", |c| c.mel_config.hop_length = 100),
            ("f_min", |c| c.f_min = 500.0),
            ("f_max", |c| c.f_max = 1e4),
        ];
        for (field, change) in changes {
            let mut config = NsfHifiGanConfig::speech_8khz();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}`")), "{field}: {error}");
        }
    }
}
