//! Rounds of timing, on request.

use aigc_core::{
    CancelToken,
    checkpoint::RunDir,
    data::DataLoader,
    ops::profile,
    train::{Event, Objective, Trainer, TrainerConfig},
};
use anyhow::Result;
use serde_json::json;
use std::{
    collections::BTreeMap,
    io::{BufRead, Write},
    time::{Duration, Instant},
};

/// Times a workload in rounds: for every line on standard input, a number of seconds, it lets the
/// workload run for so long and answers with one JSON line.
#[derive(Debug)]
pub struct Clock {
    warm_up: usize,
    times: Vec<f64>,
    last: Instant,
    round: Option<(Instant, Duration)>,
    profiled: bool,
    idle: Option<u64>,
}

impl Clock {
    /// A clock that also says how long each operation took, if `profiled`. What the process held
    /// until now counts as idle.
    pub fn new(profiled: bool) -> Self {
        Self {
            warm_up: 3,
            times: Vec::new(),
            last: Instant::now(),
            round: None,
            profiled,
            idle: peak_bytes(),
        }
    }

    /// Call it after every run of the workload. False when there is nobody left to ask for a round.
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
        let asked = std::io::stdin()
            .lock()
            .read_line(&mut line)
            .is_ok_and(|bytes| bytes > 0);
        let Some(seconds) = line.trim().parse().ok().filter(|_| asked) else {
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

/// The most memory that this process ever held, where the system tells (Linux).
pub fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Trains until the clock has been asked for its last round.
pub(crate) fn train<O: Objective>(
    objective: O,
    model: O::Model,
    loader: &DataLoader<O::Batch>,
    config: TrainerConfig,
    mut clock: Clock,
) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let run = RunDir::create(folder.path().join("run"))?;
    let stop = CancelToken::new();
    let raise = stop.clone();
    Trainer::new(TrainerConfig {
        save_steps: 0,
        max_steps: usize::MAX / 4,
        ..config
    })
    .with_cancel(stop)
    .with_callback(|event: &Event<'_>| {
        if matches!(event, Event::Step(_)) && !clock.tick() {
            raise.cancel();
        }
    })
    .fit(objective, model, loader, &run)?;
    Ok(())
}
