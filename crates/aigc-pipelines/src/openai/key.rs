//! The key of an API, which is never shown.

use super::{ImagesApiError, ImagesApiErrorKind};
use std::fmt;

/// What replaces the key in texts.
const HIDDEN: &str = "[key]";

/// The key of an API. `Debug` and `Display` hide it, and there is no way to read it back.
#[derive(Clone)]
pub struct ApiKey(String);

impl ApiKey {
    /// A key; white space around it is removed.
    ///
    /// # Errors
    /// [`ImagesApiErrorKind::Configuration`] if the key is empty or cannot be sent in a header. The
    /// error does not show it.
    pub fn new(key: impl AsRef<str>) -> Result<Self, ImagesApiError> {
        let key = key.as_ref().trim();
        let wrong = if key.is_empty() {
            "is empty"
        } else if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            "has a space or a character outside ASCII"
        } else {
            return Ok(Self(key.into()));
        };
        Err(ImagesApiError::new(
            ImagesApiErrorKind::Configuration,
            format!("the API key {wrong}"),
        ))
    }

    /// The value of the header `Authorization`.
    pub(super) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// `text` with the key replaced wherever it occurs. Servers repeat it in error messages.
    pub(super) fn redact(&self, text: &str) -> String {
        text.replace(&self.0, HIDDEN)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({HIDDEN})")
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_never_shown() {
        let key = ApiKey::new(" sk-secret\n").unwrap();
        assert_eq!(key.bearer(), "Bearer sk-secret");
        assert_eq!(key.redact("no sk-secret, sk-secret2"), "no [key], [key]2");
        for shown in [format!("{key:?}"), format!("{key:#?}"), format!("{key}")] {
            assert!(!shown.contains("secret"), "{shown}");
        }
        for bad in ["", " ", "sk-sec ret", "sk-secrét", "sk-sec\nret"] {
            let error = ApiKey::new(bad).unwrap_err();
            assert_eq!(error.kind(), ImagesApiErrorKind::Configuration);
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("sk-sec"), "{shown}");
        }
    }
}
