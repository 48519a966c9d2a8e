//! Stopping of runs by signals.

use aigc_core::{CancelToken, checkpoint::RunDir};
use std::io::Write;

/// A token that is cancelled by Ctrl-C, and by SIGTERM and SIGHUP on systems that have them. A
/// second signal ends the program at once.
pub fn stop_on_ctrl_c() -> CancelToken {
    let token = CancelToken::new();
    let cancelled = token.clone();
    let handler = ctrlc::set_handler(move || {
        if cancelled.is_cancelled() {
            std::process::exit(130);
        }
        cancelled.cancel();
        // After SIGHUP the terminal may no longer exist.
        let _ = writeln!(
            std::io::stderr(),
            "\nstopping after this step; press Ctrl-C again to stop at once"
        );
    });
    if let Err(error) = handler {
        eprintln!("Ctrl-C will stop at once, without saving: {error}");
    }
    token
}

/// Prints how to resume an interrupted run.
pub fn print_resume_hint(step: usize, run: &RunDir) {
    let _ = writeln!(
        std::io::stdout(),
        "stopped after step {step}; to resume, use the same options and --resume --out {}",
        run.path().display()
    );
}
