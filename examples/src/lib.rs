//! Code that the examples share: options, images, texts, signals.
#![forbid(unsafe_code)]

mod images;
mod options;
mod stop;

pub use images::{Images, ImagesConfig};
pub use options::RunOptions;
pub use stop::{print_resume_hint, stop_on_ctrl_c};
