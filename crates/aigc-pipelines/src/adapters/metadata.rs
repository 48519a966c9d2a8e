//! What PEFT and diffusers write beside the factors of adapters: rank and alpha.

use aigc_core::{DataFault, Error, Result, json};
use serde_json::{Map, Value};
use std::path::Path;

/// Alphas of layers, where they are not in the file as tensors.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Alphas {
    /// One set for each part; the prefix of the names of its layers, such as `unet.`.
    sets: Vec<(String, Set)>,
}

#[derive(Clone, Debug, PartialEq)]
struct Set {
    alpha: f64,
    /// By the endings of layers' names.
    pattern: Vec<(String, f64)>,
    /// Whether the scale is `alpha / √rank` (Kalajdzievski 2023,
    /// <https://arxiv.org/abs/2312.03732>).
    root: bool,
}

impl Alphas {
    pub(crate) fn extend(&mut self, other: Self) {
        self.sets.extend(other.sets);
    }

    /// The alpha of a layer of a file, and whether it is divided by the root of the rank.
    pub(crate) fn of(&self, stem: &str) -> Option<(f64, bool)> {
        let (_, set) = self
            .sets
            .iter()
            .find(|(prefix, _)| stem.starts_with(prefix))?;
        let ends = |name: &str| {
            let rest = stem.strip_suffix(name);
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let special = set.pattern.iter().find(|(name, _)| ends(name));
        let alpha = special.map_or(set.alpha, |(_, alpha)| *alpha);
        Some((alpha, set.root))
    }
}

/// The alphas of PEFT's `adapter_config.json`.
///
/// # Errors
/// [`Error::Data`] naming the file and the field of an option that is not supported.
pub(crate) fn of_config(path: &Path) -> Result<Alphas> {
    json::read_file(path, |text| {
        let set = set(&json::parse_object(text)?, "")?;
        Ok(Alphas {
            sets: set.map(|set| (String::new(), set)).into_iter().collect(),
        })
    })
}

/// The alphas of the entry `lora_adapter_metadata` of diffusers' files: PEFT's fields, each after
/// the name of a part.
///
/// # Errors
/// [`Error::Data`] naming the file and the field of an option that is not supported.
pub(crate) fn of_text(text: &str, path: &Path) -> Result<Alphas> {
    let read = || {
        let fields = json::parse_object(text)?;
        let mut sets = vec![];
        for part in [
            "unet",
            "transformer",
            "text_encoder",
            "text_encoder_2",
            "text_encoder_3",
        ] {
            let prefix = format!("{part}.");
            let set = set(&fields, &prefix)?;
            sets.extend(set.map(|set| (prefix, set)));
        }
        Ok(Alphas { sets })
    };
    read().map_err(|error: Error| Error::data(path, DataFault::Mismatch(error.to_string())))
}

fn set(fields: &Map<String, Value>, prefix: &str) -> Result<Option<Set>> {
    let get = |name: &str| fields.get(&format!("{prefix}{name}"));
    let is_on = |name: &str| get(name).is_some_and(|value| *value == Value::Bool(true));
    for name in ["use_dora", "lora_bias", "use_qalora"] {
        if is_on(name) {
            let field = format!("{prefix}{name}");
            return Err(Error::config(
                field,
                true,
                "false: adapters of this kind are not supported",
            ));
        }
    }
    let number = |name: &str, value: &Value| {
        let number = value.as_f64().filter(|number| number.is_finite());
        number.ok_or_else(|| Error::config(format!("{prefix}{name}"), value, "a number"))
    };
    let Some(alpha) = get("lora_alpha") else {
        return Ok(None);
    };
    let alpha = number("lora_alpha", alpha)?;
    let mut pattern = vec![];
    if let Some(Value::Object(entries)) = get("alpha_pattern") {
        for (name, value) in entries {
            pattern.push((name.clone(), number("alpha_pattern", value)?));
        }
    }
    let root = is_on("use_rslora");
    Ok(Some(Set {
        alpha,
        pattern,
        root,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alphas_are_those_of_parts_and_layers() {
        let path = Path::new("lora.safetensors");
        let text = r#"{"unet.r": 4, "unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 2},
            "text_encoder.lora_alpha": 1, "text_encoder.use_rslora": true}"#;
        let alphas = of_text(text, path).unwrap();
        assert_eq!(alphas.of("unet.mid_block.attn1.to_k"), Some((8.0, false)));
        assert_eq!(alphas.of("unet.mid_block.attn1.to_q"), Some((2.0, false)));
        assert_eq!(alphas.of("unet.mid_block.xattn1.to_q"), Some((8.0, false)));
        assert_eq!(alphas.of("text_encoder.layers.0.fc1"), Some((1.0, true)));
        assert_eq!(alphas.of("text_encoder_2.layers.0.fc1"), None);
        for (text, field) in [
            (
                r#"{"unet.lora_alpha": 8, "unet.use_dora": true}"#,
                "unet.use_dora",
            ),
            (r#"{"unet.lora_alpha": "8"}"#, "unet.lora_alpha"),
            ("[", "not JSON"),
        ] {
            let error = of_text(text, path).unwrap_err().to_string();
            assert!(
                error.contains(field) && error.contains("lora.safetensors"),
                "{error}"
            );
        }
    }
}
