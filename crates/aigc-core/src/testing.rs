//! Helpers for tests (feature `testing`).

use crate::{Result, checkpoint::RunDir};
use burn::tensor::{Device, Tensor};

/// The device that tests use.
#[cfg(feature = "flex")]
pub fn flex() -> Device {
    Device::flex()
}

/// A run in a temporary directory, which is removed when the value is dropped.
#[derive(Debug)]
pub struct TempRun {
    /// The run.
    pub run: RunDir,
    dir: tempfile::TempDir,
}

impl TempRun {
    /// The temporary directory; the run is `run` in it.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }
}

impl std::ops::Deref for TempRun {
    type Target = RunDir;

    fn deref(&self) -> &RunDir {
        &self.run
    }
}

/// An empty run in a temporary directory.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if it cannot be created.
pub fn temp_run() -> Result<TempRun> {
    let dir = tempfile::tempdir().map_err(crate::Error::io(std::env::temp_dir()))?;
    let run = RunDir::create(dir.path().join("run"))?;
    Ok(TempRun { run, dir })
}

/// The values of a tensor, last axis fastest.
pub fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

/// Mean and standard deviation of all values.
pub fn moments<const D: usize>(x: &Tensor<D>) -> (f64, f64) {
    let values: Vec<f64> = x.to_data().iter::<f64>().collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

/// Compares two slices with an absolute tolerance.
///
/// # Panics
/// If the lengths differ, or a pair differs by more than `tolerance`; the message names the first
/// such pair.
#[track_caller]
pub fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "numbers of values");
    for (index, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!(
            (a - b).abs() <= tolerance,
            "value {index} is {a}, expected {b} within {tolerance}"
        );
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    #[test]
    fn temp_run_is_removed_on_drop() {
        let run = temp_run().unwrap();
        let dir = run.dir().to_path_buf();
        assert!(run.checkpoints_dir().starts_with(&dir) && dir.exists());
        drop(run);
        assert!(!dir.exists());
    }

    #[test]
    fn assert_close_compares_lengths_and_values() {
        let x = Tensor::<1>::from_floats([1.0, 2.0], &flex());
        assert_close(&values(x), &[1.0, 2.001], 0.01);
        for (found, expected) in [
            (&[1.0][..], &[1.1][..]),
            (&[1.0], &[]),
            (&[f32::NAN], &[0.0]),
        ] {
            let compare = || assert_close(found, expected, 0.01);
            assert!(std::panic::catch_unwind(compare).is_err());
        }
    }
}
