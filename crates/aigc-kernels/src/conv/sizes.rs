//! Sizes of convolutions.

use super::planes::Planes;
use crate::memory::volume;

/// The largest extent of an axis of the padded maps. Sums of a few extents do not overflow `isize`.
const MAX_EXTENT: usize = isize::MAX as usize / 32;

/// Sizes of a convolution. The larger map is the input `x` of a convolution, or the output of a
/// transposed convolution; the smaller map is the other one.
///
/// Any sizes are allowed here: the functions that take them check them. The size of the smaller map
/// need not follow from the others: beyond the end of the larger map, zeros are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvSizes {
    /// Batch size.
    pub batch: usize,
    /// Channels of the larger map, in all groups.
    pub channels_in: usize,
    /// Channels of the smaller map, in all groups.
    pub channels_out: usize,
    /// Number of groups, of which each connects its share of the channels of both maps.
    pub groups: usize,
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
    /// If channels, groups, a height, a width, a stride or a dilation is 0, if the groups do not
    /// divide the channels, if the sizes overflow, or if the larger map, the smaller map, the
    /// weight or the bias does not have the size that the convolution requires. Operands that are
    /// not given are not checked.
    pub(super) fn check(
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
            groups,
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
            groups > 0 && positive.iter().flatten().all(|size| *size > 0),
            "a size is 0 in {self:?}"
        );
        assert!(
            channels_in.is_multiple_of(groups) && channels_out.is_multiple_of(groups),
            "the groups do not divide the channels of {self:?}"
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
            volume(&[
                channels_out,
                channels_in / groups,
                kernel_height,
                kernel_width,
            ]),
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

    /// Channels of the larger and of the smaller map in one group.
    pub(super) fn channels_of_group(&self) -> [usize; 2] {
        [self.channels_in, self.channels_out].map(|channels| channels / self.groups)
    }

    /// The taps of the kernel as `[row, column]`.
    pub(super) fn taps(&self) -> impl Iterator<Item = [usize; 2]> {
        let [_, width] = self.kernel;
        (0..self.kernel[0] * width).map(move |tap| [tap / width, tap % width])
    }

    /// If the kernel covers the larger map exactly, the smaller map is one pixel and the
    /// convolution a linear layer: returns the number of its inputs.
    pub(super) fn covers(&self) -> Option<usize> {
        let whole = (0..2).all(|axis| self.kernel[axis] == 1 || self.dilation[axis] == 1);
        let exact =
            self.kernel == self.input && self.output == [1, 1] && self.padding == [0, 0] && whole;
        (exact && self.groups == 1).then_some(self.channels_in * self.input[0] * self.input[1])
    }

    /// If the convolution is pointwise (1×1, stride 1, no padding): returns the number of pixels.
    pub(super) fn pointwise(&self) -> Option<usize> {
        let same = self.input == self.output && self.stride == [1, 1] && self.padding == [0, 0];
        (self.kernel == [1, 1] && same && self.groups == 1).then_some(self.input[0] * self.input[1])
    }

    /// Floating-point operations.
    pub(super) fn work(&self) -> usize {
        let [channels_in, _] = self.channels_of_group();
        let per_pixel = 2 * channels_in * self.channels_out * self.kernel[0] * self.kernel[1];
        self.batch * self.output[0] * self.output[1] * per_pixel
    }

    /// Planes of the larger map, on which neighbouring output pixels are neighbours.
    pub(super) fn input_planes(&self) -> Planes {
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
            first: [0; 2],
            size,
        }
        .checked()
    }
}
