//! Weighted sums of input samples, with weights that repeat.

use super::{
    SincWindow,
    design::{lowpass, sinc},
};
use std::thread;

/// Products that are summed side by side.
pub(super) const LANES: usize = 8;
/// Number of products from which on threads are worth their start.
const PARALLEL: usize = 1 << 22;

/// The weights of every output sample, up to repetition.
///
/// Output sample `q·up + p` is the sum of `taps[p][j]·input[q·down + first[p] + j]`.
#[derive(Clone, Debug)]
pub(super) struct Bank {
    up: usize,
    down: usize,
    /// Index of the first input sample of each phase.
    first: Vec<isize>,
    /// Weights of a phase, a multiple of [`LANES`].
    width: usize,
    taps: Vec<f32>,
}

impl Bank {
    /// The weights of a windowed sinc with `zero_crossings` on each side.
    pub(super) fn windowed_sinc(
        down: usize,
        up: usize,
        zero_crossings: usize,
        rolloff: f64,
        window: SincWindow,
    ) -> Self {
        let crossings = zero_crossings as f64;
        // Zero crossings per input sample.
        let scale = down.min(up) as f64 * rolloff / down as f64;
        let reach = crossings / scale;
        Self::new(down, up, reach, |phase, sample| {
            let at = (sample as f64 - (phase * down) as f64 / up as f64) * scale;
            sinc(at) * window.at(at / crossings) * scale
        })
    }

    /// The weights of a filter at the common multiple of the rates.
    pub(super) fn polyphase(down: usize, up: usize, zero_crossings: usize, beta: f64) -> Self {
        let taps = lowpass(down.max(up), zero_crossings, beta);
        let half = (taps.len() / 2) as isize;
        let reach = half as f64 / up as f64;
        Self::new(down, up, reach, |phase, sample| {
            let at = half + (phase * down) as isize - sample * up as isize;
            let tap = usize::try_from(at).ok().and_then(|at| taps.get(at));
            tap.map_or(0.0, |tap| tap * up as f64)
        })
    }

    /// Weights of a function of phase and input sample, which is 0 more than `reach` input samples
    /// away.
    fn new(down: usize, up: usize, reach: f64, weight: impl Fn(usize, isize) -> f64) -> Self {
        let range = |phase: usize| {
            let centre = (phase * down) as f64 / up as f64;
            (
                (centre - reach).ceil() as isize,
                (centre + reach).floor() as isize,
            )
        };
        let longest = (0..up).map(|phase| {
            let (first, last) = range(phase);
            (last - first + 1).max(1) as usize
        });
        let width = longest.max().unwrap_or(1).next_multiple_of(LANES);
        let mut taps = vec![0.0; up * width];
        let mut starts = Vec::with_capacity(up);
        for (phase, taps) in taps.chunks_exact_mut(width).enumerate() {
            let (first, last) = range(phase);
            for (tap, sample) in taps.iter_mut().zip(first..=last) {
                *tap = weight(phase, sample) as f32;
            }
            starts.push(first);
        }
        Self {
            up,
            down,
            first: starts,
            width,
            taps,
        }
    }

    /// `len` output samples; the input is 0 before its beginning and after its end.
    pub(super) fn apply(&self, samples: &[f32], len: usize) -> Vec<f32> {
        let mut output = vec![0.0; len];
        if len == 0 {
            return output;
        }
        let lowest = self.first.iter().copied().min().unwrap_or(0);
        let highest = self.first.iter().copied().max().unwrap_or(0);
        let before = lowest.min(0).unsigned_abs();
        let last = ((len - 1) / self.up * self.down).saturating_add_signed(highest.max(0));
        let mut padded = vec![0.0; before + samples.len().max(last + self.width)];
        padded[before..before + samples.len()].copy_from_slice(samples);
        let products = len.saturating_mul(self.width);
        let threads = if products < PARALLEL {
            1
        } else {
            thread::available_parallelism().map_or(1, usize::from)
        };
        if threads == 1 {
            self.fill(&padded, before, 0, &mut output);
            return output;
        }
        let size = len.div_ceil(threads);
        thread::scope(|scope| {
            for (index, part) in output.chunks_mut(size).enumerate() {
                let padded = &padded;
                scope.spawn(move || self.fill(padded, before, index * size, part));
            }
        });
        output
    }

    /// The output samples from `start` on; input sample 0 is `padded[before]`.
    fn fill(&self, padded: &[f32], before: usize, start: usize, output: &mut [f32]) {
        let (mut base, mut phase) = (before + start / self.up * self.down, start % self.up);
        for y in output {
            // Not below 0: `before` is as large as the lowest index.
            let at = base.saturating_add_signed(self.first[phase]);
            let taps = &self.taps[phase * self.width..(phase + 1) * self.width];
            *y = dot(&padded[at..at + self.width], taps);
            phase += 1;
            if phase == self.up {
                (base, phase) = (base + self.down, 0);
            }
        }
    }
}

/// The sum of products of slices whose length is a multiple of [`LANES`].
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a, b) = (a.as_chunks::<LANES>().0, b.as_chunks::<LANES>().0);
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_its_sum_with_threads_too() {
        // Enough products for several threads, and a length that they do not divide.
        let samples: Vec<f32> = (0..300_001)
            .map(|i| ((i * 37) % 101) as f32 / 101.0)
            .collect();
        let bank = Bank::windowed_sinc(147, 160, 6, 0.99, SincWindow::Hann);
        let len = (samples.len() * 160).div_ceil(147);
        assert!(len * bank.width > PARALLEL);
        let whole = bank.apply(&samples, len);
        let short = bank.apply(&samples[..1000], 1000);
        assert_eq!(whole[..1000], short);
        for at in [0, 1, 159, 160, 100_000, len / 2, len / 2 + 1, len - 1] {
            let (phase, base) = (at % 160, (at / 160 * 147) as isize);
            let taps = &bank.taps[phase * bank.width..][..bank.width];
            let products = taps.iter().enumerate().map(|(j, tap)| {
                let index = usize::try_from(base + bank.first[phase] + j as isize).ok();
                let sample = index.and_then(|index| samples.get(index));
                f64::from(*tap) * sample.map_or(0.0, |x| f64::from(*x))
            });
            let expected: f64 = products.sum();
            assert!((f64::from(whole[at]) - expected).abs() < 1e-5, "{at}");
        }
    }
}
