//! Numbers with the digits that they carry.

/// A value and its interval with as many decimals as the interval justifies: half its width has
/// two significant digits below 3, one from 3 on.
pub(super) fn with_interval(value: f64, interval: Option<(f64, f64)>) -> (String, Option<String>) {
    let shown = |value| match decimals(interval) {
        Some(decimals) => fixed(value, decimals),
        None => plain(value),
    };
    let interval = interval.map(|(low, high)| format!("{} to {}", shown(low), shown(high)));
    (shown(value), interval)
}

/// A value to compare with one that has this interval, with the same decimals unless they would
/// make it zero.
pub(super) fn beside(value: f64, interval: Option<(f64, f64)>) -> String {
    match decimals(interval) {
        Some(decimals) if value.abs() >= 0.5 * 10f64.powi(-(decimals as i32)) => {
            fixed(value, decimals)
        }
        _ => plain(value),
    }
}

fn decimals(interval: Option<(f64, f64)>) -> Option<usize> {
    let (low, high) = interval?;
    let half = (high - low) / 2.0;
    let size = low.abs().max(high.abs());
    if half <= 0.0 || !(1e-4..1e7).contains(&size) {
        return None;
    }
    let exponent = half.log10().floor();
    let digits = if half / 10f64.powf(exponent) < 3.0 {
        1.0
    } else {
        0.0
    };
    Some((digits - exponent).clamp(0.0, 8.0) as usize)
}

/// Four significant digits; integers below ten millions in full.
pub(super) fn plain(value: f64) -> String {
    significant(value, 4)
}

/// A number of significant digits; integers below ten millions in full.
pub(super) fn significant(value: f64, digits: usize) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return "not a number".into();
    }
    if size == 0.0 || (size < 1e7 && value.fract() == 0.0) {
        return fixed(value, 0);
    }
    if !(1e-4..1e7).contains(&size) {
        let exponent = size.log10().floor() as i32;
        let mantissa = trimmed(fixed(value / 10f64.powi(exponent), 2));
        return format!("{mantissa} × 10{}", superscript(exponent));
    }
    let decimals = (digits as f64 - 1.0 - size.log10().floor()).max(0.0) as usize;
    trimmed(fixed(value, decimals))
}

/// A share of 1 in per cent, with two significant digits.
pub(super) fn percent(share: f64) -> String {
    let value = 100.0 * share;
    format!("{}\u{a0}%", trimmed(fixed(value, percent_decimals(value))))
}

fn percent_decimals(value: f64) -> usize {
    let size = value.abs();
    if size == 0.0 || size >= 10.0 {
        0
    } else {
        (1.0 - size.log10().floor()).clamp(0.0, 6.0) as usize
    }
}

/// As [`percent`], rounded up: a bound that holds.
pub(super) fn percent_up(share: f64) -> String {
    let value = 100.0 * share;
    let decimals = percent_decimals(value);
    let scale = 10f64.powi(decimals as i32);
    let value = (value * scale - 1e-9).ceil() / scale;
    format!("{}\u{a0}%", trimmed(fixed(value, decimals)))
}

/// An integer with commas between thousands.
pub(super) fn integer(value: u64) -> String {
    fixed(value as f64, 0)
}

/// A fixed number of decimals, commas between thousands, and a true minus sign.
pub(super) fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text.as_str(), None),
    };
    let mut out = String::new();
    if value < 0.0 && text.bytes().any(|b| (b'1'..=b'9').contains(&b)) {
        out.push('−');
    }
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// Without zeros at the end of decimals.
fn trimmed(text: String) -> String {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    } else {
        text
    }
}

pub(super) fn superscript(exponent: i32) -> String {
    exponent
        .to_string()
        .chars()
        .map(|c| match c {
            '1' => '¹',
            '2' => '²',
            '3' => '³',
            '0' | '4'..='9' => {
                char::from_u32(u32::from('⁰') + u32::from(c) - u32::from('0')).unwrap_or(c)
            }
            _ => '⁻',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_decides_digits() {
        let shown = |value, low, high| {
            let (value, interval) = with_interval(value, Some((low, high)));
            format!("{value} ({})", interval.unwrap())
        };
        assert_eq!(shown(12.3456, 11.8, 12.9), "12.3 (11.8 to 12.9)");
        assert_eq!(shown(12.3456, 12.2, 12.5), "12.35 (12.20 to 12.50)");
        assert_eq!(shown(1234.5, 1100.0, 1400.0), "1,234 (1,100 to 1,400)");
        assert_eq!(shown(0.97123, 0.9651, 0.9768), "0.971 (0.965 to 0.977)");
        assert_eq!(shown(-0.021, -0.3, 0.3), "−0.02 (−0.30 to 0.30)");
        assert_eq!(shown(2.5, 2.5, 2.5), "2.5 (2.5 to 2.5)");
        assert_eq!(beside(0.95123, Some((0.9651, 0.9768))), "0.951");
        assert_eq!(beside(0.00004, Some((0.9651, 0.9768))), "4 × 10⁻⁵");
        assert_eq!(beside(0.95123, None), "0.9512");
    }

    #[test]
    fn plain_numbers_have_four_digits() {
        for (value, expected) in [
            (0.0, "0"),
            (1000.0, "1,000"),
            (0.98, "0.98"),
            (12.34567, "12.35"),
            (12345.67, "12,346"),
            (0.000012345, "1.23 × 10⁻⁵"),
            (-1234567890.0, "−1.23 × 10⁹"),
            (f64::NAN, "not a number"),
        ] {
            assert_eq!(plain(value), expected);
        }
        assert_eq!(significant(0.12812, 3), "0.128");
        assert_eq!(percent(0.003), "0.3\u{a0}%");
        assert_eq!(percent(0.5), "50\u{a0}%");
        assert_eq!(percent(0.0), "0\u{a0}%");
        assert_eq!(percent(0.010_036), "1\u{a0}%");
        assert_eq!(percent_up(0.010_036), "1.1\u{a0}%");
        assert_eq!(percent_up(0.003), "0.3\u{a0}%");
        assert_eq!(percent_up(0.2501), "26\u{a0}%");
        assert_eq!(fixed(-0.001, 1), "0.0");
        assert_eq!(integer(1_234_567), "1,234,567");
    }
}
