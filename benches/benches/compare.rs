//! Ours beside PyTorch in one run: every figure of speed comes from here.
//!
//!     PYTHON=python3 cargo compare [workload …] [--rounds 5] [--seconds 2] [--write docs/performance.md]
//!
//! Both sides run in processes of their own and take turns, so that a machine that is slow for a while is slow for both.
//! A round's figure is the median of its runs, a workload's the median of the rounds' ratios. `PYTHON` names an
//! interpreter with torch; `AIGC_DEVICE` picks our device.

use aigc_benches::{Clock, WORKLOADS, workload};
use anyhow::{Context, Result, bail};
use clap::Parser;
use serde_json::json;
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

#[derive(Parser)]
struct Args {
    /// Which workloads; all that are not about size if none is named.
    workloads: Vec<String>,
    /// How often the two take turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each works at a time.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Where to write the table: between the markers `<!-- compare -->` of this file.
    #[arg(long)]
    write: Option<std::path::PathBuf>,
    /// Run one workload as standard input says.
    #[arg(long, hide = true)]
    serve: Option<String>,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = std::env::var("AIGC_DEVICE").unwrap_or_else(|_| "flex".into());
    if let Some(name) = args.serve {
        return workload(&name)?.1(&aigc_core::device::device(&device)?, Clock::default());
    }
    let names = match args.workloads.is_empty() {
        true => WORKLOADS.iter().map(|(name, _)| name.to_string()).collect(),
        false => args.workloads,
    };
    let mut rows = Vec::new();
    for name in names {
        workload(&name)?;
        let row = compare(&name, args.rounds, args.seconds)?;
        println!("{}", row.json(&name));
        rows.push(row.markdown(&name));
    }
    match args.write {
        Some(path) => write_table(&path, &rows),
        None => Ok(()),
    }
}

/// One side of a comparison.
struct Side {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
    medians: Vec<f64>,
    peak_bytes: Option<u64>,
}

impl Side {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let answers = BufReader::new(child.stdout.take().context("its output is piped")?);
        Ok(Self { child, answers, medians: Vec::new(), peak_bytes: None })
    }

    fn round(&mut self, seconds: f64) -> Result<()> {
        let questions = self.child.stdin.as_mut().context("its input is piped")?;
        writeln!(questions, "{seconds}")?;
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("it ended without an answer");
        }
        let answer: serde_json::Value = serde_json::from_str(&line)?;
        let times = answer["seconds"].as_array().context("seconds")?.iter().filter_map(|t| t.as_f64()).collect();
        self.medians.push(median(times));
        self.peak_bytes = answer["peak_bytes"].as_u64();
        Ok(())
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

struct Row {
    ours: Side,
    peer: Option<Side>,
}

fn compare(name: &str, rounds: usize, seconds: f64) -> Result<Row> {
    let mut ours = Command::new(std::env::current_exe()?);
    ours.args(["--serve", name]);
    let mut python = Command::new(std::env::var("PYTHON").unwrap_or_else(|_| "python3".into()));
    python.args([concat!(env!("CARGO_MANIFEST_DIR"), "/peer/peer.py"), name]).stderr(Stdio::null());
    let (mut ours, mut peer) = (Side::start(ours)?, Side::start(python).ok());
    // The first round is not counted: caches, clocks and allocators settle.
    for round in 0..=rounds {
        ours.round(seconds).with_context(|| format!("{name}, our side"))?;
        if peer.as_mut().is_some_and(|peer| peer.round(seconds).is_err()) {
            eprintln!("{name}: no peer (PYTHON must name an interpreter with torch)");
            peer = None;
        }
        if round == 0 {
            ours.medians.clear();
            peer.iter_mut().for_each(|peer| peer.medians.clear());
        }
    }
    Ok(Row { ours, peer })
}

impl Row {
    /// Median, least and largest ratio.
    fn ratios(&self) -> Option<[f64; 3]> {
        let peer = self.peer.as_ref()?;
        let mut ratios: Vec<f64> = self.ours.medians.iter().zip(&peer.medians).map(|(o, p)| o / p).collect();
        ratios.sort_by(f64::total_cmp);
        Some([median(ratios.clone()), ratios[0], ratios[ratios.len() - 1]])
    }

    fn json(&self, name: &str) -> serde_json::Value {
        let peer = self.peer.as_ref();
        json!({
            "workload": name,
            "ours_s": median(self.ours.medians.clone()),
            "peer_s": peer.map(|peer| median(peer.medians.clone())),
            "ratio": self.ratios(),
            "ours_bytes": self.ours.peak_bytes,
            "peer_bytes": peer.and_then(|peer| peer.peak_bytes),
        })
    }

    fn markdown(&self, name: &str) -> String {
        let time = |side: &Side| format!("{:.3}", median(side.medians.clone()) * 1e3);
        let memory = |side: &Side| side.peak_bytes.map_or("?".into(), |bytes| format!("{}", bytes >> 20));
        let ratio = self
            .ratios()
            .map_or("no peer".into(), |[middle, low, high]| format!("**{middle:.2}** ({low:.2}–{high:.2})"));
        let of_peer = |of: &dyn Fn(&Side) -> String| self.peer.as_ref().map_or("–".into(), of);
        let (ours, peer) = (time(&self.ours), of_peer(&time));
        format!("| {name} | {ours} | {peer} | {ratio} | {} | {} |", memory(&self.ours), of_peer(&memory))
    }
}

/// The value in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn write_table(path: &std::path::Path, rows: &[String]) -> Result<()> {
    const MARKER: &str = "<!-- compare -->";
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let parts: Vec<&str> = text.split(MARKER).collect();
    let [before, _, after] = parts[..] else { bail!("{} needs two markers {MARKER}", path.display()) };
    let head = "| workload | ours, ms | PyTorch, ms | ours / PyTorch (range) | our peak, MiB | PyTorch's peak, MiB |\n|---|---|---|---|---|---|";
    Ok(std::fs::write(path, format!("{before}{MARKER}\n{head}\n{}\n{MARKER}{after}", rows.join("\n")))?)
}
