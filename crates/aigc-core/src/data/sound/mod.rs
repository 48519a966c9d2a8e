//! Sound: folders of files, and batches.
//!
//! ```no_run
//! use aigc_core::data::{
//!     DataLoader, DataLoaderConfig,
//!     sound::{WaveFolder, WaveFolderConfig, collate_sounds, digit_of_name},
//! };
//! use std::path::Path;
//!
//! # fn main() -> aigc_core::Result<()> {
//! let config = WaveFolderConfig {
//!     sample_rate: Some(8000),
//!     length: Some(8000),
//!     ..WaveFolderConfig::default()
//! };
//! let digits = WaveFolder::open(Path::new("fsdd/recordings"), config)?
//!     .with_label(|path| digit_of_name(path).map(|name| u32::from(name.digit)))?;
//! let loader = DataLoader::new(digits, collate_sounds, DataLoaderConfig::default())?;
//! # Ok(()) }
//! ```

mod batch;
mod folder;
mod names;

pub use batch::{Sound, SoundBatch, collate_sounds};
pub use folder::{WaveFolder, WaveFolderConfig};
pub use names::{DigitName, digit_of_name};

#[cfg(test)]
mod tests;
