//! Spectra from mel spectra.

use super::mel::Filter;
use rayon::prelude::*;

/// Frames that a thread takes at least.
const PER_THREAD: usize = 8;

/// Spectra without negative values, `[frames, bins]`, whose mels are nearest to the given ones in
/// least squares, by multiplicative updates (Lee and Seung 2001, "Algorithms for non-negative
/// matrix factorization"). Bins that no filter covers are 0.
pub(super) fn spectra(mels: &[f64], filters: &[Filter], bins: usize, rounds: usize) -> Vec<f64> {
    let mut ones = vec![0.0; bins];
    let sums: Vec<f64> = filters.iter().map(|f| f.weights.iter().sum()).collect();
    spread(filters, &sums, &mut ones);
    let mut spectra = vec![0.0f64; mels.len() / filters.len() * bins];
    spectra
        .par_chunks_exact_mut(bins)
        .zip(mels.par_chunks_exact(filters.len()))
        .with_min_len(PER_THREAD)
        .for_each(|(spectrum, mel)| {
            let mut target = vec![0.0; bins];
            spread(filters, mel, &mut target);
            for ((value, target), ones) in spectrum.iter_mut().zip(&target).zip(&ones) {
                *value = quotient(*target, *ones);
            }
            let mut found = vec![0.0; filters.len()];
            let mut back = vec![0.0; bins];
            for _ in 0..rounds {
                for (found, filter) in found.iter_mut().zip(filters) {
                    *found = filter.sum(spectrum);
                }
                spread(filters, &found, &mut back);
                for ((value, target), back) in spectrum.iter_mut().zip(&target).zip(&back) {
                    *value *= quotient(*target, *back);
                }
            }
        });
    spectra
}

/// The transpose of the filters: the weighted sum of a mel spectrum in every bin.
fn spread(filters: &[Filter], mel: &[f64], spectrum: &mut [f64]) {
    spectrum.fill(0.0);
    for (filter, value) in filters.iter().zip(mel) {
        let bins = spectrum[filter.first..].iter_mut();
        for (sum, weight) in bins.zip(&filter.weights) {
            *sum += weight * value;
        }
    }
}

fn quotient(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsp::MelConfig;

    /// Mels of a spectrum without negative values come back.
    #[test]
    fn mels_of_spectra_come_back() {
        let mel = MelConfig::whisper(40).init().unwrap();
        let (filters, bins) = (mel.filters(), mel.stft().bins());
        let spectrum = |frame: usize| -> Vec<f64> {
            let value = |bin: usize| 1.0 + ((bin * (frame + 1)) as f64 * 0.1).sin();
            (0..bins).map(value).collect()
        };
        let mels: Vec<f64> = (0..3)
            .flat_map(|frame| {
                let spectrum = spectrum(frame);
                filters.iter().map(move |filter| filter.sum(&spectrum))
            })
            .collect();
        let found = spectra(&mels, filters, bins, 100);
        for (spectrum, mel) in found.chunks_exact(bins).zip(mels.chunks_exact(40)) {
            assert!(spectrum.iter().all(|value| *value >= 0.0));
            for (filter, expected) in filters.iter().zip(mel) {
                assert!((filter.sum(spectrum) - expected).abs() <= 1e-2 * expected);
            }
        }
        let silence = spectra(&[0.0; 40], filters, bins, 5);
        assert!(silence.iter().all(|value| *value == 0.0));
    }
}
