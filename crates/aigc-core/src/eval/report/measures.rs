//! The tables of measures.

use super::{
    Aspect, Better, Measure,
    html::{escape, isolate},
    number::{beside, integer, plain, with_interval},
};

/// The table of an aspect, with notes beneath; nothing without measures.
pub(super) fn render(out: &mut String, aspect: Aspect, measures: &[Measure], confidence: f64) {
    let rows: Vec<&Measure> = measures.iter().filter(|m| m.aspect == aspect).collect();
    if rows.is_empty() {
        return;
    }
    let id = aspect.name().to_lowercase();
    out.push_str(&format!(
        "<section id=\"{id}\" aria-labelledby=\"{id}-h\"><h2 id=\"{id}-h\">{}</h2>\
         <p class=\"lead\">{}</p>\
         <table class=\"measures\" role=\"table\"><thead role=\"rowgroup\"><tr role=\"row\">",
        aspect.name(),
        aspect.question()
    ));
    for (column, class) in [
        ("Measure", ""),
        ("Value", " class=\"number\""),
        ("Real data", " class=\"number\""),
        ("Samples", " class=\"number\""),
        ("Reference", ""),
    ] {
        out.push_str(&format!(
            "<th role=\"columnheader\" scope=\"col\"{class}>{column}</th>"
        ));
    }
    out.push_str("</tr></thead><tbody role=\"rowgroup\">");
    let mut notes = Vec::new();
    for measure in &rows {
        render_row(out, measure, confidence, &mut notes, &id);
    }
    out.push_str("</tbody></table>");
    if !notes.is_empty() {
        out.push_str("<ol class=\"notes\">");
        for (i, note) in notes.iter().enumerate() {
            out.push_str(&format!("<li id=\"{id}-note{}\">{note}</li>", i + 1));
        }
        out.push_str("</ol>");
    }
    out.push_str("</section>");
}

fn render_row(
    out: &mut String,
    measure: &Measure,
    confidence: f64,
    notes: &mut Vec<String>,
    id: &str,
) {
    let mut note = |text: String| {
        // The same note of several measures stands once.
        let known = notes.iter().position(|note| *note == text);
        let n = 1 + known.unwrap_or_else(|| {
            notes.push(text);
            notes.len() - 1
        });
        format!("<sup><a href=\"#{id}-note{n}\" aria-label=\"note {n}\">{n}</a></sup>")
    };
    let mut marks: Vec<String> = measure
        .notes
        .iter()
        .map(|text| note(escape(text)))
        .collect();
    if !measure.command.is_empty() {
        marks.push(note(format!("<code>{}</code>", escape(&measure.command))));
    }
    let better = match measure.better {
        Better::Lower => "Lower is better.".to_string(),
        Better::Higher => "Higher is better.".to_string(),
        Better::Target(value) => format!("Ideal: {}.", plain(value)),
    };
    out.push_str(&format!(
        "<tr role=\"row\"><th role=\"rowheader\" scope=\"row\"><span class=\"name\">{}{}</span>\
         <span class=\"explanation\">{} {better}</span></th>",
        isolate(&measure.name),
        marks.join("<sup>, </sup>"),
        isolate(&measure.explanation)
    ));
    let (value, interval) = with_interval(measure.value, measure.interval);
    let interval = interval.map_or(String::new(), |interval| {
        let own = measure.confidence.unwrap_or(confidence);
        let percent = plain(100.0 * own);
        // The foot of the page tells of the others.
        let said = match own == confidence {
            true => String::new(),
            false => format!(" ({percent} %)"),
        };
        format!("<span class=\"interval\" title=\"{percent} % interval\">{interval}{said}</span>")
    });
    let floor = measure.floor.map(|floor| beside(floor, measure.interval));
    let reference = measure.reference.as_ref().map(|reference| {
        format!(
            "{}<span class=\"interval\">{} samples</span>",
            isolate(&reference.name),
            integer(reference.count as u64)
        )
    });
    let cell = |label: &str, class: &str, content: Option<String>| {
        let (none, content) = match content {
            Some(content) => ("", content),
            None => (" none", "–".to_string()),
        };
        format!(
            "<td role=\"cell\" class=\"{class}{none}\" data-label=\"{label}\">\
             <span>{content}</span></td>"
        )
    };
    let value = format!("<b>{value}</b>{interval}{}", gauge(measure));
    out.push_str(&cell("Value", "number", Some(value)));
    out.push_str(&cell("Real data", "number", floor));
    let count = integer(measure.count as u64);
    out.push_str(&cell("Samples", "number", Some(count)));
    out.push_str(&cell("Reference", "reference", reference));
    out.push_str("</tr>");
}

/// Value, interval and the value of real data on a line; nothing without the latter.
fn gauge(measure: &Measure) -> String {
    let Some(mark) = measure.floor.or(match measure.better {
        Better::Target(target) => Some(target),
        _ => None,
    }) else {
        return String::new();
    };
    let (low, high) = measure.interval.unwrap_or((measure.value, measure.value));
    let start = low.min(mark).min(measure.value).min(0.0);
    let end = high.max(mark).max(measure.value).max(0.0);
    if end - start <= 0.0 || !(end - start).is_finite() {
        return String::new();
    }
    let x = |value: f64| 4.0 + 112.0 * (value - start) / (end - start);
    format!(
        "<svg class=\"gauge\" viewBox=\"0 0 120 14\" aria-hidden=\"true\">\
         <line class=\"rule\" x1=\"4\" x2=\"116\" y1=\"7\" y2=\"7\"/>\
         <line class=\"mark\" x1=\"{m:.1}\" x2=\"{m:.1}\" y1=\"1\" y2=\"13\"/>\
         <line class=\"span\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"7\" y2=\"7\"/>\
         <circle class=\"point\" cx=\"{:.1}\" cy=\"7\" r=\"3.2\"/></svg>",
        x(low),
        x(high),
        x(measure.value),
        m = x(mark)
    )
}
