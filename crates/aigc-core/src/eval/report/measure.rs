//! A measured value with what is needed to judge it.

use crate::{Error, Result};
use serde::Serialize;

/// What a measure tells about generated content; each has a table in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    /// How much samples look, read or sound like real data.
    Quality,
    /// How much of the variety of real data they have.
    Diversity,
    /// How well they fit what was requested.
    Relevance,
    /// How far they are from the training data.
    Originality,
}

impl Aspect {
    /// All aspects, in the order of the report.
    pub const ALL: [Self; 4] = [
        Self::Quality,
        Self::Diversity,
        Self::Relevance,
        Self::Originality,
    ];

    /// The heading of the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quality => "Quality",
            Self::Diversity => "Diversity",
            Self::Relevance => "Relevance",
            Self::Originality => "Originality",
        }
    }

    pub(super) fn question(self) -> &'static str {
        match self {
            Self::Quality => "Do samples look, read or sound like real data?",
            Self::Diversity => "Do they have the variety of real data?",
            Self::Relevance => "Do they fit what was requested?",
            Self::Originality => "Are they new, or taken from the training data?",
        }
    }
}

/// Which values are good.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Low values.
    Lower,
    /// High values.
    Higher,
    /// Values near this one.
    Target(f64),
}

/// One number of the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measure {
    pub(super) aspect: Aspect,
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) interval: Option<(f64, f64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) confidence: Option<f64>,
    pub(super) count: usize,
    pub(super) reference: Option<Reference>,
    pub(super) better: Better,
    pub(super) floor: Option<f64>,
    pub(super) explanation: String,
    pub(super) command: String,
    pub(super) notes: Vec<String>,
    pub(super) warnings: Vec<String>,
    #[serde(skip)]
    pub(super) statement: Option<String>,
}

/// What a measure compares samples with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Reference {
    pub(super) name: String,
    pub(super) count: usize,
}

impl Measure {
    /// A value of `count` samples.
    pub fn new(
        aspect: Aspect,
        name: impl Into<String>,
        value: f64,
        better: Better,
        count: usize,
    ) -> Self {
        Self {
            aspect,
            name: name.into(),
            value,
            interval: None,
            confidence: None,
            count,
            reference: None,
            better,
            floor: None,
            explanation: String::new(),
            command: String::new(),
            notes: Vec::new(),
            warnings: Vec::new(),
            statement: None,
        }
    }

    /// Sets the interval, of the confidence of the report unless
    /// [`with_confidence`](Self::with_confidence) sets another.
    pub fn with_interval(mut self, low: f64, high: f64) -> Self {
        self.interval = Some((low, high));
        self
    }

    /// Sets the confidence of the interval, for one that does not follow that of the report, such
    /// as [`Proportion::interval`](crate::eval::Proportion::interval).
    pub fn with_confidence(mut self, confidence: f64) -> Self {
        self.confidence = Some(confidence);
        self
    }

    /// Sets the reference set that samples are compared with, and its number of samples.
    pub fn with_reference(mut self, name: impl Into<String>, count: usize) -> Self {
        let name = name.into();
        self.reference = Some(Reference { name, count });
        self
    }

    /// Sets the value that real data reaches, such as held-out data in place of the samples.
    pub fn with_floor(mut self, floor: f64) -> Self {
        self.floor = Some(floor);
        self
    }

    /// Sets what the measure means, in one plain sentence.
    pub fn with_explanation(mut self, explanation: impl Into<String>) -> Self {
        self.explanation = explanation.into();
        self
    }

    /// Sets the command that computes the value.
    pub fn with_command(mut self, command: impl Into<String>) -> Self {
        self.command = command.into();
        self
    }

    /// Adds a note on how the value was computed.
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Adds a warning, which the report also has at its top.
    pub fn with_warning(mut self, warning: impl Into<String>) -> Self {
        self.warnings.push(warning.into());
        self
    }

    /// Sets the sentence of the summary, in place of the one derived from value and floor.
    pub fn with_statement(mut self, statement: impl Into<String>) -> Self {
        self.statement = Some(statement.into());
        self
    }

    pub(super) fn validate(&self) -> Result<()> {
        let field = |name: &str| format!("{} of measure `{}`", name, self.name);
        if self.name.trim().is_empty() {
            return Err(Error::argument("name of measure", "empty", "a name"));
        }
        let mut numbers = vec![("value", self.value)];
        numbers.extend(self.floor.map(|floor| ("floor", floor)));
        if let Better::Target(target) = self.better {
            numbers.push(("target", target));
        }
        for (name, value) in numbers {
            if !value.is_finite() {
                return Err(Error::argument(field(name), value, "a finite number"));
            }
        }
        if let Some((low, high)) = self.interval
            && !(low.is_finite() && high.is_finite() && low <= high)
        {
            return Err(Error::argument(
                field("interval"),
                format!("{low} to {high}"),
                "finite bounds, the lower one first",
            ));
        }
        if let Some(confidence) = self.confidence
            && !(confidence > 0.0 && confidence < 1.0)
        {
            return Err(Error::argument(
                field("confidence"),
                confidence,
                "between 0 and 1",
            ));
        }
        if self.count == 0 {
            return Err(Error::argument(field("count"), 0, "at least 1 sample"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_measures_are_named() {
        let good = || Measure::new(Aspect::Quality, "FID", 3.0, Better::Lower, 100);
        good().validate().unwrap();
        let nan = Measure::new(Aspect::Quality, "FID", f64::NAN, Better::Lower, 100);
        for (measure, expected) in [
            (nan, "value of measure `FID`"),
            (good().with_floor(f64::INFINITY), "floor of measure `FID`"),
            (good().with_interval(2.0, 1.0), "2 to 1"),
            (good().with_interval(f64::NAN, 1.0), "interval"),
            (good().with_confidence(1.0), "confidence of measure `FID`"),
            (
                Measure::new(Aspect::Quality, "FID", 1.0, Better::Target(f64::NAN), 1),
                "target",
            ),
            (
                Measure::new(Aspect::Quality, "FID", 1.0, Better::Lower, 0),
                "count of measure",
            ),
            (
                Measure::new(Aspect::Quality, " ", 1.0, Better::Lower, 1),
                "name of measure",
            ),
        ] {
            let error = measure.validate().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
