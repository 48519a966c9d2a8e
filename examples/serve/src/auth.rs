//! The key that clients send.

use crate::error::ApiError;
use axum::http::{HeaderMap, header::AUTHORIZATION};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The digest of a key. Digests have one length, so that the time of a comparison does not depend
/// on the key.
#[derive(Clone)]
pub(crate) struct KeyDigest([u8; 32]);

impl KeyDigest {
    pub(crate) fn new(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    fn is_of(&self, key: &str) -> bool {
        self.0.ct_eq(&Self::new(key).0).into()
    }

    /// Fails unless the headers have the key.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let value = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
        let Some(value) = value else {
            return Err(ApiError::key(
                "You didn't provide an API key. Send it in the header Authorization: Bearer KEY.",
            ));
        };
        let key = match value.split_once(' ') {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => key.trim(),
            _ => "",
        };
        match self.is_of(key) {
            true => Ok(()),
            false => Err(ApiError::key("Incorrect API key provided.")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_is_accepted() {
        let digest = KeyDigest::new("sk-secret");
        let check = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            digest.check(&headers)
        };
        for good in ["Bearer sk-secret", "bearer sk-secret", "Bearer  sk-secret "] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "sk-secret",
            "Basic sk-secret",
            "Bearer",
            "Bearer ",
            "Bearer sk-secre",
            "Bearer sk-secret2",
            "Bearer SK-SECRET",
        ] {
            let error = check(bad).unwrap_err();
            assert_eq!(error.status.as_u16(), 401, "{bad}");
            assert!(!error.message.to_lowercase().contains("sk-secre"), "{bad}");
        }
        assert!(digest.check(&HeaderMap::new()).is_err());
    }
}
