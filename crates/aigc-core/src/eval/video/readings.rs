//! What a classifier reads in the frames of clips.

use super::frames;
use crate::{
    Error, Result,
    eval::{Classifier, Proportion},
};
use burn::tensor::Tensor;

/// Frames that are classified at once.
const BATCH: usize = 256;

/// The class that a classifier reads in each frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameReadings {
    /// `[clips, frames]`
    classes: Vec<u32>,
    frames: usize,
}

impl FrameReadings {
    /// Classes of frames, clip by clip.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are none, or their number is no multiple of
    /// `num_frames`.
    pub fn new(classes: Vec<u32>, num_frames: usize) -> Result<Self> {
        if num_frames == 0 || classes.is_empty() || !classes.len().is_multiple_of(num_frames) {
            let expected = format!("a multiple of {num_frames}, the frames of a clip");
            return Err(Error::argument("classes", classes.len(), expected));
        }
        Ok(Self {
            classes,
            frames: num_frames,
        })
    }

    /// Reads all frames of clips. For objects that move, [`centred_frames`](super::centred_frames)
    /// may be better read, with [`of_images`](Self::of_images).
    ///
    /// # Shapes
    /// - clips: `[batch, channels, frames, height, width]` in `[0, 1]`
    ///
    /// # Errors
    /// As [`new`](Self::new).
    ///
    /// # Panics
    /// If the classifier does not accept images of this shape.
    pub fn of_clips(classifier: &impl Classifier, clips: Tensor<5>) -> Result<Self> {
        let count = clips.dims()[2];
        Self::of_images(classifier, frames(clips), count)
    }

    /// Reads images that are the frames of clips, clip by clip.
    ///
    /// # Shapes
    /// - images: `[clips·num_frames, channels, height, width]` in `[0, 1]`
    ///
    /// # Errors
    /// As [`new`](Self::new).
    ///
    /// # Panics
    /// If the classifier does not accept images of this shape.
    pub fn of_images(
        classifier: &impl Classifier,
        images: Tensor<4>,
        num_frames: usize,
    ) -> Result<Self> {
        let count = images.dims()[0];
        let mut classes = Vec::with_capacity(count);
        for first in (0..count).step_by(BATCH) {
            let part = images.clone().narrow(0, first, BATCH.min(count - first));
            classes.extend(classifier.classify(part).predictions());
        }
        Self::new(classes, num_frames)
    }

    /// The classes of the frames of each clip.
    pub fn clips(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.classes.chunks_exact(self.frames)
    }

    /// The share of all frames that show the class asked for in their clip.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is not one class for each clip.
    pub fn right(&self, asked: &[u32]) -> Result<Proportion> {
        let clips = self.clips();
        if asked.len() != clips.len() {
            let expected = format!("{}, one for each clip", clips.len());
            return Err(Error::argument("asked", asked.len(), expected));
        }
        let right = clips.zip(asked).map(|(clip, asked)| {
            let frames = clip.iter().filter(|class| *class == asked);
            frames.count()
        });
        Proportion::new(right.sum(), self.classes.len())
    }

    /// The share of clips all of whose frames show one class, whichever.
    pub fn constant(&self) -> Proportion {
        let clips = self.clips();
        let total = clips.len();
        let constant = clips.filter(|clip| clip.iter().all(|class| *class == clip[0]));
        Proportion::new(constant.count(), total).expect("there are clips")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_clips_are_counted() {
        let readings = FrameReadings::new(vec![3, 3, 3, 7, 7, 1, 2, 2, 2], 3).unwrap();
        assert_eq!(readings.constant(), Proportion::new(2, 3).unwrap());
        let right = readings.right(&[3, 7, 9]).unwrap();
        assert_eq!(right, Proportion::new(5, 9).unwrap());
        assert!(readings.right(&[3]).is_err());
        assert!(FrameReadings::new(vec![1, 2], 3).is_err());
        assert!(FrameReadings::new(vec![], 3).is_err());
        assert!(FrameReadings::new(vec![1], 0).is_err());
    }
}
