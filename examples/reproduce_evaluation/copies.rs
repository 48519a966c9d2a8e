//! The copy detector: planted copies, and false alarms.

use crate::{
    Context,
    images::Collection,
    memory::threads,
    report::{Report, share},
};
use aigc_core::{
    Error, Result,
    data::{
        Image, ImageBatch, collate_images,
        transforms::{horizontal_flip, jpeg, shift},
    },
    eval::{CalibrationConfig, CopyDetector, CopyDetectorConfig, CopyMatch, Proportion},
    rng::Rng,
};
use aigc_examples::{Progress, outln};
use clap::Args;
use serde_json::json;
use std::{path::PathBuf, time::Instant};

/// Images that are searched for at once.
const BATCH: usize = 100;
/// Quality of the copies' compression.
const QUALITY: u8 = 75;
/// Held-out images for calibration from which on the confidence is high by default.
const MANY: usize = 2000;

#[derive(Debug, Args)]
pub(crate) struct CopiesArgs {
    /// Directory with MNIST-format files, with the binary files of CIFAR-10, or with the folders
    /// `train` and `test` of images; can be repeated.
    #[arg(long, value_name = "DIR", required = true)]
    data: Vec<PathBuf>,
    /// Number of planted copies of each kind.
    #[arg(long, value_name = "N", default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..))]
    copies: u32,
    /// Probability that the false alarms stay below the allowed 1 %; by default 0.99 for many
    /// held-out images, 0.8 for fewer than 4,000. With few held-out images and a high confidence,
    /// the threshold lies below near-duplicates among them, and copies may be missed.
    #[arg(long)]
    confidence: Option<f64>,
}

type Change = fn(usize, &Image) -> Result<Image>;

/// What happens to the copies.
const KINDS: [(&str, Change); 8] = [
    ("unchanged", |_, image| Ok(image.clone())),
    ("shifted by a pixel", shifted),
    ("flipped", |_, image| horizontal_flip(image)),
    ("re-encoded", |_, image| jpeg(image, QUALITY)),
    ("shifted, flipped", |i, image| {
        shifted(i, &horizontal_flip(image)?)
    }),
    ("shifted, re-encoded", |i, image| {
        jpeg(&shifted(i, image)?, QUALITY)
    }),
    ("flipped, re-encoded", |_, image| {
        jpeg(&horizontal_flip(image)?, QUALITY)
    }),
    ("flipped, shifted, re-encoded", |i, image| {
        jpeg(&shifted(i, &horizontal_flip(image)?)?, QUALITY)
    }),
];

/// Shifted by a pixel, in one of the eight directions after the other.
fn shifted(i: usize, image: &Image) -> Result<Image> {
    // The places of a square of 3×3, without its middle.
    let place = [0, 1, 2, 3, 5, 6, 7, 8][i % 8];
    shift(image, place / 3 - 1, place % 3 - 1)
}

pub(crate) fn run(args: &CopiesArgs, context: &Context, report: &mut Report) -> anyhow::Result<()> {
    for dir in &args.data {
        let images = Collection::open(dir, context)?;
        let name = dir.file_name().unwrap_or(dir.as_os_str());
        check(&name.to_string_lossy(), &images, args, context, report)?;
    }
    Ok(())
}

fn check(
    name: &str,
    images: &Collection,
    args: &CopiesArgs,
    context: &Context,
    report: &mut Report,
) -> anyhow::Result<()> {
    let Collection { train, held_out } = images;
    let count = args.copies as usize;
    if train.len() < count {
        let expected = format!("at most {}, the training images of {name}", train.len());
        return Err(Error::argument("--copies", count, expected).into());
    }
    // In random order: calibration and measurement have the same distribution.
    let order = Rng::stream(context.seed, "held-out", 0).permutation(held_out.len());
    let held_out: Vec<Image> = order.iter().map(|i| held_out[*i].clone()).collect();
    let (calibrate, measure) = held_out.split_at(held_out.len() / 2);
    let default = if calibrate.len() < MANY { 0.8 } else { 0.99 };
    let calibration = CalibrationConfig {
        confidence: args.confidence.unwrap_or(default),
        ..CalibrationConfig::default()
    };
    let config = CopyDetectorConfig {
        calibration,
        ..CopyDetectorConfig::default()
    };
    outln!(
        "{name}: {} training images, {} held-out images",
        train.len(),
        held_out.len()
    );

    let start = Instant::now();
    let detector = {
        let progress = Progress::new("index", train.len() + calibrate.len(), &context.stop);
        let batch = |images: &[Image]| -> Result<ImageBatch> {
            progress.add(images.len())?;
            Ok(collate_images(images.to_vec()))
        };
        CopyDetector::fit(
            train.chunks(BATCH).map(batch),
            calibrate.chunks(BATCH).map(batch),
            config,
            &context.device,
        )?
    };
    let fit_seconds = start.elapsed().as_secs_f64();

    let (alarms, seconds) = detect(&detector, measure, "false alarms", context)?;
    let alarms = alarms.iter().filter(|found| found.is_copy).count();
    let threshold = detector.calibration().threshold;
    report.table(
        format!(
            "{name}: the index of {} images and the threshold {threshold:.4} (confidence {}) took \
             {fit_seconds:.1} s, {} threads",
            train.len(),
            calibration.confidence,
            threads()
        ),
        ["kind", "found", "largest score", "seconds"],
    );
    let alarms = Proportion::new(alarms, measure.len())?;
    report.row(vec![
        json!("false alarms on held-out images"),
        share(&alarms),
        json!(null),
        json!(seconds),
    ])?;

    let mut originals = Rng::stream(context.seed, "originals", 0).permutation(train.len());
    originals.truncate(count);
    for (kind, change) in KINDS {
        let copies = originals.iter().enumerate();
        let copies = copies.map(|(i, index)| change(i, &train[*index]));
        let copies = copies.collect::<Result<Vec<Image>>>()?;
        let (found, seconds) = detect(&detector, &copies, "copies", context)?;
        let right = found.iter().zip(&originals);
        let right = right.filter(|(found, index)| found.is_copy && found.index == **index);
        let largest = found.iter().map(|found| found.score).fold(0.0, f64::max);
        report.row(vec![
            json!(kind),
            share(&Proportion::new(right.count(), count)?),
            json!(largest),
            json!(seconds),
        ])?;
    }
    Ok(())
}

/// The nearest training image of each image, and the seconds that it took.
fn detect(
    detector: &CopyDetector,
    images: &[Image],
    what: &'static str,
    context: &Context,
) -> Result<(Vec<CopyMatch>, f64)> {
    let progress = Progress::new(what, images.len(), &context.stop);
    let start = Instant::now();
    let mut found = Vec::with_capacity(images.len());
    for images in images.chunks(BATCH) {
        let batch = collate_images(images.to_vec());
        found.extend(detector.detect(&batch.to_tensor(&context.device))?);
        progress.add(images.len())?;
    }
    Ok((found, start.elapsed().as_secs_f64()))
}
