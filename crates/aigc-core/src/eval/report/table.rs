//! Tables: any rows, and what is known of files' provenance.

use super::{
    html::{counted, isolate},
    number::integer,
};
use crate::{Error, Result};
use serde::Serialize;

/// Rows that are shown at once; the others are folded.
const SHOWN: usize = 25;

/// A table of text and numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Table {
    caption: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new<S: Into<String>>(
        caption: impl Into<String>,
        columns: impl IntoIterator<Item = S>,
    ) -> Self {
        Self {
            caption: caption.into(),
            columns: columns.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Columns of which every cell is a number are set to the right.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless the row has one cell for each column.
    pub fn push<S: Into<String>>(&mut self, row: impl IntoIterator<Item = S>) -> Result<()> {
        let row: Vec<String> = row.into_iter().map(Into::into).collect();
        if row.len() != self.columns.len() {
            return Err(Error::argument(
                "row",
                format!("{} cells", row.len()),
                format!("{}, one for each column", self.columns.len()),
            ));
        }
        self.rows.push(row);
        Ok(())
    }

    pub(super) fn render(&self, out: &mut String) {
        let right: Vec<bool> = (0..self.columns.len())
            .map(|i| self.rows.iter().all(|row| is_number(&row[i])))
            .collect();
        let class = |i: usize| if right[i] { " class=\"number\"" } else { "" };
        let mut head = String::from("<thead><tr>");
        for (i, column) in self.columns.iter().enumerate() {
            head.push_str(&format!(
                "<th scope=\"col\"{}>{}</th>",
                class(i),
                isolate(column)
            ));
        }
        head.push_str("</tr></thead>");
        let rows = self.rows.iter().map(|row| {
            let cells = row.iter().enumerate();
            let cells = cells.map(|(i, cell)| format!("<td{}>{}</td>", class(i), isolate(cell)));
            format!("<tr>{}</tr>", cells.collect::<String>())
        });
        render_rows(out, &self.caption, &head, &rows.collect::<Vec<_>>());
    }
}

/// A table that scrolls where it is too wide; of a long one, the end is folded.
fn render_rows(out: &mut String, caption: &str, head: &str, rows: &[String]) {
    let table = |rows: &[String], caption: &str| {
        format!(
            "<div class=\"scroll\" tabindex=\"0\" role=\"group\"><table>{caption}{head}<tbody>{}\
             </tbody></table></div>",
            rows.concat()
        )
    };
    let caption = format!("<caption>{}</caption>", isolate(caption));
    let (shown, folded) = rows.split_at(rows.len().min(SHOWN));
    out.push_str(&table(shown, &caption));
    if !folded.is_empty() {
        out.push_str(&format!(
            "<details><summary>{} more</summary>{}</details>",
            counted(folded.len(), "row"),
            table(folded, "")
        ));
    }
}

fn is_number(cell: &str) -> bool {
    let cell = cell.trim().trim_end_matches(['%', '\u{a0}', '×']);
    cell.is_empty()
        || cell == "–"
        || cell
            .replace(',', "")
            .replace('−', "-")
            .parse::<f64>()
            .is_ok()
}

/// What the provenance of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProvenanceStatus {
    /// The file has a record that fits its content.
    Valid,
    /// The file has no record.
    Missing,
    /// The file has a record that is damaged, forged, or does not fit its content.
    Invalid,
}

/// Files that are listed: with an invalid record, and others.
const MAX_INVALID: usize = 1000;
const MAX_OTHERS: usize = 200;

/// The provenance of files, as verified. All are counted; at most the first 1,000 with an invalid
/// record are listed, and the first 200 others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProvenanceTable {
    valid: usize,
    missing: usize,
    invalid: usize,
    files: Vec<FileProvenance>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct FileProvenance {
    file: String,
    status: ProvenanceStatus,
    detail: String,
}

impl ProvenanceTable {
    /// A table without files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file and what its record says (model, seed), or what is wrong.
    pub fn push(
        &mut self,
        file: impl Into<String>,
        status: ProvenanceStatus,
        detail: impl Into<String>,
    ) {
        let is_listed = match status {
            ProvenanceStatus::Invalid => self.invalid < MAX_INVALID,
            _ => self.valid + self.missing < MAX_OTHERS,
        };
        match status {
            ProvenanceStatus::Valid => self.valid += 1,
            ProvenanceStatus::Missing => self.missing += 1,
            ProvenanceStatus::Invalid => self.invalid += 1,
        }
        if is_listed {
            self.files.push(FileProvenance {
                file: file.into(),
                status,
                detail: detail.into(),
            });
        }
    }

    /// Number of files with a valid record, and number of all files.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.valid, self.valid + self.missing + self.invalid)
    }

    pub(super) fn render(&self, out: &mut String) {
        // Files that need a look come first.
        let mut files: Vec<&FileProvenance> = self.files.iter().collect();
        files.sort_by_key(|file| match file.status {
            ProvenanceStatus::Invalid => 0,
            ProvenanceStatus::Missing => 1,
            ProvenanceStatus::Valid => 2,
        });
        let rows = files.iter().map(|file| {
            let (class, word) = match file.status {
                ProvenanceStatus::Valid => ("valid", "valid"),
                ProvenanceStatus::Missing => ("missing", "no record"),
                ProvenanceStatus::Invalid => ("invalid", "invalid"),
            };
            format!(
                "<tr><th scope=\"row\">{}</th><td class=\"{class}\">{word}</td><td>{}</td></tr>",
                isolate(&file.file),
                isolate(&file.detail)
            )
        });
        let head = "<thead><tr><th scope=\"col\">File</th><th scope=\"col\">Record</th>\
                    <th scope=\"col\">What it says</th></tr></thead>";
        render_rows(
            out,
            "Records in the files, compared with their content",
            head,
            &rows.collect::<Vec<_>>(),
        );
        let (_, all) = self.counts();
        if self.files.len() < all {
            let number = |n: usize| integer(n as u64);
            out.push_str(&format!(
                "<p class=\"note\">{} not listed. Of all, {} have a valid record, {} have none, \
                 and {} an invalid one.</p>",
                counted(all - self.files.len(), "further file"),
                number(self.valid),
                number(self.missing),
                number(self.invalid)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_fold() {
        let mut table = Table::new("Rows", ["name", "n"]);
        for i in 0..30 {
            table
                .push([format!("<{i}>"), format!("1,00{}", i % 10)])
                .unwrap();
        }
        assert!(table.push(["one"]).is_err());
        let mut out = String::new();
        table.render(&mut out);
        assert_eq!(
            out.matches("<th scope=\"col\" class=\"number\">").count(),
            2
        );
        assert!(out.contains("5 rows more") && out.contains("&lt;29&gt;"));
    }

    #[test]
    fn invalid_records_come_first() {
        let mut table = ProvenanceTable::new();
        table.push("a.png", ProvenanceStatus::Valid, "seed 1");
        table.push("b.png", ProvenanceStatus::Invalid, "pixels changed");
        assert_eq!(table.counts(), (1, 2));
        let mut out = String::new();
        table.render(&mut out);
        assert!(out.find("b.png") < out.find("a.png"));
        assert!(!out.contains("not listed"));
    }

    #[test]
    fn long_lists_are_cut_and_counted() {
        let mut table = ProvenanceTable::new();
        for i in 0..3000 {
            let status = match i % 3 {
                0 => ProvenanceStatus::Invalid,
                1 => ProvenanceStatus::Missing,
                _ => ProvenanceStatus::Valid,
            };
            table.push(format!("{i}.png"), status, "");
        }
        assert_eq!(table.counts(), (1000, 3000));
        let listed = |status| {
            let files = table.files.iter();
            files.filter(|file| file.status == status).count()
        };
        assert_eq!(listed(ProvenanceStatus::Invalid), 1000);
        assert_eq!(listed(ProvenanceStatus::Missing), 100);
        let mut out = String::new();
        table.render(&mut out);
        let expected = "1,800 further files not listed. Of all, 1,000 have a valid record";
        assert!(out.contains(expected), "{out}");
    }
}
