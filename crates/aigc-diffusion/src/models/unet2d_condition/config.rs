//! Configuration of the U-net with cross-attention.

use super::types::{
    AdditionEmbedType, CrossDownBlockType, CrossMidBlockType, CrossUpBlockType, EncoderHidDimType,
    PerBlock, TransformerLayers, one_number,
};
use crate::{
    denoiser::check_image,
    json,
    models::{
        SampleSize,
        unet2d::{ClassEmbedType, TimeScaleShift},
    },
};
use aigc_core::{Error, Result, data::SampleShape, weights::Loaded};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Configuration of a [`UNet2dConditionModel`](super::UNet2dConditionModel); the fields are those
/// of diffusers' `UNet2DConditionModel`. The default is that of diffusers, which is Stable
/// Diffusion 1 with wider tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UNet2dConditionConfig {
    /// Size of the images that it is for. It processes any other size too.
    pub sample_size: Option<SampleSize>,
    /// Channels of its input: those of an image, and further ones for inpainting or upscaling.
    pub in_channels: usize,
    /// Channels of its output: those of an image, or twice as many with a variance.
    pub out_channels: usize,
    /// Whether inputs are in `[0, 1]` and are mapped to `[−1, 1]` first.
    pub center_input_sample: bool,
    /// Cosines before sines.
    pub flip_sin_to_cos: bool,
    /// How much lower the last frequency of the time is.
    pub freq_shift: f64,
    /// Blocks of the encoder, from the largest size on.
    pub down_block_types: Vec<CrossDownBlockType>,
    /// Blocks at the smallest size, if there are any.
    pub mid_block_type: Option<CrossMidBlockType>,
    /// Blocks of the decoder, from the smallest size on.
    pub up_block_types: Vec<CrossUpBlockType>,
    /// Whether the pixels of a block do not attend to each other, but twice to the tokens. Those in
    /// the middle always attend to each other.
    pub only_cross_attention: PerBlock<bool>,
    /// Channels at each size, from the largest on.
    pub block_out_channels: Vec<usize>,
    /// Layers of each encoder block; decoder blocks have one more.
    #[serde(deserialize_with = "one_number")]
    pub layers_per_block: usize,
    /// Zeros around a map that is halved; 0: after its last row and column.
    pub downsample_padding: usize,
    /// Divisor of the sums in the middle.
    pub mid_block_scale_factor: f64,
    /// Dropout probability.
    pub dropout: f64,
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
    /// Transformer blocks in the attentions of the decoder, from the smallest size on; by default,
    /// those of the encoder in reverse.
    pub reverse_transformer_layers_per_block: Option<Vec<PerBlock>>,
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
    /// Width of the time embedding; four times the first block's by default.
    pub time_embedding_dim: Option<usize>,
    /// Width of the encoded [guidance scale](crate::Conditioning::guidance), of latent consistency
    /// models.
    pub time_cond_proj_dim: Option<usize>,
    /// Side of the first convolution's kernel.
    pub conv_in_kernel: usize,
    /// Side of the last convolution's kernel.
    pub conv_out_kernel: usize,
    /// Width of the given class vectors, and of the pooled vector with the encoded sizes.
    pub projection_class_embeddings_input_dim: Option<usize>,
}

impl Default for UNet2dConditionConfig {
    fn default() -> Self {
        use {CrossDownBlockType::*, CrossUpBlockType::*};
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            center_input_sample: false,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: vec![
                CrossAttnDownBlock2D,
                CrossAttnDownBlock2D,
                CrossAttnDownBlock2D,
                DownBlock2D,
            ],
            mid_block_type: Some(CrossMidBlockType::UNetMidBlock2DCrossAttn),
            up_block_types: vec![
                UpBlock2D,
                CrossAttnUpBlock2D,
                CrossAttnUpBlock2D,
                CrossAttnUpBlock2D,
            ],
            only_cross_attention: PerBlock::One(false),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: 2,
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            dropout: 0.0,
            act_fn: "silu".into(),
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: 1280,
            transformer_layers_per_block: TransformerLayers::All(1),
            reverse_transformer_layers_per_block: None,
            encoder_hid_dim: None,
            encoder_hid_dim_type: None,
            attention_head_dim: PerBlock::One(8),
            use_linear_projection: false,
            class_embed_type: None,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            num_class_embeds: None,
            upcast_attention: false,
            resnet_time_scale_shift: TimeScaleShift::Default,
            time_embedding_dim: None,
            time_cond_proj_dim: None,
            conv_in_kernel: 3,
            conv_out_kernel: 3,
            projection_class_embeddings_input_dim: None,
        }
    }
}

/// Fields of options that are not implemented, and the value that they have to have.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("attention_type", "\"default\""),
    ("class_embeddings_concat", "false"),
    ("dual_cross_attention", "false"),
    ("time_embedding_act_fn", "null"),
    ("time_embedding_type", "\"positional\""),
    ("timestep_post_act", "null"),
];

/// Fields that have no effect on the types of blocks and embeddings that are implemented.
const IDLE: &[&str] = &[
    "addition_embed_type_num_heads",
    "cross_attention_norm",
    "mid_block_only_cross_attention",
    "resnet_out_scale_factor",
    "resnet_skip_time_act",
];

/// Removes the fields that have no effect, and gives heads the name that the field has here.
pub(in crate::models) fn usual_fields(fields: &mut Map<String, Value>) {
    for field in IDLE {
        fields.remove(*field);
    }
    if let Some(heads) = fields.remove("num_attention_heads")
        && !heads.is_null()
    {
        fields.insert("attention_head_dim".into(), heads);
    }
}

impl UNet2dConditionConfig {
    /// A configuration from the fields of its file; the others have defaults. The report lists
    /// unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Config`] names a field with a value that it cannot have, or that is not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let mut fields = json::parse_object(text)?;
        usual_fields(&mut fields);
        let config: Loaded<Self> = json::network(fields, "UNet2DConditionModel", UNSUPPORTED)?;
        config.validate()?;
        Ok(config)
    }

    /// The configuration as diffusers writes it.
    pub fn to_json(&self) -> String {
        json::to_text(self, "UNet2DConditionModel")
    }

    /// How many numbers about an image ([`time_ids`](crate::Conditioning::time_ids)) the network
    /// receives, for prompts with pooled vectors of this width: 6 for SDXL, 5 for its refiner.
    /// `None` if it receives none, or no whole number.
    pub fn num_time_ids(&self, pooled_width: usize) -> Option<usize> {
        self.addition_embed_type?;
        let width = self.addition_time_embed_dim.filter(|width| *width > 0)?;
        let numbers = self
            .projection_class_embeddings_input_dim?
            .checked_sub(pooled_width)?;
        numbers.is_multiple_of(width).then_some(numbers / width)
    }

    /// Channels of the input after those of an image.
    pub(super) fn extra_input_channels(&self) -> usize {
        self.in_channels.saturating_sub(self.out_channels)
    }

    pub(super) fn check(&self, shape: SampleShape, variance: bool) -> Result<()> {
        let channels = self.in_channels - self.extra_input_channels();
        if channels != shape.channels() {
            let expected = format!("{}, the channels of the images", shape.channels());
            return Err(Error::config("in_channels", self.in_channels, expected));
        }
        check_image(shape, [channels, self.out_channels], 1, variance)?;
        // Halving rounds up where zeros surround a map, and down where they follow it.
        let least = match self.downsample_padding {
            0 => 1 << (self.block_out_channels.len() - 1),
            _ => 1,
        };
        match shape.as_image() {
            Some(image) if image.height.min(image.width) < least => Err(Error::argument(
                "shape",
                shape,
                format!("sides of at least {least}, for this network"),
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn check_trainable(&self, shape: SampleShape) -> Result<()> {
        if self.extra_input_channels() > 0 {
            let channels = self.out_channels;
            let expected = format!("{channels}, the channels of an image, for training");
            return Err(Error::config("in_channels", self.in_channels, expected));
        }
        self.check(shape, false)
    }
}
