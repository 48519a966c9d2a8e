//! Answers OpenAI's images API from a model on this machine.
//!
//!     cargo run --release -p aigc-examples-serve --example serve -- --model DIR
//!
//! ```python
//! from openai import OpenAI
//! client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="none")
//! print(client.images.generate(prompt="A cat wearing a hat", n=1, size="512x512").data[0].url)
//! ```

#![forbid(unsafe_code)]

use aigc_core::{burn::tensor::Device, device::device, text_to_image::TextToImage};
use aigc_examples_serve::{ServerConfig, start};
use aigc_pipelines::text_to_image::TextToImagePipeline;
use anyhow::{Result, bail};
use clap::Parser;
use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// The environment variable with the key of clients.
const KEY: &str = "SERVE_API_KEY";

/// Answers OpenAI's images API from a model on this machine. Clients must send the key in the
/// environment variable SERVE_API_KEY, if it is set.
#[derive(Debug, Parser)]
struct Args {
    /// Directory of a pipeline, as diffusers saves it.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// flex, ndarray, libtorch, wgpu, vulkan, metal, cuda:0, rocm or auto.
    #[arg(long, default_value = "flex")]
    device: String,
    /// Address to listen on. Other machines can reach another address than a loopback one; it needs
    /// a key.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Name of the model; by default that of its directory.
    #[arg(long)]
    name: Option<String>,
    /// A further name of the model, for programs that ask for a certain one; may be repeated.
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Requests that may wait.
    #[arg(long, default_value_t = 16)]
    queue: usize,
    /// Images of a request.
    #[arg(long, default_value_t = 10)]
    max_n: usize,
    /// Width and height of an image.
    #[arg(long, default_value_t = 2048)]
    max_side: u32,
    /// Steps of the quality `low`.
    #[arg(long, default_value_t = 10)]
    low_steps: usize,
    /// Steps of the quality `high`.
    #[arg(long, default_value_t = 50)]
    high_steps: usize,
    /// Address of the server as clients see it, where that is not the one they send requests to.
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
}

/// Opens the model that is served.
fn open(dir: &Path, device: &Device) -> aigc_core::Result<Box<dyn TextToImage>> {
    let loaded = TextToImagePipeline::from_pretrained(dir, device)?;
    for warning in loaded.warnings() {
        eprintln!("{warning}");
    }
    Ok(Box::new(loaded.into_inner()))
}

fn main() -> Result<()> {
    let args = Args::parse();
    let key = std::env::var(KEY).ok().filter(|key| !key.is_empty());
    if key.is_none() && !args.listen.ip().is_loopback() {
        bail!(
            "--listen {} is open to other machines: set {KEY} to the key that clients must send",
            args.listen
        );
    }
    let mut config = ServerConfig::default();
    if let Some(key) = key {
        config = config.with_api_key(&key);
    }
    config.model = args.name;
    config.aliases = args.alias;
    config.queue = args.queue;
    config.max_n = args.max_n;
    config.max_side = args.max_side;
    config.low_steps = args.low_steps;
    config.high_steps = args.high_steps;
    config.public_url = args.public_url;
    config.log = Some(Arc::new(|line| eprintln!("{line}")));

    let listener = TcpListener::bind(args.listen)?;
    let (model, name) = (args.model, args.device);
    let server = start(
        listener,
        config,
        Box::new(move || open(&model, &device(&name)?)),
    )?;
    eprintln!("{} at {}", server.model(), server.base_url());
    let stopped = stop_on_ctrl_c();
    while !stopped.load(Ordering::Relaxed) && !server.is_finished() {
        std::thread::sleep(Duration::from_millis(100));
    }
    server.stop()?;
    Ok(())
}

/// Set by Ctrl-C and SIGTERM. A second signal ends the program at once.
fn stop_on_ctrl_c() -> Arc<AtomicBool> {
    let stopped = Arc::new(AtomicBool::new(false));
    let handler = ctrlc::set_handler({
        let stopped = stopped.clone();
        move || {
            if stopped.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            eprintln!("\nfinishing the image in progress; press Ctrl-C again to stop at once");
        }
    });
    if let Err(error) = handler {
        eprintln!("Ctrl-C will stop at once: {error}");
    }
    stopped
}
