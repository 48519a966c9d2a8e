//! What networks in diffusers' layout have in common, whatever their family: their blocks, the
//! names of their weights, and values in their configurations.

mod blocks;

pub use blocks::{
    Downsample2d, Downsample2dConfig, ResnetBlock2d, ResnetBlock2dConfig, SpatialAttention,
    SpatialAttentionConfig, Upsample2d, Upsample2dConfig,
};

use super::Activation;
use crate::{
    Error, Result,
    data::ImageShape,
    weights::{KeyMapping, ParamKey, pytorch_key},
};
use serde::{Deserialize, Serialize};

/// Names of attention's weights in older versions of diffusers, whose files still have them.
const OLD_NAMES: &[(&str, &str)] = &[
    (".to_q.", ".query."),
    (".to_k.", ".key."),
    (".to_v.", ".value."),
    (".to_out.0.", ".proj_attn."),
];

/// Where diffusers stores a parameter: [`pytorch_key`], and the names that the weights of
/// attention had in older versions of diffusers (`query`, `key`, `value`, `proj_attn`).
pub fn diffusers_key(key: ParamKey<'_>) -> KeyMapping {
    let mapping = pytorch_key(key);
    match OLD_NAMES.iter().find(|(now, _)| key.path.contains(now)) {
        Some((now, old)) => {
            let name = mapping.candidates[0].replace(now, old);
            mapping.or(name)
        }
        None => mapping,
    }
}

/// The size of square images, or height and width: the `sample_size` of configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SampleSize {
    /// The side of square images.
    Side(usize),
    /// Height and width.
    Sides([usize; 2]),
}

impl SampleSize {
    /// Height and width.
    pub fn sides(self) -> [usize; 2] {
        match self {
            SampleSize::Side(side) => [side, side],
            SampleSize::Sides(sides) => sides,
        }
    }
}

impl From<usize> for SampleSize {
    fn from(side: usize) -> Self {
        Self::Side(side)
    }
}

impl From<ImageShape> for SampleSize {
    fn from(shape: ImageShape) -> Self {
        if shape.height == shape.width {
            Self::Side(shape.height)
        } else {
            Self::Sides([shape.height, shape.width])
        }
    }
}

/// The activation that the field `act_fn` names.
///
/// # Errors
/// [`Error::Config`] for a name that diffusers does not have.
pub fn activation(act_fn: &str) -> Result<Activation> {
    match act_fn {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu" => Ok(Activation::Gelu),
        "relu" => Ok(Activation::Relu),
        "mish" => Ok(Activation::Mish),
        "quick_gelu" => Ok(Activation::QuickGelu),
        other => Err(Error::config(
            "act_fn",
            other,
            "silu, swish, gelu, relu, mish or quick_gelu",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diffusers_key_has_current_and_old_names_of_attention() {
        let key = |path, module| diffusers_key(ParamKey { path, module });
        let query = key("mid_block.attentions.0.to_q.weight", "Linear");
        assert_eq!(
            query.candidates,
            [
                "mid_block.attentions.0.to_q.weight",
                "mid_block.attentions.0.query.weight"
            ]
        );
        assert!(query.transpose);
        let output = key("attentions.0.to_out.0.bias", "Linear");
        assert_eq!(output.candidates[1], "attentions.0.proj_attn.bias");
        let norm = key("resnets.0.norm1.gamma", "GroupNorm");
        assert_eq!(norm.candidates[0], "resnets.0.norm1.weight");
    }

    #[test]
    fn sample_sizes_are_one_side_or_two() {
        for (json, sides) in [("32", [32, 32]), ("[16, 24]", [16, 24])] {
            let size: SampleSize = serde_json::from_str(json).unwrap();
            assert_eq!(size.sides(), sides);
        }
        assert_eq!(
            SampleSize::from(ImageShape::new(3, 16, 24)),
            SampleSize::Sides([16, 24])
        );
        assert_eq!(
            SampleSize::from(ImageShape::new(3, 8, 8)),
            SampleSize::from(8)
        );
    }

    #[test]
    fn unknown_activation_is_named() {
        assert_eq!(activation("swish").unwrap(), Activation::Silu);
        let message = activation("tanhh").unwrap_err().to_string();
        assert!(message.contains("`act_fn` is tanhh"), "{message}");
    }
}
