//! Evaluation of images.

mod lenet;
mod neighbours;
mod quality;

pub use lenet::{LeNet5, LeNet5Config};
pub use neighbours::NearestNeighbors;
pub use quality::{psnr, ssim};
