//! What a run of a workload makes and reads: figures beside its time.

use serde_json::{Value, json};

/// What one run of a workload makes and reads. Most workloads do not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Number of steps of its loop.
    pub steps: Option<u64>,
    /// Seconds of sound that it makes.
    pub sound_seconds: Option<f64>,
    /// Bytes of weights that it has to read from memory.
    pub read_bytes: Option<u64>,
}

impl Work {
    /// That of a run that makes `samples` samples of sound.
    pub(crate) fn of_sound(samples: usize, sample_rate: u32) -> Self {
        Self {
            sound_seconds: Some(samples as f64 / f64::from(sample_rate)),
            ..Self::default()
        }
    }

    pub(crate) fn to_json(self) -> Value {
        json!({
            "steps": self.steps,
            "sound_seconds": self.sound_seconds,
            "read_bytes": self.read_bytes,
        })
    }

    /// The inverse of [`to_json`](Self::to_json); what is missing is `None`.
    pub(crate) fn from_json(value: &Value) -> Self {
        Self {
            steps: value["steps"].as_u64(),
            sound_seconds: value["sound_seconds"].as_f64(),
            read_bytes: value["read_bytes"].as_u64(),
        }
    }

    /// Milliseconds of a step, if a run takes `seconds`.
    pub fn step_milliseconds(&self, seconds: f64) -> Option<f64> {
        Some(seconds * 1e3 / self.steps? as f64)
    }

    /// Seconds of sound that are made in a second, if a run takes `seconds`.
    pub fn sound_rate(&self, seconds: f64) -> Option<f64> {
        Some(self.sound_seconds? / seconds)
    }

    /// Bytes that are read in a second, if a run takes `seconds`.
    pub fn read_rate(&self, seconds: f64) -> Option<f64> {
        Some(self.read_bytes? as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_read_as_it_is_written() {
        let work = Work {
            steps: Some(24),
            read_bytes: Some(1 << 40),
            ..Work::of_sound(16_128, 16_000)
        };
        assert_eq!(Work::from_json(&work.to_json()), work);
        assert_eq!(Work::from_json(&Value::Null), Work::default());
        assert_eq!(work.step_milliseconds(1.2), Some(50.0));
        assert_eq!(work.sound_rate(0.504), Some(2.0));
        assert_eq!(work.read_rate(2.0), Some((1u64 << 39) as f64));
        assert_eq!(Work::default().read_rate(2.0), None);
    }
}
