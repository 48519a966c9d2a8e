//! Answers OpenAI's images API from a model on this machine.
//!
//!     cargo run --release -p aigc-examples-serve --example serve
//!     cargo run --release -p aigc-examples-serve --example serve -- --model DIR
//!     cargo run --release -p aigc-examples-serve --example serve -- --model FILE --base DIR
//!
//! ```python
//! from openai import OpenAI
//! client = OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="none")
//! print(client.images.generate(prompt="two red circles left of a blue square").data[0].url)
//! ```

#![forbid(unsafe_code)]

use aigc_core::{Error, text_to_image::TextToImage};
use aigc_examples_prompt::ModelOptions;
use aigc_examples_serve::{ServerConfig, start};
use aigc_pipelines::text_to_image::Residency;
use anyhow::{Context, Result, bail};
use clap::Parser;
use std::{
    io::Write,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// The environment variable with the key of clients.
const KEY: &str = "SERVE_API_KEY";

/// Sides of an image by the model of this repository, which was trained at 64x64.
const OWN_MODEL_MAX_SIDE: u32 = 256;

/// Answers OpenAI's images API from a model on this machine. Clients must send the key in the
/// environment variable SERVE_API_KEY, if it is set.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    model: ModelOptions,
    /// Keep each part of the model in memory only while it is needed; every request opens the parts
    /// again.
    #[arg(long)]
    low_memory: bool,
    /// Address to listen on. Other machines can reach another address than a loopback one; it needs
    /// a key.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Name of the model; by default that of its directory or file.
    #[arg(long)]
    name: Option<String>,
    /// A further name of the model, for programs that ask for a certain one; may be repeated.
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Requests that may wait.
    #[arg(long, default_value_t = 16)]
    queue: usize,
    /// Connections at a time; further ones wait.
    #[arg(long, default_value_t = 128)]
    max_connections: usize,
    /// Images of a request.
    #[arg(long, default_value_t = 10)]
    max_n: usize,
    /// Width and height of an image; 2048 by default, 256 for the model of this repository.
    #[arg(long)]
    max_side: Option<u32>,
    /// Denoising steps of an image, at most.
    #[arg(long, default_value_t = 200)]
    max_steps: usize,
    /// Pictures that are kept to be fetched by their address, in MiB; beyond it the oldest go.
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    max_url_bytes: usize,
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

/// Opens the model that is served, under `name` if there is one.
fn open(
    model: &ModelOptions,
    residency: Residency,
    name: Option<String>,
) -> aigc_core::Result<Box<dyn TextToImage>> {
    // With its causes in one line.
    let opened = model.open(residency);
    let pipeline = opened.map_err(|error| Error::other(format!("{error:#}")))?;
    Ok(match name {
        Some(name) => Box::new(pipeline.with_name(name)),
        None => Box::new(pipeline),
    })
}

/// The key that clients must send, if the environment has one.
fn key() -> Result<Option<String>> {
    // A key that cannot be used must not become none.
    match std::env::var_os(KEY).filter(|key| !key.is_empty()) {
        Some(key) => match key.into_string() {
            Ok(key) => Ok(Some(key)),
            Err(_) => bail!("{KEY} is not text in UTF-8"),
        },
        None => Ok(None),
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    args.model.check()?;
    let key = key()?;
    if key.is_none() && !args.listen.ip().is_loopback() {
        bail!(
            "--listen {} is open to other machines: set {KEY} to the key that clients must send",
            args.listen
        );
    }
    let mut config = ServerConfig::default();
    if let Some(key) = key {
        config = config.with_api_key(&key).context(KEY)?;
    }
    config.model = args.name.clone();
    config.aliases = args.alias;
    config.queue = args.queue;
    config.max_connections = args.max_connections;
    config.max_n = args.max_n;
    if args.model.is_own_model() {
        config.max_side = OWN_MODEL_MAX_SIDE;
    }
    if let Some(max_side) = args.max_side {
        config.max_side = max_side;
    }
    config.max_steps = args.max_steps;
    let max_url_bytes = args.max_url_bytes.checked_mul(1 << 20);
    config.max_url_bytes = max_url_bytes.with_context(|| {
        let largest = usize::MAX >> 20;
        format!(
            "--max-url-bytes {} MiB: expected at most {largest}",
            args.max_url_bytes
        )
    })?;
    config.low_steps = args.low_steps;
    config.high_steps = args.high_steps;
    config.public_url = args.public_url;
    // A terminal that is gone must not end requests.
    config.log = Some(Arc::new(|line| {
        let _ = writeln!(std::io::stderr(), "{line}");
    }));

    let listener =
        TcpListener::bind(args.listen).with_context(|| format!("--listen {}", args.listen))?;
    let (model, name) = (args.model, args.name);
    let residency = match args.low_memory {
        true => Residency::WhileNeeded,
        false => Residency::default(),
    };
    let open = move || open(&model, residency, name);
    let server = start(listener, config, Box::new(open))?;
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
            let _ = writeln!(
                std::io::stderr(),
                "\nfinishing the request in progress; press Ctrl-C again to stop at once"
            );
        }
    });
    if let Err(error) = handler {
        eprintln!("Ctrl-C will stop at once: {error}");
    }
    stopped
}
