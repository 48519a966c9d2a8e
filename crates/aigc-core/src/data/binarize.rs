//! Black and white images: by a threshold, or drawn with each pixel as a probability.

use super::{Dataset, Image};
use crate::{Result, rng::Rng};
use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// How grey images become black and white. The likelihood of binary images is that of a Bernoulli
/// distribution without further assumptions, so results on MNIST are usually reported for them
/// (Salakhutdinov and Murray 2008; Burda et al. 2016, <https://arxiv.org/abs/1509.00519>, §5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binarize {
    /// The images stay grey.
    #[default]
    None,
    /// Pixels of 0.5 or more become white.
    Threshold,
    /// Each pixel becomes white with a probability of its value, drawn once for each image.
    Fixed,
    /// Each pixel becomes white with a probability of its value, drawn anew in every training
    /// epoch. Outside training, the draws are those of [`Fixed`](Self::Fixed).
    Dynamic,
}

impl Binarize {
    /// Binarises a batch of consecutive images of a data set, of which `first` is the index of the
    /// first. The pixels are those of [`Binarized`] outside training, with the same seed.
    ///
    /// # Shapes
    /// - x and output: `[batch, …]`; x in `[0, 1]`, the output 0 or 1
    pub fn apply<const D: usize>(self, x: Tensor<D>, first: usize, seed: u64) -> Tensor<D> {
        match self {
            Binarize::None => x,
            Binarize::Threshold => x.greater_equal_elem(0.5).float(),
            Binarize::Fixed | Binarize::Dynamic => {
                let (dims, device) = (x.dims(), x.device());
                let values: usize = dims[1..].iter().product();
                let mut draws = Vec::with_capacity(dims[0] * values);
                for index in first..first + dims[0] {
                    draws.extend(self.draws(seed, None, index, values));
                }
                let draws: Tensor<D> = Tensor::from_data(TensorData::new(draws, dims), &device);
                draws.lower(x).float()
            }
        }
    }

    /// Numbers in `[0, 1)` for the pixels of an image, which are white if they exceed them.
    fn draws(self, seed: u64, epoch: Option<usize>, index: usize, n: usize) -> Vec<f32> {
        let purpose = match (self, epoch) {
            (Binarize::Dynamic, Some(epoch)) => format!("binarize/{epoch}"),
            _ => "binarize".to_string(),
        };
        Rng::stream(seed, &purpose, index as u64).uniform_vec(n, 0.0, 1.0)
    }

    fn image(self, mut image: Image, seed: u64, epoch: Option<usize>, index: usize) -> Image {
        // The division is that of the loaded images, so that both round in the same way.
        let value = |pixel: u8| f32::from(pixel) / 255.0;
        let binary = |white: bool| if white { 255 } else { 0 };
        match self {
            Binarize::None => {}
            Binarize::Threshold => {
                for pixel in &mut image.pixels {
                    *pixel = binary(value(*pixel) >= 0.5);
                }
            }
            Binarize::Fixed | Binarize::Dynamic => {
                let draws = self.draws(seed, epoch, index, image.pixels.len());
                for (pixel, draw) in image.pixels.iter_mut().zip(draws) {
                    *pixel = binary(draw < value(*pixel));
                }
            }
        }
        image
    }
}

/// A data set whose images are binarised when they are read. Draws follow from the seed, the epoch
/// and the index of the image, not from the order of reading: a resumed run reads the same images.
///
/// ```
/// use aigc_core::data::{
///     Binarize, Binarized, DataLoader, DataLoaderConfig, collate_images, digits,
/// };
///
/// # fn main() -> aigc_core::Result<()> {
/// let (train, _) = digits::train_test_split();
/// let train = Binarized::new(train, Binarize::Dynamic, 0);
/// let loader = DataLoader::new(train, collate_images, DataLoaderConfig::default())?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Binarized<D> {
    dataset: D,
    binarize: Binarize,
    seed: u64,
}

impl<D: Dataset<Item = Image>> Binarized<D> {
    /// The images of `dataset`, binarised by `binarize` with draws of this seed.
    pub fn new(dataset: D, binarize: Binarize, seed: u64) -> Self {
        Self {
            dataset,
            binarize,
            seed,
        }
    }
}

impl<D: Dataset<Item = Image>> Dataset for Binarized<D> {
    type Item = Image;

    fn len(&self) -> usize {
        self.dataset.len()
    }

    fn get(&self, index: usize) -> Result<Image> {
        let image = self.dataset.get(index)?;
        Ok(self.binarize.image(image, self.seed, None, index))
    }

    fn get_in_epoch(&self, index: usize, epoch: usize) -> Result<Image> {
        let image = self.dataset.get_in_epoch(index, epoch)?;
        Ok(self.binarize.image(image, self.seed, Some(epoch), index))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::data::{DataLoader, DataLoaderConfig, ImageShape, InMemory, collate_images};
    use burn::tensor::Device;

    const SHAPE: ImageShape = ImageShape::new(1, 40, 50);

    /// Images of one grey level each.
    fn grey(levels: &[u8]) -> InMemory<Image> {
        let image = |level: &u8| Image {
            shape: SHAPE,
            pixels: vec![*level; SHAPE.numel()],
            label: Some(u32::from(*level)),
        };
        InMemory(levels.iter().map(image).collect())
    }

    fn white(image: &Image) -> usize {
        assert!(image.pixels.iter().all(|pixel| [0, 255].contains(pixel)));
        image.pixels.iter().filter(|pixel| **pixel == 255).count()
    }

    #[test]
    fn pixels_are_white_as_often_as_their_value() {
        let levels = [0, 51, 127, 128, 230, 255];
        for binarize in [Binarize::Fixed, Binarize::Dynamic] {
            let images = Binarized::new(grey(&levels), binarize, 7);
            for (index, level) in levels.iter().enumerate() {
                let image = images.get_in_epoch(index, 3).unwrap();
                assert_eq!(image.label, Some(u32::from(*level)));
                let (n, p) = (SHAPE.numel() as f64, f64::from(*level) / 255.0);
                let difference = white(&image) as f64 - n * p;
                let deviation = (n * p * (1.0 - p)).sqrt();
                assert!(difference.abs() <= 5.0 * deviation, "{level}: {difference}");
            }
        }
        let images = Binarized::new(grey(&levels), Binarize::Threshold, 7);
        let counts: Vec<usize> = (0..6).map(|i| white(&images.get(i).unwrap())).collect();
        assert_eq!(counts, [0, 0, 0, 2000, 2000, 2000]);
        let images = Binarized::new(grey(&levels), Binarize::None, 7);
        assert_eq!(images.get(1).unwrap().pixels, vec![51; 2000]);
    }

    #[test]
    fn draws_depend_on_seed_index_and_for_dynamic_on_epoch() {
        let pixels = |binarize, seed, index, epoch: Option<usize>| {
            let images = Binarized::new(grey(&[128, 128]), binarize, seed);
            match epoch {
                Some(epoch) => images.get_in_epoch(index, epoch).unwrap().pixels,
                None => images.get(index).unwrap().pixels,
            }
        };
        let one = pixels(Binarize::Fixed, 7, 0, None);
        assert_eq!(one, pixels(Binarize::Fixed, 7, 0, Some(4)));
        assert_eq!(one, pixels(Binarize::Dynamic, 7, 0, None));
        assert_ne!(one, pixels(Binarize::Fixed, 8, 0, None));
        assert_ne!(one, pixels(Binarize::Fixed, 7, 1, None));
        let first = pixels(Binarize::Dynamic, 7, 0, Some(0));
        assert_eq!(first, pixels(Binarize::Dynamic, 7, 0, Some(0)));
        assert_ne!(first, pixels(Binarize::Dynamic, 7, 0, Some(1)));
        assert_ne!(first, one);
    }

    /// A loader that starts at a later batch, as in a resumed run, returns the same batches.
    #[test]
    fn dynamic_batches_are_the_same_in_a_resumed_run() {
        let device = Device::flex();
        let batches = |from: usize, to: usize, num_workers: usize| {
            let config = DataLoaderConfig {
                batch_size: 2,
                num_workers,
                ..DataLoaderConfig::default()
            };
            let images = Binarized::new(grey(&[40, 90, 140, 190, 240]), Binarize::Dynamic, 3);
            let loader = DataLoader::new(images, collate_images, config).unwrap();
            let mut batches = loader.iter_from(from);
            let batch = |_| batches.next_batch().unwrap().to_tensor(&device).into_data();
            (from..to).map(batch).collect::<Vec<_>>()
        };
        let all = batches(0, 6, 0);
        assert_eq!(batches(3, 6, 2)[..], all[3..]);
    }

    #[test]
    fn tensors_get_the_draws_of_the_data_set() {
        let device = Device::flex();
        let levels = [40, 90, 140, 190, 240];
        for binarize in [Binarize::Threshold, Binarize::Fixed, Binarize::Dynamic] {
            let read = |images: &dyn Dataset<Item = Image>| {
                let images = (2..5).map(|index| images.get(index).unwrap()).collect();
                collate_images(images).to_tensor(&device)
            };
            let expected = read(&Binarized::new(grey(&levels), binarize, 7));
            let found = binarize.apply(read(&grey(&levels)), 2, 7);
            assert_eq!(found.into_data(), expected.into_data(), "{binarize:?}");
        }
    }
}
