//! Images, videos, figures and plots: PNG, GIF, APNG and Y4M with the feature `image`, MP4 with the
//! feature `mp4`, SVG with the feature `plot`; records of where a file came from.

#[cfg(feature = "image")]
mod animation;
#[cfg(feature = "image")]
mod apng;
#[cfg(feature = "image")]
mod figure;
#[cfg(feature = "image")]
mod frame_strip;
#[cfg(feature = "image")]
mod grid;
#[cfg(feature = "plot")]
mod loss_plot;
#[cfg(feature = "image")]
mod mp4;
#[cfg(feature = "image")]
mod piano_roll;
pub mod provenance;
#[cfg(feature = "plot")]
mod scatter;
#[cfg(feature = "image")]
mod spectrogram;
#[cfg(feature = "image")]
mod video;
#[cfg(feature = "image")]
mod video_format;
mod watermark;
#[cfg(feature = "image")]
mod y4m;

#[cfg(feature = "image")]
pub use animation::{Animation, save_gif, save_gif_with_provenance};
#[cfg(feature = "image")]
pub use figure::Figure;
#[cfg(feature = "image")]
pub use frame_strip::{frame_strip, save_frame_strip};
#[cfg(feature = "image")]
pub use grid::{ImageGrid, save_image, save_image_with_provenance};
#[cfg(feature = "plot")]
pub use loss_plot::plot_losses;
#[cfg(feature = "image")]
pub use mp4::Mp4Config;
#[cfg(feature = "image")]
pub use piano_roll::PianoRollPlot;
#[cfg(feature = "plot")]
pub use scatter::save_scatter;
#[cfg(feature = "image")]
pub use spectrogram::SpectrogramPlot;
#[cfg(feature = "image")]
pub use video::{VideoWriter, save_video, save_video_with_provenance};
#[cfg(feature = "image")]
pub use video_format::VideoFormat;
pub use watermark::{Detection, Watermark};
#[cfg(feature = "image")]
pub use y4m::{Chroma, Y4mConfig};
