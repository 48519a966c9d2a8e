//! Search for the nearest training images over all alignments.

use super::{
    CopyDetectorConfig,
    windows::{Alignment, Windows, normalize},
};
use crate::{
    Error, Result,
    data::{ImageBatch, ImageShape},
    eval::features::pairwise::squared_distance,
};
use burn::tensor::{Device, Tensor, TensorData};

/// Training images per matrix of averages.
const BLOCK: usize = 8192;

/// Windows that are searched for at once: those of at least one sample.
const WINDOWS: usize = 1024;

/// Training images: centers to compare with, and averages to find candidates by.
#[derive(Clone, Debug)]
pub(super) struct ImageIndex {
    windows: Windows,
    /// Values of the centers, one byte each.
    centers: Vec<u8>,
    /// Averages of up to [`BLOCK`] centers each, `[images, cells + 1]`; the last column is half the
    /// negative squared norm.
    blocks: Vec<Tensor<2>>,
    candidates: usize,
    device: Device,
}

/// The nearest training images of a sample.
pub(super) struct Nearest {
    /// The nearest one.
    pub(super) index: usize,
    /// Its motion.
    pub(super) alignment: Alignment,
    /// Distances to the nearest ones, in increasing order.
    pub(super) distances: Vec<f64>,
}

impl ImageIndex {
    /// Reads the training images.
    pub(super) fn build(
        batches: impl IntoIterator<Item = Result<ImageBatch>>,
        config: &CopyDetectorConfig,
        device: &Device,
    ) -> Result<Self> {
        let mut index: Option<Self> = None;
        let mut pending = Vec::new();
        for batch in batches {
            let batch = batch?;
            if batch.is_empty() {
                continue;
            }
            let index = match &mut index {
                Some(index) => index,
                None => index.insert(Self::empty(batch.shape(), config, device)?),
            };
            let values = index.values("train", &batch.to_tensor(device))?;
            for image in values.chunks_exact(index.windows.shape.numel()) {
                index.push(image, &mut pending);
            }
        }
        let count = index.as_ref().map_or(0, Self::len);
        match index {
            Some(mut index) if count >= config.k => {
                index.upload(&mut pending);
                Ok(index)
            }
            _ => Err(Error::argument(
                "train",
                format!("{count} images"),
                format!("at least {}, to compare distances with", config.k),
            )),
        }
    }

    fn empty(shape: ImageShape, config: &CopyDetectorConfig, device: &Device) -> Result<Self> {
        let least = 2 * config.max_shift + 4;
        if shape.channels == 0 || shape.height < least || shape.width < least {
            return Err(Error::argument(
                "train",
                format!("images of {shape}"),
                format!(
                    "at least {least}×{least} pixels for shifts by {}",
                    config.max_shift
                ),
            ));
        }
        Ok(Self {
            windows: Windows::new(shape, config.max_shift, config.flips),
            centers: Vec::new(),
            blocks: Vec::new(),
            candidates: config.candidates,
            device: device.clone(),
        })
    }

    /// Number of training images.
    pub(super) fn len(&self) -> usize {
        self.centers.len() / self.windows.len()
    }

    /// Shape of the training images.
    pub(super) fn shape(&self) -> ImageShape {
        self.windows.shape
    }

    /// Appends an image; its averages are collected in `pending`.
    fn push(&mut self, image: &[f32], pending: &mut Vec<f32>) {
        let mut center = Vec::with_capacity(self.windows.len());
        self.windows
            .extract(image, Alignment::default(), &mut center);
        let byte = |value: &f32| (value.clamp(0.0, 1.0) * 255.0).round() as u8;
        self.centers.extend(center.iter().map(byte));
        let start = pending.len();
        self.windows.average(&center, pending);
        normalize(&mut pending[start..]);
        let squared: f32 = pending[start..].iter().map(|v| v * v).sum();
        pending.push(-0.5 * squared);
        if pending.len() == BLOCK * (self.windows.num_cells() + 1) {
            self.upload(pending);
        }
    }

    /// Moves collected averages to the device.
    fn upload(&mut self, pending: &mut Vec<f32>) {
        let columns = self.windows.num_cells() + 1;
        let rows = pending.len() / columns;
        if rows > 0 {
            let data = TensorData::new(std::mem::take(pending), [rows, columns]);
            self.blocks.push(Tensor::from_data(data, &self.device));
        }
    }

    /// The `k` nearest training images of each of `images`, over all alignments.
    pub(super) fn search(&self, name: &str, images: &Tensor<4>, k: usize) -> Result<Vec<Nearest>> {
        let values = self.values(name, images)?;
        let numel = self.windows.shape.numel();
        let mut found = Vec::with_capacity(values.len() / numel);
        let queries = (WINDOWS / self.windows.alignments.len()).clamp(1, 16);
        for images in values.chunks(queries * numel) {
            let (mut windows, mut cells) = (Vec::new(), Vec::new());
            for image in images.chunks_exact(numel) {
                for alignment in &self.windows.alignments {
                    let start = windows.len();
                    self.windows.extract(image, *alignment, &mut windows);
                    let first = cells.len();
                    self.windows.average(&windows[start..], &mut cells);
                    normalize(&mut windows[start..]);
                    normalize(&mut cells[first..]);
                    // The factor of the half norms.
                    cells.push(1.0);
                }
            }
            let candidates = self.candidates(cells, images.len() / numel);
            let per_image = self.windows.alignments.len() * self.windows.len();
            for (windows, candidates) in windows.chunks_exact(per_image).zip(candidates) {
                found.push(self.compare(windows, &candidates, k));
            }
        }
        Ok(found)
    }

    /// The training images whose averages are nearest to those of any window, for each of `count`
    /// samples.
    fn candidates(&self, cells: Vec<f32>, count: usize) -> Vec<Vec<usize>> {
        let windows = self.windows.alignments.len();
        let shape = [count * windows, self.windows.num_cells() + 1];
        let queries = Tensor::<2>::from_data(TensorData::new(cells, shape), &self.device);
        let order = |a: &(f32, usize), b: &(f32, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        let mut best: Vec<Vec<(f32, usize)>> = vec![Vec::new(); count];
        for (number, block) in self.blocks.iter().enumerate() {
            let columns = block.dims()[0];
            let closeness = to_host(queries.clone().matmul(block.clone().transpose()));
            for (best, rows) in best
                .iter_mut()
                .zip(closeness.chunks_exact(windows * columns))
            {
                let mut most = rows[..columns].to_vec();
                for row in rows[columns..].chunks_exact(columns) {
                    for (most, value) in most.iter_mut().zip(row) {
                        *most = most.max(*value);
                    }
                }
                let indices = number * BLOCK..;
                best.extend(most.into_iter().zip(indices));
                if best.len() > self.candidates {
                    best.select_nth_unstable_by(self.candidates, order);
                    best.truncate(self.candidates);
                }
            }
        }
        let indices = |best: Vec<(f32, usize)>| best.into_iter().map(|(_, index)| index).collect();
        best.into_iter().map(indices).collect()
    }

    /// Compares all windows of one sample with the centers of the candidates.
    fn compare(&self, windows: &[f32], candidates: &[usize], k: usize) -> Nearest {
        let numel = self.windows.len();
        let mut centers = Vec::with_capacity(candidates.len() * numel);
        for index in candidates {
            let start = centers.len();
            let center = &self.centers[index * numel..][..numel];
            centers.extend(center.iter().map(|byte| f32::from(*byte) / 255.0));
            normalize(&mut centers[start..]);
        }
        let tensor = |values: Vec<f32>| {
            let shape = [values.len() / numel, numel];
            Tensor::<2>::from_data(TensorData::new(values, shape), &self.device)
        };
        let products = tensor(centers.clone()).matmul(tensor(windows.to_vec()).transpose());
        let products = to_host(products);
        let rows = products.chunks_exact(self.windows.alignments.len());
        let mut near: Vec<(f64, usize, usize)> = rows
            .zip(centers.chunks_exact(numel))
            .zip(candidates)
            .map(|((row, center), index)| {
                let best = first_of_largest(row);
                let window = &windows[best * numel..][..numel];
                (squared_distance(window, center).sqrt(), *index, best)
            })
            .collect();
        near.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        Nearest {
            index: near[0].1,
            alignment: self.windows.alignments[near[0].2],
            distances: near[..k].iter().map(|near| near.0).collect(),
        }
    }

    /// Values of images, after a check of their shape.
    fn values(&self, name: &str, images: &Tensor<4>) -> Result<Vec<f32>> {
        let [_, channels, height, width] = images.dims();
        let (shape, expected) = (ImageShape::new(channels, height, width), self.windows.shape);
        if shape != expected {
            return Err(Error::argument(
                name,
                format!("images of {shape}"),
                format!("{expected}, like the first training image"),
            ));
        }
        let values = to_host(images.clone());
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(Error::argument(name, value, "finite values")),
            None => Ok(values),
        }
    }
}

/// Position of the largest value, of equal ones the first. Values that differ by rounding are
/// equal.
fn first_of_largest(row: &[f32]) -> usize {
    let largest = row.iter().copied().fold(f32::MIN, f32::max);
    row.iter()
        .position(|value| *value >= largest - 1e-6)
        .unwrap_or(0)
}

fn to_host<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data()
        .try_into_vec_as()
        .expect("a float tensor converts to f32")
}
