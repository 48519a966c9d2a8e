//! Evaluation of the model of `paint`.

use crate::{
    autoencoder::loader,
    model::{GUIDANCE, LAYOUT, STEPS},
    relevance::{held_out, relevance},
};
use aigc_core::{
    CancelToken, Error,
    burn::tensor::{Device, Tensor},
    data::{
        Image, collate_images,
        scenes::{Caption, SHAPE, Split},
    },
    eval::NearestNeighbors,
    output::{ImageGrid, save_image},
    text_to_image::{GenerationOptions, ImageRequest, TextToImage},
};
use aigc_examples::outln;
use aigc_pipelines::text_to_image::TextToImagePipeline;
use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};

/// Options of `evaluate`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Directory of the model.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/paint/model"))]
    model: PathBuf,
    /// Held-out prompts; one image is painted for each.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    prompts: u32,
    /// Scales of guidance.
    #[arg(long, value_delimiter = ',', default_values_t = [GUIDANCE, 1.0])]
    guidance: Vec<f64>,
    /// Denoising steps.
    #[arg(
        long, default_value_t = STEPS as u32,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    steps: u32,
    /// Training images among which the nearest of each shown image are searched.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    neighbours: u32,
    /// Directory for pictures of the samples.
    #[arg(long, default_value = "paint-evaluation")]
    out: PathBuf,
    /// flex, ndarray, libtorch, wgpu, vulkan, metal, cuda:0, rocm or auto.
    #[arg(long, default_value = "flex")]
    device: String,
}

/// Most samples in a picture.
const SHOWN: usize = 32;
/// Samples in a row of it.
const COLUMNS: usize = 8;

pub(crate) fn run(options: &Options, stop: CancelToken) -> anyhow::Result<()> {
    let device = aigc_core::device::device(&options.device)?;
    let pipeline = TextToImagePipeline::from_pretrained(&options.model, &device)
        .with_context(|| format!("--model {}", options.model.display()))?
        .into_inner();
    std::fs::create_dir_all(&options.out).with_context(|| options.out.display().to_string())?;
    let items = held_out(options.prompts as usize)?;
    let captions: Vec<Caption> = items.iter().map(|item| item.caption).collect();
    for guidance in &options.guidance {
        let steps = options.steps as usize;
        let images = paint(&pipeline, &captions, *guidance, steps, stop.clone())?;
        let [objects, counts, all] = relevance(&captions, &images);
        outln!(
            "guidance {guidance}: {} prompts; objects with right shape and colour {:.2} %, \
             prompts with right counts {:.2} %, prompts right in every word {:.2} %",
            captions.len(),
            100.0 * objects,
            100.0 * counts,
            100.0 * all
        );
        // After a row that is not full, no sample would be above its nearest image.
        let shown = match images.len() {
            n if n < COLUMNS => n,
            n => SHOWN.min(n - n % COLUMNS),
        };
        let shown = &images[..shown];
        let path = options.out.join(format!("guidance-{guidance}.png"));
        show(shown, options.neighbours as usize, &path, &device, &stop)?;
        for (caption, image) in captions.iter().zip(shown) {
            let right = relevance(&[*caption], std::slice::from_ref(image))[2] == 1.0;
            outln!("  {} {caption}", if right { "right" } else { "wrong" });
        }
    }
    Ok(())
}

/// One image for each caption; image `k` has the seed `k`.
fn paint(
    pipeline: &TextToImagePipeline,
    captions: &[Caption],
    guidance: f64,
    steps: usize,
    stop: CancelToken,
) -> anyhow::Result<Vec<Image>> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} prompts ETA {eta}")?;
    let bar = ProgressBar::new(captions.len() as u64).with_style(style);
    let image = |(seed, caption): (usize, &Caption)| {
        let request = ImageRequest::new(caption.to_string())
            .with_seed(seed as u64)
            .with_size(SHAPE.width as u32, SHAPE.height as u32)
            .with_guidance_scale(guidance)
            .with_num_inference_steps(steps);
        let mut how = GenerationOptions::default().with_cancel(stop.clone());
        let result = pipeline.generate_with(&request, &mut how)?;
        bar.inc(1);
        let image = result.images.first().context("no image")?.image.to_rgb8();
        Ok(to_planes(&image))
    };
    let images = captions.iter().enumerate().map(image).collect();
    bar.finish_and_clear();
    images
}

/// An image as large as those of the data set, channel by channel as they are.
fn to_planes(image: &image::RgbImage) -> Image {
    let channel = |c: usize| image.pixels().map(move |pixel| pixel.0[c]);
    Image {
        shape: SHAPE,
        pixels: (0..SHAPE.channels).flat_map(channel).collect(),
        label: None,
    }
}

/// Writes samples in rows, each above its nearest training images.
fn show(
    samples: &[Image],
    known: usize,
    path: &Path,
    device: &Device,
    stop: &CancelToken,
) -> anyhow::Result<()> {
    let samples = collate_images(samples.to_vec()).to_tensor(device);
    let count = samples.dims()[0];
    let mut best: Vec<(f64, Option<Tensor<4>>)> = vec![(f64::INFINITY, None); count];
    // The training images are drawn in parts, so that memory does not grow with their number.
    for batch in loader(Split::Train, LAYOUT, known, 1000, 0)?.iter_once() {
        if stop.is_cancelled() {
            return Err(Error::cancelled("the search for the nearest images").into());
        }
        let part = NearestNeighbors::from_batch(&batch?.images, device)?;
        let nearest = part.nearest_images(&samples)?;
        for (k, near) in part.kneighbors(&samples, 1)?.iter().enumerate() {
            if near[0].1 < best[k].0 {
                best[k] = (near[0].1, Some(nearest.clone().narrow(0, k, 1)));
            }
        }
    }
    let distances: Vec<f64> = best.iter().map(|(distance, _)| *distance).collect();
    let columns = COLUMNS.min(count);
    let mut rows = Vec::new();
    for (start, near) in best.chunks(columns).enumerate() {
        let first = start * columns;
        rows.push(samples.clone().narrow(0, first, near.len()));
        rows.extend(near.iter().filter_map(|(_, image)| image.clone()));
    }
    save_image(
        &Tensor::cat(rows, 0),
        ImageGrid::new(columns, SHAPE.height),
        path,
    )?;
    let smallest = distances.iter().copied().fold(f64::INFINITY, f64::min);
    outln!(
        "{}: rows of samples, each above the nearest of {known} training images; the smallest \
         distance is {smallest:.2} (root of summed squares, values from 0 to 1)",
        path.display()
    );
    Ok(())
}
