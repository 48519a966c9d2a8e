//! Frames that layers keep between chunks of a video.

use aigc_core::nn::Conv3d;
use burn::tensor::Tensor;

/// What each layer over time keeps of the frames before a chunk, in the order in which they are
/// computed. A chunk needs no more than that of all frames before it.
#[derive(Debug, Default)]
pub(super) struct Cache {
    slots: Vec<Option<Tensor<5>>>,
    next: usize,
    chunks: usize,
}

impl Cache {
    /// Begins a chunk. The first one has to be the first frame alone.
    pub(super) fn begin_chunk(&mut self) {
        self.next = 0;
        self.chunks += 1;
    }

    /// Whether the chunk is the first frame.
    pub(super) fn is_first(&self) -> bool {
        self.chunks == 1
    }

    /// The frames that the next layer kept of earlier chunks.
    pub(super) fn slot(&mut self) -> &mut Option<Tensor<5>> {
        if self.next == self.slots.len() {
            self.slots.push(None);
        }
        self.next += 1;
        &mut self.slots[self.next - 1]
    }
}

/// A convolution whose frames see no later ones: the frames before a chunk come out of the cache,
/// and those before the video are zeros. `conv` has no padding along frames.
///
/// # Shapes
/// - x: `[batch, channels, frames, height, width]`
/// - output: as many frames
pub(super) fn causal(conv: &Conv3d, x: Tensor<5>, cache: &mut Cache) -> Tensor<5> {
    let before = conv.weight.val().dims()[2] - 1;
    if before == 0 {
        return conv.forward(x);
    }
    let [batch, channels, frames, height, width] = x.dims();
    let slot = cache.slot();
    let past = slot.take().unwrap_or_else(|| {
        let shape = [batch, channels, before, height, width];
        Tensor::zeros(shape, (&x.device(), x.dtype()))
    });
    let x = Tensor::cat(vec![past, x], 2);
    *slot = Some(x.clone().narrow(2, frames, before));
    conv.forward(x)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        nn::Conv3dConfig,
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
    };
    use burn::tensor::Device;

    /// Chunks of any length are the convolution of all frames after zeros.
    #[test]
    fn chunks_continue_each_other() {
        let device = Device::flex();
        let config = Conv3dConfig::new([2, 3], [3, 3, 3]).with_padding([0, 1, 1]);
        let conv = config.init(&device).init_weights(1);
        let x: Tensor<5> = Rng::new(2).normal([2, 2, 6, 4, 3], &device);
        let zeros = Tensor::<5>::zeros([2, 2, 2, 4, 3], &device);
        let whole = conv.forward(Tensor::cat(vec![zeros, x.clone()], 2));
        for lengths in [vec![6], vec![1, 1, 4], vec![1, 2, 3], vec![1; 6]] {
            let (mut cache, mut start, mut parts) = (Cache::default(), 0, vec![]);
            for length in lengths {
                cache.begin_chunk();
                let part = x.clone().narrow(2, start, length);
                parts.push(causal(&conv, part, &mut cache));
                start += length;
            }
            let found = Tensor::cat(parts, 2);
            assert_close(&values(found), &values(whole.clone()), 1e-5);
        }
    }
}
