//! The foundation of all crates of aigc: devices, data, layers, training, checkpoints, output.
//!
//! ```text
//! Dataset → DataLoader → Objective(model, batch) → Trainer → run directory
//!         → from_pretrained → sample
//! ```
//!
//! | module | content |
//! |---|---|
//! | [`device`] | devices by name: `flex`, `cuda:0`, `libtorch`, … |
//! | [`rng`] | seeded noise drawn on the host: the same on every backend |
//! | [`data`] | data sets (digits, IDX files, image directories) and the loader that reads ahead |
//! | [`check`] | checks of configuration values |
//! | [`json`] | configuration files of other libraries |
//! | [`latent`] | interpolation in latent spaces |
//! | [`lora`] | configuration of low-rank adapters |
//! | [`fs`] | text files, atomic writing |
//! | [`audio`] | sound: waveforms, files, resampling, codecs and vocoders as traits |
//! | [`dsp`] | spectra, mels, Griffin-Lim, differentiable losses of sound |
//! | [`music`] | notes, MIDI files, piano rolls, chorales, a synthesiser |
//! | [`nn`] | layers shared by all model families |
//! | [`ops`] | operations with CPU kernels and their own backward passes |
//! | [`params`] | visiting every float tensor of a model, by path |
//! | [`train`] | the [`Trainer`](train::Trainer), schedules, EMA, clipping, events and callbacks |
//! | [`checkpoint`] | the run directory: atomic, checksummed, exactly resumable |
//! | [`weights`] | reading and writing weights; pretrained models |
//! | [`encoder`] | traits that let one model family use the models of another |
//! | [`adversarial`] | discriminators and perceptual distances for training autoencoders |
//! | [`sampling`] | what the samplers of VAEs, GANs and diffusion share |
//! | `text_to_image` | images from a prompt: the trait, requests and results (feature `image`) |
//! | [`output`] | PNG grids, GIFs and plots |
//! | `eval` | evaluation of samples (feature `eval`) |
//! | `hub` | models by name, from the Hugging Face hub (feature `download`) |
//! | `hub_model` | a pretrained model's files on the hub, `from_hub` (feature `download`) |
//! | `testing` | helpers for tests (feature `testing`) |
//!
//! The crate of a family (aigc-vae, …) adds models and an [`Objective`](train::Objective).
#![deny(unsafe_code)]

pub mod adversarial;
pub mod audio;
mod cancel;
pub mod check;
pub mod checkpoint;
pub mod data;
pub mod device;
pub mod dsp;
pub mod encoder;
mod error;
#[cfg(feature = "eval")]
pub mod eval;
pub mod fs;
#[cfg(feature = "download")]
pub mod hub;
#[cfg(feature = "download")]
pub mod hub_model;
pub mod json;
pub mod latent;
pub mod lora;
pub mod music;
pub mod nn;
#[allow(unsafe_code)]
pub mod ops;
pub mod output;
pub mod params;
pub mod rng;
pub mod sampling;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(feature = "image")]
pub mod text_to_image;
pub mod train;
pub mod weights;

pub use burn;
pub use cancel::CancelToken;
pub use error::{DataFault, Error, Result};
