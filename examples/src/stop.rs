//! Stopping runs by signals.

use aigc_core::{CancelToken, checkpoint::RunDir};
use std::io::Write;

/// A token that Ctrl-C cancels, and so do SIGTERM and SIGHUP where there are such signals; a second
/// signal ends the program at once.
pub fn stop_on_ctrl_c() -> CancelToken {
    let token = CancelToken::new();
    let cancelled = token.clone();
    let handler = ctrlc::set_handler(move || {
        if cancelled.is_cancelled() {
            std::process::exit(130);
        }
        cancelled.cancel();
        // After SIGHUP there is no terminal any more to write to.
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

/// Prints how an interrupted run is resumed.
pub fn say_how_to_go_on(step: usize, run: &RunDir) {
    let _ = writeln!(
        std::io::stdout(),
        "stopped after step {step}; go on with the same options and --resume --out {}",
        run.path().display()
    );
}
