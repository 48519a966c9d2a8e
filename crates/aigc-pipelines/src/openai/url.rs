//! Addresses: which ones a key or a request may go to.

use super::{ImagesApiError, ImagesApiErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use ureq::http::Uri;

/// The host of the API itself.
const OFFICIAL_HOST: &str = "api.openai.com";

/// The base URL of an API, such as `https://api.openai.com/v1`.
#[derive(Clone, Debug)]
pub(super) struct BaseUrl {
    /// Without a slash at its end.
    text: String,
    host: String,
}

impl BaseUrl {
    /// Parses a base URL. It must be encrypted, unless its host is this machine.
    pub(super) fn parse(text: &str) -> Result<Self, ImagesApiError> {
        let text = text.trim().trim_end_matches('/');
        let fail = |reason: &str| {
            let message = format!(
                "the base URL {reason}; expected an address such as https://api.openai.com/v1"
            );
            ImagesApiError::new(ImagesApiErrorKind::Configuration, message)
        };
        // A password or a token is not shown, so the address is not either.
        if text.contains('@') {
            return Err(fail("has a user name or password"));
        }
        if text.contains(['?', '#']) {
            return Err(fail("has a query or a fragment"));
        }
        let uri: Uri = text
            .parse()
            .map_err(|_| fail(&format!("{text:?} is not valid")))?;
        let host = match (uri.scheme_str(), uri.host()) {
            (Some("https" | "http"), Some(host)) if !host.is_empty() => host.to_string(),
            _ => return Err(fail(&format!("{text:?} has no scheme (https) or no host"))),
        };
        if !has_valid_port(&uri) {
            return Err(fail(&format!("{text:?} has no valid port")));
        }
        if uri.scheme_str() == Some("http") && !is_loopback(&host) {
            return Err(fail(&format!(
                "{text:?} is not encrypted: http is possible to this machine only, such as \
                 http://127.0.0.1:8080/v1"
            )));
        }
        Ok(Self {
            text: text.into(),
            host,
        })
    }

    /// The URL of a path below the base URL.
    pub(super) fn join(&self, path: &str) -> String {
        format!("{}/{path}", self.text)
    }

    /// Whether the server is this machine.
    pub(super) fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// Whether the server is the API itself, not a compatible one.
    pub(super) fn is_official(&self) -> bool {
        self.host.eq_ignore_ascii_case(OFFICIAL_HOST)
    }
}

/// Whether the port of an address is missing, or a number that a port can be. The HTTP library
/// would replace others by the default.
fn has_valid_port(uri: &Uri) -> bool {
    let Some(authority) = uri.authority() else {
        return false;
    };
    let rest = authority.as_str().strip_prefix(authority.host());
    rest == Some("") || authority.port_u16().is_some_and(|port| port > 0)
}

/// Whether a host may be this machine: also names and numbers that systems take for it.
fn may_be_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if is_loopback(&host) || host.ends_with(".localhost") {
        return true;
    }
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.is_unspecified(),
        // `127.1`, `2130706433` and `0x7f000001` are numbers of this machine, too.
        Err(_) => {
            let last = host.rsplit('.').next().unwrap_or_default();
            last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit())
        }
    }
}

/// Whether a host is this machine: `localhost`, or a loopback address.
pub(super) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback(),
        Ok(IpAddr::V6(ip)) => {
            ip == Ipv6Addr::LOCALHOST
                || ip
                    .to_ipv4_mapped()
                    .as_ref()
                    .is_some_and(Ipv4Addr::is_loopback)
        }
        Err(_) => false,
    }
}

/// The address that `reference` in an answer from `url` means.
///
/// It must be encrypted. A server on this machine (`loopback`) may name addresses on this machine;
/// no other server may, or it could reach programs that trust this machine.
pub(super) fn resolve(url: &str, reference: &str, loopback: bool) -> Result<String, String> {
    let from: Uri = url.parse().map_err(|_| "the address is not valid")?;
    let (Some(scheme), Some(authority)) = (from.scheme_str(), from.authority()) else {
        return Err("the address is not absolute".into());
    };
    let reference = reference.trim();
    let is_scheme = |text: &str| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        !text.is_empty() && text.chars().all(is_part)
    };
    let before = reference.split_once("://").map(|(before, _)| before);
    let next = if before.is_some_and(is_scheme) {
        reference.to_string()
    } else if reference.starts_with("//") {
        format!("{scheme}:{reference}")
    } else if reference.starts_with('/') {
        format!("{scheme}://{authority}{reference}")
    } else {
        let dir = from.path().rsplit_once('/').map_or("", |(dir, _)| dir);
        format!("{scheme}://{authority}{dir}/{reference}")
    };
    let next = next.split('#').next().unwrap_or_default().to_string();
    let to: Uri = next.parse().map_err(|_| "the address is not valid")?;
    let host = to.host().filter(|host| !host.is_empty());
    let (Some(scheme), Some(host)) = (to.scheme_str(), host) else {
        return Err("the address has no host".into());
    };
    if to.authority().is_some_and(|a| a.as_str().contains('@')) {
        return Err("the address has a user name".into());
    }
    if !has_valid_port(&to) {
        return Err("the address has no valid port".into());
    }
    if !loopback && may_be_loopback(host) {
        return Err("the address is on this machine, the server is not".into());
    }
    match (scheme, is_loopback(host)) {
        ("https", _) | ("http", true) => Ok(next),
        ("http", false) => Err("the address is not encrypted".into()),
        _ => Err(format!("the address has the scheme {scheme:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_url_is_encrypted_or_loopback() {
        for (text, joined) in [
            ("https://api.openai.com/v1", "https://api.openai.com/v1/x"),
            ("https://api.openai.com/v1/", "https://api.openai.com/v1/x"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/x"),
            ("http://localhost:1/a/b", "http://localhost:1/a/b/x"),
            ("http://[::1]:1/v1", "http://[::1]:1/v1/x"),
        ] {
            assert_eq!(BaseUrl::parse(text).unwrap().join("x"), joined);
        }
        for text in [
            "http://api.openai.com/v1",
            "http://10.0.0.1/v1",
            "http://localhost.example.com/v1",
            "http://127.0.0.1.example.com/v1",
            "https://user:secret@api.openai.com/v1",
            "https://api.openai.com/v1?key=secret",
            "https://api.openai.com/v1#x",
            "api.openai.com/v1",
            "/v1",
            "ftp://api.openai.com",
            "https://",
            "http://127.0.0.1:99999/v1",
            "http://127.0.0.1:0/v1",
            "http://127.0.0.1:/v1",
            "",
        ] {
            let error = BaseUrl::parse(text).unwrap_err();
            assert_eq!(error.kind(), ImagesApiErrorKind::Configuration, "{text}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(
            BaseUrl::parse("https://API.openai.com/v1")
                .unwrap()
                .is_official()
        );
        assert!(
            !BaseUrl::parse("https://openai.com/v1")
                .unwrap()
                .is_official()
        );
    }

    #[test]
    fn picture_addresses_are_encrypted_or_loopback() {
        let remote = "https://api.co/v1/images/generations";
        for (reference, expected) in [
            ("https://cdn.co/x?sig=1", Some("https://cdn.co/x?sig=1")),
            ("//cdn.co/x", Some("https://cdn.co/x")),
            ("/files/x.png#y", Some("https://api.co/files/x.png")),
            ("x.png", Some("https://api.co/v1/images/x.png")),
            ("/x?of=http://a.co", Some("https://api.co/x?of=http://a.co")),
            ("http://cdn.co/x", None),
            ("http://127.0.0.1/x", None),
            ("https://localhost/x", None),
            ("https://LOCALHOST./x", None),
            ("https://a.localhost/x", None),
            ("https://0.0.0.0/x", None),
            ("https://[::]/x", None),
            ("https://[::ffff:127.0.0.1]/x", None),
            ("https://127.1/x", None),
            ("https://2130706433/x", None),
            ("https://0x7f000001/x", None),
            ("https://cdn.co:99999/x", None),
            ("https://10.0.0.1:8443/x", Some("https://10.0.0.1:8443/x")),
            ("https://a@cdn.co/x", None),
            ("file:///etc/passwd", None),
            ("https://[", None),
        ] {
            let found = resolve(remote, reference, false);
            assert_eq!(found.ok().as_deref(), expected, "{reference}");
        }
        let local = "http://127.0.0.1:8080/v1/images/generations";
        for (reference, expected) in [
            ("http://localhost:9/x", Some("http://localhost:9/x")),
            ("/v1/files/x", Some("http://127.0.0.1:8080/v1/files/x")),
            ("https://cdn.co/x", Some("https://cdn.co/x")),
            ("http://cdn.co/x", None),
        ] {
            let found = resolve(local, reference, true);
            assert_eq!(found.ok().as_deref(), expected, "{reference}");
        }
    }
}
