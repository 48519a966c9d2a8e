//! Checks of the configuration.

use super::VitsConfig;
use aigc_core::{
    Error, Result,
    check::{self, ensure},
    nn::Activation,
};

impl VitsConfig {
    /// Fails unless every value is in its range. The fields of the decoder are checked where the
    /// decoder is created.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        const WIDTH: usize = 1 << 14;
        const LAYERS: usize = 1 << 8;
        const KERNEL: usize = 1 << 8;
        check::sizes(&[
            ("vocab_size", self.vocab_size, 1 << 20),
            ("hidden_size", self.hidden_size, WIDTH),
            ("num_hidden_layers", self.num_hidden_layers, LAYERS),
            ("num_attention_heads", self.num_attention_heads, WIDTH),
            ("window_size", self.window_size, 1 << 12),
            ("ffn_dim", self.ffn_dim, WIDTH),
            ("ffn_kernel_size", self.ffn_kernel_size, KERNEL),
            ("flow_size", self.flow_size, WIDTH),
            ("spectrogram_bins", self.spectrogram_bins, WIDTH),
            ("num_speakers", self.num_speakers, 1 << 20),
            (
                "depth_separable_channels",
                self.depth_separable_channels,
                KERNEL,
            ),
            (
                "depth_separable_num_layers",
                self.depth_separable_num_layers,
                16,
            ),
            (
                "duration_predictor_flow_bins",
                self.duration_predictor_flow_bins,
                999,
            ),
            (
                "duration_predictor_kernel_size",
                self.duration_predictor_kernel_size,
                15,
            ),
            (
                "duration_predictor_num_flows",
                self.duration_predictor_num_flows,
                LAYERS,
            ),
            (
                "duration_predictor_filter_channels",
                self.duration_predictor_filter_channels,
                WIDTH,
            ),
            (
                "prior_encoder_num_flows",
                self.prior_encoder_num_flows,
                LAYERS,
            ),
            (
                "prior_encoder_num_wavenet_layers",
                self.prior_encoder_num_wavenet_layers,
                LAYERS,
            ),
            (
                "posterior_encoder_num_wavenet_layers",
                self.posterior_encoder_num_wavenet_layers,
                LAYERS,
            ),
            ("wavenet_kernel_size", self.wavenet_kernel_size, KERNEL),
            ("wavenet_dilation_rate", self.wavenet_dilation_rate, KERNEL),
            ("upsample_rates", self.hop_length(), 1 << 16),
        ])?;
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        let expected = format!("a divisor of hidden_size, {hidden}");
        ensure(
            hidden.is_multiple_of(heads),
            "num_attention_heads",
            heads,
            &expected,
        )?;
        for (field, value) in [
            ("flow_size", self.flow_size),
            ("depth_separable_channels", self.depth_separable_channels),
        ] {
            ensure(value.is_multiple_of(2), field, value, "an even number")?;
        }
        for (field, value) in [
            (
                "duration_predictor_kernel_size",
                self.duration_predictor_kernel_size,
            ),
            ("wavenet_kernel_size", self.wavenet_kernel_size),
        ] {
            ensure(!value.is_multiple_of(2), field, value, "an odd number")?;
        }
        let (bins, width) = (
            self.duration_predictor_flow_bins,
            self.speaker_embedding_size,
        );
        ensure(bins >= 2, "duration_predictor_flow_bins", bins, "2 to 999")?;
        let most = format!("0 to {WIDTH}");
        ensure(width <= WIDTH, "speaker_embedding_size", width, &most)?;
        ensure(
            self.num_speakers == 1 || width > 0,
            "speaker_embedding_size",
            width,
            &format!("at least 1, for {} speakers", self.num_speakers),
        )?;
        let reach = |rate: usize, layers: usize| {
            (1..layers).try_fold(1usize, |dilation, _| {
                dilation
                    .checked_mul(rate)
                    .filter(|dilation| *dilation <= 1 << 16)
            })
        };
        let layers = self
            .prior_encoder_num_wavenet_layers
            .max(self.posterior_encoder_num_wavenet_layers);
        ensure(
            reach(self.wavenet_dilation_rate, layers).is_some(),
            "wavenet_dilation_rate",
            self.wavenet_dilation_rate,
            &format!("a dilation of at most 65536 in layer {layers}"),
        )?;
        let (kernel, layers) = (
            self.duration_predictor_kernel_size,
            self.depth_separable_num_layers,
        );
        ensure(
            reach(kernel, layers).is_some(),
            "depth_separable_num_layers",
            layers,
            &format!("a dilation of at most 65536, for a kernel of {kernel}"),
        )?;
        ensure(
            self.sampling_rate > 0,
            "sampling_rate",
            self.sampling_rate,
            "at least 1 sample per second",
        )?;
        check::positive("layer_norm_eps", self.layer_norm_eps)?;
        check::positive(
            "duration_predictor_tail_bound",
            self.duration_predictor_tail_bound,
        )?;
        check::positive("speaking_rate", self.speaking_rate)?;
        check::non_negative("noise_scale", self.noise_scale)?;
        check::non_negative("noise_scale_duration", self.noise_scale_duration)?;
        self.activation().map(|_| ())
    }

    /// The activation of the feed-forward networks.
    pub(super) fn activation(&self) -> Result<Activation> {
        Ok(match self.hidden_act.as_str() {
            "relu" => Activation::Relu,
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
            "silu" | "swish" => Activation::Silu,
            "quick_gelu" => Activation::QuickGelu,
            "tanh" => Activation::Tanh,
            other => {
                let expected = "relu, gelu, gelu_new, silu, quick_gelu or tanh";
                return Err(Error::config("hidden_act", other, expected));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::weights::Loaded;

    #[test]
    fn fields_are_those_of_transformers() {
        let text = r#"{"model_type": "vits", "architectures": ["VitsModel"], "vocab_size": 31,
            "pad_token_id": null, "hidden_act": "gelu", "num_speakers": 3, "colour": 1,
            "speaker_embedding_size": 6, "upsample_rates": [4, 2], "noise_scale": 1}"#;
        let config = VitsConfig::from_json(text).unwrap();
        assert_eq!((config.vocab_size, config.hop_length()), (31, 8));
        assert_eq!(config.unused_fields, ["colour"]);
        let again = VitsConfig::from_json(&config.to_json()).unwrap();
        assert_eq!(again, Loaded::new(config.into_inner()));
    }

    #[test]
    fn faults_name_field_and_value() {
        for (json, expected) in [
            (r#"{"model_type": "bark"}"#, "`model_type` is \"bark\""),
            (
                r#"{"num_attention_heads": 5}"#,
                "`num_attention_heads` is 5",
            ),
            (
                r#"{"flow_size": 7}"#,
                "`flow_size` is 7, expected an even number",
            ),
            (
                r#"{"wavenet_kernel_size": 4}"#,
                "`wavenet_kernel_size` is 4",
            ),
            (
                r#"{"wavenet_dilation_rate": 9}"#,
                "`wavenet_dilation_rate` is 9",
            ),
            (
                r#"{"num_speakers": 2}"#,
                "`speaker_embedding_size` is 0, expected at least 1",
            ),
            (r#"{"window_size": 0}"#, "`window_size` is 0"),
            (r#"{"window_size": null}"#, "`window_size` is null"),
            (r#"{"hidden_act": "cubic"}"#, "`hidden_act` is cubic"),
            (r#"{"speaking_rate": 0}"#, "`speaking_rate` is 0"),
            (r#"{"sampling_rate": 0}"#, "`sampling_rate` is 0"),
            (
                r#"{"duration_predictor_flow_bins": 1}"#,
                "`duration_predictor_flow_bins` is 1",
            ),
            (
                r#"{"depth_separable_num_layers": 12}"#,
                "`depth_separable_num_layers` is 12",
            ),
        ] {
            let message = VitsConfig::from_json(json).unwrap_err().to_string();
            assert!(message.contains(expected), "{json}: {message}");
        }
    }
}
