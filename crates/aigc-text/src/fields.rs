//! JSON configuration files of Python programs.

use aigc_core::{Result, json};
use serde_json::{Map, Number, Value};

/// Fields of special tokens, in which `-1` means that there is no such token.
const SPECIAL: &[&str] = &[
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "decoder_start_token_id",
    "sep_token_id",
];

/// The fields of a JSON object: a byte-order mark is skipped, floats without a fraction (`2.0`)
/// become integers, and negative ids of special tokens become null.
///
/// # Errors
/// As [`json::parse_object`].
pub(crate) fn parse(text: &str) -> Result<Map<String, Value>> {
    let mut fields = json::parse_object(text)?;
    for (name, value) in &mut fields {
        whole(value);
        if SPECIAL.contains(&name.as_str()) {
            let is_id = |value: &Value| value.as_i64().is_none_or(|id| id >= 0);
            if let Value::Array(ids) = value {
                ids.retain(is_id);
            }
            let is_none = value.as_array().is_some_and(Vec::is_empty) || !is_id(value);
            if is_none {
                *value = Value::Null;
            }
        }
    }
    Ok(fields)
}

/// Converts floats without a fraction to integers, at any depth. Fields of floats accept integers,
/// too.
fn whole(value: &mut Value) {
    /// Up to this limit every integer is exact as a 64-bit float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            let float = number.as_f64().unwrap_or(f64::NAN);
            if float.fract() == 0.0 && float.abs() <= EXACT {
                *value = Value::Number(Number::from(float as i64));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole),
        Value::Object(items) => items.values_mut().for_each(whole),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_read_as_python_writes_them() {
        let text = "\u{feff}{\"num_beams\": 2.0, \"pad_token_id\": -1, \"eos_token_id\": [-1, 3.0],
            \"exponential_decay_length_penalty\": [5.0, 1.25], \"bos_token_id\": [-1]}";
        let fields = parse(text).unwrap();
        let expected = json!({
            "num_beams": 2, "pad_token_id": null, "eos_token_id": [3], "bos_token_id": null,
            "exponential_decay_length_penalty": [5, 1.25],
        });
        assert_eq!(Value::Object(fields), expected);
        assert!(parse("[1]").is_err());
    }
}
