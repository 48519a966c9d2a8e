//! Configuration of the ControlNet.

use crate::{
    json,
    models::{
        blocks::Shared,
        unet2d::{ClassEmbedType, TimeScaleShift},
        unet2d_condition::{
            AdditionEmbedType, CrossDownBlockType, CrossMidBlockType, EncoderHidDimType, PerBlock,
            TransformerLayers, UNet2dConditionConfig, one_number, usual_fields,
        },
    },
};
use aigc_core::{Error, Result, check::ensure, weights::Loaded};
use serde::{Deserialize, Serialize};

/// Order of the channels in which a ControlNet was trained on images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChannelOrder {
    /// Red first, as the images that it receives.
    Rgb,
    /// Blue first: the channels of the images are reversed.
    Bgr,
}

/// Configuration of a [`ControlNetModel`](super::ControlNetModel); the fields are those of
/// diffusers' `ControlNetModel`. The default is that of diffusers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlNetConfig {
    /// Channels of the U-net's input.
    pub in_channels: usize,
    /// Channels of the images that it is conditioned on.
    pub conditioning_channels: usize,
    /// Cosines before sines.
    pub flip_sin_to_cos: bool,
    /// How much lower the last frequency of the time is.
    pub freq_shift: f64,
    /// Blocks of the encoder, from the largest size on.
    pub down_block_types: Vec<CrossDownBlockType>,
    /// Blocks at the smallest size.
    pub mid_block_type: CrossMidBlockType,
    /// Whether the pixels of a block do not attend to each other, but twice to the tokens.
    pub only_cross_attention: PerBlock<bool>,
    /// Channels at each size, from the largest on.
    pub block_out_channels: Vec<usize>,
    /// Layers of each block.
    #[serde(deserialize_with = "one_number")]
    pub layers_per_block: usize,
    /// Zeros around a map that is halved; 0: after its last row and column.
    pub downsample_padding: usize,
    /// Divisor of the sums in the middle.
    pub mid_block_scale_factor: f64,
    /// Activation function.
    pub act_fn: String,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// Epsilon of the norms.
    pub norm_eps: f64,
    /// Width of the tokens.
    #[serde(deserialize_with = "one_number")]
    pub cross_attention_dim: usize,
    /// Transformer blocks in each attention.
    pub transformer_layers_per_block: TransformerLayers,
    /// Width of the hidden states of the encoder, if a layer maps them to the width of the tokens.
    pub encoder_hid_dim: Option<usize>,
    /// How they are mapped; [`TextProj`](EncoderHidDimType::TextProj) by default.
    pub encoder_hid_dim_type: Option<EncoderHidDimType>,
    /// Heads of each attention: files call their number so.
    pub attention_head_dim: PerBlock,
    /// Whether the projections around transformer blocks are linear layers, not convolutions.
    pub use_linear_projection: bool,
    /// How a class is encoded; by a table of `num_class_embeds` embeddings by default.
    pub class_embed_type: Option<ClassEmbedType>,
    /// What blocks receive besides time and class.
    pub addition_embed_type: Option<AdditionEmbedType>,
    /// Width of each encoded number of [`TextTime`](AdditionEmbedType::TextTime).
    pub addition_time_embed_dim: Option<usize>,
    /// Number of class embeddings, if there are any.
    pub num_class_embeds: Option<usize>,
    /// Whether diffusers computes attention in 32-bit floats if the weights have 16 bits. Has no
    /// effect here.
    pub upcast_attention: bool,
    /// How blocks receive the time.
    pub resnet_time_scale_shift: TimeScaleShift,
    /// Width of the given class vectors, and of the pooled vector with the encoded sizes.
    pub projection_class_embeddings_input_dim: Option<usize>,
    /// Order of the channels in which it was trained on images.
    pub controlnet_conditioning_channel_order: ChannelOrder,
    /// Channels of the convolutions that the image goes through. All but the first of them halve
    /// its sides: with four of them, the sides of an image are eight times those of the latents.
    pub conditioning_embedding_out_channels: Vec<usize>,
    /// Whether the mean of each map is added, in place of the map.
    pub global_pool_conditions: bool,
}

/// A configuration of the type `$to` with the fields that it shares with `$from`, and further ones.
macro_rules! with_shared_fields {
    ($from:expr, $to:ident { $($rest:tt)* }) => {{
        let from = $from.clone();
        $to {
            in_channels: from.in_channels,
            flip_sin_to_cos: from.flip_sin_to_cos,
            freq_shift: from.freq_shift,
            down_block_types: from.down_block_types,
            only_cross_attention: from.only_cross_attention,
            block_out_channels: from.block_out_channels,
            layers_per_block: from.layers_per_block,
            downsample_padding: from.downsample_padding,
            mid_block_scale_factor: from.mid_block_scale_factor,
            act_fn: from.act_fn,
            norm_num_groups: from.norm_num_groups,
            norm_eps: from.norm_eps,
            cross_attention_dim: from.cross_attention_dim,
            transformer_layers_per_block: from.transformer_layers_per_block,
            encoder_hid_dim: from.encoder_hid_dim,
            encoder_hid_dim_type: from.encoder_hid_dim_type,
            attention_head_dim: from.attention_head_dim,
            use_linear_projection: from.use_linear_projection,
            class_embed_type: from.class_embed_type,
            addition_embed_type: from.addition_embed_type,
            addition_time_embed_dim: from.addition_time_embed_dim,
            num_class_embeds: from.num_class_embeds,
            upcast_attention: from.upcast_attention,
            resnet_time_scale_shift: from.resnet_time_scale_shift,
            projection_class_embeddings_input_dim: from.projection_class_embeddings_input_dim,
            $($rest)*
        }
    }};
}

impl Default for ControlNetConfig {
    fn default() -> Self {
        Self::from_unet(&UNet2dConditionConfig::default())
    }
}

impl ControlNetConfig {
    /// The configuration of a ControlNet for a U-net, with the images of Stable Diffusion's
    /// ControlNets: three channels, and sides eight times those of the latents.
    pub fn from_unet(unet: &UNet2dConditionConfig) -> Self {
        let attends = CrossMidBlockType::UNetMidBlock2DCrossAttn;
        with_shared_fields!(
            unet,
            ControlNetConfig {
                mid_block_type: unet.mid_block_type.unwrap_or(attends),
                conditioning_channels: 3,
                controlnet_conditioning_channel_order: ChannelOrder::Rgb,
                conditioning_embedding_out_channels: vec![16, 32, 96, 256],
                global_pool_conditions: false,
            }
        )
    }

    /// The fields as those of the U-net whose encoder this is; those of its decoder are defaults.
    pub(super) fn encoder(&self) -> UNet2dConditionConfig {
        with_shared_fields!(
            self,
            UNet2dConditionConfig {
                mid_block_type: Some(self.mid_block_type),
                ..UNet2dConditionConfig::default()
            }
        )
    }

    /// A configuration from the fields of its file; the others have defaults. The report lists
    /// unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Config`] names a field with a value that it cannot have, or that is not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let mut fields = json::parse_object(text)?;
        usual_fields(&mut fields);
        let config: Loaded<Self> = json::network(fields, "ControlNetModel", &[])?;
        config.validate()?;
        Ok(config)
    }

    /// The configuration as diffusers writes it.
    pub fn to_json(&self) -> String {
        json::to_text(self, "ControlNetModel")
    }

    /// How many times the sides of the latents the sides of an image are.
    pub fn conditioning_factor(&self) -> usize {
        let layers = self.conditioning_embedding_out_channels.len();
        1 << layers.saturating_sub(1)
    }

    /// The fields as those of a U-net, and the settings of all blocks.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub(super) fn validate(&self) -> Result<(UNet2dConditionConfig, Shared)> {
        let encoder = self.encoder();
        let shared = encoder.validate_encoder()?;
        let channels = &self.conditioning_embedding_out_channels;
        json::check_ranges(&[
            ("conditioning_channels", self.conditioning_channels, 1 << 12),
            ("conditioning_embedding_out_channels", channels.len(), 16),
        ])?;
        for channels in channels {
            let field = "conditioning_embedding_out_channels";
            json::check_ranges(&[(field, *channels, 1 << 14)])?;
        }
        ensure(
            self.class_embed_type != Some(ClassEmbedType::SimpleProjection),
            "class_embed_type",
            "simple_projection",
            "timestep, identity, projection or null",
        )?;
        Ok((encoder, shared))
    }

    /// Checks that a U-net has the encoder that this configuration describes.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first field that differs.
    pub(super) fn check_unet(&self, unet: &UNet2dConditionConfig) -> Result<()> {
        // A ControlNet has no fields for these.
        let kernel = self.encoder().conv_in_kernel;
        let expected = format!("{kernel}, for a ControlNet");
        ensure(
            unet.conv_in_kernel == kernel,
            "conv_in_kernel",
            unet.conv_in_kernel,
            &expected,
        )?;
        let width = 4 * self.block_out_channels.first().copied().unwrap_or(0);
        let given = unet.time_embedding_dim.unwrap_or(width);
        let expected = format!("{width}, for a ControlNet");
        ensure(given == width, "time_embedding_dim", given, &expected)?;
        // What the images go through is free.
        let expected = Self {
            conditioning_channels: self.conditioning_channels,
            controlnet_conditioning_channel_order: self.controlnet_conditioning_channel_order,
            conditioning_embedding_out_channels: self.conditioning_embedding_out_channels.clone(),
            global_pool_conditions: self.global_pool_conditions,
            ..Self::from_unet(unet)
        };
        let (own, expected) = (json::to_map(self), json::to_map(&expected));
        match own
            .iter()
            .find(|(field, value)| expected[*field] != **value)
        {
            Some((field, value)) => {
                let expected = format!("{}, the U-net's", expected[field]);
                Err(Error::config(field, value, expected))
            }
            None => Ok(()),
        }
    }
}
