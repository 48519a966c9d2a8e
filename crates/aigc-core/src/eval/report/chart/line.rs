//! Curves.

use super::{
    super::html::escape, super::number::plain, Axis, open_svg, x_at, x_tick, x_title, y_at, y_axis,
};
use serde::Serialize;

/// Points of a curve in the page; of longer ones, the extremes of even parts are kept.
const MAX_POINTS: usize = 2000;

/// Curves over a common axis, such as losses over steps.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LineChart {
    title: String,
    x_label: String,
    y_label: String,
    log_y: bool,
    series: Vec<Series>,
}

/// One curve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Series {
    name: String,
    /// Number of points before thinning.
    count: usize,
    points: Vec<(f64, f64)>,
}

impl Series {
    /// A curve through points in the order of x. Values that are not finite interrupt it. More
    /// than 2,000 points are thinned; peaks, the first and the last point stay.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self {
            name: name.into(),
            count: points.len(),
            points: thin(points),
        }
    }
}

impl LineChart {
    /// A chart without curves.
    pub fn new(
        title: impl Into<String>,
        x_label: impl Into<String>,
        y_label: impl Into<String>,
    ) -> Self {
        Self {
            title: title.into(),
            x_label: x_label.into(),
            y_label: y_label.into(),
            log_y: false,
            series: Vec::new(),
        }
    }

    /// Makes the vertical axis logarithmic; values that are not positive interrupt the curves.
    pub fn with_log_y(mut self) -> Self {
        self.log_y = true;
        self
    }

    /// Adds a curve.
    pub fn with_series(mut self, series: Series) -> Self {
        self.series.push(series);
        self
    }

    fn drawable(&self, point: &(f64, f64)) -> bool {
        point.0.is_finite() && point.1.is_finite() && (!self.log_y || point.1 > 0.0)
    }

    /// The axes and, if the highest values are beyond the vertical one, the value at its end.
    fn axes(&self) -> Option<(Axis, Axis, Option<f64>)> {
        let points = || {
            let all = self.series.iter().flat_map(|s| &s.points);
            all.filter(|point| self.drawable(point))
        };
        let mut heights: Vec<f64> = points().map(|p| p.1).collect();
        heights.sort_by(f64::total_cmp);
        let (&low, &high) = (heights.first()?, heights.last()?);
        // The first losses of a run are often far above all others.
        let usual = heights[(heights.len() - 1) * 98 / 100];
        let cut = !self.log_y && high - low > 3.0 * (usual - low) && usual > low;
        let top = if cut { usual } else { high };
        let (x0, x1) = points().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), p| {
            (a.min(p.0), b.max(p.0))
        });
        let y = Axis::new(low, top, self.log_y).padded(0.05);
        Some((Axis::new(x0, x1, false), y, cut.then_some(top)))
    }

    pub(in super::super) fn render(&self, out: &mut String, id: usize) {
        let title = escape(&self.title);
        out.push_str(&format!(
            "<figure class=\"chart\"><p class=\"title\">{title}</p>"
        ));
        let Some((x, y, cut)) = self.axes() else {
            out.push_str("<p class=\"note\">No values.</p></figure>");
            return;
        };
        open_svg(out, id, &self.title, &self.description());
        y_axis(out, &y, &self.y_label);
        x_title(out, &self.x_label);
        for (value, label) in x.ticks() {
            x_tick(out, x_at(x.share(value)), &label);
        }
        for (i, series) in self.series.iter().enumerate() {
            self.draw(out, series, i, &x, &y);
        }
        out.push_str("</svg><ul class=\"legend\">");
        for (i, series) in self.series.iter().enumerate() {
            let last = series.points.iter().rev().find(|p| self.drawable(p));
            out.push_str(&format!(
                "<li><svg class=\"key\" viewBox=\"0 0 26 8\" aria-hidden=\"true\"><line \
                 class=\"s{} line\" x1=\"1\" x2=\"25\" y1=\"4\" y2=\"4\"/></svg><bdi>{}</bdi>{}\
                 </li>",
                i % 6,
                escape(&series.name),
                last.map_or(String::new(), |p| format!(
                    " <span class=\"last\">last {}</span>",
                    plain(p.1)
                )),
            ));
        }
        out.push_str("</ul>");
        let mut notes = Vec::new();
        if self.log_y {
            notes.push("Logarithmic scale.".to_string());
        }
        if let Some(top) = cut {
            notes.push(format!("Values above {} are cut off.", plain(top)));
        }
        if self.series.iter().any(|s| s.count > s.points.len()) {
            notes.push("Long curves are drawn through their extremes.".to_string());
        }
        if !notes.is_empty() {
            out.push_str(&format!("<figcaption>{}</figcaption>", notes.join(" ")));
        }
        out.push_str("</figure>");
    }

    fn draw(&self, out: &mut String, series: &Series, number: usize, x: &Axis, y: &Axis) {
        let class = number % 6;
        for run in series.points.split(|point| !self.drawable(point)) {
            let place = |p: &(f64, f64)| (x_at(x.share(p.0)), y_at(y.share(p.1).min(1.0)));
            match run {
                [] => {}
                [point] => {
                    let (x, y) = place(point);
                    out.push_str(&format!(
                        "<circle class=\"s{class} dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>"
                    ));
                }
                run => {
                    out.push_str(&format!("<polyline class=\"s{class} line\" points=\""));
                    for (i, point) in run.iter().enumerate() {
                        let (x, y) = place(point);
                        let space = if i > 0 { " " } else { "" };
                        out.push_str(&format!("{space}{x:.1},{y:.1}"));
                    }
                    out.push_str("\"/>");
                }
            }
        }
    }

    fn description(&self) -> String {
        let told = self.series.iter().map(|series| {
            let mut shown = series.points.iter().filter(|p| self.drawable(p));
            match (shown.next(), shown.next_back()) {
                (Some(first), Some(last)) => format!(
                    "{}: from {} at {} {} to {} at {}.",
                    series.name,
                    plain(first.1),
                    self.x_label,
                    plain(first.0),
                    plain(last.1),
                    plain(last.0)
                ),
                (Some(only), None) => format!("{}: {}.", series.name, plain(only.1)),
                _ => format!("{}: no values.", series.name),
            }
        });
        told.collect::<Vec<_>>().join(" ")
    }
}

/// The first and the last point, and the lowest and the highest of even parts, in their order: at
/// most [`MAX_POINTS`].
fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    if points.len() <= MAX_POINTS {
        return points;
    }
    let per = points.len().div_ceil(MAX_POINTS / 2 - 1);
    let extremes = |part: &[(f64, f64)]| {
        let order = |i: &usize, j: &usize| part[*i].1.total_cmp(&part[*j].1);
        let low = (0..part.len()).min_by(order).unwrap_or(0);
        let high = (0..part.len()).max_by(order).unwrap_or(0);
        let mut kept = vec![part[low.min(high)]];
        if low != high {
            kept.push(part[low.max(high)]);
        }
        kept
    };
    let mut kept: Vec<(f64, f64)> = points.chunks(per).flat_map(extremes).collect();
    let (first, last) = (points[0], points[points.len() - 1]);
    if kept[0] != first {
        kept.insert(0, first);
    }
    if kept[kept.len() - 1] != last {
        kept.push(last);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_peaks() {
        let mut points: Vec<_> = (0..50_000).map(|i| (f64::from(i), 1.0)).collect();
        points[31_111].1 = 9.0;
        points[7].1 = -9.0;
        (points[49_990].1, points[49_991].1) = (3.0, -3.0);
        let series = Series::new("loss", points);
        assert!(series.points.len() <= MAX_POINTS);
        assert_eq!(series.count, 50_000);
        for peak in [(31_111.0, 9.0), (7.0, -9.0)] {
            assert!(series.points.contains(&peak));
        }
        // The legend names the last value.
        assert_eq!(series.points.first(), Some(&(0.0, 1.0)));
        assert_eq!(series.points.last(), Some(&(49_999.0, 1.0)));
    }

    #[test]
    fn gaps_and_names_are_drawn() {
        let points = vec![(0.0, 2.0), (1.0, 1.0), (2.0, f64::NAN), (3.0, 0.5)];
        let chart = LineChart::new("Loss <1>", "step", "loss")
            .with_log_y()
            .with_series(Series::new("a<b", points))
            .with_series(Series::new("zero", vec![(0.0, 0.0)]));
        let mut out = String::new();
        chart.render(&mut out, 0);
        assert_eq!(out.matches("<polyline").count(), 1);
        assert_eq!(out.matches("<circle").count(), 1);
        assert!(out.contains("a&lt;b") && out.contains("Loss &lt;1&gt;"));
        assert!(out.contains("from 2 at step 0 to 0.5 at 3."));
        assert!(!out.contains("NaN") && !out.contains("inf"));
        let mut out = String::new();
        LineChart::new("empty", "x", "y").render(&mut out, 0);
        assert!(out.contains("No values"));
    }

    #[test]
    fn high_beginning_is_cut_and_said() {
        let points = (0..200)
            .map(|i| {
                (
                    f64::from(i),
                    if i == 0 {
                        1000.0
                    } else {
                        1.0 + f64::from(i % 7)
                    },
                )
            })
            .collect();
        let mut out = String::new();
        LineChart::new("Loss", "step", "loss")
            .with_series(Series::new("loss", points))
            .render(&mut out, 0);
        assert!(out.contains("Values above 7 are cut off."));
    }
}
