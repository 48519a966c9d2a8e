//! What the examples share: options, images, texts, signals.
#![forbid(unsafe_code)]

mod images;
mod options;
mod stop;
pub mod text;

pub use images::{Images, ImagesConfig};
pub use options::RunOptions;
pub use stop::{say_how_to_go_on, stop_on_ctrl_c};
