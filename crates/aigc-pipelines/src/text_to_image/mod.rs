//! Images from a prompt by the pipelines of diffusers: Stable Diffusion 1, 2, XL and 3, latent
//! consistency models, FLUX.1, PixArt.
//!
//! [`TextToImagePipeline::from_pretrained`] opens a pipeline's directory, and
//! [`generate`](aigc_core::text_to_image::TextToImage::generate) makes images. The same work in
//! stages, for those who want to see or change what is between them:
//!
//! ```no_run
//! # use aigc_core::{device::device, text_to_image::ImageRequest};
//! # use aigc_pipelines::text_to_image::*;
//! # fn main() -> aigc_core::Result<()> {
//! # let device = device("flex")?;
//! let pipeline = TextToImagePipeline::from_pretrained("stable-diffusion-v1-5", &device)?;
//! let request = ImageRequest::new("").with_size(512, 512);
//! let job = pipeline.prepare(&request, &PipelineOptions::default())?;
//! let prompts = Prompts::new(["a cat wearing a hat", "a dog wearing a hat"]);
//! let embeddings = pipeline.encode_prompts(&prompts, &job)?;
//! let mut noise = noise_of_images(NoiseSource::Torch, 7, 0..2);
//! let mut denoising = pipeline.denoise(&job, &embeddings, &[0, 1], noise.as_mut())?;
//! while let Some(step) = denoising.step(noise.as_mut())? {
//!     println!("step {}: {:?}", step.index, step.latents.dims());
//! }
//! let images = pipeline.decode(&job, denoising.into_latents())?; // [2, 3, 512, 512]
//! # Ok(()) }
//! ```
//!
//! | file | content |
//! |---|---|
//! | `pipeline`, `open`, `index` | pipelines, and how a directory is opened |
//! | `parts`, `part_models` | parts, opened when they are needed; their models by kind |
//! | `fingerprint` | by what weights are known again |
//! | `report`, `download` | what was found in a directory; pipelines of the Hugging Face hub |
//! | `from_single_file`, `save` | checkpoints in a single file; writing a directory |
//! | `adapters` | low-rank adapters and textual inversion |
//! | `families` | how prompts are encoded, and defaults: a file for each family |
//! | `prompt` | prompts as data: plain, or with weights and pieces |
//! | `options`, `model_defaults` | options of a pipeline; defaults in its directory |
//! | `job`, `checks`, `size` | a request with all values, checked; sizes of images and latents |
//! | `schedule` | the calls of the network |
//! | `start` | the latents to start from: noise, an image, the kept part of an image |
//! | `conditions`, `control` | what the network is conditioned on; ControlNets |
//! | `denoise` | the loop |
//! | `autoencoder`, `image` | images to latents and back, whole or in tiles; pixels |
//! | `generate`, `run` | stages of a request; all of it, with progress and cancellation |
//! | `noise` | noise of PyTorch's generator or of this library, a stream for each image |
//! | `preview`, `latent_colors` | previews; latents as colours |
//! | `safety`, `estimate` | checks of images, memory |
//! | `settings`, `png` | options as settings, and back; settings inside PNG files |

mod adapters;
mod autoencoder;
mod checks;
mod conditions;
mod control;
mod denoise;
#[cfg(feature = "download")]
mod download;
mod embeddings;
mod estimate;
mod families;
mod fingerprint;
mod from_single_file;
mod generate;
mod image;
mod index;
mod job;
mod latent_colors;
mod model_defaults;
mod noise;
mod open;
mod options;
mod part_models;
mod parts;
mod pipeline;
mod png;
mod preview;
mod prompt;
mod report;
mod run;
mod safety;
mod save;
mod schedule;
mod settings;
mod size;
mod start;

pub use adapters::LoraMode;
pub use denoise::{Denoising, DenoisingStep};
pub use embeddings::{EncoderInput, PromptEmbeddings, Prompts};
pub use estimate::MemoryEstimate;
pub use families::PipelineFamily;
pub use job::Job;
pub use noise::{NoiseStream, noise_of_images};
pub use open::PipelineOpenOptions;
pub use options::{
    ControlSettings, NoiseSource, PipelineOptions, Residency, SizeConditions, Tiling,
};
pub use pipeline::{PipelineAutoencoder, TextToImagePipeline};
pub use png::{ImageSettings, decode_png_settings, encode_png, read_png_settings, save_png};
pub use preview::PreviewDecoder;
pub use prompt::{
    PromptSyntax,
    web_ui::{PromptPart, parse as parse_web_ui_prompt},
};
pub use report::{PartReport, PipelineReport};
pub use safety::SafetyResult;
