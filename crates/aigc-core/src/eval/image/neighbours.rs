//! Nearest neighbours among known images.

use crate::{
    Error, Result,
    data::{Image, ImageBatch, ImageShape, collate_images},
    eval::{Classifier, ClassifierOutput},
};
use burn::tensor::{Device, Tensor, TensorData};

/// Values of distances and of differences that are in memory at once: 16 MiB.
const BLOCK: usize = 1 << 22;

/// Images beyond the `k` nearest whose distances are computed as well.
const SPARE: usize = 8;

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

    /// A search among the first images of batches, at most `most` of them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `most` is 0, there are no images or their shapes differ;
    /// errors of the batches.
    pub fn from_batches(
        batches: impl IntoIterator<Item = Result<ImageBatch>>,
        most: usize,
        device: &Device,
    ) -> Result<Self> {
        if most == 0 {
            return Err(Error::argument("most", most, "at least 1"));
        }
        let mut parts: Vec<Self> = Vec::new();
        let mut count = 0;
        for batch in batches {
            let mut part = Self::from_batch(&batch?, device)?;
            if let Some(first) = parts.first().filter(|first| first.shape != part.shape) {
                return Err(Error::argument(
                    "images",
                    part.shape,
                    format!("{}, like the first", first.shape),
                ));
            }
            let rows = part.known.dims()[0];
            let taken = rows.min(most - count);
            if taken < rows {
                part.known = part.known.narrow(0, 0, taken);
                part.halves = part.halves.narrow(0, 0, taken);
                if let Some(labels) = &mut part.labels {
                    labels.truncate(taken);
                }
            }
            count += taken;
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
    /// distances between values in `[0, 1]`. Images are compared some at a time, in bounded memory.
    ///
    /// # Shapes
    /// - images: `[batch, channels, height, width]` in `[0, 1]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the images have another shape or values that are not finite,
    /// or `k` is 0 or exceeds the number of known images.
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
        // Products of 32 bits may put images in the wrong order that are nearly as far.
        let candidates = (k + SPARE).min(known);
        let values = known.max(candidates * self.shape.numel()).max(1);
        let most = (BLOCK / values).max(1);
        let mut found = Vec::with_capacity(x.dims()[0]);
        for first in (0..x.dims()[0]).step_by(most) {
            let part = x.clone().narrow(0, first, most.min(x.dims()[0] - first));
            self.search(part, candidates, &mut found)?;
        }
        for near in &mut found {
            near.truncate(k);
        }
        Ok(found)
    }

    /// Appends the known images that are nearest to each row, nearest first.
    fn search(&self, x: Tensor<2>, k: usize, found: &mut Vec<Vec<(usize, f64)>>) -> Result<()> {
        let known = self.known.dims()[0];
        let closeness: Vec<f32> = self
            .closeness(x.clone())
            .into_data()
            .iter::<f32>()
            .collect();
        if let Some(value) = closeness.iter().find(|value| !value.is_finite()) {
            let value = format!("values with a product of {value}");
            return Err(Error::argument("images", value, "finite values in [0, 1]"));
        }
        let order = |row: &[f32]| {
            let mut order: Vec<usize> = (0..known).collect();
            let by_closeness = |a: &usize, b: &usize| row[*b].total_cmp(&row[*a]);
            if k < known {
                order.select_nth_unstable_by(k, by_closeness);
                order.truncate(k);
            }
            order
        };
        let nearest: Vec<Vec<usize>> = closeness.chunks_exact(known).map(order).collect();
        // Distances are computed again from the values: a difference of large squares would hide an
        // exact copy.
        let indices: Vec<i32> = nearest
            .iter()
            .flatten()
            .map(|index| *index as i32)
            .collect();
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
        for (indices, distances) in nearest.into_iter().zip(distances.chunks_exact(k)) {
            let mut near: Vec<(usize, f64)> =
                indices.into_iter().zip(distances.iter().copied()).collect();
            near.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
            found.push(near);
        }
        Ok(())
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
mod tests;
