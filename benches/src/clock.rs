//! Timing of workloads in rounds, controlled by standard input.

use crate::Work;
use aigc_core::{
    CancelToken,
    checkpoint::RunDir,
    data::DataLoader,
    ops::profile,
    train::{Event, Objective, OptimizerConfig, Trainer, TrainerConfig},
};
use anyhow::Result;
use serde_json::json;
use std::{
    collections::BTreeMap,
    io::{BufRead, Write},
    time::{Duration, Instant},
};

/// Times a workload in rounds. For every line on standard input, a number of seconds, the workload
/// runs for that time, and one JSON line with the results is printed.
#[derive(Debug)]
pub struct Clock {
    warm_up: usize,
    times: Vec<f64>,
    last: Instant,
    round: Option<(Instant, Duration)>,
    profiled: bool,
    idle: Option<u64>,
    work: Work,
}

impl Clock {
    /// Creates a clock. If `profiled`, it also records the time of every operation. The memory that
    /// the process has used until now counts as idle.
    pub fn new(profiled: bool) -> Self {
        Self {
            warm_up: 3,
            times: Vec::new(),
            last: Instant::now(),
            round: None,
            profiled,
            idle: peak_bytes(),
            work: Work::default(),
        }
    }

    /// Says what a run makes and reads, for figures beside its time.
    pub(crate) fn with_work(self, work: Work) -> Self {
        Self { work, ..self }
    }

    /// Must be called after every run of the workload. Returns false at the end of standard input.
    pub fn tick(&mut self) -> bool {
        if self.warm_up > 0 {
            self.warm_up -= 1;
            return true;
        }
        match self.round {
            None => self.next_round(),
            Some((began, seconds)) => {
                self.times.push(self.last.elapsed().as_secs_f64());
                if self.times.len() >= 3 && began.elapsed() >= seconds {
                    let runs = self.times.len();
                    let operation = |time: &profile::OperationTime| {
                        json!([time.calls, time.time.as_secs_f64()])
                    };
                    let operations: BTreeMap<&str, serde_json::Value> = profile::stop()
                        .iter()
                        .map(|(name, time)| (*name, operation(time)))
                        .collect();
                    let seconds = std::mem::take(&mut self.times);
                    let answer = json!({
                        "seconds": seconds,
                        "peak_bytes": peak_bytes(),
                        "idle_bytes": self.idle,
                        "runs": runs,
                        "operations": operations,
                        "work": self.work.to_json(),
                    });
                    println!("{answer}");
                    std::io::stdout().flush().is_ok() && self.next_round()
                } else {
                    self.last = Instant::now();
                    true
                }
            }
        }
    }

    fn next_round(&mut self) -> bool {
        let mut line = String::new();
        let has_line = std::io::stdin()
            .lock()
            .read_line(&mut line)
            .is_ok_and(|bytes| bytes > 0);
        let Some(seconds) = line.trim().parse().ok().filter(|_| has_line) else {
            return false;
        };
        if self.profiled {
            profile::start();
        }
        self.last = Instant::now();
        self.round = Some((self.last, Duration::from_secs_f64(seconds)));
        true
    }
}

/// Peak resident memory of this process; `None` on other systems than Linux.
pub fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// AdamW at 1e-3 with a weight decay of 0.01, PyTorch's default.
pub(crate) fn adam_w() -> TrainerConfig {
    TrainerConfig {
        optimizer: OptimizerConfig::adam_w(0.9, 0.999, 0.01),
        ..TrainerConfig::new(0)
    }
}

/// Trains until the clock ends.
pub(crate) fn train<O: Objective>(
    objective: O,
    model: O::Model,
    loader: &DataLoader<O::Batch>,
    config: TrainerConfig,
    mut clock: Clock,
) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let run = RunDir::create(dir.path().join("run"))?;
    let token = CancelToken::new();
    let cancel = token.clone();
    Trainer::new(TrainerConfig {
        save_steps: 0,
        max_steps: usize::MAX / 4,
        ..config
    })
    .with_cancel(token)
    .with_callback(|event: &Event<'_>| {
        if matches!(event, Event::Step(_)) && !clock.tick() {
            cancel.cancel();
        }
    })
    .fit(objective, model, loader, &run)?;
    Ok(())
}
