//! Spectra of a signal frame by frame, in memory that does not grow with its length.

use super::{PadMode, Stft, plan::Plan};
use crate::Result;
use realfft::num_complex::Complex;

/// Frames whose spectra are held at a time.
const BLOCK: usize = 512;

impl Stft {
    /// Calls `each` with the squared magnitudes of every frame of a signal, in order.
    ///
    /// # Errors
    /// As [`frames`](Self::frames).
    pub(super) fn for_each_power(
        &self,
        samples: &[f32],
        mut each: impl FnMut(&[f64]),
    ) -> Result<()> {
        let (frames, bins) = (self.frames(samples.len())?, self.bins());
        let plan = &*self.plan;
        let mut spectra = vec![Complex::default(); BLOCK.min(frames) * bins];
        let mut power = vec![0.0; bins];
        for first in (0..frames).step_by(BLOCK) {
            let count = BLOCK.min(frames - first);
            let start = first * plan.hop_length;
            let part: Vec<f64> = (start..start + plan.covered(count))
                .map(|index| padded_sample(plan, samples, index))
                .collect();
            let spectra = &mut spectra[..count * bins];
            self.analyse(&part, spectra);
            for spectrum in spectra.chunks_exact(bins) {
                for (power, value) in power.iter_mut().zip(spectrum) {
                    *power = value.norm_sqr();
                }
                each(&power);
            }
        }
        Ok(())
    }
}

/// A sample of the padded signal. The signal's length was checked by [`Plan::frames`].
fn padded_sample(plan: &Plan, samples: &[f32], index: usize) -> f64 {
    let (side, last) = (plan.side, samples.len() - 1);
    let inside = match index.checked_sub(side) {
        Some(index) if index <= last => index,
        outside => match (plan.pad_mode, outside) {
            (PadMode::Constant, _) => return 0.0,
            (PadMode::Replicate, None) => 0,
            (PadMode::Replicate, Some(_)) => last,
            (PadMode::Reflect, None) => side - index,
            (PadMode::Reflect, Some(index)) => 2 * last - index,
        },
    };
    f64::from(samples[inside])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dsp::StftConfig, rng::Rng};

    /// Several blocks and every kind of edge, against the spectra of the whole signal.
    #[test]
    fn blocks_are_the_whole() {
        let samples = Rng::new(4).normal_vec(5000);
        let config = StftConfig::new(24, 8).with_win_length(20);
        for config in [
            config,
            config.with_pad_mode(PadMode::Constant),
            config.with_pad_mode(PadMode::Replicate),
            config.uncentered(0),
            config.uncentered(8),
        ] {
            for len in [5000, 4091, 24] {
                let stft = config.init().unwrap();
                let whole = stft.power(&samples[..len]).unwrap();
                let mut found = Vec::new();
                stft.for_each_power(&samples[..len], |power| found.extend_from_slice(power))
                    .unwrap();
                assert_eq!(found.len(), whole.values().len(), "{config:?} {len}");
                for (a, b) in found.iter().zip(whole.values()) {
                    assert!((a - b).abs() < 1e-9, "{config:?} {len}: {a} {b}");
                }
            }
            assert!(config.init().unwrap().for_each_power(&[], |_| ()).is_err());
        }
    }
}
