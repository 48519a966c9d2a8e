//! What the examples share: where images come from, where runs go, and Ctrl-C.
#![forbid(unsafe_code)]

mod images;
mod run;

pub use images::{Images, ImagesConfig};
pub use run::{new_run_folder, newest_run_folder, stop_on_ctrl_c};
