//! The small pipelines of the fixtures, and requests to them.

use aigc_core::{
    device::device,
    text_to_image::{GeneratedImages, ImageRequest},
};
use aigc_pipelines::text_to_image::{PipelineOpenOptions, TextToImagePipeline};
use aigc_tests::folder_from;
use image::{DynamicImage, RgbImage};
use std::path::{Path, PathBuf};

/// A small pipeline of every family.
pub(crate) const TINY_PIPELINES: [&str; 8] = [
    "tiny-sd15",
    "tiny-sd21",
    "tiny-sdxl",
    "tiny-lcm",
    "tiny-sd3",
    "tiny-flux-dev",
    "tiny-flux-schnell",
    "tiny-pixart",
];

/// The directory of a small pipeline.
pub(crate) fn tiny(name: &str) -> Option<PathBuf> {
    Some(folder_from("AIGC_FIXTURES")?.join("pipelines").join(name))
}

/// Pixels along a side for one latent of a small pipeline.
pub(crate) fn latent_scale(name: &str) -> Option<u32> {
    let text = std::fs::read_to_string(tiny(name)?.join("vae/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let levels = config["block_out_channels"].as_array().unwrap().len();
    Some(1 << (levels - 1))
}

pub(crate) fn open_with(name: &str, options: &PipelineOpenOptions) -> Option<TextToImagePipeline> {
    let flex = device("flex").unwrap();
    let opened = TextToImagePipeline::from_pretrained_with(tiny(name)?, options, &flex);
    Some(opened.unwrap().into_inner())
}

pub(crate) fn open(name: &str) -> Option<TextToImagePipeline> {
    open_with(name, &PipelineOpenOptions::default())
}

pub(crate) fn request() -> ImageRequest {
    ImageRequest::new("a photo of a cat")
        .with_negative_prompt("blurry")
        .with_size(32, 32)
        .with_seed(5)
        .with_num_inference_steps(3)
}

pub(crate) fn pixels(result: &GeneratedImages) -> Vec<RgbImage> {
    result
        .images
        .iter()
        .map(|image| image.image.to_rgb8())
        .collect()
}

/// The largest difference of two images, in levels.
pub(crate) fn apart(a: &RgbImage, b: &RgbImage) -> u8 {
    assert_eq!(a.dimensions(), b.dimensions());
    a.iter()
        .zip(b.iter())
        .map(|(a, b)| a.abs_diff(*b))
        .max()
        .unwrap()
}

pub(crate) fn picture(width: u32, height: u32) -> DynamicImage {
    let pixel = |x, y| image::Rgb([(7 * x) as u8, (5 * y) as u8, 90]);
    DynamicImage::ImageRgb8(RgbImage::from_fn(width, height, pixel))
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_dir(&entry.path(), &target),
            // The copies can be written, the fixtures cannot.
            false => std::fs::write(target, std::fs::read(entry.path()).unwrap()).unwrap(),
        }
    }
}
