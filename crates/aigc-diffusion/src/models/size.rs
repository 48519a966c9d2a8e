//! The size of the images of a network, as diffusers writes it.

use aigc_core::data::ImageShape;
use serde::{Deserialize, Serialize};

/// The size of square images, or height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SampleSize {
    /// The side of square images.
    Side(usize),
    /// Height and width.
    Sides([usize; 2]),
}

impl SampleSize {
    /// Height and width.
    pub fn sides(self) -> [usize; 2] {
        match self {
            SampleSize::Side(side) => [side, side],
            SampleSize::Sides(sides) => sides,
        }
    }
}

impl From<usize> for SampleSize {
    fn from(side: usize) -> Self {
        Self::Side(side)
    }
}

impl From<ImageShape> for SampleSize {
    fn from(shape: ImageShape) -> Self {
        if shape.height == shape.width {
            Self::Side(shape.height)
        } else {
            Self::Sides([shape.height, shape.width])
        }
    }
}
