//! The program `evaluate`: samples of any family, judged against a data set.
//!
//! | module | what it does |
//! |---|---|
//! | `options` | the command line |
//! | `subject` | what a path holds: a run, images, texts or sounds |
//! | `book` | the report while it is written; a measure that fails becomes a warning |
//! | `interval` | intervals of measures, or why there is none |
//! | `images`, `text`, `sound` | samples, data and measures of each kind of content |
//! | `diversity` | how far samples are from each other |
//! | `originality` | originality in features, of images and of sounds |
//! | `provenance` | the records in the files |
#![forbid(unsafe_code)]

mod book;
mod diversity;
mod images;
mod interval;
mod options;
mod originality;
mod provenance;
mod sound;
mod subject;
mod text;

pub use book::printable;
pub use options::{Options, Part};

use aigc_core::{CancelToken, Error, Result, data::idx::MnistDataset};
use aigc_examples::outln;
use book::Book;
use std::path::{Path, PathBuf};
use subject::{Content, Subject, is_digits};

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
/// nothing is left to judge or to compare with; the first error, if nothing could be measured;
/// [`Error::Cancelled`] if `stop` was cancelled before anything was measured.
pub fn run(options: &Options, stop: &CancelToken) -> Result<Outcome> {
    options.validate()?;
    let subject = Subject::open(&options.subject)?;
    let content = subject.content();
    let data = [
        Some(("--against", &options.against)),
        options.held_out.as_ref().map(|path| ("--held-out", path)),
    ];
    for (option, path) in data.into_iter().flatten() {
        let found = Content::of(path)?;
        if found != content {
            return Err(Error::argument(
                option,
                format!("{} with {found}", path.display()),
                format!("{content}, like {}", options.subject.display()),
            ));
        }
    }
    if let Some(held_out) = &options.held_out {
        check_apart(&options.against, held_out)?;
    }
    let out = options.out_dir(subject.run_dir().is_some());
    let is_new = !options.check && !out.exists();
    // No empty directory is left behind.
    let cleared = |error: Error| {
        if is_new {
            let _ = std::fs::remove_dir(&out);
        }
        error
    };
    if !options.check {
        // Before the work, which may take long.
        std::fs::create_dir_all(&out).map_err(Error::io(&out))?;
    }
    let mut book = Book::new(options, stop);
    for option in options.without_effect(content, subject.model()) {
        book.warn(format!("{option} has no effect on these {content}."));
    }
    let judged = match content {
        Content::Images => images::evaluate(&subject, options, &mut book),
        Content::Texts => text::evaluate(&subject, options, &mut book),
        Content::Sounds => sound::evaluate(&subject, options, &mut book),
    };
    judged.map_err(cleared)?;
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
    let (page, warnings) = book.finish(&out).map_err(cleared)?;
    Ok(Outcome {
        page: Some(page),
        warnings,
    })
}

/// Fails if held-out data are training data, too: one of the two is in the other. The digits and
/// files in the format of MNIST have test data of their own.
fn check_apart(against: &Path, held_out: &Path) -> Result<()> {
    let whole = |path: &Path| std::fs::canonicalize(path).map_err(Error::io(path));
    let has_parts = |path: &Path| is_digits(path) || MnistDataset::is_in(path);
    if has_parts(against) || has_parts(held_out) {
        return Ok(());
    }
    let (train, other) = (whole(against)?, whole(held_out)?);
    if train.starts_with(&other) || other.starts_with(&train) {
        let expected = format!(
            "data that are not in {}, or no --held-out: then a tenth of that is held out",
            against.display()
        );
        return Err(Error::argument("--held-out", held_out.display(), expected));
    }
    Ok(())
}
