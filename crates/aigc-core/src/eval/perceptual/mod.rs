//! Perceptual measures: LPIPS, multi-scale SSIM, and the length of paths through a latent space.

mod alexnet;
mod backbone;
mod interpolation;
mod lpips;
mod ms_ssim;
mod path_length;
mod squeezenet;
mod vgg;
pub(super) mod window;

pub use backbone::LpipsNetwork;
pub use interpolation::LatentInterpolation;
pub use lpips::{Lpips, LpipsConfig};
pub use ms_ssim::{MsSsimConfig, MsSsimNormalize, ms_ssim};
pub use path_length::{
    PathLength, PathLengthConfig, perceptual_path_length, perceptual_path_length_between,
};
