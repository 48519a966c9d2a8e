//! Code that the examples share: options, images, progress, output, pictures, signals,
//! evaluation.
#![forbid(unsafe_code)]

mod budget;
mod codes;
mod digit_classifier;
mod fingerprint;
mod gallery;
mod images;
mod observer;
mod options;
mod progress;
mod stdout;
mod stop;
mod vae;

pub use budget::EvaluationCost;
pub use codes::{Codes, PriorTraining};
pub use digit_classifier::{ClassifiedDigits, DigitClassifier, DigitFigures};
pub use gallery::Gallery;
pub use images::{Images, ImagesConfig, Opening};
pub use observer::{ObserverOptions, SampleObserver, held_out, lenet5_from};
pub use options::RunOptions;
pub use progress::{Progress, complete};
pub use stdout::write_stdout;
pub use stop::{after_training, is_stop, print_resume_hint, stop_on_ctrl_c, unless_stopped};
pub use vae::{
    evaluate_binarized, labels_by_class, labels_in_turn, reconstruction_error, reconstruction_rows,
};
