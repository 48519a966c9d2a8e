//! The report while it is written.

use crate::{Options, Part};
use aigc_core::{
    CancelToken, Error, Result,
    eval::report::{Measure, Report, Section, training_charts, utc_date},
    train::read_metrics,
};
use aigc_examples::outln;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

/// A report to which measures are added. What fails becomes a warning, and what an interruption
/// leaves out is listed.
pub(crate) struct Book {
    report: Report,
    options: Options,
    stop: CancelToken,
    facts: Vec<(String, String)>,
    warnings: Vec<String>,
    skipped: Vec<String>,
    measured: bool,
    /// The first error of a part of the work.
    failed: Option<Error>,
}

impl Book {
    pub(crate) fn new(options: &Options, stop: &CancelToken) -> Self {
        let subject = options.subject.display();
        Self {
            report: Report::new(format!("Evaluation of {subject}")),
            options: options.clone(),
            stop: stop.clone(),
            facts: Vec::new(),
            warnings: Vec::new(),
            skipped: Vec::new(),
            measured: false,
            failed: None,
        }
    }

    pub(crate) fn stop(&self) -> &CancelToken {
        &self.stop
    }

    pub(crate) fn wants(&self, part: Part) -> bool {
        self.options.wants(part)
    }

    /// A fact for the head of the page.
    pub(crate) fn fact(&mut self, name: &str, value: impl Into<String>) {
        self.facts.push((name.into(), value.into()));
    }

    /// A warning for the top of the page.
    pub(crate) fn warn(&mut self, warning: impl Into<String>) {
        let warning = warning.into();
        if !self.warnings.contains(&warning) {
            self.report.add_warning(warning.clone());
            self.warnings.push(warning);
        }
    }

    /// Does a part of the work. An error becomes a warning that `what` is missing; after an
    /// interruption, nothing more is begun.
    pub(crate) fn attempt<T>(&mut self, what: &str, work: impl FnOnce() -> Result<T>) -> Option<T> {
        if self.stop.is_cancelled() {
            self.skipped.push(what.into());
            return None;
        }
        match work() {
            Ok(found) => Some(found),
            Err(Error::Cancelled { .. }) if self.stop.is_cancelled() => {
                self.skipped.push(what.into());
                None
            }
            Err(error) => {
                self.warn(format!("Not measured: {what}. {error}"));
                self.failed.get_or_insert(error);
                None
            }
        }
    }

    /// Adds a measure; one that is not finite becomes a warning.
    pub(crate) fn measure(&mut self, measure: Measure) {
        let parts = serde_json::to_value(&measure).unwrap_or_default();
        match self.report.add_measure(measure) {
            Ok(()) => {
                self.measured = true;
                // The page adds the name itself.
                let name = parts["name"].as_str().unwrap_or_default();
                let warnings = parts["warnings"].as_array().into_iter().flatten();
                let warnings = warnings.filter_map(Value::as_str);
                self.warnings
                    .extend(warnings.map(|warning| format!("{name}: {warning}")));
            }
            Err(error) => {
                self.warn(format!("Not measured: {error}."));
                self.failed.get_or_insert(error);
            }
        }
    }

    /// Adds the measures that `work` returns; see [`attempt`](Self::attempt).
    pub(crate) fn measures(&mut self, what: &str, work: impl FnOnce() -> Result<Vec<Measure>>) {
        for measure in self.attempt(what, work).into_iter().flatten() {
            self.measure(measure);
        }
    }

    /// A new section of the page.
    pub(crate) fn section(&mut self, title: &str) -> &mut Section {
        self.report.add_section(title)
    }

    /// The curves in the log of a run, if it has one.
    pub(crate) fn training_curves(&mut self, run: &Path) {
        let log = run.join("metrics.jsonl");
        if !log.is_file() {
            return;
        }
        let Some(records) = self.attempt("training curves", || read_metrics(&log)) else {
            return;
        };
        let charts = training_charts(&records);
        if charts.is_empty() {
            return;
        }
        let section = self.section("Training");
        for chart in charts {
            section.add(chart);
        }
    }

    /// What was found so far, for `--check`.
    pub(crate) fn lines(&self) -> Vec<String> {
        let facts = self
            .facts
            .iter()
            .map(|(name, value)| format!("{name}: {value}"));
        let warnings = self.warnings.iter().map(|text| format!("warning: {text}"));
        facts.chain(warnings).map(|line| printable(&line)).collect()
    }

    pub(crate) fn into_warnings(self) -> Vec<String> {
        self.warnings
    }

    /// Writes the report, and prints its summary and its path.
    ///
    /// # Errors
    /// Errors of writing; [`Error::Cancelled`] if nothing was measured before the evaluation was
    /// stopped. After the report is written: the first error, if measures were wanted and there are
    /// none.
    pub(crate) fn finish(mut self, out: &Path) -> Result<(PathBuf, Vec<String>)> {
        if !self.skipped.is_empty() {
            if !self.measured {
                return Err(Error::cancelled("the evaluation"));
            }
            let left = self.skipped.join(", ");
            self.warn(format!(
                "The evaluation was stopped before its end. Not measured: {left}. Run the command \
                 again for the whole report."
            ));
        }
        let command = self.options.command();
        let facts = std::mem::take(&mut self.facts);
        let mut report = self.report;
        for (name, value) in facts {
            report = report.with_fact(name, value);
        }
        let report = report
            .with_command(command)
            .with_date(utc_date(SystemTime::now()));
        let json: Value = serde_json::from_str(&report.to_json()?).unwrap_or_default();
        let page = report.save(out)?;
        print_summary(&json, &self.warnings);
        outln!("\n{}", printable(&page.display().to_string()));
        let parts = [
            Part::Quality,
            Part::Diversity,
            Part::Relevance,
            Part::Originality,
        ];
        let wanted = parts.into_iter().any(|part| self.options.wants(part));
        if let Some(error) = self.failed.filter(|_| wanted && !self.measured) {
            return Err(error);
        }
        Ok((page, self.warnings))
    }
}

/// Prints the statements of the summary and the warnings.
fn print_summary(json: &Value, warnings: &[String]) {
    for statement in json["summary"].as_array().into_iter().flatten() {
        let part = |name: &str| statement[name].as_str().unwrap_or_default();
        outln!(
            "{}",
            printable(&format!("{}: {}", part("topic"), part("text")))
        );
    }
    for warning in warnings {
        outln!("{}", printable(&format!("warning: {warning}")));
    }
}

/// Text for a terminal: control characters of file names and records do nothing there.
pub fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

/// `a, b, c and 4 more` of names.
pub(crate) fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::eval::report::{Aspect, Better};
    use clap::Parser;

    fn measure(name: &str) -> Measure {
        Measure::new(Aspect::Quality, name, 1.0, Better::Lower, 9)
    }

    /// Ctrl-C in the middle: what was measured until then is in the report, and what is missing is
    /// named.
    #[test]
    fn stopped_evaluations_keep_what_was_measured() {
        let out = std::env::temp_dir().join(format!("aigc-book-{}", std::process::id()));
        std::fs::create_dir_all(&out).unwrap();
        let options = Options::parse_from(["evaluate", "x", "--against", "y"]);
        let stop = CancelToken::new();
        let mut book = Book::new(&options, &stop);
        book.measures("the first", || {
            Ok(vec![measure("first").with_warning("is rough")])
        });
        book.measures("the second", || {
            stop.cancel();
            Err(Error::cancelled("the evaluation"))
        });
        book.measures("the third", || Ok(vec![measure("third")]));
        let (page, warnings) = book.finish(&out).unwrap();
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains("is rough"));
        assert_eq!(warnings[0], "first: is rough");
        assert!(warnings[1].contains("stopped") && warnings[1].contains("the second, the third"));
        let json = std::fs::read_to_string(out.join("report.json")).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["measures"].as_array().unwrap().len(), 1);

        let mut nothing = Book::new(&options, &stop);
        nothing.measures("the first", || Ok(vec![measure("first")]));
        let error = nothing.finish(&out).unwrap_err();
        assert!(matches!(error, Error::Cancelled { .. }), "{error}");
        std::fs::remove_dir_all(out).unwrap();
    }

    #[test]
    fn control_characters_are_not_printed() {
        assert_eq!(printable("a\u{1b}[31m\n"), "a\u{fffd}[31m\u{fffd}");
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..8).map(|i| i.to_string()).collect();
        assert_eq!(some_of(&names), "0, 1, 2, 3, 4 and 3 more");
        assert_eq!(some_of(&names[..2]), "0, 1");
    }
}
