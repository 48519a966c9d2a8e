//! Features of InceptionV3, and the FID between two folders.

use crate::{
    Context,
    memory::{peak_bytes, threads},
    report::Report,
};
use aigc_core::{
    Error,
    data::{
        DataLoader, DataLoaderConfig, Dataset, ImageBatch, ImageShape, collate_images,
        folder::{ImageFolder, ImageFolderConfig},
    },
    eval::{
        FeatureCache, FeatureStatistics, FeatureStream, InceptionPreprocessing, InceptionV3,
        frechet_distance,
    },
};
use aigc_examples::{Progress, outln};
use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::{
    cell::Cell,
    path::{Path, PathBuf},
    time::Instant,
};

/// Where the weights can be had.
const WEIGHTS: &str = "the weights of InceptionV3 are weights-inception-2015-12-05-6726825d.pth in \
     the releases of github.com/toshas/torch-fidelity, or \
     pt_inception-2015-12-05-6726825d.pth in those of github.com/mseitzer/pytorch-fid";

#[derive(Debug, Args)]
pub(crate) struct InceptionArgs {
    /// Weights in the layout of torch-fidelity or pytorch-fid.
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// Folder of images.
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Second folder: the FID between both is computed.
    #[arg(long, value_name = "DIR")]
    against: Option<PathBuf>,
    /// Height and width that images are cropped and resized to before the network's own
    /// preparation; by default those of the first image, so that images of one size are not
    /// changed.
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    side: Option<u32>,
    /// How the network's input is prepared.
    #[arg(long, value_enum, default_value = "torch-fidelity")]
    preprocessing: Preprocessing,
    /// Images in a batch.
    #[arg(long, value_name = "N", default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// Directory of features that were computed before; `features` in --out by default.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Compute all features, and keep none: to measure the time.
    #[arg(long, conflicts_with = "cache")]
    no_cache: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Preprocessing {
    TorchFidelity,
    PytorchFid,
}

impl From<Preprocessing> for InceptionPreprocessing {
    fn from(preprocessing: Preprocessing) -> Self {
        match preprocessing {
            Preprocessing::TorchFidelity => Self::TorchFidelity,
            Preprocessing::PytorchFid => Self::PytorchFid,
        }
    }
}

pub(crate) fn run(
    args: &InceptionArgs,
    context: &Context,
    report: &mut Report,
) -> anyhow::Result<()> {
    let network = InceptionV3::from_file(&args.weights, &context.device).context(WEIGHTS)?;
    let network = network.with_preprocessing(args.preprocessing.into());
    let shape = shape(args)?;
    report.table(
        format!("InceptionV3, images of {shape}, {} threads", threads()),
        [
            "folder",
            "images",
            "seconds",
            "images per second",
            "peak memory in MB",
        ],
    );
    let mut statistics = Vec::new();
    for dir in [Some(&args.images), args.against.as_ref()]
        .into_iter()
        .flatten()
    {
        statistics.push(features(&network, dir, shape, args, context, report)?);
    }
    if let [one, other] = &statistics[..] {
        report.table("Fréchet distance", ["distance", "value"]);
        report.row(vec![json!("FID"), json!(frechet_distance(one, other)?)])?;
        let mut warnings = statistics.iter().filter_map(FeatureStatistics::warning);
        if let Some(warning) = warnings.next() {
            eprintln!("{warning}");
            let (one, other) = (one.moments()?, other.moments()?);
            let one = one.with_shrinkage(one.oas_shrinkage()?)?;
            let other = other.with_shrinkage(other.oas_shrinkage()?)?;
            let shrunk = one.frechet_distance(&other)?;
            report.row(vec![json!("FID of shrunk covariances"), json!(shrunk)])?;
        }
    }
    Ok(())
}

/// The shape that images are resized to.
fn shape(args: &InceptionArgs) -> anyhow::Result<ImageShape> {
    if let Some(side) = args.side {
        return Ok(ImageShape::new(3, side as usize, side as usize));
    }
    let any = ImageFolderConfig::new(ImageShape::new(3, 1, 1));
    let images = ImageFolder::open(&args.images, any)?;
    let first = images.files().next().context("a folder has images")?;
    let size = image::image_dimensions(first);
    let (width, height) = size.with_context(|| first.display().to_string())?;
    Ok(ImageShape::new(3, height as usize, width as usize))
}

/// Mean and covariance of the features of a folder.
fn features(
    network: &InceptionV3,
    dir: &Path,
    shape: ImageShape,
    args: &InceptionArgs,
    context: &Context,
    report: &mut Report,
) -> anyhow::Result<FeatureStatistics> {
    let images = ImageFolder::open(dir, ImageFolderConfig::new(shape))?;
    let count = images.len();
    outln!("{}: {count} images", dir.display());
    let config = DataLoaderConfig {
        batch_size: args.batch as usize,
        shuffle_seed: None,
        ..DataLoaderConfig::default()
    };
    let loader: DataLoader<ImageBatch> = DataLoader::new(images, collate_images, config)?;
    let progress = Progress::new("features", count, &context.stop);
    let done = Cell::new(0);
    let mut stream = FeatureStream::new(network, &context.device)
        .with_cancel(context.stop.clone())
        .with_progress(|images| {
            // The stream stops by its own token.
            let _ = progress.add(images - done.replace(images));
        });
    if !args.no_cache {
        let default = || context.out.join("features");
        stream = stream.with_cache(FeatureCache::new(
            args.cache.clone().unwrap_or_else(default),
        ));
    }
    let start = Instant::now();
    let statistics = stream.statistics(loader.iter_once());
    if matches!(statistics, Err(Error::Cancelled { .. })) && !args.no_cache {
        eprintln!("the features so far are in the cache; the same command continues");
    }
    let statistics = statistics?;
    let seconds = start.elapsed().as_secs_f64();
    let peak = peak_bytes().map_or(Value::Null, |bytes| json!(bytes as f64 / 1e6));
    report.row(vec![
        json!(dir.display().to_string()),
        json!(count),
        json!(seconds),
        json!(count as f64 / seconds),
        peak,
    ])?;
    Ok(statistics)
}
