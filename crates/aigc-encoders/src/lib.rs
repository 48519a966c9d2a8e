//! Encoders of text and images, and their tokenizers: CLIP (Radford et al. 2021,
//! <https://arxiv.org/abs/2103.00020>) and T5 (Raffel et al. 2020,
//! <https://arxiv.org/abs/1910.10683>), with the configurations, names of weights and files of
//! transformers.
#![forbid(unsafe_code)]

pub mod clip;
mod layers;
pub mod t5;
pub mod tokenizer;
