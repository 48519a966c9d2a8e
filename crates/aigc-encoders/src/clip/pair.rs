//! Both encoders, and the scale of their cosines.

use super::{
    ClipConfig,
    files::{self, clip_methods},
    layers::projection,
    text::TextTransformer,
    vision::VisionTransformer,
};
use crate::layers::widened;
#[cfg(doc)]
use aigc_core::Error;
use aigc_core::{
    Result,
    nn::{Initializer, Linear},
    params::{ParamMapper, map_params},
    weights::{KeyMapping, Loaded, OpenOptions, WeightDtype, WeightReader, pytorch_key},
};
use burn::{
    module::{Module, Param},
    tensor::{Bool, Device, Int, Tensor, TensorData},
};
use std::path::Path;

/// Name of the logarithm of the scale of the logits.
const SCALE: &str = "logit_scale";

/// A text encoder and a vision encoder whose embeddings of a picture and its caption point in the
/// same direction: transformers' `CLIPModel`.
#[derive(Module, Debug)]
pub struct ClipModel {
    text_model: TextTransformer,
    vision_model: VisionTransformer,
    visual_projection: Linear,
    text_projection: Linear,
    /// Logarithm of the scale of the logits, `[1]`.
    pub logit_scale: Param<Tensor<1>>,
    #[module(skip)]
    config: ClipConfig,
}

/// Output of a [`ClipModel`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClipOutput {
    /// Cosines times the scale, `[images, texts]`.
    pub logits_per_image: Tensor<2>,
    /// Cosines times the scale, `[texts, images]`.
    pub logits_per_text: Tensor<2>,
    /// Embeddings of length 1, `[texts, projection_dim]`.
    pub text_embeds: Tensor<2>,
    /// Embeddings of length 1, `[images, projection_dim]`.
    pub image_embeds: Tensor<2>,
}

impl ClipConfig {
    /// Creates both networks on `device`, with the initial weights of transformers.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn init(&self, device: &Device) -> Result<ClipModel> {
        self.validate()?;
        let (to, factor) = (self.projection_dim, self.initializer_factor);
        let from = |width| projection([width, to], factor, device);
        let scale = Initializer::Constant(self.logit_scale_init_value);
        Ok(ClipModel {
            text_model: TextTransformer::new(&self.text_config, device),
            vision_model: VisionTransformer::new(&self.vision_config, device),
            visual_projection: from(self.vision_config.hidden_size),
            text_projection: from(self.text_config.hidden_size),
            logit_scale: scale.param([1], 1, 1, device),
            config: self.clone(),
        })
    }
}

impl ClipModel {
    /// Configuration of the networks.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// Projected embeddings of texts, which are not normalised.
    ///
    /// # Shapes
    /// - input_ids: `[batch, tokens]`
    /// - attention_mask: `[batch, tokens]`, false at padding
    /// - output: `[batch, projection_dim]`
    ///
    /// # Panics
    /// If there are more than `max_position_embeddings` tokens, one is not below `vocab_size`, or
    /// the mask has another shape.
    pub fn get_text_features(
        &self,
        input_ids: Tensor<2, Int>,
        attention_mask: Option<Tensor<2, Bool>>,
    ) -> Tensor<2> {
        let eos_token_id = self.config.text_config.eos_token_id;
        let output = self
            .text_model
            .forward(eos_token_id, input_ids, attention_mask);
        self.text_projection.forward(output.pooler_output)
    }

    /// Projected embeddings of images, which are not normalised.
    ///
    /// # Shapes
    /// - pixel_values: `[batch, num_channels, image_size, image_size]`
    /// - output: `[batch, projection_dim]`
    ///
    /// # Panics
    /// If the images have another shape.
    pub fn get_image_features(&self, pixel_values: Tensor<4>) -> Tensor<2> {
        let output = self.vision_model.forward(pixel_values);
        self.visual_projection.forward(output.pooler_output)
    }

    /// Compares every image with every text.
    ///
    /// # Shapes
    /// - input_ids: `[texts, tokens]`
    /// - pixel_values: `[images, num_channels, image_size, image_size]`
    /// - attention_mask: `[texts, tokens]`, false at padding
    ///
    /// # Panics
    /// As [`get_text_features`](Self::get_text_features) and
    /// [`get_image_features`](Self::get_image_features).
    pub fn forward(
        &self,
        input_ids: Tensor<2, Int>,
        pixel_values: Tensor<4>,
        attention_mask: Option<Tensor<2, Bool>>,
    ) -> ClipOutput {
        let image_embeds = self.get_image_features(pixel_values);
        let text_embeds = self.get_text_features(input_ids, attention_mask);
        compare(text_embeds, image_embeds, self.logit_scale.val())
    }

    fn load(
        config: Loaded<ClipConfig>,
        files: &WeightReader,
        dtype: WeightDtype,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let created = config.try_map(|config| config.init(device))?;
        // transformers stores the scale as a number without axes.
        let scale = files
            .names()
            .find(|name| *name == SCALE || name.ends_with(&format!(".{SCALE}")))
            .filter(|name| files.shape(name) == Some(&[]))
            .map(str::to_owned);
        let mut loaded = files::load(files, created, dtype, |key| match &scale {
            Some(_) if key.path == SCALE => KeyMapping::skip(),
            _ => pytorch_key(key),
        })?;
        if let Some(name) = scale {
            loaded.unused_tensors.retain(|unused| *unused != name);
            let value = files.read(&name)?[0];
            loaded = loaded.map(|model| map_params(model, &mut SetScale(value)));
        }
        Ok(loaded)
    }

    fn to_json(&self) -> String {
        self.config.to_json()
    }

    clip_methods!(ClipConfig, scalars: &[SCALE]);
}

/// Sets the scale to a value from a file.
struct SetScale(f32);

impl ParamMapper for SetScale {
    fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if path != SCALE {
            return param;
        }
        let data = TensorData::new(vec![self.0], [1; D]);
        let (id, tensor) = (param.id, Tensor::from_data(data, &param.lazy_device()));
        param.transform_for_load(tensor, id)
    }
}

/// Compares embeddings of any length; `logit_scale` is the logarithm of the scale.
pub(super) fn compare(text: Tensor<2>, image: Tensor<2>, logit_scale: Tensor<1>) -> ClipOutput {
    let (text_embeds, image_embeds) = (unit_length(text), unit_length(image));
    let cosines = text_embeds.clone().matmul(image_embeds.clone().transpose());
    let logits_per_text = cosines * widened(logit_scale).exp().unsqueeze::<2>();
    ClipOutput {
        logits_per_image: logits_per_text.clone().transpose(),
        logits_per_text,
        text_embeds,
        image_embeds,
    }
}

/// Vectors of length 1 in the same directions; vectors of no length stay.
pub(super) fn unit_length(x: Tensor<2>) -> Tensor<2> {
    let length = x.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
    x / length
}
