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

/// Runs the algorithm with the lowest estimated cost.
fn fastest(work: Gather) -> Vec<f32> {
    let [lanes, widest] = vectors();
    let winograd = Winograd::new(&work);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Rng, assert_panics};
    use pulp::WithSimd;

    fn assert_close(got: &[f32], expected: &[f32], sizes: &ConvSizes) {
        let scale = expected
            .iter()
            .fold(1.0f32, |top, value| top.max(value.abs()));
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert!(
                (got - expected).abs() <= 2e-5 * scale,
                "{got}, expected {expected}, {sizes:?}"
            );
        }
    }

    /// Winograd's algorithm, independent of whether it would be selected, with the vectors of this
    /// CPU and with others.
    fn by_winograd(work: &Gather) -> Option<[Vec<f32>; 4]> {
        let all = || Winograd::new(work);
        Some([
            all()?.run(),
            all()?.with_simd(pulp::Scalar),
            all()?.with_simd(pulp::Scalar128b),
            // 16 lanes, as with AVX-512.
            all()?.with_simd(pulp::Scalar512b),
        ])
    }

    fn weight_grad_by_winograd(x: &[f32], dy: &[f32], sizes: ConvSizes) -> Option<[Vec<f32>; 4]> {
        let work = forward(x, &[], None, sizes);
        let weight_grad = || {
            Some(WeightGrad {
                all: Winograd::new(&work)?,
                dy,
                sizes,
            })
        };
        Some([
            weight_grad()?.run(),
            weight_grad()?.with_simd(pulp::Scalar),
            weight_grad()?.with_simd(pulp::Scalar128b),
            weight_grad()?.with_simd(pulp::Scalar512b),
        ])
    }

    /// Compares the algorithms with each other.
    #[test]
    fn conv_algorithms_agree() {
        let mut rng = Rng::new(3);
        let mut compared = std::collections::BTreeMap::new();
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
            let mut count = |work: &Gather, direction: &'static str| {
                let schemes = Winograd::new(work).map(|all| all.schemes());
                *compared.entry((direction, schemes)).or_insert(0) += 1;
            };
            let [forward, backward] = [
                forward(&x, &weight, bias, sizes),
                backward(&dy, &weight, bias, sizes),
            ];
            if let Some(results) = weight_grad_by_winograd(&x, &dy, sizes) {
                count(&forward, "weight gradient");
                let expected = correlate(&x, &dy, sizes.input_planes(), sizes);
                for result in results {
                    assert_close(&result, &expected, &sizes);
                }
            }
            for (work, direction) in [(forward, "forward"), (backward, "backward")] {
                if let Some(results) = by_winograd(&work) {
                    count(&work, direction);
                    let expected = gather(work);
                    for result in results {
                        assert_close(&result, &expected, &sizes);
                    }
                }
            }
        }
        // Three directions, and schemes of 2 taps by 4 and by 7 rows, and of 3 taps.
        assert_eq!(compared.len(), 9, "{compared:?}");
        assert!(compared.values().all(|count| *count > 10), "{compared:?}");
    }

    /// Sums of several blocks, weight gradients of several groups of tiles, and images with more
    /// tiles than a part. The bound is the one above, although the sums are long.
    #[test]
    fn long_convs_by_winograd_match_direct_sums() {
        let mut rng = Rng::new(11);
        for (batch, [channels_in, channels_out], side, kernel, stride) in [
            (2, [300, 56], 5, 3, 1),
            (20, [64, 64], 28, 3, 1),
            (1, [8, 12], 140, 3, 1),
            (40, [64, 48], 14, 4, 2),
        ] {
            let out = (side + 2 - kernel) / stride + 1;
            let sizes = ConvSizes {
                batch,
                channels_in,
                channels_out,
                input: [side; 2],
                output: [out; 2],
                kernel: [kernel; 2],
                stride: [stride; 2],
                padding: [1; 2],
                dilation: [1; 2],
            };
            let x = rng.normals(batch * channels_in * side * side);
            let dy = rng.normals(batch * channels_out * out * out);
            let weight = rng.normals(channels_out * channels_in * kernel * kernel);
            let work = forward(&x, &weight, None, sizes);
            let all = Winograd::new(&work).expect("three by three taps");
            assert_close(&all.run(), &gather(work), &sizes);
            let work = backward(&dy, &weight, None, sizes);
            let all = Winograd::new(&work).expect("three by three taps");
            assert_close(&all.run(), &gather(work), &sizes);
            let work = forward(&x, &[], None, sizes);
            let all = Winograd::new(&work).expect("three by three taps");
            let dw = WeightGrad {
                all,
                dy: &dy,
                sizes,
            }
            .run();
            let expected = correlate(&x, &dy, sizes.input_planes(), sizes);
            assert_close(&dw, &expected, &sizes);
        }
    }

    /// Which algorithm is selected, and that its results do not depend on the number of threads.
    #[test]
    fn convs_of_a_model_by_winograd_repeat_on_any_number_of_threads() {
        let mut rng = Rng::new(13);
        let sizes = ConvSizes {
            batch: 5,
            channels_in: 64,
            channels_out: 64,
            input: [28; 2],
            output: [28; 2],
            kernel: [3; 2],
            stride: [1; 2],
            padding: [1; 2],
            dilation: [1; 2],
        };
        let [x, dy] = [0; 2].map(|_| rng.normals(5 * 64 * 28 * 28));
        let weight = rng.normals(64 * 64 * 9);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("threads").install(|| {
                [
                    conv2d(&x, &weight, None, sizes),
                    conv2d_transposed(&dy, &weight, None, sizes),
                    conv2d_weight_grad(&x, &dy, sizes),
                ]
            })
        };
        let one = on(1);
        assert_eq!(one, on(3));
        let work = forward(&x, &weight, None, sizes);
        let all = || Winograd::new(&work).expect("three by three taps");
        assert!(all().faster_weight_grad());
        assert_eq!(one[0], all().run());
        let few = ConvSizes {
            channels_in: 1,
            ..sizes
        };
        let work = forward(&x[..5 * 28 * 28], &weight[..64 * 9], None, few);
        let all = Winograd::new(&work).expect("three by three taps");
        assert!(!all.faster_weight_grad());
    }

    /// One pixel less than a tile, a large kernel, windows far from each other, and many weights.
    #[test]
    fn winograd_rejects_what_it_cannot_do() {
        let sizes = ConvSizes {
            batch: 1,
            channels_in: 1,
            channels_out: 1,
            input: [9; 2],
            output: [9; 2],
            kernel: [3; 2],
            stride: [1; 2],
            padding: [1; 2],
            dilation: [1; 2],
        };
        let accepts = |sizes: ConvSizes, transposed: bool| {
            let work = match transposed {
                true => backward(&[], &[], None, sizes),
                false => forward(&[], &[], None, sizes),
            };
            Winograd::new(&work).is_some()
        };
        assert!(accepts(sizes, false) && accepts(sizes, true));
        let wide = ConvSizes {
            kernel: [4; 2],
            ..sizes
        };
        assert!(!accepts(wide, false) && !accepts(wide, true));
        let single = ConvSizes {
            kernel: [1; 2],
            ..sizes
        };
        assert!(!accepts(single, false));
        let dilated = ConvSizes {
            dilation: [2; 2],
            ..sizes
        };
        assert!(!accepts(dilated, false));
        let many = ConvSizes {
            channels_in: 1280,
            channels_out: 1280,
            ..sizes
        };
        assert!(!accepts(many, false) && !accepts(many, true));
        let large = ConvSizes {
            channels_in: 4096,
            input: [9, 4096],
            output: [9, 4096],
            ..sizes
        };
        assert!(!accepts(large, false));
    }

    /// The convolution of `x`, its transpose applied to `dy` and its weight gradient, without bias.
    fn reference(x: &[f32], dy: &[f32], weight: &[f32], sizes: ConvSizes) -> [Vec<f32>; 3] {
        let [height, width] = sizes.input;
        let [out_height, out_width] = sizes.output;
        let kernel_len = sizes.kernel[0] * sizes.kernel[1];
        let mut sums = [dy.len(), x.len(), weight.len()].map(|len| vec![0.0f64; len]);
        let [y, dx, dw] = &mut sums;
        for output in 0..dy.len() {
            let (image, channel_out) = (
                output / (sizes.channels_out * out_height * out_width),
                output / (out_height * out_width) % sizes.channels_out,
            );
            let pixel = [output / out_width % out_height, output % out_width];
            for channel_in in 0..sizes.channels_in {
                for (tap, at) in sizes.taps().enumerate() {
                    let [row, column] = [0, 1].map(|axis| {
                        (pixel[axis] * sizes.stride[axis] + at[axis] * sizes.dilation[axis])
                            .wrapping_sub(sizes.padding[axis])
                    });
                    if row >= height || column >= width {
                        continue;
                    }
                    let input =
                        ((image * sizes.channels_in + channel_in) * height + row) * width + column;
                    let element = (channel_out * sizes.channels_in + channel_in) * kernel_len + tap;
                    let [x, dy, weight] = [x[input], dy[output], weight[element]].map(f64::from);
                    y[output] += x * weight;
                    dx[input] += dy * weight;
                    dw[element] += x * dy;
                }
            }
        }
        sums.map(|values| values.into_iter().map(|value| value as f32).collect())
    }

    /// The sizes of the maps do not follow from each other: zeros are read beyond the maps.
    #[test]
    fn convs_of_any_sizes_match_f64() {
        let mut rng = Rng::new(7);
        let mut by_winograd_too = 0;
        for _ in 0..300 {
            let mut pick = |low: usize, high: usize| low + rng.below(high - low + 1);
            let sizes = ConvSizes {
                batch: pick(1, 18),
                channels_in: pick(1, 6),
                channels_out: pick(1, 6),
                input: [pick(1, 7), pick(1, 9)],
                output: [pick(1, 7), pick(1, 9)],
                kernel: [pick(1, 3), pick(1, 3)],
                stride: [pick(1, 4), pick(1, 4)],
                padding: [pick(0, 5), pick(0, 5)],
                dilation: [pick(1, 2), pick(1, 2)],
            };
            let pixels = sizes.input[0] * sizes.input[1];
            let pixels_out = sizes.output[0] * sizes.output[1];
            let x = rng.normals(sizes.batch * sizes.channels_in * pixels);
            let dy = rng.normals(sizes.batch * sizes.channels_out * pixels_out);
            let kernel_len = sizes.kernel[0] * sizes.kernel[1];
            let weight = rng.normals(sizes.channels_out * sizes.channels_in * kernel_len);
            let bias = rng.normals(6);
            let [mut y, mut dx, dw] = reference(&x, &dy, &weight, sizes);
            for (values, pixels, channels) in [
                (&mut y, pixels_out, sizes.channels_out),
                (&mut dx, pixels, sizes.channels_in),
            ] {
                for (map, values) in values.chunks_exact_mut(pixels).enumerate() {
                    values
                        .iter_mut()
                        .for_each(|value| *value += bias[map % channels]);
                }
            }
            let [bias_out, bias_in] =
                [sizes.channels_out, sizes.channels_in].map(|len| Some(&bias[..len]));
            for (results, expected) in [
                (by_winograd(&forward(&x, &weight, bias_out, sizes)), &y),
                (by_winograd(&backward(&dy, &weight, bias_in, sizes)), &dx),
                (weight_grad_by_winograd(&x, &dy, sizes), &dw),
            ] {
                for result in results.into_iter().flatten() {
                    assert_close(&result, expected, &sizes);
                    by_winograd_too += 1;
                }
            }
            assert_close(&conv2d(&x, &weight, bias_out, sizes), &y, &sizes);
            assert_close(
                &conv2d_transposed(&dy, &weight, bias_in, sizes),
                &dx,
                &sizes,
            );
            assert_close(&conv2d_weight_grad(&x, &dy, sizes), &dw, &sizes);
        }
        assert!(by_winograd_too > 1000, "only {by_winograd_too} results");
    }

    #[test]
    fn convs_reject_other_sizes() {
        let sizes = ConvSizes {
            batch: 2,
            channels_in: 3,
            channels_out: 4,
            input: [5, 6],
            output: [5, 6],
            kernel: [3, 3],
            stride: [1, 1],
            padding: [1, 1],
            dilation: [1, 1],
        };
        let values = [0.5; 300];
        let run = |function: usize, lens: [usize; 4], sizes: ConvSizes| {
            let [x, dy, weight, bias] = lens.map(|len| &values[..len]);
            match function {
                0 => conv2d(x, weight, Some(bias), sizes),
                1 => conv2d_transposed(dy, weight, Some(bias), sizes),
                _ => conv2d_weight_grad(x, dy, sizes),
            }
        };
        const MAX: usize = usize::MAX;
        const HALF: usize = 1 << (usize::BITS / 2);
        type Change = fn(&mut ConvSizes);
        let changes: [(Change, &str); 16] = [
            (|sizes| sizes.channels_in = 0, "is 0"),
            (|sizes| sizes.channels_out = 0, "is 0"),
            (|sizes| sizes.input[0] = 0, "is 0"),
            (|sizes| sizes.output[1] = 0, "is 0"),
            (|sizes| sizes.kernel[0] = 0, "is 0"),
            (|sizes| sizes.stride[1] = 0, "is 0"),
            (|sizes| sizes.dilation[0] = 0, "is 0"),
            (|sizes| sizes.stride[0] = MAX, "too large"),
            (|sizes| sizes.dilation[1] = MAX, "too large"),
            (|sizes| sizes.padding[0] = MAX, "too large"),
            (|sizes| sizes.padding[1] = MAX / 2, "too large"),
            (|sizes| sizes.input[1] = MAX, "too large"),
            (|sizes| sizes.batch = MAX, "overflow"),
            (|sizes| sizes.output = [HALF; 2], "overflow"),
            (|sizes| sizes.kernel = [HALF; 2], "overflow"),
            // The operands fit, but the padded maps overflow.
            (|sizes| sizes.dilation = [HALF; 2], "overflow"),
        ];
        for (function, bias, operands) in [
            (0, 4, vec![(0, "larger map"), (2, "weight"), (3, "bias")]),
            (1, 3, vec![(1, "smaller map"), (2, "weight"), (3, "bias")]),
            (2, 0, vec![(0, "larger map"), (1, "smaller map")]),
        ] {
            let fitting = [180, 240, 108, bias];
            assert!(!run(function, fitting, sizes).is_empty());
            for (index, name) in operands {
                for len in [0, fitting[index] - 1, fitting[index] + 1] {
                    let mut lens = fitting;
                    lens[index] = len;
                    let expected = format!("the {name} has {len} elements");
                    assert_panics(&expected, || run(function, lens, sizes));
                }
            }
            for (change, expected) in changes {
                let mut other = sizes;
                change(&mut other);
                assert_panics(expected, || run(function, fitting, other));
            }
        }
        // Too far for the planes of the transpose; a convolution reads the padding only.
        let far = ConvSizes {
            padding: [HALF; 2],
            ..sizes
        };
        assert_panics("overflow", || run(1, [180, 240, 108, 3], far));
        let y = run(0, [180, 240, 108, 4], far);
        assert!(y.iter().all(|value| *value == 0.5));
    }
}
