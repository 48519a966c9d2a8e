//! The checks that both configurations have.

use crate::LikelihoodKind;
use aigc_core::{
    Result,
    check::{self, ensure},
    data::ImageShape,
};

/// Fails unless the shape of an image and the likelihood are in their ranges.
pub(super) fn check_image(shape: ImageShape, likelihood: LikelihoodKind) -> Result<()> {
    const MAX_SIDE: usize = 1 << 14;
    check::sizes(&[
        ("shape.channels", shape.channels, MAX_SIDE),
        ("shape.height", shape.height, MAX_SIDE),
        ("shape.width", shape.width, MAX_SIDE),
    ])?;
    likelihood.validate()
}

/// Fails unless there are 1 to 8 strides from 1 to 16, as many numbers of channels from 1 to 4096,
/// and the largest feature map has at most 2³¹ values.
pub(super) fn check_stack(
    field: &str,
    strides: &[usize],
    channels: &[usize],
    shape: ImageShape,
) -> Result<()> {
    let good = (1..=8).contains(&strides.len()) && strides.iter().all(|s| (1..=16).contains(s));
    let expected = "1 to 8 numbers from 1 to 16";
    ensure(good, field, format!("{strides:?}"), expected)?;
    ensure(
        channels.len() == strides.len() && channels.iter().all(|c| (1..=4096).contains(c)),
        "channels",
        format!("{channels:?}"),
        &format!(
            "a number from 1 to 4096 for each of {} strides",
            strides.len()
        ),
    )?;
    let largest = channels.iter().copied().max().unwrap_or(1);
    let pixels = (shape.height * shape.width) as u128;
    ensure(
        pixels * (largest as u128) <= 1 << 31,
        "channels",
        format!("{channels:?}"),
        &format!("at most {}, for images of {shape}", (1u128 << 31) / pixels),
    )
}

/// Fails unless the number of residual blocks and their channels are in their ranges.
pub(super) fn check_residual(blocks: usize, channels: usize) -> Result<()> {
    check::in_range("residual_blocks", blocks, 0..=64)?;
    check::in_range("residual_channels", channels, 1..=4096)
}

/// Fails unless the product of the strides divides the sides of the image.
pub(super) fn check_divides(field: &str, strides: &[usize], shape: ImageShape) -> Result<()> {
    let factor: usize = strides.iter().product();
    for (side_name, side) in [("shape.height", shape.height), ("shape.width", shape.width)] {
        let expected = format!("a multiple of {factor}, the product of `{field}`");
        ensure(side.is_multiple_of(factor), side_name, side, &expected)?;
    }
    Ok(())
}

/// Fails if there are more than 2³⁰ weights.
pub(super) fn check_weights(weights: u128, channels: &[usize]) -> Result<()> {
    let expected = format!("fewer or smaller layers, of 2³⁰ weights; they have {weights}");
    ensure(
        weights <= 1 << 30,
        "channels",
        format!("{channels:?}"),
        &expected,
    )
}
