//! Tables, printed and written as JSON.

use crate::memory::threads;
use aigc_core::{CancelToken, Error, Result, eval::Proportion, fs::write_atomic};
use aigc_examples::{is_stop, outln};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The tables of a command. The file is written again after every row, so that a stop loses
/// nothing.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    command: Vec<String>,
    version: &'static str,
    threads: usize,
    complete: bool,
    tables: Vec<Table>,
    /// Path of the file without its ending.
    #[serde(skip)]
    path: PathBuf,
}

#[derive(Debug, Serialize)]
struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

impl Report {
    pub(crate) fn new(name: &str, out: &Path) -> Self {
        Self {
            command: std::env::args().collect(),
            version: env!("CARGO_PKG_VERSION"),
            threads: threads(),
            complete: false,
            tables: Vec::new(),
            path: out.join(name),
        }
    }

    /// Begins a table.
    pub(crate) fn table<S: Into<String>>(
        &mut self,
        title: impl Into<String>,
        columns: impl IntoIterator<Item = S>,
    ) {
        self.tables.push(Table {
            title: title.into(),
            columns: columns.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        });
    }

    /// Adds a row to the table begun last, and saves.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    ///
    /// # Panics
    /// If no table was begun.
    pub(crate) fn row(&mut self, row: Vec<Value>) -> Result<()> {
        let table = self.tables.last_mut().expect("a table was begun");
        table.rows.push(row);
        self.save()
    }

    fn file(&self) -> PathBuf {
        let ending = if self.complete {
            "json"
        } else {
            "partial.json"
        };
        self.path.with_extension(ending)
    }

    fn save(&self) -> Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(Error::other)?;
        write_atomic(&self.file(), &text)
    }

    /// Prints the tables of a command that ended with `result`, and writes the final file. A stop
    /// is no error.
    ///
    /// # Errors
    /// Those of `result` other than a stop; errors of writing.
    pub(crate) fn finish(
        mut self,
        result: anyhow::Result<()>,
        stop: &CancelToken,
    ) -> anyhow::Result<()> {
        for table in self.tables.iter().filter(|table| !table.rows.is_empty()) {
            table.print();
        }
        match result {
            Ok(()) => {
                let partial = self.file();
                self.complete = true;
                self.save()?;
                if partial.exists() {
                    std::fs::remove_file(&partial).map_err(Error::io(&partial))?;
                }
                outln!("written to {}", self.file().display());
                Ok(())
            }
            Err(error) if is_stop(&error, stop) => {
                if self.file().exists() {
                    outln!("stopped; finished rows are in {}", self.file().display());
                } else {
                    outln!("stopped before the first row");
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

impl Table {
    /// Prints the table in Markdown.
    fn print(&self) {
        outln!("\n{}\n", self.title);
        outln!("| {} |", self.columns.join(" | "));
        outln!("|{}", "---|".repeat(self.columns.len()));
        for row in &self.rows {
            let cells: Vec<String> = row.iter().map(cell).collect();
            outln!("| {} |", cells.join(" | "));
        }
        outln!();
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "–".into(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            number.as_f64().map_or_else(String::new, significant)
        }
        Value::Object(share) => match share.get("text") {
            Some(Value::String(text)) => text.clone(),
            _ => value.to_string(),
        },
        other => other.to_string(),
    }
}

/// Four significant digits.
fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let digits = (3 - value.abs().log10().floor() as i32).clamp(0, 9) as usize;
    format!("{value:.digits$}")
}

/// A share with its 95 % interval.
pub(crate) fn share(found: &Proportion) -> Value {
    let (low, high) = found.interval();
    json!({
        "count": found.count(),
        "total": found.total(),
        "share": found.value(),
        "interval": [low, high],
        "text": format!("{} of {}: {found:.3}", found.count(), found.total()),
    })
}
