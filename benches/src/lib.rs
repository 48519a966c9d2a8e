//! The benchmarked workloads. Each does the same work as the workload of the same name in
//! `peer/peer.py`.
#![forbid(unsafe_code)]

mod clock;
mod dcgan;
mod eval;
mod gpt;
mod gpt2;
mod kernels;
mod memory;
mod pages;
mod plot;
mod side;
mod sound;
mod stable_diffusion;
mod unet;
mod vae;
mod video;
mod work;

use aigc_core::{nn::Activation, ops::Quantization, weights::WeightDtype};
use aigc_pipelines::text_to_image::{PipelineOpenOptions, Residency};
use anyhow::Result;
use burn::tensor::Device;
pub use clock::{Clock, peak_bytes};
pub use kernels::{KERNELS, Kernel, MakeKernel};
use kernels::{activation, conv, group_norm, group_norm_silu, product, repeat};
pub use memory::copy_bytes_per_second;
pub use pages::{from_root, write_between};
pub use plot::{Cost, draw_costs};
pub use side::{Figures, Side, median};
pub use work::Work;

/// A workload: its name, and a function that runs it until its clock ends.
pub type Workload = (&'static str, fn(&Device, Clock) -> Result<()>);

/// Training steps, single operations, and the peak throughput of arithmetic and memory.
pub const WORKLOADS: [Workload; 39] = [
    ("vae_mlp", |device, clock| {
        vae::run(vae::mlp(), 128, device, clock)
    }),
    ("vae_conv", |device, clock| {
        vae::run(vae::conv(32, 28), 128, device, clock)
    }),
    ("vae_residual_vq", vae::residual_vq),
    ("vae_hierarchical", vae::hierarchical),
    ("dcgan", dcgan::run),
    ("ddpm_unet_train", unet::training),
    ("ddpm_unet_sample", unet::sampling),
    ("sd15_unet_step", stable_diffusion::unet_step),
    ("sd15_vae_decode", stable_diffusion::vae_decode),
    ("clip_text", stable_diffusion::clip_text),
    ("gpt_char_train", gpt::run),
    ("gpt2_greedy", gpt2::greedy),
    ("gpt2_greedy_int8", |device, clock| {
        gpt2::quantized(Quantization::Int8, device, clock)
    }),
    ("gpt2_greedy_int4", |device, clock| {
        gpt2::quantized(Quantization::Int4, device, clock)
    }),
    ("gpt2_beam5", gpt2::beam5),
    ("gpt2_prefill", gpt2::prefill),
    ("inception_statistics", eval::inception_statistics),
    ("prdc", eval::prdc),
    ("conv1d_stack", sound::conv1d_stack),
    ("stft_loss", sound::stft_loss),
    ("codec_train", sound::codec_train),
    ("hifigan_infer", sound::hifigan_infer),
    ("vits_speak", sound::vits_speak),
    ("musicgen_small", sound::musicgen_small),
    ("motion_unet_train", video::motion_unet_train),
    ("conv1_64", |device, clock| {
        repeat(conv("", [32, 64, 64, 28, 1, 1], device), clock)
    }),
    ("conv1_64_xw", |device, clock| {
        repeat(conv("xw", [32, 64, 64, 28, 1, 1], device), clock)
    }),
    ("conv3_64", |device, clock| {
        repeat(conv("", [32, 64, 64, 28, 3, 1], device), clock)
    }),
    ("conv3_64_w", |device, clock| {
        repeat(conv("w", [32, 64, 64, 28, 3, 1], device), clock)
    }),
    ("conv3_64_xw", |device, clock| {
        repeat(conv("xw", [32, 64, 64, 28, 3, 1], device), clock)
    }),
    ("conv3_32", |device, clock| {
        repeat(conv("", [32, 32, 32, 28, 3, 1], device), clock)
    }),
    ("conv3_32_xw", |device, clock| {
        repeat(conv("xw", [32, 32, 32, 28, 3, 1], device), clock)
    }),
    ("conv4_64", |device, clock| {
        repeat(conv("", [64, 64, 128, 14, 4, 2], device), clock)
    }),
    ("conv4_64_xw", |device, clock| {
        repeat(conv("xw", [64, 64, 128, 14, 4, 2], device), clock)
    }),
    ("group_norm", |device, clock| {
        repeat(group_norm(device), clock)
    }),
    ("silu", |device, clock| {
        repeat(activation(Activation::Silu, device), clock)
    }),
    ("group_norm_silu_xw", |device, clock| {
        repeat(group_norm_silu(device), clock)
    }),
    ("matmul", |device, clock| {
        repeat(product([1024, 1024, 1024], device), clock)
    }),
    ("matvec", |device, clock| {
        repeat(product([1, 768, 50_257], device), clock)
    }),
];

/// Requests to a pipeline of Stable Diffusion 1.5's shape: time and peak memory with weights in
/// single or half precision, and with parts that are in memory only while they are needed (`low`).
pub const REQUESTS: [Workload; 4] = [
    ("sd15_request", |device, clock| {
        stable_diffusion::request(&PipelineOpenOptions::default(), device, clock)
    }),
    ("sd15_request_low", |device, clock| {
        let options = PipelineOpenOptions::default().with_residency(Residency::WhileNeeded);
        stable_diffusion::request(&options, device, clock)
    }),
    ("sd15_request_half", |device, clock| {
        let options = PipelineOpenOptions::default().with_dtype(WeightDtype::F16);
        stable_diffusion::request(&options, device, clock)
    }),
    ("sd15_request_half_low", |device, clock| {
        let options = PipelineOpenOptions::default()
            .with_dtype(WeightDtype::F16)
            .with_residency(Residency::WhileNeeded);
        stable_diffusion::request(&options, device, clock)
    }),
];

/// Cost against size: `vae_conv` with the batch, the width or the side doubled and quadrupled.
pub const SIZES: [Workload; 9] = [
    ("vae_conv_batch_32", |device, clock| {
        vae::run(vae::conv(16, 16), 32, device, clock)
    }),
    ("vae_conv_batch_64", |device, clock| {
        vae::run(vae::conv(16, 16), 64, device, clock)
    }),
    ("vae_conv_batch_128", |device, clock| {
        vae::run(vae::conv(16, 16), 128, device, clock)
    }),
    ("vae_conv_width_16", |device, clock| {
        vae::run(vae::conv(16, 16), 32, device, clock)
    }),
    ("vae_conv_width_32", |device, clock| {
        vae::run(vae::conv(32, 16), 32, device, clock)
    }),
    ("vae_conv_width_64", |device, clock| {
        vae::run(vae::conv(64, 16), 32, device, clock)
    }),
    ("vae_conv_side_16", |device, clock| {
        vae::run(vae::conv(16, 16), 32, device, clock)
    }),
    ("vae_conv_side_32", |device, clock| {
        vae::run(vae::conv(16, 32), 32, device, clock)
    }),
    ("vae_conv_side_64", |device, clock| {
        vae::run(vae::conv(16, 64), 32, device, clock)
    }),
];

/// The workload called `name`.
///
/// # Errors
/// If there is no such workload.
pub fn workload(name: &str) -> Result<Workload> {
    let all = || WORKLOADS.iter().chain(&SIZES).chain(&REQUESTS);
    let found = all().find(|(known, _)| *known == name);
    found.copied().ok_or_else(|| {
        let known: Vec<&str> = all().map(|(name, _)| *name).collect();
        anyhow::anyhow!(
            "unknown workload `{name}`, expected one of {}",
            known.join(", ")
        )
    })
}

/// The value of `AIGC_DEVICE`, or `flex`.
pub fn device_name() -> String {
    std::env::var("AIGC_DEVICE").unwrap_or_else(|_| "flex".into())
}

/// The device named by `AIGC_DEVICE`, or Flex.
///
/// # Errors
/// If there is no such device.
pub fn device() -> Result<Device> {
    Ok(aigc_core::device::device(&device_name())?)
}

/// Runs the workload called `name`, controlled by standard input.
///
/// # Errors
/// If there is no such workload or device, or it fails.
pub fn serve(name: &str, profiled: bool) -> Result<()> {
    workload(name)?.1(&device()?, Clock::new(profiled))
}

/// A command that runs this program as a server of the workload called `name`.
///
/// # Errors
/// If the path of the program is unknown.
pub fn ours(name: &str) -> Result<std::process::Command> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.args(["--serve", name]);
    Ok(command)
}
