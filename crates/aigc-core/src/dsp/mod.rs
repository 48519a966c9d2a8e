//! Signal processing: spectra of sound, on the host with 64 bits and on a device with gradients.
//!
//! ```text
//! samples → Stft → Spectrogram → MelSpectrogram → Mfcc
//!     ↑                               ↓
//!     └──────── GriffinLim ───────────┘
//! ```
//!
//! | item | content |
//! |---|---|
//! | [`Window`] | windows, periodic and symmetric |
//! | [`StftConfig`], [`Stft`] | short-time Fourier transform of any length, and its inverse |
//! | [`MelConfig`], [`MelSpectrogram`] | mel spectra, and everything that makes two comparable |
//! | [`mel_filters`] | the filters alone |
//! | [`dct`], [`Mfcc`] | cosine transform, cepstral coefficients |
//! | [`GriffinLim`] | waveforms from magnitudes or mel spectra, without a network |
//! | [`PitchTracker`] | the fundamental frequency over time |
//! | [`StftLoss`], [`MelLoss`] | differentiable distances of waveforms |
//!
//! Methods that take slices compute on the host with 64 bits, except [`PitchTracker`]. Methods that
//! take tensors compute with 32 bits on the tensor's device, and are differentiable: on the CPU
//! (Flex) by a fast Fourier transform with its own backward pass, elsewhere as products with the
//! transform's matrix.
//!
//! Conventions are those of PyTorch (`torch.stft`), librosa and torchaudio, which agree.

mod blocks;
mod config;
mod dct;
mod device;
mod frames;
mod griffin_lim;
mod invert;
mod log_style;
mod loss;
mod mel;
mod mel_config;
mod mel_same;
mod mel_scale;
mod mfcc;
mod phase;
mod pitch;
mod plan;
mod stft;
mod window;

pub use config::{PadMode, StftConfig};
pub use dct::{DctKind, DctNorm, dct};
pub use frames::{Frames, Spectrogram};
pub use griffin_lim::{GriffinLim, GriffinLimConfig};
pub use log_style::{DecibelReference, FloorMode, LogStyle};
pub use loss::{MelLoss, StftLoss, StftTerms};
pub use mel::MelSpectrogram;
pub use mel_config::{MelConfig, MelPadding};
pub use mel_scale::{MelNorm, MelScale, mel_filters};
pub use mfcc::{Mfcc, MfccConfig};
pub use pitch::{PitchConfig, PitchTracker};
pub use stft::Stft;
pub use window::Window;
pub(crate) use window::bessel_i0;
