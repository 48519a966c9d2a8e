//! Transformers over the patches of a latent map that are conditioned on a prompt.
//!
//! - [`Sd3TransformerModel`] and [`FluxTransformerModel`]: the tokens of the image and of the
//!   prompt have their own weights and attend to each other (Esser et al. 2024,
//!   <https://arxiv.org/abs/2403.03206>).
//! - [`PixArtTransformerModel`]: the tokens of the image attend to each other, then to those of the
//!   prompt (Chen et al. 2023, <https://arxiv.org/abs/2310.00426>).

mod fields;
mod flux;
mod joint;
mod latents;
mod patches;
mod pixart;
mod rotary;
mod sd3;

pub(crate) use patches::{modulated_norm, positions, unpatched};
pub(crate) use pixart::{CLASS as PIXART, is_old as is_pixart};
pub(crate) use rotary::{RotaryTable, check_rotary_heads};

pub use flux::{FluxInputs, FluxTransformerConfig, FluxTransformerModel};
pub use latents::{latent_image_ids, pack_latents, text_ids, unpack_latents};
pub use pixart::{PixArtTransformerConfig, PixArtTransformerModel};
pub use sd3::{Sd3TransformerConfig, Sd3TransformerModel};

use super::time::Sinusoids;

/// The encoding of times, guidance scales and sizes.
const SINUSOIDS: Sinusoids = Sinusoids {
    width: 256,
    cosines_first: true,
    shift: 0.0,
};
