//! Whether two configurations of mels are the same.

use super::MelConfig;
use crate::{Error, Result};

impl MelConfig {
    /// Fails unless mels of the `other` configuration are those of this one.
    ///
    /// # Errors
    /// [`Error::Config`] with the first field that differs, its value there and the one here.
    pub fn check_same(&self, other: &MelConfig) -> Result<()> {
        let pairs = self.fields().into_iter().zip(other.fields());
        for ((field, expected), (_, found)) in pairs {
            if found != expected {
                let expected = format!("{expected}: these mels are of another configuration");
                return Err(Error::config(field, found, expected));
            }
        }
        Ok(())
    }

    /// Names and values of all fields, in their order. The pattern lists them all, so that a new
    /// one cannot be forgotten.
    fn fields(&self) -> [(&'static str, String); 18] {
        let Self {
            sample_rate,
            n_fft,
            hop_length,
            win_length,
            window,
            padding,
            pad_mode,
            power,
            power_floor,
            n_mels,
            f_min,
            f_max,
            mel_scale,
            norm,
            triangularize_in_mel_space,
            floor,
            floor_mode,
            log_style,
        } = self;
        [
            ("sample_rate", sample_rate.to_string()),
            ("n_fft", n_fft.to_string()),
            ("hop_length", hop_length.to_string()),
            ("win_length", win_length.to_string()),
            ("window", format!("{window:?}")),
            ("padding", format!("{padding:?}")),
            ("pad_mode", format!("{pad_mode:?}")),
            ("power", power.to_string()),
            ("power_floor", format!("{power_floor:?}")),
            ("n_mels", n_mels.to_string()),
            ("f_min", format!("{f_min:?}")),
            ("f_max", format!("{f_max:?}")),
            ("mel_scale", format!("{mel_scale:?}")),
            ("norm", format!("{norm:?}")),
            (
                "triangularize_in_mel_space",
                triangularize_in_mel_space.to_string(),
            ),
            ("floor", format!("{floor:?}")),
            ("floor_mode", format!("{floor_mode:?}")),
            ("log_style", format!("{log_style:?}")),
        ]
    }
}

#[cfg(test)]
mod tests {
    use crate::dsp::{LogStyle, MelConfig, Window};
    use serde_json::{Value, json};

    #[test]
    fn other_configurations_are_refused_by_field() {
        let config = MelConfig::default();
        assert!(config.check_same(&config).is_ok());
        let error = |change: fn(&mut MelConfig)| {
            let mut other = config;
            change(&mut other);
            config.check_same(&other).unwrap_err().to_string()
        };
        let hint = ": these mels are of another configuration";
        assert_eq!(
            error(|other| (other.n_mels, other.floor) = (128, 1e-9)),
            format!("config field `n_mels` is 128, expected 80{hint}")
        );
        assert_eq!(
            error(|other| other.log_style = LogStyle::Log10),
            format!("config field `log_style` is Log10, expected HifiGan{hint}")
        );
        assert_eq!(
            error(|other| other.window = Window::Kaiser { beta: 5.0 }),
            format!("config field `window` is Kaiser {{ beta: 5.0 }}, expected Hann{hint}")
        );
    }

    /// A difference in any field of a saved configuration is found and named.
    #[test]
    fn every_field_is_compared() {
        let config = MelConfig::default();
        let Value::Object(fields) = serde_json::to_value(config).unwrap() else {
            panic!("a configuration is an object");
        };
        for (field, value) in &fields {
            let changed = match (field.as_str(), value) {
                (_, Value::Bool(value)) => json!(!value),
                (_, Value::Number(number)) => match number.as_u64() {
                    Some(number) => json!(number + 1),
                    None => json!(number.as_f64().unwrap() + 1.0),
                },
                ("window", _) => json!("hamming"),
                ("padding", _) => json!("center"),
                ("pad_mode", _) => json!("constant"),
                ("mel_scale", _) => json!("htk"),
                ("norm", _) => json!("none"),
                ("floor_mode", _) => json!("add"),
                ("log_style", _) => json!("log10"),
                other => panic!("{other:?}"),
            };
            let mut other = fields.clone();
            other.insert(field.clone(), changed);
            let other: MelConfig = serde_json::from_value(Value::Object(other)).unwrap();
            let error = config.check_same(&other).unwrap_err().to_string();
            assert!(error.contains(&format!("field `{field}`")), "{error}");
        }
    }
}
