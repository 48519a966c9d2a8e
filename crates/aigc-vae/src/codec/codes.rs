//! Checks of what codecs are given.

use aigc_core::{Error, Result};
use burn::tensor::{Int, Tensor};

/// Fails unless a sound has `channels` channels, and samples.
pub(super) fn check_wave(wave: &Tensor<3>, channels: usize, least: usize) -> Result<()> {
    let [batch, found, time] = wave.dims();
    if found != channels {
        let expected = format!("{channels} channels, those of the codec");
        return Err(Error::argument(
            "wave",
            format!("{found} channels"),
            expected,
        ));
    }
    if batch == 0 || time < least {
        let expected = format!("at least one sound of at least {least} samples");
        let found = format!("{batch} of {time} samples");
        return Err(Error::argument("wave", found, expected));
    }
    Ok(())
}

/// Fails unless codes `[batch, codebooks, frames]` are of 1 to `codebooks` codebooks, and each is
/// below `size`. Reads them from their device.
pub(super) fn check_codes(codes: &Tensor<3, Int>, codebooks: usize, size: usize) -> Result<()> {
    let [batch, given, frames] = codes.dims();
    if !(1..=codebooks).contains(&given) {
        let expected = format!("1 to {codebooks} codebooks");
        return Err(Error::argument(
            "codes",
            format!("{given} codebooks"),
            expected,
        ));
    }
    if batch == 0 || frames == 0 {
        let found = format!("{frames} frames of {batch} sounds");
        return Err(Error::argument("codes", found, "at least one frame"));
    }
    let data = codes.to_data();
    let is_wrong = |code: &i64| !(0..size as i64).contains(code);
    match data.iter::<i64>().find(is_wrong) {
        None => Ok(()),
        Some(code) => Err(Error::argument("codes", code, format!("0 to {}", size - 1))),
    }
}

/// Samples that a frame stands for: the product of all ratios.
pub(super) fn hop_length(ratios: &[usize]) -> usize {
    ratios.iter().product()
}

/// `a` and then `b`, of which either may be missing.
pub(super) fn joined(a: Option<Tensor<3>>, b: Option<Tensor<3>>) -> Option<Tensor<3>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(Tensor::cat(vec![a, b], 2)),
        (a, b) => a.or(b),
    }
}
