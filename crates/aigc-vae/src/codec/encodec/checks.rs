//! The checks of a configuration of Encodec.

use super::EncodecConfig;
use aigc_core::{
    Error, Result,
    check::{self, ensure},
};

impl EncodecConfig {
    /// Checks the values.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        check::in_range("sampling_rate", self.sampling_rate, 1..=1 << 20)?;
        check::in_range("audio_channels", self.audio_channels, 1..=2)?;
        check::sizes(&[
            ("hidden_size", self.hidden_size, 1 << 12),
            ("num_filters", self.num_filters, 1 << 10),
            ("kernel_size", self.kernel_size, 1 << 8),
            ("last_kernel_size", self.last_kernel_size, 1 << 8),
            ("residual_kernel_size", self.residual_kernel_size, 1 << 8),
            ("dilation_growth_rate", self.dilation_growth_rate, 16),
            ("compress", self.compress, self.num_filters),
            ("num_lstm_layers", self.num_lstm_layers, 16),
        ])?;
        check::in_range("num_residual_layers", self.num_residual_layers, 0..=4)?;
        let ratios = self.upsampling_ratios.len();
        ensure(
            (1..=8).contains(&ratios),
            "upsampling_ratios",
            ratios,
            "1 to 8 ratios",
        )?;
        for ratio in &self.upsampling_ratios {
            check::in_range("upsampling_ratios", *ratio, 1..=64)?;
        }
        let widest = self.num_filters << ratios;
        let expected = "at most 16384 channels, num_filters doubled by each ratio";
        ensure(widest <= 1 << 14, "num_filters", self.num_filters, expected)?;
        check::in_range("hop_length", self.hop_length(), 1..=1 << 20)?;
        ensure(
            self.codebook_size.is_power_of_two(),
            "codebook_size",
            self.codebook_size,
            "a power of two",
        )?;
        check::in_range("codebook_size", self.codebook_size, 2..=1 << 20)?;
        if let Some(dim) = self.codebook_dim {
            let expected = format!("hidden_size, {}", self.hidden_size);
            ensure(dim == self.hidden_size, "codebook_dim", dim, &expected)?;
        }
        let is_ratio = (0.0..=1.0).contains(&self.trim_right_ratio);
        let expected = "0 to 1, and 1 without use_causal_conv";
        let fits = is_ratio && (self.use_causal_conv || self.trim_right_ratio == 1.0);
        ensure(fits, "trim_right_ratio", self.trim_right_ratio, expected)?;
        check::fraction("quantizer_dropout", self.quantizer_dropout)?;
        let decays = (0.0..1.0).contains(&self.codebook_decay);
        ensure(
            decays,
            "codebook_decay",
            self.codebook_decay,
            "a number from 0 to below 1",
        )?;
        self.validate_chunks()?;
        self.validate_bandwidths()?;
        self.quantizer().validate()
    }

    fn validate_chunks(&self) -> Result<()> {
        match (self.chunk_length_s, self.overlap) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(Error::config(
                "overlap",
                "null",
                "a share, because chunk_length_s is given",
            )),
            (Some(seconds), Some(overlap)) => {
                check::positive("chunk_length_s", seconds)?;
                let length = self.chunk_length().unwrap_or(0);
                check::in_range("chunk_length_s", length, 1..=1 << 28)
                    .map_err(|_| Error::config("chunk_length_s", seconds, "1 to 2^28 samples"))?;
                ensure(
                    (0.0..1.0).contains(&overlap),
                    "overlap",
                    overlap,
                    "0 to below 1",
                )
            }
        }
    }

    fn validate_bandwidths(&self) -> Result<()> {
        let ascending = self
            .target_bandwidths
            .windows(2)
            .all(|pair| pair[0] < pair[1]);
        let list = format!("{:?}", self.target_bandwidths);
        let expected = "ascending bandwidths above 0";
        let positive = self
            .target_bandwidths
            .first()
            .is_some_and(|first| *first > 0.0);
        ensure(ascending && positive, "target_bandwidths", &list, expected)?;
        let expected = format!(
            "the last one 1 to 64 times {} kbit/s, which is one codebook",
            self.codebook_bandwidth()
        );
        let fits = (1..=64).contains(&self.num_quantizers());
        ensure(fits, "target_bandwidths", list, &expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_field_and_value() {
        for (text, expected) in [
            (
                r#"{"model_type": "dac"}"#,
                "`model_type` is \"dac\", expected encodec",
            ),
            (r#"{"norm_type": "layer_norm"}"#, "`norm_type`"),
            (r#"{"pad_mode": "circular"}"#, "`pad_mode`"),
            (
                r#"{"codebook_size": 1000}"#,
                "`codebook_size` is 1000, expected a power of two",
            ),
            (
                r#"{"codebook_dim": 64}"#,
                "`codebook_dim` is 64, expected hidden_size, 128",
            ),
            (r#"{"chunk_length_s": 1.0}"#, "`overlap` is null"),
            (
                r#"{"chunk_length_s": 1.0, "overlap": 1.5}"#,
                "`overlap` is 1.5",
            ),
            (
                r#"{"chunk_length_s": 1e30, "overlap": 0.1}"#,
                "`chunk_length_s` is",
            ),
            (
                r#"{"use_causal_conv": false, "trim_right_ratio": 0.5}"#,
                "`trim_right_ratio`",
            ),
            (r#"{"target_bandwidths": []}"#, "`target_bandwidths` is []"),
            (
                r#"{"target_bandwidths": [0.1]}"#,
                "`target_bandwidths` is [0.1]",
            ),
            (r#"{"upsampling_ratios": [0]}"#, "`upsampling_ratios` is 0"),
            (r#"{"num_filters": 1000000}"#, "`num_filters` is 1000000"),
            (r#"{"quantizer_dropout": 2.0}"#, "`quantizer_dropout` is 2"),
        ] {
            let message = EncodecConfig::from_json(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
