//! The size of the images, and the shape of their latents.

use super::{
    families::{Task, resolution_bin},
    image::floored,
    options::PipelineOptions,
    pipeline::TextToImagePipeline,
};
use aigc_core::{
    Error, Result,
    check::ensure_argument,
    data::SampleShape,
    text_to_image::{ImageRequest, ImageSize},
};
use aigc_diffusion::{AnyDenoiser, Denoiser};

/// Limit on the side of an image, in pixels.
const MAX_SIDE: u32 = 1 << 14;

/// The sizes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Of the images.
    pub(crate) output: ImageSize,
    /// At which the network makes them.
    pub(crate) made: ImageSize,
}

impl TextToImagePipeline {
    /// The sizes of a request: those that it says, or that follow from its image or the network.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an image that is too small.
    pub(crate) fn sizes(&self, request: &ImageRequest, options: &PipelineOptions) -> Result<Sizes> {
        let output = self.output_size(request)?;
        let side = match &self.network {
            AnyDenoiser::PixArtTransformer(network) if options.use_resolution_binning => {
                network.config().sample_size
            }
            _ => 0,
        };
        let within = 1..=MAX_SIDE;
        if side == 0 || !(within.contains(&output.width) && within.contains(&output.height)) {
            let made = output;
            return Ok(Sizes { output, made });
        }
        let made = resolution_bin(side, output).unwrap_or(output);
        Ok(Sizes { output, made })
    }

    fn output_size(&self, request: &ImageRequest) -> Result<ImageSize> {
        if let Some(size) = request.size {
            return Ok(size);
        }
        let scale = self.latents.scale as u32;
        let factor = scale * self.latent_factor() as u32;
        let given = match (&request.image, &request.control_image) {
            (Some(image), _) => Some(("image", image)),
            (None, Some(image)) => Some(("control_image", image)),
            (None, None) => None,
        };
        if let Some((name, image)) = given {
            let found = ImageSize::new(image.width(), image.height());
            let size = floored(found, factor);
            let fits = size.width > 0 && size.height > 0;
            let expected = format!("an image of at least {factor}x{factor} pixels");
            ensure_argument(fits, name, found, &expected)?;
            return Ok(size);
        }
        let side = self
            .family
            .defaults(&self.class, Task::Text, false)
            .latent_side;
        let sides = self
            .network
            .sample_shape()
            .and_then(|shape| shape.as_image());
        let [height, width] = sides.map_or([side; 2], |shape| [shape.height, shape.width]);
        Ok(ImageSize::new(width as u32 * scale, height as u32 * scale))
    }

    /// Channels, height and width of the latents of images of this size.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with the nearest size that the network makes.
    pub(crate) fn latent_shape(&self, size: ImageSize) -> Result<[usize; 3]> {
        let scale = self.latents.scale as u32;
        let of = |size: ImageSize| {
            let side = |side: u32| (side / scale) as usize;
            [self.latents.channels, side(size.height), side(size.width)]
        };
        let fits = |size: ImageSize| {
            let whole = size.width.is_multiple_of(scale) && size.height.is_multiple_of(scale);
            let within = size.width.max(size.height) <= MAX_SIDE && size.width.min(size.height) > 0;
            whole
                && within
                && self
                    .network
                    .check_shape(SampleShape::new(&of(size)))
                    .is_ok()
        };
        if fits(size) {
            return Ok(of(size));
        }
        let factor = scale * self.latent_factor() as u32;
        let largest = ImageSize::new(MAX_SIDE, MAX_SIDE);
        let expected = match nearest(size, factor, largest, fits) {
            Some(near) => format!("sides that are multiples of {factor}, such as {near}"),
            None => match self.network.check_shape(SampleShape::new(&of(size))) {
                Err(error) => format!("a size that the network makes ({error})"),
                Ok(()) => format!("sides of {factor} to {MAX_SIDE} pixels"),
            },
        };
        Err(Error::argument("size", size, expected))
    }

    /// What the sides of latents have to be multiples of.
    fn latent_factor(&self) -> usize {
        let channels = self.latents.channels;
        let fits = |side: usize| {
            let shape = |a, b| SampleShape::new(&[channels, a, b]);
            [2, 3].iter().all(|k| {
                let [a, b] = [side * k, side * (k + 1)];
                self.network.check_shape(shape(a, b)).is_ok()
            })
        };
        (0..8)
            .map(|power| 1 << power)
            .find(|side| fits(*side))
            .unwrap_or(1)
    }
}

/// The size nearest to `size` that `fits`: sides that are multiples of `factor`, at most `largest`.
fn nearest(
    size: ImageSize,
    factor: u32,
    largest: ImageSize,
    fits: impl Fn(ImageSize) -> bool,
) -> Option<ImageSize> {
    let multiples = |side: u32, largest: u32| {
        let low = (side / factor * factor).max(factor);
        [low, low.saturating_add(factor)].map(|side| side.min(largest / factor * factor))
    };
    let candidates = multiples(size.width, largest.width)
        .into_iter()
        .flat_map(|width| {
            let heights = multiples(size.height, largest.height);
            heights.map(|height| ImageSize::new(width, height))
        });
    let distance = |other: &ImageSize| {
        u64::from(other.width.abs_diff(size.width)) + u64::from(other.height.abs_diff(size.height))
    };
    candidates.filter(|size| fits(*size)).min_by_key(distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_sizes_fit() {
        let largest = ImageSize::new(1024, 1024);
        let near = |width, height| nearest(ImageSize::new(width, height), 64, largest, |_| true);
        assert_eq!(near(500, 512), Some(ImageSize::new(512, 512)));
        assert_eq!(near(1, 90), Some(ImageSize::new(64, 64)));
        assert_eq!(near(5000, 100), Some(ImageSize::new(1024, 128)));
        let only = |size: ImageSize| size.width == 128;
        let near = nearest(ImageSize::new(64, 64), 64, largest, only);
        assert_eq!(near, Some(ImageSize::new(128, 64)));
    }
}
