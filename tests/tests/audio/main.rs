//! Sound: signal processing, files, networks and pipelines against other implementations.
//!
//! The cases are those of the directory that `AIGC_FIXTURES` names; every case of a kind must pass.

mod bad_wav;
mod codec;
mod data;
mod diffusion;
mod dsp;
mod files;
mod kinds;
mod layers;
mod midi;
mod musicgen;
mod resample;
mod t5;
mod vits;
mod vocoder;
