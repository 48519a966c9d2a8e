//! Convolutions as matrix products whose right side is never stored whole.
//!
//! Forward, input gradient and transposed convolution are one computation, `gather`: every output
//! pixel is a sum over channels and taps of a constant offset into padded planes. The weight
//! gradient, `correlate`, multiplies the same planes by the transposed output gradient. Either
//! reads pixels where they lie in the planes, or, where rows are so short that the padding between
//! them costs more than copying, from panels of pixels side by side (im2col, a panel at a time, in
//! cache). Maps of a few pixels are computed `across` images, and 3×3 kernels with fewer
//! multiplications (`winograd`), where that costs less; kernels of one pixel, or of the whole
//! map, are matrix products as they are. Blocking after Goto and van de Geijn 2008, "Anatomy of
//! high-performance matrix multiplication".

mod across;
mod correlate;
mod gather;
mod panel;
mod planes;
mod points;
mod pointwise;
mod winograd;
mod winograd_weights;

use super::{
    product::{Matrix, multiply},
    simd::lanes,
};
use across::Across;
use correlate::correlate;
use gather::{Gather, Job, gather};
use planes::Planes;
use pointwise::{pointwise, pointwise_weight_grad};
use winograd::Winograd;
use winograd_weights::WinogradWeights;

/// Sizes of a convolution without groups, from the side of the larger map (`x` of a convolution,
/// the output of a transposed one).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvSizes {
    /// Batch size.
    pub batch: usize,
    /// Channels of the larger map.
    pub channels_in: usize,
    /// Channels of the smaller map.
    pub channels_out: usize,
    /// Height and width of the larger map.
    pub input: [usize; 2],
    /// Height and width of the smaller map.
    pub output: [usize; 2],
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Stride along each axis.
    pub stride: [usize; 2],
    /// Zero padding before each axis.
    pub padding: [usize; 2],
    /// Dilation along each axis.
    pub dilation: [usize; 2],
}

impl ConvSizes {
    fn taps(&self) -> impl Iterator<Item = [usize; 2]> {
        let [_, width] = self.kernel;
        (0..self.kernel[0] * width).map(move |tap| [tap / width, tap % width])
    }

    /// Whether the kernel covers the larger map exactly, so that the smaller one is a pixel and the
    /// convolution a linear map: the length of its sum.
    fn covers(&self) -> Option<usize> {
        let whole = (0..2).all(|axis| self.kernel[axis] == 1 || self.dilation[axis] == 1);
        let exact =
            self.kernel == self.input && self.output == [1, 1] && self.padding == [0, 0] && whole;
        exact.then_some(self.channels_in * self.input[0] * self.input[1])
    }

    /// Whether every pixel of the smaller map is a product of the same pixel of the larger one: how
    /// many there are.
    fn pointwise(&self) -> Option<usize> {
        let same = self.input == self.output && self.stride == [1, 1] && self.padding == [0, 0];
        (self.kernel == [1, 1] && same).then_some(self.input[0] * self.input[1])
    }

    /// Whether [`Winograd`] may do it.
    fn is_three_by_three(&self) -> bool {
        let plain = self.kernel == [3, 3] && self.stride == [1, 1] && self.dilation == [1, 1];
        plain && self.padding.iter().all(|pad| *pad <= 2)
    }

    fn work(&self) -> usize {
        let per_pixel = 2 * self.channels_in * self.channels_out * self.kernel[0] * self.kernel[1];
        self.batch * self.output[0] * self.output[1] * per_pixel
    }

    /// Planes of the larger map, for taps that walk it with the stride.
    fn input_planes(&self) -> Planes {
        let mut phases: Vec<[usize; 2]> = self
            .taps()
            .map(|[r, c]| {
                [
                    r * self.dilation[0] % self.stride[0],
                    c * self.dilation[1] % self.stride[1],
                ]
            })
            .collect();
        phases.sort_unstable();
        phases.dedup();
        let size = [0, 1]
            .map(|i| self.output[i] + (self.kernel[i] - 1) * self.dilation[i] / self.stride[i]);
        Planes {
            source: self.input,
            step: self.stride,
            pad: self.padding,
            phases,
            size,
        }
    }
}

/// `y = conv(x, weight) + bias`, with `weight` `[channels_out, channels_in, kernel…]`.
pub fn conv2d(x: &[f32], weight: &[f32], bias: Option<&[f32]>, sizes: ConvSizes) -> Vec<f32> {
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
    let winograd = sizes.is_three_by_three().then_some(Winograd {
        x,
        batch: sizes.batch,
        channels: sizes.channels_in,
        input: sizes.input,
        output: sizes.output,
        pad: sizes.padding,
        weight,
        weight_steps: [9 * sizes.channels_in, 9],
        turned: false,
        rows: sizes.channels_out,
        bias,
    });
    fastest(forward(x, weight, bias, sizes), winograd)
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
    Gather {
        x,
        batch: sizes.batch,
        channels: sizes.channels_in,
        planes,
        weight,
        weight_steps: [sizes.channels_in * kernel_len, kernel_len],
        rows: sizes.channels_out,
        bias,
        taps,
        jobs: vec![Job {
            taps: (0..kernel_len).collect(),
            kernel: (0..kernel_len).collect(),
        }],
        grid: sizes.output,
        output: sizes.output,
        output_step: [1, 1],
        work: sizes.work(),
    }
}

/// The transpose of [`conv2d`] as a linear map, applied to `dy`, plus `bias`: the input gradient of
/// a convolution, and the transposed convolution.
pub fn conv2d_transposed(
    dy: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    sizes: ConvSizes,
) -> Vec<f32> {
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
    let winograd = sizes.is_three_by_three().then(|| Winograd {
        x: dy,
        batch: sizes.batch,
        channels: sizes.channels_out,
        input: sizes.output,
        output: sizes.input,
        pad: sizes.padding.map(|pad| 2 - pad),
        weight,
        weight_steps: [9, 9 * sizes.channels_in],
        turned: true,
        rows: sizes.channels_in,
        bias,
    });
    fastest(backward(dy, weight, bias, sizes), winograd)
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
    // Input pixel i of phase r (i = r + stride·t) gets from output pixel o through tap k where
    // o·stride − padding + k·dilation = i, so for taps with (r + padding − k·dilation) divisible, o
    // = t + that quotient.
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
    // How far the taps reach around a pixel of the smaller map.
    let extent = |axis: usize| {
        let reached = phases(axis).flat_map(|phase| axis_taps(axis, phase));
        reached.fold((0, 0), |(low, high), (_, o)| (low.min(o), high.max(o)))
    };
    let (rows, columns) = (extent(0), extent(1));
    let planes = Planes {
        source: sizes.output,
        step: [1, 1],
        pad: [rows.0.unsigned_abs(), columns.0.unsigned_abs()],
        phases: vec![[0, 0]],
        size: [
            grid[0] + (rows.1 - rows.0).cast_unsigned(),
            grid[1] + (columns.1 - columns.0).cast_unsigned(),
        ],
    };
    // Phases share taps: each place is listed once.
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
    Gather {
        x: dy,
        batch: sizes.batch,
        channels: sizes.channels_out,
        planes,
        weight,
        weight_steps: [kernel_len, sizes.channels_in * kernel_len],
        rows: sizes.channels_in,
        bias,
        taps,
        jobs,
        grid,
        output: sizes.input,
        output_step: stride,
        work: sizes.work(),
    }
}

/// Computes it whichever way is likely the fastest.
fn fastest(work: Gather, winograd: Option<Winograd>) -> Vec<f32> {
    let lanes = lanes();
    let (alone, three) = (
        work.cycles(lanes),
        winograd.as_ref().map(|winograd| winograd.cycles(lanes)),
    );
    let across = Across::new(&work)
        .filter(|across| across.cycles(lanes) < alone.min(three.unwrap_or(alone)));
    if let Some(across) = across {
        return across.run();
    }
    match winograd {
        Some(winograd) if three < Some(alone) => winograd.run(),
        _ => gather(work),
    }
}

/// The weight gradient of [`conv2d`], `[channels_out, channels_in, kernel…]`.
pub fn conv2d_weight_grad(x: &[f32], dy: &[f32], sizes: ConvSizes) -> Vec<f32> {
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
    match WinogradWeights::new(x, dy, sizes) {
        Some(winograd) => winograd.run(),
        None => correlate(x, dy, sizes.input_planes(), sizes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    fn same(got: &[f32], expected: &[f32], about: &ConvSizes) {
        let scale = expected
            .iter()
            .fold(1.0f32, |top, value| top.max(value.abs()));
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert!(
                (got - expected).abs() <= 2e-5 * scale,
                "{got} for {expected}, {about:?}"
            );
        }
    }

    /// Whatever the estimates say is faster, every way gives the same numbers.
    #[test]
    fn ways_agree() {
        let mut rng = Rng::new(3);
        let mut ran = 0;
        for _ in 0..400 {
            let mut pick = |low: usize, high: usize| low + rng.below(high - low + 1);
            let (kernel, stride) = ([pick(1, 4), pick(1, 4)], [pick(1, 3), pick(1, 3)]);
            let (padding, output) = ([pick(0, 2), pick(0, 2)], [pick(1, 9), pick(1, 9)]);
            let input = [0, 1]
                .map(|i| ((output[i] - 1) * stride[i] + kernel[i]).saturating_sub(2 * padding[i]));
            let (batch, channels_in, channels_out) = (pick(1, 35), pick(1, 12), pick(1, 20));
            if input.contains(&0) {
                continue;
            }
            let sizes = ConvSizes {
                batch,
                channels_in,
                channels_out,
                input,
                output,
                kernel,
                stride,
                padding,
                dilation: [1, 1],
            };
            let x = rng.normals(batch * channels_in * input[0] * input[1]);
            let dy = rng.normals(batch * channels_out * output[0] * output[1]);
            let weight = rng.normals(channels_out * channels_in * kernel[0] * kernel[1]);
            let bias = rng.normals(channels_in.max(channels_out));
            let bias = Some(&bias[..]);
            for work in [
                forward(&x, &weight, bias, sizes),
                backward(&dy, &weight, bias, sizes),
            ] {
                if let Some(across) = Across::new(&work) {
                    let got = across.run();
                    same(&got, &gather(work), &sizes);
                    ran += 1;
                }
            }
            if let Some(winograd) = WinogradWeights::new(&x, &dy, sizes) {
                same(
                    &winograd.run(),
                    &correlate(&x, &dy, sizes.input_planes(), sizes),
                    &sizes,
                );
                ran += 1;
            }
        }
        assert!(ran > 400, "{ran} ran");
    }
}
