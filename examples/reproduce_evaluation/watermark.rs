//! The watermark: how similar marked images are, its survival of compression and resizing, and its
//! false positives.

use crate::{
    Context,
    memory::threads,
    pictures::{planar, read, resized, rgb},
    report::{Report, share},
};
use aigc_core::{
    Result,
    data::{Image, collate_images, transforms::jpeg},
    eval::{Proportion, psnr, ssim},
    output::Watermark,
    rng::Rng,
};
use aigc_examples::{Progress, outln};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Quality of the compression.
const QUALITY: u8 = 75;
/// Side of the images in which marks of random keys are searched.
const SMALL: u32 = 64;
/// Number of unmarked images.
const UNMARKED: usize = 100;
/// False-positive rates to compare with.
const RATES: [f64; 5] = [0.1, 0.01, 1e-3, 1e-4, 1e-6];

#[derive(Debug, Args)]
pub(crate) struct WatermarkArgs {
    /// Folder of images to mark; drawn scenes without it.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Side that images are resized to, in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(64..=4096))]
    side: u32,
    /// Number of images to mark.
    #[arg(long, value_name = "N", default_value_t = 200,
        value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Similarity of marked images to their originals in decibels, 30 to 50.
    #[arg(long, value_name = "DECIBELS", default_value_t = 40.0)]
    psnr: f64,
    /// Least number of pairs of an unmarked image and a key.
    #[arg(long, value_name = "N", default_value_t = 100_000,
        value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
}

type Change = fn(&Image) -> Result<Image>;

/// What happens to the marked images.
const CHANGES: [(&str, Change); 5] = [
    ("nothing", |image| Ok(image.clone())),
    ("JPEG, quality 75", |image| jpeg(image, QUALITY)),
    ("half the size", halved),
    ("JPEG, then half the size", |image| {
        halved(&jpeg(image, QUALITY)?)
    }),
    ("half the size, then JPEG", |image| {
        jpeg(&halved(image)?, QUALITY)
    }),
];

fn halved(image: &Image) -> Result<Image> {
    let image = rgb(image)?;
    planar(&resized(&image, image.width() / 2, image.height() / 2))
}

pub(crate) fn run(
    args: &WatermarkArgs,
    context: &Context,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (side, count) = (args.side as usize, args.count as usize);
    let images = read(args.images.as_deref(), side, count, context)?;
    let count = images.len();
    let source = match &args.images {
        Some(dir) => dir.display().to_string(),
        None => "drawn scenes".into(),
    };
    outln!("{count} images of {side}×{side} pixels: {source}");

    let watermark = Watermark::new(Rng::stream(context.seed, "key", 0).next_u64());
    let watermark = watermark.with_psnr(args.psnr);
    let progress = Progress::new("marking", count, &context.stop);
    let mut marked = Vec::with_capacity(count);
    let (mut decibels, mut similarities) = (Vec::new(), Vec::new());
    for image in &images {
        let original = planar(image)?;
        let mut image = original.clone();
        // Whether the mark can be found is counted below, beside the changes.
        let _ = watermark.embed(&mut image)?;
        let [found, original] = [image.clone(), original]
            .map(|image| collate_images(vec![image]).to_tensor(&context.device));
        decibels.extend(psnr(&found, &original)?);
        similarities.extend(ssim(&found, &original)?);
        marked.push(image);
        progress.add(1)?;
    }
    drop(progress);

    let what = format!("{count} images of {side}×{side} pixels ({source})");
    report.table(
        format!("Similarity of {what} to themselves with a watermark"),
        ["measure", "mean", "smallest"],
    );
    for (measure, values) in [("PSNR in dB", decibels), ("SSIM", similarities)] {
        let mean = values.iter().sum::<f64>() / count as f64;
        let least = values.into_iter().fold(f64::INFINITY, f64::min);
        report.row(vec![json!(measure), json!(mean), json!(least)])?;
    }

    report.table(
        format!("Watermark in {what}"),
        ["change", "found", "found without the mark", "smallest z"],
    );
    for (name, change) in CHANGES {
        let progress = Progress::new("searching the mark", count, &context.stop);
        let (mut found, mut wrong, mut weakest) = (0, 0, f64::INFINITY);
        for (image, original) in marked.iter().zip(&images) {
            let detection = watermark.detect(&change(image)?)?;
            found += usize::from(detection.present);
            weakest = weakest.min(detection.z);
            let unmarked = watermark.detect(&change(&planar(original)?)?)?;
            wrong += usize::from(unmarked.present);
            progress.add(1)?;
        }
        report.row(vec![
            json!(name),
            share(&Proportion::new(found, count)?),
            share(&Proportion::new(wrong, count)?),
            json!(weakest),
        ])?;
    }

    let unmarked = images
        .iter()
        .take(UNMARKED)
        .map(|image| planar(&resized(image, SMALL, SMALL)))
        .collect::<Result<Vec<Image>>>()?;
    let keys = (args.pairs as usize).div_ceil(unmarked.len());
    let below = false_positives(&unmarked, keys, context)?;
    let pairs = keys * unmarked.len();
    report.table(
        format!(
            "False positives among {pairs} pairs of {} unmarked images of {SMALL}×{SMALL} pixels \
             and {keys} keys",
            unmarked.len()
        ),
        ["nominal rate", "positives", "at most the nominal rate"],
    );
    for (rate, below) in RATES.iter().zip(below) {
        let positives = Proportion::new(below, pairs)?;
        // Above the rate only if the whole interval is.
        let kept = positives.interval().0 <= *rate;
        report.row(vec![
            json!(rate.to_string()),
            share(&positives),
            json!(if kept { "yes" } else { "no" }),
        ])?;
    }
    Ok(())
}

/// How many pairs of an image and a random key have a p-value up to each of [`RATES`].
fn false_positives(images: &[Image], keys: usize, context: &Context) -> Result<[usize; 5]> {
    let progress = Progress::new("false positives", keys, &context.stop);
    let (threads, seed) = (threads().min(keys), context.seed);
    let parts = std::thread::scope(|scope| {
        let progress = &progress;
        let workers: Vec<_> = (0..threads)
            .map(|first| {
                let numbers = (first..keys).step_by(threads);
                scope.spawn(move || count_below(images, numbers, seed, progress))
            })
            .collect();
        let joined = workers.into_iter().map(|worker| match worker.join() {
            Ok(counts) => counts,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect::<Result<Vec<[usize; 5]>>>()
    })?;
    let mut sums = [0; 5];
    for part in parts {
        for (sum, count) in sums.iter_mut().zip(part) {
            *sum += count;
        }
    }
    Ok(sums)
}

fn count_below(
    images: &[Image],
    numbers: impl Iterator<Item = usize>,
    seed: u64,
    progress: &Progress,
) -> Result<[usize; 5]> {
    let mut below = [0; 5];
    for number in numbers {
        let key = Rng::stream(seed, "other keys", number as u64).next_u64();
        let watermark = Watermark::new(key);
        for image in images {
            let p_value = watermark.detect(image)?.p_value;
            for (below, rate) in below.iter_mut().zip(RATES) {
                *below += usize::from(p_value <= rate);
            }
        }
        progress.add(1)?;
    }
    Ok(below)
}
