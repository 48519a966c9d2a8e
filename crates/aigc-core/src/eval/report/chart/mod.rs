//! Charts as SVG, drawn in the colours of the page.

mod axis;
mod histogram;
mod line;
mod training;

pub use histogram::Histogram;
pub use line::{LineChart, Series};
pub use training::training_charts;

use super::html::escape;
use axis::Axis;

/// Size of a chart in units of its SVG; a page scales it.
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 270.0;
/// Space around the plot: top, right, bottom, left.
const MARGIN: [f64; 4] = [12.0, 14.0, 46.0, 62.0];
const INNER_WIDTH: f64 = WIDTH - MARGIN[1] - MARGIN[3];
const INNER_HEIGHT: f64 = HEIGHT - MARGIN[0] - MARGIN[2];

fn x_at(share: f64) -> f64 {
    MARGIN[3] + share * INNER_WIDTH
}

fn y_at(share: f64) -> f64 {
    MARGIN[0] + (1.0 - share) * INNER_HEIGHT
}

/// The beginning of an SVG with a title and a description for readers who do not see it.
fn open_svg(out: &mut String, id: usize, title: &str, description: &str) {
    out.push_str(&format!(
        "<svg role=\"img\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" aria-labelledby=\"chart{id}t \
         chart{id}d\"><title id=\"chart{id}t\">{}</title><desc id=\"chart{id}d\">{}</desc>",
        escape(title),
        escape(description)
    ));
}

/// Horizontal lines with labels at the left.
fn y_axis(out: &mut String, axis: &Axis, label: &str) {
    for (value, text) in axis.ticks() {
        let y = y_at(axis.share(value));
        out.push_str(&format!(
            "<line class=\"rule\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            x_at(0.0),
            x_at(1.0),
            x_at(0.0) - 6.0,
            y + 4.5
        ));
    }
    let (x, y) = (13.0, y_at(0.5));
    out.push_str(&format!(
        "<text class=\"axis\" transform=\"rotate(-90 {x} {y:.1})\" x=\"{x}\" y=\"{y:.1}\" \
         text-anchor=\"middle\">{}</text>",
        escape(label)
    ));
}

/// The base line and what the horizontal axis shows.
fn x_title(out: &mut String, label: &str) {
    out.push_str(&format!(
        "<line class=\"base\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
         <text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        x_at(0.0),
        x_at(1.0),
        x_at(0.5),
        HEIGHT - 6.0,
        escape(label),
        y = y_at(0.0),
    ));
}

fn x_tick(out: &mut String, x: f64, label: &str) {
    out.push_str(&format!(
        "<text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        y_at(0.0) + 17.0,
        escape(label)
    ));
}
