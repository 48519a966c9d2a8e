//! What a classifier reads in the frames of clips.

use crate::Clips;
use aigc_core::{
    Error, Result,
    burn::tensor::{Device, Tensor},
    data::{Image, ImageShape, SampleBatch},
    eval::{
        Classifier, ClassifierOutput, FeatureStatistics, LeNet5, NearestNeighbors,
        frechet_distance,
        video::{FrameReadings, centred_frames, frame_differences, frames},
    },
};
use std::path::Path;

/// What is darker than this is background.
pub(crate) const FLOOR: f64 = 0.1;
/// Images whose features are computed at once.
const BATCH: usize = 256;

/// Reads the class of what moves, in squares around it as large as the images that move.
#[derive(Debug)]
pub struct ClipReader {
    reader: Reader,
    side: usize,
}

#[derive(Debug)]
enum Reader {
    LeNet(Box<LeNet5>),
    /// The nearest frame of a training clip.
    Nearest(Box<NearestNeighbors>),
}

impl Classifier for Reader {
    fn classify(&self, images: Tensor<4>) -> ClassifierOutput {
        match self {
            Self::LeNet(lenet) => lenet.classify(images),
            Self::Nearest(known) => known.classify(images),
        }
    }
}

impl ClipReader {
    /// The LeNet-5 of a file, or the nearest of training frames; `None` without a file if images
    /// have no classes.
    ///
    /// # Errors
    /// [`Error::Weights`] if the file has no LeNet-5; [`Error::InvalidArgument`] if it has one and
    /// the frames are not grey, or have more classes.
    pub fn new(classifier: Option<&Path>, clips: &Clips, device: &Device) -> Result<Option<Self>> {
        let side = clips.digit_size();
        let reader = match (classifier, clips.classes) {
            (Some(path), classes) => {
                if clips.frame.channels != 1 {
                    let expected = "none for these frames; a LeNet-5 reads grey ones";
                    return Err(Error::argument("--classifier", clips.frame, expected));
                }
                let most = LeNet5::CLASSES;
                if classes.is_some_and(|classes| classes > most) {
                    let expected = format!("none for more than {most} classes");
                    return Err(Error::argument("--classifier", "a LeNet-5", expected));
                }
                Reader::LeNet(Box::new(LeNet5::from_file(path, device)?))
            }
            (None, None) => return Ok(None),
            (None, Some(_)) => {
                let known = clips.known_frames()?;
                let images = centred_frames(&known.to_tensor(device), side, FLOOR)?;
                Reader::Nearest(Box::new(nearest(
                    &images,
                    known.labels().unwrap_or_default(),
                    device,
                )?))
            }
        };
        Ok(Some(Self { reader, side }))
    }

    /// How classes are read, for people.
    pub fn name(&self) -> &'static str {
        match &self.reader {
            Reader::LeNet(_) => "LeNet-5",
            Reader::Nearest(_) => "the nearest training frame",
        }
    }

    /// The classifier, if it has features to compare clips in.
    pub fn lenet(&self) -> Option<&LeNet5> {
        match &self.reader {
            Reader::LeNet(lenet) => Some(lenet),
            Reader::Nearest(_) => None,
        }
    }

    /// The class read in each frame.
    ///
    /// # Shapes
    /// - clips: `[batch, channels, frames, height, width]` in `[0, 1]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no clips, or a value is not finite.
    pub fn read(&self, clips: &Tensor<5>) -> Result<FrameReadings> {
        let centred = centred_frames(clips, self.side, FLOOR)?;
        FrameReadings::of_images(&self.reader, centred, clips.dims()[2])
    }
}

/// A search among images with classes.
fn nearest(images: &Tensor<4>, labels: &[u32], device: &Device) -> Result<NearestNeighbors> {
    let [_, channels, height, width] = images.dims();
    let shape = ImageShape::new(channels, height, width);
    let values: Vec<u8> = images
        .to_data()
        .iter::<f32>()
        .map(|value| (255.0 * value).round() as u8)
        .collect();
    let image = |(pixels, label): (&[u8], &u32)| Image {
        shape,
        pixels: pixels.to_vec(),
        label: Some(*label),
    };
    let images: Vec<Image> = values
        .chunks_exact(shape.numel())
        .zip(labels)
        .map(image)
        .collect();
    NearestNeighbors::new(&images, device)
}

/// Fréchet distances between clips in the features of a LeNet-5: of whole frames, and of the
/// differences of neighbouring frames, which show motion.
#[derive(Clone, Debug)]
pub struct ClipDistances {
    frames: FeatureStatistics,
    differences: FeatureStatistics,
}

impl ClipDistances {
    /// The features of clips.
    ///
    /// # Shapes
    /// - clips: `[batch, 1, frames, height, width]` in `[0, 1]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for features that are not finite.
    pub fn new(lenet: &LeNet5, clips: &Tensor<5>) -> Result<Self> {
        let statistics = |images: Tensor<4>| {
            let mut found = FeatureStatistics::new(LeNet5::FEATURES)?;
            let count = images.dims()[0];
            for first in (0..count).step_by(BATCH) {
                let part = images.clone().narrow(0, first, BATCH.min(count - first));
                found.add(&lenet.classify(part).features)?;
            }
            Ok::<_, Error>(found)
        };
        Ok(Self {
            frames: statistics(frames(clips.clone()))?,
            differences: statistics(frame_differences(clips.clone())?)?,
        })
    }

    /// The distances to other clips: of frames, and of differences.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for too few frames.
    pub fn to(&self, other: &Self) -> Result<[f64; 2]> {
        Ok([
            frechet_distance(&self.frames, &other.frames)?,
            frechet_distance(&self.differences, &other.differences)?,
        ])
    }
}
