//! Samples of any kind: images, sound, video, points.

use super::{ImageBatch, ImageShape};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// Most axes of a sample: channels, frames, height and width.
const MAX_RANK: usize = 4;

/// Shape of one sample without the batch axis: `[channels]` for points, `[channels, time]` for
/// sound, `[channels, height, width]` for images, `[channels, frames, height, width]` for video.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "Vec<usize>", try_from = "Vec<usize>")]
pub struct SampleShape {
    dims: [usize; MAX_RANK],
    rank: usize,
}

impl SampleShape {
    /// A shape with these axes, channels first.
    ///
    /// # Panics
    /// If there are no axes, or more than four.
    pub fn new(dims: &[usize]) -> Self {
        assert!(
            (1..=MAX_RANK).contains(&dims.len()),
            "a sample has 1 to {MAX_RANK} axes, not {}",
            dims.len()
        );
        let mut all = [1; MAX_RANK];
        all[..dims.len()].copy_from_slice(dims);
        Self {
            dims: all,
            rank: dims.len(),
        }
    }

    /// All axes.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The first axis.
    pub fn channels(&self) -> usize {
        self.dims[0]
    }

    /// The axes after the channels.
    pub fn spatial(&self) -> &[usize] {
        &self.dims[1..self.rank]
    }

    /// Number of values.
    pub fn numel(&self) -> usize {
        self.dims().iter().product()
    }

    /// The shape of `batch` samples, for a tensor of rank `D`.
    ///
    /// # Panics
    /// If a batch of these samples is not of rank `D`.
    pub fn batched<const D: usize>(&self, batch: usize) -> [usize; D] {
        assert_eq!(
            D,
            self.rank + 1,
            "rank of a batch of samples of shape {self}"
        );
        std::array::from_fn(|axis| {
            if axis == 0 {
                batch
            } else {
                self.dims[axis - 1]
            }
        })
    }

    /// The shape of the samples in a batch.
    pub fn of_batch<const D: usize>(batch: &Tensor<D>) -> Self {
        Self::new(&batch.dims()[1..])
    }

    /// The shape as an [`ImageShape`], if it has three axes.
    pub fn as_image(&self) -> Option<ImageShape> {
        match *self.dims() {
            [channels, height, width] => Some(ImageShape::new(channels, height, width)),
            _ => None,
        }
    }
}

impl std::fmt::Display for SampleShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dims: Vec<String> = self.dims().iter().map(usize::to_string).collect();
        f.write_str(&dims.join("×"))
    }
}

impl std::fmt::Debug for SampleShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SampleShape").field(&self.dims()).finish()
    }
}

impl From<ImageShape> for SampleShape {
    fn from(shape: ImageShape) -> Self {
        Self::new(&[shape.channels, shape.height, shape.width])
    }
}

impl PartialEq<ImageShape> for SampleShape {
    fn eq(&self, other: &ImageShape) -> bool {
        *self == Self::from(*other)
    }
}

impl From<SampleShape> for Vec<usize> {
    fn from(shape: SampleShape) -> Self {
        shape.dims().to_vec()
    }
}

impl TryFrom<Vec<usize>> for SampleShape {
    type Error = String;

    fn try_from(dims: Vec<usize>) -> Result<Self, String> {
        match dims.len() {
            1..=MAX_RANK => Ok(Self::new(&dims)),
            n => Err(format!("a sample has 1 to {MAX_RANK} axes, not {n}")),
        }
    }
}

/// The range of the values of a data set, and its mapping to the range that networks work in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueRange {
    /// `[0, 1]`, as in images; networks receive `[−1, 1]`.
    #[default]
    Unit,
    /// `[−1, 1]`, as in sound; networks receive the same.
    Symmetric,
    /// Any numbers, such as coordinates or latents; networks receive the same.
    Unbounded,
}

impl ValueRange {
    /// The default for samples of this shape: [`Unit`](Self::Unit) for images,
    /// [`Unbounded`](Self::Unbounded) for other samples.
    pub fn for_shape(shape: SampleShape) -> Self {
        match shape.as_image() {
            Some(_) => ValueRange::Unit,
            None => ValueRange::Unbounded,
        }
    }

    /// Maps data to the range that networks receive.
    pub fn normalize<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            ValueRange::Unit => x * 2.0 - 1.0,
            ValueRange::Symmetric | ValueRange::Unbounded => x,
        }
    }

    /// Maps a network's output to the range of the data, and clamps it.
    pub fn denormalize<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            ValueRange::Unit => ((x + 1.0) * 0.5).clamp(0.0, 1.0),
            ValueRange::Symmetric => x.clamp(-1.0, 1.0),
            ValueRange::Unbounded => x,
        }
    }
}

/// A batch of samples that objectives train on. `D` is the rank of its tensor, batch axis included.
pub trait SampleBatch<const D: usize = 4>: Send + 'static {
    /// The samples, in [`value_range`](Self::value_range).
    ///
    /// # Shapes
    /// - output: `[len, …]` of [`sample_shape`](Self::sample_shape)
    fn to_tensor(&self, device: &Device) -> Tensor<D>;

    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether the batch is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shape of a sample.
    fn sample_shape(&self) -> SampleShape;

    /// Range of the values, by default that of the [shape](ValueRange::for_shape).
    fn value_range(&self) -> ValueRange {
        ValueRange::for_shape(self.sample_shape())
    }

    /// The class of each sample, if the data set has classes.
    fn labels(&self) -> Option<&[u32]> {
        None
    }

    /// The samples in the range that networks receive.
    fn normalized(&self, device: &Device) -> Tensor<D> {
        self.value_range().normalize(self.to_tensor(device))
    }
}

impl SampleBatch for ImageBatch {
    fn to_tensor(&self, device: &Device) -> Tensor<4> {
        self.to_tensor(device)
    }

    fn len(&self) -> usize {
        ImageBatch::len(self)
    }

    fn sample_shape(&self) -> SampleShape {
        self.shape().into()
    }

    fn labels(&self) -> Option<&[u32]> {
        self.labels()
    }
}

/// The labels of a batch as a tensor, `[len]`.
pub fn label_tensor(labels: &[u32], device: &Device) -> Tensor<1, burn::tensor::Int> {
    let labels: Vec<i32> = labels.iter().map(|label| *label as i32).collect();
    let count = labels.len();
    Tensor::from_data(burn::tensor::TensorData::new(labels, [count]), device)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    #[test]
    fn shapes_convert_and_print() {
        let image = SampleShape::from(ImageShape::new(3, 4, 5));
        assert_eq!(
            (image.to_string(), image.numel(), image.spatial()),
            ("3×4×5".into(), 60, &[4, 5][..])
        );
        assert_eq!(image.batched::<4>(2), [2, 3, 4, 5]);
        assert_eq!(image.as_image(), Some(ImageShape::new(3, 4, 5)));
        assert_eq!(SampleShape::new(&[2, 9]).as_image(), None);
        let json = serde_json::to_string(&image).unwrap();
        assert_eq!(
            (
                json.as_str(),
                serde_json::from_str::<SampleShape>(&json).unwrap()
            ),
            ("[3,4,5]", image)
        );
        assert!(serde_json::from_str::<SampleShape>("[]").is_err());
        assert!(serde_json::from_str::<SampleShape>("[1,1,1,1,1]").is_err());
    }

    #[test]
    fn default_range_follows_from_the_shape() {
        for (dims, expected) in [
            (&[2][..], ValueRange::Unbounded),
            (&[1, 16], ValueRange::Unbounded),
            (&[3, 4, 4], ValueRange::Unit),
            (&[3, 2, 4, 4], ValueRange::Unbounded),
        ] {
            assert_eq!(ValueRange::for_shape(SampleShape::new(dims)), expected);
        }
    }

    #[test]
    fn ranges_are_inverted_by_denormalize() {
        let device = Device::flex();
        let x = Tensor::<1>::from_floats([0.0, 0.25, 1.0], &device);
        let seen: Vec<f32> = ValueRange::Unit
            .normalize(x.clone())
            .into_data()
            .iter()
            .collect();
        assert_eq!(seen, [-1.0, -0.5, 1.0]);
        let back = ValueRange::Unit
            .denormalize(ValueRange::Unit.normalize(x))
            .into_data();
        assert_eq!(back.iter::<f32>().collect::<Vec<_>>(), [0.0, 0.25, 1.0]);
        let wide = Tensor::<1>::from_floats([-3.0, 3.0], &device);
        let clamped: Vec<f32> = ValueRange::Symmetric
            .denormalize(wide.clone())
            .into_data()
            .iter()
            .collect();
        assert_eq!(clamped, [-1.0, 1.0]);
        assert_eq!(
            ValueRange::Unbounded
                .denormalize(wide)
                .into_data()
                .iter::<f32>()
                .collect::<Vec<_>>(),
            [-3.0, 3.0]
        );
    }
}
