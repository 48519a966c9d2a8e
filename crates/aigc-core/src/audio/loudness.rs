//! Loudness of programmes in LUFS (ITU-R BS.1770-4).

use super::Waveform;
use crate::{Result, check::ensure_argument};
use std::f64::consts::PI;

/// Blocks overlap by three quarters: a block is four steps of 0.1 s.
const STEPS_PER_BLOCK: usize = 4;
/// Steps per second.
const STEPS: f64 = 10.0;
/// Blocks below this loudness are silence.
const ABSOLUTE_GATE: f64 = -70.0;
/// Blocks this far below the mean of the others, in decibels, are pauses.
const RELATIVE_GATE: f64 = -10.0;
/// Lowest rate whose band holds what the filters weight.
const MIN_RATE: u32 = 4000;

/// The integrated loudness of a sound in LUFS; minus infinity for silence.
///
/// A sine of 997 Hz and full scale in one front channel has −3.01 LUFS. Five and six channels are
/// left, right, centre, (low frequencies,) left and right surround, four are without centre; low
/// frequencies do not count. Other numbers of channels count alike.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the sound is shorter than a block
/// of 0.4 s, or its rate below 4 kHz.
pub fn integrated_loudness(wave: &Waveform) -> Result<f64> {
    ensure_argument(
        wave.sample_rate() >= MIN_RATE,
        "wave",
        format!("{} Hz", wave.sample_rate()),
        &format!("{MIN_RATE} Hz or more"),
    )?;
    let rate = f64::from(wave.sample_rate());
    let step = (rate / STEPS).round() as usize;
    ensure_argument(
        wave.len() >= STEPS_PER_BLOCK * step,
        "wave",
        format!("{:.3} seconds long", wave.seconds()),
        "a sound of at least 0.4 seconds",
    )?;
    let mut steps = vec![0.0; wave.len() / step];
    for (index, channel) in wave.channels().iter().enumerate() {
        let weight = channel_weight(index, wave.num_channels());
        if weight > 0.0 {
            add_steps(&mut steps, channel, step, weight, rate);
        }
    }
    let samples = (STEPS_PER_BLOCK * step) as f64;
    let blocks: Vec<f64> = steps
        .windows(STEPS_PER_BLOCK)
        .map(|steps| steps.iter().sum::<f64>() / samples)
        .collect();
    let Some(power) = mean_above(&blocks, ABSOLUTE_GATE) else {
        return Ok(f64::NEG_INFINITY);
    };
    // Never above the loudest block, so there is one at least.
    let gate = (loudness(power) + RELATIVE_GATE).max(ABSOLUTE_GATE);
    Ok(loudness(mean_above(&blocks, gate).unwrap_or(power)))
}

impl Waveform {
    /// [`integrated_loudness`].
    ///
    /// # Errors
    /// As for [`integrated_loudness`].
    pub fn loudness(&self) -> Result<f64> {
        integrated_loudness(self)
    }

    /// Scaled to an integrated loudness in LUFS, as −23 (EBU R 128) or −14; silence stays. The
    /// result may have samples beyond `[-1, 1]`.
    ///
    /// # Errors
    /// As for [`integrated_loudness`]; if `lufs` is not from −200 to 200.
    pub fn normalize_loudness(&self, lufs: f64) -> Result<Self> {
        // Beyond them the gain may be infinite in 32 bits.
        let in_range = (-200.0..=200.0).contains(&lufs);
        ensure_argument(in_range, "lufs", lufs, "-200 to 200, as -23")?;
        let found = self.loudness()?;
        if !found.is_finite() {
            return Ok(self.clone());
        }
        Ok(self.scale(10f64.powf((lufs - found) / 20.0) as f32))
    }
}

fn loudness(power: f64) -> f64 {
    -0.691 + 10.0 * power.log10()
}

/// The mean power of the blocks above a loudness, if there are any.
fn mean_above(blocks: &[f64], gate: f64) -> Option<f64> {
    let (sum, count) = blocks
        .iter()
        .filter(|power| loudness(**power) > gate)
        .fold((0.0f64, 0usize), |(sum, count), power| {
            (sum + *power, count + 1)
        });
    (count > 0).then(|| sum / count as f64)
}

/// The standard's weights; sound from behind seems louder.
fn channel_weight(index: usize, channels: usize) -> f64 {
    const SURROUND: f64 = 1.41;
    match (channels, index) {
        (4, 2..) | (5, 3..) | (6, 4..) => SURROUND,
        (6, 3) => 0.0,
        _ => 1.0,
    }
}

/// Adds the energy of each step of a channel.
fn add_steps(steps: &mut [f64], channel: &[f32], step: usize, weight: f64, rate: f64) {
    let (mut head, mut low) = (Biquad::head(rate), Biquad::low_cut(rate));
    for (sum, samples) in steps.iter_mut().zip(channel.chunks_exact(step)) {
        let energy: f64 = samples
            .iter()
            .map(|x| low.next(head.next(f64::from(*x))).powi(2))
            .sum();
        *sum += weight * energy;
    }
}

/// A filter of second order.
struct Biquad {
    /// Coefficients of the input, of this sample and the two before.
    b: [f64; 3],
    /// Coefficients of the two outputs before.
    a: [f64; 2],
    /// State (transposed direct form II).
    state: [f64; 2],
}

impl Biquad {
    /// The first filter: the effect of a listener's head, which raises frequencies above some
    /// 1.5 kHz by 4 dB.
    ///
    /// The standard has coefficients for 48 kHz only. These numbers are the analog filter whose
    /// bilinear transform they are, so other rates get the same curve.
    fn head(rate: f64) -> Self {
        const FREQUENCY: f64 = 1681.974450955533;
        const GAIN_DB: f64 = 3.999843853973347;
        const Q: f64 = 0.7071752369554196;
        // The gain in the middle of the slope is a little less than half that above.
        const MIDDLE: f64 = 0.4996667741545416;
        let k = (PI * FREQUENCY / rate).tan();
        let high = 10f64.powf(GAIN_DB / 20.0);
        let middle = high.powf(MIDDLE);
        let scale = 1.0 + k / Q + k * k;
        Self {
            b: [
                (high + middle * k / Q + k * k) / scale,
                2.0 * (k * k - high) / scale,
                (high - middle * k / Q + k * k) / scale,
            ],
            a: denominator(k, Q),
            state: [0.0; 2],
        }
    }

    /// The second filter: low frequencies seem quieter.
    fn low_cut(rate: f64) -> Self {
        const FREQUENCY: f64 = 38.13547087602444;
        const Q: f64 = 0.5003270373238773;
        Self {
            // The standard does not normalise them.
            b: [1.0, -2.0, 1.0],
            a: denominator((PI * FREQUENCY / rate).tan(), Q),
            state: [0.0; 2],
        }
    }

    fn next(&mut self, x: f64) -> f64 {
        let y = self.b[0] * x + self.state[0];
        self.state = [
            self.b[1] * x - self.a[0] * y + self.state[1],
            self.b[2] * x - self.a[1] * y,
        ];
        y
    }
}

fn denominator(k: f64, q: f64) -> [f64; 2] {
    let scale = 1.0 + k / q + k * k;
    [2.0 * (k * k - 1.0) / scale, (1.0 - k / q + k * k) / scale]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tones of 997 Hz one after the other: decibels below full scale, seconds.
    fn tones(parts: &[(f64, f64)], rate: u32) -> Vec<f32> {
        let mut samples = vec![];
        for (level, seconds) in parts {
            let size = 10f64.powf(level / 20.0);
            let len = (seconds * f64::from(rate)) as usize;
            let phase = 2.0 * PI * 997.0 / f64::from(rate);
            samples.extend((0..len).map(|i| (size * (phase * i as f64).sin()) as f32));
        }
        samples
    }

    fn stereo(parts: &[(f64, f64)]) -> f64 {
        let channel = tones(parts, 48_000);
        let wave = Waveform::new(vec![channel.clone(), channel], 48_000).unwrap();
        wave.loudness().unwrap()
    }

    #[test]
    fn coefficients_are_those_of_the_standard() {
        let (head, low) = (Biquad::head(48_000.0), Biquad::low_cut(48_000.0));
        let found = [head.b.as_slice(), &head.a, &low.a].concat();
        let expected = [
            1.53512485958697,
            -2.69169618940638,
            1.19839281085285,
            -1.69065929318241,
            0.73248077421585,
            -1.99004745483398,
            0.99007225036621,
        ];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-13, "{found} {expected}");
        }
    }

    #[test]
    fn a_full_scale_tone_has_its_loudness_at_every_rate() {
        for rate in [16_000, 44_100, 48_000, 96_000] {
            let tone = Waveform::mono(tones(&[(0.0, 3.0)], rate), rate).unwrap();
            let found = tone.loudness().unwrap();
            assert!((found + 3.01).abs() < 0.06, "{rate}: {found}");
            // The other channel is silent.
            let silence = vec![0.0; tone.len()];
            let wave = Waveform::new(vec![silence, tone.channel(0).to_vec()], rate).unwrap();
            assert!((wave.loudness().unwrap() - found).abs() < 1e-9);
        }
    }

    /// The signals of EBU Tech 3341, tests 1 to 4, with shorter tones.
    #[test]
    fn pauses_are_gated() {
        for (parts, expected) in [
            (&[(-23.0, 4.0)][..], -23.0),
            (&[(-33.0, 4.0)], -33.0),
            (&[(-36.0, 3.0), (-23.0, 30.0), (-36.0, 3.0)], -23.0),
            (
                &[(-72.0, 2.0), (-36.0, 2.0), (-23.0, 30.0), (-72.0, 2.0)],
                -23.0,
            ),
        ] {
            let found = stereo(parts);
            assert!((found - expected).abs() < 0.1, "{parts:?}: {found}");
        }
    }

    #[test]
    fn surround_counts_more_and_low_frequencies_do_not_count() {
        // EBU Tech 3341, test 6.
        let levels = [-28.0, -28.0, -24.0, -30.0, -30.0];
        let mut channels: Vec<Vec<f32>> = levels
            .iter()
            .map(|level| tones(&[(*level, 2.0)], 48_000))
            .collect();
        let five = Waveform::new(channels.clone(), 48_000).unwrap();
        let found = five.loudness().unwrap();
        assert!((found + 23.0).abs() < 0.1, "{found}");
        channels.insert(3, tones(&[(0.0, 2.0)], 48_000));
        let six = Waveform::new(channels, 48_000).unwrap();
        assert!((six.loudness().unwrap() - found).abs() < 1e-9);
    }

    #[test]
    fn loudness_is_set() {
        let tone = Waveform::mono(tones(&[(-10.0, 1.0)], 16_000), 16_000).unwrap();
        let found = tone.normalize_loudness(-20.0).unwrap().loudness().unwrap();
        assert!((found + 20.0).abs() < 1e-4, "{found}");
        let silence = Waveform::silence(2, 16_000, 16_000).unwrap();
        assert_eq!(silence.loudness().unwrap(), f64::NEG_INFINITY);
        assert_eq!(silence.normalize_loudness(-20.0).unwrap(), silence);
        for lufs in [f64::NAN, 1e4, f64::NEG_INFINITY] {
            assert!(tone.normalize_loudness(lufs).is_err());
        }
        let short = tone.slice(0, 6000).unwrap().loudness().unwrap_err();
        assert!(short.to_string().contains("0.375 seconds"), "{short}");
        let low = Waveform::silence(1, 4000, 2000).unwrap().loudness();
        assert!(low.unwrap_err().to_string().contains("2000 Hz"));
    }
}
