//! Tensors to pictures, points to plots.

#[cfg(feature = "image")]
mod animation;
#[cfg(feature = "image")]
mod grid;
#[cfg(feature = "plot")]
mod scatter;

#[cfg(feature = "image")]
pub use animation::{Animation, save_gif};
#[cfg(feature = "image")]
pub use grid::{ImageGrid, save_image};
#[cfg(feature = "plot")]
pub use scatter::save_scatter;
