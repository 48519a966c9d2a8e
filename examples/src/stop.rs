//! Stopping of runs by signals.

use aigc_core::{
    CancelToken, Error, Result,
    checkpoint::RunDir,
    train::{StopReason, TrainOutput},
};
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

/// Calls `work`, an evaluation or a preview of a trainer. If `stop` is cancelled before or during
/// it, the result is the default one, without metrics: an error would end training before it saves
/// its last steps.
///
/// # Errors
/// Errors of `work` other than its cancellation.
pub fn unless_stopped<T: Default>(
    stop: &CancelToken,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    if stop.is_cancelled() {
        return Ok(T::default());
    }
    match work() {
        Err(Error::Cancelled { .. }) if stop.is_cancelled() => Ok(T::default()),
        result => result,
    }
}

/// Whether `error` is the cancellation by `stop`.
pub fn is_stop(error: &anyhow::Error, stop: &CancelToken) -> bool {
    stop.is_cancelled() && matches!(error.downcast_ref(), Some(Error::Cancelled { .. }))
}

/// Calls `finish`, which writes and prints the results of training. If training, its evaluation or
/// `finish` was interrupted, prints how to resume the run instead; a resumed run evaluates again.
///
/// # Errors
/// Errors of `finish` other than its cancellation.
pub fn after_training<M>(
    trained: TrainOutput<M>,
    run: &RunDir,
    stop: &CancelToken,
    finish: impl FnOnce(TrainOutput<M>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let step = trained.step;
    if trained.stop_reason != StopReason::Interrupted && !stop.is_cancelled() {
        match finish(trained) {
            Err(error) if is_stop(&error, stop) => {}
            result => return result,
        }
    }
    print_resume_hint(step, run);
    Ok(())
}

/// Prints how to resume an interrupted run.
pub fn print_resume_hint(step: usize, run: &RunDir) {
    let _ = writeln!(
        std::io::stdout(),
        "stopped after step {step}; to resume, use the same options and --resume --out {}",
        run.path().display()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancelled_work_has_the_default_result() {
        let stop = CancelToken::new();
        let cancelled = || Err::<Vec<f64>, _>(Error::cancelled("the evaluation"));
        // Without a signal it is an error like any other.
        assert!(unless_stopped(&stop, cancelled).is_err());
        assert_eq!(unless_stopped(&stop, || Ok(vec![1.0])).unwrap(), [1.0]);
        let during = unless_stopped(&stop, || {
            stop.cancel();
            cancelled()
        });
        assert!(during.unwrap().is_empty());
        let before = unless_stopped(&stop, || -> Result<Vec<f64>> { panic!("is not called") });
        assert!(before.unwrap().is_empty());
    }

    #[test]
    fn other_errors_are_no_stop() {
        let stop = CancelToken::new();
        let cancelled = anyhow::Error::from(Error::cancelled("sampling"));
        assert!(!is_stop(&cancelled, &stop));
        stop.cancel();
        assert!(is_stop(&cancelled, &stop));
        assert!(!is_stop(
            &anyhow::Error::from(Error::argument("n", 0, "at least 1")),
            &stop
        ));
    }
}
