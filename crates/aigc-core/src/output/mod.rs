//! Tensors to pictures.

mod animation;
mod grid;

pub use animation::{Animation, save_gif};
pub use grid::{Grid, save_png};
