//! Code that the examples share: options, images, progress, output, signals.
#![forbid(unsafe_code)]

mod budget;
mod images;
mod options;
mod progress;
mod stdout;
mod stop;

pub use budget::EvaluationCost;
pub use images::{Images, ImagesConfig};
pub use options::RunOptions;
pub use progress::{Progress, complete};
pub use stdout::write_stdout;
pub use stop::{after_training, is_stop, print_resume_hint, stop_on_ctrl_c, unless_stopped};
