//! The result of opening a pretrained model.

use std::{fmt::Display, ops::Deref};

/// A value opened from files, with a report of what was not used.
///
/// Dereferences to the value; [`into_inner`](Self::into_inner) returns it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded<T> {
    /// The value.
    pub value: T,
    /// Unknown configuration fields, which were ignored.
    pub unused_fields: Vec<String>,
    /// Names of tensors in the files without a parameter in the model.
    pub unused_tensors: Vec<String>,
    /// Deviations of the files from the usual layout: the variant that was opened, prefixes that
    /// were removed.
    pub notes: Vec<String>,
}

impl<T> Loaded<T> {
    /// A value with an empty report.
    pub fn new(value: T) -> Self {
        Self {
            value,
            unused_fields: vec![],
            unused_tensors: vec![],
            notes: vec![],
        }
    }

    /// Adds configuration fields that were ignored.
    pub fn with_unused_fields(mut self, fields: Vec<String>) -> Self {
        self.unused_fields.extend(fields);
        self
    }

    /// Returns the value.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// Transforms the value; the report stays.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Loaded<U> {
        let Self {
            value,
            unused_fields,
            unused_tensors,
            notes,
        } = self;
        Loaded {
            value: f(value),
            unused_fields,
            unused_tensors,
            notes,
        }
    }

    /// Transforms the value, which may fail; the report stays.
    ///
    /// # Errors
    /// Errors of `f`.
    pub fn try_map<U, E>(self, f: impl FnOnce(T) -> Result<U, E>) -> Result<Loaded<U>, E> {
        let Self {
            value,
            unused_fields,
            unused_tensors,
            notes,
        } = self;
        Ok(Loaded {
            value: f(value)?,
            unused_fields,
            unused_tensors,
            notes,
        })
    }

    /// Adds the report of a part, and returns the part.
    pub fn merge<U>(&mut self, part: Loaded<U>) -> U {
        self.unused_fields.extend(part.unused_fields);
        self.unused_tensors.extend(part.unused_tensors);
        self.notes.extend(part.notes);
        part.value
    }

    /// The report as lines to print, one for each kind of entry.
    pub fn warnings(&self) -> Vec<String> {
        /// Limit on the names in a line.
        const LISTED: usize = 8;
        let line = |what: &str, names: &[String]| {
            let more = names.len().saturating_sub(LISTED);
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            format!(
                "{what}: {}{more}",
                names[..names.len().min(LISTED)].join(", ")
            )
        };
        let kinds = [
            ("configuration fields not used", &self.unused_fields),
            ("tensors not used", &self.unused_tensors),
        ];
        let unused = kinds.iter().filter(|(_, names)| !names.is_empty());
        unused
            .map(|(what, names)| line(what, names))
            .chain(self.notes.iter().cloned())
            .collect()
    }
}

impl<T> Deref for Loaded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Display for Loaded<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.warnings().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_name_unused_fields_and_tensors() {
        let tensors = (0..10).map(|i| format!("head.{i}")).collect();
        let mut whole = Loaded {
            unused_tensors: tensors,
            ..Loaded::new(1)
        };
        let part = Loaded::new("part").with_unused_fields(vec!["dropout".into()]);
        assert_eq!((whole.merge(part), *whole), ("part", 1));
        let lines = whole.warnings();
        assert_eq!(lines[0], "configuration fields not used: dropout");
        assert!(lines[1].ends_with("head.7 and 2 more"), "{}", lines[1]);
        assert!(Loaded::new(1).warnings().is_empty());
    }
}
