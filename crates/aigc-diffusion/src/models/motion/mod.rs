//! Motion modules: layers over time between the layers of a U-net of images.
//!
//! | file | content |
//! |---|---|
//! | `hook` | places between the layers of a U-net |
//! | `frames` | frames as samples of a batch |
//! | `temporal` | transformers over frames, which 3-D U-nets have too |
//! | `adapter_config`, `adapter` | motion modules of all layers: `MotionAdapter` |
//! | `with_motion` | an image network with motion modules |
//! | `unet_config`, `unet` | AnimateDiff's network in one directory: `UNetMotionModel` |
//! | `joined` | files of networks in parts |

mod adapter;
mod adapter_config;
pub(crate) mod frames;
mod hook;
pub(crate) mod joined;
pub(crate) mod temporal;
#[cfg(all(test, feature = "flex"))]
mod tests;
mod unet;
mod unet_config;
mod with_motion;

pub use adapter::MotionAdapter;
pub use adapter_config::MotionAdapterConfig;
pub(crate) use hook::NoHook;
pub use hook::{HookedUNet, LayerHook, UNetLayer, UNetLayout};
pub use unet::UNetMotionModel;
pub use unet_config::UNetMotionConfig;
pub use with_motion::WithMotion;
pub(crate) use with_motion::image_shape;
