//! Configuration of HiFi-GAN.

use super::{
    HifiGan,
    checks::{
        MAX_CHANNELS, MAX_KERNEL, MAX_LAYERS, blocks_reach, check_dilations, check_hop,
        check_layer, check_list, check_mel_config, check_odd, check_slope, product, read_config,
    },
};
use aigc_core::{
    Result,
    check::{self, ensure},
    dsp::{LogStyle, MelConfig, MelPadding},
    json,
    weights::Loaded,
};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Configuration to create a [`HifiGan`]. The fields are those of transformers'
/// `SpeechT5HifiGanConfig`, and [`mel_config`](Self::mel_config) and
/// [`weight_norm`](Self::weight_norm). The default is that of transformers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HifiGanConfig {
    /// Bands of a log-mel spectrogram.
    pub model_in_dim: usize,
    /// Samples per second.
    pub sampling_rate: u32,
    /// Channels before the first upsampling; each upsampling halves them.
    pub upsample_initial_channel: usize,
    /// Factor of each upsampling. Their product is the number of samples of a frame.
    pub upsample_rates: Vec<usize>,
    /// Kernel of each upsampling, not shorter than its factor.
    pub upsample_kernel_sizes: Vec<usize>,
    /// Kernels of the residual blocks behind each upsampling, whose outputs are averaged. Odd.
    pub resblock_kernel_sizes: Vec<usize>,
    /// Dilations of the convolutions of each of these blocks.
    pub resblock_dilation_sizes: Vec<Vec<usize>>,
    /// Slope of the leaky ReLU for negative inputs, but for that before the last layer, where it is
    /// 0.01.
    pub leaky_relu_slope: f64,
    /// Whether spectrograms are normalised with the mean and the scale among the weights.
    pub normalize_before: bool,
    /// Configuration of the spectrograms. A field of this library; if it is missing, they are
    /// [those of SpeechT5](Self::mel).
    pub mel_config: Option<MelConfig>,
    /// Whether weights are normalised, as for training. A field of this library; opening a model
    /// sets it to what its files have.
    pub weight_norm: bool,
}

impl Default for HifiGanConfig {
    fn default() -> Self {
        Self {
            model_in_dim: 80,
            sampling_rate: 16_000,
            upsample_initial_channel: 512,
            upsample_rates: vec![4; 4],
            upsample_kernel_sizes: vec![8; 4],
            resblock_kernel_sizes: vec![3, 7, 11],
            resblock_dilation_sizes: vec![vec![1, 3, 5]; 3],
            leaky_relu_slope: 0.1,
            normalize_before: true,
            mel_config: None,
            weight_norm: false,
        }
    }
}

impl HifiGanConfig {
    /// `model_type` in transformers' `config.json`.
    pub const MODEL_TYPE: &str = "speecht5_hifigan";

    /// A small network for speech of 8,000 samples per second: 40 mels, 64 samples a frame, 64
    /// channels; about 0.14 GFLOP for a second of sound.
    pub fn speech_8khz() -> Self {
        let mel = MelConfig::hifi_gan(8000, 256, 64, 40);
        Self {
            upsample_initial_channel: 64,
            upsample_rates: vec![4; 3],
            upsample_kernel_sizes: vec![8; 3],
            resblock_kernel_sizes: vec![3, 7],
            resblock_dilation_sizes: vec![vec![1, 3]; 2],
            ..Self::for_mel(mel)
        }
    }

    /// The largest network of the paper, V1, for speech of 22,050 samples per second and the mels
    /// of [`MelConfig::default`] (Kong et al. 2020, <https://arxiv.org/abs/2010.05646>).
    pub fn v1() -> Self {
        Self {
            upsample_rates: vec![8, 8, 2, 2],
            upsample_kernel_sizes: vec![16, 16, 4, 4],
            ..Self::for_mel(MelConfig::default())
        }
    }

    /// A network to be trained on these spectrograms: weights normalised, spectrograms not. The
    /// rates of the default make 256 samples of a frame; set them if a frame has another number.
    pub fn for_mel(mel: MelConfig) -> Self {
        Self {
            model_in_dim: mel.n_mels,
            sampling_rate: mel.sample_rate,
            normalize_before: false,
            mel_config: Some(mel),
            weight_norm: true,
            ..Self::default()
        }
    }

    /// A configuration from the text of transformers' `config.json`. Missing fields have the
    /// defaults of transformers. The report lists unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Json`](aigc_core::Error::Json) if the text is not JSON;
    /// [`Error::Config`](aigc_core::Error::Config) names a field with a value that it cannot have.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let config: Loaded<Self> = read_config(text, Self::MODEL_TYPE)?;
        config.validate()?;
        Ok(config)
    }

    /// The fields of `config.json` as transformers writes them.
    pub(super) fn to_fields(&self) -> Map<String, Value> {
        let mut fields = json::to_map(self);
        fields.insert("model_type".into(), Self::MODEL_TYPE.into());
        fields.insert("architectures".into(), vec!["SpeechT5HifiGan"].into());
        fields
    }

    /// Samples of a frame.
    pub fn hop_length(&self) -> usize {
        product(&self.upsample_rates)
    }

    /// Configuration of the spectrograms. Without [`mel_config`](Self::mel_config) they are those
    /// of SpeechT5: common logarithms of magnitudes in windows of four frames, from 80 to 7,600 Hz
    /// or half of the sample rate.
    pub fn mel(&self) -> MelConfig {
        if let Some(mel) = self.mel_config {
            return mel;
        }
        let hop = self.hop_length();
        let f_max = (f64::from(self.sampling_rate) / 2.0).min(7600.0);
        let bands = self.model_in_dim;
        MelConfig {
            padding: MelPadding::Center,
            power_floor: 0.0,
            f_min: if f_max > 80.0 { 80.0 } else { 0.0 },
            f_max,
            floor: 1e-10,
            log_style: LogStyle::Log10,
            ..MelConfig::hifi_gan(self.sampling_rate, hop.saturating_mul(4), hop, bands)
        }
    }

    /// Frames before and after a frame on which its samples depend, for a valid configuration.
    pub fn context_frames(&self) -> usize {
        // Kernels of 7 at both ends.
        const ENDS: usize = 3;
        let reach = blocks_reach(&self.resblock_kernel_sizes, &self.resblock_dilation_sizes);
        let upsamplings = self.upsample_rates.iter().zip(&self.upsample_kernel_sizes);
        let before = upsamplings.rev().fold(ENDS, |after, (rate, kernel)| {
            let (after, padding) = (after + reach, kernel.saturating_sub(*rate) / 2);
            let left = (after + kernel - 1 - padding).div_ceil(*rate);
            let right = (rate - 1 + after + padding) / rate;
            left.max(right)
        });
        before + ENDS
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        let (layers, initial) = (self.upsample_rates.len(), self.upsample_initial_channel);
        check::sizes(&[
            ("model_in_dim", self.model_in_dim, MAX_CHANNELS),
            ("sampling_rate", self.sampling_rate as usize, 1 << 24),
            ("upsample_initial_channel", initial, MAX_CHANNELS),
            ("upsample_rates", layers, MAX_LAYERS),
            (
                "resblock_kernel_sizes",
                self.resblock_kernel_sizes.len(),
                MAX_LAYERS,
            ),
        ])?;
        let expected = format!("at least {}, for {layers} halvings", 1usize << layers);
        let field = "upsample_initial_channel";
        ensure(initial >> layers > 0, field, initial, &expected)?;
        check_list("upsample_rates", &self.upsample_rates, layers, MAX_KERNEL)?;
        check_hop("upsample_rates", &self.upsample_rates)?;
        let (field, kernels) = ("upsample_kernel_sizes", &self.upsample_kernel_sizes);
        check_list(field, kernels, layers, MAX_KERNEL)?;
        for (kernel, rate) in kernels.iter().zip(&self.upsample_rates) {
            let expected = format!("at least the rate, {rate}");
            ensure(kernel >= rate, field, kernel, &expected)?;
            check_layer(field, &[initial, initial / 2, *kernel])?;
        }
        let (field, kernels) = ("resblock_kernel_sizes", &self.resblock_kernel_sizes);
        check_list(field, kernels, kernels.len(), MAX_KERNEL)?;
        check_odd(field, kernels)?;
        for kernel in kernels {
            check_layer(field, &[initial / 2, initial / 2, *kernel])?;
        }
        let dilations = &self.resblock_dilation_sizes;
        check_dilations("resblock_dilation_sizes", dilations, kernels.len())?;
        check_slope(self.leaky_relu_slope)?;
        let mel = self.mel();
        let (rate, expected) = (mel.sample_rate, self.sampling_rate);
        let expected_text = format!("{expected}, as `sampling_rate`");
        ensure(
            rate == expected,
            "mel_config.sample_rate",
            rate,
            &expected_text,
        )?;
        check_mel_config(&mel, self.model_in_dim, self.hop_length())
    }

    /// Creates the network on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<HifiGan> {
        self.validate()?;
        Ok(HifiGan::new(self, device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_transformers() {
        let text = r#"{"model_type": "speecht5_hifigan", "architectures": ["SpeechT5HifiGan"],
            "model_in_dim": 64, "upsample_rates": [5, 4, 2], "upsample_kernel_sizes": [16, 16, 8],
            "upsample_initial_channel": 1024, "initializer_range": 0.01, "colour": 1,
            "normalize_before": false, "leaky_relu_slope": 0.2}"#;
        let config = HifiGanConfig::from_json(text).unwrap();
        assert_eq!((config.model_in_dim, config.hop_length()), (64, 40));
        assert_eq!(config.resblock_kernel_sizes, [3, 7, 11]);
        assert!(!config.normalize_before && !config.weight_norm);
        assert_eq!(config.unused_fields, ["colour"]);
        let text = serde_json::to_string(&config.to_fields()).unwrap();
        let again = HifiGanConfig::from_json(&text).unwrap();
        assert_eq!(again.value, config.value);
        assert!(again.unused_fields.is_empty());
    }

    #[test]
    fn spectrograms_of_speecht5_are_the_default() {
        let mel = HifiGanConfig::default().mel();
        assert_eq!((mel.n_fft, mel.hop_length, mel.n_mels), (1024, 256, 80));
        assert_eq!((mel.f_min, mel.f_max, mel.floor), (80.0, 7600.0, 1e-10));
        assert_eq!(mel.log_style, LogStyle::Log10);
    }

    #[test]
    fn presets_are_valid() {
        for config in [
            HifiGanConfig::default(),
            HifiGanConfig::speech_8khz(),
            HifiGanConfig::v1(),
        ] {
            config.validate().unwrap();
        }
    }

    #[test]
    fn invalid_values_are_refused_by_name() {
        type Change = fn(&mut HifiGanConfig);
        let changes: [(&str, Change); 14] = [
            ("model_in_dim", |c| c.model_in_dim = 0),
            ("sampling_rate", |c| c.sampling_rate = 0),
            ("upsample_initial_channel", |c| {
                c.upsample_initial_channel = 15
            }),
            ("upsample_rates", |c| c.upsample_rates = vec![]),
            ("upsample_rates", |c| c.upsample_rates = vec![1024; 4]),
            ("upsample_kernel_sizes", |c| {
                c.upsample_kernel_sizes = vec![8]
            }),
            ("upsample_kernel_sizes", |c| c.upsample_kernel_sizes[1] = 3),
            ("resblock_kernel_sizes", |c| {
                c.resblock_kernel_sizes = vec![]
            }),
            ("resblock_kernel_sizes", |c| c.resblock_kernel_sizes[0] = 4),
            ("resblock_dilation_sizes", |c| {
                c.resblock_dilation_sizes.truncate(1)
            }),
            ("resblock_dilation_sizes", |c| {
                c.resblock_dilation_sizes[0] = vec![]
            }),
            ("resblock_dilation_sizes", |c| {
                c.resblock_dilation_sizes[0][0] = 0
            }),
            ("leaky_relu_slope", |c| c.leaky_relu_slope = f64::NAN),
            ("mel_config.hop_length", |c| {
                c.mel_config = Some(MelConfig {
                    n_mels: 80,
                    sample_rate: 16_000,
                    hop_length: 200,
                    ..MelConfig::default()
                });
            }),
        ];
        for (field, change) in changes {
            let mut config = HifiGanConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}`")), "{field}: {error}");
        }
        let error = HifiGanConfig::from_json(r#"{"model_type": "univnet"}"#).unwrap_err();
        assert!(error.to_string().contains("`model_type`"), "{error}");
        let error = HifiGanConfig::from_json(r#"{"mel_config": {"mels": 80}}"#).unwrap_err();
        assert!(
            error.to_string().contains("unknown field `mels`"),
            "{error}"
        );
    }
}
