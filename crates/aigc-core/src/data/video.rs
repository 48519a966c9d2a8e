//! Video clips, and batches of them.
//!
//! ```
//! use aigc_core::data::{
//!     Dataset, SampleBatch, digits,
//!     moving_digits::{MovingDigits, MovingDigitsConfig},
//!     video::collate_clips,
//! };
//!
//! # fn main() -> aigc_core::Result<()> {
//! let config = MovingDigitsConfig { num_frames: 4, canvas: 16, ..Default::default() };
//! let clips = MovingDigits::new(digits::load(), config)?;
//! let batch = collate_clips(vec![clips.get(0)?, clips.get(1)?]);
//! assert_eq!(batch.sample_shape().dims(), [1, 4, 16, 16]);
//! # Ok(()) }
//! ```

use super::{Image, ImageShape, SampleBatch, SampleShape, ValueRange, label_tensor};
use crate::{Error, Result};
use burn::tensor::{Device, Int, Tensor, TensorData};

/// A clip of 8-bit frames: `channels × frames × height × width` values, channel by channel, frame
/// by frame, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clip {
    /// Number of frames.
    pub num_frames: usize,
    /// Channels, height, width of a frame.
    pub frame_shape: ImageShape,
    /// The values, 0 to 255.
    pub pixels: Vec<u8>,
    /// Class, if the data set has classes.
    pub label: Option<u32>,
}

impl Clip {
    /// A clip of frames of one shape. Its class is that of the first frame.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no frames, or one differs in shape from the first or
    /// does not have as many pixels as its shape says.
    pub fn from_frames(frames: &[Image]) -> Result<Self> {
        let Some(first) = frames.first() else {
            return Err(Error::argument("frames", "empty", "at least one frame"));
        };
        let shape = first.shape;
        for (index, frame) in frames.iter().enumerate() {
            let name = || format!("frames[{index}]");
            if frame.shape != shape {
                let expected = format!("{shape}, like the first frame");
                return Err(Error::argument(name(), frame.shape, expected));
            }
            if frame.pixels.len() != shape.numel() {
                let found = format!("{} pixels", frame.pixels.len());
                return Err(Error::argument(name(), found, format!("those of {shape}")));
            }
        }
        let plane = shape.height * shape.width;
        let mut pixels = Vec::with_capacity(frames.len() * shape.numel());
        for channel in 0..shape.channels {
            for frame in frames {
                pixels.extend_from_slice(&frame.pixels[channel * plane..(channel + 1) * plane]);
            }
        }
        Ok(Self {
            num_frames: frames.len(),
            frame_shape: shape,
            pixels,
            label: first.label,
        })
    }

    /// `[channels, frames, height, width]`
    pub fn shape(&self) -> SampleShape {
        let ImageShape {
            channels,
            height,
            width,
        } = self.frame_shape;
        SampleShape::new(&[channels, self.num_frames, height, width])
    }

    /// A frame, with the class of the clip.
    ///
    /// # Panics
    /// If there is no such frame, or the number of pixels does not fit the shape.
    pub fn frame(&self, index: usize) -> Image {
        let frames = self.num_frames;
        assert!(index < frames, "frame {index} of {frames}");
        let plane = self.frame_shape.height * self.frame_shape.width;
        let part = |channel: usize| {
            let start = (channel * frames + index) * plane;
            &self.pixels[start..start + plane]
        };
        let parts: Vec<&[u8]> = (0..self.frame_shape.channels).map(part).collect();
        Image {
            shape: self.frame_shape,
            pixels: parts.concat(),
            label: self.label,
        }
    }
}

/// A batch of clips on the host. Values are in `[0, 1]`.
#[derive(Clone, Debug)]
pub struct VideoBatch {
    /// `[batch, channels, frames, height, width]`
    values: Vec<f32>,
    size: usize,
    shape: SampleShape,
    labels: Option<Vec<u32>>,
}

impl VideoBatch {
    /// Number of frames of each clip.
    pub fn num_frames(&self) -> usize {
        self.shape.dims()[1]
    }

    /// Classes on `device`, `[batch]`; `None` if a clip of the batch has no class.
    pub fn label_tensor(&self, device: &Device) -> Option<Tensor<1, Int>> {
        Some(label_tensor(self.labels.as_ref()?, device))
    }
}

impl SampleBatch<5> for VideoBatch {
    fn to_tensor(&self, device: &Device) -> Tensor<5> {
        let dims: [usize; 5] = self.shape.batched(self.size);
        Tensor::from_data(TensorData::new(self.values.clone(), dims), device)
    }

    fn len(&self) -> usize {
        self.size
    }

    fn sample_shape(&self) -> SampleShape {
        self.shape
    }

    fn value_range(&self) -> ValueRange {
        ValueRange::Unit
    }

    fn labels(&self) -> Option<&[u32]> {
        self.labels.as_deref()
    }
}

/// Collates clips of one shape into a batch.
///
/// # Panics
/// If there are no clips, their shapes differ, or the number of pixels of one does not fit its
/// shape.
pub fn collate_clips(clips: Vec<Clip>) -> VideoBatch {
    let shape = clips.first().expect("a batch has clips").shape();
    let mut values = Vec::with_capacity(clips.len() * shape.numel());
    for clip in &clips {
        assert_eq!(clip.shape(), shape, "clips of a batch differ in shape");
        assert_eq!(
            clip.pixels.len(),
            shape.numel(),
            "number of pixels of a clip of {shape}"
        );
        values.extend(clip.pixels.iter().map(|p| f32::from(*p) / 255.0));
    }
    VideoBatch {
        values,
        size: clips.len(),
        shape,
        labels: clips.iter().map(|clip| clip.label).collect(),
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::testing::values;

    fn frame(pixels: &[u8]) -> Image {
        Image {
            shape: ImageShape::new(pixels.len() / 2, 1, 2),
            pixels: pixels.to_vec(),
            label: Some(7),
        }
    }

    #[test]
    fn channels_come_before_frames() {
        let frames = [frame(&[1, 2, 3, 4]), frame(&[5, 6, 7, 8])];
        let clip = Clip::from_frames(&frames).unwrap();
        assert_eq!(clip.pixels, [1, 2, 5, 6, 3, 4, 7, 8]);
        assert_eq!(
            (clip.frame(0), clip.frame(1)),
            (frames[0].clone(), frames[1].clone())
        );
        assert_eq!(clip.shape(), SampleShape::new(&[2, 2, 1, 2]));
    }

    #[test]
    fn batches_are_in_unit_range() {
        let clip = |label| Clip {
            label,
            ..Clip::from_frames(&[frame(&[0, 255]), frame(&[51, 102])]).unwrap()
        };
        let batch = collate_clips(vec![clip(Some(3)), clip(Some(1))]);
        let device = Device::flex();
        let tensor = batch.to_tensor(&device);
        assert_eq!((tensor.dims(), batch.num_frames()), ([2, 1, 2, 1, 2], 2));
        assert_eq!(values(tensor), [0.0, 1.0, 0.2, 0.4].repeat(2));
        assert_eq!(batch.labels(), Some(&[3, 1][..]));
        assert_eq!(values(batch.normalized(&device))[..2], [-1.0, 1.0]);
        assert!(
            collate_clips(vec![clip(None)])
                .label_tensor(&device)
                .is_none()
        );
    }

    #[test]
    fn frames_of_other_shapes_are_errors() {
        let error = |frames: &[Image]| Clip::from_frames(frames).unwrap_err().to_string();
        assert!(error(&[]).contains("`frames` is empty"));
        let other = error(&[frame(&[1, 2]), frame(&[1, 2, 3, 4])]);
        assert!(
            other.contains("`frames[1]` is 2×1×2, expected 1×1×2"),
            "{other}"
        );
        let mut short = frame(&[1, 2]);
        short.pixels.pop();
        assert!(error(&[short]).contains("`frames[0]` is 1 pixels"));
    }
}
