//! The model of this repository paints what held-out prompts say.

use aigc_core::{
    burn::tensor::Device,
    data::{
        Dataset, Image,
        scenes::{Layout, SHAPE, Scenes, Split, detect, judge},
    },
    text_to_image::{ImageRequest, TextToImage},
};
use aigc_pipelines::text_to_image::TextToImagePipeline;
use std::path::Path;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/paint/model");

/// Bytes of all files of a directory.
fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let sizes = entries.map(|entry| match entry.file_type().unwrap().is_dir() {
        true => size(&entry.path()),
        false => entry.metadata().unwrap().len(),
    });
    sizes.sum()
}

#[test]
fn files_have_at_most_eight_megabytes() {
    let size = size(Path::new(MODEL));
    assert!((7_000_000..=8_000_000).contains(&size), "{size} bytes");
}

/// `reproduce_paint evaluate` counts 1,000 prompts.
#[test]
fn held_out_prompts_are_painted() {
    let pipeline = TextToImagePipeline::from_pretrained(MODEL, &Device::flex()).unwrap();
    assert!(pipeline.warnings().is_empty(), "{:?}", pipeline.warnings());
    let pipeline = pipeline.into_inner();
    let prompts = Scenes::new(Split::HeldOut, 20, 7).with_layout(Layout::Rows);
    let mut wrong = vec![];
    for index in 0..20 {
        let caption = prompts.get(index).unwrap().caption;
        // Guidance, steps and size are the model's own.
        let request = ImageRequest::new(caption.to_string()).with_seed(index as u64);
        let made = pipeline.generate(&request).unwrap();
        let image = made.images[0].image.to_rgb8();
        let channel = |c: usize| image.pixels().map(move |pixel| pixel.0[c]);
        let image = Image {
            shape: SHAPE,
            pixels: (0..SHAPE.channels).flat_map(channel).collect(),
            label: None,
        };
        if !judge(&caption, &detect(&image)).is_right() {
            wrong.push(caption.to_string());
        }
    }
    assert!(wrong.len() <= 5, "{wrong:?}");
}
