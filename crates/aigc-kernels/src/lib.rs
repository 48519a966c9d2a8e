//! Kernels over slices of `f32` for CPUs. They know no tensor library; `aigc-core` calls them for
//! burn's Flex backend.
//!
//! Vector instructions go through pulp, which selects AVX-512, AVX2, NEON or plain code when the
//! program runs. Threads are rayon's.
//!
//! This crate serves the other crates of aigc: its functions may change with any release.

#![allow(unsafe_code)]

pub mod activation;
pub mod adam;
pub mod attention;
pub mod conv;
mod curve;
mod few;
pub mod loss;
mod math;
mod memory;
pub mod norm;
pub mod pages;
pub mod pixels;
pub mod product;
pub mod quantization;
pub mod quantized;
pub mod rows;
mod simd;
#[cfg(test)]
mod testing;
mod threads;
mod tile;

pub use activation::Activation;
pub use adam::AdamStep;
pub use quantization::Quantization;
