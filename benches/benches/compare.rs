//! Compares aigc with PyTorch in one run: the source of all published figures of speed.
//!
//!     PYTHON=python3 cargo compare [workload …] [--rounds 5] [--seconds 2] \
//!         [--write docs/performance.md]
//!     PYTHON=python3 cargo compare --sizes --plot docs/pictures/cost.svg
//!     cargo compare --against OTHER/target/release/deps/compare-0123456789abcdef
//!
//! The sides run in separate processes and alternate in rounds, so that a temporarily slow machine
//! slows down both. The figure of a round is the median of its runs, the figure of a workload the
//! median of the ratios of all rounds. `PYTHON` names an interpreter with torch. `AIGC_DEVICE`
//! selects our device; if it contains `cuda`, PyTorch uses CUDA too. The table is written between
//! the markers `<!-- compare -->`; on other devices than Flex, between `<!-- compare libtorch -->`
//! etc. Steps, seconds of sound, and weights read beside the throughput of a large copy in the same
//! rounds follow below it. With `--against`, the peer is this program built from another commit.

use aigc_benches::{
    Cost, Figures, SIZES, Side, WORKLOADS, Work, copy_bytes_per_second, device_name, draw_costs,
    from_root, median, ours, serve, workload, write_between,
};
use anyhow::{Context, Result};
use clap::Parser;
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

#[derive(Parser)]
struct Args {
    /// Workloads; the default is all but those of `--sizes`.
    workloads: Vec<String>,
    /// Number of rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds per round and side.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// File to write the table to, between its markers.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Takes this program, built from another commit, as the peer instead of PyTorch.
    #[arg(long, conflicts_with = "write")]
    against: Option<PathBuf>,
    /// Measures cost against size instead: batch, width and side, doubled and quadrupled.
    #[arg(long)]
    sizes: bool,
    /// SVG file to plot cost against size to.
    #[arg(long, requires = "sizes")]
    plot: Option<PathBuf>,
    /// Runs one workload, controlled by standard input.
    #[arg(long, hide = true)]
    serve: Option<String>,
    /// Added by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(name) = args.serve {
        return serve(&name, false);
    }
    let table = if args.sizes {
        &SIZES[..]
    } else {
        &WORKLOADS[..]
    };
    let names = match args.workloads.is_empty() {
        true => table.iter().map(|(name, _)| name.to_string()).collect(),
        false => args.workloads,
    };
    names.iter().try_for_each(|name| workload(name).map(drop))?;
    let mut rows = Vec::new();
    for name in names {
        let peer = match &args.against {
            Some(program) => other_build(program, &name),
            None => pytorch(&name)?,
        };
        let row = compare(&name, peer, args.rounds, args.seconds)?;
        println!("{}", row.json(&name));
        rows.push((name, row));
    }
    if let Some(path) = args.write {
        let lines: Vec<String> = rows.iter().map(|(name, row)| row.markdown(name)).collect();
        // Every device has a separate table.
        let marker = match (args.sizes, device_name().as_str()) {
            (true, _) => "sizes".to_string(),
            (false, "flex") => "compare".to_string(),
            (false, device) => format!("compare {device}"),
        };
        let notes: Vec<String> = rows
            .iter()
            .filter_map(|(name, row)| row.note(name))
            .collect();
        let text = format!("{HEAD}\n{}\n\n{}", lines.join("\n"), notes.join("\n"));
        write_between(&path, &marker, &text)?;
    }
    args.plot
        .map_or(Ok(()), |path| draw_costs(&panels(&rows), &from_root(&path)))
}

struct Row {
    ours: Figures,
    peer: Option<Figures>,
    /// Bytes per second of a large copy, of every round of a workload that says what it reads.
    copies: Vec<f64>,
}

/// The peer in `benches/peer`.
fn pytorch(name: &str) -> Result<Command> {
    let mut python = Command::new(std::env::var("PYTHON").unwrap_or_else(|_| "python3".into()));
    let device = match device_name().contains("cuda") {
        true => "cuda",
        false => "cpu",
    };
    python
        .args([concat!(env!("CARGO_MANIFEST_DIR"), "/peer/peer.py"), name])
        .args([
            "--threads",
            &std::thread::available_parallelism()?.to_string(),
        ])
        .args(["--device", device])
        .stderr(Stdio::null());
    Ok(python)
}

/// This program, built from another commit.
fn other_build(program: &Path, name: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["--serve", name]);
    command
}

fn compare(name: &str, peer: Command, rounds: usize, seconds: f64) -> Result<Row> {
    let (mut ours, mut peer) = (Side::start(ours(name)?)?, Side::start(peer).ok());
    let mut copies = Vec::new();
    // The first round is a warm-up of caches, CPU clocks and allocators, and is not counted.
    for round in 0..=rounds {
        ours.round(seconds)
            .with_context(|| format!("{name}, aigc's side"))?;
        // Here, where both sides wait: a copy in one of them would raise its peak memory.
        if ours.figures.work.read_bytes.is_some() && is_on_host() {
            copies.push(copy_bytes_per_second());
        }
        if peer
            .as_mut()
            .is_some_and(|peer| peer.round(seconds).is_err())
        {
            eprintln!(
                "{name}: the peer did not run; PYTHON must name an interpreter with torch, \
                 --against a program that knows the workload"
            );
            peer = None;
        }
        if round == 0 {
            copies.clear();
            ours.figures.medians.clear();
            peer.iter_mut()
                .for_each(|peer| peer.figures.medians.clear());
        }
    }
    Ok(Row {
        ours: ours.figures.clone(),
        peer: peer.map(|peer| peer.figures.clone()),
        copies,
    })
}

/// Whether weights lie in the memory whose throughput a copy measures.
fn is_on_host() -> bool {
    ["flex", "ndarray", "libtorch"].contains(&device_name().as_str())
}

impl Row {
    /// Median, smallest and largest ratio.
    fn ratios(&self) -> Option<[f64; 3]> {
        let peer = self.peer.as_ref()?;
        let mut ratios: Vec<f64> = self
            .ours
            .medians
            .iter()
            .zip(&peer.medians)
            .map(|(o, p)| o / p)
            .collect();
        ratios.sort_by(f64::total_cmp);
        Some([median(ratios.clone()), ratios[0], ratios[ratios.len() - 1]])
    }

    fn json(&self, name: &str) -> serde_json::Value {
        let (peer, ratios) = (self.peer.as_ref(), self.ratios());
        json!({
            "workload": name,
            "ours_s": self.ours.seconds(),
            "peer_s": peer.map(Figures::seconds),
            "ratio": ratios.map(|[middle, ..]| middle),
            "ratio_range": ratios.map(|[_, low, high]| [low, high]),
            "ours_bytes": self.ours.peak_bytes,
            "ours_idle_bytes": self.ours.idle_bytes,
            "peer_bytes": peer.and_then(|peer| peer.peak_bytes),
            "peer_idle_bytes": peer.and_then(|peer| peer.idle_bytes),
            "rates": self.rates(),
        })
    }

    /// Bytes per second of a large copy: the median of the rounds.
    fn copy_rate(&self) -> Option<f64> {
        (!self.copies.is_empty()).then(|| median(self.copies.clone()))
    }

    /// Our time relative to that in which a copy moves as many bytes as a run reads.
    fn to_bound(&self) -> Option<f64> {
        let read = self.ours.work.read_rate(self.ours.seconds())?;
        Some(self.copy_rate()? / read)
    }

    /// Figures of what a run makes and reads, of both sides; null for most workloads.
    fn rates(&self) -> serde_json::Value {
        let (work, ours) = (self.ours.work, self.ours.seconds());
        if work == Work::default() {
            return serde_json::Value::Null;
        }
        let peer = self.peer.as_ref().map(Figures::seconds);
        json!({
            "ours_step_ms": work.step_milliseconds(ours),
            "peer_step_ms": peer.and_then(|peer| work.step_milliseconds(peer)),
            "ours_sound_per_s": work.sound_rate(ours),
            "peer_sound_per_s": peer.and_then(|peer| work.sound_rate(peer)),
            "ours_read_bytes_per_s": work.read_rate(ours),
            "peer_read_bytes_per_s": peer.and_then(|peer| work.read_rate(peer)),
            "copy_bytes_per_s": self.copy_rate(),
            "ours_to_copy_bound": self.to_bound(),
        })
    }

    /// The same figures as a line of a list.
    fn note(&self, name: &str) -> Option<String> {
        let (work, ours) = (self.ours.work, self.ours.seconds());
        let peer = self.peer.as_ref().map(Figures::seconds);
        let both = |rate: &dyn Fn(f64) -> Option<f64>, unit: &str| {
            let peer = peer.and_then(rate);
            let peer = peer.map_or(String::new(), |peer| format!(" (PyTorch {peer:.2})"));
            Some(format!("{:.2}{peer} {unit}", rate(ours)?))
        };
        let bound = self.to_bound().zip(self.copy_rate());
        let parts = [
            both(&|seconds| work.step_milliseconds(seconds), "ms a step"),
            both(
                &|seconds| work.sound_rate(seconds),
                "seconds of sound a second",
            ),
            both(
                &|seconds| Some(work.read_rate(seconds)? / 1e9),
                "GB/s of weights read",
            ),
            bound.map(|(factor, rate)| {
                let rate = rate / 1e9;
                format!("{factor:.2} times the time at the {rate:.2} GB/s of a large copy")
            }),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| format!("- `{name}`: {}", parts.join(", ")))
    }

    fn markdown(&self, name: &str) -> String {
        let time = |side: &Figures| format!("{:.3}", side.milliseconds());
        let memory = |side: &Figures| match (side.peak_bytes, side.idle_bytes) {
            (Some(peak), Some(idle)) => {
                format!("{} ({})", peak >> 20, (peak - idle.min(peak)) >> 20)
            }
            _ => "?".into(),
        };
        let ratio = self
            .ratios()
            .map_or("no peer".into(), |[middle, low, high]| {
                format!("**{middle:.2}** ({low:.2}–{high:.2})")
            });
        let of_peer = |of: &dyn Fn(&Figures) -> String| self.peer.as_ref().map_or("–".into(), of);
        let (ours, peer) = (time(&self.ours), of_peer(&time));
        format!(
            "| {name} | {ours} | {peer} | {ratio} | {} | {} |",
            memory(&self.ours),
            of_peer(&memory)
        )
    }
}

const HEAD: &str =
    "| workload | ours, ms | PyTorch, ms | ours / PyTorch (range) | our peak, MiB (above idle) | PyTorch's peak, MiB (above idle) |
|---|---|---|---|---|---|";

/// One panel per kind of size. In `vae_conv_batch_32`, the kind is `batch` and the size 32.
fn panels(rows: &[(String, Row)]) -> Vec<(String, Vec<Cost>)> {
    let mut panels: Vec<(String, Vec<Cost>)> = Vec::new();
    for (name, row) in rows {
        let Some((kind, size)) = name
            .rsplit_once('_')
            .and_then(|(name, size)| Some((name, size.parse().ok()?)))
        else {
            continue;
        };
        let cost = Cost {
            size,
            ours: row.ours.milliseconds(),
            peer: row.peer.as_ref().map(Figures::milliseconds),
        };
        let kind = kind.rsplit('_').next().unwrap_or(kind);
        match panels.iter_mut().find(|(known, _)| known == kind) {
            Some((_, costs)) => costs.push(cost),
            None => panels.push((kind.to_string(), vec![cost])),
        }
    }
    panels
}
