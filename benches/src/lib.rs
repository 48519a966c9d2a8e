//! The workloads that are timed, each the same work as its namesake in `peer/peer.py`.
#![forbid(unsafe_code)]

mod clock;
mod dcgan;
mod gpt;
mod kernels;
mod vae;

use anyhow::Result;
use burn::tensor::Device;
pub use clock::{Clock, peak_bytes};

/// A workload: its name, and what runs it until its clock says that it is enough.
pub type Workload = (&'static str, fn(&Device, Clock) -> Result<()>);

/// Training steps, and the operations that issue after issue found slow.
pub const WORKLOADS: [Workload; 14] = [
    ("vae_mlp", |device, clock| vae::run(vae::mlp(), 128, device, clock)),
    ("vae_conv", |device, clock| vae::run(vae::conv(32, 28), 128, device, clock)),
    ("dcgan", dcgan::run),
    ("gpt_char", gpt::run),
    ("conv3_64", |device, clock| kernels::conv("", [32, 64, 64, 28, 3, 1], device, clock)),
    ("conv3_64_w", |device, clock| kernels::conv("w", [32, 64, 64, 28, 3, 1], device, clock)),
    ("conv3_64_xw", |device, clock| kernels::conv("xw", [32, 64, 64, 28, 3, 1], device, clock)),
    ("conv3_32", |device, clock| kernels::conv("", [32, 32, 32, 28, 3, 1], device, clock)),
    ("conv3_32_xw", |device, clock| kernels::conv("xw", [32, 32, 32, 28, 3, 1], device, clock)),
    ("conv4_64", |device, clock| kernels::conv("", [64, 64, 128, 14, 4, 2], device, clock)),
    ("conv4_64_xw", |device, clock| kernels::conv("xw", [64, 64, 128, 14, 4, 2], device, clock)),
    ("group_norm", kernels::group_norm),
    ("silu", kernels::silu),
    ("group_norm_silu_xw", kernels::group_norm_silu),
];

/// `vae_conv` with twice the batch, the width, the side, and twice again: cost against size.
pub const SIZES: [Workload; 9] = [
    ("vae_conv_batch_32", |device, clock| vae::run(vae::conv(16, 16), 32, device, clock)),
    ("vae_conv_batch_64", |device, clock| vae::run(vae::conv(16, 16), 64, device, clock)),
    ("vae_conv_batch_128", |device, clock| vae::run(vae::conv(16, 16), 128, device, clock)),
    ("vae_conv_width_16", |device, clock| vae::run(vae::conv(16, 16), 32, device, clock)),
    ("vae_conv_width_32", |device, clock| vae::run(vae::conv(32, 16), 32, device, clock)),
    ("vae_conv_width_64", |device, clock| vae::run(vae::conv(64, 16), 32, device, clock)),
    ("vae_conv_side_16", |device, clock| vae::run(vae::conv(16, 16), 32, device, clock)),
    ("vae_conv_side_32", |device, clock| vae::run(vae::conv(16, 32), 32, device, clock)),
    ("vae_conv_side_64", |device, clock| vae::run(vae::conv(16, 64), 32, device, clock)),
];

/// The workload called `name`.
///
/// # Errors
/// If there is none.
pub fn workload(name: &str) -> Result<Workload> {
    let all = || WORKLOADS.iter().chain(&SIZES);
    let found = all().find(|(known, _)| *known == name);
    found.copied().ok_or_else(|| {
        let known: Vec<&str> = all().map(|(name, _)| *name).collect();
        anyhow::anyhow!("unknown workload `{name}`; known are {}", known.join(", "))
    })
}
