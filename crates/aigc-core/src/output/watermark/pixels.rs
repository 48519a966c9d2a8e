//! The values of images, checked.

use crate::{
    Error, Result,
    check::ensure_argument,
    data::{Image, ImageShape},
};

/// An error unless the image is grey or RGB, and its sides have `min_side` pixels or more.
pub(super) fn check_size(shape: ImageShape, min_side: usize) -> Result<()> {
    ensure_argument(
        matches!(shape.channels, 1 | 3),
        "channels",
        shape.channels,
        "1 (grey) or 3 (RGB)",
    )?;
    ensure_argument(
        shape.height.min(shape.width) >= min_side,
        "image",
        format!("{}×{}", shape.height, shape.width),
        &format!("at least {min_side}×{min_side} pixels"),
    )
}

/// The values of an image that [`check_size`] accepts and that has the pixels of its shape.
pub(super) fn values(image: &Image, min_side: usize) -> Result<Vec<f32>> {
    check_size(image.shape, min_side)?;
    let ImageShape {
        channels,
        height,
        width,
    } = image.shape;
    // The shape may be anything, also more than an address can reach.
    let plane = height.checked_mul(width);
    let expected = plane.and_then(|plane| plane.checked_mul(channels));
    if expected != Some(image.pixels.len()) {
        return Err(Error::argument(
            "image",
            format!("{} values", image.pixels.len()),
            format!("as many as its shape {} has", image.shape),
        ));
    }
    Ok(image.pixels.iter().map(|value| f32::from(*value)).collect())
}

/// Brightness around 0, `[height, width]`, with the weights of JPEG (ITU-R BT.601).
pub(super) fn luma(values: &[f32], shape: ImageShape) -> Vec<f32> {
    let plane = shape.height * shape.width;
    if shape.channels == 1 {
        return values.iter().map(|value| value - 128.0).collect();
    }
    let (red, rest) = values.split_at(plane);
    let (green, blue) = rest.split_at(plane);
    let colours = red.iter().zip(green).zip(blue);
    colours
        .map(|((r, g), b)| 0.299 * r + 0.587 * g + 0.114 * b - 128.0)
        .collect()
}
