//! How far images show what their captions say, counted by a detector of shapes.

use crate::model::LAYOUT;
use aigc_core::{
    burn::tensor::Tensor,
    data::{
        Dataset, Image,
        scenes::{self, Caption, CaptionedImage, Scenes, Split, detect, judge},
    },
};

/// Images on the host, of `[batch, 3, 64, 64]` in `[0, 1]`.
pub(crate) fn to_images(x: &Tensor<4>) -> Vec<Image> {
    let values: Vec<f32> = x.to_data().iter::<f32>().collect();
    let image = |values: &[f32]| Image {
        shape: scenes::SHAPE,
        pixels: values.iter().map(|v| (v * 255.0).round() as u8).collect(),
        label: None,
    };
    values
        .chunks_exact(scenes::SHAPE.numel())
        .map(image)
        .collect()
}

/// Shares of right objects, right counts, and prompts that are right in every word.
pub(crate) fn relevance(captions: &[Caption], images: &[Image]) -> [f64; 3] {
    let (mut objects, mut right, mut counts, mut all) = (0, 0, 0, 0);
    for (caption, image) in captions.iter().zip(images) {
        let judged = judge(caption, &detect(image));
        objects += judged.objects;
        right += judged.right_objects;
        counts += usize::from(judged.counts);
        all += usize::from(judged.is_right());
    }
    let n = captions.len() as f64;
    [
        right as f64 / objects as f64,
        counts as f64 / n,
        all as f64 / n,
    ]
}

/// The first captions of the held-out split.
pub(crate) fn held_out(n: usize) -> aigc_core::Result<Vec<CaptionedImage>> {
    let scenes = Scenes::new(Split::HeldOut, n, 7).with_layout(LAYOUT);
    (0..n).map(|index| scenes.get(index)).collect()
}
