//! Changes of size and of the number of frames.

use super::{
    super::{into_batch, out_of_batch},
    cache::{Cache, causal},
};
use aigc_core::{
    nn::{Conv2d, Conv2dConfig, Conv3d, Conv3dConfig, Dropout, DropoutConfig},
    ops,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// Doubles or halves the sides of frames, and perhaps their number.
#[derive(Module, Debug)]
pub(super) struct Resample {
    /// The first one stands for the repetition or padding before the convolution, so that the
    /// places of the weights are those in files.
    resample: (Dropout, Conv2d),
    time_conv: Option<Conv3d>,
    up: bool,
}

impl Resample {
    /// Doubles sides; with `temporal` also frames, but the first one.
    pub(super) fn up([from, to]: [usize; 2], temporal: bool, device: &Device) -> Self {
        let conv = Conv2dConfig::new([from, to], 3).with_padding(1);
        let time_conv = || Conv3dConfig::new([from, 2 * from], [3, 1, 1]).init(device);
        Self {
            resample: (DropoutConfig::new(0.0).init(), conv.init(device)),
            time_conv: temporal.then(time_conv),
            up: true,
        }
    }

    /// Halves sides; with `temporal` also frames, but the first one.
    pub(super) fn down(channels: usize, temporal: bool, device: &Device) -> Self {
        let conv = Conv2dConfig::new([channels, channels], 3).with_stride(2);
        let time_conv = || {
            Conv3dConfig::new([channels, channels], [3, 1, 1])
                .with_stride([2, 1, 1])
                .init(device)
        };
        Self {
            resample: (DropoutConfig::new(0.0).init(), conv.init(device)),
            time_conv: temporal.then(time_conv),
            up: false,
        }
    }

    /// # Shapes
    /// - x: `[batch, channels, frames, height, width]`; after the first chunk an even number of
    ///   frames, if it is halved
    pub(super) fn forward(&self, x: Tensor<5>, cache: &mut Cache) -> Tensor<5> {
        match (self.up, &self.time_conv) {
            (true, None) => self.sides(x),
            (true, Some(conv)) => self.sides(doubled(conv, x, cache)),
            (false, None) => self.sides(x),
            (false, Some(conv)) => halved(conv, self.sides(x), cache),
        }
    }

    /// Each frame alone.
    fn sides(&self, x: Tensor<5>) -> Tensor<5> {
        let frames = x.dims()[2];
        let x = into_batch(x);
        let x = match self.up {
            true => ops::upsample_nearest2d(x, 2),
            // A row and a column of zeros after the last ones.
            false => x.pad((0, 1, 0, 1), 0.0),
        };
        out_of_batch(self.resample.1.forward(x), frames)
    }
}

/// Two frames for each, out of twice the channels. The first frame of a video stays one, and those
/// after it do not see it.
fn doubled(conv: &Conv3d, x: Tensor<5>, cache: &mut Cache) -> Tensor<5> {
    if cache.is_first() {
        cache.slot();
        return x;
    }
    let [batch, channels, frames, height, width] = x.dims();
    causal(conv, x, cache)
        .reshape([batch, 2, channels, frames, height, width])
        .permute([0, 2, 3, 1, 4, 5])
        .reshape([batch, channels, 2 * frames, height, width])
}

/// One frame for two, which also sees the frame before. The first frame of a video stays as it is.
fn halved(conv: &Conv3d, x: Tensor<5>, cache: &mut Cache) -> Tensor<5> {
    let last = x.clone().narrow(2, x.dims()[2] - 1, 1);
    match cache.slot().replace(last) {
        Some(before) => conv.forward(Tensor::cat(vec![before, x], 2)),
        None => x,
    }
}

/// Means of groups of channels and of pixels, as the skip around the blocks of a size.
///
/// # Shapes
/// - x: `[batch, channels, frames, height, width]`
/// - output: `[batch, outputs, frames / factors[0], height / factors[1], width / factors[1]]`;
///   where the number of frames is no multiple, zeros come before them
pub(super) fn averaged(x: Tensor<5>, outputs: usize, [time, side]: [usize; 2]) -> Tensor<5> {
    let [batch, channels, frames, height, width] = x.dims();
    let missing = frames.next_multiple_of(time) - frames;
    let x = match missing {
        0 => x,
        _ => {
            let shape = [batch, channels, missing, height, width];
            let zeros = Tensor::<5>::zeros(shape, (&x.device(), x.dtype()));
            Tensor::cat(vec![zeros, x], 2)
        }
    };
    let (frames, height, width) = ((frames + missing) / time, height / side, width / side);
    let group = channels * time * side * side / outputs;
    x.reshape([batch, channels, frames, time, height, side, width, side])
        .permute([0, 1, 3, 5, 7, 2, 4, 6])
        .reshape([batch, outputs, group, frames * height * width])
        .mean_dim(2)
        .reshape([batch, outputs, frames, height, width])
}

/// Repeated channels as pixels and frames, as the skip around the blocks of a size.
///
/// # Shapes
/// - x: `[batch, channels, frames, height, width]`
/// - output: `[batch, outputs, frames·factors[0], height·factors[1], width·factors[1]]`; of the
///   first frame of a video, the last one alone
pub(super) fn repeated(
    x: Tensor<5>,
    outputs: usize,
    [time, side]: [usize; 2],
    first: bool,
) -> Tensor<5> {
    let [batch, channels, frames, height, width] = x.dims();
    let repeats = outputs * time * side * side / channels;
    let size = frames * height * width;
    let x = x
        .reshape([batch, channels, 1, size])
        .repeat_dim(2, repeats)
        .reshape([batch, outputs, time, side, side, frames, height, width])
        .permute([0, 1, 5, 2, 6, 3, 7, 4])
        .reshape([batch, outputs, frames * time, height * side, width * side]);
    match first {
        true => x.narrow(2, time - 1, frames * time - (time - 1)),
        false => x,
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
    };

    /// What is repeated has the mean that it came from.
    #[test]
    fn means_undo_repetition() {
        let device = Device::flex();
        let x: Tensor<5> = Rng::new(1).normal([2, 4, 3, 2, 2], &device);
        let larger = repeated(x.clone(), 2, [2, 2], false);
        assert_eq!(larger.dims(), [2, 2, 6, 4, 4]);
        let back = averaged(larger.clone(), 4, [2, 2]);
        assert_close(&values(back), &values(x.clone()), 1e-6);
        let first = repeated(x, 2, [2, 2], true);
        assert_eq!(values(first), values(larger.narrow(2, 1, 5)));
    }

    /// Zeros stand before a single frame.
    #[test]
    fn the_mean_of_one_frame_is_with_zeros() {
        let device = Device::flex();
        let x = Tensor::<5>::ones([1, 2, 1, 2, 2], &device);
        let found = values(averaged(x.clone(), 2, [2, 2]));
        assert_close(&found, &[0.5, 0.5], 1e-6);
        let found = values(averaged(x, 4, [2, 2]));
        // Frames are the first of what a channel is divided into.
        assert_close(&found, &[0.0, 1.0, 0.0, 1.0], 1e-6);
    }

    /// The number of frames after the first is doubled and halved.
    #[test]
    fn the_first_frame_stays_one() {
        let device = Device::flex();
        let up = Resample::up([4, 2], true, &device).init_weights(1);
        let down = Resample::down(4, true, &device).init_weights(2);
        let (mut ups, mut downs) = (Cache::default(), Cache::default());
        for (frames, doubled, halved) in [(1, 1, 1), (2, 4, 1), (4, 8, 2)] {
            let x: Tensor<5> = Rng::new(3).normal([1, 4, frames, 6, 4], &device);
            ups.begin_chunk();
            downs.begin_chunk();
            let larger = up.forward(x.clone(), &mut ups);
            assert_eq!(larger.dims(), [1, 2, doubled, 12, 8]);
            let smaller = down.forward(x, &mut downs);
            assert_eq!(smaller.dims(), [1, 4, halved, 3, 2]);
        }
    }
}
