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
//! etc. With `--against`, the peer is this program built from another commit.

use aigc_benches::{
    Cost, Figures, SIZES, Side, WORKLOADS, device_name, draw_costs, from_root, median, ours, serve,
    workload, write_between,
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
        write_between(&path, &marker, &format!("{HEAD}\n{}", lines.join("\n")))?;
    }
    args.plot
        .map_or(Ok(()), |path| draw_costs(&panels(&rows), &from_root(&path)))
}

struct Row {
    ours: Figures,
    peer: Option<Figures>,
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
    // The first round is a warm-up of caches, CPU clocks and allocators, and is not counted.
    for round in 0..=rounds {
        ours.round(seconds)
            .with_context(|| format!("{name}, aigc's side"))?;
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
            ours.figures.medians.clear();
            peer.iter_mut()
                .for_each(|peer| peer.figures.medians.clear());
        }
    }
    Ok(Row {
        ours: ours.figures.clone(),
        peer: peer.map(|peer| peer.figures.clone()),
    })
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
        })
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
