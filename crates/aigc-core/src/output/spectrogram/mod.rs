//! Pictures of spectra over time.

mod axes;

use super::figure::{Figure, PAPER, heat};
use crate::{
    Error, Result,
    check::{ensure, in_range},
    dsp::{Frames, LogStyle, MelConfig, StftConfig},
};
use axes::Axes;
use image::RgbImage;

/// Decibels below the loudest value that are shown by default.
const DECIBELS: f64 = 80.0;

/// Draws spectrograms: time to the right in seconds, frequency upwards, and a scale of colours.
///
/// ```
/// use aigc_core::{dsp::StftConfig, output::SpectrogramPlot};
///
/// # fn main() -> aigc_core::Result<()> {
/// let tone: Vec<f32> = (0..8000).map(|t| (0.5 * t as f32).sin()).collect();
/// let figure = SpectrogramPlot::default().draw_wave(&tone, 8000, &StftConfig::new(256, 64))?;
/// assert!(figure.png().starts_with(b"\x89PNG"));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpectrogramPlot {
    /// Width of the drawn spectrum in pixels, without labels.
    pub width: u32,
    /// Height of the drawn spectrum in pixels.
    pub height: u32,
    /// The values drawn darkest and lightest: of sound, decibels relative to a tone of amplitude 1;
    /// of mels, log-mels. `None`: of sound, the loudest value is 0 decibels and −80 is the darkest;
    /// of mels, the smallest and the largest value. Pictures that are compared need the same range.
    pub range: Option<(f64, f64)>,
}

impl Default for SpectrogramPlot {
    fn default() -> Self {
        Self {
            width: 800,
            height: 320,
            range: None,
        }
    }
}

/// Values over time and frequency, and what they mean.
struct Content<'a> {
    /// `[frames, width]`
    values: &'a Frames,
    seconds: f64,
    /// The row of a frequency in hertz, from the lowest up; the ends of a row are whole numbers.
    row: &'a dyn Fn(f64) -> f64,
    hertz: (f64, f64),
    range: (f64, f64),
    unit: &'static str,
}

impl SpectrogramPlot {
    /// Draws the magnitudes of a signal in decibels relative to the largest, or to those of a tone
    /// of amplitude 1 if a [range](Self::range) is set.
    ///
    /// # Errors
    /// [`Error::Config`] if a size or the range is invalid; [`Error::InvalidArgument`] if
    /// `sample_rate` is 0, or there are too few samples for a frame.
    pub fn draw_wave(
        &self,
        samples: &[f32],
        sample_rate: u32,
        stft: &StftConfig,
    ) -> Result<Figure> {
        self.validate()?;
        if sample_rate == 0 {
            return Err(Error::argument("sample_rate", 0, "at least 1"));
        }
        let power = stft.init()?.power(samples)?;
        let largest = power.values().iter().copied().fold(0.0, f64::max);
        let full = match self.range {
            None if largest > 0.0 => largest,
            _ => full_scale(stft),
        };
        let decibels = |value: &f64| 10.0 * (value / full).max(1e-30).log10();
        let values = power.values().iter().map(decibels).collect();
        let values = Frames::new(values, power.width())?;
        let (rate, bins) = (f64::from(sample_rate), power.width() as f64);
        self.draw(&Content {
            values: &values,
            seconds: samples.len() as f64 / rate,
            // Bins are centred on their frequencies.
            row: &|hertz| hertz / (rate / 2.0) * (bins - 1.0) + 0.5,
            hertz: (0.0, rate / 2.0),
            range: self.range.unwrap_or((-DECIBELS, 0.0)),
            unit: "dB",
        })
    }

    /// Draws a log-mel spectrum of this configuration.
    ///
    /// # Errors
    /// [`Error::Config`] if a size, the range or `config` is invalid; [`Error::InvalidArgument`] if
    /// there are no frames, or they do not have `n_mels` values.
    pub fn draw_log_mel(&self, log_mel: &Frames, config: &MelConfig) -> Result<Figure> {
        self.validate()?;
        config.validate()?;
        if log_mel.width() != config.n_mels {
            let expected = format!("{}, the number of mels", config.n_mels);
            return Err(Error::argument("log_mel", log_mel.width(), expected));
        }
        let finite = || log_mel.values().iter().copied().filter(|v| v.is_finite());
        let (low, high) = (
            finite().fold(f64::INFINITY, f64::min),
            finite().fold(f64::NEG_INFINITY, f64::max),
        );
        let whole = if low < high {
            (low, high)
        } else {
            (low - 1.0, low)
        };
        let (scale, mels) = (config.mel_scale, config.n_mels as f64);
        let (first, last) = (
            scale.from_hertz(config.f_min),
            scale.from_hertz(config.f_max),
        );
        let hop = config.hop_length as f64 / f64::from(config.sample_rate);
        self.draw(&Content {
            values: log_mel,
            seconds: log_mel.len() as f64 * hop,
            // The centre of filter `i` is `i + 1` of `n_mels + 1` steps above the lowest end.
            row: &|hertz| (scale.from_hertz(hertz) - first) / (last - first) * (mels + 1.0) - 0.5,
            hertz: (config.f_min, config.f_max),
            range: self.range.unwrap_or(whole),
            unit: match config.log_style {
                LogStyle::HifiGan => "ln",
                LogStyle::Decibel { .. } => "dB",
                _ => "log",
            },
        })
    }

    fn validate(&self) -> Result<()> {
        in_range("width", self.width, 16..=16_384)?;
        in_range("height", self.height, 16..=16_384)?;
        let (low, high) = self.range.unwrap_or((0.0, 1.0));
        ensure(
            low < high && (high - low).is_finite(),
            "range",
            format!("{low} to {high}"),
            "finite numbers, the smaller one first",
        )
    }

    fn draw(&self, content: &Content<'_>) -> Result<Figure> {
        let Content { values, range, .. } = content;
        if values.is_empty() || !range.0.is_finite() {
            return Err(Error::argument("frames", "none", "finite values of frames"));
        }
        let (width, height) = (self.width, self.height);
        let axes = Axes::new(content, width, height);
        let mut picture = RgbImage::from_pixel(axes.total.0, axes.total.1, PAPER);
        let (left, top) = axes.corner;
        for y in 0..height {
            let rows = covered(height - 1 - y, height, values.width());
            for x in 0..width {
                let (mut sum, mut count) = (0.0, 0.0);
                for frame in covered(x, width, values.len()) {
                    let cells = &values.frame(frame)[rows.clone()];
                    sum += cells.iter().sum::<f64>();
                    count += cells.len() as f64;
                }
                let share = (sum / count - range.0) / (range.1 - range.0);
                picture.put_pixel(left + x, top + y, heat(share));
            }
        }
        axes.draw(&mut picture, content, width, height);
        Figure::new(&picture)
    }
}

/// The power of a tone of amplitude 1 at its frequency.
fn full_scale(stft: &StftConfig) -> f64 {
    let window: f64 = stft.window.periodic(stft.win_length).iter().sum();
    let divisor = if stft.normalized {
        stft.n_fft as f64
    } else {
        1.0
    };
    (window / 2.0).powi(2) / divisor
}

/// The cells that pixel `at` of `pixels` covers, at least one.
fn covered(at: u32, pixels: u32, cells: usize) -> std::ops::Range<usize> {
    let edge = |at: u32| (u64::from(at) * cells as u64 / u64::from(pixels)) as usize;
    let first = edge(at);
    first..edge(at + 1).max(first + 1)
}

#[cfg(test)]
mod tests {
    use super::{
        axes::{GAP, TICK},
        *,
    };
    use crate::output::figure::{TEXT_HEIGHT, text_width};

    fn picture(figure: &Figure) -> RgbImage {
        image::load_from_memory(figure.png()).unwrap().into_rgb8()
    }

    fn brightness(picture: &RgbImage, x: u32, y: u32) -> u32 {
        picture
            .get_pixel(x, y)
            .0
            .iter()
            .map(|v| u32::from(*v))
            .sum()
    }

    /// A tone at a quarter of the band is a line at a quarter of the height.
    #[test]
    fn tone_is_a_line_at_its_frequency() {
        let samples: Vec<f32> = (0..4000)
            .map(|t| (f64::from(t) * std::f64::consts::FRAC_PI_4).sin() as f32)
            .collect();
        let plot = SpectrogramPlot {
            width: 200,
            height: 128,
            range: None,
        };
        let stft = StftConfig::new(256, 64);
        let figure = plot.draw_wave(&samples, 8000, &stft).unwrap();
        let picture = picture(&figure);
        let left = text_width("kHz") + TICK + 2 * GAP;
        let top = TEXT_HEIGHT + 2 * GAP;
        let column = left + 100;
        let loudest = (0..128)
            .max_by_key(|y| brightness(&picture, column, top + y))
            .unwrap();
        assert!(loudest.abs_diff(95) <= 1, "{loudest}");
        assert_eq!(picture.get_pixel(column, top).0, heat(0.0).0);
        assert_eq!(picture.get_pixel(0, 0), &PAPER);
    }

    /// A tone of amplitude 0.1 is 20 of 80 decibels below the lightest colour.
    #[test]
    fn ranges_are_relative_to_full_scale() {
        let tone = |t: i32| 0.1 * (f64::from(t) * std::f64::consts::FRAC_PI_4).sin();
        let samples: Vec<f32> = (0..4000).map(|t| tone(t) as f32).collect();
        let plot = SpectrogramPlot {
            width: 200,
            height: 128,
            range: Some((-80.0, 0.0)),
        };
        let (column, top) = (
            text_width("kHz") + TICK + 2 * GAP + 100,
            TEXT_HEIGHT + 2 * GAP,
        );
        for normalized in [false, true] {
            let stft = StftConfig {
                normalized,
                ..StftConfig::new(256, 64)
            };
            let picture = picture(&plot.draw_wave(&samples, 8000, &stft).unwrap());
            let lightest = (0..128)
                .max_by_key(|y| brightness(&picture, column, top + y))
                .unwrap();
            let found = picture.get_pixel(column, top + lightest).0;
            let mut pairs = found.iter().zip(heat(0.75).0);
            assert!(pairs.all(|(a, b)| a.abs_diff(b) <= 2), "{found:?}");
        }
    }

    #[test]
    fn mels_are_drawn_from_the_lowest_up() {
        let config = MelConfig::hifi_gan(8000, 256, 64, 16);
        let mut values = vec![-9.0; 16 * 10];
        values
            .iter_mut()
            .step_by(16)
            .for_each(|lowest| *lowest = 0.0);
        let frames = Frames::new(values, 16).unwrap();
        let plot = SpectrogramPlot {
            width: 40,
            height: 32,
            range: Some((-9.0, 0.0)),
        };
        let picture = picture(&plot.draw_log_mel(&frames, &config).unwrap());
        let (left, top) = (text_width("kHz") + TICK + 2 * GAP, TEXT_HEIGHT + 2 * GAP);
        assert_eq!(picture.get_pixel(left + 20, top + 31).0, heat(1.0).0);
        assert_eq!(picture.get_pixel(left + 20, top + 20).0, heat(0.0).0);
    }

    #[test]
    fn bad_input_is_named() {
        let plot = SpectrogramPlot::default();
        let stft = StftConfig::new(256, 64);
        let error = |result: Result<Figure>| result.unwrap_err().to_string();
        assert!(error(plot.draw_wave(&[0.0; 999], 0, &stft)).contains("`sample_rate`"));
        assert!(plot.draw_wave(&[], 8000, &stft).is_err());
        let silence = plot.draw_wave(&[0.0; 999], 8000, &stft);
        assert!(silence.is_ok());
        let none = SpectrogramPlot { width: 0, ..plot };
        assert!(error(none.draw_wave(&[0.0; 999], 8000, &stft)).contains("`width` is 0"));
        let empty = SpectrogramPlot {
            range: Some((1.0, 1.0)),
            ..plot
        };
        assert!(error(empty.draw_wave(&[0.0; 999], 8000, &stft)).contains("`range`"));
        let config = MelConfig::hifi_gan(8000, 256, 64, 16);
        let other = Frames::new(vec![0.0; 8], 8).unwrap();
        assert!(error(plot.draw_log_mel(&other, &config)).contains("`log_mel` is 8"));
        let nan = Frames::new(vec![f64::NAN; 16], 16).unwrap();
        assert!(error(plot.draw_log_mel(&nan, &config)).contains("`frames`"));
    }
}
