//! The table of figures.

use aigc_examples::outln;

/// A published figure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published {
    pub(crate) value: &'static str,
    pub(crate) source: &'static str,
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Row {
    what: String,
    ours: String,
    published: Option<Published>,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, ours: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            ours: ours.into(),
            published: None,
        }
    }

    /// Adds a note to what the figure is.
    pub(crate) fn with_note(self, note: &str) -> Self {
        let what = format!("{}, {note}", self.what);
        Self { what, ..self }
    }

    pub(crate) fn with_published(self, published: Option<Published>) -> Self {
        Self { published, ..self }
    }
}

/// Prints a table in Markdown.
pub(crate) fn print(title: &str, rows: &[Row]) {
    outln!("\n{title}\n");
    outln!("| figure | ours | published | source |");
    outln!("|---|---|---|---|");
    for Row {
        what,
        ours,
        published,
    } in rows
    {
        let (value, source) = published.map_or(("–", "–"), |found| (found.value, found.source));
        outln!("| {what} | {ours} | {value} | {source} |");
    }
    outln!();
}
