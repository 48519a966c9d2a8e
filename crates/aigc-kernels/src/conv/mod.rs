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
//! Winograd's algorithm (`winograd`) is used where it is estimated to be faster: kernels of 2 or 3
//! taps per axis and phase of the stride, with more than a few channels. Kernels of one pixel, or
//! of the whole map, are plain matrix products. Blocking follows Goto and van de Geijn 2008,
//! "Anatomy of high-performance matrix multiplication".

mod correlate;
mod gather;
mod lanes;
mod panel;
mod planes;
mod pointwise;
#[cfg(test)]
mod tests;
mod winograd;

use super::{
    memory::volume,
    product::{Matrix, multiply},
    simd::vectors,
};
use correlate::correlate;
use gather::{Gather, Job, gather};
use planes::Planes;
use pointwise::{pointwise, pointwise_weight_grad};
use winograd::{WeightGrad, Winograd};

/// The largest extent of an axis of the padded maps. Sums of a few extents do not overflow `isize`.
const MAX_EXTENT: usize = isize::MAX as usize / 32;

/// Sizes of a convolution without groups. The larger map is the input `x` of a convolution, or the
/// output of a transposed convolution; the smaller map is the other one.
///
/// Any sizes are allowed here: the functions that take them check them. The size of the smaller map
/// need not follow from the others: beyond the end of the larger map, zeros are read.
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
    /// Zero padding at the start of each axis.
    pub padding: [usize; 2],
    /// Dilation along each axis.
    pub dilation: [usize; 2],
}

impl ConvSizes {
    /// # Panics
    /// If channels, a height, a width, a stride or a dilation is 0, if the sizes overflow, or if
    /// the larger map, the smaller map, the weight or the bias does not have the size that the
    /// convolution requires. Operands that are not given are not checked.
    fn check(
        &self,
        larger: Option<&[f32]>,
        smaller: Option<&[f32]>,
        weight: Option<&[f32]>,
        bias: Option<(&[f32], usize)>,
    ) {
        let Self {
            batch,
            channels_in,
            channels_out,
            input: [height, width],
            output: [out_height, out_width],
            kernel: [kernel_height, kernel_width],
            stride,
            padding,
            dilation,
        } = *self;
        let positive = [
            [channels_in, channels_out],
            self.input,
            self.output,
            self.kernel,
            stride,
            dilation,
        ];
        assert!(
            positive.iter().flatten().all(|size| *size > 0),
            "a size is 0 in {self:?}"
        );
        // Positions of the padded maps are sums of a few of these terms, and may be negative. The
        // lengths of buffers, which are products, are checked where they are allocated.
        for axis in 0..2 {
            let extent = [
                Some(self.input[axis]),
                Some(padding[axis]),
                self.output[axis].checked_mul(stride[axis]),
                self.kernel[axis].checked_mul(dilation[axis]),
            ]
            .into_iter()
            .try_fold(0usize, |extent, term| extent.checked_add(term?));
            assert!(
                extent.is_some_and(|extent| extent <= MAX_EXTENT),
                "the padded maps of {self:?} are too large: the sizes of an axis add up to more \
                 than {MAX_EXTENT}"
            );
        }
        let lens = [
            volume(&[batch, channels_in, height, width]),
            volume(&[batch, channels_out, out_height, out_width]),
            volume(&[channels_out, channels_in, kernel_height, kernel_width]),
        ];
        for ((values, len), name) in [larger, smaller, weight].into_iter().zip(lens).zip([
            "larger map",
            "smaller map",
            "weight",
        ]) {
            if let Some(values) = values {
                assert!(
                    values.len() == len,
                    "the {name} has {} elements, expected {len} for {self:?}",
                    values.len()
                );
            }
        }
        if let Some((bias, channels)) = bias {
            assert!(
                bias.len() == channels,
                "the bias has {} elements, expected {channels} for {self:?}",
                bias.len()
            );
        }
    }

    /// The taps of the kernel as `[row, column]`.
    fn taps(&self) -> impl Iterator<Item = [usize; 2]> {
        let [_, width] = self.kernel;
        (0..self.kernel[0] * width).map(move |tap| [tap / width, tap % width])
    }

    /// If the kernel covers the larger map exactly, the smaller map is one pixel and the
    /// convolution a linear layer: returns the number of its inputs.
    fn covers(&self) -> Option<usize> {
        let whole = (0..2).all(|axis| self.kernel[axis] == 1 || self.dilation[axis] == 1);
        let exact =
            self.kernel == self.input && self.output == [1, 1] && self.padding == [0, 0] && whole;
        exact.then_some(self.channels_in * self.input[0] * self.input[1])
    }

    /// If the convolution is pointwise (1×1, stride 1, no padding): returns the number of pixels.
    fn pointwise(&self) -> Option<usize> {
        let same = self.input == self.output && self.stride == [1, 1] && self.padding == [0, 0];
        (self.kernel == [1, 1] && same).then_some(self.input[0] * self.input[1])
    }

    /// Floating-point operations.
    fn work(&self) -> usize {
        let per_pixel = 2 * self.channels_in * self.channels_out * self.kernel[0] * self.kernel[1];
        self.batch * self.output[0] * self.output[1] * per_pixel
    }

    /// Planes of the larger map, on which neighbouring output pixels are neighbours.
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
            stride: self.stride,
            pad: self.padding,
            phases,
            size,
        }
        .checked()
    }
}

/// Convolution `y = conv(x, weight) (+ bias)`.
///
/// `x` is `[batch, channels_in, input…]`, `weight` `[channels_out, channels_in, kernel…]`, `bias`
/// `[channels_out]`, the result `[batch, channels_out, output…]`.
///
/// # Panics
/// If channels, a height, a width, a stride or a dilation is 0, the sizes overflow, or an operand
/// does not have its size.
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
    Gather {
        x,
        batch: sizes.batch,
        channels: sizes.channels_in,
        planes,
        weight,
        weight_strides: [sizes.channels_in * kernel_len, kernel_len],
        rows: sizes.channels_out,
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
/// `dy` is `[batch, channels_out, output…]`, `weight` `[channels_out, channels_in, kernel…]`,
/// `bias` `[channels_in]`, the result `[batch, channels_in, input…]`.
///
/// # Panics
/// If channels, a height, a width, a stride or a dilation is 0, the sizes overflow, or an operand
/// does not have its size.
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
    Gather {
        x: dy,
        batch: sizes.batch,
        channels: sizes.channels_out,
        planes,
        weight,
        weight_strides: [kernel_len, sizes.channels_in * kernel_len],
        rows: sizes.channels_in,
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

/// Runs the algorithm with the lowest estimated cost.
fn fastest(work: Gather) -> Vec<f32> {
    let [lanes, widest] = vectors();
    let large = work.work >= WORTH_TRANSFORMS;
    let winograd = large.then(|| Winograd::new(&work)).flatten();
    match winograd.filter(|winograd| winograd.cycles(lanes) < work.cycles(lanes, widest)) {
        Some(winograd) => winograd.run(),
        None => gather(work),
    }
}

/// The weight gradient of [`conv2d`].
///
/// `x` is `[batch, channels_in, input…]`, `dy` `[batch, channels_out, output…]`, the result
/// `[channels_out, channels_in, kernel…]`.
///
/// # Panics
/// If channels, a height, a width, a stride or a dilation is 0, the sizes overflow, or an operand
/// does not have its size.
pub fn conv2d_weight_grad(x: &[f32], dy: &[f32], sizes: ConvSizes) -> Vec<f32> {
    sizes.check(Some(x), Some(dy), None, None);
    if sizes.batch == 0 {
        let [height, width] = sizes.kernel;
        return vec![0.0; volume(&[sizes.channels_out, sizes.channels_in, height, width])];
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
    match Winograd::new(&convolution) {
        Some(all) if all.faster_weight_grad() => WeightGrad { all, dy, sizes }.run(),
        _ => correlate(x, dy, sizes.input_planes(), sizes),
    }
}
