//! The delays of the streams.

use aigc_core::{Error, Result, check::ensure_argument};
use burn::tensor::{Int, Tensor};

/// Longest delay of a stream, in steps.
const LONGEST: usize = 1 << 12;

/// Delays of the codebooks, in steps (Copet et al. 2023, <https://arxiv.org/abs/2306.05284>,
/// section 2.2): step `s` of the model holds the code of frame `s − delay` in every codebook. Where
/// that is no frame, at the beginning and at the end, the place is empty and holds a special token.
///
/// With delays 0, 1, 2 and three frames:
///
/// ```text
/// step         0  1  2  3  4
/// codebook 0   a0 a1 a2 ·  ·
/// codebook 1   ·  b0 b1 b2 ·
/// codebook 2   ·  ·  c0 c1 c2
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelayPattern {
    delays: Vec<usize>,
}

impl DelayPattern {
    /// A pattern of these delays, one for each codebook.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] without codebooks, or for a delay above 4,096.
    pub fn new(delays: Vec<usize>) -> Result<Self> {
        ensure_argument(
            !delays.is_empty(),
            "delays",
            "empty",
            "a delay for each codebook",
        )?;
        if let Some(delay) = delays.iter().find(|delay| **delay > LONGEST) {
            let expected = format!("delays of at most {LONGEST}");
            return Err(Error::argument("delays", delay, expected));
        }
        Ok(Self { delays })
    }

    /// Each codebook one step after the one before it, as in MusicGen.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn consecutive(num_codebooks: usize) -> Result<Self> {
        Self::of(num_codebooks, |index| index)
    }

    /// Codebooks of the left and the right channel in turns, as in the stereo models of MusicGen:
    /// each pair is one step after the pair before it.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn stereo(num_codebooks: usize) -> Result<Self> {
        Self::of(num_codebooks, |index| index / 2)
    }

    fn of(num_codebooks: usize, delay: impl Fn(usize) -> usize) -> Result<Self> {
        ensure_argument(
            (1..=LONGEST).contains(&num_codebooks),
            "num_codebooks",
            num_codebooks,
            &format!("1 to {LONGEST}"),
        )?;
        Self::new((0..num_codebooks).map(delay).collect())
    }

    /// The delay of each codebook.
    pub fn delays(&self) -> &[usize] {
        &self.delays
    }

    /// Number of codebooks.
    pub fn num_codebooks(&self) -> usize {
        self.delays.len()
    }

    /// The longest delay.
    pub fn max_delay(&self) -> usize {
        self.delays.iter().copied().max().unwrap_or(0)
    }

    /// Steps that contain `frames` frames.
    pub fn steps(&self, frames: usize) -> usize {
        frames.saturating_add(self.max_delay())
    }

    /// Frames that `steps` steps contain.
    pub fn frames(&self, steps: usize) -> usize {
        steps.saturating_sub(self.max_delay())
    }

    /// The frame of a codebook at a step, of `frames` frames; `None` for an empty place.
    ///
    /// # Panics
    /// If there is no such codebook.
    pub fn frame_at(&self, codebook: usize, step: usize, frames: usize) -> Option<usize> {
        let frame = step.checked_sub(self.delays[codebook])?;
        (frame < frames).then_some(frame)
    }

    /// Shifts codes by the delays; empty places hold `pad`.
    ///
    /// # Shapes
    /// - codes: `[batch, codebooks, frames]`
    /// - output: `[batch, codebooks, steps]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another number of codebooks, or no frames.
    pub fn encode(&self, codes: Tensor<3, Int>, pad: u32) -> Result<Tensor<3, Int>> {
        self.check("codes", &codes, 1)?;
        let most = self.max_delay();
        let streams = self.delays.iter().enumerate().map(|(index, delay)| {
            let stream = codes.clone().narrow(1, index, 1);
            let empty = stream.clone().narrow(2, 0, 1).full_like(pad as i32);
            let places = |count: usize| (count > 0).then(|| empty.clone().repeat_dim(2, count));
            let parts = [places(*delay), Some(stream), places(most - delay)];
            Tensor::cat(parts.into_iter().flatten().collect(), 2)
        });
        Ok(Tensor::cat(streams.collect(), 1))
    }

    /// Undoes [`encode`](Self::encode): the codes of whole frames.
    ///
    /// # Shapes
    /// - tokens: `[batch, codebooks, steps]`
    /// - output: `[batch, codebooks, frames]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another number of codebooks, or too few steps for a frame.
    pub fn decode(&self, tokens: Tensor<3, Int>) -> Result<Tensor<3, Int>> {
        self.check("tokens", &tokens, self.steps(1))?;
        let frames = self.frames(tokens.dims()[2]);
        let stream = |(index, delay): (usize, &usize)| {
            tokens.clone().narrow(1, index, 1).narrow(2, *delay, frames)
        };
        let streams = self.delays.iter().enumerate().map(stream);
        Ok(Tensor::cat(streams.collect(), 1))
    }

    fn check(&self, argument: &str, of: &Tensor<3, Int>, least: usize) -> Result<()> {
        let [_, codebooks, steps] = of.dims();
        ensure_argument(
            codebooks == self.num_codebooks() && steps >= least,
            argument,
            format!("{codebooks} codebooks of {steps} places"),
            &format!(
                "{} codebooks of at least {least}, as the delay pattern has",
                self.num_codebooks()
            ),
        )
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    fn ints(x: Tensor<3, Int>) -> Vec<i64> {
        x.into_data().iter::<i64>().collect()
    }

    fn codes(shape: [usize; 3]) -> Tensor<3, Int> {
        let values: Vec<i32> = (1..=shape.iter().product::<usize>() as i32).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    #[test]
    fn codes_are_shifted_and_shifted_back() {
        let pattern = DelayPattern::consecutive(3).unwrap();
        let shifted = pattern.encode(codes([1, 3, 2]), 9).unwrap();
        let expected = [1, 2, 9, 9, 9, 3, 4, 9, 9, 9, 5, 6];
        assert_eq!(ints(shifted.clone()), expected);
        assert_eq!(
            ints(pattern.decode(shifted).unwrap()),
            ints(codes([1, 3, 2]))
        );
        let stereo = DelayPattern::stereo(4).unwrap();
        assert_eq!(stereo.delays(), [0, 0, 1, 1]);
        let shifted = stereo.encode(codes([2, 4, 3]), 99).unwrap();
        assert_eq!(shifted.dims(), [2, 4, 4]);
        assert_eq!(
            ints(stereo.decode(shifted).unwrap()),
            ints(codes([2, 4, 3]))
        );
    }

    #[test]
    fn places_hold_frames_or_nothing() {
        let pattern = DelayPattern::new(vec![0, 2, 1]).unwrap();
        assert_eq!((pattern.max_delay(), pattern.steps(5)), (2, 7));
        assert_eq!((pattern.frames(7), pattern.frames(1)), (5, 0));
        let found: Vec<_> = (0..7).map(|step| pattern.frame_at(1, step, 5)).collect();
        let frames = [None, None, Some(0), Some(1), Some(2), Some(3), Some(4)];
        assert_eq!(found, frames);
        assert_eq!(pattern.frame_at(0, 5, 5), None);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let pattern = DelayPattern::consecutive(3).unwrap();
        let message = pattern.encode(codes([1, 2, 2]), 9).unwrap_err().to_string();
        assert!(
            message.contains("`codes` is 2 codebooks of 2 places"),
            "{message}"
        );
        let message = pattern.decode(codes([1, 3, 2])).unwrap_err().to_string();
        assert!(
            message.contains("expected 3 codebooks of at least 3"),
            "{message}"
        );
        assert!(DelayPattern::new(vec![]).is_err());
        assert!(DelayPattern::new(vec![0, usize::MAX]).is_err());
        assert!(DelayPattern::consecutive(0).is_err());
    }
}
