//! Images as CLIP's vision encoder takes them.

mod config;

use aigc_core::{
    Error, Result, check,
    data::{Resampling, resample},
};
use burn::tensor::{Device, Tensor, TensorData};

/// Limit on the sides of images, in pixels.
const MAX_SIDE: usize = 1 << 14;

/// The size that images are resized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeTo {
    /// The shorter side gets this length; the other one keeps the proportions.
    ShortestEdge(usize),
    /// Height and width, whatever the proportions.
    Exact([usize; 2]),
}

/// Resizes images of 8 bits, cuts out the middle and normalises the values: transformers'
/// `CLIPImageProcessor` on Pillow. The fields have the names of those of
/// `preprocessor_config.json`; steps that are `None` are left out. The default is that of
/// transformers.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipImageProcessor {
    /// The size after resizing (`do_resize`).
    pub size: Option<ResizeTo>,
    /// Interpolation.
    pub resample: Resampling,
    /// Height and width of the middle that is cut out (`do_center_crop`). Smaller images get a
    /// black border.
    pub crop_size: Option<[usize; 2]>,
    /// Factor of the bytes (`do_rescale`).
    pub rescale_factor: Option<f64>,
    /// Mean and standard deviation of each channel (`do_normalize`), by which values are
    /// normalised.
    pub image_mean_std: Option<([f64; 3], [f64; 3])>,
}

/// Mean and standard deviation of the images that CLIP was trained on.
const MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

impl Default for ClipImageProcessor {
    fn default() -> Self {
        Self {
            size: Some(ResizeTo::ShortestEdge(224)),
            resample: Resampling::Bicubic,
            crop_size: Some([224; 2]),
            rescale_factor: Some(1.0 / 255.0),
            image_mean_std: Some((MEAN, STD)),
        }
    }
}

/// An image of 8 bits and three channels, row by row with the channels of a pixel side by side.
#[derive(Clone, Copy, Debug)]
pub struct RgbPixels<'a> {
    /// The bytes, `[height, width, 3]`.
    pub pixels: &'a [u8],
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
}

impl ClipImageProcessor {
    /// Resizes and crops to squares of this side.
    pub fn square(side: usize) -> Self {
        Self {
            size: Some(ResizeTo::ShortestEdge(side)),
            crop_size: Some([side; 2]),
            ..Self::default()
        }
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        let within = |field: &str, sides: [usize; 2]| {
            let mut sides = sides.into_iter();
            sides.try_for_each(|side| check::in_range(field, side, 1..=MAX_SIDE))
        };
        match self.size {
            Some(ResizeTo::ShortestEdge(side)) => within("size", [side; 2])?,
            Some(ResizeTo::Exact(sides)) => within("size", sides)?,
            None => {}
        }
        if let Some(sides) = self.crop_size {
            within("crop_size", sides)?;
        }
        let (_, std) = self.image_mean_std.unwrap_or((MEAN, STD));
        let mut std = std.into_iter();
        std.try_for_each(|std| check::positive("image_std", std))
    }

    /// The values of one image, channel by channel, and its height and width.
    ///
    /// # Errors
    /// [`Error::Config`] as for [`validate`](Self::validate); [`Error::InvalidArgument`] if the
    /// image is empty, has another number of bytes than its sides say, or would become larger than
    /// 16384 pixels.
    pub fn preprocess_one(&self, image: RgbPixels<'_>) -> Result<(Vec<f32>, [usize; 2])> {
        self.validate()?;
        let mut sides = [image.height, image.width];
        let to = match self.size {
            None => sides,
            Some(ResizeTo::Exact(to)) => to,
            Some(ResizeTo::ShortestEdge(side)) => shortest_edge(sides, side)?,
        };
        let mut pixels = resample(image.pixels, 3, sides, to, self.resample)?;
        sides = to;
        if let Some(crop) = self.crop_size {
            pixels = center_crop(&pixels, sides, crop);
            sides = crop;
        }
        let n = sides[0] * sides[1];
        let mut values = vec![0f32; 3 * n];
        for channel in 0..3 {
            // transformers rescales in 64 bits and normalises in 32.
            let value = |byte: u8| {
                let value = match self.rescale_factor {
                    Some(factor) => (f64::from(byte) * factor) as f32,
                    None => f32::from(byte),
                };
                match &self.image_mean_std {
                    Some((mean, std)) => (value - mean[channel] as f32) / std[channel] as f32,
                    None => value,
                }
            };
            let table: Vec<f32> = (0..=255).map(value).collect();
            let out = &mut values[channel * n..(channel + 1) * n];
            for (out, byte) in out.iter_mut().zip(pixels[channel..].iter().step_by(3)) {
                *out = table[usize::from(*byte)];
            }
        }
        Ok((values, sides))
    }

    /// Images as input of the vision encoder.
    ///
    /// # Shapes
    /// - output: `[images, 3, height, width]`
    ///
    /// # Errors
    /// As for [`preprocess_one`](Self::preprocess_one); [`Error::InvalidArgument`] if there are no
    /// images, or they have different sizes in the end because they are not cropped.
    pub fn preprocess(&self, images: &[RgbPixels<'_>], device: &Device) -> Result<Tensor<4>> {
        let mut all: Vec<f32> = vec![];
        let mut size = None;
        for image in images {
            let (values, sides) = self.preprocess_one(*image)?;
            let [height, width] = *size.get_or_insert(sides);
            if sides != [height, width] {
                let expected = format!("{height} × {width} after resizing, as the first image");
                let sides = format!("{} × {}", sides[0], sides[1]);
                return Err(Error::argument("images", sides, expected));
            }
            all.extend(values);
        }
        let Some([height, width]) = size else {
            return Err(Error::argument("images", "empty", "at least one image"));
        };
        let shape = [images.len(), 3, height, width];
        Ok(Tensor::from_data(TensorData::new(all, shape), device))
    }
}

/// Height and width where the shorter side has a length, as transformers rounds them.
fn shortest_edge([height, width]: [usize; 2], side: usize) -> Result<[usize; 2]> {
    let (short, long) = (height.min(width), height.max(width));
    // In 64-bit floats, as Python divides.
    let long = (side as f64 * long as f64 / short.max(1) as f64) as usize;
    check::ensure_argument(
        short > 0 && long <= MAX_SIDE,
        "image",
        format!("{height} × {width}"),
        &format!("sides of which the longer one becomes at most {MAX_SIDE}"),
    )?;
    Ok(match width <= height {
        true => [long, side],
        false => [side, long],
    })
}

/// The middle of an image, with a black border where the image is smaller.
fn center_crop(pixels: &[u8], from: [usize; 2], to: [usize; 2]) -> Vec<u8> {
    // Where the middle begins: before the image, if it is smaller. transformers rounds both down.
    let start = |from: usize, to: usize| {
        let (from, to) = (from as i64, to as i64);
        match from >= to {
            true => (from - to) / 2,
            false => -((to - from + 1) / 2),
        }
    };
    let (top, left) = (start(from[0], to[0]), start(from[1], to[1]));
    let mut out = vec![0; to[0] * to[1] * 3];
    for (row, line) in (top..).zip(out.chunks_exact_mut(to[1] * 3)) {
        for (column, pixel) in (left..).zip(line.chunks_exact_mut(3)) {
            let inside = |at: i64, size: usize| usize::try_from(at).ok().filter(|at| *at < size);
            let Some((row, column)) = inside(row, from[0]).zip(inside(column, from[1])) else {
                continue;
            };
            let at = (row * from[1] + column) * 3;
            pixel.copy_from_slice(&pixels[at..at + 3]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crops_are_centred() {
        // A row of 4 pixels, whose first channel is 1 to 4.
        let pixels: Vec<u8> = (1..5).flat_map(|x| [x, 0, 0]).collect();
        let reds = |to: [usize; 2]| -> Vec<u8> {
            let out = center_crop(&pixels, [1, 4], to);
            out.iter().step_by(3).copied().collect()
        };
        assert_eq!(reds([1, 2]), [2, 3]);
        assert_eq!(reds([1, 3]), [1, 2, 3]);
        // As in transformers, the border before the image is the wider one.
        assert_eq!(reds([1, 7]), [0, 0, 1, 2, 3, 4, 0]);
        assert_eq!(reds([2, 4]), [0, 0, 0, 0, 1, 2, 3, 4]);
    }

    #[cfg(feature = "flex")]
    #[test]
    fn wrong_images_are_errors() {
        let device = Device::flex();
        let processor = ClipImageProcessor::square(4);
        let image = |height, width| RgbPixels {
            pixels: &[9; 27],
            height,
            width,
        };
        let ok = processor.preprocess(&[image(3, 3)], &device).unwrap();
        assert_eq!(ok.dims(), [1, 3, 4, 4]);
        let message = |images: &[RgbPixels<'_>]| {
            let made = processor.preprocess(images, &device);
            made.unwrap_err().to_string()
        };
        assert!(message(&[image(3, 4)]).contains("`pixels` is 27 bytes"));
        assert!(message(&[image(0, 4)]).contains("`image` is 0 × 4"));
        assert!(message(&[]).contains("`images` is empty"));
        let huge = ClipImageProcessor {
            crop_size: Some([4, usize::MAX]),
            ..processor.clone()
        };
        let crop = huge.preprocess(&[image(3, 3)], &device).unwrap_err();
        assert!(crop.to_string().contains("`crop_size` is 18446"), "{crop}");
        let whole = ClipImageProcessor {
            crop_size: None,
            ..processor.clone()
        };
        let two = [image(3, 3), image(1, 9)];
        let message = whole.preprocess(&two, &device).unwrap_err().to_string();
        assert!(
            message.contains("`images` is 4 × 36, expected 4 × 4"),
            "{message}"
        );
    }
}
