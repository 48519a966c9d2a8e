//! Who may send requests: clients with the key, or where there is none, programs of this machine.

use crate::error::ApiError;
use axum::http::{
    HeaderMap, Uri,
    header::{AUTHORIZATION, ORIGIN},
};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
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
}

/// Fails unless the headers have the key.
pub(crate) fn check_key(key: &KeyDigest, headers: &HeaderMap) -> Result<(), ApiError> {
    let value = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
    let Some(value) = value else {
        return Err(ApiError::key(
            "You didn't provide an API key. Send it in the header Authorization: Bearer KEY.",
        ));
    };
    let sent = match value.split_once(' ') {
        Some((scheme, sent)) if scheme.eq_ignore_ascii_case("bearer") => sent.trim(),
        _ => "",
    };
    match key.is_of(sent) {
        true => Ok(()),
        false => Err(ApiError::key("Incorrect API key provided.")),
    }
}

/// Fails if the request comes from a page of another site: a browser on this machine reaches a
/// loopback address for every page that it shows, and names the page's site in `Origin`.
pub(crate) fn check_origin(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or_default();
    let host = origin.parse::<Uri>().ok();
    let host = host.as_ref().and_then(Uri::host).unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']');
    let is_local = host.eq_ignore_ascii_case("localhost")
        || ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match is_local {
        true => Ok(()),
        false => Err(ApiError::origin(origin)),
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
            check_key(&digest, &headers)
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
        assert!(check_key(&digest, &HeaderMap::new()).is_err());
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let check = |origin: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, origin.parse().unwrap());
            check_origin(&headers).map_err(|error| error.status.as_u16())
        };
        assert!(check_origin(&HeaderMap::new()).is_ok());
        for local in [
            "http://localhost:3000",
            "http://127.0.0.1",
            "http://[::1]:80",
        ] {
            assert_eq!(check(local), Ok(()), "{local}");
        }
        for other in [
            "https://example.org",
            "http://localhost.example.org",
            "http://10.0.0.1",
            "null",
            "",
        ] {
            assert_eq!(check(other), Err(403), "{other}");
        }
    }
}
