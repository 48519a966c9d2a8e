//! Nearest neighbours among known images.

use crate::{
    Error, Result,
    data::{Image, ImageBatch, ImageShape, collate_images},
    eval::{Classifier, ClassifierOutput},
};
use burn::tensor::{Device, Tensor, TensorData};

/// Nearest neighbours in pixel space among known images. They show which training images samples
/// resemble and, if the known images have classes, classify samples. Copies that are shifted,
/// flipped or re-encoded are found by [`CopyDetector`](crate::eval::CopyDetector).
#[derive(Clone, Debug)]
pub struct NearestNeighbors {
    /// Values of the images, `[images, values]` in `[0, 1]`.
    known: Tensor<2>,
    /// Half the squared norm of each image, `[images]`.
    halves: Tensor<1>,
    labels: Option<Vec<u32>>,
    shape: ImageShape,
}

impl NearestNeighbors {
    /// A search among `images`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are none, or their shapes differ.
    pub fn new(images: &[Image], device: &Device) -> Result<Self> {
        let Some(first) = images.first() else {
            return Err(Error::argument("images", 0, "at least 1"));
        };
        let shape = first.shape;
        if let Some(other) = images
            .iter()
            .find(|image| image.shape != shape || image.pixels.len() != shape.numel())
        {
            return Err(Error::argument(
                "images",
                other.shape,
                format!("{shape}, like the first"),
            ));
        }
        Self::from_batch(&collate_images(images.to_vec()), device)
    }

    /// A search among the images of a batch. A data set larger than memory can be searched batch by
    /// batch.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are none.
    pub fn from_batch(batch: &ImageBatch, device: &Device) -> Result<Self> {
        if batch.is_empty() {
            return Err(Error::argument("images", 0, "at least 1"));
        }
        let known = batch.to_tensor(device).flatten::<2>(1, 3);
        let halves = (known.clone() * known.clone())
            .sum_dim(1)
            .squeeze_dim::<1>(1)
            * 0.5;
        Ok(Self {
            known,
            halves,
            labels: batch.labels().map(<[u32]>::to_vec),
            shape: batch.shape(),
        })
    }

    /// A search among the images of batches, at most `most` of them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no images or their shapes differ; errors of the
    /// batches.
    pub fn from_batches(
        batches: impl IntoIterator<Item = Result<ImageBatch>>,
        most: usize,
        device: &Device,
    ) -> Result<Self> {
        let mut parts: Vec<Self> = Vec::new();
        let mut count = 0;
        for batch in batches {
            let part = Self::from_batch(&batch?, device)?;
            if let Some(first) = parts.first().filter(|first| first.shape != part.shape) {
                return Err(Error::argument(
                    "images",
                    part.shape,
                    format!("{}, like the first", first.shape),
                ));
            }
            count += part.known.dims()[0];
            parts.push(part);
            if count >= most {
                break;
            }
        }
        let Some(shape) = parts.first().map(|part| part.shape) else {
            return Err(Error::argument("images", 0, "at least 1"));
        };
        Ok(Self {
            known: Tensor::cat(parts.iter().map(|part| part.known.clone()).collect(), 0),
            halves: Tensor::cat(parts.iter().map(|part| part.halves.clone()).collect(), 0),
            labels: parts
                .into_iter()
                .map(|part| part.labels)
                .collect::<Option<Vec<_>>>()
                .map(|labels| labels.concat()),
            shape,
        })
    }

    /// Shape of the known images.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// One more than the largest class; `None` if a known image has no class.
    pub fn num_classes(&self) -> Option<usize> {
        self.labels
            .as_ref()
            .and_then(|labels| labels.iter().max())
            .map(|most| *most as usize + 1)
    }

    /// The `k` nearest known images for each of `images`, nearest first: indices, and Euclidean
    /// distances between values in `[0, 1]`.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]` in `[0, 1]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the images have another shape, or `k` exceeds the number of
    /// known images.
    pub fn kneighbors(&self, images: &Tensor<4>, k: usize) -> Result<Vec<Vec<(usize, f64)>>> {
        let [_, channels, height, width] = images.dims();
        let shape = ImageShape::new(channels, height, width);
        if shape != self.shape {
            return Err(Error::argument(
                "images",
                shape,
                format!("{}, like the known ones", self.shape),
            ));
        }
        let known = self.known.dims()[0];
        if k == 0 || k > known {
            return Err(Error::argument(
                "k",
                k,
                format!("1 to {known}, the number of known images"),
            ));
        }
        let x = images.clone().flatten::<2>(1, 3);
        let closeness: Vec<f32> = self
            .closeness(x.clone())
            .into_data()
            .iter::<f32>()
            .collect();
        let order = |row: &[f32]| {
            let mut order: Vec<usize> = (0..known).collect();
            let by_closeness = |a: &usize, b: &usize| row[*b].total_cmp(&row[*a]);
            if k < known {
                order.select_nth_unstable_by(k, by_closeness);
                order.truncate(k);
            }
            order
        };
        let found: Vec<Vec<usize>> = closeness.chunks_exact(known).map(order).collect();
        // Distances are computed again from the values: a difference of large squares would hide an
        // exact copy.
        let indices: Vec<i32> = found.iter().flatten().map(|index| *index as i32).collect();
        let count = indices.len();
        let indices = Tensor::from_data(TensorData::new(indices, [count]), &self.known.device());
        let rows: Vec<i32> = (0..count).map(|i| (i / k) as i32).collect();
        let rows = Tensor::from_data(TensorData::new(rows, [count]), &x.device());
        let difference = self.known.clone().select(0, indices) - x.select(0, rows);
        let distances: Vec<f64> = (difference.clone() * difference)
            .sum_dim(1)
            .sqrt()
            .into_data()
            .iter::<f64>()
            .collect();
        let with_distance = |(found, distances): (Vec<usize>, &[f64])| {
            let mut near: Vec<(usize, f64)> =
                found.into_iter().zip(distances.iter().copied()).collect();
            near.sort_by(|a, b| a.1.total_cmp(&b.1));
            near
        };
        Ok(found
            .into_iter()
            .zip(distances.chunks_exact(k))
            .map(with_distance)
            .collect())
    }

    /// The nearest known image of each image, to be shown beside it.
    ///
    /// # Shapes
    /// - images and output: `[batch, channels, height, width]` in `[0, 1]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the images have another shape.
    pub fn nearest_images(&self, images: &Tensor<4>) -> Result<Tensor<4>> {
        let indices: Vec<i32> = self
            .kneighbors(images, 1)?
            .iter()
            .map(|near| near[0].0 as i32)
            .collect();
        let count = indices.len();
        let indices = Tensor::from_data(TensorData::new(indices, [count]), &self.known.device());
        Ok(self.known.clone().select(0, indices).reshape(images.dims()))
    }

    /// `⟨x, y⟩ − ½‖y‖²`, `[batch, known]`: larger is nearer.
    fn closeness(&self, x: Tensor<2>) -> Tensor<2> {
        x.matmul(self.known.clone().transpose()) - self.halves.clone().unsqueeze()
    }
}

impl Classifier for NearestNeighbors {
    /// Predicts the class of the nearest known image; the features are the pixels.
    ///
    /// # Panics
    /// If the known images have no classes, or the images have another shape.
    fn classify(&self, images: Tensor<4>) -> ClassifierOutput {
        let labels = self
            .labels
            .as_ref()
            .expect("a classifier needs images with classes");
        let near = self
            .kneighbors(&images, 1)
            .expect("images of the known shape");
        let classes = self.num_classes().expect("some image is known");
        let mut scores = vec![0.0f32; near.len() * classes];
        for (row, near) in scores.chunks_exact_mut(classes).zip(&near) {
            row[labels[near[0].0] as usize] = 1.0;
        }
        let scores = TensorData::new(scores, [near.len(), classes]);
        ClassifierOutput {
            features: images.flatten(1, 3),
            logits: Tensor::from_data(scores, &self.known.device()),
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::data::{Dataset, digits};

    #[test]
    fn neighbours_match_plain_search() {
        let device = Device::flex();
        let (train, held_out) = digits::train_test_split();
        let neighbours = NearestNeighbors::new(&train.0, &device).unwrap();
        let batch = collate_images(held_out.0[..20].to_vec());
        let got = neighbours.kneighbors(&batch.to_tensor(&device), 3).unwrap();
        for (image, near) in held_out.0.iter().zip(&got) {
            let distance = |other: &Image| {
                let pairs = image.pixels.iter().zip(&other.pixels);
                pairs
                    .map(|(a, b)| ((f64::from(*a) - f64::from(*b)) / 255.0).powi(2))
                    .sum::<f64>()
                    .sqrt()
            };
            let mut all: Vec<f64> = train.0.iter().map(distance).collect();
            for (index, found) in near {
                assert!((distance(&train.0[*index]) - found).abs() < 1e-3);
            }
            all.sort_by(f64::total_cmp);
            assert!(
                near.iter()
                    .zip(&all)
                    .all(|((_, found), known)| (found - known).abs() < 1e-3)
            );
        }
    }

    #[test]
    fn copies_have_zero_distance() {
        let device = Device::flex();
        let images = digits::train_test_split().0.0;
        let neighbours = NearestNeighbors::new(&images, &device).unwrap();
        let copies = collate_images(images[30..40].to_vec()).to_tensor(&device);
        for (offset, near) in neighbours
            .kneighbors(&copies, 2)
            .unwrap()
            .into_iter()
            .enumerate()
        {
            assert_eq!(near[0], (30 + offset, 0.0));
            assert!(near[1].1 > 0.1);
        }
    }

    /// Nearest-neighbour classification of these digits is 98 to 99 % accurate in the literature.
    #[test]
    fn nearest_neighbour_classifies_digits() {
        let device = Device::flex();
        let (train, held_out) = digits::train_test_split();
        let neighbours = NearestNeighbors::new(&train.0, &device).unwrap();
        let batch = collate_images(held_out.0.clone());
        let classes = neighbours.classify(batch.to_tensor(&device)).predictions();
        let right = classes
            .iter()
            .zip(batch.labels().unwrap())
            .filter(|(a, b)| a == b)
            .count();
        assert!(right as f64 >= 0.97 * held_out.len() as f64, "{right}");
    }

    #[test]
    fn shape_and_k_mismatch_are_errors() {
        let device = Device::flex();
        assert!(NearestNeighbors::new(&[], &device).is_err());
        let neighbours =
            NearestNeighbors::new(&digits::train_test_split().0.0[..5], &device).unwrap();
        assert!(
            neighbours
                .kneighbors(&Tensor::zeros([1, 1, 7, 8], &device), 1)
                .is_err()
        );
        let error = neighbours
            .kneighbors(&Tensor::zeros([1, 1, 8, 8], &device), 6)
            .unwrap_err()
            .to_string();
        assert!(error.contains("`k` is 6, expected 1 to 5"), "{error}");
    }
}
