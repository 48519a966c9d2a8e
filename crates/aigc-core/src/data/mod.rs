//! Data sets, and the loader that makes batches of them.
//!
//! A [`Dataset`] returns items by index; a [`DataLoader`] shuffles them by seed, decodes ahead on
//! worker threads, and collates them into batches that live on the host until the objective moves
//! them to its device.
//!
//! | module | data |
//! |---|---|
//! | [`digits`] | 1,797 real handwritten digits, 8×8, embedded in the crate |
//! | [`idx`] | MNIST-format files, plain or gzipped |
//! | `folder` | a directory of images (feature `image`) |
//! | `download` | the four MNIST files into the user's cache (feature `download`) |

mod dataset;
pub mod digits;
#[cfg(feature = "download")]
pub mod download;
#[cfg(feature = "image")]
pub mod folder;
pub mod idx;
#[cfg(feature = "image")]
mod image_format;
mod images;
mod loader;
mod sample;
mod shuffle;

pub use crate::sampling::ClassLabels;
pub use dataset::{Dataset, InMemory};
pub use images::{Image, ImageBatch, ImageShape, collate_images};
pub use loader::{BatchIter, DataLoader, DataLoaderConfig, OnReadError};
pub use sample::{SampleBatch, SampleShape, ValueRange, label_tensor};
