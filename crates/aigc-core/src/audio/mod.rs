//! Sound as samples: reading, writing, resampling, loudness, and the traits of models of sound.
//!
//! ```no_run
//! use aigc_core::audio::{WavFormat, read_audio, write_wav};
//!
//! # fn main() -> aigc_core::Result<()> {
//! let wave = read_audio("speech.wav")?.to_mono().resample(16_000)?;
//! println!("{:.1} s, {:.1} LUFS", wave.seconds(), wave.loudness()?);
//! write_wav(&wave.normalize_loudness(-23.0)?, "speech-16k.wav", WavFormat::default())?;
//! # Ok(())
//! # }
//! ```
//!
//! | item | content |
//! |---|---|
//! | [`Waveform`] | channels of 32-bit floats and their sample rate |
//! | [`read_wav`], [`decode_wav`] | WAV: PCM of 8 to 32 bits, floats, A-law, mu-law |
//! | [`read_audio`] | WAV; FLAC, MP3, Vorbis and AIFF with the feature `audio-files` |
//! | [`write_wav`], [`encode_wav`] | WAV, whole |
//! | [`WavWriter`] | WAV, piece by piece, while the sound is made |
//! | [`Resampler`] | other sample rates, by the filters of torchaudio and of scipy |
//! | [`integrated_loudness`] | loudness in LUFS (ITU-R BS.1770-4) |
//! | [`mu_law_encode`] | companding, as models of samples use it |
//! | [`Vocoder`], [`AudioCodec`] | where models of different families meet |
//!
//! Samples lie in `[-1, 1]` unless a function says otherwise; values beyond are kept until a file
//! with whole numbers is written.

mod codec;
mod decode;
#[cfg(feature = "audio-files")]
mod decoders;
mod edit;
mod g711;
mod loudness;
mod mu_law;
mod resample;
mod vocoder;
mod wav;
mod wav_write;
mod wav_writer;
mod wave;

pub use codec::AudioCodec;
pub use decode::{decode_audio, read_audio};
pub use loudness::integrated_loudness;
pub use mu_law::{mu_law_compress, mu_law_decode, mu_law_encode, mu_law_expand};
pub use resample::{Resample, Resampler, SincWindow, polyphase_taps};
pub use vocoder::Vocoder;
pub use wav::{decode_wav, read_wav};
pub use wav_write::{WavFormat, encode_wav, write_wav, write_wav_with_provenance};
pub use wav_writer::WavWriter;
pub use wave::Waveform;
