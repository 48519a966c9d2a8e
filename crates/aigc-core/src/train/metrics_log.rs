//! One JSON line per logged step and per evaluation.

use super::{Callback, Event};
use crate::{Error, Result, fs::write_atomic};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

/// A line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricsRecord {
    /// Steps completed.
    pub step: usize,
    /// `train` (means since the previous line) or `evaluate`.
    pub kind: String,
    /// Named values; `null` for values that are not finite, which JSON does not have.
    pub values: BTreeMap<String, Option<f64>>,
    /// Seconds since the current start of the run.
    pub seconds: f64,
}

/// Writes the run's `metrics.jsonl`. After a resume, lines of steps that will be repeated are
/// removed first.
#[derive(Debug)]
pub struct MetricsLogger {
    every: usize,
    file: Option<(File, PathBuf)>,
    sums: BTreeMap<String, f64>,
    count: usize,
    seconds: f64,
}

impl MetricsLogger {
    /// A log with one line per `every` steps (at least 1), with means over them.
    pub fn new(every: usize) -> Self {
        Self {
            every: every.max(1),
            file: None,
            sums: BTreeMap::new(),
            count: 0,
            seconds: 0.0,
        }
    }

    fn write(
        &mut self,
        step: usize,
        kind: &str,
        values: BTreeMap<String, Option<f64>>,
    ) -> Result<()> {
        let record = MetricsRecord {
            step,
            kind: kind.to_string(),
            values,
            seconds: self.seconds,
        };
        let Some((file, path)) = &mut self.file else {
            return Ok(());
        };
        let mut line = serde_json::to_vec(&record).map_err(Error::other)?;
        line.push(b'\n');
        file.write_all(&line).map_err(Error::io(path))
    }

    fn flush(&mut self, step: usize) -> Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let count = self.count as f64;
        let means = std::mem::take(&mut self.sums).into_iter();
        let means = means
            .map(|(name, sum)| (name, Some(sum / count).filter(|v| v.is_finite())))
            .collect();
        self.count = 0;
        self.write(step, "train", means)
    }
}

impl Callback for MetricsLogger {
    fn on_event(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Started { run, from_step, .. } => {
                let path = run.metrics_path();
                keep_until(&path, *from_step)?;
                let file = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(&path)
                    .map_err(Error::io(&path))?;
                self.file = Some((file, path));
            }
            Event::Step(report) => {
                self.seconds = report.elapsed.as_secs_f64();
                for (name, value) in &report.losses {
                    *self.sums.entry(name.clone()).or_default() += value;
                }
                *self.sums.entry("learning_rate".into()).or_default() += report.learning_rate;
                self.count += 1;
                if report.step.is_multiple_of(self.every) {
                    self.flush(report.step)?;
                }
            }
            Event::Evaluated { step, metrics, .. } => {
                let values = metrics
                    .iter()
                    .map(|(n, v)| (n.clone(), Some(*v).filter(|v| v.is_finite())))
                    .collect();
                self.write(*step, "evaluate", values)?;
            }
            Event::Finished { step, .. } => {
                self.flush(*step)?;
                if let Some((file, path)) = &self.file {
                    file.sync_all().map_err(Error::io(path))?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Removes lines after `step`, and an incomplete last line of a killed run.
fn keep_until(path: &Path, step: usize) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let kept: Vec<_> = read_metrics(path)?
        .into_iter()
        .filter(|record| record.step <= step)
        .collect();
    let mut text = Vec::new();
    for record in kept {
        serde_json::to_writer(&mut text, &record).map_err(Error::other)?;
        text.push(b'\n');
    }
    write_atomic(path, &text)
}

/// Reads a `metrics.jsonl`. Incomplete lines are skipped.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read.
pub fn read_metrics(path: &Path) -> Result<Vec<MetricsRecord>> {
    let file = File::open(path).map_err(Error::io(path))?;
    let mut records = Vec::new();
    for line in BufReader::new(file).split(b'\n') {
        records
            .extend(serde_json::from_slice::<MetricsRecord>(&line.map_err(Error::io(path))?).ok());
    }
    Ok(records)
}
