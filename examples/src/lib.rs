//! What the examples share: where images come from, and Ctrl-C.
#![forbid(unsafe_code)]

mod images;
mod stop;

pub use images::{Images, ImagesConfig};
pub use stop::{say_how_to_go_on, stop_on_ctrl_c};
