//! The evaluation report as a file: what others write in it stays text, it needs no other file, and
//! its numbers can be read back.

use aigc_core::eval::report::{
    Aspect, Better, Block, Gallery, Histogram, LineChart, Measure, Picture, ProvenanceStatus,
    ProvenanceTable, Report, Sample, Series, SoundSample, Table, TextSample,
};
use serde_json::Value;
use std::collections::BTreeMap;

const HOSTILE: &str = "\"'></title></script><script>alert(1)</script><img src=x onerror=alert(2)>\
                       <style>*{display:none}</style>&\u{202e}\u{0}-->";

/// Header of a PNG file of `length` bytes; the report looks at no more.
fn picture(length: usize) -> Picture {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x1c\0\0\0\x1c".to_vec();
    png.resize(length, 0);
    Picture::from_png(png).unwrap()
}

/// A report with every kind of part, in which each text is `text`.
fn report(text: &str) -> Report {
    let mut report = Report::new(text)
        .with_subject(text)
        .with_reference(text)
        .with_command(text)
        .with_date(text)
        .with_fact(text, text);
    report.add_warning(text);
    let measure = Measure::new(Aspect::Quality, text, 12.34, Better::Lower, 1000)
        .with_interval(11.8, 12.9)
        .with_floor(2.0)
        .with_reference(text, 10_000)
        .with_explanation(text)
        .with_command(text)
        .with_note(text)
        .with_warning(text);
    report.add_measure(measure.clone()).unwrap();
    report.add_measure(measure.with_statement(text)).unwrap();
    report
        .add_measure(Measure::copies(0, 1000, Some(0.01)).unwrap())
        .unwrap();
    let mut table = Table::new(text, [text, text]);
    table.push([text, "1"]).unwrap();
    let mut provenance = ProvenanceTable::new();
    provenance.push(text, ProvenanceStatus::Invalid, text);
    provenance.push(text, ProvenanceStatus::Valid, text);
    let sample = Sample::new(picture(64), text)
        .with_neighbor(picture(64), text, 0.25, true)
        .unwrap();
    let classes = Histogram::new(text, vec![3, 1]).unwrap();
    let classes = classes.with_labels([text, text]).unwrap();
    let copied = TextSample::new(text, format!("{text} end"))
        .with_prompt(text)
        .with_copied(0..text.len(), text)
        .unwrap();
    let curve = Series::new(text, vec![(0.0, 2.0), (1.0, 1.0)]);
    report
        .add_section(text)
        .add(text)
        .add(LineChart::new(text, text, text).with_series(curve))
        .add(classes.with_uniform_expected())
        .add(Gallery::new(text, vec![sample]))
        .add(copied)
        .add(SoundSample::new(text, &[0.0, 0.5, -0.5], 8000).unwrap())
        .add(table)
        .add(Block::from(provenance));
    report
}

/// Number of each start tag.
fn tags(html: &str) -> BTreeMap<String, usize> {
    let mut tags = BTreeMap::new();
    for part in html.split('<').skip(1) {
        let name: String = part
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric())
            .collect();
        *tags.entry(name).or_default() += 1;
    }
    tags
}

/// Hostile text adds no element and no attribute: but for the text, the page is that of plain text.
#[test]
fn hostile_text_stays_text() {
    let hostile = report(HOSTILE).to_html().unwrap();
    let plain = report("plain").to_html().unwrap();
    assert_eq!(tags(&hostile), tags(&plain));
    assert_eq!(hostile.matches("<script").count(), 1);
    for inert in ["<img src=x", "<script>", "\0", "<style>*"] {
        assert!(!hostile.contains(inert), "{inert}");
    }
    // Each quote of an attribute is the page's own.
    assert_eq!(
        hostile
            .split("<script")
            .next()
            .unwrap()
            .matches('"')
            .count(),
        plain.split("<script").next().unwrap().matches('"').count()
    );
}

#[test]
fn page_loads_nothing_and_has_its_landmarks() {
    let page = report("plain").to_html().unwrap();
    for address in ["http:", "https:", "@import", "url(", "<link", "<iframe"] {
        assert!(!page.contains(address), "{address}");
    }
    let sources = page.matches(" src=\"").count();
    assert_eq!(sources, page.matches(" src=\"data:").count());
    assert_eq!(sources, 3); // two images and a sound
    assert!(page.contains("default-src 'none'"));
    for part in [
        "<main",
        "<header",
        "<nav aria-label",
        "<footer",
        "lang=\"en\"",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let tags = tags(&page);
    assert_eq!(page.matches(" alt=\"").count(), tags["img"]);
    assert_eq!(
        page.matches("<svg role=\"img\"").count(),
        page.matches("<desc").count()
    );
    assert_eq!(
        page.matches("scope=\"").count(),
        tags["th"],
        "each table header says what it heads"
    );
    // Every link leads somewhere in the page.
    for link in page.split("href=\"#").skip(1) {
        let id = link.split('"').next().unwrap();
        assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
    }
    for tag in [
        "section", "div", "table", "figure", "ul", "li", "span", "dl",
    ] {
        assert_eq!(
            tags.get(tag).copied().unwrap_or(0),
            page.matches(&format!("</{tag}>")).count(),
            "{tag}"
        );
    }
}

#[test]
fn numbers_are_read_back_from_page_and_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = report(HOSTILE).save(folder.path().join("new")).unwrap();
    let page = std::fs::read_to_string(&path).unwrap();
    let inside = page.split("id=\"report\">").nth(1).unwrap();
    let inside: Value = serde_json::from_str(inside.split("</script>").next().unwrap()).unwrap();
    let file = std::fs::read_to_string(path.with_file_name("report.json")).unwrap();
    let file: Value = serde_json::from_str(&file).unwrap();
    assert_eq!(inside, file);
    let measure = &file["measures"][0];
    assert_eq!(measure["value"], 12.34);
    assert_eq!(measure["interval"][1], 12.9);
    assert_eq!(measure["floor"], 2.0);
    assert_eq!(measure["count"], 1000);
    assert_eq!(measure["reference"]["count"], 10_000);
    assert_eq!(measure["aspect"], "quality");
    assert_eq!(measure["better"], "lower");
    assert_eq!(measure["name"], HOSTILE);
    let blocks = &file["sections"][0]["blocks"];
    assert_eq!(blocks[1]["kind"], "line_chart");
    assert_eq!(blocks[1]["content"]["series"][0]["points"][1][1], 1.0);
    assert_eq!(
        blocks[3]["content"]["samples"][0]["neighbors"][0]["distance"],
        0.25
    );
    let summary = file["summary"].to_string();
    assert!(
        summary.contains("No copies found among 1,000 samples"),
        "{summary}"
    );
    assert!(
        summary.contains("1 of 2 files carry a valid record"),
        "{summary}"
    );
    assert_eq!(
        std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
        2
    );
}

#[test]
fn large_media_are_left_out_and_said() {
    let samples = |n| {
        (0..n)
            .map(|i| Sample::new(picture(3000), i.to_string()))
            .collect()
    };
    let mut report = Report::new("limit").with_media_limit(10_000);
    report
        .add_section("images")
        .add(Gallery::new("five", samples(5)))
        .add(SoundSample::new("sound", &[0.0; 4000], 8000).unwrap());
    let page = report.to_html().unwrap();
    assert_eq!(page.matches("<img").count(), 2); // 4,000 characters each
    assert!(page.contains("Shown: the first 2 of 5 samples"));
    assert!(page.contains("leaves this sound out") && !page.contains("<audio"));
    assert!(page.contains("(0.01 MB) leaves out 4 of the images and sounds."));
    assert!(page.len() < 40_000);
}

#[test]
fn wrong_settings_are_errors() {
    for confidence in [0.0, 1.0, f64::NAN] {
        let report = Report::new("a").with_confidence(confidence);
        let error = report.to_html().unwrap_err().to_string();
        assert!(error.contains("`confidence`"), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let error = Report::new(" ")
        .save(folder.path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("`title`"), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
