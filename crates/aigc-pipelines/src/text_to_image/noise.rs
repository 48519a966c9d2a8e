//! The noise of a batch of images.

use super::options::NoiseSource;
use aigc_core::rng::{Rng, TorchRng};
use burn::tensor::{Device, Tensor, TensorData};
use std::ops::Range;

/// Draws the noise of a batch, in the order in which it is needed: the posterior of an image to
/// start from, the start, each step.
pub trait NoiseStream {
    /// Standard normal noise of `shape`, `[batch, …]`.
    fn normal(&mut self, shape: [usize; 4], device: &Device) -> Tensor<4>;

    /// Noise for the latents of one image, from which all images of the batch start: of `shape`,
    /// `[batch, …]`, or `[1, …]` if they all start from the same.
    fn posterior(&mut self, shape: [usize; 4], device: &Device) -> Tensor<4> {
        self.normal(shape, device)
    }
}

/// The noise of these images of a request: as many as are denoised together.
///
/// # Panics
/// Its methods panic if there are no images.
pub fn noise_of_images(
    source: NoiseSource,
    seed: u64,
    images: Range<usize>,
) -> Box<dyn NoiseStream> {
    Box::new(ImageStreams::new(source, seed, images))
}

/// A stream for each image of a batch, or one for all.
pub(crate) struct ImageStreams {
    streams: Vec<Stream>,
    shared: bool,
}

enum Stream {
    Torch(TorchRng),
    Native(Box<Rng>),
}

impl Stream {
    fn normal(&mut self, numbers: usize) -> Vec<f32> {
        match self {
            Self::Torch(rng) => rng.normal_vec(numbers),
            Self::Native(rng) => rng.normal_vec(numbers),
        }
    }
}

impl ImageStreams {
    /// The streams of these images of a request.
    pub(crate) fn new(source: NoiseSource, seed: u64, images: Range<usize>) -> Self {
        let torch = |seed| Stream::Torch(TorchRng::new(seed));
        let streams = match source {
            NoiseSource::Torch => images.map(|k| torch(seed.wrapping_add(k as u64))).collect(),
            NoiseSource::TorchBatch => vec![torch(seed)],
            NoiseSource::Native => {
                let native = |k| Rng::stream(seed, "text_to_image", k as u64);
                images
                    .map(|k| Stream::Native(Box::new(native(k))))
                    .collect()
            }
        };
        let shared = source == NoiseSource::TorchBatch;
        Self { streams, shared }
    }
}

impl NoiseStream for ImageStreams {
    fn normal(&mut self, shape: [usize; 4], device: &Device) -> Tensor<4> {
        let numbers: usize = shape.iter().product();
        let each = numbers / self.streams.len();
        let drawn = self.streams.iter_mut().map(|stream| stream.normal(each));
        let values: Vec<f32> = drawn.flatten().collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    fn posterior(&mut self, shape: [usize; 4], device: &Device) -> Tensor<4> {
        let [_, channels, height, width] = shape;
        match self.shared {
            true => self.normal([1, channels, height, width], device),
            false => self.normal(shape, device),
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::values;

    fn draw(source: NoiseSource, images: Range<usize>) -> Vec<Vec<f32>> {
        let device = Device::flex();
        let mut streams = ImageStreams::new(source, 7, images.clone());
        let shape = [images.len(), 2, 3, 3];
        let both = [
            streams.posterior(shape, &device),
            streams.normal(shape, &device),
        ];
        let rows =
            |x: Tensor<4>| -> Vec<Vec<f32>> { values(x).chunks(18).map(<[f32]>::to_vec).collect() };
        both.map(rows).concat()
    }

    #[test]
    fn images_can_be_made_alone() {
        for source in [NoiseSource::Torch, NoiseSource::Native] {
            let three = draw(source, 0..3);
            let last = draw(source, 2..3);
            assert_eq!(last, [three[2].clone(), three[5].clone()]);
            assert_ne!(three[0], three[1]);
        }
    }

    #[test]
    fn one_generator_draws_for_all_images() {
        let both = draw(NoiseSource::TorchBatch, 0..2);
        assert_eq!(both.len(), 3);
        let mut rng = TorchRng::new(7);
        assert_eq!(both[0], rng.normal_vec(18));
        assert_eq!(
            [both[1].clone(), both[2].clone()].concat(),
            rng.normal_vec(36)
        );
    }
}
