//! Images in memory, one byte for each value.

use aigc_core::{
    Result,
    burn::tensor::{Device, Tensor},
    data::{Image, ImageBatch, ImageShape, Resampling, collate_images, resample},
};
use std::path::PathBuf;

/// Images that are handled at once.
pub(crate) const BATCH: usize = 250;

/// Images of one shape; there is at least one.
#[derive(Clone, Debug)]
pub(crate) struct ImageSet {
    /// What the report calls them.
    pub(crate) name: String,
    pub(crate) images: Vec<Image>,
    /// The name of each image.
    pub(crate) names: Vec<String>,
    /// The file of each image; empty for images without files.
    pub(crate) files: Vec<PathBuf>,
    /// Names of the classes; empty without classes.
    pub(crate) classes: Vec<String>,
}

impl ImageSet {
    pub(crate) fn len(&self) -> usize {
        self.images.len()
    }

    pub(crate) fn shape(&self) -> ImageShape {
        self.images[0].shape
    }

    /// The images in batches.
    pub(crate) fn batches(&self) -> impl Iterator<Item = Result<ImageBatch>> + '_ {
        let batches = self.images.chunks(BATCH);
        batches.map(|images| Ok(collate_images(images.to_vec())))
    }

    /// Some of the images, `[count, channels, height, width]`.
    pub(crate) fn tensor(&self, rows: &[usize], device: &Device) -> Tensor<4> {
        let images = rows.iter().map(|row| self.images[*row].clone()).collect();
        collate_images(images).to_tensor(device)
    }

    /// The class of each image, if all have one.
    pub(crate) fn labels(&self) -> Option<Vec<u32>> {
        self.images.iter().map(|image| image.label).collect()
    }

    /// Some of the images.
    pub(crate) fn select(&self, rows: &[usize]) -> Self {
        Self {
            name: self.name.clone(),
            images: rows.iter().map(|row| self.images[*row].clone()).collect(),
            names: rows.iter().map(|row| self.names[*row].clone()).collect(),
            files: match self.files.is_empty() {
                true => vec![],
                false => rows.iter().map(|row| self.files[*row].clone()).collect(),
            },
            classes: self.classes.clone(),
        }
    }

    /// The images with sides of at most `side`, for searches whose cost grows with the pixels.
    pub(crate) fn reduced(&self, side: usize) -> Result<Self> {
        let ImageShape {
            channels,
            height,
            width,
        } = self.shape();
        let longer = height.max(width);
        if longer <= side {
            return Ok(self.clone());
        }
        let scaled = |length: usize| (length * side / longer).max(1);
        let (to_height, to_width) = (scaled(height), scaled(width));
        let mut reduced = self.clone();
        for image in &mut reduced.images {
            let mut pixels = Vec::with_capacity(channels * to_height * to_width);
            for plane in image.pixels.chunks_exact(height * width) {
                let (from, to) = ([height, width], [to_height, to_width]);
                pixels.extend(resample(plane, 1, from, to, Resampling::Box)?);
            }
            image.pixels = pixels;
            image.shape = ImageShape::new(channels, to_height, to_width);
        }
        Ok(reduced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::data::digits;

    #[test]
    fn reduced_images_keep_their_proportions() {
        let images = vec![Image {
            shape: ImageShape::new(3, 4, 8),
            pixels: [vec![10; 32], vec![20; 32], vec![30; 32]].concat(),
            label: None,
        }];
        let set = ImageSet {
            name: "wide".into(),
            images,
            names: vec!["a".into()],
            files: vec![],
            classes: vec![],
        };
        let small = set.reduced(4).unwrap();
        assert_eq!(small.shape(), ImageShape::new(3, 2, 4));
        let expected = [vec![10; 8], vec![20; 8], vec![30; 8]].concat();
        assert_eq!(small.images[0].pixels, expected);
        assert_eq!(set.reduced(8).unwrap().shape(), set.shape());
        assert_eq!(set.labels(), None);
    }

    #[test]
    fn selections_keep_names_and_classes() {
        let images = digits::load().0[..5].to_vec();
        let set = ImageSet {
            name: "digits".into(),
            names: (0..5).map(|i| i.to_string()).collect(),
            images,
            files: vec![],
            classes: (0..10).map(|i| i.to_string()).collect(),
        };
        let some = set.select(&[4, 0]);
        assert_eq!(
            (some.len(), some.names),
            (2, vec!["4".to_string(), "0".into()])
        );
        assert_eq!(some.images[1], set.images[0]);
        assert_eq!(set.batches().count(), 1);
    }
}
