//! Configuration of an image network and motion modules in one file.

use super::{adapter_config::MotionAdapterConfig, joined::rename_blocks};
use crate::{json, models::UNet2dConditionConfig};
use aigc_core::{Error, Result, check::ensure, json::reject_unsupported, weights::Loaded};
use serde_json::{Map, Value};

/// Configuration of a [`UNetMotionModel`](super::UNetMotionModel): that of its image network and
/// that of its motion modules. Files have the fields of both in one object, as diffusers'
/// `UNetMotionModel`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UNetMotionConfig {
    /// The image network.
    pub unet: UNet2dConditionConfig,
    /// The motion modules.
    pub motion: MotionAdapterConfig,
}

const CLASS: &str = "UNetMotionModel";

/// Fields of options that are not implemented, and the value that they have to have.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("encoder_hid_dim", "null"),
    ("encoder_hid_dim_type", "null"),
    ("mid_block_layers", "1"),
    ("reverse_motion_num_attention_heads", "null"),
    ("reverse_temporal_transformer_layers_per_block", "null"),
    ("transformer_layers_per_mid_block", "null"),
];

/// Fields of the motion modules alone: here, and in a file of both.
const MOTION: &[(&str, &str)] = &[
    ("motion_max_seq_length", "motion_max_seq_length"),
    ("motion_num_attention_heads", "motion_num_attention_heads"),
    ("use_motion_mid_block", "use_motion_mid_block"),
    (
        "motion_transformer_layers_per_block",
        "temporal_transformer_layers_per_block",
    ),
    (
        "motion_transformer_layers_per_mid_block",
        "temporal_transformer_layers_per_mid_block",
    ),
];

/// Fields of the motion modules that a file of both has for the image network too.
const SHARED: &[(&str, &str)] = &[
    ("block_out_channels", "block_out_channels"),
    ("motion_layers_per_block", "layers_per_block"),
    ("motion_norm_num_groups", "norm_num_groups"),
];

/// Fields of the image network that a file of both has.
const IMAGE: &[&str] = &[
    "act_fn",
    "addition_embed_type",
    "addition_time_embed_dim",
    "block_out_channels",
    "cross_attention_dim",
    "down_block_types",
    "downsample_padding",
    "in_channels",
    "layers_per_block",
    "mid_block_scale_factor",
    "norm_eps",
    "norm_num_groups",
    "out_channels",
    "projection_class_embeddings_input_dim",
    "reverse_transformer_layers_per_block",
    "sample_size",
    "time_cond_proj_dim",
    "transformer_layers_per_block",
    "up_block_types",
    "use_linear_projection",
];

/// The name that a file of both has for heads, which the image network calls otherwise.
const HEADS: [&str; 2] = ["num_attention_heads", "attention_head_dim"];

/// Fields of the image network without an effect on its output.
const IDLE: &[&str] = &["dropout", "upcast_attention"];

impl UNetMotionConfig {
    /// A configuration from the fields of its file; the others have defaults. The report lists
    /// unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Config`] names a field with a value that it cannot have, or that is not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let mut fields = json::parse_object(text)?;
        if let Some(other) = fields.remove("_class_name").filter(|name| *name != CLASS) {
            return Err(Error::config("_class_name", other, CLASS));
        }
        reject_unsupported(&mut fields, UNSUPPORTED)?;
        rename_blocks(&mut fields, "Motion", "2D")?;
        let mut motion = Map::new();
        for (here, there) in SHARED {
            if let Some(value) = fields.get(*there) {
                motion.insert((*here).into(), value.clone());
            }
        }
        for (here, there) in MOTION {
            if let Some(value) = fields.remove(*there) {
                motion.insert((*here).into(), value);
            }
        }
        let mut report = Loaded::new(());
        let motion = MotionAdapterConfig::from_json(&Value::Object(motion).to_string())?;
        let motion = report.merge(motion);
        let unet = UNet2dConditionConfig::from_json(&Value::Object(fields).to_string())?;
        let unet = report.merge(unet);
        // The last activation of diffusers' class is always this one.
        let known = ["silu", "swish"].contains(&unet.act_fn.as_str());
        ensure(known, "act_fn", &unet.act_fn, "silu")?;
        Ok(report.map(|()| Self { unet, motion }))
    }

    /// The configuration as diffusers writes it.
    ///
    /// # Errors
    /// [`Error::Config`] names a field of the image network with a value that diffusers' class
    /// does not have.
    pub fn to_json(&self) -> Result<String> {
        let image = json::to_map(&self.unet);
        let (usual, motion) = (
            json::to_map(&UNet2dConditionConfig::default()),
            json::to_map(&self.motion),
        );
        let mut fields = Map::new();
        for (name, value) in &image {
            if IMAGE.contains(&name.as_str()) {
                fields.insert(name.clone(), value.clone());
            } else if name == HEADS[1] {
                fields.insert(HEADS[0].into(), value.clone());
            } else if !IDLE.contains(&name.as_str()) && usual.get(name) != Some(value) {
                let expected = format!("{}, in a {CLASS}", usual[name]);
                return Err(Error::config(name, value, expected));
            }
        }
        rename_blocks(&mut fields, "2D", "Motion")?;
        for (here, there) in MOTION {
            fields.insert((*there).into(), motion[*here].clone());
        }
        fields.insert("_class_name".into(), CLASS.into());
        Ok(serde_json::to_string_pretty(&fields).expect("plain values"))
    }
}
