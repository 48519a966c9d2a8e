//! Options of `paint`.

use aigc_core::text_to_image::{ImageRequest, ImageSize};
use anyhow::{Context, Result, ensure};
use clap::Parser;
use image::DynamicImage;
use std::path::{Path, PathBuf};

/// Paints images from a prompt, with a model on this machine or an images API.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// What the image shows.
    prompt: String,
    /// Directory of a pipeline as diffusers saves it, or a checkpoint in a single file.
    #[arg(long, value_name = "DIR|FILE", required_unless_present = "api")]
    pub(crate) model: Option<PathBuf>,
    /// For a single file: a pipeline's directory of the same family, which has the tokenizer.
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    /// Variant of the weights, such as fp16.
    #[arg(long)]
    pub(crate) variant: Option<String>,
    /// Ask an images API instead: OpenAI's, or the one at URL. The key is read from OPENAI_API_KEY.
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "")]
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
    /// How much of the image is replaced, from 0 to 1.
    #[arg(long, requires = "from")]
    strength: Option<f64>,
    /// Paint only where this image, as large as that of --from, is white.
    #[arg(long, requires = "from", value_name = "IMAGE")]
    mask: Option<PathBuf>,
    /// Low-rank adapter, with its strength after a colon; may be repeated.
    #[arg(long, value_name = "FILE[:SCALE]")]
    lora: Vec<String>,
    /// Learned words (textual inversion); may be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) embedding: Vec<PathBuf>,
    /// Directory of a ControlNet.
    #[arg(long, value_name = "DIR", requires = "control")]
    pub(crate) controlnet: Option<PathBuf>,
    /// Image that the ControlNet follows.
    #[arg(long, value_name = "IMAGE", requires = "controlnet")]
    control: Option<PathBuf>,
    /// Read weights such as (word:1.3) in the prompt, and prompts of any length.
    #[arg(long)]
    pub(crate) web_ui: bool,
    /// Keep the weights in half precision in memory.
    #[arg(long)]
    pub(crate) half: bool,
    /// Keep each part of the model in memory only while it is needed.
    #[arg(long)]
    pub(crate) low_memory: bool,
    /// Encode and decode large images in tiles.
    #[arg(long)]
    pub(crate) tiles: bool,
    /// PNG file to write; several images are numbered.
    #[arg(long, short, default_value = "paint.png")]
    pub(crate) out: PathBuf,
    /// flex, ndarray, libtorch, wgpu, vulkan, metal, cuda:0, rocm or auto.
    #[arg(long, default_value = "flex")]
    pub(crate) device: String,
}

impl Options {
    /// The request.
    pub(crate) fn request(&self) -> Result<ImageRequest> {
        let mut request = ImageRequest::new(&self.prompt).with_n(self.n);
        request.negative_prompt = self.negative.clone();
        request.size = self.size;
        request.seed = self.seed;
        request.num_inference_steps = self.steps;
        request.guidance_scale = self.guidance;
        if let Some(path) = &self.from {
            request = request.with_image(read(path)?, self.strength);
        }
        if let Some(path) = &self.mask {
            request = request.with_mask_image(read(path)?.into_luma8());
        }
        if let Some(path) = &self.control {
            request = request.with_control_image(read(path)?);
        }
        Ok(request)
    }

    /// Files of low-rank adapters and their strengths.
    pub(crate) fn loras(&self) -> Result<Vec<(PathBuf, f64)>> {
        let parse = |text: &String| {
            let parts = text.rsplit_once(':');
            let scaled = parts.and_then(|(path, scale)| Some((path, scale.parse::<f64>().ok()?)));
            let (path, scale) = scaled.unwrap_or((text, 1.0));
            ensure!(scale.is_finite(), "--lora {text}: the strength is a number");
            Ok((PathBuf::from(path), scale))
        };
        self.lora.iter().map(parse).collect()
    }
}

fn read(path: &Path) -> Result<DynamicImage> {
    image::open(path).with_context(|| path.display().to_string())
}
