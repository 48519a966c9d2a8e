//! Images: drawn from a run or read from files, and judged.

mod classes;
mod compare;
mod extract;
mod judge;
mod kernel;
mod losses;
mod originality;
mod requested;
mod run;
mod score;
mod set;
mod source;

use crate::{Options, book::Book, subject::Subject};
use aigc_core::{Error, Result, data::ImageShape, rng::Rng};
use extract::Extractor;
use judge::Judged;
use requested::{
    given_prompts, recorded_prompts, verify, with_classes_of, with_drawn_classes,
    with_held_out_classes, with_recorded_classes,
};
use run::ImageModel;
use set::ImageSet;
use source::{Reader, Source, drawn, first_shape};

/// Numbers of samples that are drawn by default.
const DRAWN: [usize; 2] = [50, 1000];
/// Maximum number of images of a set that is read as a whole, in order.
const IN_ORDER: usize = 2000;

/// Judges images.
pub(crate) fn evaluate(subject: &Subject, options: &Options, book: &mut Book) -> Result<()> {
    let device = options.device()?;
    let stop = book.stop().clone();
    let (path, model) = match subject {
        Subject::Run { path, model } => (path, Some(ImageModel::open(model, &device, book)?)),
        Subject::Samples { path, .. } => (path, None),
    };
    let shape = match &model {
        Some(model) => model.shape()?,
        None => match Source::own_shape(&options.against)? {
            Some(shape) => shape,
            None => first_shape(path)?,
        },
    };
    let reader = Reader {
        seed: options.seed,
        stop: &stop,
        most: None,
    };
    let (choice, cache) = (options.feature_choice()?, options.cache.as_deref());
    let extractor = Extractor::open(&choice, shape, cache, &device)?;
    let (train, held_out) = reference(&reader, shape, options, book)?;
    let (train, held_out) = (shuffled(train), held_out.map(shuffled));
    let n = options.samples.map(|n| n as usize);
    let samples = match &model {
        Some(model) => {
            let real = held_out.as_ref().map_or(train.len(), ImageSet::len);
            let n = n.unwrap_or(real.clamp(DRAWN[0], DRAWN[1]));
            book.fact("Model", model.family());
            if options.check {
                book.fact("Samples", format!("{n} would be drawn"));
                found(book, &train, held_out.as_ref());
                return Ok(());
            }
            let samples = model.draw(n, options, &device, &stop)?;
            with_drawn_classes(samples, model, &train, book)
        }
        None => {
            // Lines of prompts belong to all files, of which some are drawn below.
            let most = n.filter(|_| options.prompts.is_none());
            let reader = Reader { most, ..reader };
            let source = Source::open(path, shape)?;
            with_classes_of(reader.whole(&source, path, book)?, &train, book)
        }
    };
    let prompts = given_prompts(options, samples.len())?;
    let (samples, prompts) = match (n, prompts) {
        (Some(n), Some(lines)) if n < samples.len() => {
            let rows = drawn(samples.len(), n, options.seed);
            let lines = rows.iter().map(|row| lines[*row].clone()).collect();
            (samples.select(&rows), Some(lines))
        }
        (_, prompts) => (samples, prompts),
    };
    book.fact(
        "Subject",
        format!("{}, {} samples of {shape}", path.display(), samples.len()),
    );
    found(book, &train, held_out.as_ref());
    book.fact("Seed", options.seed.to_string());
    if options.check {
        return Ok(());
    }
    let records = verify(book, subject, &samples);
    let samples = with_recorded_classes(samples, &train, &records, book);
    let prompts = prompts.or_else(|| recorded_prompts(&records, book));
    let judged = Judged {
        samples,
        train,
        held_out,
        model,
        extractor,
        device,
        stop,
    };
    judged.report(options, prompts.as_deref(), book);
    Ok(())
}

/// A large set in random order: parts of it are then from all classes.
fn shuffled(set: ImageSet) -> ImageSet {
    if set.len() <= IN_ORDER {
        return set;
    }
    set.select(&Rng::stream(0, "order", 0).permutation(set.len()))
}

/// The training images and the held-out ones.
fn reference(
    reader: &Reader<'_>,
    shape: ImageShape,
    options: &Options,
    book: &mut Book,
) -> Result<(ImageSet, Option<ImageSet>)> {
    let against = &options.against;
    let source = Source::open(against, shape)?;
    let (train, held_out) = match &options.held_out {
        None => reader.split(&source, against, book)?,
        Some(path) => {
            let held_out = reader.held_out(&Source::open(path, shape)?, path, against, book)?;
            // Training images of MNIST-format files and digits; all of a folder.
            let train = match source {
                Source::Folder(_) => reader.whole(&source, against, book)?,
                _ => reader.split(&source, against, book)?.0,
            };
            let held_out = with_held_out_classes(held_out, &train, book);
            (train, Some(held_out))
        }
    };
    let sets = [
        Some((&train, "--against")),
        held_out.as_ref().map(|set| (set, "--held-out")),
    ];
    for (set, option) in sets.into_iter().flatten() {
        if set.shape() != shape {
            let found = format!("images of {}", set.shape());
            let expected = format!("images of {shape}, the shape of the samples");
            return Err(Error::argument(option, found, expected));
        }
    }
    if held_out.is_none() {
        book.warn(
            "There are no held-out images: values of real data, closest records and copies are \
             missing. Give --held-out DATA.",
        );
    }
    Ok((train, held_out))
}

/// Facts about the data.
fn found(book: &mut Book, train: &ImageSet, held_out: Option<&ImageSet>) {
    let held_out = held_out.map_or("none".into(), |set| set.len().to_string());
    let reference = format!("{} ({}), held out: {held_out}", train.name, train.len());
    book.fact("Reference", reference);
}
