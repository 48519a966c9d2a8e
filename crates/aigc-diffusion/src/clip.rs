//! Keeping predicted images within their range.

use aigc_core::{Error, Result};
use burn::tensor::{Int, Tensor};

/// What is done to a predicted clean sample.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
#[non_exhaustive]
pub enum Clip {
    /// Predictions stay as they are.
    #[default]
    None,
    /// Values are kept within `[−range, range]`.
    Range(f64),
    /// Dynamic thresholding (Saharia et al. 2022, <https://arxiv.org/abs/2205.11487>, section 2.3):
    /// values are kept within `[−s, s]` and divided by `s`, the quantile `ratio` of a sample's
    /// absolute values, no less than 1 and no more than `max`.
    Dynamic {
        /// The quantile.
        ratio: f64,
        /// The largest `s`.
        max: f64,
    },
}

impl Clip {
    /// [`Clip::Range`] if `clip_sample`, otherwise [`Clip::None`].
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub(crate) fn range_if(clip_sample: bool, range: f64) -> Result<Self> {
        let clip = if clip_sample {
            Clip::Range(range)
        } else {
            Clip::None
        };
        clip.validate()?;
        Ok(clip)
    }

    /// # Errors
    /// [`Error::Config`] for a range of 0 or less, a ratio outside `[0, 1]`, or a largest threshold
    /// below 1.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Clip::Range(range) if range.is_nan() || range <= 0.0 => {
                Err(Error::config("clip_sample_range", range, "more than 0"))
            }
            Clip::Dynamic { ratio, .. } if !(0.0..=1.0).contains(&ratio) => {
                Err(Error::config("dynamic_thresholding_ratio", ratio, "0 to 1"))
            }
            Clip::Dynamic { max, .. } if max.is_nan() || max < 1.0 => {
                Err(Error::config("sample_max_value", max, "at least 1"))
            }
            _ => Ok(()),
        }
    }

    /// # Shapes
    /// - x0: `[batch, …]`, as is the output
    pub fn apply<const D: usize>(&self, x0: Tensor<D>) -> Tensor<D> {
        match *self {
            Clip::None => x0,
            Clip::Range(range) => x0.clamp(-range, range),
            Clip::Dynamic { ratio, max } => {
                let shape = x0.dims();
                let flat = x0.reshape([shape[0] as i32, -1]);
                let limit = quantile(flat.clone().abs(), ratio).clamp(1.0, max);
                let limit = limit.expand(flat.dims());
                (flat.max_pair(limit.clone().neg()).min_pair(limit.clone()) / limit).reshape(shape)
            }
        }
    }
}

/// The quantile of each row, linear between ranks: `[rows, n]` → `[rows, 1]`.
fn quantile(rows: Tensor<2>, ratio: f64) -> Tensor<2> {
    let [_, n] = rows.dims();
    let rank = ratio * (n - 1) as f64;
    let low = rank.floor() as usize;
    let high = (low + 1).min(n - 1);
    let device = rows.device();
    let sorted = rows.sort(1);
    let of = |rank: usize| {
        sorted
            .clone()
            .select(1, Tensor::<1, Int>::from_ints([rank as i32], &device))
    };
    let share = rank - low as f64;
    of(low) * (1.0 - share) + of(high) * share
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::device::device;

    #[test]
    fn thresholds_are_bounded_quantiles() {
        let flex = device("flex").unwrap();
        let x = Tensor::<3>::from_floats(
            [[[0.5, -4.0], [2.0, 1.0]], [[0.1, 0.2], [-0.3, 0.4]]],
            &flex,
        );
        let clip = |clip: Clip| {
            clip.apply(x.clone())
                .into_data()
                .iter::<f32>()
                .collect::<Vec<_>>()
        };
        assert_eq!(clip(Clip::None)[1], -4.0);
        assert_eq!(clip(Clip::Range(1.0))[..4], [0.5, -1.0, 1.0, 1.0]);
        // Of 0.5, 1, 2, 4 the median is 1.5; of the second sample it is below 1, so that stays as
        // it is.
        let halved = clip(Clip::Dynamic {
            ratio: 0.5,
            max: 10.0,
        });
        let expected = [0.5 / 1.5, -1.0, 1.0, 1.0 / 1.5, 0.1, 0.2, -0.3, 0.4];
        assert!(
            halved
                .iter()
                .zip(expected)
                .all(|(a, b)| (a - b).abs() < 1e-6),
            "{halved:?}"
        );
        let capped = clip(Clip::Dynamic {
            ratio: 1.0,
            max: 2.0,
        });
        assert!(
            capped[..4]
                .iter()
                .zip([0.25, -1.0, 1.0, 0.5])
                .all(|(a, b)| (a - b).abs() < 1e-6),
            "{capped:?}"
        );
    }

    #[test]
    fn clip_rejects_limits_by_name() {
        for (clip, field) in [
            (Clip::Range(0.0), "clip_sample_range"),
            (
                Clip::Dynamic {
                    ratio: 1.5,
                    max: 1.0,
                },
                "dynamic_thresholding_ratio",
            ),
            (
                Clip::Dynamic {
                    ratio: 0.9,
                    max: 0.5,
                },
                "sample_max_value",
            ),
        ] {
            assert!(clip.validate().unwrap_err().to_string().contains(field));
        }
    }
}
