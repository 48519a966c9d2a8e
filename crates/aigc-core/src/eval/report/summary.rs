//! What the numbers mean, in plain words, by rules.

use super::{
    Aspect, Better, Measure, Report,
    html::counted,
    number::{beside, fixed, integer, percent, percent_up, plain, with_interval},
};
use crate::{Error, Result, eval::Proportion};
use serde::Serialize;

/// Measures of an aspect that the summary tells of.
const PER_ASPECT: usize = 3;

/// A sentence or two on a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Statement {
    pub(super) topic: &'static str,
    pub(super) text: String,
}

/// The statements at the top of a report.
pub(super) fn statements(report: &Report) -> Vec<Statement> {
    let mut out = Vec::new();
    for aspect in Aspect::ALL {
        let of_aspect = report.measures.iter().filter(|m| m.aspect == aspect);
        for measure in of_aspect.take(PER_ASPECT) {
            out.push(Statement {
                topic: aspect.name(),
                text: statement(measure),
            });
        }
    }
    let (valid, files) = report.provenance_counts();
    if files > 0 {
        let text = if valid == files {
            format!(
                "All {} carry a valid record of where they came from.",
                counted(files, "file")
            )
        } else {
            format!(
                "{} of {} carry a valid record of where they came from.",
                integer(valid as u64),
                counted(files, "file")
            )
        };
        out.push(Statement {
            topic: "Provenance",
            text,
        });
    }
    out
}

/// What a measure says, against its floor or target.
fn statement(measure: &Measure) -> String {
    if let Some(statement) = &measure.statement {
        return statement.clone();
    }
    let (value, interval) = with_interval(measure.value, measure.interval);
    let shown = match interval {
        Some(interval) => format!("{} is {value} ({interval})", measure.name),
        None => format!("{} is {value}", measure.name),
    };
    let (low, high) = measure.interval.unwrap_or((measure.value, measure.value));
    let has_interval = measure.interval.is_some();
    // Around 0 the width says nothing about the digits of the value.
    let wide = has_interval && high - low > 0.5 * measure.value.abs() && !(low < 0.0 && 0.0 < high);
    let real = |floor| beside(floor, measure.interval);
    let like_real = |floor: f64| match has_interval && (low..=high).contains(&floor) {
        true => format!(
            "{shown}, not distinguishable from real data ({}) with these samples.",
            real(floor)
        ),
        false => format!("{shown}, no worse than real data ({}).", real(floor)),
    };
    let mut text = match (measure.better, measure.floor) {
        (Better::Target(target), _) => {
            let ideal = plain(target);
            if !has_interval {
                format!("{shown}; the ideal is {ideal}.")
            } else if measure.value > target && low > target {
                format!("{shown}, above the ideal {ideal}.")
            } else if measure.value < target && high < target {
                format!("{shown}, below the ideal {ideal}.")
            } else if wide {
                format!("{shown}, with the ideal {ideal} within its interval.")
            } else {
                format!("{shown}, consistent with the ideal {ideal}.")
            }
        }
        (Better::Lower, Some(floor)) if low <= floor => like_real(floor),
        (Better::Higher, Some(floor)) if high >= floor => like_real(floor),
        (Better::Lower, Some(floor)) if floor > 0.0 => format!(
            "{shown}: {} times what real data reaches ({}).",
            ratio(measure.value / floor),
            real(floor)
        ),
        (Better::Higher, Some(floor)) if floor > 0.0 && measure.value >= 0.0 => format!(
            "{shown}: {} of what real data reaches ({}).",
            percent(measure.value / floor),
            real(floor)
        ),
        (better, Some(floor)) => format!(
            "{shown}, {} the {} that real data reaches.",
            if better == Better::Lower {
                "above"
            } else {
                "below"
            },
            real(floor)
        ),
        (better, None) => format!(
            "{shown}; {} is better. Real data was not measured, so this compares only with values \
             for the same reference set.",
            if better == Better::Lower {
                "lower"
            } else {
                "higher"
            },
        ),
    };
    if wide {
        text.push_str(" The interval is wide: more samples would narrow it.");
    }
    text
}

fn ratio(ratio: f64) -> String {
    if ratio < 10.0 {
        fixed(ratio, 1)
    } else {
        fixed(ratio, 0)
    }
}

impl Measure {
    /// The share of samples that a detector flags as copies, with its Wilson interval of 95 %.
    /// The summary compares it with the detector's false-alarm rate on real data, if known.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no samples or more copies than samples, or a rate
    /// outside `[0, 1]`.
    pub fn copies(found: usize, samples: usize, false_alarm_rate: Option<f64>) -> Result<Measure> {
        if samples == 0 {
            return Err(Error::argument("samples", 0, "at least 1"));
        }
        if found > samples {
            let expected = format!("at most {samples}, the samples");
            return Err(Error::argument("found", found, expected));
        }
        if let Some(rate) = false_alarm_rate
            && !(0.0..=1.0).contains(&rate)
        {
            return Err(Error::argument("false_alarm_rate", rate, "0 to 1"));
        }
        let n = samples as f64;
        let share = Proportion::new(found, samples)?;
        let (low, high) = share.interval();
        let among = counted(samples, "sample");
        let statement = match false_alarm_rate {
            _ if found == 0 => format!(
                "No copies found among {among}: with 95 % confidence, fewer than {} of all samples \
                 are copies that the detector can find.",
                // The share of which no sample of n is one, with probability 5 %.
                percent_up(1.0 - 0.05f64.powf(1.0 / n))
            ),
            Some(rate) => {
                let expected = rate * n;
                // Two standard deviations of a binomial count.
                let most = expected + 2.0 * (expected * (1.0 - rate)).sqrt();
                let flagged = format!("{} of {among} flagged as copies", integer(found as u64));
                if found as f64 <= most {
                    format!(
                        "{flagged}, no more than chance explains: a false-alarm rate of {} gives \
                         about {}.",
                        percent(rate),
                        plain(expected.round())
                    )
                } else {
                    format!(
                        "{flagged}, where false alarms explain about {}: look at the flagged \
                         samples.",
                        plain(expected.round())
                    )
                }
            }
            None => format!(
                "{} of {among} flagged as copies of training data.",
                integer(found as u64)
            ),
        };
        let share = share.value();
        let measure = Measure::new(Aspect::Originality, "Copies", share, Better::Lower, samples)
            .with_interval(low, high)
            .with_confidence(0.95)
            .with_explanation("The share of samples that the copy detector flags.")
            .with_statement(statement);
        Ok(match false_alarm_rate {
            Some(rate) => measure.with_floor(rate),
            None => measure,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quality(value: f64, better: Better) -> Measure {
        Measure::new(Aspect::Quality, "FID", value, better, 1000)
    }

    #[test]
    fn statements_follow_floor_and_target() {
        for (measure, expected) in [
            (
                quality(4.4, Better::Lower).with_floor(2.0),
                "FID is 4.4: 2.2 times what real data reaches (2).",
            ),
            (
                quality(2.1, Better::Lower)
                    .with_interval(1.9, 2.3)
                    .with_floor(2.0),
                "FID is 2.10 (1.90 to 2.30), not distinguishable from real data (2.00) with these \
                 samples.",
            ),
            (
                quality(0.45, Better::Higher).with_floor(0.9),
                "FID is 0.45: 50\u{a0}% of what real data reaches (0.9).",
            ),
            (
                quality(1.9, Better::Lower)
                    .with_interval(1.8, 1.98)
                    .with_floor(2.0),
                "FID is 1.90 (1.80 to 1.98), no worse than real data (2.00).",
            ),
            (
                quality(0.8, Better::Target(1.0)),
                "FID is 0.8; the ideal is 1.",
            ),
            (
                quality(0.8, Better::Target(1.0)).with_interval(0.75, 0.85),
                "FID is 0.80 (0.75 to 0.85), below the ideal 1.",
            ),
            (
                quality(0.8, Better::Target(1.0)).with_interval(0.5, 1.1),
                "FID is 0.8 (0.5 to 1.1), with the ideal 1 within its interval. The interval is \
                 wide: more samples would narrow it.",
            ),
            (
                quality(0.99, Better::Target(1.0)).with_interval(0.97, 1.01),
                "FID is 0.990 (0.970 to 1.010), consistent with the ideal 1.",
            ),
            (
                quality(4.0, Better::Lower).with_statement("As told."),
                "As told.",
            ),
        ] {
            assert_eq!(statement(&measure), expected);
        }
        let wide = quality(4.0, Better::Lower).with_interval(1.0, 7.0);
        let text = statement(&wide);
        assert!(
            text.contains("was not measured") && text.ends_with("would narrow it."),
            "{text}"
        );
        // Unbiased distances of equal sets are around 0.
        let around_zero = quality(0.1, Better::Lower).with_interval(-0.3, 0.5);
        let text = statement(&around_zero.with_floor(0.0));
        assert!(text.ends_with("with these samples."), "{text}");
    }

    /// For no copies among n, the bound is near the rule of three.
    #[test]
    fn copies_are_compared_with_false_alarms() {
        let text = |found, rate| {
            let measure = Measure::copies(found, 1000, rate).unwrap();
            measure.validate().unwrap();
            statement(&measure)
        };
        let none = text(0, Some(0.01));
        assert!(
            none.starts_with("No copies found among 1,000 samples") && none.contains("0.3\u{a0}%"),
            "{none}"
        );
        assert!(text(13, Some(0.01)).contains("no more than chance explains"));
        assert!(text(40, Some(0.01)).contains("explain about 10: look"));
        assert!(text(40, None).ends_with("copies of training data."));
        assert!(Measure::copies(2, 1, None).is_err());
        assert!(Measure::copies(0, 0, None).is_err());
        assert!(Measure::copies(0, 1, Some(f64::NAN)).is_err());
    }
}
