//! Options of `paint`.

use aigc_core::text_to_image::{ImageRequest, ImageSize};
use aigc_examples_prompt::{ModelOptions, check_exists};
use anyhow::{Context, Result, ensure};
use clap::Parser;
use image::{DynamicImage, ImageDecoder, ImageReader};
use std::path::{Path, PathBuf};

/// Paints images from a prompt, with a model on this machine or an images API.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// What the image shows.
    prompt: String,
    #[command(flatten)]
    pub(crate) model: ModelOptions,
    /// Ask an images API instead: OpenAI's, that of OPENAI_BASE_URL, or the one at URL. The key is
    /// read from OPENAI_API_KEY.
    #[arg(
        long,
        value_name = "URL",
        num_args = 0..=1,
        default_missing_value = "",
        conflicts_with_all = ["model", "base", "config", "variant", "lora", "half", "device"]
    )]
    pub(crate) api: Option<String>,
    /// Name of the API's model.
    #[arg(long, requires = "api", value_name = "NAME")]
    pub(crate) api_model: Option<String>,
    /// What the image should not show.
    #[arg(long)]
    negative: Option<String>,
    /// Number of images.
    #[arg(long, short, default_value_t = 1)]
    n: usize,
    /// Width and height, as in 512x768.
    #[arg(long)]
    size: Option<ImageSize>,
    /// Random seed; the same seed gives the same image.
    #[arg(long)]
    seed: Option<u64>,
    /// Denoising steps.
    #[arg(long)]
    steps: Option<usize>,
    /// Scale of classifier-free guidance.
    #[arg(long)]
    guidance: Option<f64>,
    /// Image to start from.
    #[arg(long, value_name = "IMAGE")]
    from: Option<PathBuf>,
    /// How much of the image is replaced: more than 0, at most 1.
    #[arg(long, requires = "from")]
    strength: Option<f64>,
    /// Paint only where this image, as large as that of --from, is white.
    #[arg(long, requires = "from", value_name = "IMAGE")]
    mask: Option<PathBuf>,
    /// Learned words (textual inversion); may be repeated.
    #[arg(long, value_name = "FILE", conflicts_with = "api")]
    pub(crate) embedding: Vec<PathBuf>,
    /// Directory of a ControlNet.
    #[arg(long, value_name = "DIR", requires = "control", conflicts_with = "api")]
    pub(crate) controlnet: Option<PathBuf>,
    /// Image that the ControlNet follows.
    #[arg(long, value_name = "IMAGE", requires = "controlnet")]
    control: Option<PathBuf>,
    /// Read weights such as (word:1.3) in the prompt, and prompts of any length.
    #[arg(long, conflicts_with = "api")]
    pub(crate) web_ui: bool,
    /// Encode and decode large images in tiles.
    #[arg(long, conflicts_with = "api")]
    pub(crate) tiles: bool,
    /// PNG file to write; several images are numbered.
    #[arg(long, short, default_value = "paint.png")]
    pub(crate) out: PathBuf,
}

impl Options {
    /// Checks what can be known before a model is opened or an API is asked, which takes its time.
    pub(crate) fn check(&self) -> Result<()> {
        // On this machine, an image alone says what is wanted, too.
        let is_enough = self.from.is_some() && self.api.is_none();
        let says_nothing = self.prompt.trim().is_empty() && !is_enough;
        ensure!(!says_nothing, "the prompt is empty");
        ensure!(self.n > 0, "--n is 0, expected at least 1");
        ensure!(self.steps != Some(0), "--steps is 0, expected at least 1");
        if let Some(scale) = self.guidance {
            let is_scale = scale.is_finite() && scale >= 0.0;
            ensure!(is_scale, "--guidance is {scale}, expected 0 or more");
        }
        if let Some(strength) = self.strength {
            let is_part = strength > 0.0 && strength <= 1.0;
            ensure!(
                is_part,
                "--strength is {strength}, expected more than 0, at most 1"
            );
        }
        if let Some(url) = self.api.as_deref().filter(|url| !url.is_empty()) {
            ensure!(
                url.contains("://"),
                "--api {url}: expected an address such as http://127.0.0.1:8080/v1; the prompt \
                 comes before --api"
            );
        }
        if self.api.is_none() {
            self.model.check()?;
        }
        if let Some(dir) = &self.controlnet {
            check_exists("controlnet", dir)?;
        }
        for path in &self.embedding {
            check_exists("embedding", path)?;
        }
        self.check_out()
    }

    fn check_out(&self) -> Result<()> {
        let (out, shown) = (&self.out, self.out.display());
        let is_png = out
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("png"));
        ensure!(is_png, "--out {shown}: expected a name that ends with .png");
        ensure!(!out.is_dir(), "--out {shown} is a directory");
        let dir = out.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or(Path::new("."));
        let dir_shown = dir.display();
        ensure!(
            dir.is_dir(),
            "--out {shown}: there is no directory {dir_shown}"
        );
        // Permissions do not say everything: a disk may be read-only, and a name too long. The file
        // is removed at once.
        let stem = out.file_stem().unwrap_or_default();
        tempfile::Builder::new()
            .prefix(stem)
            .suffix(".png")
            .tempfile_in(dir)
            .with_context(|| format!("--out {shown}: no file can be written to {dir_shown}"))?;
        Ok(())
    }

    /// The request.
    pub(crate) fn request(&self) -> Result<ImageRequest> {
        let mut request = ImageRequest::new(&self.prompt).with_n(self.n);
        request.negative_prompt = self.negative.clone();
        request.size = self.size;
        request.seed = self.seed;
        request.num_inference_steps = self.steps;
        request.guidance_scale = self.guidance;
        if let Some(path) = &self.from {
            request = request.with_image(read("from", path)?, self.strength);
        }
        if let Some(path) = &self.mask {
            let mask = read("mask", path)?.into_luma8();
            if let Some(image) = &request.image {
                let (found, expected) = (mask.dimensions(), (image.width(), image.height()));
                ensure!(
                    found == expected,
                    "--mask {} is {}x{}, expected {}x{}, the size of --from",
                    path.display(),
                    found.0,
                    found.1,
                    expected.0,
                    expected.1
                );
            }
            request = request.with_mask_image(mask);
        }
        if let Some(path) = &self.control {
            request = request.with_control_image(read("control", path)?);
        }
        Ok(request)
    }
}

/// The image of an option, turned as its camera was.
fn read(option: &str, path: &Path) -> Result<DynamicImage> {
    let read = || -> Result<DynamicImage> {
        let reader = ImageReader::open(path)?.with_guessed_format()?;
        let mut decoder = reader.into_decoder()?;
        let orientation = decoder.orientation()?;
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok(image)
    };
    read().with_context(|| format!("--{option} {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, error::ErrorKind};

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        Options::try_parse_from([&["paint"], arguments].concat())
    }

    #[test]
    fn options_are_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn options_of_a_model_here_do_not_go_with_an_api() {
        assert!(parse(&["a cat", "--api", "--size", "64x64", "--seed", "3"]).is_ok());
        for options in [
            &["--model", "x"][..],
            &["--model", "x", "--base", "y"],
            &["--variant", "fp16"],
            &["--lora", "x"],
            &["--embedding", "x"],
            &["--controlnet", "x", "--control", "y"],
            &["--web-ui"],
            &["--half"],
            &["--tiles"],
            &["--device", "flex"],
        ] {
            let error = parse(&[&["a cat", "--api"], options].concat()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ArgumentConflict, "{options:?}");
        }
    }

    #[test]
    fn mistakes_are_named_before_a_model_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let here = dir.path().display().to_string();
        let (out, long) = (path("cat.png"), path(&format!("{}.png", "a".repeat(300))));
        let check = |prompt: &str, options: &[&str]| {
            let arguments = [&[prompt], options].concat();
            parse(&arguments)
                .unwrap()
                .check()
                .map_err(|e| e.to_string())
        };
        assert_eq!(check("a cat", &["--model", &here, "--out", &out]), Ok(()));
        let (no, in_no) = (path("none"), path("none/cat.png"));
        let lora = format!("{no}:0.5");
        for (options, expected) in [
            (&["--model", &here, "--n", "0"][..], "--n is 0"),
            (&["--model", &here, "--steps", "0"], "--steps is 0"),
            (
                &["--model", &here, "--guidance", "NaN"],
                "--guidance is NaN",
            ),
            (
                &["--model", &here, "--from", "x", "--strength", "1.5"],
                "--strength is 1.5",
            ),
            (
                &["--model", &here, "--from", "x", "--strength", "0"],
                "--strength is 0, expected more than 0, at most 1",
            ),
            (&["--model", &no], "--model"),
            (&["--model", &here, "--lora", &lora], "--lora"),
            (&["--model", &here, "--embedding", &no], "--embedding"),
            (
                &["--model", &here, "--controlnet", &no, "--control", "x"],
                "--controlnet",
            ),
            (&["--model", &here, "--out", "cat.jpg"], ".png"),
            (&["--model", &here, "--out", &in_no], "no directory"),
            (
                &["--model", &here, "--out", &long],
                "no file can be written",
            ),
            (&["--api", "a dog"], "the prompt comes before"),
        ] {
            let error = check("a cat", options).unwrap_err();
            assert!(error.contains(expected), "{options:?}: {error}");
        }
        let error = check(" ", &["--model", &here]).unwrap_err();
        assert!(error.contains("prompt"), "{error}");
        let files = std::fs::read_dir(&here).unwrap().count();
        assert_eq!(files, 0, "checks leave nothing");
    }
}
