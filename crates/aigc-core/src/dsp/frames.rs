//! Values of frames, on the host.

use crate::{Result, check::ensure_argument};
use burn::tensor::{Device, Tensor, TensorData};

/// Rows of equal width, one for each frame of a signal: magnitudes, mel spectra, coefficients.
#[derive(Clone, Debug, PartialEq)]
pub struct Frames {
    values: Vec<f64>,
    width: usize,
}

impl Frames {
    /// `values` as rows of `width`: `[frames, width]`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `width` is 0, or the number of
    /// values is not a multiple of it.
    pub fn new(values: Vec<f64>, width: usize) -> Result<Self> {
        ensure_argument(width > 0, "width", width, "at least 1")?;
        ensure_argument(
            values.len().is_multiple_of(width),
            "values",
            values.len(),
            &format!("a multiple of the width {width}"),
        )?;
        Ok(Self { values, width })
    }

    /// Frames that the callers in this module have checked.
    pub(super) fn of(values: Vec<f64>, width: usize) -> Self {
        debug_assert!(width > 0 && values.len().is_multiple_of(width));
        Self { values, width }
    }

    /// Number of frames.
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Whether there are no frames.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Number of values in a frame.
    pub fn width(&self) -> usize {
        self.width
    }

    /// All values, `[frames, width]`, row by row.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The values of a frame.
    ///
    /// # Panics
    /// If there is no such frame.
    pub fn frame(&self, index: usize) -> &[f64] {
        &self.values[index * self.width..(index + 1) * self.width]
    }

    /// All values, `[width, frames]`, row by row, as PyTorch and librosa have them.
    pub fn transposed(&self) -> Vec<f64> {
        transposed(&self.values, self.width)
    }

    /// The values as a tensor, `[width, frames]`.
    pub fn to_tensor(&self, device: &Device) -> Tensor<2> {
        let values: Vec<f32> = self.transposed().iter().map(|x| *x as f32).collect();
        Tensor::from_data(TensorData::new(values, [self.width, self.len()]), device)
    }
}

/// `[columns, rows]` of `[rows, columns]`.
fn transposed(values: &[f64], columns: usize) -> Vec<f64> {
    let mut out = Vec::with_capacity(values.len());
    for column in 0..columns {
        out.extend(values.iter().skip(column).step_by(columns));
    }
    out
}

/// A complex spectrum of every frame of a signal.
#[derive(Clone, Debug, PartialEq)]
pub struct Spectrogram {
    re: Vec<f64>,
    im: Vec<f64>,
    bins: usize,
}

impl Spectrogram {
    /// Real and imaginary parts, `[frames, bins]`, row by row.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the numbers of values differ,
    /// `bins` is 0, or they are no multiple of it.
    pub fn new(re: Vec<f64>, im: Vec<f64>, bins: usize) -> Result<Self> {
        ensure_argument(bins > 0, "bins", bins, "at least 1")?;
        ensure_argument(
            re.len().is_multiple_of(bins),
            "re",
            re.len(),
            &format!("a multiple of the number of bins, {bins}"),
        )?;
        ensure_argument(
            im.len() == re.len(),
            "im",
            im.len(),
            &format!("{}, as many as real parts", re.len()),
        )?;
        Ok(Self { re, im, bins })
    }

    /// Number of frequencies.
    pub fn bins(&self) -> usize {
        self.bins
    }

    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.re.len() / self.bins
    }

    /// Real parts, `[frames, bins]`, row by row.
    pub fn re(&self) -> &[f64] {
        &self.re
    }

    /// Imaginary parts, `[frames, bins]`, row by row.
    pub fn im(&self) -> &[f64] {
        &self.im
    }

    /// Squared magnitudes.
    pub fn power(&self) -> Frames {
        let parts = self.re.iter().zip(&self.im);
        let power = parts.map(|(re, im)| re * re + im * im).collect();
        Frames::of(power, self.bins)
    }

    /// Magnitudes.
    pub fn magnitude(&self) -> Frames {
        let mut frames = self.power();
        frames.values.iter_mut().for_each(|x| *x = x.sqrt());
        frames
    }

    /// Angles of the complex values in radians, `[frames, bins]`, row by row.
    pub fn phase(&self) -> Vec<f64> {
        let parts = self.im.iter().zip(&self.re);
        parts.map(|(im, re)| im.atan2(*re)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_rows() {
        let frames = Frames::new(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3).unwrap();
        assert_eq!((frames.len(), frames.width()), (2, 3));
        assert_eq!(frames.frame(1), [4.0, 5.0, 6.0]);
        assert_eq!(frames.transposed(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert!(Frames::new(vec![1.0], 0).is_err());
        assert!(Frames::new(vec![1.0], 2).is_err());
    }

    #[test]
    fn spectrogram_has_magnitudes_and_phases() {
        let spectrogram = Spectrogram::new(vec![3.0, 0.0], vec![4.0, 2.0], 2).unwrap();
        assert_eq!(spectrogram.frames(), 1);
        assert_eq!(spectrogram.magnitude().values(), [5.0, 2.0]);
        assert_eq!(spectrogram.phase()[1], std::f64::consts::FRAC_PI_2);
        assert!(Spectrogram::new(vec![1.0], vec![], 1).is_err());
        assert!(Spectrogram::new(vec![], vec![], 0).is_err());
        assert!(Spectrogram::new(vec![1.0], vec![1.0], 2).is_err());
    }
}
