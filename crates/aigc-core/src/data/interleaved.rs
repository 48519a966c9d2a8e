//! Images with the channels of a pixel side by side, as codecs and resamplers have them.

use super::{Image, ImageShape};
use crate::{Result, check::ensure_argument};

impl Image {
    /// The values `[height, width, channels]`, channels fastest.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the image does not have the
    /// pixels of its shape.
    pub fn interleaved(&self) -> Result<Vec<u8>> {
        let area = area(self.shape, &self.pixels)?;
        let channels = self.shape.channels;
        let value = |i: usize| self.pixels[i % channels * area + i / channels];
        Ok((0..self.pixels.len()).map(value).collect())
    }

    /// An image of `shape` from values `[height, width, channels]`, channels fastest; without a
    /// label.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there are not as many values as
    /// `shape` has.
    pub fn from_interleaved(values: &[u8], shape: ImageShape) -> Result<Self> {
        let area = area(shape, values)?;
        let value = |i: usize| values[i % area * shape.channels + i / area];
        Ok(Self {
            shape,
            pixels: (0..values.len()).map(value).collect(),
            label: None,
        })
    }
}

/// Number of pixels of an image of `shape`, whose values are `pixels`; at least 1.
pub(super) fn area(shape: ImageShape, pixels: &[u8]) -> Result<usize> {
    let ImageShape {
        channels,
        height,
        width,
    } = shape;
    let area = height.checked_mul(width);
    let numel = area.and_then(|area| area.checked_mul(channels));
    ensure_argument(
        !pixels.is_empty() && numel == Some(pixels.len()),
        "pixels",
        format!("{} values", pixels.len()),
        &format!("the values of an image of {shape}, at least one"),
    )?;
    Ok(height * width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_change_places_and_back() {
        let shape = ImageShape::new(3, 1, 2);
        let image = Image {
            shape,
            pixels: vec![1, 2, 3, 4, 5, 6],
            label: None,
        };
        let values = image.interleaved().unwrap();
        assert_eq!(values, [1, 3, 5, 2, 4, 6]);
        assert_eq!(Image::from_interleaved(&values, shape).unwrap(), image);
    }

    #[test]
    fn wrong_numbers_of_values_are_errors() {
        let message = |values: &[u8], shape| {
            let found = Image::from_interleaved(values, shape);
            found.unwrap_err().to_string()
        };
        assert_eq!(
            message(&[0; 5], ImageShape::new(3, 1, 2)),
            "argument `pixels` is 5 values, expected the values of an image of 3×1×2, at least one"
        );
        assert!(message(&[], ImageShape::new(1, 0, 2)).contains("0 values"));
        assert!(message(&[], ImageShape::new(4, usize::MAX, 2)).contains("0 values"));
        let image = Image {
            shape: ImageShape::new(1, 2, 2),
            pixels: vec![0; 3],
            label: None,
        };
        assert!(image.interleaved().is_err());
    }
}
