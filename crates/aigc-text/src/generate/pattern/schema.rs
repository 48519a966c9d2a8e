//! Limits of JSON schemas, checked before the library expands their references.

use super::short;
use serde_json::Value;
use std::collections::HashMap;

/// Maximum number of values in a schema after all references are expanded.
const MERGED: u64 = 100_000;
/// The largest `multipleOf` that the library supports.
const LARGEST_STEP: f64 = 1e8;

/// Computes the size of a schema after references are expanded, as the library does when it merges
/// schemas.
pub(super) struct Expansion<'a> {
    root: &'a Value,
    /// Sizes by reference; `None` while a size is being computed.
    sizes: HashMap<&'a str, Option<u64>>,
    /// Whether the library merges any schemas.
    merges: bool,
}

impl<'a> Expansion<'a> {
    /// Fails if the schema is too large or has a number that the library does not support.
    pub(super) fn check(root: &'a Value) -> Result<(), String> {
        let mut expansion = Self {
            root,
            sizes: HashMap::new(),
            merges: false,
        };
        let size = expansion.size(root)?;
        if expansion.merges && size > MERGED {
            return Err(format!(
                "with all references expanded, the schema has more than {MERGED} values"
            ));
        }
        Ok(())
    }

    fn size(&mut self, schema: &'a Value) -> Result<u64, String> {
        match schema {
            Value::Array(values) => values.iter().try_fold(1, |sum: u64, value| {
                Ok(sum.saturating_add(self.size(value)?))
            }),
            Value::Object(fields) => {
                // Any keyword besides one of these may have to be merged with it.
                let combined = ["$ref", "allOf", "anyOf", "oneOf"]
                    .iter()
                    .any(|name| fields.contains_key(*name));
                let several = fields
                    .get("allOf")
                    .and_then(Value::as_array)
                    .is_some_and(|all| all.len() > 1);
                let beside = fields.keys().filter(|name| {
                    !["title", "description", "default", "$defs"].contains(&&***name)
                });
                self.merges |= several || combined && beside.count() > 1;
                if fields
                    .get("multipleOf")
                    .and_then(Value::as_f64)
                    .is_some_and(|step| step > LARGEST_STEP)
                {
                    return Err(format!("`multipleOf` above {LARGEST_STEP}"));
                }
                let mut sum: u64 = 1;
                for (name, value) in fields {
                    let size = match value {
                        Value::String(to) if name == "$ref" => self.referred(to)?,
                        other => self.size(other)?,
                    };
                    sum = sum.saturating_add(size);
                }
                Ok(sum)
            }
            _ => Ok(1),
        }
    }

    fn referred(&mut self, to: &'a str) -> Result<u64, String> {
        if let Some(known) = self.sizes.get(to) {
            return Ok(known.unwrap_or(1));
        }
        let place = to
            .strip_prefix('#')
            .filter(|place| place.is_empty() || place.starts_with('/'));
        let Some(place) = place else {
            return Err(format!(
                "`$ref` to {}, expected a path in the schema (`#/…`)",
                short(to)
            ));
        };
        self.sizes.insert(to, None);
        let size = match self.root.pointer(place) {
            Some(schema) => self.size(schema)?,
            None => 1,
        };
        self.sizes.insert(to, Some(size));
        Ok(size)
    }
}
