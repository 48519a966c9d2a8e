//! Scatter plots of points in the plane.

use crate::{Error, Result, fs::write_atomic};
use plotters::prelude::*;
use std::path::Path;

/// Draws named sets of points to the SVG file `path`, later ones over earlier ones, with the same
/// scale on both axes.
///
/// # Errors
/// [`Error::InvalidArgument`] if there is no finite point, [`Error::Io`] if the file cannot be
/// written.
pub fn save_scatter(clouds: &[(&str, &[[f32; 2]])], path: &Path) -> Result<()> {
    let points = || {
        clouds
            .iter()
            .flat_map(|(_, points)| points.iter())
            .filter(|p| p.iter().all(|v| v.is_finite()))
    };
    let range = |axis: usize| {
        let values = points().map(|point| f64::from(point[axis]));
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
            (low.min(v), high.max(v))
        })
    };
    if points().next().is_none() {
        return Err(Error::argument("clouds", "no finite point", "at least 1"));
    }
    let (x, y) = (range(0), range(1));
    let reach = 0.55 * (x.1 - x.0).max(y.1 - y.0).max(1e-6);
    let around = |(low, high): (f64, f64)| (low + high) / 2.0 - reach..(low + high) / 2.0 + reach;
    let mut svg = String::new();
    draw(&mut svg, clouds, around(x), around(y))
        .map_err(|error| Error::other(format!("scatter plot: {error}")))?;
    write_atomic(path, svg.as_bytes())
}

fn draw(
    svg: &mut String,
    clouds: &[(&str, &[[f32; 2]])],
    x: std::ops::Range<f64>,
    y: std::ops::Range<f64>,
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, (640, 640)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .x_label_area_size(30)
        .y_label_area_size(40)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE.mix(0.0))
        .draw()?;
    for (index, (name, points)) in clouds.iter().enumerate() {
        let colour = Palette99::pick(index).mix(0.5);
        let finite = points
            .iter()
            .filter(|point| point.iter().all(|v| v.is_finite()));
        let dots = finite.map(|point| {
            Circle::new(
                (f64::from(point[0]), f64::from(point[1])),
                1,
                colour.filled(),
            )
        });
        let drawn = chart.draw_series(dots)?;
        drawn
            .label(*name)
            .legend(move |(x, y)| Circle::new((x + 7, y), 4, colour.filled()));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scatter_skips_points_that_are_not_finite() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("points.svg");
        save_scatter(
            &[
                ("real", &[[0.0, 0.0], [10.0, 1.0]]),
                ("generated", &[[5.0, f32::NAN], [5.0, 0.5]]),
            ],
            &path,
        )
        .unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        // Three dots and two in the legend.
        assert_eq!(svg.matches("<circle").count(), 5, "{svg}");
        assert!(svg.contains("real") && svg.contains("generated"));
        assert!(save_scatter(&[("none", &[[f32::NAN, 0.0]])], &path).is_err());
    }
}
