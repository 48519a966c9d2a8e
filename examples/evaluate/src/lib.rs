//! The program `evaluate`: samples of any family, judged against a data set.
//!
//! | module | what it does |
//! |---|---|
//! | `options` | the command line |
//! | `subject` | what a path holds: a run, images, texts or sounds |
//! | `book` | the report while it is written; a measure that fails becomes a warning |
//! | `images`, `text`, `sound` | samples, data and measures of each kind of content |
//! | `provenance` | the records in the files |
#![forbid(unsafe_code)]

mod book;
mod images;
mod options;
mod provenance;
mod sound;
mod subject;
mod text;

pub use options::{Options, Part};

use aigc_core::{CancelToken, Error, Result};
use aigc_examples::outln;
use book::Book;
use std::path::PathBuf;
use subject::{Content, Subject};

/// What an evaluation has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The page; `report.json` is beside it. `None` after `--check`.
    pub page: Option<PathBuf>,
    /// The warnings of the report.
    pub warnings: Vec<String>,
}

/// Evaluates as `options` say, prints a summary, and writes the report. If `stop` is cancelled, the
/// report has what was measured until then.
///
/// # Errors
/// [`Error::InvalidArgument`] for options that do not fit what is judged; errors of reading, if
/// nothing is left to judge or to compare with; [`Error::Cancelled`] if `stop` was cancelled before
/// anything was measured.
pub fn run(options: &Options, stop: &CancelToken) -> Result<Outcome> {
    options.validate()?;
    let subject = Subject::open(&options.subject)?;
    let content = subject.content();
    let against = Content::of(&options.against)?;
    if content != against {
        return Err(Error::argument(
            "--against",
            format!("{} with {against}", options.against.display()),
            format!("{content}, like {}", options.subject.display()),
        ));
    }
    let mut book = Book::new(options, stop);
    match content {
        Content::Images => images::evaluate(&subject, options, &mut book)?,
        Content::Texts => text::evaluate(&subject, options, &mut book)?,
        Content::Sounds => sound::evaluate(&subject, options, &mut book)?,
    }
    if options.check {
        for line in book.lines() {
            outln!("{line}");
        }
        return Ok(Outcome {
            page: None,
            warnings: book.into_warnings(),
        });
    }
    if let Some(run) = subject.run_dir() {
        book.training_curves(run);
    }
    let out = options.out_dir();
    std::fs::create_dir_all(&out).map_err(Error::io(&out))?;
    let (page, warnings) = book.finish(&out)?;
    Ok(Outcome {
        page: Some(page),
        warnings,
    })
}
