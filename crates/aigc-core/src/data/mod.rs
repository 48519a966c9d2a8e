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
//! | [`scenes`] | drawn images with captions from a grammar, 64×64, drawn anew in every epoch |
//! | [`shapes`] | 24,576 drawn images, 32×32, with known factors |
//! | [`effects`] | sound effects of eight kinds, computed |
//! | [`melodies`] | melodies with chords from a grammar |
//! | [`moving_digits`] | clips of digits that move, from any set of images |
//! | [`video`] | clips, batches |
//! | [`sound`] | directories of sounds, batches |
//! | [`midi`] | directories of MIDI files |
//! | `folder` | a directory of images (feature `image`) |
//! | `transforms` | shifts, flips, JPEG, noise and blur of images (feature `image`) |
//! | `download` | the four MNIST files into the user's cache (feature `download`) |
//!
//! Objectives train on any [`SampleBatch`]: images, sound, video or points. It has a
//! [`SampleShape`], a [`ValueRange`], which maps the data to the range that networks work in, and
//! labels if the data set has classes; [`label_tensor`] moves them to a device.

mod binarize;
mod captioned;
mod dataset;
pub mod digits;
#[cfg(feature = "download")]
pub mod download;
pub mod effects;
#[cfg(feature = "image")]
pub mod folder;
pub mod idx;
#[cfg(feature = "image")]
mod image_format;
mod images;
mod interleaved;
mod listing;
mod loader;
pub mod melodies;
pub mod midi;
pub mod moving_digits;
mod resample;
mod sample;
pub mod scenes;
pub mod shapes;
mod shuffle;
pub mod sound;
#[cfg(feature = "image")]
pub mod transforms;
pub mod video;

pub use crate::sampling::ClassLabels;
pub use binarize::{Binarize, Binarized};
pub use captioned::{CaptionedBatch, collate_captioned};
pub use dataset::{Dataset, InMemory};
pub use images::{Image, ImageBatch, ImageShape, collate_images};
pub use loader::{BatchIter, DataLoader, DataLoaderConfig, OnReadError};
pub use resample::{Resampling, resample};
pub use sample::{SampleBatch, SampleShape, ValueRange, label_tensor};

use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// The entries of a directory in the order of their names: file systems list them in any order, but
/// the order of a seed must be the same everywhere.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let read = std::fs::read_dir(dir).map_err(Error::io(dir))?;
    let paths = read.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths
        .collect::<Result<Vec<_>, _>>()
        .map_err(Error::io(dir))?;
    paths.sort();
    Ok(paths)
}
