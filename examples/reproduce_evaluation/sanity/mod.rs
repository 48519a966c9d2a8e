//! Every measure at its floor, and as samples get worse.
//!
//! The reference is a part of MNIST's training images, and test images are the samples: a perfect
//! generator could not do better. Each series makes them worse in one way, step by step.

mod measures;
mod series;

use crate::{Context, images::Collection, report::Report};
use aigc_core::{
    Error, Result,
    data::{Image, collate_images},
    eval::{Classifier, Features, LeNet5},
    rng::Rng,
};
use aigc_examples::{Progress, outln};
use anyhow::Context as _;
use clap::Args;
use measures::{MEASURES, Reference};
use serde_json::{Value, json};
use series::{Level, Sets, expected};
use std::path::PathBuf;

/// Images that are classified at once.
const BATCH: usize = 250;
/// Where the weights of the classifier can be had.
const LENET: &str = "--classifier is lenet5_csinva.safetensors, a safetensors copy of \
     mnist_classifier/weights of github.com/csinva/gan-vae-pretrained-pytorch, or that file itself";

#[derive(Debug, Args)]
pub(crate) struct SanityArgs {
    /// Directory with MNIST-format files.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Weights of a LeNet-5 that classifies digits (`mnist-models/lenet5_csinva.safetensors`);
    /// without it, the only features are pixels.
    #[arg(long, value_name = "FILE")]
    classifier: Option<PathBuf>,
    /// Number of images of each set. Up to 2,000, the sets with few classes are as large as the
    /// others; time grows with the square.
    #[arg(long, value_name = "N", default_value_t = 2000,
        value_parser = clap::value_parser!(u32).range(100..=10_000))]
    images: u32,
}

/// The features of images.
struct Space {
    name: &'static str,
    /// Without it, the features are pixels.
    lenet: Option<LeNet5>,
}

pub(crate) fn run(args: &SanityArgs, context: &Context, report: &mut Report) -> anyhow::Result<()> {
    let lenet = args.classifier.as_deref();
    let lenet = lenet.map(|path| LeNet5::from_file(path, &context.device).context(LENET));
    let lenet = lenet.transpose()?;
    let Collection { train, held_out } = Collection::mnist(&args.data, context)?;
    let n = args.images as usize;
    let most = (train.len() / 2).min(held_out.len());
    if n > most {
        let expected = format!("at most {most}, the test images or half of the training images");
        return Err(Error::argument("--images", n, expected).into());
    }
    if lenet.is_some() && train[0].shape.channels != 1 {
        let expected = format!(
            "none for images of {}; it reads grey images",
            train[0].shape
        );
        return Err(Error::argument("--classifier", "a LeNet-5", expected).into());
    }
    let sets = Sets::new(&train, &held_out, n, context.seed)?;
    outln!(
        "{n} training images are the reference, {n} test images the samples, {n} other training \
         images are held out"
    );
    let pixels = Space {
        name: "pixels",
        lenet: None,
    };
    let mut spaces = vec![pixels];
    spaces.extend(lenet.map(|lenet| Space {
        name: "LeNet-5",
        lenet: Some(lenet),
    }));
    let mut verdicts = Vec::new();
    for space in &spaces {
        verdicts.extend(measure(space, &sets, context, report)?);
    }
    report.table(
        "Directions, from the floor to the worst samples",
        ["features", "series", "measure", "expected", "monotone"],
    );
    let wrong = verdicts.iter().filter(|row| row[4] == json!("no")).count();
    let total = verdicts.len();
    for row in verdicts {
        report.row(row)?;
    }
    outln!("{} of {total} directions are as expected", total - wrong);
    Ok(())
}

/// Adds the table of one kind of features; returns the rows of the verdict.
fn measure(
    space: &Space,
    sets: &Sets,
    context: &Context,
    report: &mut Report,
) -> anyhow::Result<Vec<Vec<Value>>> {
    let levels = Level::all();
    let progress = Progress::new(space.name, levels.len() + 2, &context.stop);
    let extract = |images: &[Image]| -> Result<(Features, Option<Features>)> {
        let found = space.features(images, context)?;
        progress.add(1)?;
        Ok(found)
    };
    let (reference, _) = extract(&sets.reference)?;
    let (held_out, _) = extract(&sets.held_out)?;
    let reference = Reference::new(reference, held_out, context.seed)?;
    let columns = ["series", "level", "samples"].into_iter();
    report.table(
        format!("Measures in the features of {}", space.name),
        columns.chain(MEASURES.iter().map(|(name, _)| *name)),
    );
    let mut rows: Vec<(&str, Vec<Option<f64>>)> = Vec::new();
    for level in levels {
        let images = sets.images(&level, context.seed)?;
        let (samples, logits) = extract(&images)?;
        let values = reference.measure(&samples, logits.as_ref(), context.seed)?;
        let mut row = vec![
            json!(level.series()),
            json!(level.to_string()),
            json!(images.len()),
        ];
        row.extend(values.iter().map(|value| json!(value)));
        report.row(row)?;
        rows.push((level.series(), values));
    }
    let (_, floor) = &rows[0];
    let mut verdicts = Vec::new();
    for series in series::SERIES {
        for (column, (name, measure)) in MEASURES.iter().enumerate() {
            let Some(direction) = expected(series, *measure, space.lenet.is_none()) else {
                continue;
            };
            let worse = rows.iter().filter(|(of, _)| *of == series);
            let values = std::iter::once(floor).chain(worse.map(|(_, values)| values));
            let values: Option<Vec<f64>> = values.map(|values| values[column]).collect();
            let Some(values) = values else {
                continue;
            };
            let kept = direction.is_kept(&values);
            verdicts.push(vec![
                json!(space.name),
                json!(series),
                json!(name),
                json!(direction.to_string()),
                json!(if kept { "yes" } else { "no" }),
            ]);
        }
    }
    Ok(verdicts)
}

impl Space {
    /// Features, and logits of a classifier.
    fn features(
        &self,
        images: &[Image],
        context: &Context,
    ) -> Result<(Features, Option<Features>)> {
        let Some(lenet) = &self.lenet else {
            let width = images[0].shape.numel();
            let values = images.iter().flat_map(|image| &image.pixels);
            let values = values.map(|value| f32::from(*value) / 255.0);
            return Ok((Features::new(values.collect(), width)?, None));
        };
        let mut features = Features::empty(LeNet5::FEATURES)?;
        let mut logits = Features::empty(LeNet5::CLASSES)?;
        for images in images.chunks(BATCH) {
            if context.stop.is_cancelled() {
                return Err(Error::cancelled("the evaluation"));
            }
            let batch = collate_images(images.to_vec());
            let output = lenet.classify(batch.to_tensor(&context.device));
            features.extend(&output.features)?;
            logits.extend(&output.logits)?;
        }
        Ok((features, Some(logits)))
    }
}

/// A random order of `n` numbers.
fn order(n: usize, purpose: &str, seed: u64) -> Vec<usize> {
    Rng::stream(seed, purpose, 0).permutation(n)
}
