//! How runs stop.

use aigc_core::{CancelToken, checkpoint::RunDir};

/// A flag that Ctrl-C raises; pressed a second time, it ends the program at once.
pub fn stop_on_ctrl_c() -> CancelToken {
    let flag = CancelToken::new();
    let raised = flag.clone();
    let handler = ctrlc::set_handler(move || {
        if raised.is_cancelled() {
            std::process::exit(130);
        }
        eprintln!("\nstopping after this step; press Ctrl-C again to stop at once");
        raised.cancel();
    });
    if let Err(error) = handler {
        eprintln!("Ctrl-C will stop at once, without saving: {error}");
    }
    flag
}

/// Tells how an interrupted run is resumed.
pub fn say_how_to_go_on(step: usize, run: &RunDir) {
    println!(
        "stopped after step {step}; go on with the same options and --resume --out {}",
        run.path().display()
    );
}
