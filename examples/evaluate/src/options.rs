//! The command line.

use crate::subject::{Content, Model};
use aigc_core::{Error, Result, burn::tensor::Device, device::device};
use clap::{Parser, ValueEnum};
use std::path::{Path, PathBuf};

/// Judges a run or a folder of samples against a data set, and writes one self-contained page with
/// quality, diversity, relevance, originality and provenance.
#[derive(Clone, Debug, Parser)]
#[command(name = "evaluate")]
pub struct Options {
    /// A run of this repository, or a folder of samples: images, texts (.txt) or sounds (.wav).
    #[arg(value_name = "RUN")]
    pub subject: PathBuf,
    /// What the samples are compared with, best the data that the model was trained on: `digits`
    /// (embedded), a folder of images, of MNIST-format files, of texts or of sounds, or a text.
    #[arg(long, value_name = "DATA")]
    pub against: PathBuf,
    /// Data that the model was not trained on. By default the test images of `digits` and of
    /// MNIST-format files, and a tenth of other data.
    #[arg(long, value_name = "DATA")]
    pub held_out: Option<PathBuf>,
    /// Directory of report.html and report.json; by default `evaluation` in a run, and otherwise
    /// `evaluation-NAME` in the current directory. An earlier report there is replaced.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Number of samples to draw, or to take at random from a folder. By default as many as there
    /// are held-out images, at least 50 and at most 1,000; 50 texts; and all of a folder.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub samples: Option<u32>,
    /// Random seed of samples and of all draws.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Parts to measure, separated by commas; by default all.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Part>,
    /// Features of images: `pixels`, `lenet FILE`, `inception FILE` (weights of pytorch-fid or
    /// torch-fidelity) or `clip DIR`. By default the pixels of images of up to 1,024 values.
    #[arg(long, num_args = 1..=2, value_names = ["KIND", "FILE"])]
    pub features: Vec<String>,
    /// Directory that keeps the features of images, so that they are computed once.
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Text file with one prompt a line: for the CLIP score of images, in the order of the samples
    /// (of all files of a folder, also with --samples), or as beginnings of texts.
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,
    /// Sampling steps of a diffusion model.
    #[arg(long, value_name = "N", default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub sampling_steps: u32,
    /// Scale of classifier-free guidance of a diffusion model; 1 is none.
    #[arg(long, value_name = "SCALE", default_value_t = 1.0)]
    pub guidance: f64,
    /// flex, ndarray, libtorch, wgpu, vulkan, metal, cuda:0, rocm or auto.
    #[arg(long, default_value = "flex")]
    pub device: String,
    /// Read the samples and the data, say what was found, and measure and write nothing.
    #[arg(long)]
    pub check: bool,
}

/// A part of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// How much samples resemble real data.
    Quality,
    /// How varied they are.
    Diversity,
    /// How well they fit what was requested.
    Relevance,
    /// Whether they repeat the training data.
    Originality,
    /// The records in the files.
    Provenance,
}

/// The features of images that were chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FeatureChoice {
    /// Pixels, if the images are small.
    Default,
    Pixels,
    LeNet(PathBuf),
    Inception(PathBuf),
    Clip(PathBuf),
}

impl Options {
    /// Checks what does not depend on files.
    pub(crate) fn validate(&self) -> Result<()> {
        self.feature_choice()?;
        if !self.guidance.is_finite() {
            return Err(Error::argument("--guidance", self.guidance, "a number"));
        }
        Ok(())
    }

    pub(crate) fn feature_choice(&self) -> Result<FeatureChoice> {
        let file = |kind: fn(PathBuf) -> FeatureChoice, what: &str| {
            let file = self.features.get(1).map(PathBuf::from);
            let name = &self.features[0];
            file.map(kind).ok_or_else(|| {
                Error::argument("--features", name, format!("{name} and {what} behind it"))
            })
        };
        match self.features.first().map(String::as_str) {
            None => Ok(FeatureChoice::Default),
            Some("pixels") => match self.features.get(1) {
                None => Ok(FeatureChoice::Pixels),
                Some(more) => Err(Error::argument(
                    "--features",
                    format!("pixels {more}"),
                    "pixels alone; they take no file",
                )),
            },
            Some("lenet") => file(FeatureChoice::LeNet, "the file of its weights"),
            Some("inception") => file(FeatureChoice::Inception, "the file of its weights"),
            Some("clip") => file(FeatureChoice::Clip, "the directory of the model"),
            Some(other) => Err(Error::argument(
                "--features",
                other,
                "pixels, lenet FILE, inception FILE or clip DIR",
            )),
        }
    }

    /// Whether a part is to be measured.
    pub(crate) fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    pub(crate) fn device(&self) -> Result<Device> {
        device(&self.device)
    }

    /// Where the report is written; `is_run`: whether the subject is a run.
    pub(crate) fn out_dir(&self, is_run: bool) -> PathBuf {
        if let Some(out) = &self.out {
            return out.clone();
        }
        if is_run {
            return self.subject.join("evaluation");
        }
        // `.` and `..` have no name of their own.
        let whole = std::fs::canonicalize(&self.subject).unwrap_or_else(|_| self.subject.clone());
        let name = match whole.is_dir() {
            true => whole.file_name(),
            false => whole.file_stem(),
        };
        PathBuf::from(format!(
            "evaluation-{}",
            name.unwrap_or_default().to_string_lossy()
        ))
    }

    /// The given options that change nothing for this content and model.
    pub(crate) fn without_effect(
        &self,
        content: Content,
        model: Option<&Model>,
    ) -> Vec<&'static str> {
        let images = content == Content::Images;
        let is_diffusion = matches!(model, Some(Model::Diffusion(_)));
        let takes_prompts = images || model.is_some();
        let all = [
            ("--features", !self.features.is_empty() && !images),
            ("--cache", self.cache.is_some() && !images),
            ("--prompts", self.prompts.is_some() && !takes_prompts),
            (
                "--sampling-steps",
                self.sampling_steps != 20 && !is_diffusion,
            ),
            ("--guidance", self.guidance != 1.0 && !is_diffusion),
        ];
        let given = all.into_iter().filter(|(_, given)| *given);
        given.map(|(name, _)| name).collect()
    }

    /// The command that repeats the evaluation.
    pub(crate) fn command(&self) -> String {
        let mut words = vec![
            "cargo run --release --example evaluate --".to_string(),
            quoted(&self.subject),
            format!("--against {}", quoted(&self.against)),
        ];
        let mut push = |option: &str, path: &Option<PathBuf>| {
            words.extend(path.as_ref().map(|p| format!("{option} {}", quoted(p))));
        };
        push("--held-out", &self.held_out);
        push("--out", &self.out);
        push("--cache", &self.cache);
        push("--prompts", &self.prompts);
        if !self.features.is_empty() {
            let features = self.features.iter().map(|word| quoted(Path::new(word)));
            let features: Vec<String> = features.collect();
            words.push(format!("--features {}", features.join(" ")));
        }
        words.extend(self.samples.map(|n| format!("--samples {n}")));
        for part in &self.only {
            let name = part.to_possible_value();
            words.extend(name.map(|name| format!("--only {}", name.get_name())));
        }
        words.push(format!("--seed {}", self.seed));
        if self.sampling_steps != 20 {
            words.push(format!("--sampling-steps {}", self.sampling_steps));
        }
        if self.guidance != 1.0 {
            words.push(format!("--guidance {}", self.guidance));
        }
        if self.device != "flex" {
            words.push(format!("--device {}", quoted(Path::new(&self.device))));
        }
        words.join(" ")
    }
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "/._-:+=@%,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Options {
        let common = ["evaluate", "my runs/1", "--against", "digits"];
        Options::parse_from(common.iter().chain(arguments))
    }

    #[test]
    fn command_repeats_the_options() {
        let given = options(&[
            "--features",
            "lenet",
            "w.pth",
            "--only",
            "quality,diversity",
            "--out",
            "my report",
            "--cache",
            "kept",
        ]);
        let command = given.command();
        let expected = "evaluate -- 'my runs/1' --against digits --out 'my report' --cache kept \
                        --features lenet w.pth --only quality --only diversity --seed 0";
        assert!(command.ends_with(expected), "{command}");
        assert!(given.wants(Part::Quality) && !given.wants(Part::Originality));
    }

    #[test]
    fn features_need_their_files() {
        let refused = |arguments: &[&str]| {
            let error = options(arguments).validate().unwrap_err();
            error.to_string()
        };
        assert!(refused(&["--features", "lenet"]).contains("the file of its weights"));
        assert!(refused(&["--features", "pixels", "x"]).contains("they take no file"));
        assert!(refused(&["--features", "vgg"]).contains("`--features` is vgg"));
        assert!(refused(&["--guidance", "inf"]).contains("--guidance"));
    }

    #[test]
    fn options_without_effect_are_named() {
        let given = options(&[
            "--features",
            "pixels",
            "--guidance",
            "3",
            "--prompts",
            "p.txt",
        ]);
        let of = |content, model: Option<&Model>| given.without_effect(content, model);
        assert_eq!(
            of(Content::Sounds, None),
            ["--features", "--prompts", "--guidance"]
        );
        assert_eq!(of(Content::Images, None), ["--guidance"]);
        let diffusion = Model::Diffusion(PathBuf::new());
        assert!(of(Content::Images, Some(&diffusion)).is_empty());
        let language = Model::Language(PathBuf::new());
        assert_eq!(
            of(Content::Texts, Some(&language)),
            ["--features", "--guidance"]
        );
    }

    #[test]
    fn reports_of_runs_are_in_them() {
        assert_eq!(
            options(&[]).out_dir(true),
            Path::new("my runs/1/evaluation")
        );
        assert_eq!(options(&[]).out_dir(false), Path::new("evaluation-1"));
        let out = options(&["--out", "there"]);
        assert_eq!(out.out_dir(true), Path::new("there"));
    }
}
