//! The workloads that are timed, each the same work as its namesake in `peer.py`.
#![forbid(unsafe_code)]

mod vae;

use anyhow::Result;
use burn::tensor::Device;

/// Names of all workloads.
pub const WORKLOADS: [&str; 2] = ["vae_mlp", "vae_conv"];

/// Seconds of each step of `workload` on `device`, for about `seconds` after a warm-up.
///
/// # Errors
/// For an unknown name, and whatever training reports.
pub fn time(workload: &str, device: &Device, seconds: f64) -> Result<Vec<f64>> {
    match workload {
        "vae_mlp" => vae::time(vae::mlp(), device, seconds),
        "vae_conv" => vae::time(vae::conv(), device, seconds),
        other => anyhow::bail!("unknown workload `{other}`; known are {}", WORKLOADS.join(", ")),
    }
}

/// The value in the middle.
///
/// # Panics
/// If there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
