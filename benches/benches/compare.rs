//! Ours beside PyTorch in the same run, one JSON line per workload:
//! `{"workload", "ours_s", "peer_s", "ratio"}`, medians in seconds.
//!
//!     cargo bench -p aigc-benches --bench compare -- [workload …]
//!
//! The two take turns, three rounds each, and `ratio` is the median of the rounds' ratios: a machine that is slow for a
//! while is slow for both. `PYTHON` names an interpreter with torch; without one, `peer_s` and `ratio` are null.
//! `AIGC_DEVICE` picks our device.

use aigc_benches::{WORKLOADS, median, time};
use anyhow::Result;
use serde_json::json;
use std::process::{Command, Stdio};

const ROUNDS: usize = 3;
const SECONDS: f64 = 4.0;

fn main() -> Result<()> {
    let named: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let all = || WORKLOADS.iter().map(ToString::to_string).collect();
    let device = aigc_core::device::device(&std::env::var("AIGC_DEVICE").unwrap_or_else(|_| "flex".into()))?;
    for workload in if named.is_empty() { all() } else { named } {
        let (mut ours, mut peers, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let our = median(time(&workload, &device, SECONDS)?);
            ours.push(our);
            if let Some(peer) = peer(&workload) {
                peers.push(peer);
                ratios.push(our / peer);
            }
        }
        let middle = |values: Vec<f64>| (!values.is_empty()).then(|| median(values));
        let (ours, peer, ratio) = (median(ours), middle(peers), middle(ratios));
        println!("{}", json!({"workload": workload, "ours_s": ours, "peer_s": peer, "ratio": ratio}));
    }
    Ok(())
}

/// Median seconds of the same work in PyTorch.
fn peer(workload: &str) -> Option<f64> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peer.py");
    let output = Command::new(python)
        .args([script, workload, "--seconds", &SECONDS.to_string()])
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    line["median_s"].as_f64()
}
