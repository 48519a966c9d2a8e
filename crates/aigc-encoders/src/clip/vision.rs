//! The vision encoder.

use super::{
    ClipVisionConfig,
    config::EncoderConfig,
    files::{self, clip_methods},
    layers::Encoder,
};
use crate::layers::{Embedding, normal, widened};
#[cfg(doc)]
use aigc_core::Error;
use aigc_core::{
    Result,
    nn::{Conv2d, Conv2dConfig, LayerNorm, Linear},
    weights::{Loaded, OpenOptions, WeightDtype, WeightReader},
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor},
};
use std::path::Path;

#[derive(Module, Debug)]
struct VisionEmbeddings {
    class_embedding: Param<Tensor<1>>,
    patch_embedding: Conv2d,
    position_embedding: Embedding,
}

/// The vision encoder without a projection; in files `vision_model`.
#[derive(Module, Debug)]
pub(super) struct VisionTransformer {
    embeddings: VisionEmbeddings,
    /// The name in files is misspelt.
    pre_layrnorm: LayerNorm,
    encoder: Encoder,
    post_layernorm: LayerNorm,
    image_size: usize,
}

impl VisionTransformer {
    pub(super) fn new(config: &ClipVisionConfig, device: &Device) -> Self {
        let shared = config.shared();
        let (width, factor) = (config.hidden_size, config.initializer_factor);
        let std = config.initializer_range * factor;
        let class = normal((width as f64).powf(-0.5) * factor);
        let patches = Conv2dConfig::new([config.num_channels, width], config.patch_size)
            .with_stride(config.patch_size)
            .with_bias(false)
            .with_initializer(normal(std));
        let positions = [config.num_positions(), width];
        Self {
            embeddings: VisionEmbeddings {
                class_embedding: class.param([width], 1, 1, device),
                patch_embedding: patches.init(device),
                position_embedding: Embedding::new(positions, std, device),
            },
            pre_layrnorm: shared.norm(device),
            encoder: shared.encoder(device),
            post_layernorm: shared.norm(device),
            image_size: config.image_size,
        }
    }

    /// All hidden states, and the normalised one of the token of the class.
    pub(super) fn forward(&self, pixel_values: Tensor<4>) -> ClipVisionOutput {
        let VisionEmbeddings {
            class_embedding,
            patch_embedding,
            position_embedding,
        } = &self.embeddings;
        let [batch, _, height, width] = pixel_values.dims();
        let side = self.image_size;
        assert!(
            height == side && width == side,
            "images of {height} × {width}, expected {side} × {side}"
        );
        let patches = patch_embedding.forward(pixel_values);
        let patches = patches.flatten::<3>(2, 3).swap_dims(1, 2);
        let [_, count, d] = patches.dims();
        let class = widened(class_embedding.val()).reshape([1, 1, d]);
        let tokens = Tensor::cat(vec![class.expand([batch, 1, d]), patches], 1);
        let tokens = tokens + position_embedding.first(count + 1);
        let hidden_states = self
            .encoder
            .forward(self.pre_layrnorm.forward(tokens), None, false);
        let last_hidden_state = hidden_states[hidden_states.len() - 1].clone();
        let class = last_hidden_state.clone().narrow(1, 0, 1).squeeze_dim(1);
        ClipVisionOutput {
            pooler_output: self.post_layernorm.forward::<2>(class),
            last_hidden_state,
            image_embeds: None,
            hidden_states,
        }
    }
}

/// Output of a [`ClipVisionModel`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClipVisionOutput {
    /// The output of the last layer, `[batch, 1 + patches, hidden_size]`: the token of the class
    /// first, without a layer norm.
    pub last_hidden_state: Tensor<3>,
    /// The last hidden state of the class after a layer norm, `[batch, hidden_size]`.
    pub pooler_output: Tensor<2>,
    /// The projected pooled output, `[batch, projection_dim]`, if the model has a projection.
    pub image_embeds: Option<Tensor<2>>,
    /// The normalised embeddings, and the output of every layer.
    pub hidden_states: Vec<Tensor<3>>,
}

/// CLIP's vision encoder (Radford et al. 2021, <https://arxiv.org/abs/2103.00020>), a vision
/// transformer (Dosovitskiy et al. 2021, <https://arxiv.org/abs/2010.11929>). transformers'
/// `CLIPVisionModel`, and `CLIPVisionModelWithProjection` if the configuration has a projection.
#[derive(Module, Debug)]
pub struct ClipVisionModel {
    vision_model: VisionTransformer,
    visual_projection: Option<Linear>,
    #[module(skip)]
    config: ClipVisionConfig,
}

impl ClipVisionConfig {
    /// Creates the network on `device`, with the initial weights of transformers.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn init(&self, device: &Device) -> Result<ClipVisionModel> {
        self.validate()?;
        Ok(ClipVisionModel {
            vision_model: VisionTransformer::new(self, device),
            visual_projection: self.shared().projection(device),
            config: self.clone(),
        })
    }
}

impl ClipVisionModel {
    /// Configuration of the network.
    pub fn config(&self) -> &ClipVisionConfig {
        &self.config
    }

    /// Encodes images.
    ///
    /// # Shapes
    /// - pixel_values: `[batch, num_channels, image_size, image_size]`, as a
    ///   [`ClipImageProcessor`](super::ClipImageProcessor) returns them
    ///
    /// # Panics
    /// If the images have another shape.
    pub fn forward(&self, pixel_values: Tensor<4>) -> ClipVisionOutput {
        let output = self.vision_model.forward(pixel_values);
        let project = |projection: &Linear| projection.forward(output.pooler_output.clone());
        ClipVisionOutput {
            image_embeds: self.visual_projection.as_ref().map(project),
            ..output
        }
    }

    /// Loads weights. A projection in the files is loaded even if the configuration has none.
    fn load(
        mut config: Loaded<ClipVisionConfig>,
        files: &WeightReader,
        dtype: WeightDtype,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        config.value.with_projection |= files::has(files, "visual_projection.weight");
        let created = config.try_map(|config| config.init(device))?;
        files::load(files, created, dtype, |key| {
            files::optional_prefix(key, "vision_model.")
        })
    }

    fn to_json(&self) -> String {
        self.config.to_json()
    }

    clip_methods!(ClipVisionConfig);
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        rng::{InitWeights, Rng},
        testing::{flex, values},
    };

    /// A side of 7 pixels has room for three patches of 2; the last row and column have no effect.
    #[test]
    fn pixels_beyond_the_last_patch_have_no_effect() {
        let config = ClipVisionConfig {
            hidden_size: 8,
            intermediate_size: 12,
            projection_dim: 5,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            image_size: 7,
            patch_size: 2,
            with_projection: true,
            ..ClipVisionConfig::default()
        };
        let model = config.init(&flex()).unwrap().init_weights(1);
        let pixels: Tensor<4> = Rng::new(2).normal([2, 3, 7, 7], &flex());
        let run = |pixels: Tensor<4>| model.forward(pixels);
        let output = run(pixels.clone());
        assert_eq!(output.last_hidden_state.dims(), [2, 10, 8]);
        assert_eq!(output.hidden_states.len(), 3);
        let embeds = output.image_embeds.unwrap();
        assert_eq!(embeds.dims(), [2, 5]);
        let embeds = values(embeds);
        let without = |rows: std::ops::Range<usize>| {
            let zeros = Tensor::<4>::zeros([2, 3, rows.len(), 7], &flex());
            let changed = pixels.clone().slice_assign([0..2, 0..3, rows, 0..7], zeros);
            values(run(changed).image_embeds.unwrap())
        };
        assert_eq!(without(6..7), embeds);
        assert_ne!(without(5..6), embeds);
    }
}
