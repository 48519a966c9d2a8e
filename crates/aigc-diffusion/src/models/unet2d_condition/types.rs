//! Values in the configurations of U-nets with cross-attention.

use aigc_core::check::ensure;
use serde::{Deserialize, Deserializer, Serialize, de::Error};

/// Blocks at one size on the way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CrossDownBlockType {
    /// Convolutions.
    DownBlock2D,
    /// Convolutions, and attention to tokens.
    CrossAttnDownBlock2D,
}

/// Blocks at the smallest size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CrossMidBlockType {
    /// Two layers of convolutions with attention to tokens between them.
    UNetMidBlock2DCrossAttn,
    /// One layer of convolutions.
    UNetMidBlock2D,
}

/// Blocks at one size on the way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CrossUpBlockType {
    /// Convolutions.
    UpBlock2D,
    /// Convolutions, and attention to tokens.
    CrossAttnUpBlock2D,
}

/// One value for all blocks, or one for each block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerBlock<T = usize> {
    /// The value of every block.
    One(T),
    /// A value for each block, from the largest size on.
    Each(Vec<T>),
}

impl<T: Copy> PerBlock<T> {
    /// The value of a block; `None` if there are fewer.
    pub(in crate::models) fn at(&self, level: usize) -> Option<T> {
        match self {
            PerBlock::One(value) => Some(*value),
            PerBlock::Each(all) => all.get(level).copied(),
        }
    }

    /// The number of values, if there is one for each block.
    pub(super) fn len(&self) -> Option<usize> {
        match self {
            PerBlock::One(_) => None,
            PerBlock::Each(all) => Some(all.len()),
        }
    }

    /// Fails unless there is a value for each of `levels` blocks.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) names the field.
    pub(in crate::models) fn check_len(&self, field: &str, levels: usize) -> aigc_core::Result<()> {
        let len = self.len().unwrap_or(levels);
        let expected = format!("{levels}, as block_out_channels, or one value");
        ensure(len == levels, field, format!("{len} values"), &expected)
    }
}

/// Numbers of transformer blocks in the attentions of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TransformerLayers {
    /// The number in every attention.
    All(usize),
    /// For each block, from the largest size on: a number, or one for the attention of each layer.
    Blocks(Vec<PerBlock>),
}

impl TransformerLayers {
    /// The number in the attention of a layer of a block.
    pub(super) fn at(&self, level: usize, layer: usize) -> Option<usize> {
        match self {
            TransformerLayers::All(number) => Some(*number),
            TransformerLayers::Blocks(all) => all.get(level)?.at(layer),
        }
    }
}

/// What blocks receive besides time and class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AdditionEmbedType {
    /// The [pooled vector](crate::Conditioning::pooled_projections) of the prompt with the encoded
    /// [sizes](crate::Conditioning::time_ids) of the image, as SDXL (Podell et al. 2023,
    /// <https://arxiv.org/abs/2307.01952>, section 2.2).
    TextTime,
}

/// How hidden states of the encoder become the tokens that are attended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EncoderHidDimType {
    /// By one layer.
    TextProj,
}

/// Reads a number that files may give for each block, where it is the same for all blocks.
pub(in crate::models) fn one_number<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<usize, D::Error> {
    let first = match PerBlock::<usize>::deserialize(deserializer)? {
        PerBlock::One(number) => Some(number),
        PerBlock::Each(all) => {
            let first = all.first().copied();
            first.filter(|first| all.iter().all(|number| number == first))
        }
    };
    first.ok_or_else(|| D::Error::custom("expected a number, or the same number for each block"))
}
