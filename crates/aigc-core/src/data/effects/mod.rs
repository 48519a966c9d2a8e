//! Sound effects that are computed: eight kinds, one second each, at any sample rate.
//!
//! | kind | sound |
//! |---|---|
//! | coin | two short bright notes, the second one higher and dying away |
//! | laser | a buzzing tone that falls fast |
//! | jump | a hollow tone that rises |
//! | explosion | noise that gets darker as it dies away, over a rumble |
//! | bell | partials that are no multiples of one frequency |
//! | drum | a falling low tone with a snare of noise |
//! | wind | noise through a slowly moving band |
//! | alarm | a hollow tone that alternates between two pitches or sweeps between them |
//!
//! Four [parameters](EffectParameters) vary each of them; a seed and an index give the same sound
//! everywhere, up to rounding.

mod render;
mod voice;

pub use render::render;

use super::{Dataset, sound::Sound};
use crate::{
    Error, Result,
    check::{ensure, in_range},
    rng::Rng,
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A kind of sound effect. Its number is the class of the sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectKind {
    /// Two short bright notes.
    Coin,
    /// A buzzing tone that falls.
    Laser,
    /// A hollow tone that rises.
    Jump,
    /// Dark noise over a rumble.
    Explosion,
    /// A bell.
    Bell,
    /// A drum.
    Drum,
    /// Wind.
    Wind,
    /// An alarm.
    Alarm,
}

impl EffectKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Coin,
        Self::Laser,
        Self::Jump,
        Self::Explosion,
        Self::Bell,
        Self::Drum,
        Self::Wind,
        Self::Alarm,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Coin => "coin",
            Self::Laser => "laser",
            Self::Jump => "jump",
            Self::Explosion => "explosion",
            Self::Bell => "bell",
            Self::Drum => "drum",
            Self::Wind => "wind",
            Self::Alarm => "alarm",
        }
    }
}

impl fmt::Display for EffectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EffectKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::argument("kind", name, format!("one of {known}"))
        })
    }
}

/// What varies within a kind; all from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EffectParameters {
    /// From low to high.
    pub pitch: f64,
    /// From short to long.
    pub length: f64,
    /// From dull to bright.
    pub brightness: f64,
    /// Something else of each kind: the interval of a coin, the speed of an alarm.
    pub variation: f64,
}

impl Default for EffectParameters {
    /// The middle of every range.
    fn default() -> Self {
        Self {
            pitch: 0.5,
            length: 0.5,
            brightness: 0.5,
            variation: 0.5,
        }
    }
}

impl EffectParameters {
    /// Independent uniform parameters.
    pub fn random(rng: &mut Rng) -> Self {
        let values = rng.uniform_vec(4, 0.0, 1.0);
        let [pitch, length, brightness, variation]: [f64; 4] =
            std::array::from_fn(|index| f64::from(values[index]));
        Self {
            pitch,
            length,
            brightness,
            variation,
        }
    }

    /// Fails if one is not from 0 to 1.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [
            ("pitch", self.pitch),
            ("length", self.length),
            ("brightness", self.brightness),
            ("variation", self.variation),
        ] {
            in_range(field, value, 0.0..=1.0)?;
        }
        Ok(())
    }
}

/// A data set of effects with random parameters, rendered when they are read. Item `index` has the
/// kind `index % 8`, which is its label.
///
/// ```
/// use aigc_core::data::{Dataset, effects::Effects};
///
/// # fn main() -> aigc_core::Result<()> {
/// let effects = Effects::new(800, 8000, 0)?;
/// let bell = effects.get(4)?;
/// assert_eq!((bell.label, bell.wave.len()), (Some(4), 8000));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Effects {
    len: usize,
    sample_rate: u32,
    seed: u64,
}

impl Effects {
    /// `len` effects of `sample_rate` samples per second. Another seed gives other parameters and
    /// other noise.
    ///
    /// # Errors
    /// [`Error::Config`] if there are none, or the rate is not from 4,000 to 192,000.
    pub fn new(len: usize, sample_rate: u32, seed: u64) -> Result<Self> {
        ensure(len > 0, "len", len, "at least one effect")?;
        render::check_rate(sample_rate)?;
        Ok(Self {
            len,
            sample_rate,
            seed,
        })
    }

    /// Kind and parameters of an item.
    ///
    /// # Panics
    /// If `index` is not below the number of items.
    pub fn parameters(&self, index: usize) -> (EffectKind, EffectParameters) {
        assert!(index < self.len, "effect {index} of {}", self.len);
        let mut rng = Rng::stream(self.seed, "data/effects", index as u64);
        let kind = EffectKind::ALL[index % EffectKind::ALL.len()];
        (kind, EffectParameters::random(&mut rng))
    }
}

impl Dataset for Effects {
    type Item = Sound;

    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, index: usize) -> Result<Sound> {
        let (kind, parameters) = self.parameters(index);
        let noise = Rng::stream(self.seed, "data/effects/noise", index as u64).next_u64();
        let wave = render(kind, &parameters, noise, self.sample_rate)?;
        Ok(Sound {
            len: wave.len(),
            wave,
            label: Some(kind as u32),
        })
    }
}

#[cfg(test)]
mod tests;
