//! Ranges, ticks and their labels.

use super::super::number::{fixed, plain, superscript};

/// A range of values on a side of a chart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    log: bool,
}

impl Axis {
    /// An axis over finite values; for a logarithmic one, positive values.
    pub(super) fn new(low: f64, high: f64, log: bool) -> Self {
        let (mut low, mut high) = (low, high);
        if log && high / low < 1.01 {
            (low, high) = (low / 1.5, high * 1.5);
        } else if !log && high - low <= 1e-9 * high.abs().max(low.abs()) {
            let margin = if high == 0.0 { 1.0 } else { 0.5 * high.abs() };
            (low, high) = (low - margin, high + margin);
        }
        Self { low, high, log }
    }

    /// The same range with some space at both ends.
    pub(super) fn padded(self, share: f64) -> Self {
        let (low, high) = (self.place(self.low), self.place(self.high));
        let margin = share * (high - low);
        let back = |v: f64| if self.log { 10f64.powf(v) } else { v };
        Self {
            low: back(low - margin),
            high: back(high + margin),
            ..self
        }
    }

    /// Position of a value, 0 at the low end and 1 at the high one.
    pub(super) fn share(&self, value: f64) -> f64 {
        let (low, high) = (self.place(self.low), self.place(self.high));
        (self.place(value) - low) / (high - low)
    }

    fn place(&self, value: f64) -> f64 {
        if self.log { value.log10() } else { value }
    }

    /// Round values inside the range with labels.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        let inside = |v: &f64| (-1e-9..=1.0 + 1e-9).contains(&self.share(*v));
        if self.log {
            let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
            let skip = (self.high / self.low).log10() as usize / 6 + 1;
            let with = |factors: &[f64]| -> Vec<f64> {
                decades
                    .clone()
                    .step_by(skip)
                    .flat_map(|k| factors.iter().map(move |f| f * 10f64.powi(k)))
                    .filter(inside)
                    .collect()
            };
            let found = [&[1.0][..], &[1.0, 3.0], &[1.0, 2.0, 5.0]]
                .into_iter()
                .map(with)
                .find(|ticks| ticks.len() >= 3);
            // Less than a decade: an even division is as good.
            return match found {
                Some(ticks) => ticks.into_iter().map(|v| (v, short(v))).collect(),
                None => Self {
                    log: false,
                    ..*self
                }
                .ticks(),
            };
        }
        let rough = (self.high - self.low) / 5.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|step| *step >= rough * 0.7)
            .unwrap_or(power);
        let first = (self.low / step).ceil() as i64;
        let (unit, name) = unit(self.high.abs().max(self.low.abs()));
        // As many decimals as tell one step from the next.
        let decimals = (-(step / unit).log10().floor()).clamp(0.0, 9.0) as usize;
        (first..first + 12)
            .map(|k| k as f64 * step)
            .filter(inside)
            .map(|v| match v == 0.0 && unit != 1.0 {
                true => (v, "0".into()),
                false => (v, format!("{}{name}", fixed(v / unit, decimals))),
            })
            .collect()
    }
}

/// The unit of the labels of an even axis, and its name: thousands as k, millions as M.
fn unit(largest: f64) -> (f64, String) {
    match largest {
        _ if (1e-3..1e4).contains(&largest) || largest == 0.0 => (1.0, String::new()),
        _ if (1e4..1e6).contains(&largest) => (1e3, "k".into()),
        _ if (1e6..1e9).contains(&largest) => (1e6, "M".into()),
        _ => {
            let exponent = largest.log10().floor() as i32;
            (
                10f64.powi(exponent),
                format!(" × 10{}", superscript(exponent)),
            )
        }
    }
}

/// The label of a power of ten or a multiple, on a logarithmic axis.
fn short(value: f64) -> String {
    match value.abs() {
        size if (1e6..1e9).contains(&size) => format!("{}M", plain(value / 1e6)),
        size if (1e3..1e6).contains(&size) => format!("{}k", plain(value / 1e3)),
        _ => plain(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, log: bool) -> Vec<String> {
        let axis = Axis::new(low, high, log);
        axis.ticks().into_iter().map(|tick| tick.1).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(
            labels(0.0, 1.0, false),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
        );
        assert_eq!(labels(0.0, 15000.0, false), ["0", "5k", "10k", "15k"]);
        assert_eq!(labels(0.01, 100.0, true), ["0.01", "0.1", "1", "10", "100"]);
        assert_eq!(labels(1.0, 9.0, true), ["1", "2", "5"]);
        assert!(labels(2.0, 2.4, true).len() >= 3);
        assert!(labels(1e-9, 1e9, true).len() < 8);
    }

    #[test]
    fn labels_are_distinct() {
        for (low, high) in [
            (104_500.0, 104_550.0),
            (1_234_500.0, 1_234_550.0),
            (9_990.0, 10_010.0),
            (-2e10, 3.0001e10),
            (5.00e-5, 5.01e-5),
            (0.0, 2e-7),
            (0.1234, 0.1236),
        ] {
            let labels = labels(low, high, false);
            let distinct: std::collections::HashSet<&String> = labels.iter().collect();
            assert!(labels.len() >= 3, "{labels:?}");
            assert_eq!(distinct.len(), labels.len(), "{labels:?}");
        }
        let thousands = labels(104_500.0, 104_550.0, false);
        assert_eq!(thousands[..2], ["104.50k", "104.51k"]);
    }

    #[test]
    fn equal_values_have_a_range() {
        for (value, log) in [(0.0, false), (3.0, false), (-3.0, false), (3.0, true)] {
            let axis = Axis::new(value, value, log).padded(0.05);
            assert!((axis.share(value) - 0.5).abs() < 1e-6, "{value}");
            assert!(!axis.ticks().is_empty());
        }
    }
}
