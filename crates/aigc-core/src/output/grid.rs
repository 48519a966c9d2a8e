//! Grids of images.

use super::provenance::{Provenance, save_with_provenance};
use crate::{
    Error, Result,
    check::{ensure, ensure_argument},
};
use burn::tensor::Tensor;
use image::{Rgb, RgbImage, imageops};
use std::path::Path;

/// How images are arranged and drawn in a grid.
///
/// The range of values is fixed, so the same value has the same shade in every grid of a run.
/// Normalising each grid by its own extremes would hide the progress of training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageGrid {
    /// Images per row.
    pub columns: usize,
    /// The values drawn as black and as white; values beyond are clamped.
    pub value_range: (f32, f32),
    /// Side of the square of pixels that a pixel is drawn as.
    pub scale: u32,
    /// Whether enlarged images are interpolated, which makes tiny images more legible; otherwise
    /// pixels are drawn as squares.
    pub interpolate: bool,
    /// Pixels of background around every image.
    pub padding: u32,
}

impl ImageGrid {
    /// `columns` images per row, values from 0 (black) to 1 (white), and a scale that makes images
    /// of `side` pixels about 64 pixels wide.
    pub fn new(columns: usize, side: usize) -> Self {
        Self {
            columns,
            value_range: (0.0, 1.0),
            scale: (64 / side.max(1)).max(1) as u32,
            interpolate: false,
            padding: 2,
        }
    }

    /// Sets the values drawn as black and as white.
    pub fn with_value_range(self, black: f32, white: f32) -> Self {
        Self {
            value_range: (black, white),
            ..self
        }
    }

    /// Interpolates enlarged images.
    pub fn with_interpolation(self) -> Self {
        Self {
            interpolate: true,
            ..self
        }
    }

    /// Draws `images`, row by row.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]`, channels 1 (grey) or 3 (RGB)
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no image, or the channels are neither 1 nor 3;
    /// [`Error::Config`] if the grid is out of range.
    pub(crate) fn draw(&self, images: &Tensor<4>) -> Result<RgbImage> {
        let [count, channels, height, width] = images.dims();
        ensure_argument(count > 0, "images", count, "at least 1")?;
        ensure_argument(
            height > 0 && width > 0,
            "images",
            format!("{height}×{width}"),
            "at least one pixel high and wide",
        )?;
        ensure_argument(
            matches!(channels, 1 | 3),
            "channels",
            channels,
            "1 (grey) or 3 (RGB)",
        )?;
        ensure(self.columns > 0, "columns", self.columns, "at least 1")?;
        let (black, white) = self.value_range;
        ensure(
            white > black && (white - black).is_finite(),
            "value_range",
            format!("{black} to {white}"),
            "finite numbers, black below white",
        )?;
        ensure(
            (1..=64).contains(&self.scale),
            "scale",
            self.scale,
            "1 to 64",
        )?;
        ensure(self.padding <= 64, "padding", self.padding, "0 to 64")?;
        let side = |pixels: usize, cells: usize| {
            (pixels as u128 * u128::from(self.scale) + 64) * (cells as u128 + 1)
        };
        let columns = self.columns.min(count);
        let total = side(width, columns) * side(height, count.div_ceil(columns));
        ensure_argument(
            total < 1 << 31,
            "images",
            format!("{count} of {height}×{width}"),
            "a picture of less than 2 gigapixels",
        )?;
        let values = images.clone().into_data().convert::<f32>();
        let values = values
            .as_slice::<f32>()
            .map_err(|e| Error::other(format!("{e:?}")))?;
        let (cell_w, cell_h) = (
            width as u32 * self.scale + self.padding,
            height as u32 * self.scale + self.padding,
        );
        let rows = count.div_ceil(columns) as u32;
        let background = Rgb([64, 64, 64]);
        let mut picture = RgbImage::from_pixel(
            columns as u32 * cell_w + self.padding,
            rows * cell_h + self.padding,
            background,
        );
        let shade = |value: f32| {
            let unit = (value - black) / (white - black);
            (unit.clamp(0.0, 1.0) * 255.0).round() as u8 // NaN becomes 0
        };
        let plane = height * width;
        let filter = if self.interpolate {
            imageops::FilterType::CatmullRom
        } else {
            imageops::FilterType::Nearest
        };
        for (index, image) in values.chunks_exact(channels * plane).enumerate() {
            let small = RgbImage::from_fn(width as u32, height as u32, |x, y| {
                let at = y as usize * width + x as usize;
                Rgb(std::array::from_fn(|c| {
                    shade(image[if channels == 3 { c * plane + at } else { at }])
                }))
            });
            let (w, h) = (width as u32 * self.scale, height as u32 * self.scale);
            let large = imageops::resize(&small, w, h, filter);
            let (column, row) = ((index % columns) as u32, (index / columns) as u32);
            let (x, y) = (self.padding + column * cell_w, self.padding + row * cell_h);
            imageops::replace(&mut picture, &large, i64::from(x), i64::from(y));
        }
        Ok(picture)
    }

    /// Draws `images` as the bytes of a PNG file.
    fn encode(&self, images: &Tensor<4>) -> Result<Vec<u8>> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        self.draw(images)?
            .write_to(&mut bytes, image::ImageFormat::Png)
            .map_err(Error::other)?;
        Ok(bytes.into_inner())
    }
}

/// Writes `images` as one PNG.
///
/// # Errors
/// [`Error::InvalidArgument`] if the images cannot be drawn, [`Error::Config`] if the grid is out
/// of range, [`Error::Io`] if the file cannot be written.
///
/// # Shapes
/// - images: `[batch, channels, height, width]`, channels 1 (grey) or 3 (RGB)
pub fn save_image(images: &Tensor<4>, grid: ImageGrid, path: &Path) -> Result<()> {
    crate::fs::write_atomic(path, &grid.encode(images)?)
}

/// Writes `images` as one PNG with a record of how they were made.
///
/// # Errors
/// As for [`save_image`] and [`save_with_provenance`].
///
/// # Shapes
/// - images: `[batch, channels, height, width]`, channels 1 (grey) or 3 (RGB)
pub fn save_image_with_provenance(
    images: &Tensor<4>,
    grid: ImageGrid,
    provenance: &Provenance,
    path: &Path,
) -> Result<()> {
    save_with_provenance(&grid.encode(images)?, provenance, path)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn grid_places_pixels_and_clamps_values() {
        let images = Tensor::<4>::from_floats(
            [
                [[[0.0, 0.5], [1.0, 2.0]]],
                [[[-1.0, 0.2], [0.2, 0.2]]],
                [[[f32::NAN, 0.0], [0.0, 0.0]]],
            ],
            &Device::flex(),
        );
        let grid = ImageGrid {
            scale: 2,
            padding: 1,
            ..ImageGrid::new(2, 2)
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("grid.png");
        save_image(&images, grid, &path).unwrap();
        let picture = image::open(&path).unwrap().into_rgb8();
        assert_eq!(picture.dimensions(), (11, 11));
        let at = |x, y| picture.get_pixel(x, y).0[0];
        assert_eq!(
            (at(0, 0), at(1, 1), at(3, 1), at(1, 3), at(3, 3)),
            (64, 0, 128, 255, 255)
        );
        assert_eq!((at(6, 1), at(8, 1), at(1, 6), at(8, 8)), (0, 51, 0, 64));
    }

    #[test]
    fn grid_is_saved_with_provenance() {
        let images = Tensor::zeros([1, 1, 2, 2], &Device::flex());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("grid.png");
        let provenance = Provenance::new("x").with_seed(1);
        save_image_with_provenance(&images, ImageGrid::new(1, 2), &provenance, &path).unwrap();
        let found = super::super::provenance::verify_file(&path).unwrap();
        assert_eq!(found.valid(), Some(&provenance));
        assert!(image::open(&path).is_ok());
    }

    #[test]
    fn grid_keeps_colour_channels() {
        let red = Tensor::<4>::from_floats([[[[1.0]], [[0.0]], [[0.0]]]], &Device::flex());
        let picture = ImageGrid {
            scale: 1,
            padding: 0,
            ..ImageGrid::new(1, 1)
        }
        .draw(&red)
        .unwrap();
        assert_eq!(picture.get_pixel(0, 0).0, [255, 0, 0]);
    }

    #[test]
    fn grid_refuses_invalid_shapes_and_ranges() {
        let device = Device::flex();
        let error = ImageGrid::new(1, 1)
            .draw(&Tensor::zeros([1, 2, 4, 4], &device))
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "argument `channels` is 2, expected 1 (grey) or 3 (RGB)"
        );
        assert!(
            ImageGrid::new(0, 1)
                .draw(&Tensor::zeros([1, 1, 4, 4], &device))
                .is_err()
        );
        for (black, white) in [(1.0, 0.0), (0.0, f32::INFINITY), (f32::NAN, 1.0)] {
            let grid = ImageGrid::new(1, 1).with_value_range(black, white);
            let error = grid.draw(&Tensor::zeros([1, 1, 4, 4], &device));
            assert!(error.unwrap_err().to_string().contains("`value_range`"));
        }
    }
}
