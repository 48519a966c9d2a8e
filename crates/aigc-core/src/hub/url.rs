//! URLs, headers and names.

use crate::{Result, check::ensure_argument};
use ureq::{
    Body,
    http::{Response, Uri},
};

pub(super) fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response
        .headers()
        .get(name)
        .and_then(|value| value.to_str().ok())
}

/// The URL of a redirect from `url` to `location`, if it has the same host and is not less secure.
pub(super) fn same_host(url: &str, location: &str) -> Option<String> {
    let from: Uri = url.parse().ok()?;
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let next = if location.contains("://") {
        location.to_string()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let (dir, _) = from.path().rsplit_once('/')?;
        format!("{scheme}://{authority}{dir}/{location}")
    };
    let to: Uri = next.parse().ok()?;
    let is_safe = to.scheme() == from.scheme() || to.scheme_str() == Some("https");
    (is_safe && to.host()?.eq_ignore_ascii_case(from.host()?)).then_some(next)
}

pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Fails for a path that leads out of its directory on any operating system.
pub(super) fn check_path(field: &str, path: &str) -> Result<()> {
    let is_word = |word: &str| {
        !["", ".", ".."].contains(&word)
            && !word.contains(|c: char| c.is_control() || c == '\\' || c == ':')
    };
    ensure_argument(
        path.split('/').all(is_word),
        field,
        format!("{path:?}"),
        "a relative path with `/`, without `..`",
    )
}

/// Percent-encodes a segment of a URL.
pub(super) fn encoded(segment: &str) -> String {
    let byte = |b: u8| match b {
        b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
        _ if b.is_ascii_alphanumeric() => char::from(b).to_string(),
        _ => format!("%{b:02X}"),
    };
    segment.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_host_refuses_other_hosts() {
        let from = "https://hub.co/a/b?c";
        for (location, expected) in [
            ("/x/y?z", Some("https://hub.co/x/y?z")),
            ("x", Some("https://hub.co/a/x")),
            ("https://hub.co/x", Some("https://hub.co/x")),
            ("https://HUB.co/x", Some("https://HUB.co/x")),
            ("//evil.co/x", None),
            ("https://evil.co/x", None),
            ("https://hub.co@evil.co/x", None),
            ("https://hub.co.evil.co/x", None),
            ("http://hub.co/x", None),
            ("https://[", None),
            ("", Some("https://hub.co/a/")),
        ] {
            assert_eq!(same_host(from, location).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn check_path_refuses_escapes() {
        for bad in [
            "",
            "/etc/passwd",
            "../a",
            "a/../b",
            "a//b",
            "a/",
            "./a",
            "a\\b",
            "c:a",
            "a\nb",
            "a\0",
        ] {
            assert!(check_path("file name", bad).is_err(), "{bad:?}");
        }
        for good in ["a", "a/b.c", "refs/pr/1", "..a", "\u{e9} b"] {
            assert!(check_path("file name", good).is_ok(), "{good:?}");
        }
        assert_eq!(encoded("refs/pr/1 \u{e9}%"), "refs%2Fpr%2F1%20%C3%A9%25");
    }
}
