//! Convolution over frames, height and width.

use super::Initializer;
use crate::ops;
use burn::{
    config::Config,
    module::{Module, Param},
    tensor::{Device, Int, Tensor, ops::ConvOptions},
};

/// Configuration to create a [`Conv3d`] layer. Axes are time, height and width.
#[derive(Config, Debug)]
pub struct Conv3dConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Frames, height and width of the kernel.
    pub kernel_size: [usize; 3],
    /// Stride along each axis.
    #[config(default = "[1, 1, 1]")]
    pub stride: [usize; 3],
    /// Zero padding at both ends of each axis.
    #[config(default = "[0, 0, 0]")]
    pub padding: [usize; 3],
    /// Whether a bias is added.
    #[config(default = true)]
    pub bias: bool,
    /// Initializer of weight and bias.
    #[config(default = "Initializer::PYTORCH")]
    pub initializer: Initializer,
}

/// Three-dimensional convolution (cross-correlation).
///
/// It runs as two-dimensional convolutions, which have kernels for the CPU:
///
/// - A kernel over time alone is a convolution of maps of frames × pixels, which are read in place.
/// - Others are sums of one convolution for every frame of the kernel. The frames are copied once,
///   and what a gradient keeps of them is this copy. Gathering the kernel's frames along the
///   channels instead would take one convolution, but as many copies of the input as the kernel has
///   frames. It is done where these are smaller than the output, such as in a first layer.
#[derive(Module, Debug)]
pub struct Conv3d {
    /// Weight, `[channels_out, channels_in, frames, height, width]`.
    pub weight: Param<Tensor<5>>,
    /// Bias, `[channels_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    stride: [usize; 3],
    padding: [usize; 3],
}

impl Conv3dConfig {
    /// Creates the layer on `device`.
    ///
    /// # Panics
    /// If the kernel is empty, or a stride is 0.
    pub fn init(&self, device: &Device) -> Conv3d {
        let ([i, o], [t, h, w]) = (self.channels, self.kernel_size);
        let volume = t * h * w;
        assert!(volume > 0, "the kernel of a convolution is empty");
        assert!(
            !self.stride.contains(&0),
            "strides of {:?}: expected at least 1",
            self.stride
        );
        Conv3d {
            weight: self
                .initializer
                .param([o, i, t, h, w], i * volume, o * volume, device),
            bias: self
                .bias
                .then(|| self.initializer.param([o], i * volume, o * volume, device)),
            stride: self.stride,
            padding: self.padding,
        }
    }
}

impl Conv3d {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - x: `[batch, channels_in, frames, height, width]`
    /// - output: `[batch, channels_out, (frames + 2·padding − kernel) / stride + 1, …]`
    ///
    /// # Panics
    /// If `x` does not have `channels_in` channels, or is smaller than the kernel with the padding.
    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let ([_, channels, sizes @ ..], weight) = (x.dims(), self.weight.val());
        let [_, inputs, kernel @ ..] = weight.dims();
        assert_eq!(
            channels, inputs,
            "channels of the input and the weight of a convolution differ"
        );
        let fits = (0..3).all(|axis| sizes[axis] + 2 * self.padding[axis] >= kernel[axis]);
        assert!(
            fits,
            "maps of {sizes:?} with a padding of {:?} are smaller than a kernel of {kernel:?}",
            self.padding
        );
        let [_, rows, columns] = kernel;
        let over_time =
            [rows, columns] == [1, 1] && self.stride[1..] == [1, 1] && self.padding[1..] == [0, 0];
        match over_time {
            true => self.along_time(x, weight),
            false => self.frame_by_frame(x, weight),
        }
    }

    /// The convolution with a kernel of one pixel in every frame.
    fn along_time(&self, x: Tensor<5>, weight: Tensor<5>) -> Tensor<5> {
        let [batch, channels, frames, height, width] = x.dims();
        let [outputs, _, kernel, ..] = weight.dims();
        let options = ConvOptions::new([self.stride[0], 1], [self.padding[0], 0], [1, 1], 1);
        let y = ops::conv2d(
            x.reshape([batch, channels, frames, height * width]),
            weight.reshape([outputs, channels, kernel, 1]),
            self.bias.as_ref().map(|bias| bias.val()),
            options,
        );
        let frames = y.dims()[2];
        y.reshape([batch, outputs, frames, height, width])
    }

    /// The convolution as sum over the frames of the kernel.
    fn frame_by_frame(&self, x: Tensor<5>, weight: Tensor<5>) -> Tensor<5> {
        let [batch, channels, frames, height, width] = x.dims();
        let [outputs, _, kernel, rows, columns] = weight.dims();
        let [stride, pad] = [self.stride[0], self.padding[0]];
        let out_frames = (frames + 2 * pad - kernel) / stride + 1;
        // Frames first, so that those that a frame of the kernel sees lie next to each other.
        let x = x.permute([2, 0, 1, 3, 4]);
        let x = match pad {
            0 => x,
            _ => {
                let shape = [pad, batch, channels, height, width];
                let zeros = Tensor::<5>::zeros(shape, (&x.device(), x.dtype()));
                Tensor::cat(vec![zeros.clone(), x, zeros], 0)
            }
        };
        let x = x.reshape([(frames + 2 * pad) * batch, channels, height, width]);
        let seen = |first: usize| -> Tensor<4> {
            let (from, len) = (first * batch, out_frames * batch);
            if stride == 1 {
                return x.clone().narrow(0, from, len);
            }
            let index = |at: usize| ((first + at / batch * stride) * batch + at % batch) as i32;
            let indices: Vec<i32> = (0..len).map(index).collect();
            let indices = Tensor::<1, Int>::from_ints(indices.as_slice(), &x.device());
            x.clone().select(0, indices)
        };
        let options = ConvOptions::new(
            [self.stride[1], self.stride[2]],
            [self.padding[1], self.padding[2]],
            [1, 1],
            1,
        );
        let bias = self.bias.as_ref().map(|bias| bias.val());
        let y = if kernel * channels <= outputs {
            let gathered = Tensor::cat((0..kernel).map(seen).collect(), 1);
            let weight =
                weight
                    .swap_dims(1, 2)
                    .reshape([outputs, kernel * channels, rows, columns]);
            ops::conv2d(gathered, weight, bias, options)
        } else {
            let part = |frame: usize, bias: Option<Tensor<1>>| {
                let weight = weight.clone().narrow(2, frame, 1);
                let weight = weight.reshape([outputs, channels, rows, columns]);
                ops::conv2d(seen(frame), weight, bias, options.clone())
            };
            (1..kernel).fold(part(0, bias), |sum, frame| sum + part(frame, None))
        };
        let [.., out_height, out_width] = y.dims();
        y.reshape([out_frames, batch, outputs, out_height, out_width])
            .permute([1, 2, 0, 3, 4])
    }
}
