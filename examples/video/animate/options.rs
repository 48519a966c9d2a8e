//! Options of `animate`.

use aigc_core::{Error, Result, data::ClassLabels};
use aigc_examples::labels_in_turn;
use aigc_examples_video::TrainingOptions;
use clap::Parser;
use std::path::PathBuf;

/// Makes short animations: digits that move, by a network that is trained for it, or a video from a
/// prompt.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Options {
    /// Directory of a trained run of this program, of AnimateDiff or of Wan: nothing is trained.
    /// --steps are sampling steps then, and --out is the directory of the files.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    /// What the video shows, with --model.
    #[arg(long, requires = "model")]
    pub(crate) prompt: Option<String>,
    /// What the video should not show.
    #[arg(long, requires = "prompt")]
    pub(crate) negative: Option<String>,
    /// Directory of motion modules, in place of those of --model, which may also be a directory of
    /// Stable Diffusion then.
    #[arg(long, value_name = "DIR", requires = "prompt")]
    pub(crate) motion_adapter: Option<PathBuf>,
    /// Frames that neighbouring windows share, for more --frames than the motion modules have
    /// positions.
    #[arg(long, value_name = "N", requires = "prompt")]
    pub(crate) overlap: Option<usize>,
    /// Latents of a video of Wan whose decoding was interrupted, `latents.safetensors`: they are
    /// decoded, as the request in the JSON file beside them says.
    #[arg(long, value_name = "FILE", requires = "prompt")]
    pub(crate) latents: Option<PathBuf>,
    /// Class of the clips; by default each in turn.
    #[arg(long, conflicts_with = "prompt")]
    pub(crate) class: Option<u32>,
    /// Number of clips.
    #[arg(
        long, short, value_name = "N", default_value_t = 10, conflicts_with = "prompt",
        value_parser = clap::value_parser!(u32).range(1..=100)
    )]
    pub(crate) n: u32,
    /// Frames a second; 8 by default, or those of the model.
    #[arg(long)]
    pub(crate) fps: Option<f64>,
    #[command(flatten)]
    pub(crate) training: TrainingOptions,
}

impl Options {
    /// Checks what can be known before anything is opened.
    pub(crate) fn check(&self) -> Result<()> {
        let fps = self.fps();
        // The times of GIF are hundredths of a second.
        if !(0.1..=100.0).contains(&fps) {
            return Err(Error::argument("--fps", fps, "0.1 to 100"));
        }
        self.training.guidance()?;
        let run = &self.training.run;
        if self.model.is_none() {
            return Ok(());
        }
        let others = [
            ("--resume", run.resume || run.resume_at.is_some()),
            ("--minutes", run.minutes.is_some()),
            ("--save-steps", run.save_steps.is_some()),
            ("--image-model", self.training.image_model.is_some()),
            ("--data", self.training.data.path.is_some()),
            ("--batch", self.training.batch.is_some()),
            ("--digit-size", self.training.digit_size.is_some()),
            ("--classifier", self.training.classifier.is_some()),
            ("--eval-clips", self.training.eval_clips.is_some()),
            ("--side", self.training.data.side.is_some()),
            ("--rgb", self.training.data.rgb),
            ("--skip-unreadable", self.training.data.skip_unreadable),
        ];
        refuse(&others, "none with --model, which trains nothing")?;
        if self.prompt.is_some() {
            let given = self.training.sampling_steps.is_some();
            let expected = "none with --prompt: sampling steps are --steps";
            refuse(&[("--sampling-steps", given)], expected)?;
        }
        if self.latents.is_some() {
            let settled = [
                ("--negative", self.negative.is_some()),
                ("--frames", self.training.frames.is_some()),
                ("--size", self.training.size.is_some()),
                ("--steps", run.steps.is_some()),
                ("--guidance", self.training.guidance.is_some()),
                ("--overlap", self.overlap.is_some()),
            ];
            refuse(&settled, "none with --latents, which are only decoded")?;
        }
        if let Some(prompt) = self.prompt.as_deref().filter(|text| text.trim().is_empty()) {
            return Err(Error::argument("--prompt", format!("{prompt:?}"), "a text"));
        }
        Ok(())
    }

    /// Frames a second of clips of digits.
    pub(crate) fn fps(&self) -> f64 {
        self.fps.unwrap_or(8.0)
    }

    /// The classes of the clips of a model with this number of classes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a class that it does not have.
    pub(crate) fn classes(&self, classes: Option<usize>) -> Result<ClassLabels> {
        match (self.class, classes) {
            (None, None) => Ok(ClassLabels::Random),
            (None, Some(count)) => {
                let labels = labels_in_turn(count, self.n as usize);
                Ok(ClassLabels::PerSample(labels))
            }
            (Some(class), Some(count)) if (class as usize) < count => Ok(ClassLabels::All(class)),
            (Some(class), Some(count)) => {
                Err(Error::argument("--class", class, format!("below {count}")))
            }
            (Some(class), None) => Err(Error::argument(
                "--class",
                class,
                "none: there are no classes",
            )),
        }
    }
}

/// Fails for the first option that is given.
fn refuse(options: &[(&str, bool)], expected: &str) -> Result<()> {
    match options.iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(Error::argument(*option, "given", expected)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn options_are_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn options_of_trainings_do_not_go_with_a_model() {
        let check = |arguments: &str| {
            let all = format!("animate {arguments}");
            Options::try_parse_from(all.split(' '))
                .unwrap()
                .check()
                .map_err(|error| error.to_string())
        };
        assert_eq!(check("--class 7 --frames 8 --size 16"), Ok(()));
        assert_eq!(check("--model x --prompt y --steps 3 --overlap 2"), Ok(()));
        assert_eq!(check("--model x --sampling-steps 3"), Ok(()));
        assert_eq!(check("--model x --prompt y --latents z --fps 9"), Ok(()));
        for option in [
            "--resume",
            "--minutes 2",
            "--image-model y",
            "--data z",
            "--batch 3",
            "--classifier z",
            "--eval-clips 4",
            "--side 8",
            "--rgb",
            "--prompt y --sampling-steps 3",
            "--prompt y --latents z --frames 5",
            "--prompt y --latents z --guidance 2",
        ] {
            let error = check(&format!("--model x {option}")).unwrap_err();
            let mut parts = option.split(' ').rev();
            let name = parts.find(|part| part.starts_with("--")).unwrap();
            assert!(error.contains(name), "{error}");
        }
        for fps in ["0", "101", "NaN"] {
            let error = check(&format!("--fps {fps}")).unwrap_err();
            assert!(error.contains(&format!("`--fps` is {fps}")), "{error}");
        }
        assert!(check("--guidance=-1").is_err());
        assert!(Options::try_parse_from(["animate", "--prompt", "x"]).is_err());
    }

    #[test]
    fn classes_are_those_of_the_model() {
        let options = |arguments: &[&str]| {
            Options::try_parse_from([&["animate"], arguments].concat()).unwrap()
        };
        let labels = options(&["-n", "3"]).classes(Some(2)).unwrap();
        assert_eq!(labels, ClassLabels::PerSample(vec![0, 1, 0]));
        let seven = options(&["--class", "7"]);
        assert_eq!(seven.classes(Some(10)).unwrap(), ClassLabels::All(7));
        assert!(seven.classes(Some(7)).is_err() && seven.classes(None).is_err());
    }
}
