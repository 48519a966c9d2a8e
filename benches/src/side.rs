//! One side of a comparison: a process that runs rounds of a workload on request.

use crate::Work;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Stdio},
};

/// A process that runs a workload.
#[derive(Debug)]
pub struct Side {
    child: Child,
    answers: BufReader<ChildStdout>,
    /// The results so far.
    pub figures: Figures,
}

/// Results of a side.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Median seconds of every round.
    pub medians: Vec<f64>,
    /// Peak memory of the process.
    pub peak_bytes: Option<u64>,
    /// Memory of the process before the workload.
    pub idle_bytes: Option<u64>,
    /// What a run makes and reads, if the process says so.
    pub work: Work,
}

impl Figures {
    /// Median of the rounds in milliseconds.
    pub fn milliseconds(&self) -> f64 {
        self.seconds() * 1e3
    }

    /// Median of the rounds in seconds.
    pub fn seconds(&self) -> f64 {
        median(self.medians.clone())
    }
}

impl Side {
    /// Starts the process.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let answers = BufReader::new(
            child
                .stdout
                .take()
                .context("the standard output of the process is not piped")?,
        );
        Ok(Self {
            child,
            answers,
            figures: Figures::default(),
        })
    }

    /// Runs a round of `seconds`; returns the whole answer.
    ///
    /// # Errors
    /// If the process exits, or its answer is invalid.
    pub fn round(&mut self, seconds: f64) -> Result<Value> {
        let requests = self
            .child
            .stdin
            .as_mut()
            .context("the standard input of the process is not piped")?;
        writeln!(requests, "{seconds}")?;
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("the process exited without an answer");
        }
        let answer: Value = serde_json::from_str(&line)?;
        let times = answer["seconds"]
            .as_array()
            .context("seconds")?
            .iter()
            .filter_map(|t| t.as_f64())
            .collect();
        self.figures.medians.push(median(times));
        self.figures.peak_bytes = answer["peak_bytes"].as_u64();
        self.figures.idle_bytes = answer["idle_bytes"].as_u64();
        self.figures.work = Work::from_json(&answer["work"]);
        Ok(answer)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The median.
///
/// # Panics
/// If `values` is empty.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
