//! What the runs of other commands hold.

use aigc_core::{Error, Result, checkpoint::RunDir};
use std::path::{Path, PathBuf};

/// The given directory, or `part` of it if it is a run; without one, `part` of the newest run with
/// this name.
///
/// # Errors
/// [`Error::Run`] if there is no run, or its training has not ended.
pub(crate) fn given_or_newest(given: Option<&Path>, name: &str, part: &str) -> Result<PathBuf> {
    match given {
        Some(given) if is_run(given, part) => part_of(given, part),
        Some(given) => Ok(given.to_path_buf()),
        None => part_of(
            RunDir::open_latest(Path::new("runs").join(name))?.path(),
            part,
        ),
    }
}

/// Whether a directory is a run, and not a part of one.
fn is_run(dir: &Path, part: &str) -> bool {
    ["checkpoints", "final", part]
        .iter()
        .any(|inside| dir.join(inside).is_dir())
}

/// A directory in a run that is written when the training has ended.
fn part_of(run: &Path, part: &str) -> Result<PathBuf> {
    let dir = run.join(part);
    match dir.is_dir() {
        true => Ok(dir),
        false => {
            let reason = format!(
                "it has no directory `{part}`, since its training has not ended; end it with \
                 --resume, or name another directory"
            );
            Err(Error::run(run, reason))
        }
    }
}
