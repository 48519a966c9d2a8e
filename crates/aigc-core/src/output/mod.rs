//! Images and plots. Each format has its own feature: `image` for PNG and GIF, `plot` for SVG.

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
