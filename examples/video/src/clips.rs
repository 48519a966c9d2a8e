//! Clips to train on and to evaluate with.

use aigc_core::{
    Error, Result,
    burn::tensor::Device,
    data::{
        DataLoader, DataLoaderConfig, Dataset, Image, ImageBatch, ImageShape, InMemory,
        SampleShape, collate_images,
        moving_digits::{MovingDigits, MovingDigitsConfig},
        video::{VideoBatch, collate_clips},
    },
};
use aigc_examples::{Images, ImagesConfig};
use serde::{Deserialize, Serialize};

/// Images that are read at once.
pub(crate) const READ: usize = 256;
/// Number of training frames that samples are compared with, at most.
const KNOWN: usize = 4000;

/// Where clips come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClipsConfig {
    /// The images.
    #[serde(flatten)]
    pub images: ImagesConfig,
    /// How they move.
    pub moving: MovingDigitsConfig,
    /// Clips in a batch.
    pub batch_size: usize,
}

/// Size and motion of clips, as far as they are given or known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// Frames of a clip.
    pub frames: Option<usize>,
    /// Side of a frame.
    pub canvas: Option<usize>,
    /// Side that images are resized to.
    pub digit_size: Option<usize>,
    /// Whether images fill most of a frame, as those of an image model of single digits do.
    pub fills: bool,
}

/// Images in memory, from which clips are made.
#[derive(Debug)]
pub struct Clips {
    /// What the clips are made of.
    pub config: ClipsConfig,
    /// Shape of a frame.
    pub frame: ImageShape,
    /// Number of classes, if all images have one.
    pub classes: Option<usize>,
    train: InMemory<Image>,
    held_out: InMemory<Image>,
}

impl ClipsConfig {
    /// Clips of images. What `place` leaves open depends on the images; speeds are 1/32 to 1/16 of
    /// a frame's side per frame.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a number or a size of frames out of range, and for images
    /// that do not fit into a frame; errors of reading.
    pub fn new(
        images: &ImagesConfig,
        place: Place,
        batch_size: usize,
        seed: u64,
    ) -> Result<ClipsConfig> {
        let embedded = images.path.is_none();
        let canvas = place.canvas.unwrap_or(if embedded { 16 } else { 32 });
        let num_frames = place.frames.unwrap_or(if embedded { 8 } else { 16 });
        check(num_frames, canvas)?;
        let opened = images.open(READ, seed)?;
        let side = opened.shape.height.max(opened.shape.width);
        let most = match place.fills {
            true => canvas * 3 / 4,
            false => canvas * 5 / 8,
        };
        let digit_size = place.digit_size.unwrap_or(side.min(most).max(1));
        if !(1..canvas).contains(&digit_size) {
            let expected = format!("1 to {}, less than the side of a frame", canvas - 1);
            return Err(Error::argument("--digit-size", digit_size, expected));
        }
        let unit = canvas as f32 / 32.0;
        let moving = MovingDigitsConfig {
            num_frames,
            canvas,
            digit_size: Some(digit_size),
            speed: [unit, 2.0 * unit],
            seed,
            ..MovingDigitsConfig::default()
        };
        moving.validate()?;
        Ok(ClipsConfig {
            images: images.recorded(&opened),
            moving,
            batch_size,
        })
    }
}

/// Fails for a number of frames, or a side of a frame, that cannot be trained or measured.
fn check(num_frames: usize, canvas: usize) -> Result<()> {
    if !(4..=1024).contains(&num_frames) {
        let expected = "4 to 1024 frames: motion is measured over four";
        return Err(Error::argument("--frames", num_frames, expected));
    }
    if !(8..=256).contains(&canvas) {
        return Err(Error::argument("--size", canvas, "8 to 256 pixels"));
    }
    Ok(())
}

impl Clips {
    /// Reads the images into memory.
    ///
    /// # Errors
    /// Errors of reading, which name the file; [`Error::InvalidArgument`] for frames out of range.
    pub fn open(config: &ClipsConfig, device: &Device) -> Result<Self> {
        check(config.moving.num_frames, config.moving.canvas)?;
        config.moving.validate()?;
        let images = config.images.open(READ, config.moving.seed)?;
        let Images {
            train, held_out, ..
        } = &images;
        let (train, held_out) = (read(train, device)?, read(held_out, device)?);
        let all = train.0.iter().chain(&held_out.0);
        let labels = all.map(|image| image.label).collect::<Option<Vec<u32>>>();
        let largest = labels.and_then(|labels| labels.into_iter().max());
        let side = config.moving.canvas;
        Ok(Self {
            config: config.clone(),
            frame: ImageShape::new(images.shape.channels, side, side),
            classes: largest.map(|label| label as usize + 1),
            train,
            held_out,
        })
    }

    /// Number of training images.
    pub fn num_images(&self) -> usize {
        self.train.0.len()
    }

    /// Shape of a clip.
    pub fn shape(&self) -> SampleShape {
        let frame = self.frame;
        let frames = self.config.moving.num_frames;
        SampleShape::new(&[frame.channels, frames, frame.height, frame.width])
    }

    /// Side of the images that move.
    pub fn digit_size(&self) -> usize {
        let moving = self.config.moving;
        moving.digit_size.unwrap_or(moving.canvas)
    }

    /// Endless batches of training clips.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for images that do not fit into a frame; [`Error::Config`] for a
    /// batch size of 0.
    pub fn loader(&self) -> Result<DataLoader<VideoBatch>> {
        let clips = MovingDigits::new(self.train.clone(), self.config.moving)?;
        DataLoader::new(clips, collate_clips, self.loading())
    }

    /// Endless batches of single frames of training clips, as images.
    ///
    /// # Errors
    /// As [`loader`](Self::loader).
    pub fn frame_loader(&self) -> Result<DataLoader<ImageBatch>> {
        let moving = MovingDigitsConfig {
            num_frames: 1,
            ..self.config.moving
        };
        let frames = Frames(MovingDigits::new(self.train.clone(), moving)?);
        DataLoader::new(frames, collate_images, self.loading())
    }

    fn loading(&self) -> DataLoaderConfig {
        DataLoaderConfig {
            batch_size: self.config.batch_size,
            shuffle_seed: Some(self.config.moving.seed),
            ..DataLoaderConfig::default()
        }
    }

    /// `n` clips of held-out images; another `part` has other clips.
    ///
    /// # Errors
    /// As [`loader`](Self::loader).
    pub fn held_out(&self, n: usize, part: u64) -> Result<VideoBatch> {
        let seed = self.config.moving.seed.wrapping_add(1 + part);
        self.made(&self.held_out, n, self.config.moving.num_frames, seed)
    }

    /// Single frames of training images, at most 4,000, as clips of one frame.
    ///
    /// # Errors
    /// As [`loader`](Self::loader).
    pub fn known_frames(&self) -> Result<VideoBatch> {
        let n = KNOWN.min(2 * self.train.0.len());
        self.made(&self.train, n, 1, self.config.moving.seed)
    }

    fn made(
        &self,
        images: &InMemory<Image>,
        len: usize,
        num_frames: usize,
        seed: u64,
    ) -> Result<VideoBatch> {
        let moving = MovingDigitsConfig {
            len,
            num_frames,
            seed,
            ..self.config.moving
        };
        let clips = MovingDigits::new(images.clone(), moving)?;
        let clips = (0..len).map(|index| clips.get(index));
        Ok(collate_clips(clips.collect::<Result<Vec<_>>>()?))
    }
}

/// The first frames of clips.
struct Frames(MovingDigits<InMemory<Image>>);

impl Dataset for Frames {
    type Item = Image;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, index: usize) -> Result<Image> {
        Ok(self.0.get(index)?.frame(0))
    }

    fn get_in_epoch(&self, index: usize, epoch: usize) -> Result<Image> {
        Ok(self.0.get_in_epoch(index, epoch)?.frame(0))
    }
}

/// All images of a loader, in their order.
fn read(images: &DataLoader<ImageBatch>, device: &Device) -> Result<InMemory<Image>> {
    let mut all = Vec::with_capacity(images.num_items());
    for batch in images.iter_once() {
        let batch = batch?;
        let shape = batch.shape();
        let values = batch.to_tensor(device).into_data();
        let pixels: Vec<u8> = values
            .iter::<f32>()
            .map(|value| (255.0 * value).round() as u8)
            .collect();
        for (index, pixels) in pixels.chunks_exact(shape.numel().max(1)).enumerate() {
            all.push(Image {
                shape,
                pixels: pixels.to_vec(),
                label: batch.labels().map(|labels| labels[index]),
            });
        }
    }
    Ok(InMemory(all))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{data::SampleBatch, device::device};

    #[test]
    fn clips_are_of_the_embedded_digits() {
        let flex = device("flex").unwrap();
        let images = ImagesConfig::default();
        let config = ClipsConfig::new(&images, Place::default(), 4, 3).unwrap();
        assert_eq!((config.moving.canvas, config.moving.num_frames), (16, 8));
        assert_eq!((config.moving.digit_size, config.batch_size), (Some(8), 4));
        let clips = Clips::open(&config, &flex).unwrap();
        assert_eq!((clips.num_images(), clips.classes), (1500, Some(10)));
        assert_eq!(clips.shape().dims(), [1, 8, 16, 16]);
        let batch = clips.loader().unwrap().iter_from(0).next_batch().unwrap();
        assert_eq!(batch.sample_shape(), clips.shape());
        let frames = clips.frame_loader().unwrap();
        let frames = frames.iter_from(0).next_batch().unwrap();
        assert_eq!(frames.shape(), clips.frame);
        let (first, other) = (clips.held_out(2, 0).unwrap(), clips.held_out(2, 1).unwrap());
        let values = |batch: &VideoBatch| batch.to_tensor(&flex).into_data();
        assert!(first.len() == 2 && values(&first) != values(&other));
        assert_eq!(clips.known_frames().unwrap().num_frames(), 1);
    }

    /// The record of a run is read back.
    #[test]
    fn configurations_round_trip() {
        let images = ImagesConfig::default();
        let place = Place {
            canvas: Some(8),
            fills: true,
            ..Place::default()
        };
        let config = ClipsConfig::new(&images, place, 4, 3).unwrap();
        assert_eq!(config.moving.digit_size, Some(6));
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ClipsConfig>(&text).unwrap(), config);
    }

    #[test]
    fn places_out_of_range_name_their_option() {
        let images = ImagesConfig::default();
        let error = |place| {
            let config = ClipsConfig::new(&images, place, 4, 0);
            config.unwrap_err().to_string()
        };
        let place = Place::default();
        let frames = Place {
            frames: Some(3),
            ..place
        };
        assert!(error(frames).contains("`--frames` is 3"));
        let canvas = Place {
            canvas: Some(4),
            ..place
        };
        assert!(error(canvas).contains("`--size` is 4"));
        let largest = Place {
            canvas: Some(usize::MAX),
            ..place
        };
        assert!(error(largest).contains("8 to 256 pixels"));
        for size in [0, 16] {
            let digit = Place {
                digit_size: Some(size),
                ..place
            };
            let message = error(digit);
            let expected = format!("`--digit-size` is {size}, expected 1 to 15");
            assert!(message.contains(&expected), "{message}");
        }
    }
}
