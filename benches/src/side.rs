//! One side of a comparison: a process that works when asked.

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
    /// What it answered.
    pub figures: Figures,
}

/// What a side answered.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Median seconds of every round.
    pub medians: Vec<f64>,
    /// The most memory the process held.
    pub peak_bytes: Option<u64>,
    /// What it held before the workload.
    pub idle_bytes: Option<u64>,
}

impl Figures {
    /// Milliseconds, median of the rounds.
    pub fn milliseconds(&self) -> f64 {
        self.seconds() * 1e3
    }

    /// Seconds, median of the rounds.
    pub fn seconds(&self) -> f64 {
        median(self.medians.clone())
    }
}

impl Side {
    /// Starts it.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let answers = BufReader::new(child.stdout.take().context("its output is piped")?);
        Ok(Self {
            child,
            answers,
            figures: Figures::default(),
        })
    }

    /// Lets it work for so many seconds; gives back the whole answer.
    ///
    /// # Errors
    /// If it ends, or answers with something else.
    pub fn round(&mut self, seconds: f64) -> Result<Value> {
        let questions = self.child.stdin.as_mut().context("its input is piped")?;
        writeln!(questions, "{seconds}")?;
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("it ended without an answer");
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
        Ok(answer)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
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
