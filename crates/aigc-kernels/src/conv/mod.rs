//! Two-dimensional convolutions and their gradients, as matrix products whose right operand
//! (im2col) is never stored as a whole.
//!
//! The forward pass, the input gradient and the transposed convolution are the same computation,
//! `gather`: an output pixel is a sum over channels and kernel taps, and every tap is a constant
//! offset into zero-padded planes. The weight gradient, `correlate`, multiplies the same planes by
//! the transposed output gradient. Both read pixels in place from the planes; if rows are so short
//! that the padding between them costs more than a copy, pixels are packed into panels (im2col of
//! one panel at a time, in cache).
//!
//! Signals are maps of height one. Their rows are read in place, in windows whose planes fit a
//! cache, so that long signals need no more memory than short ones. Transposed convolutions of any
//! stride are a computation of this kind for every phase of the stride. Groups are convolutions of
//! their own that share the maps; groups of one channel (`depthwise`) have a kernel of their own.
//!
//! Winograd's algorithm (`winograd`) is used where it is estimated to be faster: kernels of 2 or 3
//! taps per axis and phase of the stride, with more than a few channels. Single rows, of which most
//! of a tile along two axes would be padding, have tiles along one (`line`): kernels of three taps
//! or more, of any dilation, without stride, and their weight gradients. Kernels of one pixel, or
//! of the whole map, are plain matrix products. Blocking follows Goto and van de Geijn 2008,
//! "Anatomy of high-performance matrix multiplication".

mod correlate;
mod depthwise;
mod gather;
mod lanes;
mod line;
mod panel;
mod pixel_major;
mod planes;
mod pointwise;
mod sizes;
#[cfg(test)]
mod tests;
mod windows;
mod winograd;

use super::{
    memory::volume,
    product::{Matrix, multiply},
    simd::vectors,
};
use correlate::correlate;
use gather::{Gather, Job, gather};
use line::{Line, LineWeightGrad};
use planes::Planes;
use pointwise::{pointwise, pointwise_weight_grad};
pub use sizes::ConvSizes;
use winograd::{WeightGrad, Winograd};

/// Convolution `y = conv(x, weight) (+ bias)`.
///
/// `x` is `[batch, channels_in, input…]`, `weight` `[channels_out, channels_in / groups, kernel…]`,
/// `bias` `[channels_out]`, the result `[batch, channels_out, output…]`.
///
/// # Panics
/// If channels, groups, a height, a width, a stride or a dilation is 0, the groups do not divide
/// the channels, the sizes overflow, or an operand does not have its size.
pub fn conv2d(x: &[f32], weight: &[f32], bias: Option<&[f32]>, sizes: ConvSizes) -> Vec<f32> {
    let channels = sizes.channels_out;
    sizes.check(
        Some(x),
        None,
        Some(weight),
        bias.map(|bias| (bias, channels)),
    );
    if sizes.batch == 0 {
        return Vec::new();
    }
    if let Some(len) = sizes.covers() {
        let (x, weight) = (Matrix::rows(x, len), Matrix::rows(weight, len).t());
        return multiply([sizes.batch, sizes.channels_out, len], x, weight, bias);
    }
    if let Some(pixels) = sizes.pointwise() {
        let weight = Matrix::rows(weight, sizes.channels_in);
        return pointwise(
            [sizes.channels_out, pixels, sizes.channels_in],
            weight,
            x,
            bias,
        );
    }
    fastest(forward(x, weight, bias, sizes))
}

fn forward<'a>(
    x: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    sizes: ConvSizes,
) -> Gather<'a> {
    let planes = sizes.input_planes();
    let taps = sizes
        .taps()
        .map(|[r, c]| planes.tap(r * sizes.dilation[0], c * sizes.dilation[1]))
        .collect();
    let kernel_len = sizes.kernel[0] * sizes.kernel[1];
    let [channels, rows] = sizes.channels_of_group();
    Gather {
        x,
        batch: sizes.batch,
        groups: sizes.groups,
        channels,
        planes,
        weight,
        weight_strides: [channels * kernel_len, kernel_len],
        rows,
        bias,
        taps,
        jobs: vec![Job {
            taps: (0..kernel_len).collect(),
            kernel: (0..kernel_len).collect(),
        }],
        grid: sizes.output,
        output: sizes.output,
        output_stride: [1, 1],
        work: sizes.work(),
    }
}

/// The transpose of [`conv2d`] as a linear map, applied to `dy`, plus `bias`: the input gradient of
/// a convolution, or a transposed convolution.
///
/// `dy` is `[batch, channels_out, output…]`, `weight`
/// `[channels_out, channels_in / groups, kernel…]`, `bias` `[channels_in]`, the result
/// `[batch, channels_in, input…]`.
///
/// # Panics
/// If channels, groups, a height, a width, a stride or a dilation is 0, the groups do not divide
/// the channels, the sizes overflow, or an operand does not have its size.
pub fn conv2d_transposed(
    dy: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    sizes: ConvSizes,
) -> Vec<f32> {
    let channels = sizes.channels_in;
    sizes.check(
        None,
        Some(dy),
        Some(weight),
        bias.map(|bias| (bias, channels)),
    );
    if sizes.batch == 0 {
        return Vec::new();
    }
    if let Some(len) = sizes.covers() {
        let bias: Option<Vec<f32>> = bias.map(|bias| {
            bias.iter()
                .flat_map(|value| std::iter::repeat_n(*value, sizes.input[0] * sizes.input[1]))
                .collect()
        });
        let (dy, weight) = (
            Matrix::rows(dy, sizes.channels_out),
            Matrix::rows(weight, len),
        );
        return multiply(
            [sizes.batch, len, sizes.channels_out],
            dy,
            weight,
            bias.as_deref(),
        );
    }
    if let Some(pixels) = sizes.pointwise() {
        let weight = Matrix::rows(weight, sizes.channels_in).t();
        return pointwise(
            [sizes.channels_in, pixels, sizes.channels_out],
            weight,
            dy,
            bias,
        );
    }
    fastest(backward(dy, weight, bias, sizes))
}

fn backward<'a>(
    dy: &'a [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    sizes: ConvSizes,
) -> Gather<'a> {
    let ConvSizes {
        kernel,
        stride,
        padding,
        dilation,
        ..
    } = sizes;
    // Input pixel i of phase r (i = r + stride·t) receives a term from output pixel o through tap k
    // if o·stride − padding + k·dilation = i: for taps for which stride divides
    // r + padding − k·dilation, o is t plus the quotient.
    let axis_taps = |axis: usize, phase: usize| -> Vec<(usize, isize)> {
        let reach = |k: usize| (phase + padding[axis]) as isize - (k * dilation[axis]) as isize;
        let divisible = |k: &usize| reach(*k).rem_euclid(stride[axis] as isize) == 0;
        (0..kernel[axis])
            .filter(divisible)
            .map(|k| (k, reach(k).div_euclid(stride[axis] as isize)))
            .collect()
    };
    let phases = |axis: usize| 0..stride[axis].min(sizes.input[axis]);
    let grid = [0, 1].map(|axis| sizes.input[axis].div_ceil(stride[axis]));
    // Lowest and highest offset of the taps around a pixel of the smaller map.
    let extent = |axis: usize| {
        let reached = phases(axis).flat_map(|phase| axis_taps(axis, phase));
        reached.fold((0, 0), |(low, high), (_, o)| (low.min(o), high.max(o)))
    };
    let (rows, columns) = (extent(0), extent(1));
    let planes = Planes {
        source: sizes.output,
        stride: [1, 1],
        pad: [rows.0.unsigned_abs(), columns.0.unsigned_abs()],
        phases: vec![[0, 0]],
        first: [0; 2],
        size: [
            grid[0] + (rows.1 - rows.0).cast_unsigned(),
            grid[1] + (columns.1 - columns.0).cast_unsigned(),
        ],
    }
    .checked();
    // Phases share taps: every offset is listed once.
    let mut taps: Vec<usize> = Vec::new();
    let mut jobs = Vec::new();
    for row in phases(0) {
        for column in phases(1) {
            let mut job = Job {
                taps: Vec::new(),
                kernel: Vec::new(),
            };
            for (kernel_row, o_row) in axis_taps(0, row) {
                for (kernel_column, o_column) in axis_taps(1, column) {
                    let place = planes.tap(
                        (o_row - rows.0).cast_unsigned(),
                        (o_column - columns.0).cast_unsigned(),
                    );
                    let known = taps
                        .iter()
                        .position(|tap| *tap == place)
                        .unwrap_or_else(|| {
                            taps.push(place);
                            taps.len() - 1
                        });
                    job.taps.push(known);
                    job.kernel.push(kernel_row * kernel[1] + kernel_column);
                }
            }
            jobs.push(job);
        }
    }
    let kernel_len = kernel[0] * kernel[1];
    // The channels of the larger map are those of the result here.
    let [rows, channels] = sizes.channels_of_group();
    Gather {
        x: dy,
        batch: sizes.batch,
        groups: sizes.groups,
        channels,
        planes,
        weight,
        weight_strides: [kernel_len, rows * kernel_len],
        rows,
        bias,
        taps,
        jobs,
        grid,
        output: sizes.input,
        output_stride: stride,
        work: sizes.work(),
    }
}

/// Floating-point operations below which sums are direct: they are done in a fraction of a
/// millisecond either way, and direct sums have half the rounding errors.
const WORTH_TRANSFORMS: usize = 8 << 20;

/// `work` by Winograd's algorithm, unless it has groups, or single rows.
fn transformed<'a>(work: &'a Gather<'a>) -> Option<Winograd<'a>> {
    let suits = work.groups == 1 && work.grid[0] > 1;
    suits.then(|| Winograd::new(work)).flatten()
}

/// Runs the algorithm with the lowest estimated cost.
fn fastest(work: Gather) -> Vec<f32> {
    let [lanes, widest] = vectors();
    let large = work.work >= WORTH_TRANSFORMS;
    if large
        && let Some(line) = Line::new(&work)
        && line.is_faster()
    {
        return line.run();
    }
    let winograd = large.then(|| transformed(&work)).flatten();
    match winograd.filter(|winograd| winograd.cycles(lanes) < work.cycles(lanes, widest)) {
        Some(winograd) => winograd.run(),
        None => gather(work),
    }
}

/// The weight gradient of [`conv2d`].
///
/// `x` is `[batch, channels_in, input…]`, `dy` `[batch, channels_out, output…]`, the result
/// `[channels_out, channels_in / groups, kernel…]`.
///
/// # Panics
/// If channels, groups, a height, a width, a stride or a dilation is 0, the groups do not divide
/// the channels, the sizes overflow, or an operand does not have its size.
pub fn conv2d_weight_grad(x: &[f32], dy: &[f32], sizes: ConvSizes) -> Vec<f32> {
    sizes.check(Some(x), Some(dy), None, None);
    if sizes.batch == 0 {
        let [height, width] = sizes.kernel;
        let [channels_in, _] = sizes.channels_of_group();
        return vec![0.0; volume(&[sizes.channels_out, channels_in, height, width])];
    }
    if let Some(len) = sizes.covers() {
        let (dy, x) = (
            Matrix::rows(dy, sizes.channels_out).t(),
            Matrix::rows(x, len),
        );
        return multiply([sizes.channels_out, len, sizes.batch], dy, x, None);
    }
    if let Some(pixels) = sizes.pointwise() {
        return pointwise_weight_grad([sizes.channels_out, pixels, sizes.channels_in], x, dy);
    }
    let convolution = forward(x, &[], None, sizes);
    if convolution.work >= WORTH_TRANSFORMS
        && let Some(line) = Line::new(&convolution)
    {
        let weight_grad = LineWeightGrad { line, dy };
        if weight_grad.is_faster() {
            return weight_grad.run();
        }
    }
    match transformed(&convolution) {
        Some(all) if all.faster_weight_grad() => WeightGrad { all, dy, sizes }.run(),
        _ => correlate(x, dy, sizes.input_planes(), sizes),
    }
}
