//! CLIP's embeddings as features for evaluation.

use super::{ClipImageProcessor, ClipModel, ClipVisionModel, RgbPixels};
use crate::tokenizer::{ClipTokenizer, check_prompts};
use aigc_core::{
    Error, Result,
    check::ensure_argument,
    eval::{FeatureExtractor, Features},
    weights::{Loaded, WeightReader},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use std::path::Path;

/// Images that are computed at once: the hidden states of all layers are in memory.
const IMAGES: usize = 16;
/// Prompts that are computed at once.
const PROMPTS: usize = 64;

/// Embeddings of images and of prompts by one CLIP model, with its image processor and tokenizer.
///
/// As a [`FeatureExtractor`] it gives the projected embeddings of images, for
/// [`cmmd`](aigc_core::eval::cmmd) and every other distance of features. With
/// [`text_features`](Self::text_features) of the prompts it gives
/// [`clip_score`](aigc_core::eval::clip_score) and
/// [`caption_retrieval`](aigc_core::eval::caption_retrieval). The embeddings are not normalised;
/// these measures do that themselves.
///
/// Images are prepared as transformers does, by the directory's `preprocessor_config.json`.
/// Published values of CMMD (Jayasumana et al. 2024, <https://arxiv.org/abs/2401.09603>) come from
/// Google's code or its port to PyTorch, which resize images to 336×336 pixels by bicubic
/// interpolation without smoothing. Compare values of one preparation only.
///
/// ```no_run
/// use aigc_core::eval::{FeatureExtractor, Features, clip_score};
/// use aigc_encoders::clip::ClipFeatures;
/// # use aigc_core::{Result, device::device};
/// # fn score(images: burn::tensor::Tensor<4>) -> Result<()> {
/// let clip = ClipFeatures::from_pretrained("clip-vit-base-patch16", &device("flex")?)?;
/// let pictures = Features::from_tensor(&clip.extract(images)?)?;
/// let score = clip_score(&pictures, &clip.text_features(&["a cat", "a dog"])?)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct ClipFeatures {
    model: ClipModel,
    processor: ClipImageProcessor,
    tokenizer: ClipTokenizer,
    weights: String,
}

impl ClipFeatures {
    /// Features by a model that is in memory. `weights` names its weights: it has to change with
    /// them, as features are cached under this name.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the tokenizer has tokens that the model does not have, or
    /// longer prompts than the model takes, or the model's images have no three channels.
    pub fn new(
        model: ClipModel,
        processor: ClipImageProcessor,
        tokenizer: ClipTokenizer,
        weights: impl Into<String>,
    ) -> Result<Self> {
        let text = &model.config().text_config;
        let (last, length) = (tokenizer.last_token_id(), tokenizer.max_length());
        ensure_argument(
            (last as usize) < text.vocab_size,
            "token",
            last,
            &format!("below {}, the model's vocab_size", text.vocab_size),
        )?;
        let positions = text.max_position_embeddings;
        ensure_argument(
            length <= positions,
            "max_length",
            length,
            &format!("at most {positions}, the model's max_position_embeddings"),
        )?;
        check_channels(model.config().vision_config.num_channels)?;
        Ok(Self {
            model,
            processor,
            tokenizer,
            weights: weights.into(),
        })
    }

    /// Opens a directory of transformers: `config.json`, the weights, `preprocessor_config.json`
    /// and the tokenizer's files.
    ///
    /// # Errors
    /// As [`ClipModel::from_pretrained`], [`ClipImageProcessor::from_pretrained`],
    /// [`ClipTokenizer::from_pretrained`] and [`new`](Self::new).
    pub fn from_pretrained(dir: impl AsRef<Path>, device: &Device) -> Result<Loaded<Self>> {
        let dir = dir.as_ref();
        let processor = ClipImageProcessor::from_pretrained(dir)?;
        let tokenizer = ClipTokenizer::from_pretrained(dir)?;
        let model = ClipModel::from_pretrained(dir, device)?;
        let model = model.with_unused_fields(processor.unused_fields.clone());
        let weights = hash(dir)?;
        model.try_map(|model| Self::new(model, processor.into_inner(), tokenizer, weights))
    }

    /// The model.
    pub fn model(&self) -> &ClipModel {
        &self.model
    }

    /// Projected embeddings of prompts, `projection_dim` values each. Prompts that are longer than
    /// the tokenizer's [`max_length`](ClipTokenizer::max_length) are cut.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no prompts, or one cannot be encoded.
    pub fn text_features(&self, prompts: &[&str]) -> Result<Features> {
        check_prompts(prompts)?;
        let device = device_of(&self.model);
        let mut features = Features::empty(self.width())?;
        for prompts in prompts.chunks(PROMPTS) {
            let tokens = self.tokenizer.encode_padded(prompts)?;
            let (ids, mask) = (tokens.input_ids(&device), tokens.mask(&device));
            features.extend(&self.model.get_text_features(ids, Some(mask)))?;
        }
        Ok(features)
    }
}

impl FeatureExtractor for ClipFeatures {
    fn id(&self) -> String {
        // The configuration has what weights do not show: activation, heads, small constants.
        let config = self.model.config();
        format!("CLIP {config:?} {:?} {}", self.processor, self.weights)
    }

    fn width(&self) -> usize {
        self.model.config().projection_dim
    }

    /// # Shapes
    /// - images: `[batch, 1 or 3, height, width]` in `[0, 1]`, rounded to 8 bits; grey ones are
    ///   repeated
    /// - output: `[batch, projection_dim]`
    fn extract(&self, images: Tensor<4>) -> Result<Tensor<2>> {
        let device = device_of(&self.model);
        let side = self.model.config().vision_config.image_size;
        in_parts(&self.processor, side, &images, &device, |pixels| {
            self.model.get_image_features(pixels)
        })
    }
}

/// Embeddings of images by a vision encoder alone, with its image processor: the projected ones if
/// the model has a projection, or else the pooled output.
#[derive(Clone, Debug)]
pub struct ClipVisionFeatures {
    model: ClipVisionModel,
    processor: ClipImageProcessor,
    weights: String,
}

impl ClipVisionFeatures {
    /// Features by a model that is in memory. `weights` names its weights: it has to change with
    /// them, as features are cached under this name.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the model's images have no three channels.
    pub fn new(
        model: ClipVisionModel,
        processor: ClipImageProcessor,
        weights: impl Into<String>,
    ) -> Result<Self> {
        check_channels(model.config().num_channels)?;
        Ok(Self {
            model,
            processor,
            weights: weights.into(),
        })
    }

    /// Opens a directory of transformers: `config.json`, the weights and
    /// `preprocessor_config.json`.
    ///
    /// # Errors
    /// As [`ClipVisionModel::from_pretrained`], [`ClipImageProcessor::from_pretrained`] and
    /// [`new`](Self::new).
    pub fn from_pretrained(dir: impl AsRef<Path>, device: &Device) -> Result<Loaded<Self>> {
        let dir = dir.as_ref();
        let processor = ClipImageProcessor::from_pretrained(dir)?;
        let model = ClipVisionModel::from_pretrained(dir, device)?;
        let model = model.with_unused_fields(processor.unused_fields.clone());
        let weights = hash(dir)?;
        model.try_map(|model| Self::new(model, processor.into_inner(), weights))
    }
}

impl FeatureExtractor for ClipVisionFeatures {
    fn id(&self) -> String {
        let config = self.model.config();
        format!(
            "CLIP vision {config:?} {:?} {}",
            self.processor, self.weights
        )
    }

    fn width(&self) -> usize {
        let config = self.model.config();
        match config.with_projection {
            true => config.projection_dim,
            false => config.hidden_size,
        }
    }

    /// # Shapes
    /// - images: `[batch, 1 or 3, height, width]` in `[0, 1]`, rounded to 8 bits; grey ones are
    ///   repeated
    /// - output: `[batch, projection_dim or hidden_size]`
    fn extract(&self, images: Tensor<4>) -> Result<Tensor<2>> {
        let device = device_of(&self.model);
        let side = self.model.config().image_size;
        in_parts(&self.processor, side, &images, &device, |pixels| {
            let output = self.model.forward(pixels);
            output.image_embeds.unwrap_or(output.pooler_output)
        })
    }
}

fn check_channels(channels: usize) -> Result<()> {
    let expected = "3, as the image processor returns them";
    ensure_argument(channels == 3, "num_channels", channels, expected)
}

/// Hash of the weights in a model's directory.
fn hash(dir: &Path) -> Result<String> {
    WeightReader::from_dir(dir, &["model", "pytorch_model"])?.hash()
}

fn device_of(model: &impl Module) -> Device {
    model.devices().into_iter().next().unwrap_or_default()
}

/// What `forward` gives for the prepared images, some at a time.
fn in_parts(
    processor: &ClipImageProcessor,
    side: usize,
    images: &Tensor<4>,
    device: &Device,
    forward: impl Fn(Tensor<4>) -> Tensor<2>,
) -> Result<Tensor<2>> {
    let [count, channels, height, width] = images.dims();
    let shape = format!("{count} of {channels} × {height} × {width}");
    let expected = "at least one image of 1 (grey) or 3 (RGB) channels, with pixels";
    let fits = matches!(channels, 1 | 3) && count * height * width > 0;
    ensure_argument(fits, "images", shape, expected)?;
    let mut parts = Vec::with_capacity(count.div_ceil(IMAGES));
    for first in (0..count).step_by(IMAGES) {
        let part = images.clone().narrow(0, first, IMAGES.min(count - first));
        let bytes = to_bytes(part)?;
        let pictures: Vec<RgbPixels<'_>> = bytes
            .chunks_exact(3 * height * width)
            .map(|pixels| RgbPixels {
                pixels,
                height,
                width,
            })
            .collect();
        let pixels = processor.preprocess(&pictures, device)?;
        let [_, _, height, width] = pixels.dims();
        ensure_argument(
            [height, width] == [side; 2],
            "images",
            format!("{height} × {width} pixels from the image processor"),
            &format!("{side} × {side}, as the model takes them"),
        )?;
        parts.push(forward(pixels));
    }
    Ok(Tensor::cat(parts, 0))
}

/// The bytes of images in `[0, 1]`, the channels of a pixel side by side.
fn to_bytes(images: Tensor<4>) -> Result<Vec<u8>> {
    let [count, channels, height, width] = images.dims();
    let (plane, mut bytes) = (height * width, vec![0; count * height * width * 3]);
    let values: Vec<f32> = images.into_data().iter::<f32>().collect();
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        return Err(Error::argument("images", value, "finite values"));
    }
    let images = values.chunks_exact(channels * plane);
    for (image, bytes) in images.zip(bytes.chunks_exact_mut(3 * plane)) {
        for (at, pixel) in bytes.chunks_exact_mut(3).enumerate() {
            for (channel, byte) in pixel.iter_mut().enumerate() {
                let value = image[channel % channels * plane + at];
                *byte = (value.clamp(0.0, 1.0) * 255.0).round() as u8;
            }
        }
    }
    Ok(bytes)
}

#[cfg(all(test, feature = "flex"))]
mod tests;
