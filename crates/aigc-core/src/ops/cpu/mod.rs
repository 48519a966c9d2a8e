//! Kernels over slices of `f32`, for CPUs: no tensor library in sight.
//!
//! SIMD goes through pulp, which picks AVX-512, AVX2, NEON or plain code when the program runs; threads are rayon's.

pub(super) mod attention;
pub(super) mod conv;
mod curve;
pub(super) mod few;
pub(super) mod loss;
pub(super) mod map;
mod math;
mod memory;
pub(super) mod norm;
pub(super) mod optimizer;
pub(super) mod packed;
pub(super) mod pixels;
pub(super) mod product;
pub(super) mod rows;
mod simd;
mod threads;
mod tile;
