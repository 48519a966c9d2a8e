//! A report of an evaluation: one HTML page that needs nothing else, and its numbers as JSON.
//!
//! The page has no script, loads nothing, and escapes all text, so a hostile prompt or file name is
//! inert. It follows the reader's light or dark scheme, and is laid out for phones and for print.
//!
//! A [`Report`] does not know which measures exist. A [`Measure`] carries what is needed to judge
//! it: its interval, the number of samples, the reference set, and the value that real data
//! reaches. The summary at the top is derived from these by rules.
//!
//! ```
//! use aigc_core::eval::report::{Aspect, Better, LineChart, Measure, Report, Series};
//!
//! # fn main() -> aigc_core::Result<()> {
//! let mut report = Report::new("Digits of a VAE")
//!     .with_subject("runs/vae, 1,000 samples")
//!     .with_reference("MNIST, 10,000 test images")
//!     .with_command("evaluate runs/vae --against data/mnist");
//! report.add_measure(
//!     Measure::new(Aspect::Quality, "Fréchet distance", 21.4, Better::Lower, 1000)
//!         .with_interval(19.8, 23.1)
//!         .with_reference("MNIST, test", 10_000)
//!         .with_floor(1.9)
//!         .with_explanation("The distance between the features of samples and of real images."),
//! )?;
//! report.add_measure(Measure::copies(0, 1000, Some(0.01))?)?;
//! let losses = Series::new("loss", vec![(0.0, 3.0), (100.0, 1.5), (200.0, 1.2)]);
//! report
//!     .add_section("Training")
//!     .add(LineChart::new("Losses", "step", "loss").with_series(losses));
//! # let folder = tempfile::tempdir().unwrap();
//! # let folder = folder.path();
//! report.save(folder)?; // report.html and report.json
//! # Ok(()) }
//! ```

mod chart;
mod date;
mod html;
mod measure;
mod measures;
mod number;
mod page;
mod passages;
mod pictures;
mod sound;
mod summary;
mod table;

pub use chart::{Histogram, LineChart, Series, training_charts};
pub use date::utc_date;
pub use measure::{Aspect, Better, Measure};
pub use passages::TextSample;
pub use pictures::{Gallery, Picture, Sample};
pub use sound::SoundSample;
pub use table::{ProvenanceStatus, ProvenanceTable, Table};

use crate::{Error, Result, fs::write_atomic};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Version of the layout of `report.json`.
const VERSION: u32 = 1;

/// A report of an evaluation.
#[derive(Clone, Debug)]
pub struct Report {
    title: String,
    facts: Vec<(String, String)>,
    measures: Vec<Measure>,
    sections: Vec<Section>,
    warnings: Vec<String>,
    confidence: f64,
    media_limit: usize,
}

/// A part of a report under a heading.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    title: String,
    blocks: Vec<Block>,
}

/// A part of a section; each type converts into it.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", content = "content", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Block {
    /// A paragraph of text.
    Paragraph(String),
    /// Curves.
    LineChart(LineChart),
    /// Bars of classes.
    Histogram(Histogram),
    /// Images in rows.
    Gallery(Gallery),
    /// A generated text.
    Text(TextSample),
    /// A sound.
    Sound(SoundSample),
    /// A table.
    Table(Table),
    /// What the files' records say.
    Provenance(ProvenanceTable),
}

impl Section {
    /// Adds a part at the end.
    pub fn add(&mut self, block: impl Into<Block>) -> &mut Self {
        self.blocks.push(block.into());
        self
    }
}

macro_rules! block_from {
    ($($variant:ident($of:ty)),*) => {
        $(impl From<$of> for Block {
            fn from(content: $of) -> Self {
                Self::$variant(content)
            }
        })*
    };
}

block_from!(
    Paragraph(String),
    LineChart(LineChart),
    Histogram(Histogram),
    Gallery(Gallery),
    Text(TextSample),
    Sound(SoundSample),
    Table(Table),
    Provenance(ProvenanceTable)
);

impl From<&str> for Block {
    fn from(text: &str) -> Self {
        Self::Paragraph(text.to_string())
    }
}

impl Report {
    /// A report without content.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            facts: Vec::new(),
            measures: Vec::new(),
            sections: Vec::new(),
            warnings: Vec::new(),
            confidence: 0.95,
            media_limit: 20_000_000,
        }
    }

    /// Sets the subject of the evaluation: a run or a folder, and the number of samples.
    pub fn with_subject(self, subject: impl Into<String>) -> Self {
        self.with_fact("Subject", subject)
    }

    /// Sets the reference set.
    pub fn with_reference(self, reference: impl Into<String>) -> Self {
        self.with_fact("Reference set", reference)
    }

    /// Sets the command that writes the report.
    pub fn with_command(self, command: impl Into<String>) -> Self {
        self.with_fact("Command", command)
    }

    /// Sets the date, such as that of [`utc_date`].
    pub fn with_date(self, date: impl Into<String>) -> Self {
        self.with_fact("Date", date)
    }

    /// Sets a fact of the page's head, such as the seed or the step of the checkpoint.
    pub fn with_fact(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), value.into());
        match self.facts.iter_mut().find(|fact| fact.0 == name) {
            Some(fact) => fact.1 = value,
            None => self.facts.push((name, value)),
        }
        self
    }

    /// Sets the confidence of all intervals whose measure has none of its own; 0.95 by default.
    pub fn with_confidence(mut self, confidence: f64) -> Self {
        self.confidence = confidence;
        self
    }

    /// Sets the limit on embedded images and sounds, in bytes of the page; 20 MB by default. What
    /// exceeds it is left out, which the page says.
    pub fn with_media_limit(mut self, bytes: usize) -> Self {
        self.media_limit = bytes;
        self
    }

    /// Adds a measure to the table of its aspect. The summary tells of the first three of each.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a value, floor, target or bound that is not finite, reversed
    /// bounds, no samples, or an empty name.
    pub fn add_measure(&mut self, measure: Measure) -> Result<()> {
        measure.validate()?;
        self.measures.push(measure);
        Ok(())
    }

    /// Adds a section after the measures.
    pub fn add_section(&mut self, title: impl Into<String>) -> &mut Section {
        let at = self.sections.len();
        self.sections.push(Section {
            title: title.into(),
            blocks: Vec::new(),
        });
        &mut self.sections[at]
    }

    /// Adds a warning at the top of the page.
    pub fn add_warning(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// The page.
    ///
    /// # Errors
    /// See [`Report::to_json`].
    pub fn to_html(&self) -> Result<String> {
        Ok(page::render(
            self,
            &summary::statements(self),
            &self.to_json()?,
        ))
    }

    /// Everything but images and sounds, as JSON.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a confidence outside (0, 1) or an empty title.
    pub fn to_json(&self) -> Result<String> {
        if !(self.confidence > 0.0 && self.confidence < 1.0) {
            return Err(Error::argument(
                "confidence",
                self.confidence,
                "between 0 and 1",
            ));
        }
        if self.title.trim().is_empty() {
            return Err(Error::argument("title", "empty", "a title"));
        }
        let facts: serde_json::Map<String, serde_json::Value> = self
            .facts
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into()))
            .collect();
        let json = serde_json::json!({
            "version": VERSION,
            "title": self.title,
            "facts": facts,
            "confidence": self.confidence,
            "summary": summary::statements(self),
            "warnings": self.warnings,
            "measures": self.measures,
            "sections": self.sections,
        });
        Ok(json.to_string())
    }

    /// Writes `report.html` and `report.json` in a directory, each atomically; returns the path of
    /// the page.
    ///
    /// # Errors
    /// See [`Report::to_json`]; [`Error::Io`] if a file cannot be written.
    pub fn save(&self, directory: impl AsRef<Path>) -> Result<PathBuf> {
        let path = directory.as_ref().join("report.html");
        write_atomic(
            &directory.as_ref().join("report.json"),
            self.to_json()?.as_bytes(),
        )?;
        write_atomic(&path, self.to_html()?.as_bytes())?;
        Ok(path)
    }

    /// Number of files with a valid record, and number of all files.
    fn provenance_counts(&self) -> (usize, usize) {
        let blocks = self.sections.iter().flat_map(|section| &section.blocks);
        blocks.fold((0, 0), |(valid, all), block| match block {
            Block::Provenance(table) => {
                let (v, a) = table.counts();
                (valid + v, all + a)
            }
            _ => (valid, all),
        })
    }
}
