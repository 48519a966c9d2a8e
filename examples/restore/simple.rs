//! Simple restoration methods without a model.

use aigc_core::burn::tensor::{Tensor, TensorData};
use image::{
    ImageBuffer, Luma,
    imageops::{FilterType, blur as blurred, resize},
};

/// Fills missing pixels (0 in the mask, `[1, 1, height, width]`) with the mean of the known ones.
pub(crate) fn fill(measured: &Tensor<4>, mask: &Tensor<4>) -> (&'static str, Tensor<4>) {
    let mean = |x: Tensor<4>| x.mean_dim(3).mean_dim(2).mean_dim(1);
    let known = measured.clone() * mask.clone();
    let missing = mean(known.clone()) / mean(mask.clone()) * (mask.clone().neg() + 1.0);
    ("mean fill", (known + missing).clamp(0.0, 1.0))
}

/// Enlarges by bicubic (Catmull–Rom) interpolation.
pub(crate) fn enlarge(measured: &Tensor<4>, factor: usize) -> (&'static str, Tensor<4>) {
    let larger = planes(measured, factor, |plane, [height, width]| {
        resize(&plane, width as u32, height as u32, FilterType::CatmullRom)
    });
    ("bicubic", larger.clamp(0.0, 1.0))
}

/// Blurs with a Gaussian of one pixel.
pub(crate) fn blur(measured: &Tensor<4>) -> (&'static str, Tensor<4>) {
    (
        "blur",
        planes(measured, 1, |plane, _| blurred(&plane, 1.0)).clamp(0.0, 1.0),
    )
}

/// Enlarges every pixel to a square, for display.
pub(crate) fn enlarge_squares(measured: &Tensor<4>, factor: usize) -> Tensor<4> {
    planes(measured, factor, |plane, [height, width]| {
        resize(&plane, width as u32, height as u32, FilterType::Nearest)
    })
}

type Plane = ImageBuffer<Luma<f32>, Vec<f32>>;

/// Applies `change` to each channel; the sides become `factor` times as long.
fn planes(x: &Tensor<4>, factor: usize, change: impl Fn(Plane, [usize; 2]) -> Plane) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let values: Vec<f32> = x.to_data().iter::<f32>().collect();
    let to = [height * factor, width * factor];
    let changed = values.chunks_exact(height * width).flat_map(|plane| {
        let plane =
            Plane::from_raw(width as u32, height as u32, plane.to_vec()).expect("a plane's values");
        change(plane, to).into_raw()
    });
    let changed: Vec<f32> = changed.collect();
    Tensor::from_data(
        TensorData::new(changed, [batch, channels, to[0], to[1]]),
        &x.device(),
    )
}
