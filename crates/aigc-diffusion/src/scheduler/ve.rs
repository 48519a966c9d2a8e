//! What schedulers over σ share: a sample is `x₀ + σ·ε`, and the network receives it at unit
//! variance (Karras et al. 2022, <https://arxiv.org/abs/2206.00364>, section 3).

use crate::{
    grid::{
        SigmaGrid, SigmaScheduleFlags, SigmaSpacing, SigmaTable, Steps, TimestepSpacing, spaced,
    },
    plan::{LinearCombination, ModelCall, Term},
    prediction::{NoiseLevel, PredictionType},
    schedule::NoiseScheduleConfig,
};
use aigc_core::{Error, Result};

/// The sigmas of a sampler over σ.
pub(crate) struct SigmaSchedule<'a> {
    pub(crate) noise: &'a NoiseScheduleConfig,
    pub(crate) flags: SigmaScheduleFlags,
    /// Instead of the first and last σ of the spacing.
    pub(crate) range: (Option<f64>, Option<f64>),
    pub(crate) spacing: TimestepSpacing,
    pub(crate) offset: usize,
    /// Whether the forward process ends in pure noise (zero terminal SNR).
    pub(crate) zero_snr: bool,
}

impl<'a> SigmaSchedule<'a> {
    /// The sigmas of the timesteps, without zero terminal SNR.
    pub(crate) fn new(
        noise: &'a NoiseScheduleConfig,
        spacing: TimestepSpacing,
        offset: usize,
    ) -> Self {
        Self {
            noise,
            flags: SigmaScheduleFlags::default(),
            range: (None, None),
            spacing,
            offset,
            zero_snr: false,
        }
    }

    pub(crate) fn table(&self) -> Result<SigmaTable> {
        SigmaTable::of(self.noise, self.zero_snr)
    }

    /// Falling σ down to 0, with their times.
    pub(crate) fn grid(&self, steps: usize) -> Result<SigmaGrid> {
        let table = self.table()?;
        let times =
            Steps::new(self.noise.num_train_timesteps, steps)?.real(self.spacing, self.offset)?;
        let sigmas: Vec<f64> = times.iter().map(|time| table.sigma(*time)).collect();
        let spacing = self.flags.spacing()?;
        if spacing == SigmaSpacing::Timesteps {
            return Ok(SigmaGrid::new(times, sigmas, 0.0));
        }
        let range = (
            self.range.1.unwrap_or(sigmas[0]),
            self.range.0.unwrap_or(sigmas[steps - 1]),
        );
        if range.0 <= range.1 && steps > 1 {
            let expected = format!("less than the first σ, {}", range.0);
            return Err(Error::config("sigma_min", range.1, expected));
        }
        let sigmas = spaced(spacing, range, steps);
        let times = sigmas.iter().map(|sigma| table.time(*sigma)).collect();
        Ok(SigmaGrid::new(times, sigmas, 0.0))
    }

    /// Standard deviation of the noise to start from: that of the first σ, or of a sample that
    /// still contains part of the image.
    pub(crate) fn init_noise_sigma(&self, grid: &SigmaGrid) -> f64 {
        let max = grid.sigmas[0];
        if self.spacing == TimestepSpacing::Leading {
            (max * max + 1.0).sqrt()
        } else {
            max
        }
    }
}

/// A call at σ.
pub(crate) fn call(
    time: f64,
    sigma: f64,
    prediction: PredictionType,
    next: LinearCombination,
) -> Result<ModelCall> {
    let level = NoiseLevel::variance_exploding(sigma);
    let input = 1.0 / (sigma * sigma + 1.0).sqrt();
    Ok(ModelCall {
        input_scale: input,
        ..ModelCall::new(time, level, prediction.coefficients(level)?, next)
    })
}

/// For a step from one σ to the next: the σ that the deterministic part ends at, and the standard
/// deviation of the fresh noise that is added after it.
pub(crate) type Way = fn(f64, f64) -> (f64, f64);

/// A step without fresh noise.
pub(crate) fn straight(_: f64, next: f64) -> (f64, f64) {
    (next, 0.0)
}

/// A step of ancestral sampling, as in DDPM.
pub(crate) fn ancestral(sigma: f64, next: f64) -> (f64, f64) {
    let up = (next * next * (sigma * sigma - next * next) / (sigma * sigma))
        .max(0.0)
        .sqrt();
    ((next * next - up * up).max(0.0).sqrt(), up)
}

/// Euler's method.
pub(crate) fn euler(
    grid: &SigmaGrid,
    prediction: PredictionType,
    way: Way,
) -> Result<Vec<ModelCall>> {
    let step = |k: usize| {
        let sigma = grid.sigmas[k];
        let (down, up) = way(sigma, grid.sigmas[k + 1]);
        let mut next = vec![(Term::Sample(k), 1.0), (Term::Epsilon(k), down - sigma)];
        if up > 0.0 {
            next.push((Term::Noise, up));
        }
        call(grid.times[k], sigma, prediction, next)
    };
    (0..grid.len()).map(step).collect()
}
