//! Configuration of UnivNet.

use super::{
    super::checks::{
        MAX_CHANNELS, MAX_KERNEL, MAX_LAYERS, check_dilations, check_hop, check_layer, check_list,
        check_mel_config, check_odd, check_slope, product, read_config,
    },
    UnivNet,
};
use aigc_core::{
    Result,
    check::{self, ensure},
    dsp::MelConfig,
    json,
    weights::Loaded,
};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Configuration to create a [`UnivNet`]. The fields are those of transformers' `UnivNetConfig`,
/// and [`mel_config`](Self::mel_config) and [`weight_norm`](Self::weight_norm). The default is that
/// of transformers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnivNetConfig {
    /// Channels of the noise.
    pub model_in_channels: usize,
    /// Channels of the network.
    pub model_hidden_channels: usize,
    /// Bands of a log-mel spectrogram.
    pub num_mel_bins: usize,
    /// Kernels of the convolutions of each block. Odd.
    pub resblock_kernel_sizes: Vec<usize>,
    /// Factor of the upsampling of each block, at least 2. Their product is the number of samples
    /// of a frame.
    pub resblock_stride_sizes: Vec<usize>,
    /// Dilations of the convolutions of each block.
    pub resblock_dilation_sizes: Vec<Vec<usize>>,
    /// Residual blocks of a network that predicts kernels.
    pub kernel_predictor_num_blocks: usize,
    /// Channels of a network that predicts kernels; as many as the noise has.
    pub kernel_predictor_hidden_channels: usize,
    /// Kernels of a network that predicts kernels. Odd.
    pub kernel_predictor_conv_size: usize,
    /// Has no effect: there is no dropout in inference.
    pub kernel_predictor_dropout: f64,
    /// Slope of the leaky ReLU for negative inputs.
    pub leaky_relu_slope: f64,
    /// Configuration of the spectrograms. A field of this library; if it is missing, they are
    /// [those of the paper](Self::mel).
    pub mel_config: Option<MelConfig>,
    /// Whether weights are normalised. A field of this library; opening a model sets it to what its
    /// files have.
    pub weight_norm: bool,
}

impl Default for UnivNetConfig {
    fn default() -> Self {
        Self {
            model_in_channels: 64,
            model_hidden_channels: 32,
            num_mel_bins: 100,
            resblock_kernel_sizes: vec![3; 3],
            resblock_stride_sizes: vec![8, 8, 4],
            resblock_dilation_sizes: vec![vec![1, 3, 9, 27]; 3],
            kernel_predictor_num_blocks: 3,
            kernel_predictor_hidden_channels: 64,
            kernel_predictor_conv_size: 3,
            kernel_predictor_dropout: 0.0,
            leaky_relu_slope: 0.2,
            mel_config: None,
            weight_norm: false,
        }
    }
}

impl UnivNetConfig {
    /// `model_type` in transformers' `config.json`.
    pub const MODEL_TYPE: &str = "univnet";

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
        fields.insert("architectures".into(), vec!["UnivNetModel"].into());
        fields
    }

    /// Samples of a frame.
    pub fn hop_length(&self) -> usize {
        product(&self.resblock_stride_sizes)
    }

    /// Configuration of the spectrograms. Without [`mel_config`](Self::mel_config) they are those
    /// of the paper: sound of 24,000 samples per second, natural logarithms of magnitudes in
    /// windows of four frames.
    pub fn mel(&self) -> MelConfig {
        let hop = self.hop_length();
        self.mel_config.unwrap_or_else(|| {
            MelConfig::hifi_gan(24_000, hop.saturating_mul(4), hop, self.num_mel_bins)
        })
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        let (layers, hidden) = (self.resblock_stride_sizes.len(), self.model_hidden_channels);
        check::sizes(&[
            ("model_in_channels", self.model_in_channels, MAX_CHANNELS),
            ("model_hidden_channels", hidden, MAX_CHANNELS),
            ("num_mel_bins", self.num_mel_bins, MAX_CHANNELS),
            ("resblock_stride_sizes", layers, MAX_LAYERS),
            (
                "kernel_predictor_conv_size",
                self.kernel_predictor_conv_size,
                MAX_KERNEL,
            ),
        ])?;
        let blocks = self.kernel_predictor_num_blocks;
        check::in_range("kernel_predictor_num_blocks", blocks, 0..=64)?;
        let (channels, noise) = (
            self.kernel_predictor_hidden_channels,
            self.model_in_channels,
        );
        let field = "kernel_predictor_hidden_channels";
        let expected = format!("{noise}, as many as `model_in_channels`");
        ensure(channels == noise, field, channels, &expected)?;
        let (field, strides) = ("resblock_stride_sizes", &self.resblock_stride_sizes);
        check_list(field, strides, layers, MAX_KERNEL)?;
        if let Some(stride) = strides.iter().find(|stride| **stride < 2) {
            ensure(false, field, stride, "at least 2 each")?;
        }
        check_hop(field, strides)?;
        for stride in strides {
            check_layer(field, &[hidden, hidden, 2 * stride])?;
        }
        let (field, kernels) = ("resblock_kernel_sizes", &self.resblock_kernel_sizes);
        check_list(field, kernels, layers, MAX_KERNEL)?;
        check_odd(field, kernels)?;
        let (field, predictor) = (
            "kernel_predictor_conv_size",
            self.kernel_predictor_conv_size,
        );
        check_odd(field, &[predictor])?;
        check_layer(field, &[channels, channels, predictor])?;
        let dilations = &self.resblock_dilation_sizes;
        check_dilations("resblock_dilation_sizes", dilations, layers)?;
        for (list, kernel) in dilations.iter().zip(kernels) {
            let predicted = [list.len(), hidden, 2 * hidden, *kernel, channels, predictor];
            check_layer("model_hidden_channels", &predicted)?;
        }
        check_slope(self.leaky_relu_slope)?;
        let dropout = self.kernel_predictor_dropout;
        let field = "kernel_predictor_dropout";
        ensure(dropout.is_finite(), field, dropout, "a finite number")?;
        check_mel_config(&self.mel(), self.num_mel_bins, self.hop_length())
    }

    /// Creates the network on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<UnivNet> {
        self.validate()?;
        Ok(UnivNet::new(self, device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_transformers() {
        let text = r#"{"model_type": "univnet", "num_mel_bins": 80, "kernel_predictor_dropout": 0,
            "resblock_stride_sizes": [4, 4, 4], "transformers_version": "5", "colour": 1}"#;
        let config = UnivNetConfig::from_json(text).unwrap();
        assert_eq!((config.num_mel_bins, config.hop_length()), (80, 64));
        assert_eq!(config.unused_fields, ["colour"]);
        let text = serde_json::to_string(&config.to_fields()).unwrap();
        assert_eq!(UnivNetConfig::from_json(&text).unwrap().value, config.value);
    }

    #[test]
    fn invalid_values_are_refused_by_name() {
        type Change = fn(&mut UnivNetConfig);
        let changes: [(&str, Change); 12] = [
            ("model_in_channels", |c| c.model_in_channels = 0),
            ("model_hidden_channels", |c| c.model_hidden_channels = 2048),
            ("kernel_predictor_hidden_channels", |c| {
                c.kernel_predictor_hidden_channels = 32;
            }),
            ("kernel_predictor_conv_size", |c| {
                c.kernel_predictor_conv_size = 4
            }),
            ("kernel_predictor_conv_size", |c| {
                (c.model_in_channels, c.kernel_predictor_hidden_channels) = (4096, 4096);
                c.kernel_predictor_conv_size = 1023;
            }),
            ("resblock_stride_sizes", |c| c.resblock_stride_sizes[0] = 1),
            ("resblock_stride_sizes", |c| {
                c.model_hidden_channels = 4096;
                c.resblock_stride_sizes = vec![1024, 2, 2];
            }),
            ("resblock_stride_sizes", |c| {
                c.resblock_stride_sizes = vec![]
            }),
            ("resblock_kernel_sizes", |c| c.resblock_kernel_sizes[1] = 2),
            ("resblock_kernel_sizes", |c| {
                c.resblock_kernel_sizes.truncate(2)
            }),
            ("resblock_dilation_sizes", |c| {
                c.resblock_dilation_sizes.truncate(2)
            }),
            ("leaky_relu_slope", |c| c.leaky_relu_slope = f64::INFINITY),
        ];
        for (field, change) in changes {
            let mut config = UnivNetConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}`")), "{field}: {error}");
        }
    }
}
