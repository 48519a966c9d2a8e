//! Time limits that include an evaluation.

/// Time that an evaluation of samples takes.
#[derive(Clone, Copy, Debug)]
pub struct EvaluationCost {
    /// Seconds for each sample.
    pub sample: f64,
    /// Seconds for the metrics, which hardly depend on the number of samples.
    pub metrics: f64,
}

impl EvaluationCost {
    /// Minutes for training, out of `limit` minutes for training and an evaluation of `samples`: at
    /// least half of them.
    pub fn training_minutes(&self, limit: f64, samples: usize) -> f64 {
        let evaluation = (self.sample * samples as f64 + self.metrics) / 60.0;
        (limit - evaluation).max(0.5 * limit)
    }

    /// Number of samples whose evaluation takes at most `minutes`, from `least` to `most`.
    pub fn samples_within(&self, minutes: f64, least: usize, most: usize) -> usize {
        let seconds = (60.0 * minutes - self.metrics).max(0.0);
        // A cost of 0 gives infinity or NaN, which become `most` or 0.
        ((seconds / self.sample) as usize).clamp(least.min(most), most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_and_evaluation_share_the_limit() {
        let cost = EvaluationCost {
            sample: 0.06,
            metrics: 6.0,
        };
        // 66 s of evaluation.
        assert!((cost.training_minutes(4.0, 1000) - 2.9).abs() < 1e-12);
        assert_eq!(cost.samples_within(2.9, 50, 1000), 1000);
        // Too long for the limit: half for training, and fewer samples.
        let minutes = cost.training_minutes(1.0, 1000);
        assert_eq!(minutes, 0.5);
        let samples = cost.samples_within(minutes, 50, 1000);
        assert!((398..=400).contains(&samples), "{samples}");
        assert_eq!(cost.samples_within(0.01, 50, 1000), 50);
    }
}
