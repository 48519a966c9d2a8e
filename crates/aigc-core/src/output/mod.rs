//! Images and plots: PNG and GIF with the feature `image`, SVG with the feature `plot`; records of
//! where a file came from.

#[cfg(feature = "image")]
mod animation;
#[cfg(feature = "image")]
mod grid;
#[cfg(feature = "plot")]
mod loss_plot;
pub mod provenance;
#[cfg(feature = "plot")]
mod scatter;
mod watermark;

#[cfg(feature = "image")]
pub use animation::{Animation, save_gif, save_gif_with_provenance};
#[cfg(feature = "image")]
pub use grid::{ImageGrid, save_image, save_image_with_provenance};
#[cfg(feature = "plot")]
pub use loss_plot::plot_losses;
#[cfg(feature = "plot")]
pub use scatter::save_scatter;
pub use watermark::{Detection, Watermark};
