//! What PEFT and diffusers write beside the factors of adapters: rank and alpha.

use aigc_core::{DataFault, Error, Result, json, lora::ends_with_name};
use serde_json::{Map, Value};
use std::path::Path;

/// Prefix of names in a model that PEFT wraps.
const WRAPPED: &str = "base_model.model.";
/// PEFT's default.
const ALPHA: f64 = 8.0;

/// Alphas of layers, where they are not in the file as tensors.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Alphas {
    /// One set for each part; the prefix of the names of its layers, such as `unet.`.
    sets: Vec<(String, Set)>,
}

#[derive(Clone, Debug, PartialEq)]
struct Set {
    alpha: f64,
    /// By the endings of layers' names, or by whole names after `^`.
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
        let (prefix, set) = self
            .sets
            .iter()
            .find(|(prefix, _)| stem.starts_with(prefix))?;
        // With `^`, the whole name in the model.
        let is_for = |name: &str| match name.strip_prefix('^') {
            Some(whole) => {
                let inner = stem.strip_prefix(prefix).unwrap_or(stem);
                inner.strip_prefix(WRAPPED).unwrap_or(inner) == whole
            }
            None => ends_with_name(stem, name),
        };
        let special = set.pattern.iter().find(|(name, _)| is_for(name));
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
    for (name, only) in [("peft_type", "LORA"), ("bias", "none")] {
        if let Some(Value::String(value)) = get(name)
            && value != only
        {
            return Err(Error::config(format!("{prefix}{name}"), value, only));
        }
    }
    // Other values also change the weights that are adapted.
    if let Some(Value::String(value)) = get("init_lora_weights")
        && value != "gaussian"
    {
        let field = format!("{prefix}init_lora_weights");
        return Err(Error::config(field, value, "true, false or gaussian"));
    }
    let number = |name: &str, value: &Value| {
        let number = value.as_f64().filter(|number| number.is_finite());
        number.ok_or_else(|| Error::config(format!("{prefix}{name}"), value, "a number"))
    };
    let alpha = match get("lora_alpha") {
        Some(alpha) => number("lora_alpha", alpha)?,
        None if fields.keys().any(|name| name.starts_with(prefix)) => ALPHA,
        None => return Ok(None),
    };
    let mut pattern = vec![];
    if let Some(Value::Object(entries)) = get("alpha_pattern") {
        for (name, value) in entries {
            let plain = |c: char| c.is_alphanumeric() || ['.', '_', '-'].contains(&c);
            if !name.strip_prefix('^').unwrap_or(name).chars().all(plain) {
                let field = format!("{prefix}alpha_pattern");
                return Err(Error::config(
                    field,
                    name,
                    "names of layers: regular expressions are not supported",
                ));
            }
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
        // Without a value, PEFT's default; with `^`, a whole name.
        let text = r#"{"unet.r": 4, "unet.alpha_pattern": {"^a.to_q": 2}}"#;
        let alphas = of_text(text, path).unwrap();
        assert_eq!(alphas.of("unet.b.to_q"), Some((8.0, false)));
        assert_eq!(alphas.of("unet.a.to_q"), Some((2.0, false)));
        assert_eq!(alphas.of("unet.b.a.to_q"), Some((8.0, false)));
        for (text, field) in [
            (
                r#"{"unet.lora_alpha": 8, "unet.use_dora": true}"#,
                "unet.use_dora",
            ),
            (r#"{"unet.lora_alpha": "8"}"#, "unet.lora_alpha"),
            (
                r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {".*to_q": 2}}"#,
                "unet.alpha_pattern",
            ),
            (r#"{"unet.r": 8, "unet.bias": "all"}"#, "unet.bias"),
            (r#"{"unet.r": 8, "unet.peft_type": "LOHA"}"#, "LOHA"),
            (
                r#"{"unet.r": 8, "unet.init_lora_weights": "pissa"}"#,
                "pissa",
            ),
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
