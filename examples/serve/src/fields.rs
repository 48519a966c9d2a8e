//! The fields of a request, and what they may be.

use crate::error::ApiError;
use axum::body::Bytes;
use serde_json::{Map, Value};

/// Fields that have not been read yet.
#[derive(Debug)]
pub(crate) struct Fields {
    values: Map<String, Value>,
    files: Vec<(String, Bytes)>,
    /// Whether all values are texts.
    is_form: bool,
}

impl Fields {
    pub(crate) fn new(
        mut values: Map<String, Value>,
        files: Vec<(String, Bytes)>,
        is_form: bool,
    ) -> Self {
        // `null` is as good as nothing; an empty part of a form is, too.
        values.retain(|_, value| !(value.is_null() || is_form && value == ""));
        Self {
            values,
            files,
            is_form,
        }
    }

    #[cfg(test)]
    pub(crate) fn files(&self) -> &[(String, Bytes)] {
        &self.files
    }

    /// Takes the files of a field, `name` and `name[]`.
    pub(crate) fn take_files(&mut self, name: &str) -> Vec<Bytes> {
        let is_named = |found: &str| found.strip_suffix("[]").unwrap_or(found) == name;
        let (taken, kept) = std::mem::take(&mut self.files)
            .into_iter()
            .partition::<Vec<_>, _>(|(found, _)| is_named(found));
        self.files = kept;
        taken.into_iter().map(|(_, bytes)| bytes).collect()
    }

    fn take<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&Value, bool) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.values.remove(name) else {
            return Ok(None);
        };
        match read(&value, self.is_form) {
            Some(read) => Ok(Some(read)),
            None => {
                let shown = value.as_str().map_or_else(|| value.to_string(), Into::into);
                Err(ApiError::value(name, &shown, expected))
            }
        }
    }

    /// A text.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        self.take(name, "a string", |value, _| {
            value.as_str().map(str::to_string)
        })
    }

    /// One of several words.
    pub(crate) fn one_of(
        &mut self,
        name: &str,
        words: &[&'static str],
    ) -> Result<Option<&'static str>, ApiError> {
        let expected = match words {
            [word] => format!("'{word}'"),
            words => format!("one of '{}'", words.join("', '")),
        };
        self.take(name, &expected, |value, _| {
            let value = value.as_str()?;
            words.iter().find(|word| **word == value).copied()
        })
    }

    /// A whole number.
    pub(crate) fn integer(
        &mut self,
        name: &str,
        least: u64,
        most: u64,
    ) -> Result<Option<u64>, ApiError> {
        let expected = format!("an integer from {least} to {most}");
        self.take(name, &expected, |value, is_form| {
            let value = match value {
                Value::String(text) if is_form => text.trim().parse().ok()?,
                value => value.as_u64()?,
            };
            (least..=most).contains(&value).then_some(value)
        })
    }

    /// A number.
    pub(crate) fn number(
        &mut self,
        name: &str,
        least: f64,
        most: f64,
    ) -> Result<Option<f64>, ApiError> {
        let expected = format!("a number from {least} to {most}");
        self.take(name, &expected, |value, is_form| {
            let value = match value {
                Value::String(text) if is_form => text.trim().parse().ok()?,
                value => value.as_f64()?,
            };
            (least..=most).contains(&value).then_some(value)
        })
    }

    /// Yes or no.
    pub(crate) fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        self.take(name, "true or false", |value, is_form| match value {
            Value::String(text) if is_form => text.trim().to_lowercase().parse().ok(),
            value => value.as_bool(),
        })
    }

    /// Fails if there is a field that was not read.
    pub(crate) fn finish(self, known: &[&str]) -> Result<(), ApiError> {
        let values = self.values.keys();
        let files = self.files.iter().map(|(name, _)| name);
        match values.chain(files).next() {
            Some(name) => Err(ApiError::unknown(name, known)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(value: Value, is_form: bool) -> Fields {
        let Value::Object(values) = json!({ "x": value }) else {
            unreachable!()
        };
        Fields::new(values, vec![], is_form)
    }

    #[test]
    fn values_have_their_types() {
        let integer = |value, is_form| fields(value, is_form).integer("x", 1, 10).ok();
        assert_eq!(integer(json!(3), false), Some(Some(3)));
        assert_eq!(integer(json!("3"), true), Some(Some(3)));
        assert_eq!(integer(json!("3"), false), None);
        assert_eq!(integer(json!(0), false), None);
        assert_eq!(integer(json!(11), false), None);
        assert_eq!(integer(json!(-1), false), None);
        assert_eq!(integer(json!(2.5), false), None);
        assert_eq!(integer(Value::Null, false), Some(None));
        assert_eq!(integer(json!(""), true), Some(None));
        let number = |value, is_form| fields(value, is_form).number("x", 0.0, 1.0).ok();
        assert_eq!(number(json!(0.5), false), Some(Some(0.5)));
        assert_eq!(number(json!("0.5"), true), Some(Some(0.5)));
        assert_eq!(number(json!("NaN"), true), None);
        assert_eq!(number(json!(1.5), false), None);
        let boolean = |value, is_form| fields(value, is_form).boolean("x").ok();
        assert_eq!(boolean(json!(true), false), Some(Some(true)));
        assert_eq!(boolean(json!("True"), true), Some(Some(true)));
        assert_eq!(boolean(json!("true"), false), None);
        assert_eq!(fields(json!(3), false).text("x").ok(), None);
        let word = |value| fields(value, false).one_of("x", &["a", "b"]);
        assert_eq!(word(json!("b")), Ok(Some("b")));
        let error = word(json!("c")).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("x"));
        assert!(error.message.contains("'a', 'b'"), "{}", error.message);
    }

    #[test]
    fn fields_that_nothing_reads_are_named() {
        let error = fields(json!(1), false).finish(&["n"]).unwrap_err();
        assert_eq!(error.code, Some("unknown_parameter"));
        assert_eq!(error.param.as_deref(), Some("x"));
        let file = |name: &str| (name.to_string(), Bytes::from_static(&[1]));
        let files = vec![file("image"), file("image[]"), file("odd")];
        let mut fields = Fields::new(Map::new(), files, true);
        assert_eq!(fields.take_files("image").len(), 2);
        assert_eq!(
            fields.finish(&[]).unwrap_err().param.as_deref(),
            Some("odd")
        );
    }
}
