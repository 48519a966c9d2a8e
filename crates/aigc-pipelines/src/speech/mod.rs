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
//!
//! A long text is spoken sentence by sentence. [`VitsPipeline::speak_sentences`] hands each out as
//! soon as it is spoken:
//!
//! ```no_run
//! use aigc_core::{audio::{WavFormat, WavWriter}, device::device, fs::read_text, rng::Rng};
//! use aigc_pipelines::speech::{SentenceOptions, VitsPipeline};
//! use aigc_vae::speech::VitsOptions;
//!
//! # fn main() -> aigc_core::Result<()> {
//! let voice = VitsPipeline::from_pretrained("mms-tts-eng", &device("flex")?)?;
//! let text = read_text("story.txt")?;
//! let (options, sentences) = (VitsOptions::default(), SentenceOptions::default());
//! let rate = voice.voice().model.config().sampling_rate;
//! let mut file = WavWriter::create("story.wav", 1, rate, WavFormat::default())?;
//! voice.speak_sentences(&text, &options, &sentences, &mut Rng::new(1), |piece| {
//!     file.write(piece)?;
//!     file.flush()
//! })?;
//! file.finish()?;
//! # Ok(()) }
//! ```

mod decoder;
mod pipeline;
mod sentences;
#[cfg(all(test, feature = "flex"))]
mod tests;
mod voice;

pub use decoder::VitsDecoder;
pub use pipeline::{Speech, VitsPipeline};
pub use sentences::SentenceOptions;
pub use voice::{VitsSpeech, VitsVoice};
