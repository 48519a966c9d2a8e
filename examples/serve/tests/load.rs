//! Many requests leak nothing: the memory of two processes is measured, one with the server and one
//! with the client.

mod common;

use aigc_examples_serve::ServerConfig;
use aigc_pipelines::openai::{
    CallOptions, CreateImageEditRequest, CreateImageRequest, ImageFile, ImageOptions, OpenAiConfig,
    OpenAiImages,
};
use common::{Counts, serve_with};
use std::{
    io::{BufRead, BufReader, Lines, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// The k-th request: of a prompt, of an image, as a stream, with an error.
fn ask(client: &OpenAiImages, k: usize) {
    let options = ImageOptions {
        n: Some(2),
        response_format: (k % 4 != 1).then(|| "b64_json".into()),
        stream: (k % 4 == 2).then_some(true),
        partial_images: (k % 4 == 2).then_some(2),
        ..ImageOptions::default()
    };
    let mut call = CallOptions::default();
    match k % 8 {
        3 => {
            let image = image::DynamicImage::new_rgb8(64, 64);
            let image = ImageFile::from_image(&image).unwrap();
            let edit = CreateImageEditRequest::new(image, "a hat").with_options(options);
            assert_eq!(client.edits(&edit, &mut call).unwrap().images.len(), 2);
        }
        7 => {
            let options = ImageOptions {
                size: Some("20x20".into()),
                ..options
            };
            let request = CreateImageRequest::new("a cat").with_options(options);
            assert!(client.generations(&request, &mut call).is_err());
        }
        _ => {
            let request = CreateImageRequest::new("a cat").with_options(options);
            assert_eq!(
                client
                    .generations(&request, &mut call)
                    .unwrap()
                    .images
                    .len(),
                2
            );
        }
    }
}

/// `count` requests, `at_once` at a time.
fn ask_many(client: &OpenAiImages, count: usize, at_once: usize) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let k = next.fetch_add(1, Ordering::Relaxed);
                    if k >= count {
                        return;
                    }
                    ask(client, k);
                }
            });
        }
    });
}

/// The environment variable that makes this program the server.
const AS_SERVER: &str = "AIGC_TEST_SERVE";

/// The server, in a process of its own that another test has started.
#[test]
fn serve_until_the_input_ends() {
    if std::env::var_os(AS_SERVER).is_none() {
        return;
    }
    let mut config = ServerConfig::default();
    config.queue = 32;
    // What is kept on purpose must not count.
    config.max_url_bytes = 100_000;
    let (server, counts) = serve_with(config, Duration::from_micros(100));
    println!("\nlistening: {}", server.address());
    for line in std::io::stdin().lines() {
        match line.unwrap().as_str() {
            "load" => println!("\nload: {}", server.load()),
            "begun" => println!("\nbegun: {}", Counts::of(&counts.begun)),
            _ => println!("\ncancelled: {}", Counts::of(&counts.cancelled)),
        }
    }
    server.stop().unwrap();
}

/// The process with the server.
struct Serving {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
}

impl Serving {
    fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command
            .args(["--exact", "serve_until_the_input_ends", "--nocapture"])
            .env(AS_SERVER, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut serving = Self {
            child,
            input,
            output,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        serving.address = serving.read("listening").parse().unwrap();
        serving
    }

    fn read(&mut self, name: &str) -> String {
        let start = format!("{name}: ");
        let lines = self.output.by_ref().map(Result::unwrap);
        let mut found = lines.filter_map(|line| Some(line.strip_prefix(&start)?.to_string()));
        found.next().unwrap()
    }

    fn ask(&mut self, name: &str) -> usize {
        writeln!(self.input, "{name}").unwrap();
        self.read(name).parse().unwrap()
    }

    fn wait_until(&mut self, what: &str, holds: impl Fn(&mut Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        }
    }

    /// `count` connections, two at a time, that are closed while the request of the first one is
    /// made and that of the second one waits.
    fn hang_up_many(&mut self, count: usize) {
        let body = r#"{"prompt": "a cat", "num_inference_steps": 200}"#;
        let request = format!(
            "POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let address = self.address;
        let send = || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream
        };
        for _ in 0..count / 2 {
            let begun = self.ask("begun");
            let made = send();
            self.wait_until("no request begins", |server| server.ask("begun") > begun);
            let waits = send();
            // On a slow machine the first one may have ended before it is seen that both are there.
            self.wait_until("no request waits", |server| {
                server.ask("load") == 2 || server.ask("begun") > begun + 1
            });
            drop((made, waits));
            self.wait_until("work is left", |server| server.ask("load") == 0);
        }
    }
}

/// Bytes of memory that a process occupies.
fn resident(process: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kilobytes.parse::<f64>().unwrap() * 1024.0
}

#[test]
#[cfg(target_os = "linux")]
fn thousands_of_requests_leak_nothing() {
    let mut serving = Serving::start();
    let url = format!("http://{}/v1", serving.address);
    let client = OpenAiImages::new(OpenAiConfig::new(url)).unwrap();
    let server = serving.child.id().to_string();
    let mut report = vec![];
    // In the first rounds the allocators take what threads and connections need at most. What leaks
    // is larger than ever before after every round: one round without a new maximum may be chance,
    // two in succession are not.
    let mut steady = 0;
    let mut most = [resident(&server), resident("self")];
    let is_steady = (0..8).any(|round| {
        ask_many(&client, 1000, 1);
        ask_many(&client, 1000, 16);
        serving.hang_up_many(200);
        let after = [resident(&server), resident("self")];
        let growth = [after[0] / most[0] - 1.0, after[1] / most[1] - 1.0];
        most = [most[0].max(after[0]), most[1].max(after[1])];
        report.push(format!(
            "round {round}: server {:.1} MB {:+.1} %, client {:.1} MB {:+.1} %",
            after[0] / 1e6,
            100.0 * growth[0],
            after[1] / 1e6,
            100.0 * growth[1]
        ));
        let stays = round > 0 && growth.iter().all(|growth| *growth <= 0.05);
        steady = if stays { steady + 1 } else { 0 };
        steady == 2
    });
    println!(
        "1,000 requests in sequence, 1,000 sixteen at a time, 200 killed connections\n{}",
        report.join("\n")
    );
    assert!(is_steady, "{report:?}");
    assert!(serving.ask("cancelled") > 0);
    drop(serving.input);
    assert!(serving.child.wait().unwrap().success());
}
