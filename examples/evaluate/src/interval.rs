//! Intervals of measures, or why there is none.

use aigc_core::{
    CancelToken, Error, Result,
    eval::{centred_bootstrap, half_sampling, report::Measure},
    rng::Rng,
};
use aigc_examples::Progress;

/// Confidence of all intervals.
pub(crate) const CONFIDENCE: f64 = 0.95;
/// Samples from which on there are intervals: fewer have too little spread.
const LEAST: usize = 5;

const STOPPED: &str = "the evaluation was stopped";

/// The bounds, or why there are none.
pub(crate) type Interval = Result<(f64, f64), String>;

/// What a round has of the texts.
#[derive(Clone, Copy)]
pub(crate) enum Draw {
    /// As many, with replacement: for means over texts.
    Repeated,
    /// Half of them: where texts are compared with each other, and a repeated one would be compared
    /// with itself.
    Half,
}

/// How a value of a set of texts varies with the texts.
pub(crate) struct Rounds<'a> {
    /// Number of texts.
    pub(crate) texts: usize,
    /// Number of rounds.
    pub(crate) rounds: usize,
    pub(crate) seed: u64,
    pub(crate) stop: &'a CancelToken,
}

impl Rounds<'_> {
    /// The interval of a value between 0 and `most`. `value` gets the numbers of the texts of a
    /// round.
    pub(crate) fn interval(
        &self,
        draw: Draw,
        most: f64,
        value: impl Fn(&[usize]) -> Result<f64>,
    ) -> Interval {
        let Self { texts, rounds, .. } = *self;
        if texts < LEAST {
            return Err(few());
        }
        let progress = Progress::new("rounds of an interval", rounds, self.stop);
        let of = |items: &[usize]| {
            progress.add(1)?;
            value(items)
        };
        let mut rng = Rng::stream(self.seed, "texts of a round", 0);
        let found = match draw {
            Draw::Repeated => centred_bootstrap(texts, rounds, CONFIDENCE, &mut rng, of),
            Draw::Half => half_sampling(texts, rounds, CONFIDENCE, &mut rng, of),
        };
        let clamped = |(low, high): (f64, f64)| (low.clamp(0.0, most), high.clamp(0.0, most));
        checked(texts, found).map(clamped)
    }
}

/// An interval over so many samples, or why there is none: a round without n-grams, for example.
pub(crate) fn checked(samples: usize, found: Result<(f64, f64)>) -> Interval {
    match found {
        Err(Error::Cancelled { .. }) => Err(STOPPED.into()),
        Err(error) => Err(format!("a round has no value ({error})")),
        Ok(_) if samples < LEAST => Err(few()),
        Ok((low, high)) if low < high => Ok((low, high)),
        // At the bound of a share, say, where an interval without width would be far too narrow.
        Ok(_) => Err("all rounds have the same value".into()),
    }
}

fn few() -> String {
    format!("there are fewer than {LEAST} samples")
}

/// A measure with the interval of a mean of `samples` samples by its standard error.
pub(crate) fn of_mean(measure: Measure, samples: usize, (mean, error): (f64, f64)) -> Measure {
    let half = 1.96 * error;
    with(measure, checked(samples, Ok((mean - half, mean + half))))
}

/// A measure with its interval, or without it if the evaluation was stopped meanwhile.
///
/// # Errors
/// Any other of `found`.
pub(crate) fn unless_stopped(measure: Measure, found: Result<(f64, f64)>) -> Result<Measure> {
    match found {
        Err(Error::Cancelled { .. }) => Ok(with(measure, Err(STOPPED.into()))),
        found => {
            let found = found?;
            Ok(with(measure, checked(LEAST, Ok(found))))
        }
    }
}

/// A measure with its interval, or with a note why it has none.
pub(crate) fn with(measure: Measure, interval: Interval) -> Measure {
    match interval {
        Ok((low, high)) => measure.with_interval(low, high),
        Err(why) => measure.with_note(format!("No interval: {why}.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::eval::report::{Aspect, Better};

    fn measure() -> Measure {
        Measure::new(Aspect::Quality, "share", 0.5, Better::Higher, 9)
    }

    #[test]
    fn intervals_are_given_or_explained() {
        let stop = CancelToken::new();
        let of = |texts| Rounds {
            texts,
            rounds: 40,
            seed: 1,
            stop: &stop,
        };
        let mean = |items: &[usize]| {
            Ok(items.iter().map(|i| (i % 2) as f64).sum::<f64>() / items.len() as f64)
        };
        for draw in [Draw::Repeated, Draw::Half] {
            let (low, high) = of(20).interval(draw, 1.0, mean).unwrap();
            assert!(0.0 < low && low < 0.5 && 0.5 < high && high < 1.0);
            let why = of(4).interval(draw, 1.0, mean).unwrap_err();
            assert!(why.contains("fewer than 5"), "{why}");
            let why = of(20).interval(draw, 1.0, |_| Ok(0.3)).unwrap_err();
            assert!(why.contains("same value"), "{why}");
            let why = of(20).interval(draw, 1.0, |_| Err(Error::argument("texts", 0, "some")));
            assert!(why.unwrap_err().contains("`texts`"));
        }
        let stopped = unless_stopped(measure(), Err(Error::cancelled("x"))).unwrap();
        let notes = |measure: &Measure| serde_json::to_value(measure).unwrap()["notes"].to_string();
        assert!(notes(&stopped).contains("No interval: the evaluation was stopped"));
        assert!(unless_stopped(measure(), Err(Error::argument("a", 0, "b"))).is_err());
        let few = of_mean(measure(), 4, (0.5, 0.1));
        assert!(notes(&few).contains("fewer than 5"));
        let enough = serde_json::to_value(of_mean(measure(), 5, (0.5, 0.1))).unwrap();
        assert!((enough["interval"][0].as_f64().unwrap() - 0.304).abs() < 1e-9);
        let why = checked(3, Ok((0.1, 0.2))).unwrap_err();
        assert!(why.contains("fewer than 5"), "{why}");
        stop.cancel();
        let why = of(20).interval(Draw::Half, 1.0, mean).unwrap_err();
        assert_eq!(why, STOPPED);
    }
}
