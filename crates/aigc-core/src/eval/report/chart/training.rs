//! The curves of a run.

use super::{LineChart, Series};
use crate::train::MetricsRecord;
use std::collections::BTreeMap;

/// Charts of the lines of a run's `metrics.jsonl` ([`read_metrics`](crate::train::read_metrics)):
/// one of all losses, with those on held-out data, then one for each other value that was logged
/// more than once. The learning rate is left out.
pub fn training_charts(records: &[MetricsRecord]) -> Vec<LineChart> {
    // By chart, then by the name of the curve.
    let mut charts: BTreeMap<String, BTreeMap<String, Vec<(f64, f64)>>> = BTreeMap::new();
    for record in records {
        for (name, value) in record
            .values
            .iter()
            .filter(|(name, _)| *name != "learning_rate")
        {
            let held_out = record.kind == "evaluate";
            let chart = if name.contains("loss") {
                ""
            } else {
                name.as_str()
            };
            let curve = if held_out {
                format!("held-out {name}")
            } else {
                name.clone()
            };
            charts
                .entry(chart.to_string())
                .or_default()
                .entry(curve)
                .or_default()
                .push((record.step as f64, value.unwrap_or(f64::NAN)));
        }
    }
    let mut out = Vec::new();
    for (name, curves) in charts {
        if !name.is_empty() && curves.values().all(|points| points.len() < 2) {
            continue;
        }
        let (title, label) = if name.is_empty() {
            ("Losses".to_string(), "loss")
        } else {
            (name.clone(), name.as_str())
        };
        let mut chart = LineChart::new(title, "step", label);
        // Over two decades, a linear scale shows little but the beginning.
        if over_decades(&curves, 2.0) {
            chart = chart.with_log_y();
        }
        for (curve, points) in curves {
            chart = chart.with_series(Series::new(curve, points));
        }
        out.push(chart);
    }
    out
}

/// Whether all values are positive and span more than `decades`.
fn over_decades(curves: &BTreeMap<String, Vec<(f64, f64)>>, decades: f64) -> bool {
    let values = curves.values().flatten().map(|p| p.1);
    let (low, high) = values
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, 0.0f64), |(low, high), v| {
            (low.min(v), high.max(v))
        });
    low > 0.0 && low.is_finite() && (high / low).log10() > decades
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_share_a_chart() {
        let record = |step, kind: &str, values: &[(&str, Option<f64>)]| MetricsRecord {
            step,
            kind: kind.into(),
            values: values
                .iter()
                .map(|(name, value)| (name.to_string(), *value))
                .collect(),
            seconds: 0.0,
        };
        let records = [
            record(
                1,
                "train",
                &[("loss", Some(500.0)), ("learning_rate", Some(1e-3))],
            ),
            record(2, "train", &[("loss", None), ("learning_rate", Some(1e-3))]),
            record(2, "evaluate", &[("loss", Some(1.0)), ("fid", Some(9.0))]),
            record(
                3,
                "evaluate",
                &[("loss", Some(0.9)), ("fid", Some(8.0)), ("once", Some(1.0))],
            ),
        ];
        let charts = training_charts(&records);
        let drawn: Vec<String> = charts
            .iter()
            .map(|chart| {
                let mut out = String::new();
                chart.render(&mut out, 0);
                out
            })
            .collect();
        assert_eq!(drawn.len(), 2);
        assert!(drawn[0].contains("held-out loss") && drawn[0].contains("Logarithmic"));
        assert!(drawn[1].contains("held-out fid") && !drawn[1].contains("Logarithmic"));
        assert!(drawn.iter().all(|chart| !chart.contains("learning_rate")));
        assert!(training_charts(&[]).is_empty());
    }
}
