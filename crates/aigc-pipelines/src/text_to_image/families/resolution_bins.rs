//! The sizes that PixArt's networks were trained at. Images of other sizes are made at the one
//! with the nearest ratio of height to width, then resized and cut, as diffusers does by default.

use aigc_core::{ops::resize_bilinear, text_to_image::ImageSize};
use burn::tensor::Tensor;

/// Heights and widths in sixteenths of the side of a square, from wide to high (Chen et al. 2023,
/// <https://arxiv.org/abs/2310.00426>, as diffusers lists them).
const BINS: [[u32; 2]; 33] = [
    [8, 32],
    [8, 29],
    [9, 28],
    [9, 27],
    [9, 26],
    [10, 25],
    [10, 24],
    [11, 23],
    [11, 22],
    [11, 21],
    [12, 21],
    [12, 20],
    [13, 19],
    [13, 18],
    [14, 18],
    [14, 17],
    [15, 17],
    [15, 16],
    [16, 16],
    [16, 15],
    [17, 15],
    [17, 14],
    [18, 14],
    [18, 13],
    [19, 13],
    [20, 12],
    [21, 12],
    [22, 11],
    [23, 11],
    [24, 10],
    [25, 10],
    [27, 9],
    [32, 8],
];

/// Further ones of networks for 2048×2048 pixels.
const FURTHER_BINS: [[u32; 2]; 7] = [
    [8, 31],
    [8, 30],
    [26, 9],
    [28, 9],
    [29, 8],
    [30, 8],
    [31, 8],
];

/// The size at which a network for latents of this side makes an image of `size`; `None` if the
/// network has no such sizes.
pub(crate) fn resolution_bin(latent_side: usize, size: ImageSize) -> Option<ImageSize> {
    let further: &[[u32; 2]] = match latent_side {
        32 | 64 | 128 => &[],
        256 => &FURTHER_BINS,
        _ => return None,
    };
    // A latent stands for 8 pixels, and a square has 16 sixteenths.
    let unit = latent_side as u32 / 2;
    let ratio = f64::from(size.height) / f64::from(size.width);
    // diffusers compares with two decimals.
    let distance = |[height, width]: &[u32; 2]| {
        let rounded = (f64::from(*height) / f64::from(*width) * 100.0).round() / 100.0;
        (rounded - ratio).abs()
    };
    let all = BINS.iter().chain(further);
    let nearest = all.min_by(|a, b| distance(a).total_cmp(&distance(b)));
    nearest.map(|[height, width]| ImageSize::new(width * unit, height * unit))
}

/// Images resized so that they cover `size`, and cut at all sides alike.
///
/// # Shapes
/// - images: `[batch, channels, …]`
/// - output: `[batch, channels, size.height, size.width]`
pub(crate) fn resized_and_cut(images: Tensor<4>, size: ImageSize) -> Tensor<4> {
    let [_, _, height, width] = images.dims();
    let [to_height, to_width] = [size.height as usize, size.width as usize];
    if [height, width] == [to_height, to_width] {
        return images;
    }
    let ratio = (to_height as f64 / height as f64).max(to_width as f64 / width as f64);
    let side = |from: usize, to: usize| ((from as f64 * ratio) as usize).max(to);
    let [rows, columns] = [side(height, to_height), side(width, to_width)];
    resize_bilinear(images, [rows, columns])
        .narrow(2, (rows - to_height) / 2, to_height)
        .narrow(3, (columns - to_width) / 2, to_width)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn sizes_have_the_nearest_ratio() {
        let bin = |side, width, height| resolution_bin(side, ImageSize::new(width, height));
        for (side, [width, height], expected) in [
            (128, [1024, 1024], [1024, 1024]),
            (128, [1000, 1000], [1024, 1024]),
            (128, [1920, 1080], [1344, 768]),
            (64, [1080, 1920], [384, 672]),
            (32, [8, 8000], [128, 512]),
            (256, [4096, 1060], [3968, 1024]),
        ] {
            let expected = ImageSize::new(expected[0], expected[1]);
            assert_eq!(bin(side, width, height), Some(expected), "{width}x{height}");
        }
        assert_eq!(bin(16, 64, 64), None);
    }

    #[test]
    fn images_are_cut_to_the_size() {
        let device = Device::flex();
        let columns = Tensor::<1>::from_floats([0.0, 1.0, 2.0, 3.0], &device);
        let images = columns.reshape([1, 1, 1, 4]).expand([2, 3, 2, 4]);
        let cut = resized_and_cut(images.clone(), ImageSize::new(2, 2));
        assert_eq!(cut.dims(), [2, 3, 2, 2]);
        // The middle of the columns.
        let row: Vec<f32> = cut.into_data().iter::<f32>().take(2).collect();
        assert_eq!(row, [1.0, 2.0]);
        let larger = resized_and_cut(images, ImageSize::new(5, 7));
        assert_eq!(larger.dims(), [2, 3, 7, 5]);
    }
}
