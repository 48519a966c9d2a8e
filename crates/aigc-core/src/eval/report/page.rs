//! The page as a whole.

use super::{
    Aspect, Block, Report, Section,
    html::{counted, escape, isolate, json_in_script},
    measures,
    number::{integer, plain},
    summary::Statement,
};

const STYLE: &str = include_str!("style.css");

/// What the parts of a page share while it is written.
pub(super) struct Page {
    /// Bytes that are left for images and sound.
    media: usize,
    /// Images and sounds that were left out.
    left_out: usize,
    charts: usize,
}

impl Page {
    /// Takes the space of as many of `sizes`, from the first one on, as there is space for;
    /// returns their number.
    pub(super) fn take_media(&mut self, sizes: impl IntoIterator<Item = usize>) -> usize {
        let (mut fits, mut full) = (0, false);
        for size in sizes {
            full |= size > self.media;
            if full {
                self.left_out += 1;
            } else {
                self.media -= size;
                fits += 1;
            }
        }
        fits
    }

    fn next_chart(&mut self) -> usize {
        self.charts += 1;
        self.charts
    }
}

/// The page.
pub(super) fn render(report: &Report, statements: &[Statement], json: &str) -> String {
    let mut page = Page {
        media: report.media_limit,
        left_out: 0,
        charts: 0,
    };
    let mut sections = String::new();
    for (i, section) in report.sections.iter().enumerate() {
        render_section(&mut sections, i, section, &mut page);
    }
    let title = escape(&report.title);
    let mut out = String::with_capacity(sections.len() + json.len() + STYLE.len() + 20_000);
    // Nothing but this page's own images, sound and style is loaded or run, whatever it contains.
    out.push_str(&format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; \
         media-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#main\">Skip to the results</a>\n"
    ));
    render_header(&mut out, report);
    render_contents(&mut out, report);
    out.push_str("<main id=\"main\">\n");
    render_summary(&mut out, report, statements, &page);
    for aspect in Aspect::ALL {
        measures::render(&mut out, aspect, &report.measures, report.confidence);
    }
    out.push_str(&sections);
    out.push_str(&format!(
        "</main>\n<footer><p>Intervals have a confidence of {} % if they name no other. \
         “Real data” is the value that real samples reach in place of the generated ones; where it \
         is given, a line under the \
         value shows the value as a dot with its interval, and real data, or the ideal, as a \
         vertical mark. All numbers are in <code>report.json</code>, and in this page as JSON.</p>\
         </footer>\n",
        plain(100.0 * report.confidence)
    ));
    out.push_str(&format!(
        "<script type=\"application/json\" id=\"report\">{}</script>\n</body>\n</html>\n",
        json_in_script(json)
    ));
    out
}

fn render_header(out: &mut String, report: &Report) {
    out.push_str(&format!(
        "<header><p class=\"kind\">Evaluation</p><h1>{}</h1><dl>",
        isolate(&report.title)
    ));
    for (name, value) in &report.facts {
        let value = if name == "Command" {
            format!("<code>{}</code>", escape(value))
        } else {
            isolate(value)
        };
        out.push_str(&format!(
            "<div><dt>{}</dt><dd>{value}</dd></div>",
            escape(name)
        ));
    }
    out.push_str("</dl></header>\n");
}

fn render_contents(out: &mut String, report: &Report) {
    out.push_str("<nav aria-label=\"Contents\"><ul>");
    for aspect in Aspect::ALL {
        if report.measures.iter().any(|m| m.aspect == aspect) {
            let name = aspect.name();
            out.push_str(&format!(
                "<li><a href=\"#{}\">{name}</a></li>",
                name.to_lowercase()
            ));
        }
    }
    for (i, section) in report.sections.iter().enumerate() {
        out.push_str(&format!(
            "<li><a href=\"#section{i}\">{}</a></li>",
            isolate(&section.title)
        ));
    }
    out.push_str("</ul></nav>\n");
}

fn render_summary(out: &mut String, report: &Report, statements: &[Statement], page: &Page) {
    out.push_str(
        "<section id=\"summary\" aria-labelledby=\"summary-h\"><h2 id=\"summary-h\">What the \
         numbers say</h2>",
    );
    if statements.is_empty() {
        out.push_str("<p class=\"lead\">Nothing was measured.</p>");
    } else {
        out.push_str("<dl class=\"summary\">");
        for (i, statement) in statements.iter().enumerate() {
            if i == 0 || statements[i - 1].topic != statement.topic {
                let close = if i == 0 { "" } else { "</div>" };
                out.push_str(&format!("{close}<div><dt>{}</dt>", statement.topic));
            }
            out.push_str(&format!("<dd>{}</dd>", isolate(&statement.text)));
        }
        out.push_str("</div></dl>");
    }
    let mut warnings: Vec<String> = report.warnings.iter().map(|text| isolate(text)).collect();
    for measure in &report.measures {
        let name = isolate(&measure.name);
        let of_measure = measure.warnings.iter();
        warnings.extend(of_measure.map(|text| format!("{name}: {}", isolate(text))));
    }
    if page.left_out > 0 {
        warnings.push(format!(
            "The size limit of the page ({} MB) leaves out {} of the images and sounds.",
            plain(report.media_limit as f64 / 1e6),
            integer(page.left_out as u64)
        ));
    }
    if !warnings.is_empty() {
        out.push_str(&format!(
            "<aside class=\"warnings\" aria-label=\"Warnings\"><h3>{}</h3><ul>",
            counted(warnings.len(), "warning")
        ));
        for warning in warnings {
            out.push_str(&format!("<li>{warning}</li>"));
        }
        out.push_str("</ul></aside>");
    }
    out.push_str("</section>\n");
}

fn render_section(out: &mut String, number: usize, section: &Section, page: &mut Page) {
    out.push_str(&format!(
        "<section id=\"section{number}\" aria-labelledby=\"section{number}-h\">\
         <h2 id=\"section{number}-h\">{}</h2>",
        isolate(&section.title)
    ));
    // Charts, and sounds, that follow each other share a row.
    let mut row = "";
    for block in &section.blocks {
        let wanted = match block {
            Block::LineChart(_) | Block::Histogram(_) => "charts",
            Block::Sound(_) => "sounds",
            _ => "",
        };
        if row != wanted {
            if !row.is_empty() {
                out.push_str("</div>");
            }
            if !wanted.is_empty() {
                out.push_str(&format!("<div class=\"{wanted}\">"));
            }
            row = wanted;
        }
        match block {
            Block::Paragraph(text) => out.push_str(&format!("<p>{}</p>", isolate(text))),
            Block::LineChart(chart) => chart.render(out, page.next_chart()),
            Block::Histogram(chart) => chart.render(out, page.next_chart()),
            Block::Gallery(gallery) => gallery.render(out, page),
            Block::Text(text) => text.render(out),
            Block::Sound(sound) => sound.render(out, page),
            Block::Table(table) => table.render(out),
            Block::Provenance(table) => table.render(out),
        }
    }
    if !row.is_empty() {
        out.push_str("</div>");
    }
    out.push_str("</section>\n");
}
