//! Images and plots: PNG and GIF with the feature `image`, SVG with the feature `plot`.

#[cfg(feature = "image")]
mod animation;
#[cfg(feature = "image")]
mod grid;
#[cfg(feature = "plot")]
mod loss_plot;
#[cfg(feature = "plot")]
mod scatter;

#[cfg(feature = "image")]
pub use animation::{Animation, save_gif};
#[cfg(feature = "image")]
pub use grid::{ImageGrid, save_image};
#[cfg(feature = "plot")]
pub use loss_plot::plot_losses;
#[cfg(feature = "plot")]
pub use scatter::save_scatter;
