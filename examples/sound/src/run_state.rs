//! Runs that are used again: a program trains once, and then makes sounds with what it has.

use aigc_core::{
    Error, Result,
    checkpoint::RunDir,
    train::{StartFrom, TrainerConfig},
};
use aigc_examples::RunOptions;
use serde::Deserialize;

/// What a program finds before it begins.
#[derive(Debug)]
pub enum RunState {
    /// No run, or none with these settings: a new one is to be trained.
    New,
    /// A run that goes on where it stopped.
    Unfinished(RunDir),
    /// A run that only has to be opened.
    Finished(RunDir),
}

/// The part of a run's `config.json` that is compared.
#[derive(Deserialize)]
struct Recorded {
    trainer: TrainerConfig,
}

impl RunState {
    /// Looks for the run in `--out`, or for the newest of `runs/name`. It is used again if it has
    /// the lengths and the seed of the command line, where those are given, and `check` accepts it;
    /// `is_finished` tells whether there is nothing left to train. With `--resume` and
    /// `--resume-at` it must exist, and training goes on.
    ///
    /// # Errors
    /// [`Error::Run`] if there is no run to resume, or there is one with other settings in `--out`.
    pub fn find(
        options: &RunOptions,
        name: &str,
        check: impl FnOnce(&RunDir) -> Result<()>,
        is_finished: impl FnOnce(&RunDir) -> bool,
    ) -> Result<Self> {
        if options.start() != StartFrom::Fresh {
            return Ok(Self::Unfinished(options.existing_run(name)?));
        }
        let Ok(run) = options.existing_run(name) else {
            return Ok(Self::New);
        };
        // A run that was killed before it wrote its settings is begun anew.
        let Ok(Recorded { trainer }) = run.config() else {
            return Ok(Self::New);
        };
        match check_lengths(options, &trainer).and_then(|()| check(&run)) {
            Ok(()) if is_finished(&run) => Ok(Self::Finished(run)),
            Ok(()) => Ok(Self::Unfinished(run)),
            Err(_) if options.out.is_none() => Ok(Self::New),
            Err(error) => {
                let reason = format!(
                    "there is a run in it already, but {error}; add --resume to change its \
                     length, or choose another directory"
                );
                Err(Error::run(run.path(), reason))
            }
        }
    }

    /// The directory of the run to train: this one, or a new one by the options. Call it last, so
    /// that an earlier error leaves no directory behind.
    ///
    /// # Errors
    /// [`Error::Run`] if a new run would overwrite one.
    pub fn run(&self, options: &RunOptions, name: &str) -> Result<RunDir> {
        match self {
            Self::New => options.run(name),
            Self::Unfinished(run) | Self::Finished(run) => Ok(run.clone()),
        }
    }

    /// Where its training starts: a run that exists goes on.
    pub fn start(&self, options: &RunOptions) -> StartFrom {
        match (self, options.start()) {
            (Self::Unfinished(_) | Self::Finished(_), StartFrom::Fresh) => StartFrom::Resume,
            (_, start) => start,
        }
    }
}

/// Fails if the command line has another length or seed.
fn check_lengths(options: &RunOptions, saved: &TrainerConfig) -> Result<()> {
    if let Some(steps) = options.steps
        && steps != saved.max_steps
    {
        let expected = format!("{}, with which the run began", saved.max_steps);
        return Err(Error::argument("--steps", steps, expected));
    }
    if let Some(minutes) = options.minutes
        && options.minutes != saved.max_minutes
    {
        let limit = saved.max_minutes;
        let limit = limit.map_or("no limit".into(), |minutes| minutes.to_string());
        let expected = format!("{limit}, with which the run began");
        return Err(Error::argument("--minutes", minutes, expected));
    }
    options.check_seed(saved.seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn options(out: &Path, steps: Option<usize>, resume: bool) -> RunOptions {
        RunOptions {
            steps,
            minutes: None,
            seed: 0,
            device: "flex".into(),
            save_steps: None,
            out: Some(out.into()),
            resume,
            resume_at: None,
        }
    }

    fn find(options: &RunOptions, fits: bool, finished: bool) -> Result<RunState> {
        let check = |_: &RunDir| match fits {
            true => Ok(()),
            false => Err(Error::argument("--size", 2, "1")),
        };
        RunState::find(options, "none", check, |_| finished)
    }

    #[test]
    fn runs_with_the_same_settings_are_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        let plain = options(&out, None, false);
        assert!(matches!(find(&plain, true, true), Ok(RunState::New)));
        assert!(find(&options(&out, None, true), true, true).is_err());
        assert_eq!(RunState::New.start(&plain), StartFrom::Fresh);

        let run = RunDir::create(&out).unwrap();
        assert!(matches!(find(&plain, true, true), Ok(RunState::New)));
        let trainer = serde_json::to_value(TrainerConfig::new(7)).unwrap();
        let config = serde_json::json!({"trainer": trainer}).to_string();
        std::fs::write(run.config_path(), config).unwrap();
        for steps in [None, Some(7)] {
            let found = find(&options(&out, steps, false), true, true).unwrap();
            assert!(matches!(found, RunState::Finished(_)), "{steps:?}");
        }
        let found = find(&plain, true, false).unwrap();
        assert!(matches!(found, RunState::Unfinished(_)));
        assert_eq!(found.start(&plain), StartFrom::Resume);
        assert_eq!(found.run(&plain, "none").unwrap(), run);
        // Of a finished run, too, and whatever its length was.
        let found = find(&options(&out, Some(8), true), true, true).unwrap();
        assert!(matches!(found, RunState::Unfinished(_)));

        // Another one is not overwritten.
        let limited = RunOptions {
            minutes: Some(1.5),
            ..plain.clone()
        };
        for (options, fits, expected) in [
            (
                options(&out, Some(8), false),
                true,
                "`--steps` is 8, expected 7",
            ),
            (limited, true, "`--minutes` is 1.5, expected no limit"),
            (plain, false, "`--size` is 2, expected 1"),
        ] {
            let error = find(&options, fits, true).unwrap_err().to_string();
            assert!(error.contains("there is a run in it already"), "{error}");
            assert!(error.contains(expected), "{error}");
        }
    }
}
