//! The effects that are learned, and their spectra.

use aigc_core::{dsp::MelConfig, rng::Rng};
use aigc_examples_sound::MelImageConfig;

/// Samples per second.
pub(crate) const SAMPLE_RATE: u32 = 8000;
/// Samples of a sound: one second. The frames of a spectrum cover a few more.
pub(crate) const LENGTH: usize = 8000;
/// Samples that the frames of a spectrum cover.
const COVERED: usize = 8192;
/// The largest logarithm in an image; mels of effects stay below it.
const LOUDEST: f64 = 3.0;
/// Shortest frames, in samples. Of shorter ones 32 filters would share too few frequencies.
const FRAME: usize = 512;

/// Spectra of `size` mels and frames.
pub(crate) fn spectra(size: usize) -> MelImageConfig {
    let hop = COVERED / size;
    let mel = MelConfig::hifi_gan(SAMPLE_RATE, FRAME.max(2 * hop), hop, size);
    MelImageConfig::new(mel, size, mel.floor.ln(), LOUDEST)
}

/// Sets of effects that have nothing in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// What the diffusion model learns.
    Training,
    /// What the classifier learns.
    Classifier,
    /// What neither has heard.
    HeldOut,
}

impl Part {
    /// The seed of the effects of a part in the run with a seed.
    pub(crate) fn seed(self, seed: u64) -> u64 {
        Rng::stream(seed, "effects", self as u64).next_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::{CancelToken, data::effects::Effects};

    #[test]
    fn spectra_of_all_sizes_are_valid_and_hold_the_loudest_effects() {
        for size in [16, 32, 64] {
            let config = spectra(size);
            let images = config.init().unwrap();
            assert_eq!(config.samples(), COVERED);
            let effects = Effects::new(40, SAMPLE_RATE, 5).unwrap();
            let made = images.dataset(&effects, &CancelToken::new()).unwrap();
            let values = made.0.iter().flat_map(|image| &image.values);
            let largest = values.copied().fold(0.0, f32::max);
            assert!((0.8..1.0).contains(&largest), "{size}: {largest}");
        }
    }

    #[test]
    fn parts_have_other_seeds() {
        let parts = [Part::Training, Part::Classifier, Part::HeldOut];
        let seeds = parts.map(|part| part.seed(0));
        assert!(seeds[0] != seeds[1] && seeds[1] != seeds[2] && seeds[0] != seeds[2]);
        assert_ne!(Part::Training.seed(0), Part::Training.seed(1));
    }
}
