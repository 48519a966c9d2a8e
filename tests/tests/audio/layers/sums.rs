//! Convolutions as sums written out, in double precision.

/// Sizes of a convolution; axes are frames, height and width, or time as the width.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) batch: usize,
    /// Input and output channels.
    pub(super) channels: [usize; 2],
    pub(super) input: [usize; 3],
    pub(super) kernel: [usize; 3],
    pub(super) stride: [usize; 3],
    pub(super) padding: [usize; 3],
    /// Of the last axis.
    pub(super) dilation: usize,
    pub(super) groups: usize,
}

impl Sizes {
    pub(super) fn over_time(
        batch: usize,
        channels: [usize; 2],
        time: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> Self {
        Self {
            batch,
            channels,
            input: [1, 1, time],
            kernel: [1, 1, kernel],
            stride: [1, 1, stride],
            padding: [0, 0, padding],
            dilation: 1,
            groups: 1,
        }
    }

    fn dilations(&self) -> [usize; 3] {
        [1, 1, self.dilation]
    }

    /// Sizes of the output.
    pub(super) fn out(&self) -> [usize; 3] {
        let dilations = self.dilations();
        [0, 1, 2].map(|axis| {
            let reach = dilations[axis] * (self.kernel[axis] - 1) + 1;
            (self.input[axis] + 2 * self.padding[axis] - reach) / self.stride[axis] + 1
        })
    }

    /// The convolution of `x`, `[batch, inputs, input…]`, with `weight`,
    /// `[outputs, inputs / groups, kernel…]`: `[batch, outputs, output…]`.
    pub(super) fn convolve(&self, x: &[f64], weight: &[f64]) -> Vec<f64> {
        let ([inputs, outputs], groups) = (self.channels, self.groups);
        let [per_group, out_per_group] = [inputs / groups, outputs / groups];
        let [map, window] = [self.input, self.kernel].map(|size| size.iter().product::<usize>());
        assert_eq!(x.len(), self.batch * inputs * map);
        assert_eq!(weight.len(), outputs * per_group * window);
        let pixels = places(self.out());
        let taps = places(self.kernel);
        let mut y = Vec::with_capacity(self.batch * outputs * pixels.len());
        for index in 0..self.batch * outputs {
            let (image, output) = (index / outputs, index % outputs);
            let first = output / out_per_group * per_group;
            for pixel in &pixels {
                // The inputs of this pixel in a map, and their elements of the kernel.
                let inside: Vec<(usize, usize)> = taps
                    .iter()
                    .enumerate()
                    .filter_map(|(tap, place)| Some((self.place(pixel, place)?, tap)))
                    .collect();
                let mut sum = 0.0;
                for channel in 0..per_group {
                    let x = &x[(image * inputs + first + channel) * map..][..map];
                    let weight = &weight[(output * per_group + channel) * window..][..window];
                    for (at, tap) in &inside {
                        sum += x[*at] * weight[*tap];
                    }
                }
                y.push(sum);
            }
        }
        y
    }

    /// Where in a map an element of the kernel lies for a pixel of the output; none in the padding.
    fn place(&self, pixel: &[usize; 3], tap: &[usize; 3]) -> Option<usize> {
        let (mut at, dilations) = (0, self.dilations());
        for axis in 0..3 {
            let padded = pixel[axis] * self.stride[axis] + tap[axis] * dilations[axis];
            let inside = padded.checked_sub(self.padding[axis])?;
            if inside >= self.input[axis] {
                return None;
            }
            at = at * self.input[axis] + inside;
        }
        Some(at)
    }
}

/// All places of a volume, last axis fastest.
fn places([frames, height, width]: [usize; 3]) -> Vec<[usize; 3]> {
    (0..frames * height * width)
        .map(|at| [at / (height * width), at / width % height, at % width])
        .collect()
}
