//! Dates.

use std::time::{SystemTime, UNIX_EPOCH};

/// A time as `2026-11-30 14:05 UTC`. Times before 1970 are shown as its beginning.
pub fn utc_date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (day, minutes) = (seconds / 86_400, seconds / 60 % 1440);
    // The calendar repeats after 400 years.
    let mut year = 1970 + 400 * (day / 146_097);
    let mut day = day % 146_097;
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    format!(
        "{year}-{month:02}-{:02} {:02}:{:02} UTC",
        day + 1,
        minutes / 60,
        minutes % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Expected values are those of `date -u -d @SECONDS`.
    #[test]
    fn dates_match_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_827_696, "2000-02-29 12:34 UTC"),
            (1_796_047_500, "2026-11-30 14:05 UTC"),
            (4_107_542_399, "2100-02-28 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
            (253_402_300_800, "10000-01-01 00:00 UTC"),
            (1 << 62, "146138514283-06-19 07:45 UTC"),
        ] {
            assert_eq!(
                utc_date(UNIX_EPOCH + Duration::from_secs(seconds)),
                expected
            );
        }
    }
}
