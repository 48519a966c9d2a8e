//! When a request is sent again, and after which wait.

use super::random::random_fraction;
use std::time::{Duration, SystemTime};
use ureq::http::HeaderMap;

/// The longest wait that a server may ask for; beyond it the client gives up.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(120);

const FIRST_BACKOFF: f64 = 0.5;
const MAX_BACKOFF: f64 = 8.0;

/// The wait before the next try, where the server names none: half a second, doubled with every
/// try up to 8 s, less up to a quarter by chance, so that clients do not return together.
///
/// `failed` is the number of tries so far, from 1.
pub(super) fn backoff(failed: u32) -> Duration {
    let doubled = FIRST_BACKOFF * 2f64.powi(failed.saturating_sub(1).min(16) as i32);
    Duration::from_secs_f64(doubled.min(MAX_BACKOFF) * (1.0 - 0.25 * random_fraction()))
}

/// The wait that the headers of an answer ask for: `retry-after-ms`, or `retry-after` in seconds or
/// as a date.
pub(super) fn asked_wait(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |text: &str| {
        let number: f64 = text.parse().ok()?;
        (number >= 0.0).then_some(number)
    };
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    if let Some(milliseconds) = text("retry-after-ms").and_then(number) {
        return Some(seconds(milliseconds / 1000.0));
    }
    let wanted = text("retry-after")?;
    if let Some(number) = number(wanted) {
        return Some(seconds(number));
    }
    let until = httpdate::parse_http_date(wanted).ok()?;
    // By the server's clock, if it shows it.
    let clock = text("date").and_then(|date| httpdate::parse_http_date(date).ok());
    Some(
        until
            .duration_since(clock.unwrap_or(now))
            .unwrap_or_default(),
    )
}

/// Whether the same request may succeed later. `x-should-retry` overrules the status.
pub(super) fn is_temporary(status: u16, headers: &HeaderMap) -> bool {
    match headers.get("x-should-retry").map(|value| value.as_bytes()) {
        Some(b"true") => true,
        Some(b"false") => false,
        _ => matches!(status, 408 | 409 | 429 | 500..),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::http::{HeaderName, HeaderValue};

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        lines.iter().map(header).collect()
    }

    #[test]
    fn backoff_doubles_up_to_eight_seconds() {
        for (failed, most) in [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (9, 8.0)] {
            for _ in 0..100 {
                let seconds = backoff(failed).as_secs_f64();
                assert!(
                    (0.75 * most..=most).contains(&seconds),
                    "{failed}: {seconds}"
                );
            }
        }
        let spread: std::collections::HashSet<_> = (0..100).map(|_| backoff(3)).collect();
        assert!(spread.len() > 50);
    }

    #[test]
    fn waits_are_read_in_every_form() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let later = ("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT");
        for (lines, expected) in [
            (
                &[("retry-after-ms", "250"), ("retry-after", "9")][..],
                Some(0.25),
            ),
            (&[("retry-after", "2")], Some(2.0)),
            (&[("retry-after", " 1.5 ")], Some(1.5)),
            (&[("retry-after", "0")], Some(0.0)),
            (&[later], Some(30.0)),
            (
                &[later, ("date", "Sun, 06 Nov 1994 08:50:00 GMT")],
                Some(7.0),
            ),
            (
                &[later, ("date", "Sun, 06 Nov 1994 09:00:00 GMT")],
                Some(0.0),
            ),
            (
                &[("retry-after-ms", "soon"), ("retry-after", "3")],
                Some(3.0),
            ),
            (&[("retry-after", "-1")], None),
            (&[("retry-after", "NaN")], None),
            (&[("retry-after", "soon")], None),
            (&[], None),
        ] {
            let found = asked_wait(&headers(lines), now).map(|wait| wait.as_secs_f64());
            assert_eq!(found, expected, "{lines:?}");
        }
        let endless = asked_wait(&headers(&[("retry-after", "1e300")]), now);
        assert!(endless.unwrap() > MAX_WAIT);
    }

    #[test]
    fn header_overrules_the_status() {
        for (status, header, expected) in [
            (429, None, true),
            (408, None, true),
            (409, None, true),
            (500, None, true),
            (503, None, true),
            (400, None, false),
            (401, None, false),
            (404, None, false),
            (302, None, false),
            (500, Some("false"), false),
            (400, Some("true"), true),
            (429, Some("odd"), true),
        ] {
            let lines = header.map(|value| ("x-should-retry", value));
            let found = is_temporary(status, &headers(lines.as_slice()));
            assert_eq!(found, expected, "{status} {header:?}");
        }
    }
}
