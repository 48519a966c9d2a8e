//! Speech: voices of VITS from their folders, such as those of MMS.
//!
//! The text encoder, the durations and the flow are those of `aigc-vae`; the decoder is the
//! HiFi-GAN of `aigc-gan`. A folder of transformers has the weights of both.
//!
//! ```no_run
//! use aigc_core::{audio::{WavFormat, write_wav}, device::device, rng::Rng};
//! use aigc_pipelines::speech::VitsPipeline;
//!
//! # fn main() -> aigc_core::Result<()> {
//! let voice = VitsPipeline::from_pretrained("mms-tts-eng", &device("flex")?)?;
//! let speech = voice.speak("what is that noise", &Default::default(), &mut Rng::new(1))?;
//! write_wav(&speech.wave, "noise.wav", WavFormat::default())?;
//! # Ok(()) }
//! ```

mod decoder;
mod pipeline;
mod voice;

pub use decoder::VitsDecoder;
pub use pipeline::{Speech, VitsPipeline};
pub use voice::{VitsSpeech, VitsVoice};
