//! The transform as products with its matrix, on any backend.

use super::Matrix;
use crate::dsp::plan::Plan;
use burn::tensor::{Tensor, TensorData};
use std::f64::consts::TAU;

/// The matrix of the windowed transform, `[window, 2·bins]`: real parts, then imaginary ones.
fn values(plan: &Plan) -> TensorData {
    let (width, bins) = (plan.window.len(), plan.bins);
    // Angles repeat: one table of a period has all cosines and sines.
    let step = TAU / plan.n_fft as f64;
    let table: Vec<(f64, f64)> = (0..plan.n_fft)
        .map(|i| (step * i as f64).sin_cos())
        .collect();
    let mut values = Vec::with_capacity(2 * width * bins);
    for (i, weight) in plan.window.iter().enumerate() {
        let (time, weight) = (plan.begin + i, weight * plan.scale);
        let at = |bin: usize| table[bin * time % plan.n_fft];
        values.extend((0..bins).map(|bin| (weight * at(bin).1) as f32));
        values.extend((0..bins).map(|bin| (-weight * at(bin).0) as f32));
    }
    TensorData::new(values, [width, 2 * bins])
}

/// Spectra `[2, batch, frames, bins]` of padded signals `[batch, len]`.
pub(super) fn spectra(padded: Tensor<2>, plan: &Plan, matrix: &Matrix) -> Tensor<4> {
    let [batch, len] = padded.dims();
    let frames = plan.frames_of_padded(len);
    let matrix = matrix.get(&padded.device(), || values(plan));
    let [width, _] = matrix.dims();
    framed(padded, frames, plan)
        .reshape([batch * frames, width])
        .matmul(matrix)
        .reshape([batch, frames, 2, plan.bins])
        .permute([2, 0, 1, 3])
}

/// The transpose of [`spectra`]: signals `[batch, len]`.
pub(super) fn transpose(spectra: Tensor<4>, plan: &Plan, matrix: &Matrix, len: usize) -> Tensor<2> {
    let [_, batch, frames, bins] = spectra.dims();
    let matrix = matrix.get(&spectra.device(), || values(plan));
    let [width, _] = matrix.dims();
    let pieces = spectra
        .permute([1, 2, 0, 3])
        .reshape([batch * frames, 2 * bins])
        .matmul(matrix.transpose())
        .reshape([batch, frames, width]);
    overlap_add(pieces, plan, len)
}

/// The part of each frame under the window, `[batch, frames, window]`. A frame begins where a
/// block of `hop_length` samples does, so it is a few neighbouring blocks.
fn framed(padded: Tensor<2>, frames: usize, plan: &Plan) -> Tensor<3> {
    let ([batch, len], hop, width) = (padded.dims(), plan.hop_length, plan.window.len());
    let blocks = width.div_ceil(hop);
    let needed = (frames + blocks - 1) * hop;
    let rest = needed.min(len - plan.begin);
    let signal = padded.narrow(1, plan.begin, rest);
    let signal = extended(signal, 1, 0, needed - rest);
    let signal = signal.reshape([batch, frames + blocks - 1, hop]);
    let shifted = (0..blocks).map(|block| signal.clone().narrow(1, block, frames));
    Tensor::cat(shifted.collect(), 2).narrow(2, 0, width)
}

/// The transpose of [`framed`].
fn overlap_add(pieces: Tensor<3>, plan: &Plan, len: usize) -> Tensor<2> {
    let ([batch, frames, width], hop) = (pieces.dims(), plan.hop_length);
    let blocks = width.div_ceil(hop);
    let whole = extended(pieces, 2, 0, blocks * hop - width);
    let parts = (0..blocks).map(|block| {
        let part = whole.clone().narrow(2, block * hop, hop);
        extended(part, 1, block, blocks - 1 - block)
    });
    let sum = parts.reduce(|sum, part| sum + part);
    let sum = sum.unwrap_or_else(|| unreachable!("a window has a sample"));
    let sum = sum.reshape([batch, (frames + blocks - 1) * hop]);
    let sum = extended(sum, 1, plan.begin, 0);
    let found = sum.dims()[1];
    if found < len {
        return extended(sum, 1, 0, len - found);
    }
    sum.narrow(1, 0, len)
}

/// `x` with zeros before and after it along an axis.
fn extended<const D: usize>(x: Tensor<D>, axis: usize, before: usize, after: usize) -> Tensor<D> {
    if before + after == 0 {
        return x;
    }
    let (mut shape, device) = (x.dims(), x.device());
    let mut zeros = |len: usize| {
        shape[axis] = len;
        Tensor::<D>::zeros(shape, &device)
    };
    let mut parts = Vec::with_capacity(3);
    if before > 0 {
        parts.push(zeros(before));
    }
    parts.push(x);
    if after > 0 {
        parts.push(zeros(after));
    }
    Tensor::cat(parts, axis)
}
