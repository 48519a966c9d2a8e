//! Where runs go, and how they stop.

use aigc_core::{Error, Result, checkpoint::RunFolder, train::StopFlag};
use std::path::{Path, PathBuf};

/// `runs/name-1`, or the first number after it that is free.
///
/// # Errors
/// If it cannot be made.
pub fn new_run_folder(name: &str) -> Result<RunFolder> {
    let free = (1..).map(|n| numbered(name, n)).find(|path| !path.exists());
    RunFolder::create(free.expect("some number is free"))
}

/// The newest of `runs/name-1`, `runs/name-2`, …
///
/// # Errors
/// If there is none.
pub fn newest_run_folder(name: &str) -> Result<RunFolder> {
    let used = (1..).take_while(|n| numbered(name, *n).exists()).last();
    let newest =
        used.ok_or_else(|| Error::config("--resume", format!("runs/{name}-1"), "a run to resume; name it with --out"))?;
    RunFolder::open(numbered(name, newest))
}

fn numbered(name: &str, n: usize) -> PathBuf {
    Path::new("runs").join(format!("{name}-{n}"))
}

/// A flag that Ctrl-C raises; pressed a second time, it ends the program at once.
pub fn stop_on_ctrl_c() -> StopFlag {
    let flag = StopFlag::new();
    let raised = flag.clone();
    let handler = ctrlc::set_handler(move || {
        if raised.is_raised() {
            std::process::exit(130);
        }
        eprintln!("\nstopping after this step; press Ctrl-C again to stop at once");
        raised.raise();
    });
    if let Err(error) = handler {
        eprintln!("Ctrl-C will stop at once, without saving: {error}");
    }
    flag
}
