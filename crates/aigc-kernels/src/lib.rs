//! CPU kernels over slices of `f32`. The crate does not depend on a tensor library; `aigc-core`
//! calls the kernels for burn's Flex backend.
//!
//! Vector instructions go through pulp, which selects AVX-512, AVX2, NEON or scalar code at run
//! time. Threads are rayon's.
//!
//! Tensors are contiguous and row-major unless a function takes strides. Functions panic if the
//! lengths of their slices do not fit the given sizes, or if the sizes overflow. Sizes, strides and
//! indices are checked at the entry: no argument of a safe function leads to undefined behaviour.
//!
//! This crate is an implementation detail of aigc: its functions may change in any release.

#![allow(unsafe_code)]

pub mod activation;
pub mod adam;
pub mod attention;
pub mod conv;
mod curve;
mod elu;
mod few_rows;
pub mod gaussian;
pub mod half;
pub mod loss;
pub mod lstm;
mod math;
mod matrix;
mod memory;
pub mod norm;
pub mod pages;
pub mod pixels;
pub mod pool;
pub mod product;
pub mod quantization;
pub mod quantized;
pub mod rows;
mod simd;
pub mod snake;
mod some_rows;
mod team;
#[cfg(test)]
mod testing;
mod threads;
mod tile;
pub mod transpose;

pub use activation::Activation;
pub use adam::AdamStep;
pub use quantization::Quantization;
