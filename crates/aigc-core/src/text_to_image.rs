//! Images from a prompt: one interface for local pipelines, clients of images APIs and custom
//! models.

use crate::{CancelToken, Error, Result};
use image::{DynamicImage, GrayImage};
use std::{fmt::Debug, ops::ControlFlow, ops::Range};

/// Makes images from a prompt.
pub trait TextToImage: Debug {
    /// Name of the model, such as that of its directory, or of the API's model.
    fn model_name(&self) -> &str;

    /// Makes the images of a request.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names a field of the request that the model cannot fulfil;
    /// [`Error::Cancelled`] if it was cancelled before there was an image; errors of the model.
    fn generate_with(
        &self,
        request: &ImageRequest,
        options: &mut GenerationOptions<'_>,
    ) -> Result<GeneratedImages>;

    /// [`generate_with`](Self::generate_with) without progress and cancellation.
    ///
    /// # Errors
    /// As [`generate_with`](Self::generate_with).
    fn generate(&self, request: &ImageRequest) -> Result<GeneratedImages> {
        self.generate_with(request, &mut GenerationOptions::default())
    }
}

/// Width and height of an image in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImageSize {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

impl ImageSize {
    /// A size from its sides.
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }
}

impl std::fmt::Display for ImageSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl std::str::FromStr for ImageSize {
    type Err = Error;

    /// Parses `512x768`, width first.
    fn from_str(text: &str) -> Result<Self> {
        let sides = text.split_once(['x', 'X', '×']);
        let side = |text: &str| text.trim().parse::<u32>().ok().filter(|side| *side > 0);
        sides
            .and_then(|(width, height)| Some(Self::new(side(width)?, side(height)?)))
            .ok_or_else(|| Error::argument("size", text, "width and height, as in 512x768"))
    }
}

/// What to make. Fields that are not set have the defaults of the model.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ImageRequest {
    /// Description of the images. It may be empty if `image` alone says what they show.
    pub prompt: String,
    /// Description of what the images should not show.
    pub negative_prompt: Option<String>,
    /// Number of images; 1 by default.
    pub n: Option<usize>,
    /// Size of the images.
    pub size: Option<ImageSize>,
    /// Seed. Image `k` of a request depends on the seed and on `k` only.
    pub seed: Option<u64>,
    /// Number of the first image: with `first_image` 2 and `n` 1, the third image of a larger
    /// request is made alone. 0 by default.
    pub first_image: Option<usize>,
    /// Scale of classifier-free guidance.
    pub guidance_scale: Option<f64>,
    /// Number of denoising steps.
    pub num_inference_steps: Option<usize>,
    /// An image to start from, or to edit.
    pub image: Option<DynamicImage>,
    /// Where `image` is to be painted anew: 128 and more. As large as `image`.
    pub mask_image: Option<GrayImage>,
    /// How much of `image` is replaced, from 0 to 1.
    pub strength: Option<f64>,
    /// The image that a ControlNet follows.
    pub control_image: Option<DynamicImage>,
}

impl ImageRequest {
    /// A request with the defaults of the model.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            ..Self::default()
        }
    }

    /// Sets the negative prompt.
    pub fn with_negative_prompt(mut self, negative_prompt: impl Into<String>) -> Self {
        self.negative_prompt = Some(negative_prompt.into());
        self
    }

    /// Sets the number of images.
    pub fn with_n(mut self, n: usize) -> Self {
        self.n = Some(n);
        self
    }

    /// Sets the size.
    pub fn with_size(mut self, width: u32, height: u32) -> Self {
        self.size = Some(ImageSize::new(width, height));
        self
    }

    /// Sets the seed.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets the number of the first image.
    pub fn with_first_image(mut self, first_image: usize) -> Self {
        self.first_image = Some(first_image);
        self
    }

    /// Sets the guidance scale.
    pub fn with_guidance_scale(mut self, guidance_scale: f64) -> Self {
        self.guidance_scale = Some(guidance_scale);
        self
    }

    /// Sets the number of steps.
    pub fn with_num_inference_steps(mut self, steps: usize) -> Self {
        self.num_inference_steps = Some(steps);
        self
    }

    /// Starts from an image, of which `strength` (0 to 1) is replaced.
    pub fn with_image(mut self, image: DynamicImage, strength: Option<f64>) -> Self {
        self.image = Some(image);
        self.strength = strength;
        self
    }

    /// Sets where the image is painted anew.
    pub fn with_mask_image(mut self, mask_image: GrayImage) -> Self {
        self.mask_image = Some(mask_image);
        self
    }

    /// Sets the image that a ControlNet follows.
    pub fn with_control_image(mut self, control_image: DynamicImage) -> Self {
        self.control_image = Some(control_image);
        self
    }
}

/// The part of a request that is in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GenerationStage {
    /// Models that the next stage needs, and that are not in memory, are being read.
    Loading,
    /// The prompt, and the image to start from, are being encoded.
    Encoding,
    /// The network denoises.
    Denoising,
    /// The latents are being decoded.
    Decoding,
    /// An API has the request.
    Waiting,
}

/// Progress of a request.
pub struct GenerationProgress<'a> {
    /// The part that is in progress.
    pub stage: GenerationStage,
    /// The images in progress, of all that were requested.
    pub images: Range<usize>,
    /// Number of images requested.
    pub total: usize,
    /// Steps done in this stage, for these images.
    pub step: usize,
    /// Steps of this stage, for these images.
    pub num_steps: usize,
    /// Computes small or unfinished pictures of the images in progress; `None` where there are
    /// none.
    pub preview: Option<&'a dyn Fn() -> Vec<DynamicImage>>,
}

impl Debug for GenerationProgress<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GenerationProgress")
            .field("stage", &self.stage)
            .field("images", &self.images)
            .field("total", &self.total)
            .field("step", &self.step)
            .field("num_steps", &self.num_steps)
            .field("preview", &self.preview.is_some())
            .finish()
    }
}

type OnProgress<'a> = Box<dyn FnMut(&GenerationProgress<'_>) -> ControlFlow<()> + 'a>;

/// Cancellation and progress of [`TextToImage::generate_with`].
#[derive(Default)]
pub struct GenerationOptions<'a> {
    /// Stops between two steps; images that are finished are returned.
    pub cancel: CancelToken,
    on_progress: Option<OnProgress<'a>>,
}

impl<'a> GenerationOptions<'a> {
    /// Sets the token that stops the request.
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.cancel = cancel;
        self
    }

    /// Calls `callback` with the progress; `ControlFlow::Break` stops the request.
    pub fn with_callback(
        mut self,
        callback: impl FnMut(&GenerationProgress<'_>) -> ControlFlow<()> + 'a,
    ) -> Self {
        self.on_progress = Some(Box::new(callback));
        self
    }

    /// Reports progress to the callback; returns whether to continue.
    pub fn report(&mut self, progress: &GenerationProgress<'_>) -> ControlFlow<()> {
        if self.cancel.is_cancelled() {
            return ControlFlow::Break(());
        }
        match &mut self.on_progress {
            Some(callback) => callback(progress),
            None => ControlFlow::Continue(()),
        }
    }
}

impl Debug for GenerationOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GenerationOptions")
            .field("cancel", &self.cancel)
            .field("on_progress", &self.on_progress.is_some())
            .finish()
    }
}

/// An image, with what is needed to make it again.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GeneratedImage {
    /// The image.
    pub image: DynamicImage,
    /// Its number in the request.
    pub index: usize,
    /// The prompt that an API used in place of the given one.
    pub revised_prompt: Option<String>,
    /// Settings by name that are not those of the request: the prompts of this image, where a model
    /// was given several.
    pub settings: Vec<(String, String)>,
}

impl GeneratedImage {
    /// An image and its number.
    pub fn new(image: DynamicImage, index: usize) -> Self {
        Self {
            image,
            index,
            revised_prompt: None,
            settings: vec![],
        }
    }
}

/// The result of a request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GeneratedImages {
    /// The images; fewer than requested if the request was stopped.
    pub images: Vec<GeneratedImage>,
    /// The request with the values that were used in place of unset fields.
    pub request: ImageRequest,
    /// Name of the model.
    pub model: String,
    /// Hash of the model's weights, where they are known.
    pub model_hash: Option<String>,
    /// Further settings by name, such as the scheduler.
    pub settings: Vec<(String, String)>,
    /// What the user should know: a part of the prompt that was cut, a decoder that was run again.
    pub warnings: Vec<String>,
    /// Whether all requested images were finished.
    pub complete: bool,
}

impl GeneratedImages {
    /// Images of a request that was fulfilled, without further settings.
    pub fn new(images: Vec<GeneratedImage>, request: ImageRequest, model: &str) -> Self {
        Self {
            images,
            request,
            model: model.into(),
            model_hash: None,
            settings: vec![],
            warnings: vec![],
            complete: true,
        }
    }
}
