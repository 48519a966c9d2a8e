//! Plots of losses over training steps.

use crate::{Error, Result, fs::write_atomic, train::MetricsRecord};
use plotters::prelude::*;
use std::{collections::BTreeMap, path::Path};

/// Limit on the points of a curve; longer series are averaged.
const MAX_POINTS: usize = 800;

/// Draws all losses and evaluations in `records` over the steps to the SVG file `path`. Without
/// any, no file is written.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written.
pub fn plot_losses(records: &[MetricsRecord], path: &Path) -> Result<()> {
    let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for record in records {
        for (name, value) in &record.values {
            if let (Some(value), true) = (value, name != "learning_rate") {
                let name = if record.kind == "evaluate" {
                    format!("held-out {name}")
                } else {
                    name.clone()
                };
                series
                    .entry(name)
                    .or_default()
                    .push((record.step as f64, *value));
            }
        }
    }
    let series: Vec<(String, Vec<(f64, f64)>)> =
        series.into_iter().map(|(n, p)| (n, thin(p))).collect();
    let points = || series.iter().flat_map(|(_, points)| points.iter().copied());
    if points().next().is_none() {
        return Ok(());
    }
    let fold =
        |pick: fn((f64, f64)) -> f64, with: fn(f64, f64) -> f64| points().map(pick).reduce(with);
    let (x0, x1) = (
        fold(|p| p.0, f64::min).unwrap_or(0.0),
        fold(|p| p.0, f64::max).unwrap_or(1.0),
    );
    // The first losses are far above all others, so the range excludes the top 2 % of the points.
    let mut heights: Vec<f64> = points().map(|p| p.1).collect();
    heights.sort_by(f64::total_cmp);
    let (low, high) = (heights[0], heights[(heights.len() - 1) * 98 / 100]);
    let margin = ((high - low) * 0.08).max(1e-9 + high.abs() * 1e-3);
    let mut svg = String::new();
    draw(
        &mut svg,
        &series,
        x0..x1.max(x0 + 1.0),
        low - margin..high + margin,
    )
    .map_err(|e| Error::other(format!("loss plot: {e}")))?;
    write_atomic(path, svg.as_bytes())
}

fn draw(
    svg: &mut String,
    series: &[(String, Vec<(f64, f64)>)],
    x: std::ops::Range<f64>,
    y: std::ops::Range<f64>,
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, (900, 500)).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, top) = (x.start, y.end);
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc("step")
        .x_label_formatter(&|step| format!("{step:.0}"))
        .light_line_style(WHITE.mix(0.0))
        .draw()?;
    for (i, (name, points)) in series.iter().enumerate() {
        let colour = Palette99::pick(i).to_rgba();
        let inside = points.iter().map(|(x, y)| (*x, y.min(top)));
        let line = chart.draw_series(LineSeries::new(inside, colour.stroke_width(2)))?;
        line.label(name.as_str())
            .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 14, y + 4)], colour.filled()));
        if let [(x, y)] = points[..] {
            chart.draw_series([Circle::new((x.max(left), y.min(top)), 3, colour.filled())])?;
        }
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}

/// Averages neighbours until at most [`MAX_POINTS`] are left.
fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let per = points.len().div_ceil(MAX_POINTS).max(1);
    let mean = |part: &[(f64, f64)]| {
        let n = part.len() as f64;
        (
            part[part.len() - 1].0,
            part.iter().map(|p| p.1).sum::<f64>() / n,
        )
    };
    points.chunks(per).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thin_keeps_mean_and_end() {
        let points: Vec<_> = (0..4000).map(|i| (i as f64, (i % 10) as f64)).collect();
        let thinned = thin(points);
        assert_eq!(thinned.len(), MAX_POINTS);
        assert_eq!(thinned.last().unwrap().0, 3999.0);
        assert!((thinned.iter().map(|p| p.1).sum::<f64>() / 800.0 - 4.5).abs() < 1e-9);
    }

    #[test]
    fn plot_losses_draws_and_names_every_series() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loss.svg");
        plot_losses(&[], &path).unwrap();
        assert!(!path.exists());
        let record = |step, kind: &str, name: &str, value| MetricsRecord {
            step,
            kind: kind.into(),
            values: BTreeMap::from([
                (name.to_string(), Some(value)),
                ("learning_rate".into(), Some(1e-3)),
            ]),
            seconds: 0.0,
        };
        let records = [
            record(10, "train", "loss", 3.0),
            record(20, "train", "loss", 2.0),
            record(20, "evaluate", "nelbo", 2.5),
        ];
        plot_losses(&records, &path).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        for text in ["<svg", "polyline", "held-out nelbo", "loss", "step"] {
            assert!(svg.contains(text), "{text} is missing");
        }
        assert!(!svg.contains("learning_rate"));
    }
}
