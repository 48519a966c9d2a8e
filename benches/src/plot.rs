//! Plot of cost against size.

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use std::path::Path;

/// Times of both sides at one size.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Batch size, width or image side.
    pub size: f64,
    /// Our time in milliseconds.
    pub ours: f64,
    /// PyTorch's time in milliseconds.
    pub peer: Option<f64>,
}

/// Plots one panel per name to an SVG file, with logarithmic axes for size and time.
///
/// # Errors
/// If the file cannot be written.
pub fn draw_costs(panels: &[(String, Vec<Cost>)], path: &Path) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| anyhow!("{}: {error}", path.display());
    let all = || {
        panels
            .iter()
            .flat_map(|(_, costs)| costs)
            .flat_map(|cost| [Some(cost.ours), cost.peer])
            .flatten()
    };
    let (low, high) = (
        all().fold(f64::INFINITY, f64::min),
        all().fold(0.0, f64::max),
    );
    let root = SVGBackend::new(path, (330 * panels.len() as u32, 330)).into_drawing_area();
    root.fill(&WHITE).map_err(|e| failed(&e))?;
    for (area, (name, costs)) in root.split_evenly((1, panels.len())).iter().zip(panels) {
        let sizes = || costs.iter().map(|cost| cost.size);
        let (first, last) = (
            sizes().fold(f64::INFINITY, f64::min),
            sizes().fold(0.0, f64::max),
        );
        let mut chart = ChartBuilder::on(area)
            .margin(14)
            .x_label_area_size(36)
            .y_label_area_size(48)
            .build_cartesian_2d(
                (first / 1.2..last * 1.2).log_scale().base(2.0),
                (low / 1.3..high * 1.3).log_scale(),
            )
            .map_err(|e| failed(&e))?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(name.as_str())
            .y_desc("ms per step")
            .light_line_style(WHITE.mix(0.0));
        mesh.x_label_formatter(&|size| format!("{size:.0}"))
            .draw()
            .map_err(|e| failed(&e))?;
        type Pick = fn(&Cost) -> Option<f64>;
        let lines: [(&str, RGBColor, Pick); 2] = [
            ("aigc", RGBColor(200, 60, 30), |cost| Some(cost.ours)),
            ("PyTorch", RGBColor(40, 90, 170), |cost| cost.peer),
        ];
        for (label, colour, of) in lines {
            let points: Vec<(f64, f64)> = costs
                .iter()
                .filter_map(|cost| Some((cost.size, of(cost)?)))
                .collect();
            let line = LineSeries::new(points, colour.stroke_width(2)).point_size(3);
            let drawn = chart.draw_series(line).map_err(|e| failed(&e))?;
            drawn.label(label).legend(move |(x, y)| {
                Rectangle::new([(x, y - 4), (x + 14, y + 4)], colour.filled())
            });
        }
        let mut labels = chart.configure_series_labels();
        labels
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3));
        labels.draw().map_err(|e| failed(&e))?;
    }
    root.present().map_err(|e| failed(&e))
}
