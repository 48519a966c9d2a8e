//! Music from a prompt, by the models of MusicGen: text → codes → sound.
//!
//! ```no_run
//! # use aigc_core::{audio::{WavFormat, WavWriter}, device::device};
//! # use aigc_pipelines::music::{MusicOptions, MusicRequest, MusicgenPipeline};
//! # fn main() -> aigc_core::Result<()> {
//! let device = device("flex")?;
//! let pipeline = MusicgenPipeline::from_pretrained("musicgen-small", &device)?;
//! let request = MusicRequest::new("slow piano, rain in the background")
//!     .with_seconds(8.0)
//!     .with_seed(7);
//! // The file grows while codes are generated.
//! let (channels, rate) = (pipeline.channels(), pipeline.sample_rate());
//! let mut file = WavWriter::create("piano.wav", channels, rate, WavFormat::default())?;
//! let mut options = MusicOptions::default().with_audio(|piece| {
//!     file.write(piece)?;
//!     file.flush()
//! });
//! let music = pipeline.generate_with(&request, &mut options)?;
//! println!("{:.1} s, seed {:?}", music.wave.seconds(), music.request.seed);
//! # Ok(()) }
//! ```
//!
//! | file | content |
//! |---|---|
//! | `request` | requests, progress, results |
//! | `pipeline` | the parts, from a prompt to codes |
//! | `generate` | generation, from a request to a sound |
//! | `decode` | decoding of codes, all at once or frame by frame |
//! | `open` | opening directories |

mod decode;
mod generate;
mod open;
mod pipeline;
mod request;
#[cfg(all(test, feature = "flex"))]
mod tests;

pub use decode::MusicDecodeStream;
pub use pipeline::MusicgenPipeline;
pub use request::{GeneratedMusic, MusicOptions, MusicProgress, MusicRequest};
