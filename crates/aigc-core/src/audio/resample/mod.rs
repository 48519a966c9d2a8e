//! Other sample rates.
//!
//! The two filters work alike: an output sample is a weighted sum of the input samples around it,
//! and the weights repeat after `to / gcd(from, to)` samples. They are computed once.

mod bank;
mod design;
mod fft;

pub use design::polyphase_taps;

use super::Waveform;
use crate::{
    Result,
    check::{ensure, ensure_argument, in_range},
};
use bank::Bank;
use serde::{Deserialize, Serialize};

/// Limit on the number of weights: rates without a common divisor have many.
const MAX_TAPS: f64 = (1 << 25) as f64;
/// Largest shape of a Kaiser window, far above any in use.
const MAX_BETA: f64 = 100.0;
/// Limit on the ratio of rates: a file that claims 1 Hz must not fill the memory.
const MAX_RATIO: u32 = 256;

/// How the sample rate of a sound is changed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum Resampler {
    /// An ideal low-pass filter cut off by a window, exact for every output sample (as
    /// `torchaudio.functional.resample`; Smith, Digital Audio Resampling,
    /// <https://ccrma.stanford.edu/~jos/resample/>).
    WindowedSinc {
        /// Number of zero crossings on each side: more are sharper and slower.
        lowpass_filter_width: usize,
        /// The edge of the filter, as a part of half the lower rate.
        rolloff: f64,
        /// What cuts the filter off.
        window: SincWindow,
    },
    /// A filter of finite length at the common multiple of both rates (as
    /// `scipy.signal.resample_poly`).
    Polyphase {
        /// Zero crossings on each side; scipy has 10.
        zero_crossings: usize,
        /// Shape of the Kaiser window; scipy has 5.
        beta: f64,
    },
    /// The spectrum of the whole sound, cut or continued by zeros (as `scipy.signal.resample`). It
    /// takes the sound for periodic: its end rings into its beginning.
    Fft,
}

/// The window of [`Resampler::WindowedSinc`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SincWindow {
    /// A period of a squared cosine.
    #[default]
    Hann,
    /// Kaiser's window.
    Kaiser {
        /// Its shape; larger values damp more and cut less sharply.
        beta: f64,
    },
}

impl Default for Resampler {
    /// torchaudio's: six zero crossings, a roll-off of 0.99, Hann's window.
    fn default() -> Self {
        Self::WindowedSinc {
            lowpass_filter_width: 6,
            rolloff: 0.99,
            window: SincWindow::Hann,
        }
    }
}

impl Resampler {
    /// scipy's filter: ten zero crossings, a Kaiser window of 5.
    pub fn polyphase() -> Self {
        Self::Polyphase {
            zero_crossings: 10,
            beta: 5.0,
        }
    }

    /// The filter that resampy and torchaudio call `kaiser_best`: 64 zero crossings.
    pub fn kaiser_best() -> Self {
        Self::WindowedSinc {
            lowpass_filter_width: 64,
            rolloff: 0.9475937167399596,
            window: SincWindow::Kaiser {
                beta: 14.769656459379492,
            },
        }
    }

    /// Checks the fields.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        let shape = |beta: f64| in_range("beta", beta, 0.0..=MAX_BETA);
        match *self {
            Self::WindowedSinc {
                lowpass_filter_width,
                rolloff,
                window,
            } => {
                in_range("lowpass_filter_width", lowpass_filter_width, 1..=1024)?;
                let expected = "above 0, at most 1";
                ensure(
                    rolloff > 0.0 && rolloff <= 1.0,
                    "rolloff",
                    rolloff,
                    expected,
                )?;
                match window {
                    SincWindow::Hann => Ok(()),
                    SincWindow::Kaiser { beta } => shape(beta),
                }
            }
            Self::Polyphase {
                zero_crossings,
                beta,
            } => {
                in_range("zero_crossings", zero_crossings, 1..=1024)?;
                shape(beta)
            }
            Self::Fft => Ok(()),
        }
    }

    /// Computes the filter between two rates, for many sounds.
    ///
    /// # Errors
    /// As for [`validate`](Self::validate);
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if a rate is 0, if `to` is more
    /// than 256 times `from`, or if the filter between the rates would be too large.
    pub fn init(&self, from: u32, to: u32) -> Result<Resample> {
        self.validate()?;
        check_rates(from, to)?;
        let divisor = gcd(from, to);
        let (down, up) = ((from / divisor) as usize, (to / divisor) as usize);
        let method = match *self {
            _ if from == to => Method::Same,
            Self::WindowedSinc {
                lowpass_filter_width: width,
                rolloff,
                window,
            } => {
                check_size(2.0 * width as f64 / rolloff, from, to)?;
                Method::Bank(Bank::windowed_sinc(down, up, width, rolloff, window))
            }
            Self::Polyphase {
                zero_crossings,
                beta,
            } => {
                check_size(2.0 * zero_crossings as f64, from, to)?;
                Method::Bank(Bank::polyphase(down, up, zero_crossings, beta))
            }
            Self::Fft => Method::Fft,
        };
        Ok(Resample {
            method,
            from,
            to,
            down,
            up,
        })
    }

    /// The sound with another sample rate. Its length becomes `len·to/from`, rounded up.
    ///
    /// # Errors
    /// As for [`init`](Self::init).
    pub fn resample(&self, wave: &Waveform, sample_rate: u32) -> Result<Waveform> {
        self.init(wave.sample_rate(), sample_rate)?.forward(wave)
    }
}

/// The change between two sample rates.
#[derive(Clone, Debug)]
pub struct Resample {
    method: Method,
    from: u32,
    to: u32,
    /// The rates without their common divisor.
    down: usize,
    up: usize,
}

#[derive(Clone, Debug)]
enum Method {
    Same,
    Bank(Bank),
    Fft,
}

impl Resample {
    /// The sound with the other sample rate.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if its rate is not the one that
    /// this was made for.
    pub fn forward(&self, wave: &Waveform) -> Result<Waveform> {
        ensure_argument(
            wave.sample_rate() == self.from,
            "wave",
            format!("{} Hz", wave.sample_rate()),
            &format!("{} Hz", self.from),
        )?;
        let channels = wave.channels().iter().map(|x| self.apply(x)).collect();
        Waveform::new(channels, self.to)
    }

    /// The samples of one channel with the other rate.
    pub fn apply(&self, samples: &[f32]) -> Vec<f32> {
        let len = self.output_len(samples.len());
        match &self.method {
            Method::Same => samples.to_vec(),
            Method::Bank(bank) => bank.apply(samples, len),
            Method::Fft => fft::resample(samples, len),
        }
    }

    /// Number of samples that `len` samples become.
    pub fn output_len(&self, len: usize) -> usize {
        // With 128 bits no product is too large; the ratio is at most 256.
        let product = len as u128 * self.up as u128;
        usize::try_from(product.div_ceil(self.down as u128)).unwrap_or(usize::MAX)
    }
}

fn check_rates(from: u32, to: u32) -> Result<()> {
    let expected = "at least 1 sample per second";
    ensure_argument(from > 0, "from", from, expected)?;
    ensure_argument(to > 0, "sample_rate", to, expected)?;
    ensure_argument(
        to <= from.saturating_mul(MAX_RATIO),
        "sample_rate",
        to,
        &format!("at most {MAX_RATIO} times the {from} Hz of the sound"),
    )
}

/// Fails if a filter that is `width` samples of the lower rate long has too many weights.
fn check_size(width: f64, from: u32, to: u32) -> Result<()> {
    let divisor = f64::from(gcd(from, to));
    let (larger, up) = (f64::from(from.max(to)) / divisor, f64::from(to) / divisor);
    // Each phase is rounded up to whole lanes.
    let taps = width * larger + bank::LANES as f64 * up;
    ensure_argument(
        taps <= MAX_TAPS,
        "sample_rate",
        to,
        &format!("a rate with a larger common divisor with {from}, or the method `fft`"),
    )
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests;
