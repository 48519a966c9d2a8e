//! Measures with intervals, goals and floors, printed and written as JSON.

use aigc_core::{
    Error, Result,
    checkpoint::RunDir,
    eval::{Estimate, Proportion, bootstrap},
    fs::write_atomic,
    rng::Rng,
};
use aigc_examples::outln;
use serde::Serialize;
use std::time::Duration;

/// Samples of a bootstrap.
pub(crate) const ROUNDS: usize = 200;
/// Share of the values of a bootstrap within an interval.
pub(crate) const CONFIDENCE: f64 = 0.95;
/// Standard errors on both sides of a mean.
const Z: f64 = 1.96;
/// Where the measures of a run are.
pub(crate) const FILE: &str = "results.json";

/// What a value should be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Goal::AtLeast(bound) => value >= bound,
            Goal::AtMost(bound) => value <= bound,
        }
    }
}

/// A value, what it is computed of, and what it is compared with.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measure {
    name: String,
    value: f64,
    /// Ends of the interval of 95 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<(f64, f64)>,
    /// Number of sounds, or of codes.
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<Goal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
    /// What the value is without the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    floor: Option<f64>,
    #[serde(skip)]
    is_share: bool,
}

impl Measure {
    /// A value of `count` sounds.
    pub(crate) fn new(name: impl Into<String>, value: f64, count: usize) -> Self {
        Self {
            name: name.into(),
            value,
            interval: None,
            count,
            goal: None,
            met: None,
            floor: None,
            is_share: false,
        }
    }

    /// A share with its score interval.
    pub(crate) fn share(name: impl Into<String>, share: &Proportion) -> Self {
        Self {
            interval: Some(share.interval()),
            is_share: true,
            ..Self::new(name, share.value(), share.total())
        }
    }

    /// The mean of a value of each sound, with an interval of 1.96 standard errors.
    pub(crate) fn mean(name: impl Into<String>, values: &[f64]) -> Result<Self> {
        let Estimate {
            mean,
            standard_error,
            count,
        } = Estimate::from_samples(values)?;
        let half = Z * standard_error;
        Ok(Self::new(name, mean, count).with_interval((mean - half, mean + half)))
    }

    /// The ratio of the means of two values of each sound, with a bootstrap interval.
    pub(crate) fn ratio(
        name: impl Into<String>,
        of: &[f64],
        to: &[f64],
        seed: u64,
    ) -> Result<Self> {
        if of.len() != to.len() {
            return Err(Error::argument(
                "of",
                of.len(),
                format!("{} values", to.len()),
            ));
        }
        let ratio = |items: &[usize]| {
            let sum = |values: &[f64]| items.iter().map(|item| values[*item]).sum::<f64>();
            Ok(sum(of) / sum(to))
        };
        let all: Vec<usize> = (0..of.len()).collect();
        let mut rng = Rng::stream(seed, "ratio", 0);
        let interval = bootstrap(of.len(), ROUNDS, CONFIDENCE, &mut rng, ratio)?;
        Ok(Self::new(name, ratio(&all)?, of.len()).with_interval(interval))
    }

    pub(crate) fn with_interval(self, interval: (f64, f64)) -> Self {
        Self {
            interval: Some(interval),
            ..self
        }
    }

    pub(crate) fn with_goal(self, goal: Goal) -> Self {
        Self {
            goal: Some(goal),
            met: Some(goal.is_met(self.value)),
            ..self
        }
    }

    pub(crate) fn with_floor(self, floor: f64) -> Self {
        Self {
            floor: Some(floor),
            ..self
        }
    }

    /// Prints shares in percent.
    pub(crate) fn in_percent(self) -> Self {
        Self {
            is_share: true,
            ..self
        }
    }

    fn text(&self, value: f64) -> String {
        match self.is_share {
            true => format!("{:.1} %", 100.0 * value),
            false => format!("{value:.3}"),
        }
    }

    /// A row of a table in Markdown.
    fn row(&self) -> String {
        let interval = self.interval.map_or_else(String::new, |(low, high)| {
            format!(" [{}, {}]", self.text(low), self.text(high))
        });
        let goal = match self.goal {
            None => "–".to_owned(),
            Some(Goal::AtLeast(bound)) => format!("≥ {}", self.text(bound)),
            Some(Goal::AtMost(bound)) => format!("≤ {}", self.text(bound)),
        };
        let met = match self.met {
            None => "–",
            Some(true) => "yes",
            Some(false) => "no",
        };
        let floor = self
            .floor
            .map_or_else(|| "–".to_owned(), |floor| self.text(floor));
        format!(
            "| {} | {}{interval} | {} | {floor} | {goal} | {met} |",
            self.name,
            self.text(self.value),
            self.count
        )
    }
}

/// Number of threads that computations may use.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The measures of a trained model.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    command: Vec<String>,
    version: &'static str,
    threads: usize,
    /// Steps of training.
    steps: usize,
    /// Duration of the last start of the training.
    minutes: f64,
    measures: Vec<Measure>,
}

impl Report {
    /// Of a model after `steps` steps.
    pub(crate) fn new(steps: usize, elapsed: Duration) -> Self {
        Self {
            command: std::env::args().collect(),
            version: env!("CARGO_PKG_VERSION"),
            threads: threads(),
            steps,
            minutes: elapsed.as_secs_f64() / 60.0,
            measures: vec![],
        }
    }

    /// Adds a measure.
    pub(crate) fn push(&mut self, measure: Measure) {
        self.measures.push(measure);
    }

    /// Adds measures.
    pub(crate) fn extend(&mut self, measures: impl IntoIterator<Item = Measure>) {
        self.measures.extend(measures);
    }

    /// Prints the table and writes it to the run.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub(crate) fn finish(&self, run: &RunDir) -> Result<()> {
        let path = run.path().join(FILE);
        let text = serde_json::to_vec_pretty(self).map_err(Error::other)?;
        write_atomic(&path, &text)?;
        outln!("\n| measure | value [95 %] | count | floor | goal | met |");
        outln!("|---|---|---|---|---|---|");
        for measure in &self.measures {
            outln!("{}", measure.row());
        }
        outln!(
            "\n{} steps; the last start took {:.1} minutes with {} threads; written to {}",
            self.steps,
            self.minutes,
            self.threads,
            path.display()
        );
        Ok(())
    }
}
