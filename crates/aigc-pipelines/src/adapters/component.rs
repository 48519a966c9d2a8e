//! Parts of a pipeline that adapters change.

use std::fmt::Display;

/// A part of a pipeline that adapters change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Component {
    /// The U-net.
    Unet,
    /// The transformer of Stable Diffusion 3 or FLUX.1.
    Transformer,
    /// The first text encoder.
    TextEncoder,
    /// The second text encoder.
    TextEncoder2,
    /// The third text encoder.
    TextEncoder3,
}

impl Component {
    /// Name of its directory in diffusers' layout.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unet => "unet",
            Self::Transformer => "transformer",
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
            Self::TextEncoder3 => "text_encoder_3",
        }
    }

    /// Whether it encodes text.
    pub fn is_text_encoder(self) -> bool {
        !matches!(self, Self::Unet | Self::Transformer)
    }
}

impl Display for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
